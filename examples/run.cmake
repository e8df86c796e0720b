# SPDX-License-Identifier: MIT
# Runs PROGRAM, the example NAME. What the pages of ROOT show as its output must be what it prints, either to stdout or
# to stderr: each block
#
#     <!-- output: examples/NAME.cpp -->
#     ```text
#     some of its lines, one after the other
#     ```
cmake_minimum_required(VERSION 3.23)

execute_process(COMMAND ${PROGRAM} OUTPUT_VARIABLE printed ERROR_VARIABLE warned RESULT_VARIABLE code)
execute_process(COMMAND ${CMAKE_COMMAND} -E echo "${warned}${printed}")
if(NOT code EQUAL 0)
    message(FATAL_ERROR "${NAME} ended with ${code}")
endif()

set(begin "<!-- output: examples/${NAME}.cpp -->\n```text\n")
string(LENGTH "${begin}" length)
file(GLOB pages ${ROOT}/README.md ${ROOT}/docs/*.md ${ROOT}/docs/rooms/*.md)
foreach(page IN LISTS pages)
    file(READ ${page} text)
    while(TRUE)
        string(FIND "${text}" "${begin}" at)
        if(at EQUAL -1)
            break()
        endif()
        math(EXPR at "${at} + ${length}")
        string(SUBSTRING "${text}" ${at} -1 text)
        string(FIND "${text}" "```" end)
        string(SUBSTRING "${text}" 0 ${end} shown)
        string(FIND "${printed}" "${shown}" found)
        string(FIND "${warned}" "${shown}" found_in_warnings)
        if(found EQUAL -1 AND found_in_warnings EQUAL -1)
            message(FATAL_ERROR "${page} shows as the output of ${NAME}:\n${shown}")
        endif()
    endwhile()
endforeach()
