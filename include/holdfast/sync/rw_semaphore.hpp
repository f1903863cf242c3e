// SPDX-License-Identifier: MIT
// sync/rw_semaphore.hpp - many readers or one writer, of one process or of several, robust for both.
//
// POSIX has no robust reader/writer lock: kill a reader and every later writer waits for ever. Here a reader is a lock
// word of its own on the list that the kernel walks when its thread ends, so there is no count that a death could leave
// wrong. No daemon, no timeout.
#pragma once

#include <holdfast/sync/annotations.hpp>
#include <holdfast/sync/error.hpp>
#include <holdfast/sync/node.hpp>
#include <holdfast/sync/timing.hpp>

#include <array>
#include <chrono>

namespace holdfast::sync {

/// Who goes first.
enum class Policy : std::uint32_t {
  /// Whoever runs gets in, until a reader has slept for 0.2 ms: the next writer that leaves lets it in (the one after,
  /// if
  /// it became impatient while a writer left). A writer waits for those readers that are inside when its turn comes.
  phase_fair,
  writer_first,  ///< readers wait while any writer waits: they may starve
};

namespace detail {

struct alignas(64) ReaderSlot : RobustNode {
  std::atomic<std::uint32_t> impatient{0};
};

/// Layout version 1: one cache line, then one for each reader at a time.
struct RwLayout {
  static constexpr std::uint32_t kSlots = 64;

  constexpr explicit RwLayout(std::uint32_t order) noexcept : policy(order) {}

  alignas(64) RobustNode writer;
  std::atomic<std::uint32_t> inside{0};
  std::atomic<std::uint32_t> guest{0};
  std::atomic<std::uint32_t> used{0};
  std::uint32_t policy;
  std::atomic<std::uint32_t> impatient{0};
  std::array<ReaderSlot, kSlots> slots{};
};
static_assert(sizeof(RwLayout) == 64 * (1 + RwLayout::kSlots));

}  // namespace detail

/// A reader/writer lock owned by threads.
///
/// Statically initialised (constinit); all-zero memory is a free phase-fair one; 4160 bytes. Memory shared by processes
/// of one pid namespace is as good as private memory.
///
/// A reader's death takes it out, and nobody is told: it changed nothing. A writer's death inside is told to the next
/// that gets in, reader or writer, as Acquired::owner_died, and as inconsistent to all others until a writer calls
/// consistent(). The kernel's names (down_read, ...) answer with Result; the names of the standard (lock, lock_shared,
/// ...), for std::unique_lock and std::shared_lock, throw as mutex does, and hold nothing but a clean lock.
///
/// Not recursive, not upgradable: a reader that asks again, to read or to write, is answered deadlock.
///
/// \thread  as mutex
/// \limit   as mutex. 64 readers at once, waiting ones included, run side by side; one more waits as a writer does, and
///          is alone inside. A reader in a handler that interrupts a reader of the same lock is answered deadlock.
/// \cost    reading: 1.0 to 1.3 times std::shared_mutex alone, and no cache line shared with other readers; writing
///          looks at as many slots as threads of a process ever lived at a time
class HF_CAPABILITY("rw_semaphore") rw_semaphore {
 public:
  constexpr rw_semaphore() noexcept : rw_semaphore(Policy::phase_fair) {}
  constexpr explicit rw_semaphore(Policy policy) noexcept : layout_(static_cast<std::uint32_t>(policy)) {}
  /// A lock whose order among others can be validated: see order.hpp. The layout is the same.
  constexpr explicit rw_semaphore(LockClass lock_class, Policy policy = Policy::phase_fair) noexcept
      : rw_semaphore(policy) {
    layout_.writer.order_class = lock_class;
  }
  rw_semaphore(const rw_semaphore&) = delete;
  rw_semaphore& operator=(const rw_semaphore&) = delete;

  /// Waits until no writer is inside or was first. \returns deadlock, unsupported
  [[nodiscard]] HF_API Result<Acquired> down_read() HF_NO_ANALYSIS;
  /// \returns busy also when a writer only waits
  [[nodiscard]] HF_API Result<Acquired> down_read_trylock() HF_NO_ANALYSIS;
  [[nodiscard]] HF_API Result<Acquired> down_read_interruptible() HF_NO_ANALYSIS;  ///< as mutex::lock_interruptible
  [[nodiscard]] HF_API Result<Acquired> down_read_killable() HF_NO_ANALYSIS;       ///< as mutex::lock_killable
  [[nodiscard]] HF_API Result<Acquired> down_read_until(Deadline deadline) HF_NO_ANALYSIS;
  template <class Rep, class Period>
  [[nodiscard]] Result<Acquired> down_read_timeout(const std::chrono::duration<Rep, Period>& length) HF_NO_ANALYSIS {
    return down_read_until(detail::after(length));
  }
  /// \returns not_owner
  HF_API Result<> up_read() HF_NO_ANALYSIS;

  /// Waits until it is alone. New readers wait from the moment on in which no other writer is before us.
  [[nodiscard]] HF_API Result<Acquired> down_write() HF_NO_ANALYSIS;
  [[nodiscard]] HF_API Result<Acquired> down_write_trylock() HF_NO_ANALYSIS;
  [[nodiscard]] HF_API Result<Acquired> down_write_interruptible() HF_NO_ANALYSIS;
  [[nodiscard]] HF_API Result<Acquired> down_write_killable() HF_NO_ANALYSIS;
  [[nodiscard]] HF_API Result<Acquired> down_write_until(Deadline deadline) HF_NO_ANALYSIS;
  template <class Rep, class Period>
  [[nodiscard]] Result<Acquired> down_write_timeout(const std::chrono::duration<Rep, Period>& length) HF_NO_ANALYSIS {
    return down_write_until(detail::after(length));
  }
  HF_API Result<> up_write() HF_NO_ANALYSIS;

  /// From writing to reading with no writer between; the readers that wait get in at once. \returns not_owner
  HF_API Result<> downgrade_write() HF_NO_ANALYSIS;

  // The standard's names, for exclusive and shared hold.

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

  HF_API void lock_shared() HF_ACQUIRE_SHARED();
  [[nodiscard]] HF_API bool try_lock_shared() HF_TRY_ACQUIRE_SHARED(true);
  template <class Rep, class Period>
  [[nodiscard]] bool try_lock_shared_for(const std::chrono::duration<Rep, Period>& length) HF_TRY_ACQUIRE_SHARED(true) {
    return try_lock_shared_by(detail::after(length));
  }
  template <class Clock, class Duration>
  [[nodiscard]] bool try_lock_shared_until(const std::chrono::time_point<Clock, Duration>& instant)
      HF_TRY_ACQUIRE_SHARED(true) {
    return detail::until(instant, [this](Deadline deadline) { return try_lock_shared_by(deadline); });
  }
  HF_API void unlock_shared() HF_RELEASE_SHARED();

  /// Whether anybody is inside, or a writer waits for readers to leave: out of date when the answer arrives.
  [[nodiscard]] HF_API bool is_locked() const noexcept;
  /// The thread id of the writer inside or draining, 0 for none.
  [[nodiscard]] HF_API std::uint32_t writer() const noexcept;

  /// Declares what the lock protects repaired; for the writer inside. \returns not_owner
  HF_API Result<> consistent();
  HF_API Result<> mark_inconsistent();

 private:
  [[nodiscard]] HF_API bool try_lock_by(Deadline deadline);
  [[nodiscard]] HF_API bool try_lock_shared_by(Deadline deadline);

  detail::RwLayout layout_;
};

}  // namespace holdfast::sync
