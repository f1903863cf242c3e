// SPDX-License-Identifier: MIT
// proc_scan.hpp - one pass over all processes' descriptors, in search of device nodes. Private to the room.
#pragma once

#include "observe/observe.hpp"

#include <functional>
#include <string>
#include <unordered_set>
#include <vector>

namespace holdfast::observe {

/// A descriptor of a wanted node, as one process has it.
struct OpenFile {
  pid_t pid = 0;
  device::DeviceId id;
  device::InodeId inode;
  std::string text;             ///< the link's text: a path as seen by whoever opened it, perhaps in another namespace
  std::vector<LockLine> locks;  ///< that this very description (or, for POSIX, this process through it) holds
};

struct ProcScan {
  std::vector<OpenFile> files;
  std::unordered_set<pid_t> closed_to_us;  ///< user processes whose descriptors we may not see
};

/// Says whether a device node that somebody has open is wanted. Asked about once per distinct path and process.
using WantedNode = std::function<bool(const device::DeviceId& id, const device::InodeId& inode)>;

[[nodiscard]] ProcScan scan_processes(const WantedNode& wanted, const base::Places& places);

/// All of /proc/locks.
[[nodiscard]] std::vector<LockLine> read_lock_table(const base::Places& places);

/// The number that a node's status carries, as device::identify() would have it.
[[nodiscard]] device::DeviceId number_of(mode_t mode, unsigned major, unsigned minor, dev_t file_system);

/// A whole file of /proc or /sys; empty when it cannot be read.
[[nodiscard]] std::string read_text(int directory, const char* path);

}  // namespace holdfast::observe
