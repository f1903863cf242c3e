// SPDX-License-Identifier: MIT
// broker_kill_test.cpp - the broker dies at each of its system calls in turn, in the loop and in the threads that are
// its hands, while one client claims, holds and gives back and another waits for it. A new broker comes at once. Both
// must get the device, one after the other, and nothing may be left when they are through.
#include "process/support/broker.hpp"
#include "process/support/child.hpp"
#include "process/support/devices.hpp"

#include <holdfast/claim.hpp>

#include <gtest/gtest.h>

#include <poll.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

namespace holdfast {
namespace {

using namespace testing_support;
using namespace std::chrono_literals;

constexpr int kFewestStops = 60;  // a harness that misses the calls counts fewer

// Each call is stopped at twice. All of them take minutes: HOLDFAST_EVERY_STOP=1.
int step() {
  const char* const given = std::getenv("HOLDFAST_EVERY_STOP");
  return given == nullptr ? 17 : std::atoi(given);
}

// Traces all threads of the process from here on; tells "traced", and "killed" when it was killed at stop `last`.
int kill_at(Peer& test, pid_t pid, int last) {
  if (pid <= 0) return 1;
  constexpr long kOptions = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE;
  std::error_code ignored;
  int threads = 0;
  for (const auto& task : std::filesystem::directory_iterator{"/proc/" + std::to_string(pid) + "/task", ignored}) {
    const pid_t thread = std::atoi(task.path().filename().c_str());
    if (::ptrace(PTRACE_SEIZE, thread, nullptr, kOptions) == 0 && ::ptrace(PTRACE_INTERRUPT, thread, nullptr, 0) == 0)
      ++threads;
  }
  for (int stops = 0;;) {
    int status = 0;
    const pid_t stopped = ::waitpid(-1, &status, __WALL);
    if (stopped < 0) return 0;
    if (!WIFSTOPPED(status)) continue;
    if (WSTOPSIG(status) == (SIGTRAP | 0x80) && ++stops == last) {
      test.tell("killed");  // first: the test may end us at any moment, and must know of it
      ::kill(pid, SIGKILL);
      return 0;
    }
    const bool is_event = status >> 16 != 0 || WSTOPSIG(status) == (SIGTRAP | 0x80);
    ::ptrace(PTRACE_SYSCALL, stopped, nullptr, is_event ? 0 : WSTOPSIG(status));
    if (threads > 0 && --threads == 0) test.tell("traced");
  }
}

int client(Peer& test, const std::string& device) {
  while (true) {
    if (test.hear() != "claim") return 0;
    auto mine = claim(device, {.wait = Wait::at_most(kPatience)});
    test.tell(mine ? "held" : mine.error().message);
    if (!mine || test.hear() != "release") return 1;
    mine->release();
    test.tell("released");
  }
}

bool nothing_is_left(const std::string& device) {
  const Stopwatch watch;
  while (!lock_files_of(device).empty()) {
    if (watch.ms() > 5000) return false;
    ::poll(nullptr, 0, 2);  // nothing tells of another process's unlinking
  }
  return true;
}

// Returns whether the broker was killed: it makes fewer stops otherwise.
bool play(const std::string& device, int last) {
  BrokerUnderTest broker;
  if (broker.pid() <= 0) return false;
  Child first{[&](Peer& test) { return client(test, device); }};
  Child second{[&](Peer& test) { return client(test, device); }};
  bool killed = false;
  {
    Child killer{[&](Peer& test) { return kill_at(test, broker.pid(), last); }};
    EXPECT_EQ(killer.hear(), "traced");
    // The broker is this thread's child: it would die with another one.
    std::jthread conversation{[&] {
      first.tell("claim");
      EXPECT_EQ(first.hear(), "held");
      second.tell("claim");
      EXPECT_EQ(second.hear(3ms), "(silence)") << "while the first holds it";
      first.tell("release");
      EXPECT_EQ(first.hear(), "released");
      EXPECT_EQ(second.hear(), "held");
      second.tell("release");
      EXPECT_EQ(second.hear(), "released");
      // It lets go of the broker, and we hear of its end.
      ::syscall(SYS_pidfd_send_signal, killer.pidfd(), SIGKILL, nullptr, 0);
    }};
    killed = killer.hear(4 * kPatience) == "killed";
    if (killed) {
      broker.kill();
      broker.start();
    }
  }
  EXPECT_TRUE(nothing_is_left(device)) << lock_files_of(device).front();
  for (const std::string& socket : {broker.socket(), std::string{}}) {
    const std::string words = in_a_child([&]() -> std::string {
      ::setenv("HOLDFAST_SOCKET", socket.c_str(), 1);
      const auto mine = claim(device, {.wait = Wait::at_most(5s)});
      return mine ? "taken" : mine.error().message;
    });
    EXPECT_EQ(words, "taken") << (socket.empty() ? "without the broker" : "through the broker");
  }
  return killed;
}

void kill_at_each_stop(const std::string& device) {
  int stops = 0;
  while (true) {
    SCOPED_TRACE("killed at stop " + std::to_string(stops + 1));
    const bool killed = play(device, stops + 1);
    if (!killed || ::testing::Test::HasFailure()) break;
    stops += step();
  }
  std::printf("killed at every %d. of about %d stops\n", step(), stops);
  EXPECT_GE(stops, kFewestStops);
}

TEST(BrokerKilledAtEachCall, of_a_hand_over_of_a_terminal_loses_nothing_and_leaves_nothing) {
  const Pty pty;
  kill_at_each_stop(pty.path());
}

TEST(BrokerKilledAtEachCall, of_a_hand_over_of_a_disk_by_its_threads_loses_nothing_and_leaves_nothing) {
  const LoopDevice loop;
  if (!loop.missing().empty()) GTEST_SKIP() << "needs " << loop.missing();
  kill_at_each_stop(loop.path());
}

}  // namespace
}  // namespace holdfast
