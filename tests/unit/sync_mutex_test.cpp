// SPDX-License-Identifier: MIT
// mutex, seen from the threads of one process: what it answers, and that it excludes.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <holdfast/sync/mutex.hpp>
#include <holdfast/sync/termination.hpp>

#include <array>
#include <latch>
#include <mutex>
#include <thread>
#include <vector>

#if defined(__clang__)
#pragma clang diagnostic ignored "-Wthread-safety-analysis"  // what it forbids is what is tested here
#endif

namespace {

using namespace std::chrono_literals;
using holdfast::sync::Acquired;
using holdfast::sync::errc;
using holdfast::sync::mutex;

constinit mutex static_lock;

/// Runs `work` in a thread of its own and waits for its end.
template <class Work>
void elsewhere(Work work) {
  std::thread(work).join();
}

void die_holding(mutex& lock) {
  elsewhere([&] { EXPECT_EQ(lock.lock_checked(), Acquired::clean); });
}

TEST(MutexThread, one_that_is_free_is_had_and_given_back) {
  mutex lock;
  EXPECT_FALSE(lock.is_locked());
  EXPECT_EQ(lock.lock_checked(), Acquired::clean);
  EXPECT_TRUE(lock.is_locked());
  EXPECT_EQ(lock.holder(), static_cast<std::uint32_t>(::syscall(SYS_gettid)));
  EXPECT_TRUE(lock.unlock_checked());
  EXPECT_FALSE(lock.is_locked());
}

TEST(MutexThread, the_standard_guards_work) {
  mutex other;
  {
    const std::lock_guard guard(static_lock);
    EXPECT_TRUE(static_lock.is_locked());
  }
  {
    const std::scoped_lock guard(static_lock, other);
    EXPECT_TRUE(other.is_locked());
  }
  {
    std::unique_lock guard(static_lock, std::defer_lock);
    EXPECT_TRUE(guard.try_lock_for(1ms));
    guard.unlock();
    EXPECT_TRUE(guard.try_lock_until(std::chrono::system_clock::now() + 1ms));
  }
  EXPECT_FALSE(static_lock.is_locked());
}

TEST(MutexThread, the_holders_second_lock_is_answered_with_deadlock) {
  mutex lock;
  lock.lock();
  EXPECT_EQ(lock.lock_checked().error(), errc::deadlock);
  EXPECT_EQ(lock.trylock().error(), errc::deadlock);
  EXPECT_EQ(lock.lock_timeout(1h).error(), std::errc::resource_deadlock_would_occur);
  EXPECT_THROW(lock.lock(), std::system_error);
  EXPECT_TRUE(lock.unlock_checked());
}

TEST(MutexThread, a_stranger_may_neither_unlock_nor_declare_repaired) {
  mutex lock;
  EXPECT_EQ(lock.unlock_checked().error(), errc::not_owner);
  lock.lock();
  elsewhere([&] {
    EXPECT_EQ(lock.unlock_checked().error(), errc::not_owner);
    EXPECT_EQ(lock.consistent().error(), errc::not_owner);
    EXPECT_THROW(lock.unlock(), std::system_error);
    EXPECT_EQ(lock.trylock().error(), errc::busy);
    EXPECT_FALSE(lock.try_lock());
  });
  EXPECT_TRUE(lock.unlock_checked());
}

TEST(MutexThread, a_wait_ends_at_its_deadline) {
  mutex lock;
  lock.lock();
  elsewhere([&] {
    const auto before = std::chrono::steady_clock::now();
    EXPECT_EQ(lock.lock_timeout(20ms).error(), errc::timed_out);
    EXPECT_GE(std::chrono::steady_clock::now() - before, 20ms);
    EXPECT_FALSE(lock.try_lock_until(std::chrono::system_clock::now() + 5ms));
    EXPECT_EQ(lock.lock_until_checked({}).error(), errc::timed_out);  // long past
  });
  lock.unlock();
}

TEST(MutexThread, the_next_holder_is_told_of_the_death_of_the_last_once) {
  mutex lock;
  die_holding(lock);
  EXPECT_EQ(lock.lock_checked(), Acquired::owner_died);
  EXPECT_TRUE(lock.consistent());
  lock.unlock();
  EXPECT_EQ(lock.lock_checked(), Acquired::clean);
  lock.unlock();
}

TEST(MutexThread, what_nobody_repaired_stays_inconsistent_until_somebody_does) {
  mutex lock;
  die_holding(lock);
  EXPECT_EQ(lock.lock_checked(), Acquired::owner_died);
  lock.unlock();
  EXPECT_EQ(lock.trylock(), Acquired::inconsistent);
  lock.unlock();
  EXPECT_THROW(lock.lock(), std::system_error);
  EXPECT_FALSE(lock.is_locked());
  EXPECT_EQ(lock.lock_checked(), Acquired::inconsistent);
  EXPECT_TRUE(lock.consistent());
  lock.unlock();
  lock.lock();
  EXPECT_TRUE(lock.mark_inconsistent());
  lock.unlock();
  EXPECT_EQ(lock.lock_checked(), Acquired::inconsistent);
  lock.unlock();
}

TEST(MutexThread, the_throwing_forms_hold_nothing_after_a_death) {
  mutex lock;
  die_holding(lock);
  try {
    lock.lock();
    ADD_FAILURE() << "lock() kept quiet about the death";
  } catch (const std::system_error& error) {
    EXPECT_EQ(error.code(), errc::owner_dead);
    EXPECT_EQ(error.code(), std::errc::owner_dead);
  }
  EXPECT_FALSE(lock.is_locked());
  EXPECT_THROW(static_cast<void>(lock.try_lock()), std::system_error);
}

TEST(MutexThread, a_sleeper_is_woken_by_the_holders_death) {
  mutex lock;
  std::latch held(1);
  std::latch asked(1);
  std::thread holder([&] {
    lock.lock();
    held.count_down();
    asked.wait();
    std::this_thread::sleep_for(5ms);  // lets the other fall asleep; nothing depends on it
  });
  held.wait();
  asked.count_down();
  EXPECT_EQ(lock.lock_checked(), Acquired::owner_died);
  lock.unlock();
  holder.join();
}

TEST(MutexThread, a_pthread_robust_mutex_and_ours_share_the_list) {
  pthread_mutexattr_t robust;
  ASSERT_EQ(::pthread_mutexattr_init(&robust), 0);
  ASSERT_EQ(::pthread_mutexattr_setrobust(&robust, PTHREAD_MUTEX_ROBUST), 0);
  std::array<pthread_mutex_t, 3> theirs{};
  for (pthread_mutex_t& each : theirs) ASSERT_EQ(::pthread_mutex_init(&each, &robust), 0);
  std::array<mutex, 3> ours;
  elsewhere([&] {
    ::pthread_mutex_lock(&theirs[0]);
    ours[0].lock();
    ::pthread_mutex_lock(&theirs[1]);
    ours[1].lock();
    ours[2].lock();
    ::pthread_mutex_lock(&theirs[2]);
    ::pthread_mutex_unlock(&theirs[1]);
    ours[1].unlock();
  });
  EXPECT_EQ(::pthread_mutex_lock(&theirs[0]), EOWNERDEAD);
  EXPECT_EQ(::pthread_mutex_lock(&theirs[1]), 0);
  EXPECT_EQ(::pthread_mutex_lock(&theirs[2]), EOWNERDEAD);
  EXPECT_EQ(ours[0].lock_checked(), Acquired::owner_died);
  EXPECT_EQ(ours[1].lock_checked(), Acquired::clean);
  EXPECT_EQ(ours[2].lock_checked(), Acquired::owner_died);
  for (mutex& each : ours) each.unlock();
  for (pthread_mutex_t& each : theirs) {
    ::pthread_mutex_consistent(&each);
    ::pthread_mutex_unlock(&each);
  }
}

void count_signal(int) {}

/// Sends SIGUSR1 to a thread until it says it is done: one signal alone may come before the thread sleeps.
template <class Work>
void under_signals(int flags, Work work) {
  struct sigaction action{};
  action.sa_handler = count_signal;
  action.sa_flags = flags;
  ASSERT_EQ(::sigaction(SIGUSR1, &action, nullptr), 0);
  std::atomic<bool> done{false};
  std::thread worker([&] {
    work();
    done = true;
    while (done) std::this_thread::yield();  // stays until no more signals come
  });
  while (!done) {
    ::pthread_kill(worker.native_handle(), SIGUSR1);
    std::this_thread::sleep_for(200us);
  }
  done = false;
  worker.join();
}

TEST(MutexThread, a_handler_ends_an_interruptible_wait_whatever_sa_restart_says) {
  for (const int flags : {0, SA_RESTART}) {
    mutex lock;
    lock.lock();
    under_signals(flags, [&] { EXPECT_EQ(lock.lock_interruptible().error(), errc::interrupted); });
    lock.unlock();
    EXPECT_EQ(lock.lock_interruptible(), Acquired::clean);
    lock.unlock();
  }
}

TEST(MutexThread, a_handler_ends_no_other_wait) {
  for (const int flags : {0, SA_RESTART}) {
    mutex lock;
    lock.lock();
    under_signals(flags, [&] { EXPECT_EQ(lock.lock_timeout(20ms).error(), errc::timed_out); });
    std::thread release([&] {
      std::this_thread::sleep_for(20ms);
      holdfast::sync::note_termination();
    });
    under_signals(flags, [&] { EXPECT_EQ(lock.lock_killable().error(), errc::interrupted); });
    release.join();
    holdfast::sync::clear_termination();
    lock.unlock();
    EXPECT_EQ(lock.lock_killable(), Acquired::clean);
    lock.unlock();
  }
}

TEST(MutexThread, threads_in_every_form_of_waiting_exclude_each_other) {
  mutex lock;
  int inside = 0;  // plain on purpose: ThreadSanitizer watches it
  long entered = 0;
  constexpr int kRounds = 20000;
  std::vector<std::thread> threads;
  for (int form = 0; form < 5; ++form) {
    threads.emplace_back([&, form] {
      for (int i = 0; i < kRounds;) {
        const auto got = form == 0   ? lock.lock_checked()
                         : form == 1 ? lock.trylock()
                         : form == 2 ? lock.lock_timeout(50us)
                         : form == 3 ? lock.lock_interruptible()
                                     : lock.lock_killable();
        if (!got) {
          std::this_thread::yield();
          continue;
        }
        EXPECT_EQ(++inside, 1);
        ++entered;
        --inside;
        lock.unlock();
        ++i;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(entered, 5 * kRounds);
}

TEST(MutexThread, the_last_user_may_destroy_it_while_another_is_still_inside_unlock) {
  struct Shared {
    mutex lock;
    int users = 2;
  };
  for (int i = 0; i < 3000; ++i) {
    auto* shared = new Shared;
    const auto leave = [shared] {
      shared->lock.lock();
      const bool last = --shared->users == 0;
      shared->lock.unlock();
      if (last) delete shared;
    };
    std::thread other(leave);
    leave();
    other.join();
  }
}

TEST(Mutex, a_forked_child_holds_nothing_and_the_parent_keeps_all) {
  mutex lock;
  lock.lock();
  const pid_t child = ::fork();
  if (child == 0) {
    if (lock.unlock_checked().error() != errc::not_owner) ::_exit(1);
    if (lock.trylock().error() != errc::busy) ::_exit(2);
    mutex own;
    if (own.lock_checked() != Acquired::clean) ::_exit(3);
    ::_exit(0);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_TRUE(lock.unlock_checked());
}

}  // namespace
