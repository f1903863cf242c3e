// SPDX-License-Identifier: MIT
// sync/process_mutex.hpp - mutual exclusion owned by a process: for a device that one thread opens and another closes.
#pragma once

#include <holdfast/sync/annotations.hpp>
#include <holdfast/sync/error.hpp>
#include <holdfast/sync/lock_class.hpp>
#include <holdfast/sync/timing.hpp>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>

namespace holdfast::sync {

namespace detail {

/// Layout version 2; all-zero is free. (Version 1 ended after `next`.)
struct ProcessMutexLayout {
  constexpr explicit ProcessMutexLayout(LockClass lock_class) noexcept : cell(0), order_class(lock_class) {}

  union {
    std::atomic<std::uint64_t> cell;  // high half: the owner's start time in ticks; low half: the word
    std::atomic<std::uint32_t> word;  // for its address alone: bits as of mutex, owner = bit 29 and the process id
  };
  std::atomic<std::uint32_t> dirty{0};
  std::atomic<std::uint32_t> thread{0};         // which thread took it; to answer recursion
  std::atomic<std::uint32_t> pid_namespace{0};  // of the first that locked it: the low half of the inode's number
  std::atomic<std::uint32_t> life{0};           // where its owner shows that it lives; a hint
  std::uint32_t reserved[2] = {};
  void* next = nullptr;   // never linked: the place that a pending mark points to
  LockClass order_class;  // for the lock-order validator; its pointer is the maker's
};
static_assert(sizeof(ProcessMutexLayout) == 56 && offsetof(ProcessMutexLayout, next) == 32);

}  // namespace detail

/// A lock owned by a process: any of its threads may unlock it, whichever locked it, and the end of the thread that did
/// changes nothing. It is given back when the whole process has ended, in whatever way: only then, when no thread of it
/// can run any more, is the next holder told Acquired::owner_died. Threads of one process exclude each
/// other as those of two do. Told of a death, one repairs and calls consistent(), as with mutex.
///
/// exec(2) keeps it: the process is the same. A child of fork(2) does not hold it.
///
/// Statically initialised (constinit), 56 bytes, all-zero when free. The owner is named by process id and start time,
/// so a reused id is not mistaken for it; all must see each other's ids, so a process of another pid namespace than
/// that of the first is refused.
///
/// \thread  as mutex
/// \limit   a waiter learns of a wake at once, and of a death within 0.3 ms if it may open the owner's /proc/PID/fd, by
///          looking after 1, 2, 4, ... at most 16 ms if not, or if it waits interruptibly. The dead process's files may
///          still be open then: the kernel closes them after it has freed its memory, some 40 ms a GiB. Needs /proc to
///          tell reused ids apart, and pidfd_open(2) (5.3). Keeps a descriptor open in each process that locks one.
/// \cost    lock and unlock as std::mutex
class HF_CAPABILITY("process_mutex") process_mutex {
 public:
  constexpr process_mutex() noexcept : process_mutex(LockClass{}) {}
  /// A lock whose order among others can be validated: see order.hpp. To the validator the thread that locked it holds
  /// it, until any thread of the process gives it back.
  explicit constexpr process_mutex(LockClass lock_class) noexcept : layout_(lock_class) {}
  process_mutex(const process_mutex&) = delete;
  process_mutex& operator=(const process_mutex&) = delete;

  // The forms of mutex, with the same answers; deadlock when the calling thread locked it and nobody unlocked it since.
  // Also foreign_namespace.

  HF_API void lock() HF_ACQUIRE();
  [[nodiscard]] HF_API bool try_lock() HF_TRY_ACQUIRE(true);
  template <class Rep, class Period>
  [[nodiscard]] bool try_lock_for(const std::chrono::duration<Rep, Period>& length) HF_TRY_ACQUIRE(true) {
    return try_lock_by(detail::after(length));
  }
  template <class Clock, class Duration>
  [[nodiscard]] bool try_lock_until(const std::chrono::time_point<Clock, Duration>& instant) HF_TRY_ACQUIRE(true) {
    return detail::until(instant, [this](Deadline deadline) { return try_lock_by(deadline); });
  }
  HF_API void unlock() HF_RELEASE();

  [[nodiscard]] HF_API Result<Acquired> lock_checked() HF_NO_ANALYSIS;
  [[nodiscard]] HF_API Result<Acquired> trylock() HF_NO_ANALYSIS;
  [[nodiscard]] HF_API Result<Acquired> lock_until_checked(Deadline deadline) HF_NO_ANALYSIS;
  template <class Rep, class Period>
  [[nodiscard]] Result<Acquired> lock_timeout(const std::chrono::duration<Rep, Period>& length) HF_NO_ANALYSIS {
    return lock_until_checked(detail::after(length));
  }
  [[nodiscard]] HF_API Result<Acquired> lock_interruptible() HF_NO_ANALYSIS;
  [[nodiscard]] HF_API Result<Acquired> lock_killable() HF_NO_ANALYSIS;
  /// \returns not_owner when this process does not hold it
  HF_API Result<> unlock_checked() HF_NO_ANALYSIS;

  [[nodiscard]] HF_API bool is_locked() const noexcept;
  /// The holder's process id, 0 for none: out of date when the answer arrives.
  [[nodiscard]] HF_API std::uint32_t holder() const noexcept;

  HF_API Result<> consistent();
  HF_API Result<> mark_inconsistent();

 private:
  [[nodiscard]] HF_API bool try_lock_by(Deadline deadline);

  detail::ProcessMutexLayout layout_;
};

}  // namespace holdfast::sync
