// SPDX-License-Identifier: MIT
// checksum_device.hpp - /dev/hf_checksum0 as a test uses it: each answer is 0 or the errno.
#pragma once

#include "base/unique_fd.hpp"

#include <holdfast_checksum.h>

#include <cstdint>
#include <string>
#include <string_view>

namespace holdfast::vm {

inline constexpr const char* kChecksum = "/dev/hf_checksum0";

class Checksum {
 public:
  explicit Checksum(int flags = 0);
  explicit Checksum(base::UniqueFd fd) : fd_{std::move(fd)} {}

  [[nodiscard]] int fd() const { return fd_.get(); }
  void close() { fd_.reset(); }

  [[nodiscard]] int lock() const;
  [[nodiscard]] int try_lock() const;
  /// Until so many nanoseconds from now, on the monotonic clock.
  [[nodiscard]] int lock_within(std::int64_t ns) const;
  [[nodiscard]] int unlock() const;
  [[nodiscard]] int process(std::string_view data = "123456789") const;
  [[nodiscard]] hf_checksum_process sums(std::string_view data) const;
  [[nodiscard]] hf_exclusive_owner owner() const;
  /// What poll(2) says, at once.
  [[nodiscard]] short polled() const;

 private:
  base::UniqueFd fd_;
};

/// 0 or errno.
[[nodiscard]] int ioctl_errno(int fd, unsigned long command, unsigned long argument);
/// An attribute of the device in sysfs, or "(gone)".
[[nodiscard]] std::string attribute(const std::string& name);
/// A word to the user in the kernel; 0 or errno.
[[nodiscard]] int tell_kuser(char user, std::string_view words);
/// Waits until so many wait for the device; false when it takes too long.
[[nodiscard]] bool waiters_are(unsigned count);
/// Waits until nobody owns it.
[[nodiscard]] bool becomes_free();

}  // namespace holdfast::vm
