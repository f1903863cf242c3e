// SPDX-License-Identifier: MIT
// sync/mutex.hpp - mutual exclusion between threads, of one process or of several, that survives kill -9.
//
// One word of memory is the lock; it hangs on the robust list that the kernel walks when a thread ends. What pthread's
// robust mutex leaves to luck is closed: no order of kills leaves a waiter asleep on a free lock (tests/model runs this
// very code through every interleaving with a death at every step).
#pragma once

#include <holdfast/sync/annotations.hpp>
#include <holdfast/sync/error.hpp>
#include <holdfast/sync/node.hpp>
#include <holdfast/sync/timing.hpp>

#include <chrono>

namespace holdfast::sync {

/// A lock owned by a thread.
///
/// Statically initialised (constinit), 40 bytes, all-zero when free: it works in private memory, and in memory shared
/// by processes of one pid namespace (see segment.hpp, which refuses others).
///
/// States: free -> held by a thread -> free. When the holder ends while holding - killed, exited, or its process called
/// exec - the kernel frees the lock, and the next holder is told Acquired::owner_died, once. It may find what the lock
/// protects half-changed: it repairs that and calls consistent(). Until somebody does, later holders are told
/// Acquired::inconsistent. The lock is never lost for good.
///
/// The throwing forms (lock, try_lock, ...) hold nothing but a clean lock: told of a death they release again and throw
/// owner_dead or inconsistent, so that code which knows nothing of repair never sees half-changed data. Code that
/// repairs uses the `_checked` forms.
///
/// Not recursive: the holder's second lock answers deadlock. No queue: a thread that comes by may overtake sleepers.
///
/// \thread  any; not in a signal handler, unless the interrupted thread cannot be inside a lock operation of this
///          library (irqsave in spinlock.hpp); not in a child of vfork(2) or of a raw clone(2) that shares memory.
/// \limit   a thread may hold 2048 of these, rw_semaphore and pthread robust mutexes at once (kernel
/// ROBUST_LIST_LIMIT);
///          what it holds beyond is not freed at its death. Memory that is unmapped or freed while a lock in it is held
///          or being worked on ends the kernel's walk: destroy a lock only when no thread holds it. A thread may be
///          inside unlock() still when another locks, unlocks and destroys it; it does not touch the memory any more.
///          After fork(2) the child holds nothing; in private memory its copy of a lock that some thread of the parent
///          held stays locked for ever.
/// \cost    lock and unlock 1.0 to 1.2 times std::mutex, one call into the kernel when it must sleep or wake
class HF_CAPABILITY("mutex") mutex {
 public:
  constexpr mutex() noexcept = default;
  /// A lock whose order among others can be validated: see order.hpp. The layout is the same.
  explicit constexpr mutex(LockClass lock_class) noexcept { node_.order_class = lock_class; }
  mutex(const mutex&) = delete;
  mutex& operator=(const mutex&) = delete;

  /// Takes the lock, waiting as long as it takes.
  /// \throws std::system_error with deadlock, owner_dead, inconsistent or unsupported; nothing is held then
  HF_API void lock() HF_ACQUIRE();
  /// \returns false when another holds it \throws as lock(): also for the caller's own
  [[nodiscard]] HF_API bool try_lock() HF_TRY_ACQUIRE(true);
  /// \returns false when the time passed \throws as lock()
  template <class Rep, class Period>
  [[nodiscard]] bool try_lock_for(const std::chrono::duration<Rep, Period>& length) HF_TRY_ACQUIRE(true) {
    return try_lock_until_deadline(detail::after(length));
  }
  template <class Clock, class Duration>
  [[nodiscard]] bool try_lock_until(const std::chrono::time_point<Clock, Duration>& instant) HF_TRY_ACQUIRE(true) {
    return detail::until(instant, [this](Deadline deadline) { return try_lock_until_deadline(deadline); });
  }
  /// Gives the lock back. \throws std::system_error with not_owner; nothing changes then
  HF_API void unlock() HF_RELEASE();

  // The same without exceptions. The caller holds the lock when the Result has a value, whatever it is.

  [[nodiscard]] HF_API Result<Acquired> lock_checked() HF_NO_ANALYSIS;
  /// \returns busy; deadlock for the caller's own
  [[nodiscard]] HF_API Result<Acquired> trylock() HF_NO_ANALYSIS;
  /// \param deadline  on CLOCK_MONOTONIC \returns timed_out
  [[nodiscard]] HF_API Result<Acquired> lock_until_checked(Deadline deadline) HF_NO_ANALYSIS;
  template <class Rep, class Period>
  [[nodiscard]] Result<Acquired> lock_timeout(const std::chrono::duration<Rep, Period>& length) HF_NO_ANALYSIS {
    return lock_until_checked(detail::after(length));
  }
  /// Waits until a signal handler has run in this thread, whatever its SA_RESTART says.
  /// \limit  a handler that runs before the thread sleeps, which it does after looking for some 20 us, is noticed if it
  ///         calls note_interruption() (termination.hpp)
  /// \returns interrupted; the caller does not hold the lock
  [[nodiscard]] HF_API Result<Acquired> lock_interruptible() HF_NO_ANALYSIS;
  /// Waits until note_termination() has been called, at any time, by any thread or handler. Other handlers run, and the
  /// wait goes on. \returns interrupted; the caller does not hold the lock
  [[nodiscard]] HF_API Result<Acquired> lock_killable() HF_NO_ANALYSIS;
  /// \returns not_owner; nothing changes then
  HF_API Result<> unlock_checked() HF_NO_ANALYSIS;

  /// Whether some thread holds it: out of date when the answer arrives. For messages and assertions.
  [[nodiscard]] HF_API bool is_locked() const noexcept;
  /// The holder's thread id (gettid(2)), 0 for none; likewise.
  [[nodiscard]] HF_API std::uint32_t holder() const noexcept;

  /// Declares what the lock protects repaired. \returns not_owner
  HF_API Result<> consistent();
  /// The opposite, by a holder that found damage it cannot repair: later holders are told inconsistent. \returns
  /// not_owner
  HF_API Result<> mark_inconsistent();

 private:
  [[nodiscard]] HF_API bool try_lock_until_deadline(Deadline deadline);

  detail::RobustNode node_;
};
static_assert(sizeof(mutex) == 40);

}  // namespace holdfast::sync
