// SPDX-License-Identifier: MIT
// Which process this is, in a way that another can check later: id, start time, pid namespace. And whether one is gone.
#pragma once

#include <cstdint>

namespace holdfast::sync {

struct Process {
  std::uint32_t pid = 0;
  std::uint32_t start = 0;          // field 22 of /proc/PID/stat, the low 32 bits of its ticks
  std::uint32_t pid_namespace = 0;  // the low 32 bits of the inode's number
};

/// The calling process; asked for once, and anew in a child of fork. pid 0 when /proc does not tell.
Process this_process();

/// Whether no thread of the process can run any more. When in doubt it is not gone.
bool is_gone(std::uint32_t pid, std::uint32_t start);

}  // namespace holdfast::sync
