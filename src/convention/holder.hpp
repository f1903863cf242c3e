// SPDX-License-Identifier: MIT
// holder.hpp - finding a name for whoever stands in the way. Only asked once somebody does: it may read all of /proc.
#pragma once

#include "base/places.hpp"
#include "device/device.hpp"

#include <holdfast/error.hpp>
#include <holdfast/options.hpp>

#include <chrono>
#include <optional>
#include <string>
#include <string_view>

namespace holdfast::convention {

/// The process by its pid: name and user; only the pid when /proc does not show it.
[[nodiscard]] Holder holder_of(pid_t pid);

enum class LockKind : std::uint8_t { flock, record };

/// The process that holds a lock on the file. /proc/locks names the one that took it, which may be dead, in another
/// pid namespace, or unsaid (OFD locks): then the descriptors of all visible processes are searched for it.
[[nodiscard]] Holder find_lock_holder(device::InodeId inode, LockKind kind, const base::Places& places);

/// Whether /proc/locks shows a lock on the file that keeps out a claim in `mode`. False also when the lock belongs to
/// another pid namespace, whose locks are not shown (fs/locks.c, locks_show).
[[nodiscard]] bool shows_lock(device::InodeId inode, LockKind kind, Mode mode, const base::Places& places);

/// A process other than this one that has the device open, or the kernel's use of a disk ("mounted on /boot").
[[nodiscard]] Holder find_opener(const device::Node& node, const base::Places& places);

/// udevd takes a disk for some milliseconds whenever it probes it (LOCK_SH; O_EXCL on a drive, by cdrom_id), and gives
/// way by itself: whoever meets it tries again, for a second at most, since any program can have such a name.
class UdevPatience {
 public:
  /// Sleeps a moment and says true, or says at once that it is no use.
  [[nodiscard]] bool try_again(const Holder& holder);

 private:
  std::optional<std::chrono::steady_clock::time_point> end_;
};

}  // namespace holdfast::convention
