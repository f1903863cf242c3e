// SPDX-License-Identifier: MIT
// record_lock.hpp - open-file-description record locks (fcntl_locking(2), "Open file description locks", Linux 3.15).
//
// Not POSIX record locks: those vanish when any thread or library of the process closes any descriptor of the same
// file. These belong to our one description, so nothing but our own call, or its last close, ends them; and two
// descriptions of one process exclude each other. They conflict with everybody's POSIX locks all the same.
#pragma once

#include "device/device.hpp"

#include <sys/types.h>

#include <optional>

namespace holdfast::convention {

enum class RecordLock : std::uint8_t { none, read, write };

/// A byte range; length 0 means to the end of the file and beyond.
struct Range {
  off_t start = 0;
  off_t length = 0;
};

/// The answer to F_OFD_SETLK.
enum class LockAnswer : std::uint8_t {
  taken,
  covered,  ///< the call returned 1: a `holdfast run` above us lends its own lock and keeps the device's other marks
  busy,
  failed,  ///< errno says why
};
[[nodiscard]] LockAnswer set_record_lock(int fd, RecordLock lock, Range range) noexcept;

/// Gives a range back; of a lock that is not held, or of a file that is gone, there is nothing to give.
void drop_record_lock(int fd, Range range) noexcept;

/// Who stands in the way of `lock`: nullopt when nobody does. The pid is -1 for an open-file-description lock.
[[nodiscard]] std::optional<pid_t> who_blocks(int fd, RecordLock lock, Range range) noexcept;

}  // namespace holdfast::convention
