// SPDX-License-Identifier: MIT
// claim_waiting_test.cpp - waiting ends at the deadline, on a signal, or soon after the holder let go, whoever it was;
// and costs next to nothing.
#include "process/support/child.hpp"
#include "process/support/devices.hpp"

#include "convention/proxy.hpp"
#include "device/device.hpp"

#include <holdfast/claim.hpp>

#include <gtest/gtest.h>

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace holdfast {
namespace {

using namespace testing_support;
using namespace std::chrono_literals;

std::int64_t now_us() {
  return std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// Claims when told, waiting; says the time at which it got it. Releases when told.
int waiter(Peer& test, const std::string& device, const Options& options = {.wait = Wait::at_most(kPatience)}) {
  while (test.hear() == "claim") {
    auto mine = claim(device, options);
    test.tell(mine ? std::to_string(now_us()) : mine.error().message);
    test.hear();
    if (mine) mine->release();
    test.tell("released");
  }
  return 0;
}

TEST(Deadline, ends_a_wait_and_not_early) {
  const Pty pty;
  const auto mine = claim(pty.path());
  ASSERT_TRUE(mine);
  constexpr auto kWait = 300ms;
  const Stopwatch watch;
  const auto late = claim(pty.path(), {.wait = Wait::at_most(kWait)});
  const double took = watch.ms();
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().code, errc::timed_out);
  ASSERT_TRUE(late.error().holder);
  EXPECT_EQ(late.error().holder->pid, ::getpid());
  EXPECT_GE(took, 300);
  EXPECT_LT(took, 600);
}

TEST(Signal, ends_an_interruptible_wait_that_then_holds_nothing) {
  const Pty pty;
  auto mine = claim(pty.path());
  ASSERT_TRUE(mine);
  Child waiting{[&](Peer& test) {
    struct sigaction action{};
    action.sa_handler = [](int) {};
    ::sigaction(SIGUSR1, &action, nullptr);
    const auto refused = claim(pty.path(), {.wait = Wait::for_ever(), .on_signal = OnSignal::give_up});
    test.tell(refused ? "taken" : refused.error().code == errc::interrupted ? "interrupted" : refused.error().message);
    test.hear();
    return 0;
  }};
  ASSERT_TRUE(waited_for(pty.path()));
  waiting.signal(SIGUSR1);
  ASSERT_EQ(waiting.hear(), "interrupted");
  mine->release();
  EXPECT_TRUE(lock_files_of(pty.path()).empty());
  EXPECT_TRUE(claim(pty.path()));
}

TEST(Signal, does_not_end_any_other_wait) {
  const Pty pty;
  auto mine = claim(pty.path());
  ASSERT_TRUE(mine);
  Child waiting{[&](Peer& test) {
    struct sigaction action{};
    action.sa_handler = [](int) {};
    ::sigaction(SIGUSR1, &action, nullptr);
    test.tell("ready");
    return waiter(test, pty.path());
  }};
  ASSERT_EQ(waiting.hear(), "ready");
  waiting.tell("claim");
  ASSERT_TRUE(waited_for(pty.path()));
  for (int i = 0; i < 10; ++i) waiting.signal(SIGUSR1);
  EXPECT_EQ(waiting.hear(100ms), "(silence)");
  mine->release();
  EXPECT_GT(std::stoll(waiting.hear()), 0);
}

TEST(Waiter, wakes_within_10_ms_of_a_holdfast_release) {
  const Pty pty;
  Child waiting{[&](Peer& test) { return waiter(test, pty.path()); }};
  std::vector<double> latencies;
  for (int round = 0; round < 20; ++round) {
    auto mine = claim(pty.path());
    ASSERT_TRUE(mine) << mine.error().message;
    waiting.tell("claim");
    ASSERT_TRUE(waited_for(pty.path()));
    const std::int64_t released = now_us();
    mine->release();
    latencies.push_back(static_cast<double>(std::stoll(waiting.hear()) - released) / 1000);
    waiting.tell("release");
    ASSERT_EQ(waiting.hear(), "released");
  }
  std::sort(latencies.begin(), latencies.end());
  std::printf("release to grant: median %.2f ms, worst of 20 %.2f ms\n", latencies[10], latencies.back());
  // The median: on a busy machine a single one may have waited for a processor.
  EXPECT_LT(latencies[10], 10);
}

// A stranger that holds the device in one way, and lets go of it when told, at the time that it then says.
using Stranger = std::function<int(Peer& test)>;

int holds_until_told(Peer& test, const std::function<void()>& let_go) {
  test.tell("held");
  test.hear();
  const std::int64_t at = now_us();
  let_go();
  test.tell(std::to_string(at));
  test.hear();
  return 0;
}

Stranger with_flock(const std::string& device) {
  return [=](Peer& test) {
    const int fd = ::open(device.c_str(), O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    if (::flock(fd, LOCK_EX | LOCK_NB) != 0) return 1;
    return holds_until_told(test, [fd] { ::flock(fd, LOCK_UN); });  // without a close: no event tells of it
  };
}

Stranger with_fcntl(const std::string& device) {
  return [=](Peer& test) {
    const int fd = ::open(device.c_str(), O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    struct flock words{};
    words.l_type = F_WRLCK;
    if (::fcntl(fd, F_SETLK, &words) != 0) return 1;
    return holds_until_told(test, [fd] {
      struct flock off{};
      off.l_type = F_UNLCK;
      ::fcntl(fd, F_SETLK, &off);
    });
  };
}

Stranger with_lock_file(const std::string& device) {
  return [=](Peer& test) {
    const std::string file = "/run/lock/LCK.." + device.substr(device.rfind('/') + 1);
    ::unlink(file.c_str());  // a stale one may be a hard link: writing to it would write to all its names
    std::ofstream{file} << "     " << ::getpid() << "\n";
    return holds_until_told(test, [file] { ::unlink(file.c_str()); });
  };
}

Stranger with_o_excl(const std::string& device) {
  return [=](Peer& test) {
    const int fd = ::open(device.c_str(), O_RDONLY | O_EXCL | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) return 1;
    return holds_until_told(test, [fd] { ::close(fd); });
  };
}

void expect_soon_after(const std::string& device, const Stranger& stranger) {
  std::vector<double> latencies;
  for (int round = 0; round < 5; ++round) {
    Child holder{stranger};
    ASSERT_EQ(holder.hear(), "held");
    Child waiting{[&](Peer& test) { return waiter(test, device); }};
    waiting.tell("claim");
    ASSERT_TRUE(waited_for(device));
    EXPECT_EQ(waiting.hear(100ms), "(silence)");
    holder.tell("let go");
    const std::int64_t released = std::stoll(holder.hear());
    const std::string granted = waiting.hear();
    ASSERT_TRUE(granted.find_first_not_of("0123456789") == std::string::npos) << granted;
    latencies.push_back(static_cast<double>(std::stoll(granted) - released) / 1000);
  }
  std::sort(latencies.begin(), latencies.end());
  std::printf("release by a stranger to grant: median %.1f ms, worst of 5 %.1f ms\n", latencies[2], latencies.back());
  EXPECT_LT(latencies[2], 250);  // the median, as above
}

TEST(Waiter, wakes_within_250_ms_of_a_strangers_flock) {
  const Pty pty;
  expect_soon_after(pty.path(), with_flock(pty.path()));
}

TEST(Waiter, wakes_within_250_ms_of_a_strangers_record_lock) {
  const Pty pty;
  expect_soon_after(pty.path(), with_fcntl(pty.path()));
}

TEST(Waiter, wakes_within_250_ms_of_a_strangers_lock_file) {
  const Pty pty;
  expect_soon_after(pty.path(), with_lock_file(pty.path()));
}

TEST(Waiter, wakes_within_250_ms_of_a_strangers_o_excl) {
  const LoopDevice loop;
  if (!loop.missing().empty()) GTEST_SKIP() << "needs " << loop.missing();
  expect_soon_after(loop.path(), with_o_excl(loop.path()));
}

std::int64_t processor_us(pid_t pid) {
  clockid_t clock{};
  timespec used{};
  if (::clock_getcpuclockid(pid, &clock) != 0 || ::clock_gettime(clock, &used) != 0) return -1;
  return static_cast<std::int64_t>(used.tv_sec) * 1'000'000 + used.tv_nsec / 1000;
}

// The share of a processor that each of `count` waiters used over three seconds of their wait, the largest, in per
// cent; -1 when one of them did not wait. Coming to wait, which looks for the holder in /proc, is not counted.
double busiest(const std::string& device, int count) {
  std::vector<std::unique_ptr<Child>> waiters;
  for (int i = 0; i < count; ++i) {
    waiters.push_back(std::make_unique<Child>([&](Peer& test) { return waiter(test, device); }));
    waiters.back()->tell("claim");
  }
  if (!waited_for(device, static_cast<std::size_t>(count))) return -1;
  if (waiters.front()->hear(500ms) != "(silence)") return -1;
  std::vector<std::int64_t> before;
  for (const auto& one : waiters) before.push_back(processor_us(one->pid()));
  if (waiters.front()->hear(3s) != "(silence)") return -1;
  double most = 0;
  for (std::size_t i = 0; i < waiters.size(); ++i)
    most = std::max(most, static_cast<double>(processor_us(waiters[i]->pid()) - before[i]) / 3'000'000 * 100);
  std::printf("%d waiting: the busiest used %.3f %% of a processor\n", count, most);
  return most;
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr double kMostPercent = 0.5;  // checking every access has its own price
#else
// At rest 0.02 to 0.06, which is the goal of 0.1; beside other work the same looks take twice as long. Whoever looks
// without sleeping, or ten times as often as he should, is far above.
constexpr double kMostPercent = 0.3;
#endif

void expect_idle(const std::string& device, int count) {
  double percent = busiest(device, count);
  // The clock of a process counts interrupts too, which are others' work: a busy waiter is busy every time.
  for (int again = 0; again < 2 && percent >= kMostPercent; ++again) percent = busiest(device, count);
  EXPECT_GE(percent, 0) << "a waiter got the device";
  EXPECT_LT(percent, kMostPercent);
}

TEST(Waiter, is_idle_while_holdfast_holds) {
  const Pty pty;
  const auto mine = claim(pty.path());
  ASSERT_TRUE(mine);
  expect_idle(pty.path(), 1);
}

TEST(Waiter, among_five_is_idle_while_holdfast_holds) {
  const Pty pty;
  const auto mine = claim(pty.path());
  ASSERT_TRUE(mine);
  expect_idle(pty.path(), 5);
}

struct Siege {
  std::string_view name;
  Convention how;
  int waiters;
};

class WaiterForAStranger : public ::testing::TestWithParam<Siege> {};

TEST_P(WaiterForAStranger, is_idle) {
  const Pty pty;
  const LoopDevice loop;
  const Siege siege = GetParam();
  const std::string device = siege.how == Convention::o_excl ? loop.path() : pty.path();
  if (device.empty()) GTEST_SKIP() << "needs " << loop.missing();
  Child holder{siege.how == Convention::flock   ? with_flock(device)
               : siege.how == Convention::posix ? with_fcntl(device)
               : siege.how == Convention::uucp  ? with_lock_file(device)
                                                : with_o_excl(device)};
  ASSERT_EQ(holder.hear(), "held");
  expect_idle(device, siege.waiters);
  holder.tell("let go");
  holder.hear();
}

INSTANTIATE_TEST_SUITE_P(Strangers, WaiterForAStranger,
                         ::testing::Values(Siege{"flock_alone", Convention::flock, 1},
                                           Siege{"flock_with_five", Convention::flock, 5},
                                           Siege{"lock_file_alone", Convention::uucp, 1},
                                           Siege{"lock_file_with_five", Convention::uucp, 5},
                                           Siege{"record_lock_with_five", Convention::posix, 5},
                                           Siege{"o_excl_with_five", Convention::o_excl, 5}),
                         [](const auto& siege) { return std::string{siege.param.name}; });

// Any program may have the name of one of udev's helpers.
TEST(Waiting, for_what_calls_itself_udev_ends_after_a_second) {
  const LoopDevice loop;
  if (!loop.missing().empty()) GTEST_SKIP() << loop.missing();
  Child impostor{[&](Peer& test) {
    ::prctl(PR_SET_NAME, "cdrom_id");
    const base::UniqueFd disk{::open(loop.path().c_str(), O_RDONLY | O_EXCL | O_CLOEXEC)};
    test.tell(disk ? "has it" : "has it not");
    test.hear();
    return 0;
  }};
  ASSERT_EQ(impostor.hear(), "has it");
  const Stopwatch watch;
  const auto none = claim(loop.path());
  const double took = watch.ms();
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().code, errc::refused);
  EXPECT_GE(took, 900);
  EXPECT_LT(took, 1600);
}

}  // namespace
}  // namespace holdfast
