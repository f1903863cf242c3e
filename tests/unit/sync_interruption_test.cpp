// SPDX-License-Identifier: MIT
// The interruptible forms under signals: one is enough, whenever it comes, if its handler says so; each answer has its
// handler; and who is interrupted holds nothing.
#include <gtest/gtest.h>
#include <pthread.h>
#include <signal.h>
#include <holdfast/sync/mutex.hpp>
#include <holdfast/sync/process_mutex.hpp>
#include <holdfast/sync/rw_semaphore.hpp>
#include <holdfast/sync/semaphore.hpp>
#include <holdfast/sync/termination.hpp>

#include <array>
#include <atomic>
#include <chrono>
#include <functional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#if defined(__clang__)
#pragma clang diagnostic ignored "-Wthread-safety-analysis"  // what it forbids is what is tested here
#endif

namespace {

using namespace std::chrono_literals;
using namespace holdfast::sync;

/// A lock that is taken, and the ways to wait for it interruptibly and to give it back.
struct Form {
  std::string name;
  std::function<void()> take;  // by the one that lets the others wait
  std::function<void()> give;
  std::function<std::error_code()> wait;
  std::function<std::error_code()> give_waited;  // also asked of one that was interrupted
};

template <class T>
std::error_code code_of(const Result<T>& result) {
  return result ? std::error_code{} : result.error();
}

struct Locks {
  mutex one;
  process_mutex processes;
  rw_semaphore fair;
  rw_semaphore writers{Policy::writer_first};
  semaphore plain{1};
  owned_semaphore<2> owned;

  std::vector<Form> forms() {
    const auto rw = [](rw_semaphore& lock, const std::string& policy) {
      const auto take_read = [&lock] { ASSERT_TRUE(lock.down_read()); };
      const auto take_write = [&lock] { ASSERT_TRUE(lock.down_write()); };
      const auto give_read = [&lock] { ASSERT_TRUE(lock.up_read()); };
      const auto give_write = [&lock] { ASSERT_TRUE(lock.up_write()); };
      const auto read = [&lock] { return code_of(lock.down_read_interruptible()); };
      const auto write = [&lock] { return code_of(lock.down_write_interruptible()); };
      const auto up_read = [&lock] { return code_of(lock.up_read()); };
      const auto up_write = [&lock] { return code_of(lock.up_write()); };
      return std::vector<Form>{{policy + ", reader behind writer", take_write, give_write, read, up_read},
                               {policy + ", writer behind writer", take_write, give_write, write, up_write},
                               {policy + ", writer behind reader", take_read, give_read, write, up_write}};
    };
    std::vector<Form> all = rw(fair, "phase-fair");
    for (Form& each : rw(writers, "writer-first")) all.push_back(std::move(each));
    all.push_back({"mutex", [this] { one.lock(); }, [this] { one.unlock(); },
                   [this] { return code_of(one.lock_interruptible()); },
                   [this] { return code_of(one.unlock_checked()); }});
    // Any thread of the process may unlock it: one that was interrupted is not asked to.
    all.push_back({"process_mutex",
                   [this] { processes.lock(); },
                   [this] { processes.unlock(); },
                   [this] { return code_of(processes.lock_interruptible()); },
                   {}});
    all.push_back({"semaphore",
                   [this] { ASSERT_TRUE(plain.down()); },
                   [this] { ASSERT_TRUE(plain.up()); },
                   [this] { return code_of(plain.down_interruptible()); },
                   {}});
    all.push_back({"owned_semaphore",
                   [this] {
                     ASSERT_TRUE(owned.down());
                     ASSERT_TRUE(owned.down());
                   },
                   [this] {
                     ASSERT_TRUE(owned.up());
                     ASSERT_TRUE(owned.up());
                   },
                   [this] { return code_of(owned.down_interruptible()); }, [this] { return code_of(owned.up()); }});
    return all;
  }
};

thread_local constinit std::atomic<std::uint32_t> handled{0};

void count_and_tell(int) {
  handled.fetch_add(1, std::memory_order_relaxed);
  note_interruption();
}
void only_count(int) { handled.fetch_add(1, std::memory_order_relaxed); }

void handle(void (*handler)(int), int flags) {
  struct sigaction action{};
  action.sa_handler = handler;
  action.sa_flags = flags;
  ASSERT_EQ(::sigaction(SIGUSR1, &action, nullptr), 0);
}

template <class Condition>
bool comes_true(Condition condition, std::chrono::milliseconds patience = 20s) {
  for (const auto end = std::chrono::steady_clock::now() + patience; !condition();) {
    if (std::chrono::steady_clock::now() > end) return condition();
    std::this_thread::yield();
  }
  return true;
}

/// Sends one signal at a random moment around the beginning of a wait, `rounds` times or until one was missed. Returns
/// how many were missed.
int missed(const Form& form, int rounds, std::chrono::milliseconds patience, std::uint32_t longest) {
  std::atomic<int> begun{0};
  std::atomic<int> ended{0};
  std::atomic<bool> stop{false};
  form.take();
  std::thread waiter([&] {
    for (int round = 1; round <= rounds && !stop; ++round) {
      begun = round;
      const std::error_code answer = form.wait();
      EXPECT_EQ(answer, errc::interrupted) << form.name;
      if (form.give_waited) {
        EXPECT_EQ(form.give_waited(), errc::not_owner) << form.name;
      }
      ended = round;
    }
    while (!stop) std::this_thread::yield();  // stays until no more signals come
  });
  std::minstd_rand random(std::random_device{}());
  int count = 0;
  for (int round = 1; round <= rounds && count == 0; ++round) {
    EXPECT_TRUE(comes_true([&] { return begun == round; }));
    for (auto i = random() % longest; i > 0; --i) asm volatile("");
    ::pthread_kill(waiter.native_handle(), SIGUSR1);
    if (comes_true([&] { return ended >= round; }, patience)) continue;
    ++count;
    stop = true;
    while (ended < round) {
      ::pthread_kill(waiter.native_handle(), SIGUSR1);
      std::this_thread::sleep_for(1ms);
    }
  }
  stop = true;
  waiter.join();
  form.give();
  return count;
}

class Interruption : public testing::Test {
 protected:
  void SetUp() override {
#if defined(__SANITIZE_THREAD__)
    GTEST_SKIP() << "ThreadSanitizer runs handlers late, after the wait has begun";
#endif
  }
  Locks locks_;
};

TEST_F(Interruption, one_signal_ends_each_wait_whenever_it_comes) {
  for (const int flags : {0, SA_RESTART}) {
    handle(count_and_tell, flags);
    for (const Form& form : locks_.forms()) EXPECT_EQ(missed(form, 300, 20s, 20000), 0) << form.name;
  }
}

// Why the handler must say so; and that the test above could fail.
TEST_F(Interruption, a_handler_that_says_nothing_is_missed_before_the_thread_sleeps) {
  handle(only_count, SA_RESTART);
  const Form form = locks_.forms().front();
  EXPECT_EQ(missed(form, 100000, 200ms, 5000), 1);
}

TEST_F(Interruption, what_was_noted_before_the_wait_ends_it_once) {
  mutex lock;
  lock.lock();
  std::thread([&] {
    note_interruption();
    EXPECT_EQ(lock.lock_interruptible().error(), errc::interrupted);
    note_interruption();
    EXPECT_EQ(lock.lock_timeout(1ms).error(), errc::timed_out);  // no concern of other forms
    clear_interruption();
    note_interruption();
    mutex other;
    EXPECT_TRUE(other.lock_interruptible());  // no wait, no end
    EXPECT_EQ(lock.lock_interruptible().error(), errc::interrupted);
  }).join();
  lock.unlock();
}

TEST_F(Interruption, in_a_storm_each_answer_has_its_handler_and_nobody_holds_what_he_was_refused) {
  constexpr int kWaiters = 3;
  constexpr std::uint32_t kAnswers = 20;  // of each kind, by each waiter
  handle(count_and_tell, SA_RESTART);
  for (const Form& form : locks_.forms()) {
    const bool shared = form.name.find("reader behind") != std::string::npos;
    std::atomic<bool> stop{false};
    std::atomic<int> finished{0};
    std::atomic<int> inside{0};
    std::vector<std::thread> waiters;
    for (int i = 0; i < kWaiters; ++i) {
      waiters.emplace_back([&] {
        clear_interruption();
        const std::uint32_t before = handled;
        std::uint32_t interrupted = 0;
        std::uint32_t had = 0;
        while (!stop) {
          const std::error_code answer = form.wait();
          if (!answer) {
            EXPECT_LE(++inside, shared ? kWaiters : form.name == "owned_semaphore" ? 2 : 1) << form.name;
            --inside;
            ++had;
            if (form.give_waited) {
              EXPECT_EQ(form.give_waited(), std::error_code{}) << form.name;
            } else {
              form.give();
            }
          } else {
            EXPECT_EQ(answer, errc::interrupted) << form.name;
            ++interrupted;
            if (form.give_waited) {
              EXPECT_EQ(form.give_waited(), errc::not_owner) << form.name;
            }
          }
          EXPECT_LE(interrupted, handled - before) << form.name;
          if (interrupted >= kAnswers && had >= kAnswers) {
            ++finished;
            while (!stop) std::this_thread::yield();  // stays until no more signals come
          }
        }
      });
    }
    std::thread storm([&] {
      while (!stop)
        for (std::thread& each : waiters) ::pthread_kill(each.native_handle(), SIGUSR1);
    });
    while (finished < kWaiters) {
      form.take();
      EXPECT_EQ(inside, 0) << form.name;
      std::this_thread::sleep_for(20us);  // lets some fall asleep; nothing depends on it
      form.give();
      std::this_thread::yield();
    }
    stop = true;
    storm.join();
    for (std::thread& each : waiters) each.join();
    form.take();  // nothing was lost, nothing is left behind
    form.give();
  }
}

}  // namespace
