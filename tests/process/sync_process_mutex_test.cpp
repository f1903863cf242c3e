// SPDX-License-Identifier: MIT
// process_mutex: owned by a process, whichever of its threads locked it, and given back by nothing but its end.
#include <sched.h>
#include <holdfast/sync/process_mutex.hpp>
#include <holdfast/sync/termination.hpp>

#include <mutex>
#include <string>
#include <vector>

#include "process/sync_support.hpp"

#if defined(__clang__)
#pragma clang diagnostic ignored "-Wthread-safety-analysis"  // what it forbids is what is tested here
#endif

namespace {

using namespace sync_tests;
using holdfast::sync::Acquired;
using holdfast::sync::errc;
using holdfast::sync::process_mutex;

constinit process_mutex static_lock;

template <class Work>
void elsewhere(Work work) {
  std::thread(work).join();
}

TEST(ProcessMutexThread, any_thread_may_unlock_and_no_threads_end_does) {
  process_mutex lock;
  elsewhere([&] { EXPECT_EQ(lock.lock_checked(), Acquired::clean); });
  EXPECT_EQ(lock.holder(), static_cast<std::uint32_t>(::getpid()));
  EXPECT_EQ(lock.trylock().error(), errc::busy);
  EXPECT_EQ(lock.lock_timeout(5ms).error(), errc::timed_out);
  elsewhere([&] { EXPECT_TRUE(lock.unlock_checked()); });
  EXPECT_EQ(lock.unlock_checked().error(), errc::not_owner);
  EXPECT_FALSE(lock.is_locked());
}

TEST(ProcessMutexThread, the_lockers_second_lock_is_answered_with_deadlock) {
  const std::lock_guard guard(static_lock);
  EXPECT_EQ(static_lock.lock_checked().error(), errc::deadlock);
  EXPECT_THROW(static_lock.lock(), std::system_error);
}

TEST(ProcessMutexThread, threads_of_one_process_exclude_each_other) {
  process_mutex lock;
  long value = 0;
  std::vector<std::thread> threads;
  for (int form = 0; form < 4; ++form) {
    threads.emplace_back([&, form] {
      for (int i = 0; i < 5000;) {
        const auto got = form == 0   ? lock.lock_checked()
                         : form == 1 ? lock.lock_timeout(50us)
                         : form == 2 ? lock.lock_interruptible()
                                     : lock.lock_killable();
        if (!got) continue;
        ++value;
        EXPECT_TRUE(lock.unlock_checked());
        ++i;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(value, 20000);
}

// That the thread before ended only the kernel says; nothing here orders the two threads.
TEST(ProcessMutexThread, takes_the_place_of_a_thread_that_ended) {
  process_mutex lock;
  std::atomic<pid_t> locker{0};
  std::thread first([&] {
    locker.store(::gettid(), std::memory_order_relaxed);
    EXPECT_EQ(lock.lock_checked(), Acquired::clean);
    EXPECT_TRUE(lock.unlock_checked());
  });
  EXPECT_TRUE(comes_true([&] { return locker.load(std::memory_order_relaxed) != 0; }));
  const std::string task = "/proc/self/task/" + std::to_string(locker.load(std::memory_order_relaxed));
  EXPECT_TRUE(comes_true([&] { return ::access(task.c_str(), F_OK) != 0; }));
  std::thread second([&] {
    EXPECT_EQ(lock.lock_checked(), Acquired::clean);
    EXPECT_TRUE(lock.unlock_checked());
  });
  first.join();
  second.join();
}

TEST(ProcessMutex, a_child_does_not_hold_it_and_may_not_unlock_it) {
  Shared<process_mutex> lock;
  lock->lock();
  const pid_t pid = child([&] {
    if (lock->unlock_checked().error() != errc::not_owner) ::_exit(1);
    if (lock->trylock().error() != errc::busy) ::_exit(2);
  });
  int status = 0;
  ASSERT_EQ(::waitpid(pid, &status, 0), pid);
  EXPECT_EQ(status, 0);
  EXPECT_TRUE(lock->unlock_checked());
}

TEST(ProcessMutex, the_death_of_the_process_is_told_once_though_the_thread_ended_before) {
  Shared<process_mutex> lock;
  Shared<std::atomic<bool>> held;
  const pid_t holder = child([&] {
    elsewhere([&] { static_cast<void>(lock->lock_checked()); });
    *held = true;
    ::pause();
  });
  ASSERT_TRUE(comes_true([&] { return held->load(); }));
  EXPECT_EQ(lock->trylock().error(), errc::busy);
  EXPECT_EQ(lock->lock_timeout(30ms).error(), errc::timed_out);
  ::kill(holder, SIGKILL);
  const auto got = lock->lock_timeout(kGenerous);  // before it is reaped: a zombie is gone
  ASSERT_TRUE(got);
  EXPECT_EQ(*got, Acquired::owner_died);
  EXPECT_TRUE(lock->consistent());
  EXPECT_TRUE(lock->unlock_checked());
  EXPECT_EQ(lock->lock_checked(), Acquired::clean);
  EXPECT_TRUE(lock->unlock_checked());
  ::waitpid(holder, nullptr, 0);
}

TEST(ProcessMutex, exec_keeps_it) {
  Shared<process_mutex> lock;
  Shared<std::atomic<bool>> held;
  const pid_t holder = child([&] {
    lock->lock();
    *held = true;
    ::execlp("sleep", "sleep", "60", nullptr);
  });
  ASSERT_TRUE(comes_true([&] { return held->load(); }));
  EXPECT_EQ(lock->lock_timeout(40ms).error(), errc::timed_out);
  kill_and_reap(holder);
  EXPECT_EQ(lock->trylock(), Acquired::owner_died);
  lock->unlock();
}

TEST(ProcessMutex, a_process_of_another_pid_namespace_is_refused) {
  Shared<process_mutex> lock;
  lock->lock();
  int status = 0;
  const pid_t pid = child([&] {
    if (::unshare(CLONE_NEWPID) != 0) ::_exit(77);
    const pid_t inner = ::fork();
    if (inner == 0) ::_exit(lock->trylock().error() == errc::foreign_namespace ? 0 : 1);
    int inner_status = 0;
    ::waitpid(inner, &inner_status, 0);
    ::_exit(WEXITSTATUS(inner_status));
  });
  ASSERT_EQ(::waitpid(pid, &status, 0), pid);
  lock->unlock();
  if (WEXITSTATUS(status) == 77) GTEST_SKIP() << "needs the right to make a pid namespace";
  EXPECT_EQ(status, 0);
}

TEST(ProcessMutex, it_outlives_kills_of_random_holders_and_waiters) {
  struct State : Ledger {
    process_mutex lock;
    Section section;
  };
  Shared<State> state;
  const Outcome outcome = kill_at_random(*state, [&](int place, Ticket ticket) {
    std::minstd_rand random(ticket);
    while (!state->stop) {
      const auto got = random() % 8 == 0 ? state->lock.lock_timeout(3ms) : state->lock.lock_checked();
      if (!got) continue;
      state->section.enter(*state, place, ticket, *got == Acquired::owner_died);
      if (*got != Acquired::clean) static_cast<void>(state->lock.consistent());
      linger(random);
      state->section.leave(*state, ticket);
      if (!state->lock.unlock_checked()) ++state->violations;
      ++state->done;
    }
  });
  expect_held_up(*state, outcome);
}

}  // namespace
