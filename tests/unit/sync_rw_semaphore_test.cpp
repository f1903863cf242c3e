// SPDX-License-Identifier: MIT
// rw_semaphore, seen from the threads of one process.
#include <gtest/gtest.h>
#include <signal.h>
#include <holdfast/sync/rw_semaphore.hpp>
#include <holdfast/sync/termination.hpp>

#include <latch>
#include <mutex>
#include <shared_mutex>
#include <thread>
#include <vector>

#if defined(__clang__)
#pragma clang diagnostic ignored "-Wthread-safety-analysis"  // what it forbids is what is tested here
#endif

namespace {

using namespace std::chrono_literals;
using holdfast::sync::Acquired;
using holdfast::sync::errc;
using holdfast::sync::Policy;
using holdfast::sync::rw_semaphore;

constinit rw_semaphore static_lock;

template <class Work>
void elsewhere(Work work) {
  std::thread(work).join();
}

class RwThread : public testing::TestWithParam<Policy> {
 protected:
  rw_semaphore lock_{GetParam()};
};
INSTANTIATE_TEST_SUITE_P(policies, RwThread, testing::Values(Policy::phase_fair, Policy::writer_first),
                         [](const auto& name) {
                           return name.param == Policy::phase_fair ? "phase_fair" : "writer_first";
                         });

TEST_P(RwThread, readers_share_and_keep_writers_out) {
  EXPECT_EQ(lock_.down_read(), Acquired::clean);
  elsewhere([&] {
    EXPECT_EQ(lock_.down_read_trylock(), Acquired::clean);
    EXPECT_TRUE(lock_.up_read());
    EXPECT_EQ(lock_.down_write_trylock().error(), errc::busy);
    EXPECT_EQ(lock_.down_write_timeout(2ms).error(), errc::timed_out);
    EXPECT_EQ(lock_.down_read(), Acquired::clean);  // a writer that gave up leaves the way free
    EXPECT_TRUE(lock_.up_read());
  });
  EXPECT_TRUE(lock_.is_locked());
  EXPECT_TRUE(lock_.up_read());
  EXPECT_FALSE(lock_.is_locked());
}

TEST_P(RwThread, a_writer_is_alone) {
  EXPECT_EQ(lock_.down_write(), Acquired::clean);
  elsewhere([&] {
    EXPECT_EQ(lock_.down_read_trylock().error(), errc::busy);
    EXPECT_EQ(lock_.down_write_trylock().error(), errc::busy);
    EXPECT_EQ(lock_.down_read_timeout(2ms).error(), errc::timed_out);
    EXPECT_EQ(lock_.up_write().error(), errc::not_owner);
    EXPECT_EQ(lock_.up_read().error(), errc::not_owner);
    EXPECT_EQ(lock_.consistent().error(), errc::not_owner);
  });
  EXPECT_TRUE(lock_.up_write());
  EXPECT_EQ(lock_.up_write().error(), errc::not_owner);
}

TEST_P(RwThread, asking_again_is_answered_with_deadlock) {
  ASSERT_TRUE(lock_.down_read());
  EXPECT_EQ(lock_.down_read().error(), errc::deadlock);
  EXPECT_EQ(lock_.down_write().error(), errc::deadlock);
  EXPECT_EQ(lock_.down_write_trylock().error(), errc::deadlock);
  ASSERT_TRUE(lock_.up_read());
  ASSERT_TRUE(lock_.down_write());
  EXPECT_EQ(lock_.down_write().error(), errc::deadlock);
  EXPECT_EQ(lock_.down_read().error(), errc::deadlock);
  ASSERT_TRUE(lock_.up_write());
}

TEST_P(RwThread, a_downgrade_lets_the_waiting_readers_in_and_no_writer) {
  ASSERT_TRUE(lock_.down_write());
  std::latch reading(2);
  std::latch done(1);
  std::vector<std::thread> readers;
  for (int i = 0; i < 2; ++i) {
    readers.emplace_back([&] {
      EXPECT_EQ(lock_.down_read(), Acquired::clean);
      reading.count_down();
      done.wait();
      EXPECT_TRUE(lock_.up_read());
    });
  }
  std::this_thread::sleep_for(5ms);  // most of the time both sleep by now; either way they must get in
  EXPECT_TRUE(lock_.downgrade_write());
  EXPECT_EQ(lock_.writer(), 0U);
  reading.wait();
  elsewhere([&] { EXPECT_EQ(lock_.down_write_trylock().error(), errc::busy); });
  EXPECT_EQ(lock_.up_write().error(), errc::not_owner);
  EXPECT_TRUE(lock_.up_read());
  done.count_down();
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(lock_.downgrade_write().error(), errc::not_owner);
}

TEST_P(RwThread, a_dead_reader_is_out_and_nobody_is_told) {
  elsewhere([&] { ASSERT_TRUE(lock_.down_read()); });
  EXPECT_EQ(lock_.down_write(), Acquired::clean);
  EXPECT_TRUE(lock_.up_write());
}

TEST_P(RwThread, a_writers_death_is_told_once_to_a_reader_too) {
  elsewhere([&] { ASSERT_TRUE(lock_.down_write()); });
  EXPECT_EQ(lock_.down_read(), Acquired::owner_died);
  EXPECT_TRUE(lock_.up_read());
  EXPECT_EQ(lock_.down_read_trylock(), Acquired::inconsistent);
  EXPECT_TRUE(lock_.up_read());
  EXPECT_THROW(lock_.lock_shared(), std::system_error);
  EXPECT_THROW(static_cast<void>(lock_.try_lock()), std::system_error);
  EXPECT_FALSE(lock_.is_locked());
  EXPECT_EQ(lock_.down_write(), Acquired::inconsistent);
  EXPECT_TRUE(lock_.consistent());
  EXPECT_TRUE(lock_.up_write());
  EXPECT_EQ(lock_.down_read(), Acquired::clean);
  EXPECT_TRUE(lock_.up_read());
}

TEST_P(RwThread, a_downgraded_writers_death_damages_nothing) {
  elsewhere([&] {
    ASSERT_TRUE(lock_.down_write());
    ASSERT_TRUE(lock_.downgrade_write());
  });
  EXPECT_EQ(lock_.down_write(), Acquired::clean);
  EXPECT_TRUE(lock_.up_write());
}

TEST_P(RwThread, more_readers_than_slots_get_in_one_after_the_other) {
  constexpr int kReaders = 70;
  std::latch all_in(64);
  std::latch leave(1);
  std::atomic<int> through{0};
  std::vector<std::thread> readers;
  for (int i = 0; i < kReaders; ++i) {
    readers.emplace_back([&] {
      EXPECT_EQ(lock_.down_read(), Acquired::clean);
      if (++through <= 64) {
        all_in.count_down();
        leave.wait();
      }
      EXPECT_TRUE(lock_.up_read());
    });
  }
  all_in.wait();
  leave.count_down();
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(through, kReaders);
  EXPECT_FALSE(lock_.is_locked());
  EXPECT_EQ(lock_.down_write(), Acquired::clean);
  EXPECT_TRUE(lock_.up_write());
}

TEST(RwSemaphoreThread, the_standard_guards_work) {
  {
    const std::shared_lock guard(static_lock);
    EXPECT_TRUE(static_lock.is_locked());
  }
  {
    const std::unique_lock guard(static_lock, 1ms);
    EXPECT_TRUE(guard);
  }
  {
    const std::shared_lock guard(static_lock, std::chrono::system_clock::now() + 1ms);
    EXPECT_TRUE(guard);
  }
  {
    const std::scoped_lock guard(static_lock);
    EXPECT_NE(static_lock.writer(), 0U);
  }
  EXPECT_FALSE(static_lock.is_locked());
}

void ignore_signal(int) {}

TEST_P(RwThread, a_handler_ends_an_interruptible_wait_whatever_sa_restart_says) {
  for (const int flags : {0, SA_RESTART}) {
    struct sigaction action{};
    action.sa_handler = ignore_signal;
    action.sa_flags = flags;
    ASSERT_EQ(::sigaction(SIGUSR1, &action, nullptr), 0);
    for (const bool write : {false, true}) {
      ASSERT_TRUE(write ? lock_.down_read() : lock_.down_write());  // what keeps the other out
      std::atomic<int> done{0};
      std::thread worker([&] {
        const auto got = write ? lock_.down_write_interruptible() : lock_.down_read_interruptible();
        EXPECT_EQ(got.error(), errc::interrupted);
        done = 1;
        while (done == 1) std::this_thread::yield();
      });
      while (done == 0) {
        ::pthread_kill(worker.native_handle(), SIGUSR1);
        std::this_thread::sleep_for(200us);
      }
      done = 2;
      worker.join();
      ASSERT_TRUE(write ? lock_.up_read() : lock_.up_write());
    }
  }
}

TEST_P(RwThread, noted_termination_ends_a_killable_wait) {
  ASSERT_TRUE(lock_.down_write());
  std::thread reader([&] { EXPECT_EQ(lock_.down_read_killable().error(), errc::interrupted); });
  std::thread writer([&] { EXPECT_EQ(lock_.down_write_killable().error(), errc::interrupted); });
  std::this_thread::sleep_for(2ms);
  holdfast::sync::note_termination();
  reader.join();
  writer.join();
  holdfast::sync::clear_termination();
  EXPECT_TRUE(lock_.up_write());
}

TEST_P(RwThread, threads_in_every_form_of_waiting_exclude_each_other) {
  long value = 0;  // plain on purpose: ThreadSanitizer watches it
  std::atomic<int> readers{0};
  std::vector<std::thread> threads;
  constexpr int kRounds = 2000;
  for (int t = 0; t < 6; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kRounds;) {
        const bool write = (i + t) % 4 == 0;
        const auto got = write ? (i % 3 == 0   ? lock_.down_write()
                                  : i % 3 == 1 ? lock_.down_write_timeout(100us)
                                               : lock_.down_write_killable())
                               : (i % 3 == 0   ? lock_.down_read()
                                  : i % 3 == 1 ? lock_.down_read_timeout(100us)
                                               : lock_.down_read_interruptible());
        if (!got) continue;
        if (write) {
          EXPECT_EQ(readers, 0);
          ++value;
          if (i % 5 == 0) {
            EXPECT_TRUE(lock_.downgrade_write());
            EXPECT_TRUE(lock_.up_read());
          } else {
            EXPECT_TRUE(lock_.up_write());
          }
        } else {
          ++readers;
          const long before = value;
          EXPECT_EQ(value, before);
          --readers;
          EXPECT_TRUE(lock_.up_read());
        }
        ++i;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(value, 6 * kRounds / 4);
  EXPECT_FALSE(lock_.is_locked());
}

}  // namespace
