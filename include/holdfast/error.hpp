// SPDX-License-Identifier: MIT
// error.hpp - how holdfast says no.
//
// One type carries every negative answer. A refusal ("somebody else has it") is an answer the caller is expected to
// handle; it names the holder. Everything else says which call of the system failed. Test `code` against errc.
#pragma once

#include <holdfast/export.h>

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <expected>
#include <optional>
#include <string>
#include <system_error>
#include <type_traits>
#include <vector>

namespace holdfast {

/// What went wrong, in the category `holdfast`.
enum class errc : int {
  refused = 1,       ///< somebody else holds the device; `Error::holder` says who, as far as it can be known
  timed_out,         ///< the wait's deadline passed while somebody else held the device
  interrupted,       ///< a signal handler ran during an interruptible wait; nothing is held
  not_permitted,     ///< the caller may not open the device
  no_such_device,    ///< the path, link or number leads nowhere
  not_a_device,      ///< the path leads to something that is neither a character nor a block device
  gone,              ///< the device was there and vanished, or another device took its name meanwhile
  not_held,          ///< used after release, after a move, or by a process that does not own the claim
  invalid_argument,  ///< an argument that can never work
  ambiguous,         ///< the names of one drive could not be told apart, or one of them is missing (DDLP)
  no_resources,      ///< out of descriptors, memory, or space in the lock directory
  system_fault,      ///< a system call failed in a way that is neither the caller's nor the holder's doing
  deadlock,          ///< broker only: the wait would close a cycle of owners, which the message names
  revoked,           ///< broker only: an administrator took the device back
  lapsed,            ///< broker only: the claim's time is over
};

[[nodiscard]] HF_API const std::error_category& error_category() noexcept;
[[nodiscard]] HF_API std::error_code make_error_code(errc code) noexcept;

/// Who has a device, as far as it can be known from outside. A field that is unknown is empty or zero.
struct Holder {
  pid_t pid = 0;
  std::uint64_t start_ticks = 0;  ///< field 22 of /proc/PID/stat, in clock ticks since boot: tells a reused pid apart
  std::string command;            ///< the name in /proc/PID/comm
  std::string user;               ///< user name, or the number when it has none
  std::optional<std::chrono::system_clock::time_point> since;  ///< CLOCK_REALTIME; jumps when the clock is set
  std::string purpose;                                         ///< what the holder said it wants the device for
  std::vector<std::string> means;                              ///< how it holds: "UUCP lock file", "flock", ...
};

/// "picocom[4121] since 12:04:11 (UUCP lock file, flock)", leaving out what is unknown.
[[nodiscard]] HF_API std::string to_string(const Holder& holder);

/// A negative answer.
struct Error {
  std::error_code code;
  std::string message;           ///< one line without a full stop: device, holder, means, way out
  std::string device;            ///< the device as the caller named it; empty when the error is not about one
  std::optional<Holder> holder;  ///< set for refused and timed_out when somebody can be named
  int errnum = 0;                ///< errno of the failing call, 0 when no call failed
};

template <class T = void>
using Result = std::expected<T, Error>;

}  // namespace holdfast

template <>
struct std::is_error_code_enum<holdfast::errc> : std::true_type {};
