// SPDX-License-Identifier: MIT
// calls.hpp - the system calls that a command under a claim is asked about, and the filters that pick them out.
//
// The filters are classic BPF programs compiled when holdfast is built (src/run/filter/): at run time an array is
// handed to the kernel. One filter serves every instruction set that the processor runs, so a 32-bit command is met as
// well.
#pragma once

#include <linux/filter.h>

#include <cstdint>
#include <span>

namespace holdfast::run {

/// One value per way of passing the arguments, not per name: stat and lstat are both `stat`.
enum class Call : std::uint8_t {
  unknown,
  flock,
  fcntl,
  ioctl,
  open,       // path, flags, mode
  openat,     // directory, path, flags, mode
  openat2,    // directory, path, struct open_how
  creat,      // path, mode
  stat,       // path; lstat, access too
  statat,     // directory, path; statx, faccessat, faccessat2 too
  link,       // path, path
  linkat,     // directory, path, directory, path, flags
  symlink,    // text, path
  symlinkat,  // text, directory, path
  rename,     // path, path
  renameat,   // directory, path, directory, path
  renameat2,  // ... and flags
  unlink,     // path
  unlinkat,   // directory, path, flags
};

/// Which calls the command is asked about.
enum class Filter : std::uint8_t {
  marks,            ///< locks on descriptors, and open(2) with O_EXCL
  marks_and_paths,  ///< also every call that could look at, make or remove a lock file, and every open(2)
};

/// The program for seccomp(2), SECCOMP_SET_MODE_FILTER.
[[nodiscard]] std::span<const sock_filter> program_of(Filter filter);

/// What a notification's architecture (AUDIT_ARCH_*) and number mean.
[[nodiscard]] Call call_of(std::uint32_t architecture, int number);

/// Whether the architecture's long, pointer and struct flock are 32 bits wide.
[[nodiscard]] bool is_32_bit(std::uint32_t architecture);

}  // namespace holdfast::run
