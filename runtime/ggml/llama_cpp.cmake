# What 'make' changes about llama.cpp's own build. CMake reads this after every project() of llama-cpp-python:
#   CMAKE_ARGS="-DCMAKE_PROJECT_INCLUDE=<this file>"

# The common library holds the argument parsers, templates and downloads of llama.cpp's own tools. It is half of
# the compiling, and neither llama nor mtmd links it. llama-cpp-python forces the cached option on; a plain
# variable goes before it.
if (PROJECT_NAME STREQUAL "llama.cpp")
    set(LLAMA_BUILD_COMMON OFF)
endif()

# GCC below 12.4 and 13.3 takes the stores to AMX's tile configuration for dead ones (GCC bug 114098).
if (PROJECT_NAME STREQUAL "ggml" AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    add_compile_options("$<$<COMPILE_LANGUAGE:CXX>:-include${CMAKE_CURRENT_LIST_DIR}/amx_tiles.h>")
endif()
