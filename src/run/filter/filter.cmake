# SPDX-License-Identifier: MIT
# Compiles the seccomp filters into run_filters.inc, which run/calls.cpp includes.
find_library(SECCOMP_LIBRARY NAMES seccomp REQUIRED)
add_executable(generate_filters ${CMAKE_CURRENT_LIST_DIR}/generate_filters.cpp)
target_include_directories(generate_filters PRIVATE ${PROJECT_SOURCE_DIR}/uapi)
target_link_libraries(generate_filters PRIVATE ${SECCOMP_LIBRARY})
set(run_filters ${CMAKE_CURRENT_BINARY_DIR}/run_filters/run_filters.inc)
add_custom_command(OUTPUT ${run_filters}
  COMMAND ${CMAKE_COMMAND} -E make_directory ${CMAKE_CURRENT_BINARY_DIR}/run_filters
  COMMAND generate_filters ${run_filters}
  DEPENDS generate_filters COMMENT "Compiling the seccomp filters" VERBATIM)
target_sources(room_run PRIVATE ${run_filters})
target_include_directories(room_run PRIVATE ${CMAKE_CURRENT_BINARY_DIR}/run_filters)
