# SPDX-License-Identifier: MIT
# A room is a folder below src/ and one target of the same name. The edges between rooms are declared here a second time only
# to the linker; tools/check_edges reads the allowed ones from ARCHITECTURE.md and fails the build on any other #include.

find_package(Python3 REQUIRED COMPONENTS Interpreter)
add_custom_target(check_edges ALL
  COMMAND ${Python3_EXECUTABLE} ${PROJECT_SOURCE_DIR}/tools/check_edges ${PROJECT_SOURCE_DIR}
  COMMENT "Checking the edges between rooms against ARCHITECTURE.md" VERBATIM)

# holdfast_room(name [rooms and libraries it uses...])
function(holdfast_room name)
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${name}/*.cpp)
  list(FILTER sources EXCLUDE REGEX "/main\\.cpp$")  # a program's, not the room's
  if(NOT sources)
    add_library(room_${name} INTERFACE)
    target_link_libraries(room_${name} INTERFACE ${ARGN})
    return()
  endif()
  add_library(room_${name} STATIC ${sources})
  target_include_directories(room_${name} PUBLIC ${PROJECT_SOURCE_DIR}/src ${PROJECT_SOURCE_DIR}/include)
  target_link_libraries(room_${name} PUBLIC ${ARGN})
  if(HOLDFAST_UNITY)
    set_target_properties(room_${name} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 16)
    # A class of one file may have members of types that this file alone knows; the compiler takes a file in a batch for a header.
    target_compile_options(room_${name} PRIVATE $<$<CXX_COMPILER_ID:GNU>:-Wno-subobject-linkage>)
  endif()
endfunction()
