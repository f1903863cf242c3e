// SPDX-License-Identifier: MIT
// semaphore and owned_semaphore, seen from the threads of one process.
#include <gtest/gtest.h>
#include <signal.h>
#include <holdfast/sync/semaphore.hpp>
#include <holdfast/sync/termination.hpp>

#include <thread>
#include <vector>

#if defined(__clang__)
#pragma clang diagnostic ignored "-Wthread-safety-analysis"  // what it forbids is what is tested here
#endif

namespace {

using namespace std::chrono_literals;
using holdfast::sync::Acquired;
using holdfast::sync::errc;
using holdfast::sync::owned_semaphore;
using holdfast::sync::semaphore;

constinit semaphore static_plain(1);
constinit owned_semaphore<2> static_owned;

template <class Work>
void elsewhere(Work work) {
  std::thread(work).join();
}

TEST(SemaphoreThread, units_are_taken_and_given_by_anybody) {
  semaphore units(2);
  EXPECT_EQ(units.value(), 2U);
  EXPECT_TRUE(units.down());
  EXPECT_TRUE(units.down_trylock());
  EXPECT_EQ(units.value(), 0U);
  EXPECT_EQ(units.down_trylock().error(), errc::busy);
  EXPECT_EQ(units.down_timeout(2ms).error(), errc::timed_out);
  elsewhere([&] { EXPECT_TRUE(units.up()); });
  EXPECT_TRUE(units.down());
  EXPECT_TRUE(static_plain.down());
  EXPECT_TRUE(static_plain.up());
}

TEST(SemaphoreThread, a_binary_one_refuses_a_second_unit) {
  semaphore binary(1, 1);
  EXPECT_EQ(binary.up().error(), errc::overflow);
  EXPECT_TRUE(binary.down());
  EXPECT_TRUE(binary.up());
  EXPECT_EQ(binary.value(), 1U);
}

TEST(SemaphoreThread, every_sleeper_gets_a_unit) {
  semaphore units(0);
  std::vector<std::thread> sleepers;
  for (int i = 0; i < 8; ++i) sleepers.emplace_back([&] { EXPECT_TRUE(units.down()); });
  for (int i = 0; i < 8; ++i) EXPECT_TRUE(units.up());
  for (std::thread& each : sleepers) each.join();
  EXPECT_EQ(units.value(), 0U);
}

TEST(SemaphoreThread, no_unit_is_lost_among_threads_in_every_form_of_waiting) {
  semaphore units(2);
  std::atomic<int> inside{0};
  std::vector<std::thread> threads;
  for (int form = 0; form < 4; ++form) {
    threads.emplace_back([&, form] {
      for (int i = 0; i < 5000;) {
        const auto got = form == 0   ? units.down()
                         : form == 1 ? units.down_timeout(50us)
                         : form == 2 ? units.down_interruptible()
                                     : units.down_killable();
        if (!got) continue;
        EXPECT_LE(++inside, 2);
        --inside;
        EXPECT_TRUE(units.up());
        ++i;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(units.value(), 2U);
}

void ignore_signal(int) {}

template <class Down>
void expect_ended_by_a_handler(Down down) {
  for (const int flags : {0, SA_RESTART}) {
    struct sigaction action{};
    action.sa_handler = ignore_signal;
    action.sa_flags = flags;
    ASSERT_EQ(::sigaction(SIGUSR1, &action, nullptr), 0);
    std::atomic<int> done{0};
    std::thread worker([&] {
      EXPECT_EQ(down().error(), errc::interrupted);
      done = 1;
      while (done == 1) std::this_thread::yield();
    });
    while (done == 0) {
      ::pthread_kill(worker.native_handle(), SIGUSR1);
      std::this_thread::sleep_for(200us);
    }
    done = 2;
    worker.join();
  }
}

TEST(SemaphoreThread, a_handler_ends_an_interruptible_wait_whatever_sa_restart_says) {
  semaphore plain(0);
  expect_ended_by_a_handler([&] { return plain.down_interruptible(); });
  owned_semaphore<2> owned;
  ASSERT_TRUE(owned.down());
  ASSERT_TRUE(owned.down());
  expect_ended_by_a_handler([&] { return owned.down_interruptible(); });
  ASSERT_TRUE(owned.up());
  ASSERT_TRUE(owned.up());
}

TEST(SemaphoreThread, noted_termination_ends_a_killable_wait) {
  semaphore plain(0);
  owned_semaphore<1> owned;
  ASSERT_TRUE(owned.down());
  std::thread first([&] { EXPECT_EQ(plain.down_killable().error(), errc::interrupted); });
  std::thread second([&] { EXPECT_EQ(owned.down_killable().error(), errc::interrupted); });
  std::this_thread::sleep_for(2ms);
  holdfast::sync::note_termination();
  first.join();
  second.join();
  holdfast::sync::clear_termination();
  ASSERT_TRUE(owned.up());
}

TEST(OwnedSemaphoreThread, one_that_took_no_unit_may_give_none) {
  EXPECT_EQ(static_owned.up().error(), errc::not_owner);
  EXPECT_EQ(static_owned.down(), Acquired::clean);
  EXPECT_EQ(static_owned.down_trylock(), Acquired::clean);
  elsewhere([&] {
    EXPECT_EQ(static_owned.up().error(), errc::not_owner);
    EXPECT_EQ(static_owned.down_trylock().error(), errc::busy);
    EXPECT_EQ(static_owned.down_timeout(2ms).error(), errc::timed_out);
  });
  EXPECT_TRUE(static_owned.up());
  EXPECT_TRUE(static_owned.up());
  EXPECT_EQ(static_owned.up().error(), errc::not_owner);
  EXPECT_EQ(static_owned.value(), 2U);
}

TEST(OwnedSemaphoreThread, one_that_has_all_units_is_not_let_wait_for_itself) {
  owned_semaphore<2> units;
  ASSERT_TRUE(units.down());
  ASSERT_TRUE(units.down());
  EXPECT_EQ(units.down().error(), errc::deadlock);
  EXPECT_EQ(units.down_trylock().error(), errc::deadlock);
  ASSERT_TRUE(units.up());
  elsewhere([&] { ASSERT_TRUE(units.down()); });  // and ends
  EXPECT_EQ(units.down_timeout(20s), Acquired::owner_died);
  ASSERT_TRUE(units.up());
  ASSERT_TRUE(units.up());
}

TEST(OwnedSemaphoreThread, the_units_of_the_dead_come_back_and_it_is_told_once) {
  owned_semaphore<3> units;
  elsewhere([&] {
    EXPECT_TRUE(units.down());
    EXPECT_TRUE(units.down());
  });
  EXPECT_EQ(units.value(), 3U);
  int told = 0;
  for (int i = 0; i < 3; ++i) told += units.down() == Acquired::owner_died ? 1 : 0;
  EXPECT_EQ(told, 2);
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(units.up());
  for (int i = 0; i < 3; ++i) EXPECT_EQ(units.down(), Acquired::clean);
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(units.up());
}

TEST(OwnedSemaphoreThread, no_unit_is_lost_among_threads_in_every_form_of_waiting) {
  owned_semaphore<2> units;
  std::atomic<int> inside{0};
  std::vector<std::thread> threads;
  for (int form = 0; form < 4; ++form) {
    threads.emplace_back([&, form] {
      for (int i = 0; i < 3000;) {
        const auto got = form == 0   ? units.down()
                         : form == 1 ? units.down_timeout(50us)
                         : form == 2 ? units.down_interruptible()
                                     : units.down_killable();
        if (!got) continue;
        EXPECT_LE(++inside, 2);
        --inside;
        EXPECT_TRUE(units.up());
        ++i;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(units.value(), 2U);
}

}  // namespace
