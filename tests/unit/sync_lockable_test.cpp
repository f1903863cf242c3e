// SPDX-License-Identifier: MIT
// What every lock promises to the standard's guards and to the compiler. The guards are instantiated, and used once,
// for each type that they are for; annotations/ beside this file is for Clang's analysis.
#include <gtest/gtest.h>
#include <holdfast/sync/mutex.hpp>
#include <holdfast/sync/ordered.hpp>
#include <holdfast/sync/process_mutex.hpp>
#include <holdfast/sync/rw_semaphore.hpp>
#include <holdfast/sync/segment.hpp>
#include <holdfast/sync/semaphore.hpp>
#include <holdfast/sync/spinlock.hpp>

#include <chrono>
#include <concepts>
#include <mutex>
#include <shared_mutex>
#include <type_traits>
#include <utility>

#if defined(__clang__)
#pragma clang diagnostic ignored "-Wthread-safety-analysis"  // it does not follow unique_lock
#endif

namespace {

using namespace std::chrono_literals;
using namespace holdfast::sync;

// [thread.req.lockable] of the standard.
template <class L>
concept Lockable = requires(L lock) {
  { lock.lock() } -> std::same_as<void>;
  { lock.try_lock() } -> std::same_as<bool>;
  { lock.unlock() } -> std::same_as<void>;
};
template <class L>
concept TimedLockable = Lockable<L> && requires(L lock) {
  { lock.try_lock_for(1ms) } -> std::same_as<bool>;
  { lock.try_lock_until(std::chrono::system_clock::now()) } -> std::same_as<bool>;
};
template <class L>
concept SharedLockable = Lockable<L> && requires(L lock) {
  { lock.lock_shared() } -> std::same_as<void>;
  { lock.try_lock_shared() } -> std::same_as<bool>;
  { lock.unlock_shared() } -> std::same_as<void>;
};
template <class L>
concept SharedTimedLockable = TimedLockable<L> && SharedLockable<L> && requires(L lock) {
  { lock.try_lock_shared_for(1ms) } -> std::same_as<bool>;
  { lock.try_lock_shared_until(std::chrono::system_clock::now()) } -> std::same_as<bool>;
};
/// What the mutex types of the standard are besides.
template <class L>
concept InPlace = !std::copyable<L> && !std::movable<L>;

static_assert(TimedLockable<mutex> && InPlace<mutex>);
static_assert(TimedLockable<process_mutex> && InPlace<process_mutex>);
static_assert(SharedTimedLockable<rw_semaphore> && InPlace<rw_semaphore>);
static_assert(Lockable<spinlock> && InPlace<spinlock>);
static_assert(SharedLockable<rw_spinlock> && InPlace<rw_spinlock>);
static_assert(Lockable<seqlock> && InPlace<seqlock>);
static_assert(Lockable<robust_spinlock> && InPlace<robust_spinlock>);
static_assert(SharedLockable<ordered<rw_spinlock>> && InPlace<ordered<rw_spinlock>>);
// No lockables, on purpose: a unit is no section. But in place they are.
static_assert(!Lockable<semaphore> && InPlace<semaphore>);
static_assert(!Lockable<owned_semaphore<2>> && InPlace<owned_semaphore<2>>);

// Each is there before any code has run, with and without a class.
constexpr LockClass kClass{"lockable"};
constinit mutex a_mutex;
constinit mutex a_mutex_with_class{kClass};
constinit process_mutex a_process_mutex;
constinit process_mutex a_process_mutex_with_class{kClass};
constinit rw_semaphore an_rw_semaphore;
constinit rw_semaphore an_rw_semaphore_for_writers{Policy::writer_first};
constinit rw_semaphore an_rw_semaphore_with_class{kClass, Policy::writer_first};
constinit spinlock a_spinlock;
constinit rw_spinlock an_rw_spinlock;
constinit seqlock a_seqlock;
constinit robust_spinlock a_robust_spinlock;
constinit robust_spinlock a_robust_spinlock_with_class{kClass};
constinit ordered<spinlock> an_ordered_spinlock{kClass};
constinit ordered<rw_spinlock> an_ordered_rw_spinlock{kClass};
constinit ordered<seqlock> an_ordered_seqlock{kClass};
constinit semaphore a_semaphore{1};
constinit semaphore a_semaphore_with_class{kClass, 1};
constinit owned_semaphore<2> an_owned_semaphore;
constinit owned_semaphore<2> an_owned_semaphore_with_class{kClass};

template <class L>
void use_guards(L& lock) {
  {
    const std::lock_guard guard(lock);
  }
  {
    std::unique_lock guard(lock, std::try_to_lock);
    EXPECT_TRUE(guard.owns_lock());
    const std::unique_lock other = std::move(guard);
    EXPECT_TRUE(other.owns_lock());
  }
  {
    mutex fellow;
    const std::scoped_lock guard(lock, fellow);
  }
  if constexpr (TimedLockable<L>) {
    const std::unique_lock guard(lock, 1ms);
    EXPECT_TRUE(guard.owns_lock());
  }
  {
    const irqsave_guard guard(lock);
  }
  if constexpr (SharedLockable<L>) {
    const std::shared_lock one(lock);
    if constexpr (std::is_same_v<L, rw_spinlock>) {  // the others refuse a thread's second read
      const std::shared_lock two(lock, std::try_to_lock);
      EXPECT_TRUE(two.owns_lock());
    }
  }
  if constexpr (SharedTimedLockable<L>) {
    const std::shared_lock guard(lock, std::chrono::system_clock::now() + 1s);
    EXPECT_TRUE(guard.owns_lock());
  }
  const std::unique_lock after(lock, std::try_to_lock);
  EXPECT_TRUE(after.owns_lock()) << "a guard before kept it";
}

template <class... Ls>
void use_guards_of(Ls&... locks) {
  (use_guards(locks), ...);
}

TEST(Lockable, the_guards_of_the_standard_take_and_give_back_every_lock) {
  use_guards_of(a_mutex, a_mutex_with_class, a_process_mutex, a_process_mutex_with_class, an_rw_semaphore,
                an_rw_semaphore_for_writers, an_rw_semaphore_with_class, a_spinlock, an_rw_spinlock, a_seqlock,
                a_robust_spinlock, a_robust_spinlock_with_class, an_ordered_spinlock, an_ordered_rw_spinlock,
                an_ordered_seqlock);
}

TEST(Lockable, semaphores_are_there_from_the_start) {
  EXPECT_EQ(a_semaphore.value() + a_semaphore_with_class.value(), 2U);
  EXPECT_EQ(an_owned_semaphore.value() + an_owned_semaphore_with_class.value(), 4U);
}

// In fresh shared memory no constructor has run.
TEST(Lockable, memory_of_zeros_is_a_free_lock_where_it_is_said_so) {
  const auto zeros = segment::make(4 * sizeof(rw_semaphore));
  ASSERT_TRUE(zeros);
  auto* const bytes = static_cast<unsigned char*>(zeros->data());
  use_guards(*reinterpret_cast<mutex*>(bytes));
  use_guards(*reinterpret_cast<process_mutex*>(bytes + sizeof(rw_semaphore)));
  use_guards(*reinterpret_cast<rw_semaphore*>(bytes + 2 * sizeof(rw_semaphore)));
  use_guards(*reinterpret_cast<robust_spinlock*>(bytes + 3 * sizeof(rw_semaphore)));
}

}  // namespace
