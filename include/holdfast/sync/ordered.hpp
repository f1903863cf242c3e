// SPDX-License-Identifier: MIT
// sync/ordered.hpp - any lock with a class for the lock-order validator: for the spinlocks, which have no room for one,
// and for locks of others, std::mutex as well as std::shared_mutex.
#pragma once

#include <holdfast/sync/annotations.hpp>
#include <holdfast/sync/lock_class.hpp>
#include <holdfast/sync/order.hpp>

#include <utility>

namespace holdfast::sync {

/// A Lock whose order among other locks can be validated: see order.hpp.
///
/// Has the standard's operations that Lock has; the others, and the lock itself, through plain(), unseen by the
/// validator. 16 bytes more than Lock. Where HOLDFAST_SYNC_ORDER is 0 it is a Lock with a name.
/// \cost  nobody watches: a load and a predicted branch for each operation
template <class Lock>
class HF_CAPABILITY("ordered") ordered {
  static constexpr bool kShared = requires(Lock& lock) { lock.lock_shared(); };

 public:
  template <class... Arguments>
  explicit constexpr ordered(LockClass lock_class, Arguments&&... arguments)
      : lock_(std::forward<Arguments>(arguments)...), order_class_(lock_class) {}
  ordered(const ordered&) = delete;
  ordered& operator=(const ordered&) = delete;

  void lock() HF_ACQUIRE() HF_NO_ANALYSIS {
    waited(order::How::exclusive, [this]() HF_NO_ANALYSIS { lock_.lock(); });
  }
  [[nodiscard]] bool try_lock() HF_TRY_ACQUIRE(true) HF_NO_ANALYSIS {
    return tried(order::How::exclusive, lock_.try_lock());
  }
  void unlock() HF_RELEASE() HF_NO_ANALYSIS {
    gone();
    lock_.unlock();
  }

  HF_ACQUIRE_SHARED()
  HF_NO_ANALYSIS void lock_shared()
    requires kShared
  {
    waited(order::How::shared, [this]() HF_NO_ANALYSIS { lock_.lock_shared(); });
  }
  [[nodiscard]] HF_TRY_ACQUIRE_SHARED(true) HF_NO_ANALYSIS bool try_lock_shared()
    requires kShared
  {
    return tried(order::How::shared, lock_.try_lock_shared());
  }
  HF_RELEASE_SHARED()
  HF_NO_ANALYSIS void unlock_shared()
    requires kShared
  {
    gone();
    lock_.unlock_shared();
  }

  [[nodiscard]] Lock& plain() noexcept { return lock_; }

 private:
#if HOLDFAST_SYNC_ORDER
  template <class Take>
  [[gnu::always_inline]] void waited(order::How how, Take take) {
    order::acquiring(order_class_, this, how, order::here());
    try {
      take();
    } catch (...) {
      order::released(this);
      throw;
    }
  }
  [[gnu::always_inline]] bool tried(order::How how, bool had) noexcept {
    if (had) order::acquired_by_try(order_class_, this, how, order::here());
    return had;
  }
  [[gnu::always_inline]] void gone() noexcept { order::released(this); }
#else
  template <class Take>
  void waited(order::How, Take take) {
    take();
  }
  static bool tried(order::How, bool had) noexcept { return had; }
  static void gone() noexcept {}
#endif

  Lock lock_;
  LockClass order_class_;
};

}  // namespace holdfast::sync
