# SPDX-License-Identifier: MIT
# The BPF programs, compiled by clang for the kernel's virtual machine and carried inside the library.
find_program(BPF_CLANG NAMES clang-19 clang)
find_program(BPF_STRIP NAMES llvm-strip-19 llvm-strip)
find_package(PkgConfig)
if(PKG_CONFIG_FOUND)
  pkg_check_modules(GUARD_NEEDS libbpf>=1.1)
endif()
if(NOT (BPF_CLANG AND GUARD_NEEDS_FOUND))
  message(STATUS "the guard is left out: it needs clang and the development files of libbpf 1.1")
  return()
endif()

# guard_object(NAME.bpf.o SOURCE): its path is in `object` then.
function(guard_object name source)
  set(object ${CMAKE_CURRENT_BINARY_DIR}/${name})
  set(strip)  # of lines for debuggers; the types (BTF) stay
  if(BPF_STRIP)
    set(strip COMMAND ${BPF_STRIP} -g ${object})
  endif()
  string(REPLACE "x86_64" "x86" target "${CMAKE_SYSTEM_PROCESSOR}")
  string(REPLACE "aarch64" "arm64" target "${target}")
  set(bpf ${PROJECT_SOURCE_DIR}/bpf)
  set(uapi ${PROJECT_SOURCE_DIR}/uapi)
  add_custom_command(
    OUTPUT ${object}
    COMMAND ${BPF_CLANG} -target bpf -mcpu=v3 -O2 -g -Wall -Wextra -Wno-unused-parameter -Wno-missing-field-initializers -Werror
            -D__TARGET_ARCH_${target} -I${uapi} -I${bpf} -idirafter /usr/include/${CMAKE_LIBRARY_ARCHITECTURE}
            -c ${source} -o ${object}
    ${strip}
    DEPENDS ${source} ${bpf}/guard.bpf.c ${bpf}/kernel.h ${uapi}/holdfast_guard.h
    COMMENT "The guard's BPF programs: ${name}" VERBATIM)
  set(object ${object} PARENT_SCOPE)
endfunction()
guard_object(guard.bpf.o ${PROJECT_SOURCE_DIR}/bpf/guard.bpf.c)

holdfast_room(guard room_device)
target_include_directories(room_guard PUBLIC ${PROJECT_SOURCE_DIR}/uapi)
target_link_libraries(room_guard PUBLIC bpf elf z)
set_source_files_properties(${CMAKE_CURRENT_SOURCE_DIR}/guard/programs.cpp PROPERTIES
  COMPILE_DEFINITIONS "HOLDFAST_GUARD_OBJECT=\"${object}\"" OBJECT_DEPENDS ${object})
