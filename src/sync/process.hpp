// SPDX-License-Identifier: MIT
// Which process this is, in a way that another can check later: id, start time, pid namespace. And whether one is gone.
#pragma once

#include <atomic>
#include <cstdint>

namespace holdfast::sync {

struct Process {
  std::uint32_t pid = 0;
  std::uint32_t start = 0;          // field 22 of /proc/PID/stat, the low 32 bits of its ticks
  std::uint32_t pid_namespace = 0;  // the low 32 bits of the inode's number
};

namespace process {
// Packed, so that threads that ask at once write the same: start and pid in one, the namespace in the other.
extern constinit std::atomic<std::uint64_t> known;
extern constinit std::atomic<std::uint32_t> known_namespace;
Process ask();
}  // namespace process

/// The calling process; asked for once, and anew in a child of fork. pid 0 when /proc does not tell.
inline Process this_process() {
  const std::uint64_t both = process::known.load(std::memory_order_acquire);  // pairs with the release in ask
  if (both == 0) [[unlikely]]
    return process::ask();
  return {static_cast<std::uint32_t>(both), static_cast<std::uint32_t>(both >> 32),
          process::known_namespace.load(std::memory_order_relaxed)};
}

/// Whether no thread of the process can run any more. When in doubt it is not gone.
bool is_gone(std::uint32_t pid, std::uint32_t start);

}  // namespace holdfast::sync
