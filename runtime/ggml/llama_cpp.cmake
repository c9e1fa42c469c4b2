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

# llama and mtmd have a file for each architecture, and many more that run once a load or put graphs together. What they
# take of the compiler is their headers, again and again, and optimizing that makes nothing sooner: they are compiled
# lightly and many at a time. What loops over tokens, texts, masks or pixels, and all of ggml that computes, stays as it was.
if (PROJECT_NAME STREQUAL "llama_cpp" AND NOT MSVC)
    function(compile_lightly library together hot alone)
        if (NOT TARGET ${library})
            return()
        endif()
        get_target_property(folder ${library} SOURCE_DIR)
        get_target_property(sources ${library} SOURCES)
        set(place 0)
        foreach(source ${sources})
            get_filename_component(name ${source} NAME)
            get_filename_component(source ${source} ABSOLUTE BASE_DIR ${folder})
            if (NOT name MATCHES "\\.cpp$")
                continue()
            elseif (name MATCHES "^(${hot})\\.cpp$")
                set(kept SKIP_UNITY_BUILD_INCLUSION ON COMPILE_OPTIONS -O3)
            elseif (name MATCHES "^(${alone})\\.cpp$")
                set(kept SKIP_UNITY_BUILD_INCLUSION ON)
            else()
                math(EXPR group "${place} / ${together}")
                math(EXPR place "${place} + 1")
                set(kept SKIP_UNITY_BUILD_INCLUSION OFF UNITY_GROUP ${library}-${group})
            endif()
            set_source_files_properties(${source} TARGET_DIRECTORY ${library} PROPERTIES ${kept})
        endforeach()
        set_target_properties(${library} PROPERTIES UNITY_BUILD ON UNITY_BUILD_MODE GROUP)
        target_compile_options(${library} PRIVATE -O1)
    endfunction()

    function(compile_files_lightly library)
        if (TARGET ${library})
            get_target_property(folder ${library} SOURCE_DIR)
            list(TRANSFORM ARGN PREPEND "${folder}/")
            set_source_files_properties(${ARGN} TARGET_DIRECTORY ${library} PROPERTIES COMPILE_OPTIONS -O1)
        endif()
    endfunction()

    # a name that two files define, and a header that refuses to stand behind another, keep some of them alone
    cmake_language(DEFER CALL compile_lightly llama 30
        "llama-(batch|grammar|kv-cache|sampler|vocab)" "llama-kv-cache-dsv4|unicode.*")
    cmake_language(DEFER CALL compile_lightly mtmd 30 "clip|mtmd-image" "mtmd-helper|mtmd-helper-gen")
    cmake_language(DEFER CALL compile_files_lightly ggml-base gguf.cpp ggml-backend-meta.cpp ggml-opt.cpp)
    cmake_language(DEFER CALL compile_files_lightly ggml-rpc ggml-rpc.cpp)
endif()
