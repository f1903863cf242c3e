// SPDX-License-Identifier: MIT
// observe.hpp - who has what, by which means: ours and everybody else's. Takes nothing, opens no device.
//
// No single place knows. Our proxies and the UUCP lock files name a process; /proc/locks lists kernel locks but names
// for an open-file-description lock nobody and for a flock the process that took it, which may be dead while a child
// keeps it; only descriptor directories tell who really has a node open. survey() reads all of them in one pass and
// merges what belongs to one process into one Use.
#pragma once

#include "base/places.hpp"
#include "device/device.hpp"

#include <holdfast/error.hpp>
#include <holdfast/options.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace holdfast::observe {

/// Who stands behind a Use.
enum class UserKind : std::uint8_t {
  process,
  kernel,   ///< a mount, swap space, or a device built on this one
  unknown,  ///< somebody holds it whom we cannot see: another user's process, another pid namespace, a garbled lock
            ///< file
};
[[nodiscard]] std::string_view to_string(UserKind kind);

/// What somebody does with a device, in the order in which a survey lists it.
enum class Standing : std::uint8_t {
  holds,   ///< by a claim, a lock file, a kernel lock, or as the kernel
  waits,   ///< asked and has no answer yet
  opened,  ///< has it open without any lock that can be seen from outside (TIOCEXCL and O_EXCL cannot)
  stale,   ///< a lock file whose process is dead: holds nothing, the next taker removes it
};
[[nodiscard]] std::string_view to_string(Standing standing);

/// One process and how it has one device.
struct Use {
  /// who.means: "holdfast", "UUCP lock file /run/lock/LCK..ttyS0", "flock", "record lock", "lease", "mounted on /boot",
  /// "swap", "used by dm-0"; "open" only when there is nothing else. pid 0 for the kernel and for the unknown.
  Holder who;
  UserKind kind = UserKind::process;
  Standing standing = Standing::holds;
  std::optional<Mode> mode;  ///< of our own claims; of foreign kernel locks: write is exclusive, read is shared
  bool ours = false;         ///< holds or waits through holdfast
  std::uint32_t place = 0;   ///< in the broker's queue, from 1; 0: not in it
  std::optional<std::chrono::nanoseconds> lapses_in;  ///< of a claim for a time
  std::optional<Enforcement> level;                   ///< of a claim that the broker knows
};

struct DeviceUse {
  device::Node node;
  std::optional<device::Relation> relation;  ///< to the device asked for; nullopt for that device itself
  std::vector<Use> uses;                     ///< sorted by Standing, then pid
  std::uint64_t denials = 0;                 ///< what the guard has refused since somebody held it
};

struct Survey {
  std::vector<DeviceUse> devices;  ///< sorted by DeviceId
  /// What could not be seen, one line each: "descriptors of 41 processes of other users: run as root to see them".
  std::vector<std::string> blind;
};

/// Looks at the given devices (with their siblings), or at everything that anybody holds when the list is empty.
///
/// With a list, every named device and sibling is in the answer, used or not, with every opener. Without one, what is
/// listed is what somebody marked (claims, waiting claims, lock files of live processes, kernel locks on device nodes),
/// what the kernel uses (mounts, swap, stacked devices), and plain openers of the kinds that people fight over: serial
/// terminals, disks, optical drives, sg, tapes, video, hidraw, usbfs, printers. A serial terminal that is a login's
/// controlling terminal is listed once, by its session leader. Left out: virtual consoles and pseudo-terminals without
/// a lock, input, sound, graphics, and the memory devices (null, urandom).
///
/// \limit  A descriptor in flight over a socket, a mapping whose descriptor was closed, and a thread with a descriptor
/// table of
///         its own are not seen. A terminal reached as /dev/tty counts as /dev/tty.
/// \returns what device::identify() says of an argument
/// \cost   one pass over /proc: per process an open, two getdents and a readlink per descriptor; measured in bench/
/// \source proc_pid_fd(5), proc_pid_fdinfo(5), proc_locks(5)
[[nodiscard]] Result<Survey> survey(const std::vector<std::string>& devices, const base::Places& places = {});

/// A line of /proc/locks, or what follows "lock:" in /proc/PID/fdinfo/N. Pure: fuzzed.
struct LockLine {
  enum class Kind : std::uint8_t { flock, posix, ofd, lease, other };
  Kind kind = Kind::other;
  bool write = false;
  bool blocked = false;   ///< "->": waits for the lock above it
  pid_t pid = 0;          ///< -1 for OFD locks, 0 for another pid namespace
  device::InodeId inode;  ///< st_dev and st_ino of the locked file
  auto operator<=>(const LockLine&) const = default;
};
[[nodiscard]] std::optional<LockLine> parse_lock_line(std::string_view line);

}  // namespace holdfast::observe
