// SPDX-License-Identifier: MIT
// broker_table_test.cpp - LOCK, PROCESS and UNLOCK against everything that a Unix process does meanwhile: fork, dup,
// threads, exec, exit, kill, O_NONBLOCK, deadlock. One table, gone through daemonless and through the broker.
//
// LOCK is claim(), PROCESS is to get the descriptor and write through it, UNLOCK is release().
#include "process/support/broker.hpp"
#include "process/support/devices.hpp"
#include "process/support/raw_client.hpp"

#include <holdfast/claim.hpp>

#include <gtest/gtest.h>

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

namespace holdfast {
namespace {

using namespace testing_support;
using namespace std::chrono_literals;

enum class Way { daemonless, broker };

// Two devices, and how to claim.
struct Stage {
  Way way;
  std::string device;
  std::string another;
};

std::string lock_in_words(const std::string& device, Wait wait = Wait::none()) {
  const auto mine = claim(device, {.wait = wait});
  return mine ? "locked" : mine.error().code == errc::refused ? "refused" : mine.error().message;
}

std::string lock_elsewhere(const std::string& device, Wait wait = Wait::none()) {
  return in_a_child([&] { return lock_in_words(device, wait); });
}

std::string process(Claim& mine) {
  const auto fd = mine.fd();
  if (!fd) return fd.error().code == errc::not_held ? "not held" : fd.error().message;
  return ::write(*fd, "x", 1) == 1 ? "processed" : "write failed";
}

// Another process that locks, says "locked" and then does `then`.
Child locker(const Stage& stage, std::function<void(Peer& test, Claim& mine)> then) {
  return Child{[&stage, then = std::move(then)](Peer& test) {
    auto mine = claim(stage.device);
    test.tell(mine ? "locked" : mine.error().message);
    if (mine) then(test, *mine);
    return 0;
  }};
}

#define PROMISED(what, expected) \
  if (const std::string answer = (what); answer != (expected)) return std::string{#what " answers "} + answer

// --- The rows: each returns nothing when all was as promised ---------------------------------------------------------

std::string lock_process_process_unlock(const Stage& stage) {
  auto mine = claim(stage.device);
  if (!mine) return mine.error().message;
  PROMISED(process(*mine), "processed");
  PROMISED(process(*mine), "processed");
  PROMISED(lock_elsewhere(stage.device), "refused");
  mine->release();
  PROMISED(process(*mine), "not held");
  PROMISED(lock_elsewhere(stage.device), "locked");
  return {};
}

std::string process_without_lock(const Stage&) {
  Claim none;
  PROMISED(process(none), "not held");
  return {};
}

std::string lock_waits_for_unlock(const Stage& stage) {
  auto mine = claim(stage.device);
  if (!mine) return mine.error().message;
  Child other{[&](Peer& test) {
    test.tell("waits");
    test.tell(lock_in_words(stage.device, Wait::for_ever()));
    return 0;
  }};
  PROMISED(other.hear(), "waits");
  PROMISED(other.hear(30ms), "(silence)");
  mine->release();
  PROMISED(other.hear(), "locked");
  return {};
}

std::string lock_with_nonblock(const Stage& stage) {
  const auto mine = claim(stage.device);
  if (!mine) return mine.error().message;
  PROMISED(lock_elsewhere(stage.device), "refused");
  return {};
}

std::string lock_until_a_deadline(const Stage& stage) {
  const auto mine = claim(stage.device);
  if (!mine) return mine.error().message;
  const std::string words = in_a_child([&]() -> std::string {
    const auto other = claim(stage.device, {.wait = Wait::at_most(40ms)});
    return !other && other.error().code == errc::timed_out ? "timed out" : "not timed out";
  });
  PROMISED(words, "timed out");
  return {};
}

std::string lock_interrupted_by_a_signal(const Stage& stage) {
  const auto mine = claim(stage.device);
  if (!mine) return mine.error().message;
  Child other{[&](Peer& test) {
    struct sigaction heard{};
    heard.sa_handler = [](int) {};
    ::sigaction(SIGUSR1, &heard, nullptr);
    // Sent again and again: the first may come before the wait has begun.
    itimerspec often{{0, 5'000'000}, {0, 5'000'000}};
    sigevent event{};
    event.sigev_notify = SIGEV_SIGNAL;
    event.sigev_signo = SIGUSR1;
    timer_t timer{};
    if (::timer_create(CLOCK_MONOTONIC, &event, &timer) != 0) return 1;
    ::timer_settime(timer, 0, &often, nullptr);
    const auto claimed = claim(stage.device, {.wait = Wait::for_ever(), .on_signal = OnSignal::give_up});
    ::timer_delete(timer);
    test.tell(!claimed && claimed.error().code == errc::interrupted ? "interrupted" : "not interrupted");
    return 0;
  }};
  PROMISED(other.hear(), "interrupted");
  return {};
}

std::string unlock_by_another_thread(const Stage& stage) {
  auto mine = claim(stage.device);
  if (!mine) return mine.error().message;
  std::string words;
  std::thread{[&] {
    words = process(*mine);
    mine->release();
  }}.join();
  PROMISED(words, "processed");
  PROMISED(lock_elsewhere(stage.device), "locked");
  return {};
}

std::string lock_by_many_threads_at_once(const Stage& stage) {
  std::atomic<int> inside{0};
  std::atomic<int> overlaps{0};
  std::atomic<int> wins{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([&] {
      for (int round = 0; round < 10; ++round) {
        auto mine = claim(stage.device);
        if (!mine) continue;
        ++wins;
        if (inside.fetch_add(1) != 0) ++overlaps;
        std::this_thread::yield();
        --inside;
        mine->release();
      }
    });
  for (std::thread& thread : threads) thread.join();
  if (wins == 0) return "nobody got it";
  return overlaps == 0 ? "" : "two threads had it at once";
}

std::string fork_gives_the_child_nothing(const Stage& stage) {
  auto mine = claim(stage.device);
  if (!mine) return mine.error().message;
  PROMISED(in_a_child([&] { return process(*mine); }), "not held");
  const std::string words = in_a_child([&] {
    mine->release();
    return std::string{"released"};
  });
  PROMISED(words, "released");
  PROMISED(lock_elsewhere(stage.device), "refused");
  PROMISED(process(*mine), "processed");
  return {};
}

// A child of this process that does nothing and has inherited everything.
class Idler {
 public:
  Idler() : pid_{::fork()} {
    if (pid_ == 0)
      for (;;) ::pause();
  }
  Idler(const Idler&) = delete;
  Idler& operator=(const Idler&) = delete;
  ~Idler() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }

 private:
  pid_t pid_;
};

std::string unlock_with_a_living_child(const Stage& stage) {
  auto mine = claim(stage.device);
  if (!mine) return mine.error().message;
  const Idler child;
  PROMISED(lock_elsewhere(stage.device), "refused");
  mine->release();
  PROMISED(lock_elsewhere(stage.device), "locked");
  return {};
}

std::string death_with_a_living_child(const Stage& stage) {
  Child owner = locker(stage, [](Peer& test, Claim&) {
    const pid_t child = ::fork();
    if (child == 0)
      for (;;) ::pause();
    test.tell(std::to_string(child));
    test.hear();
  });
  PROMISED(owner.hear(), "locked");
  const pid_t child = std::stoi(owner.hear());
  owner.kill();
  const std::string words = lock_elsewhere(stage.device, Wait::at_most(10s));
  const bool lived = ::kill(child, SIGKILL) == 0;
  PROMISED(words, "locked");
  return lived ? "" : "the child did not live";
}

std::string fork_after_unlock_lets_the_child_lock(const Stage& stage) {
  auto mine = claim(stage.device);
  if (!mine) return mine.error().message;
  mine->release();
  PROMISED(lock_elsewhere(stage.device), "locked");
  PROMISED(lock_in_words(stage.device), "locked");
  return {};
}

std::string fork_while_another_thread_locks(const Stage& stage) {
  std::atomic<bool> stop{false};
  std::thread other{[&] {
    while (!stop)
      if (auto mine = claim(stage.device)) mine->release();
  }};
  for (int i = 0; i < 20; ++i) {
    const Idler child;
    std::this_thread::yield();
  }
  stop = true;
  other.join();
  PROMISED(lock_elsewhere(stage.device), "locked");
  return {};
}

std::string spawned_program_inherits_nothing(const Stage& stage) {
  auto mine = claim(stage.device);
  if (!mine) return mine.error().message;
  std::array<char*, 3> words{const_cast<char*>("sleep"), const_cast<char*>("60"), nullptr};
  pid_t child = 0;
  if (::posix_spawn(&child, "/bin/sleep", nullptr, nullptr, words.data(), environ) != 0) return "no child";
  mine->release();
  const std::string words_after = lock_elsewhere(stage.device, Wait::at_most(10s));
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  PROMISED(words_after, "locked");
  return {};
}

// How a descriptor is duplicated.
template <class Duplicate>
std::string duplicated(const Stage& stage, Duplicate duplicate) {
  auto mine = claim(stage.device);
  if (!mine) return mine.error().message;
  const auto fd = mine->fd();
  if (!fd) return fd.error().message;
  const base::UniqueFd first{duplicate(*fd)};
  {
    const base::UniqueFd second{duplicate(*fd)};
    if (!second) return "no duplicate";
  }
  PROMISED(lock_elsewhere(stage.device), "refused");
  PROMISED(process(*mine), "processed");
  mine->release();
  PROMISED(lock_elsewhere(stage.device), "locked");
  return {};
}
std::string dup_neither_keeps_nor_frees(const Stage& stage) {
  return duplicated(stage, [](int fd) { return ::dup(fd); });
}
std::string dup2_neither_keeps_nor_frees(const Stage& stage) {
  int target = 500;
  return duplicated(stage, [&](int fd) { return ::dup2(fd, target++); });
}
std::string dup3_neither_keeps_nor_frees(const Stage& stage) {
  int target = 500;
  return duplicated(stage, [&](int fd) { return ::dup3(fd, target++, O_CLOEXEC); });
}
std::string f_dupfd_neither_keeps_nor_frees(const Stage& stage) {
  return duplicated(stage, [](int fd) { return ::fcntl(fd, F_DUPFD_CLOEXEC, 300); });
}

std::string opening_and_closing_the_node_frees_nothing(const Stage& stage) {
  auto mine = claim(stage.device);
  if (!mine) return mine.error().message;
  for (int i = 0; i < 3; ++i) {
    const base::UniqueFd other{::open(stage.device.c_str(), O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC)};
    if (!other) return "open failed";
  }
  PROMISED(lock_elsewhere(stage.device), "refused");
  return {};
}

std::string ended_by(const Stage& stage, const std::function<void()>& end) {
  Child owner = locker(stage, [&](Peer& test, Claim&) {
    test.hear();
    end();
  });
  PROMISED(owner.hear(), "locked");
  PROMISED(lock_elsewhere(stage.device), "refused");
  owner.tell("end");
  PROMISED(lock_elsewhere(stage.device, Wait::at_most(10s)), "locked");
  PROMISED(owner.hear(), "(gone)");
  return {};
}
std::string exit_unlocks(const Stage& stage) {
  return ended_by(stage, [] { ::_exit(3); });
}
std::string exit_of_a_thread_does_not_unlock(const Stage& stage) {
  auto mine = claim(stage.device);
  if (!mine) return mine.error().message;
  std::thread{[] { ::pthread_exit(nullptr); }}.join();
  PROMISED(lock_elsewhere(stage.device), "refused");
  return {};
}
std::string exit_of_the_locking_thread_does_not_unlock(const Stage& stage) {
  Claim mine;
  std::thread{[&] {
    if (auto claimed = claim(stage.device)) mine = std::move(*claimed);
  }}.join();
  PROMISED(lock_elsewhere(stage.device), "refused");
  PROMISED(process(mine), "processed");
  return {};
}
std::string sigkill_unlocks(const Stage& stage) {
  return ended_by(stage, [] { ::raise(SIGKILL); });
}
std::string crash_unlocks(const Stage& stage) {
  return ended_by(stage, [] {
    ::signal(SIGSEGV, SIG_DFL);  // a sanitizer's handler would report it
    ::raise(SIGSEGV);
  });
}
std::string stopped_process_keeps_its_lock(const Stage& stage) {
  Child owner = locker(stage, [](Peer& test, Claim&) { test.hear(); });
  PROMISED(owner.hear(), "locked");
  owner.signal(SIGSTOP);
  PROMISED(lock_elsewhere(stage.device), "refused");
  owner.signal(SIGKILL);
  PROMISED(lock_elsewhere(stage.device, Wait::at_most(10s)), "locked");
  return {};
}

std::string exec_with_leave_keeps_the_lock(const Stage& stage) {
  Child owner = locker(stage, [](Peer&, Claim& mine) {
    if (mine.leave_to_exec()) ::execl("/bin/sleep", "sleep", "60", nullptr);
  });
  PROMISED(owner.hear(), "locked");
  PROMISED(owner.hear(), "(gone)");
  PROMISED(lock_elsewhere(stage.device), "refused");
  owner.kill();
  PROMISED(lock_elsewhere(stage.device, Wait::at_most(10s)), "locked");
  return {};
}

std::string exec_after_unlock_keeps_nothing(const Stage& stage) {
  Child owner = locker(stage, [](Peer&, Claim& mine) {
    mine.release();
    ::execl("/bin/sleep", "sleep", "60", nullptr);
  });
  PROMISED(owner.hear(), "locked");
  PROMISED(owner.hear(), "(gone)");
  PROMISED(lock_elsewhere(stage.device), "locked");
  return {};
}

std::string lock_twice_by_one_process(const Stage& stage) {
  const auto mine = claim(stage.device);
  if (!mine) return mine.error().message;
  PROMISED(lock_in_words(stage.device), "refused");
  const auto again = claim(stage.device, {.wait = Wait::at_most(40ms)});
  if (again) return "locked twice";
  // One process may be many threads, so this is no deadlock to the library, whatever the broker says.
  return again.error().code == errc::timed_out ? "" : again.error().message;
}

std::string locks_in_opposite_orders(const Stage& stage) {
  const auto mine = claim(stage.device);
  if (!mine) return mine.error().message;
  Child other{[&](Peer& test) {
    const auto theirs = claim(stage.another);
    test.tell(theirs ? "locked" : theirs.error().message);
    test.tell(lock_in_words(stage.device, Wait::at_most(10s)));
    return 0;
  }};
  PROMISED(other.hear(), "locked");
  if (stage.way == Way::daemonless && !waited_for(stage.device)) return "nobody waits";
  const auto answer = claim(stage.another, {.wait = Wait::at_most(200ms)});
  if (stage.way == Way::daemonless) return !answer && answer.error().code == errc::timed_out ? "" : "not timed out";
  // Either of the two closes the cycle: whoever asks last. When it is the other, it ends and makes room.
  if (!answer && answer.error().code == errc::deadlock) return {};
  const std::string theirs = other.hear();
  return theirs.find("never end") != std::string::npos ? "" : "the other hears: " + theirs;
}

std::string lock_of_a_set_is_all_or_nothing(const Stage& stage) {
  Child other = locker(stage, [](Peer& test, Claim&) { test.hear(); });
  PROMISED(other.hear(), "locked");
  const std::vector<std::string> both{stage.another, stage.device};
  if (claim(both)) return "locked a set of which one was taken";
  PROMISED(lock_elsewhere(stage.another), "locked");
  other.kill();
  const auto mine = claim(both, {.wait = Wait::at_most(10s)});
  if (!mine) return mine.error().message;
  PROMISED(lock_elsewhere(stage.another), "refused");
  PROMISED(lock_elsewhere(stage.device), "refused");
  return {};
}

struct Row {
  const char* name;
  std::string (*go)(const Stage&);
};
#define ROW(name) \
  Row { #name, name }
constexpr std::array kRows{
    ROW(lock_process_process_unlock),
    ROW(process_without_lock),
    ROW(lock_waits_for_unlock),
    ROW(lock_with_nonblock),
    ROW(lock_until_a_deadline),
    ROW(lock_interrupted_by_a_signal),
    ROW(unlock_by_another_thread),
    ROW(lock_by_many_threads_at_once),
    ROW(fork_gives_the_child_nothing),
    ROW(unlock_with_a_living_child),
    ROW(death_with_a_living_child),
    ROW(fork_after_unlock_lets_the_child_lock),
    ROW(fork_while_another_thread_locks),
    ROW(spawned_program_inherits_nothing),
    ROW(dup_neither_keeps_nor_frees),
    ROW(dup2_neither_keeps_nor_frees),
    ROW(dup3_neither_keeps_nor_frees),
    ROW(f_dupfd_neither_keeps_nor_frees),
    ROW(opening_and_closing_the_node_frees_nothing),
    ROW(exit_unlocks),
    ROW(exit_of_a_thread_does_not_unlock),
    ROW(exit_of_the_locking_thread_does_not_unlock),
    ROW(sigkill_unlocks),
    ROW(crash_unlocks),
    ROW(stopped_process_keeps_its_lock),
    ROW(exec_with_leave_keeps_the_lock),
    ROW(exec_after_unlock_keeps_nothing),
    ROW(lock_twice_by_one_process),
    ROW(locks_in_opposite_orders),
    ROW(lock_of_a_set_is_all_or_nothing),
};
#undef ROW

class Table : public ::testing::TestWithParam<std::tuple<Row, Way>> {};

// The broker knows of a claim that this process makes now.
bool goes_through(const BrokerUnderTest& broker, const std::string& device) {
  const auto mine = claim(device);
  RawClient client{broker.socket()};
  const Answer answer = client.ask(wire::StatusQuery{{name_of(device)}});
  const auto* status = answer.as<wire::StatusAnswer>();
  return mine && status != nullptr && status->devices.size() == 1 && status->devices[0].holders.size() == 1 &&
         status->devices[0].holders[0].pid == ::getpid();
}

TEST_P(Table, is_as_promised) {
  const auto& [row, way] = GetParam();
  const Pty one;
  const Pty two;
  std::unique_ptr<BrokerUnderTest> broker;
  if (way == Way::broker) {
    broker = std::make_unique<BrokerUnderTest>();
    ASSERT_TRUE(goes_through(*broker, one.path())) << "claims do not go through the broker";
  } else {
    ::setenv("HOLDFAST_SOCKET", "", 1);
  }
  EXPECT_EQ(row.go({way, one.path(), two.path()}), "");
}

INSTANTIATE_TEST_SUITE_P(Row, Table,
                         ::testing::Combine(::testing::ValuesIn(kRows),
                                            ::testing::Values(Way::daemonless, Way::broker)),
                         [](const auto& tested) {
                           return std::string{std::get<0>(tested.param).name} +
                                  (std::get<1>(tested.param) == Way::broker ? "_broker" : "_daemonless");
                         });

}  // namespace
}  // namespace holdfast
