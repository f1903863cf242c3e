// SPDX-License-Identifier: MIT
// sync/spinlock.hpp - for sections so short that sleeping would take longer than they do: the spinlock, plain and
// against the program's own signal handlers, the reader/writer spinlock, the sequence lock, and a robust spinlock.
//
// plain, rw and seq: 4 to 8 bytes, not robust: a holder that is killed leaves them locked for ever. In memory that
// other processes share, use robust_spinlock or mutex. They have no room for a class, and no time for a look at the
// validator: ordered<spinlock> (ordered.hpp) has both.
#pragma once

#include <holdfast/sync/annotations.hpp>
#include <holdfast/sync/error.hpp>
#include <holdfast/sync/node.hpp>

#include <signal.h>

#include <atomic>
#include <cstdint>
#include <mutex>

namespace holdfast::sync {

/// A lock that waits by looking. Yields the processor when the holder does not seem to run.
///
/// Constinit, 4 bytes. No owner: recursion spins for ever. Fair enough when few contend, with no queue behind it.
/// \thread  any; also against signal handlers of the same thread in the irqsave form
/// \cost    half of std::mutex
class HF_CAPABILITY("spinlock") spinlock {
 public:
  constexpr spinlock() noexcept = default;
  spinlock(const spinlock&) = delete;
  spinlock& operator=(const spinlock&) = delete;

  void lock() noexcept HF_ACQUIRE() {
    // Pairs with the release in unlock.
    if (taken_.exchange(1, std::memory_order_acquire) != 0) [[unlikely]]
      lock_slowly();
  }
  [[nodiscard]] bool try_lock() noexcept HF_TRY_ACQUIRE(true) {
    return taken_.load(std::memory_order_relaxed) == 0 && taken_.exchange(1, std::memory_order_acquire) == 0;
  }
  void unlock() noexcept HF_RELEASE() { taken_.store(0, std::memory_order_release); }

  [[nodiscard]] bool is_locked() const noexcept { return taken_.load(std::memory_order_relaxed) != 0; }

 private:
  HF_API void lock_slowly() noexcept HF_NO_ANALYSIS;

  std::atomic<std::uint32_t> taken_{0};
};

/// While it lives, no signal handler runs in this thread; afterwards those run that came meanwhile, if the thread had
/// not blocked them before. May be nested.
///
/// SIGSEGV, SIGBUS, SIGFPE and SIGILL stay as they are: blocked, a fault would kill the process.
/// \cost  two system calls
class signals_blocked {
 public:
  HF_API signals_blocked() noexcept;
  signals_blocked(const signals_blocked&) = delete;
  signals_blocked& operator=(const signals_blocked&) = delete;
  HF_API ~signals_blocked();

 private:
  sigset_t saved_;
  std::uint64_t order_ = 0;  // what order.hpp knew of the thread's signals before
  std::uint32_t order_epoch_ = 0;
};

/// A lock_guard that a handler of the same thread cannot meet: signals are blocked before the lock is taken and
/// restored after it is given back, as spin_lock_irqsave() does with interrupts. For any lock that a handler takes,
/// too.
template <class Lock>
class HF_SCOPED_CAPABILITY irqsave_guard {
 public:
  explicit irqsave_guard(Lock& lock) HF_ACQUIRE(lock) HF_NO_ANALYSIS : guard_(lock) {}
  irqsave_guard(const irqsave_guard&) = delete;
  irqsave_guard& operator=(const irqsave_guard&) = delete;
  ~irqsave_guard() HF_RELEASE() HF_NO_ANALYSIS = default;

 private:
  signals_blocked signals_;  // first made, last ended
  std::lock_guard<Lock> guard_;
};

/// Many readers or one writer, by looking. A writer that waits keeps new readers out.
///
/// Constinit, 4 bytes, not robust, no owner. Works with std::shared_lock.
class HF_CAPABILITY("rw_spinlock") rw_spinlock {
 public:
  constexpr rw_spinlock() noexcept = default;
  rw_spinlock(const rw_spinlock&) = delete;
  rw_spinlock& operator=(const rw_spinlock&) = delete;

  HF_API void lock() noexcept HF_ACQUIRE();
  [[nodiscard]] HF_API bool try_lock() noexcept HF_TRY_ACQUIRE(true);
  HF_API void unlock() noexcept HF_RELEASE();
  HF_API void lock_shared() noexcept HF_ACQUIRE_SHARED();
  [[nodiscard]] HF_API bool try_lock_shared() noexcept HF_TRY_ACQUIRE_SHARED(true);
  HF_API void unlock_shared() noexcept HF_RELEASE_SHARED();

 private:
  std::atomic<std::uint32_t> word_{0};  // bit 31: a writer is inside; bit 30: one waits; below: readers inside
};

/// A sequence lock: readers never write and never make a writer wait; they read again when a writer was there.
///
///     do { begin = lock.read_begin(); copy = data; } while (lock.read_retry(begin));
///
/// What is read meanwhile may be torn, so it must be made of atomics (relaxed is enough) and not be used before
/// read_retry() says false. Writers exclude each other. Constinit, 8 bytes, not robust: a writer that is killed inside
/// leaves readers spinning.
class HF_CAPABILITY("seqlock") seqlock {
 public:
  constexpr seqlock() noexcept = default;
  seqlock(const seqlock&) = delete;
  seqlock& operator=(const seqlock&) = delete;

  [[nodiscard]] std::uint32_t read_begin() const noexcept {
    // Pairs with the release store in unlock: an even number means that all of that writer's stores are visible.
    const std::uint32_t begin = sequence_.load(std::memory_order_acquire);
    return (begin & 1) == 0 ? begin : read_begin_slowly();
  }
  [[nodiscard]] bool read_retry(std::uint32_t begin) const noexcept {
    // The relaxed loads of the data must not move below the second look at the number. Pairs with the fence of
    // begin_write: who read a writer's data here sees its odd number, or a later one.
    order(std::memory_order_acquire);
    return sequence_.load(std::memory_order_relaxed) != begin;
  }

  void lock() noexcept HF_ACQUIRE() {
    writers_.lock();
    begin_write();
  }
  [[nodiscard]] bool try_lock() noexcept HF_TRY_ACQUIRE(true) {
    if (!writers_.try_lock()) return false;
    begin_write();
    return true;
  }
  void unlock() noexcept HF_RELEASE() {
    sequence_.store(sequence_.load(std::memory_order_relaxed) + 1, std::memory_order_release);
    writers_.unlock();
  }

 private:
  static void order(std::memory_order how) noexcept {
#if defined(__SANITIZE_THREAD__)
    static_cast<void>(how);  // it does not know fences; data made of atomics is no race to it
#else
    std::atomic_thread_fence(how);
#endif
  }
  void begin_write() noexcept {
    // Odd before any of the data.
    sequence_.store(sequence_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    order(std::memory_order_release);
  }
  [[nodiscard]] HF_API std::uint32_t read_begin_slowly() const noexcept;

  std::atomic<std::uint32_t> sequence_{0};
  spinlock writers_;
};

/// A spinlock owned by a thread, as robust as mutex: the kernel frees it when its holder ends, and the next is told.
///
/// Constinit, 40 bytes, all-zero when free, for shared memory as well. Recursion is answered deadlock, a stranger's
/// unlock not_owner. The throwing forms hold nothing but a clean lock, as those of mutex.
/// \thread, \limit  as mutex
/// \cost    a mutex's lock with a plain store for its unlock; nobody ever sleeps on it
class HF_CAPABILITY("robust_spinlock") robust_spinlock {
 public:
  constexpr robust_spinlock() noexcept = default;
  /// A lock whose order among others can be validated: see order.hpp. The layout is the same.
  explicit constexpr robust_spinlock(LockClass lock_class) noexcept { node_.order_class = lock_class; }
  robust_spinlock(const robust_spinlock&) = delete;
  robust_spinlock& operator=(const robust_spinlock&) = delete;

  HF_API void lock() HF_ACQUIRE();
  [[nodiscard]] HF_API bool try_lock() HF_TRY_ACQUIRE(true);
  HF_API void unlock() HF_RELEASE();

  [[nodiscard]] HF_API Result<Acquired> lock_checked() HF_NO_ANALYSIS;
  [[nodiscard]] HF_API Result<Acquired> trylock() HF_NO_ANALYSIS;
  HF_API Result<> unlock_checked() HF_NO_ANALYSIS;
  [[nodiscard]] HF_API bool is_locked() const noexcept;
  HF_API Result<> consistent();

 private:
  detail::RobustNode node_;
};

}  // namespace holdfast::sync
