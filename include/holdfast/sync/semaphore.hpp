// SPDX-License-Identifier: MIT
// sync/semaphore.hpp - a number of units to take and give back: the plain kind that anybody may raise, and the kind
// that remembers who took what.
#pragma once

#include <holdfast/sync/annotations.hpp>
#include <holdfast/sync/error.hpp>
#include <holdfast/sync/mutex.hpp>
#include <holdfast/sync/node.hpp>
#include <holdfast/sync/timing.hpp>

#include <array>
#include <chrono>
#include <cstdint>

namespace holdfast::sync {

namespace detail {

/// Layout version 1. The cell's low half is the word that the kernel sees, at the place of RobustNode::word.
struct SemaphoreLayout {
  constexpr SemaphoreLayout(std::uint64_t first, std::uint32_t maximum, LockClass lock_class) noexcept
      : cell(first), most(maximum), order_class(lock_class) {}

  union {
    std::atomic<std::uint64_t> cell;
    std::atomic<std::uint32_t> word;  // for its address alone, which the kernel is given
  };
  std::uint32_t most;
  std::uint32_t reserved = 0;
  LockClass order_class;  // for the lock-order validator; its pointer is the maker's
  void* next = nullptr;   // never linked: the place that a pending mark points to
};
static_assert(sizeof(SemaphoreLayout) == 40 && offsetof(SemaphoreLayout, next) == 32);

}  // namespace detail

/// A counting semaphore as the kernel's: no owners. Any thread of any process that has it in its memory may give units,
/// also units that it never took; what a dead process had taken is not given back (owned_semaphore does that).
///
/// Statically initialised (constinit), 40 bytes. `most` 1 makes it binary: a second up() is answered overflow.
///
/// \thread  any; up() and down_trylock() also in a signal handler, unless it interrupts an operation on another lock of
///          this library by the same thread
/// \limit   a waiter or giver that is killed never takes a wake along; not across pid namespaces for waiting killed
/// ones
/// \cost    1.0 to 1.3 times sem_t
class semaphore {
 public:
  constexpr explicit semaphore(std::uint32_t initial, std::uint32_t most = 0x7fffffff) noexcept
      : semaphore(LockClass{}, initial, most) {}
  /// A semaphore known to order.hpp. What is held by one that waits for it is recorded; what is taken afterwards is
  /// not, for nobody knows who will give the unit back. Use owned_semaphore where that matters.
  constexpr semaphore(LockClass lock_class, std::uint32_t initial, std::uint32_t most = 0x7fffffff) noexcept
      : layout_((static_cast<std::uint64_t>(initial) << 32) | (initial != 0 ? 0x40000000U : 0U), most, lock_class) {}
  semaphore(const semaphore&) = delete;
  semaphore& operator=(const semaphore&) = delete;

  [[nodiscard]] HF_API Result<> down();
  [[nodiscard]] HF_API Result<> down_trylock();        ///< \returns busy
  [[nodiscard]] HF_API Result<> down_interruptible();  ///< as mutex::lock_interruptible
  [[nodiscard]] HF_API Result<> down_killable();       ///< as mutex::lock_killable
  [[nodiscard]] HF_API Result<> down_until(Deadline deadline);
  template <class Rep, class Period>
  [[nodiscard]] Result<> down_timeout(const std::chrono::duration<Rep, Period>& length) {
    return down_until(detail::after(length));
  }
  /// \returns overflow; nothing changes then
  HF_API Result<> up();

  /// Units to be had: out of date when the answer arrives.
  [[nodiscard]] HF_API std::uint32_t value() const noexcept;

 private:
  detail::SemaphoreLayout layout_;
};

namespace detail {

/// What all owned_semaphores do, whatever their number of units.
class OwnedSemaphore {
 public:
  OwnedSemaphore(const OwnedSemaphore&) = delete;
  OwnedSemaphore& operator=(const OwnedSemaphore&) = delete;

  [[nodiscard]] HF_API Result<Acquired> down();
  [[nodiscard]] HF_API Result<Acquired> down_trylock();
  [[nodiscard]] HF_API Result<Acquired> down_interruptible();
  [[nodiscard]] HF_API Result<Acquired> down_killable();
  [[nodiscard]] HF_API Result<Acquired> down_until(Deadline deadline);
  template <class Rep, class Period>
  [[nodiscard]] Result<Acquired> down_timeout(const std::chrono::duration<Rep, Period>& length) {
    return down_until(after(length));
  }
  /// \returns not_owner when the calling thread holds no unit
  HF_API Result<> up();

  [[nodiscard]] HF_API std::uint32_t value() const noexcept;

 protected:
  constexpr OwnedSemaphore(std::uint32_t units, LockClass lock_class) noexcept : units_(units) {
    gate_.order_class = lock_class;
  }
  ~OwnedSemaphore() = default;

 private:
  friend struct Units;
  RobustNode gate_;  // who waits for a unit holds it: one sleeper on the units at a time
  std::uint32_t units_;
  std::atomic<std::uint32_t> given_{0};  // counts what was given while somebody waited
};

}  // namespace detail

/// A semaphore that remembers who took its units.
///
/// up() by a thread that holds none is refused (seed of many a bug: a plain semaphore is raised by anybody), and the
/// units of a thread that ends, and so of a process that is killed, come back by themselves. The first that takes such
/// a unit is told Acquired::owner_died.
///
/// A thread may hold several units. Units is at most 120 (futex_waitv(2) takes 128 words). Constinit; 40 bytes a unit.
///
/// \thread, \limit  as mutex. An interruptible wait behind other waiters is as mutex's; the foremost waiter notices a
///                  holder's death within 10 ms when it waits interruptibly, at once otherwise.
/// \cost    down and up as a mutex's lock and unlock, plus the look for a free unit
template <std::uint32_t Units>
class owned_semaphore final : public detail::OwnedSemaphore {
 public:
  static_assert(Units >= 1 && Units <= 120);
  constexpr owned_semaphore() noexcept : owned_semaphore(LockClass{}) {}
  /// A semaphore whose order among other locks can be validated: see order.hpp, How::counted.
  constexpr explicit owned_semaphore(LockClass lock_class) noexcept : OwnedSemaphore(Units, lock_class) {}

 private:
  std::array<detail::RobustNode, Units> nodes_{};
};

}  // namespace holdfast::sync
