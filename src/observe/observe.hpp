// SPDX-License-Identifier: MIT
// observe.hpp - who has what, by which means: ours and everybody else's. Takes nothing, opens no device.
#pragma once

#include "base/places.hpp"
#include "device/device.hpp"

#include <holdfast/error.hpp>
#include <holdfast/options.hpp>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace holdfast::observe {

/// One process and how it has one device.
struct Use {
  Holder who;  ///< who.means: "proxy", "UUCP lock file /run/lock/LCK..ttyS0", "flock", "record lock", "open"
  std::optional<Mode> mode;  ///< of our own claims
  bool ours = false;         ///< holds or waits through holdfast
  bool waiting = false;
  bool stale = false;  ///< the process behind a lock file is dead
};

struct DeviceUse {
  device::Node node;
  std::vector<Use> uses;  ///< holders first, then waiters, then plain openers
};

struct Survey {
  std::vector<DeviceUse> devices;
  std::vector<std::string>
      blind;  ///< what could not be seen, one line each: "descriptors of 41 processes of other users"
};

/// Looks at the given devices (with their siblings), or at everything that anybody holds when the list is empty.
[[nodiscard]] Result<Survey> survey(const std::vector<std::string>& devices, const base::Places& places = {});

/// A line of /proc/locks. Pure: fuzzed.
struct LockLine {
  enum class Kind : std::uint8_t { flock, posix, ofd, lease, other };
  Kind kind = Kind::other;
  bool write = false;
  bool blocked = false;   ///< "->": waits for the lock above it
  pid_t pid = 0;          ///< -1 for OFD locks, 0 for another pid namespace
  device::InodeId inode;  ///< st_dev and st_ino of the locked file
};
[[nodiscard]] std::optional<LockLine> parse_lock_line(std::string_view line);

}  // namespace holdfast::observe
