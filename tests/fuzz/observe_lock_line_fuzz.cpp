// SPDX-License-Identifier: MIT
// observe_lock_line_fuzz.cpp - a line of /proc/locks or of a descriptor's fdinfo. The kernel writes them, but kernels
// differ.
#include "fuzz.hpp"

#include "observe/observe.hpp"

#include <sys/sysmacros.h>

#include <string>

using namespace holdfast;
using fuzz::require;
using Kind = observe::LockLine::Kind;

namespace {

// The line that the kernel would write for it (fs/locks.c, lock_get_status()).
std::string written(const observe::LockLine& lock) {
  const char* const kind = lock.kind == Kind::flock   ? "FLOCK "
                           : lock.kind == Kind::posix ? "POSIX "
                           : lock.kind == Kind::ofd   ? "OFDLCK"
                           : lock.kind == Kind::lease ? "LEASE "
                                                      : "ACCESS";
  char line[160];
  std::snprintf(line, sizeof line, "1: %s%s ADVISORY  %s %d %02x:%02x:%llu 0 EOF", lock.blocked ? "-> " : "", kind,
                lock.write ? "WRITE" : "READ ", lock.pid, major(lock.inode.dev), minor(lock.inode.dev),
                static_cast<unsigned long long>(lock.inode.ino));
  return line;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view line = fuzz::text_of(data, size);
  const auto lock = observe::parse_lock_line(line);
  if (!lock) return 0;
  require(observe::parse_lock_line(written(*lock)) == lock, "the kernel's own form says the same");
  require(observe::parse_lock_line(std::string{line} + "\n") == lock, "a line's end changes nothing");
  return 0;
}
