# SPDX-License-Identifier: MIT
# The outside libraries that tests, examples and benchmarks use: each a target, if it is installed.

find_path(ASIO_INCLUDE_DIR asio.hpp)
if(ASIO_INCLUDE_DIR)
    add_library(peer_asio INTERFACE)
    target_include_directories(peer_asio SYSTEM INTERFACE ${ASIO_INCLUDE_DIR})
    # asio 1.22, which Debian 12 has, does not know that Clang has coroutines.
    target_compile_definitions(peer_asio INTERFACE
        $<$<CXX_COMPILER_ID:Clang>:ASIO_HAS_CO_AWAIT=1>
        $<$<CXX_COMPILER_ID:Clang>:ASIO_HAS_STD_COROUTINE=1>)
endif()

find_package(Boost 1.81 CONFIG QUIET)
if(Boost_FOUND)
    add_library(peer_boost INTERFACE)
    target_link_libraries(peer_boost INTERFACE Boost::headers)
endif()

find_package(PkgConfig QUIET)
if(PkgConfig_FOUND)
    pkg_check_modules(UV QUIET IMPORTED_TARGET libuv)
endif()
if(UV_FOUND)
    add_library(peer_uv INTERFACE)
    target_link_libraries(peer_uv INTERFACE PkgConfig::UV)
endif()

find_package(TBB CONFIG QUIET)
if(TBB_FOUND)
    add_library(peer_tbb INTERFACE)
    target_link_libraries(peer_tbb INTERFACE TBB::tbb TBB::tbbmalloc)
endif()

if(TARGET peer_asio AND TARGET peer_boost)
    set_property(TARGET cordon APPEND PROPERTY INTERFACE_HEADER_SETS_TO_VERIFY interop)
endif()

# Links `target` with the named peers. One that is not installed is left out, or, after REQUIRED, an error.
function(cordon_link_peers target)
    cmake_parse_arguments(PARSE_ARGV 1 arg "REQUIRED" "" "")
    foreach(peer IN LISTS arg_UNPARSED_ARGUMENTS)
        if(TARGET peer_${peer})
            target_link_libraries(${target} PRIVATE peer_${peer})
        elseif(arg_REQUIRED)
            message(FATAL_ERROR "${target} needs ${peer}, which is not installed; see scripts/packages.txt")
        endif()
    endforeach()
endfunction()
