// SPDX-License-Identifier: MIT
// The spinlocks, seen from the threads of one process.
#include <gtest/gtest.h>
#include <signal.h>
#include <holdfast/sync/spinlock.hpp>

#include <array>
#include <shared_mutex>
#include <thread>
#include <vector>

#if defined(__clang__)
#pragma clang diagnostic ignored "-Wthread-safety-analysis"  // what it forbids is what is tested here
#endif

namespace {

using holdfast::sync::Acquired;
using holdfast::sync::errc;
using holdfast::sync::irqsave_guard;
using holdfast::sync::robust_spinlock;
using holdfast::sync::rw_spinlock;
using holdfast::sync::seqlock;
using holdfast::sync::spinlock;

constinit spinlock static_lock;
constinit rw_spinlock static_rw;
constinit seqlock static_seq;
constinit robust_spinlock static_robust;

template <class Lock>
void expect_exclusion(Lock& lock) {
  long value = 0;  // plain on purpose: ThreadSanitizer watches it
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 10000; ++i) {
        if (i % 4 == 0) {
          while (!lock.try_lock()) std::this_thread::yield();
          ++value;
          lock.unlock();
        } else {
          const std::lock_guard guard(lock);
          ++value;
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(value, 40000);
}

TEST(SpinlockThread, each_kind_excludes) {
  expect_exclusion(static_lock);
  expect_exclusion(static_rw);
  expect_exclusion(static_seq);
  expect_exclusion(static_robust);
}

TEST(SpinlockThread, readers_share_and_a_writer_is_alone) {
  rw_spinlock lock;
  long value = 0;
  lock.lock_shared();
  EXPECT_TRUE(lock.try_lock_shared());
  EXPECT_FALSE(lock.try_lock());
  lock.unlock_shared();
  lock.unlock_shared();
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 5000; ++i) {
        if ((i + t) % 5 == 0) {
          const std::lock_guard guard(lock);
          ++value;
        } else {
          const std::shared_lock guard(lock);
          EXPECT_GE(value, 0);
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(value, 4000);
}

TEST(SpinlockThread, a_sequence_reader_never_sees_half_of_a_write) {
  seqlock lock;
  std::array<std::atomic<int>, 2> pair{};
  std::atomic<bool> stop{false};
  std::thread writer([&] {
    for (int i = 1; i <= 20000; ++i) {
      const std::lock_guard guard(lock);
      pair[0].store(i, std::memory_order_relaxed);
      pair[1].store(-i, std::memory_order_relaxed);
    }
    stop = true;
  });
  long reads = 0;
  do {
    int first = 0;
    int second = 0;
    std::uint32_t begin = 0;
    do {
      begin = lock.read_begin();
      first = pair[0].load(std::memory_order_relaxed);
      second = pair[1].load(std::memory_order_relaxed);
    } while (lock.read_retry(begin));
    EXPECT_EQ(first, -second);
    ++reads;
  } while (!stop);
  writer.join();
  EXPECT_GT(reads, 0);
  EXPECT_EQ(pair[0], 20000);
}

spinlock handler_lock;
std::atomic<int> handled{0};

void take_in_handler(int) {
  const std::lock_guard guard(handler_lock);  // spins for ever if this thread holds it
  ++handled;
}

TEST(SpinlockThread, a_handler_that_takes_the_lock_waits_until_irqsave_ends) {
  struct sigaction action{};
  action.sa_handler = take_in_handler;
  ASSERT_EQ(::sigaction(SIGUSR2, &action, nullptr), 0);
  handled = 0;
  {
    const irqsave_guard guard(handler_lock);
    ASSERT_EQ(::raise(SIGUSR2), 0);
    EXPECT_EQ(handled, 0);
    {
      const irqsave_guard nested(static_lock);
    }
    EXPECT_EQ(handled, 0);
  }
  EXPECT_EQ(handled, 1);
}

TEST(SpinlockThread, what_was_blocked_before_irqsave_stays_blocked_after_it) {
  sigset_t blocked;
  ::sigemptyset(&blocked);
  ::sigaddset(&blocked, SIGUSR2);
  ASSERT_EQ(::pthread_sigmask(SIG_BLOCK, &blocked, nullptr), 0);
  {
    const irqsave_guard guard(static_lock);
  }
  sigset_t now;
  ASSERT_EQ(::pthread_sigmask(SIG_UNBLOCK, &blocked, &now), 0);
  EXPECT_EQ(::sigismember(&now, SIGUSR2), 1);
  EXPECT_EQ(::sigismember(&now, SIGUSR1), 0);
}

TEST(SpinlockThread, the_robust_one_tells_of_its_holders_death_and_of_misuse) {
  robust_spinlock lock;
  std::thread([&] { lock.lock(); }).join();
  EXPECT_EQ(lock.lock_checked(), Acquired::owner_died);
  EXPECT_EQ(lock.lock_checked().error(), errc::deadlock);
  std::thread([&] {
    EXPECT_EQ(lock.unlock_checked().error(), errc::not_owner);
    EXPECT_EQ(lock.trylock().error(), errc::busy);
  }).join();
  EXPECT_TRUE(lock.unlock_checked());
  EXPECT_THROW(lock.lock(), std::system_error);
  EXPECT_FALSE(lock.is_locked());
  EXPECT_EQ(lock.trylock(), Acquired::inconsistent);
  EXPECT_TRUE(lock.consistent());
  lock.unlock();
  EXPECT_EQ(lock.lock_checked(), Acquired::clean);
  lock.unlock();
}

}  // namespace
