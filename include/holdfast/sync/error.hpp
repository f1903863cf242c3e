// SPDX-License-Identifier: MIT
// sync/error.hpp - how the locks answer.
//
// Every operation has two spellings. The `*_checked`, `try*`, `*_interruptible`, `*_killable` and `*_timeout` forms
// answer with Result and never throw. The forms that std::lock_guard and its kin need (lock, try_lock, unlock, ...)
// have no room for an answer: they throw std::system_error with the same code, as std::mutex does, and hold nothing
// then.
#pragma once

#include <holdfast/export.h>

#include <cstdint>
#include <expected>
#include <system_error>
#include <type_traits>

namespace holdfast::sync {

/// Why a lock was not had or not given back, in the category `holdfast.sync`. Each equals its counterpart of std::errc.
enum class errc : int {
  deadlock = 1,  ///< the caller holds the lock already, or has it in a way that this wait can never end
  not_owner,     ///< unlock, up, consistent() by one that does not hold
  busy,          ///< a try form found the lock taken
  timed_out,     ///< the deadline passed
  interrupted,   ///< a signal handler ran in an interruptible wait, or termination was noted in a killable one
  owner_dead,    ///< thrown by lock(): a holder died inside; see mutex
  inconsistent,  ///< thrown by lock(): a holder died inside earlier and nobody has called consistent() since
  overflow,      ///< up() beyond the semaphore's maximum
  unsupported,   ///< the C library keeps no robust list of the expected shape for this thread, or the kernel is too old
  foreign_namespace,  ///< the segment was made in another pid namespace, where thread ids mean other threads
  foreign_boot,       ///< the segment was made before the last boot: what it says of processes is about others
  wrong_layout,       ///< not a segment of ours, or one of another version
  no_slot,            ///< the segment's table of processes is full
  no_resources,       ///< out of memory, descriptors or threads
};

[[nodiscard]] HF_API const std::error_category& error_category() noexcept;
[[nodiscard]] HF_API std::error_code make_error_code(errc code) noexcept;

/// In what state a lock came to its new holder.
enum class Acquired : std::uint8_t {
  clean,
  owner_died,    ///< the previous holder died inside. Told once, to the next holder: repair, then call consistent()
  inconsistent,  ///< a holder died inside, and those who were told released the lock without calling consistent()
};

template <class T = void>
using Result = std::expected<T, std::error_code>;

}  // namespace holdfast::sync

template <>
struct std::is_error_code_enum<holdfast::sync::errc> : std::true_type {};
