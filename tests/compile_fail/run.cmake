# SPDX-License-Identifier: MIT
# Compiles CASE and succeeds only if the compiler refuses it and prints the text of every `// expect: <text>` line.
# `// flags: <flag>` is one more flag.
file(STRINGS ${CASE} expected REGEX "^// expect: ")
file(STRINGS ${CASE} flags REGEX "^// flags: ")
list(TRANSFORM flags REPLACE "^// flags: " "")
if(NOT expected)
    message(FATAL_ERROR "${CASE} has no line `// expect: <text>`")
endif()
execute_process(
    COMMAND ${COMPILER} -std=c++20 -fsyntax-only ${flags} -I ${INCLUDE} ${CASE}
    RESULT_VARIABLE status OUTPUT_VARIABLE output ERROR_VARIABLE output)
if(status EQUAL 0)
    message(FATAL_ERROR "${CASE} compiles")
endif()
foreach(line IN LISTS expected)
    string(REGEX REPLACE "^// expect: " "" text "${line}")
    string(FIND "${output}" "${text}" at)
    if(at EQUAL -1)
        message(FATAL_ERROR "${CASE} is refused, but the compiler does not say: ${text}\n${output}")
    endif()
endforeach()
