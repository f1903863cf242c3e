// SPDX-License-Identifier: MIT
// kill_at_every_syscall_test.cpp - death releases, whenever it comes: a claimer is stopped by ptrace(2) at the entry
// and at the exit of each of its system calls in turn and killed there. The next claim must succeed at once and, once
// it is given back, nothing may be left in the lock directory.
#include "process/support/child.hpp"
#include "process/support/devices.hpp"

#include "convention/proxy.hpp"
#include "device/device.hpp"

#include <holdfast/claim.hpp>

#include <gtest/gtest.h>

#include <fcntl.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <functional>
#include <optional>
#include <string>

namespace holdfast {
namespace {

using namespace testing_support;

constexpr double kMostMs = 100;   // from the death to the next claim, ten times what it takes here under load
constexpr int kFewestStops = 40;  // a harness that misses the calls makes fewer

// The claimer calls it before and after what is to be interrupted; nothing else here makes this call.
void marker() { ::syscall(SYS_getpgid, 0); }

// Runs `body` in a traced child and kills it at its stop number `last`, counted from the first marker. Calls
// `before_call(nr)` at each entry. Returns how many stops it made; fewer than `last` when it came to the second marker.
class TracedRun {
 public:
  TracedRun(const std::function<void()>& body, const std::function<void(long)>& before_call, int last) {
    pid_ = ::fork();
    if (pid_ == 0) {
      ::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
      ::raise(SIGSTOP);
      body();
      ::_exit(0);
    }
    int status = 0;
    ::waitpid(pid_, &status, 0);
    ::ptrace(PTRACE_SETOPTIONS, pid_, nullptr, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL);
    int markers = 0;
    while (true) {
      ::ptrace(PTRACE_SYSCALL, pid_, nullptr, nullptr);
      if (::waitpid(pid_, &status, 0) != pid_ || !WIFSTOPPED(status)) {
        reaped_ = true;
        return;
      }
      if (WSTOPSIG(status) != (SIGTRAP | 0x80)) continue;
      __ptrace_syscall_info info{};
      ::ptrace(PTRACE_GET_SYSCALL_INFO, pid_, sizeof info, &info);
      const bool entry = info.op == PTRACE_SYSCALL_INFO_ENTRY;
      if (entry && info.entry.nr == SYS_getpgid && ++markers == 2) break;
      if (markers == 0) continue;
      if (++stops_ == last) break;
      if (entry) before_call(static_cast<long>(info.entry.nr));
    }
    const base::UniqueFd pidfd = pidfd_of(pid_);
    ::kill(pid_, SIGKILL);
    dead_ = wait_for_death(pidfd.get());
  }
  TracedRun(const TracedRun&) = delete;
  TracedRun& operator=(const TracedRun&) = delete;
  ~TracedRun() {
    if (!reaped_) ::waitpid(pid_, nullptr, 0);
  }

  [[nodiscard]] int stops() const { return stops_; }
  [[nodiscard]] bool dead() const { return dead_; }

 private:
  pid_t pid_ = -1;
  int stops_ = 0;
  bool dead_ = false;
  bool reaped_ = false;
};

struct Story {
  std::string device;
  std::function<void()> claimer;
  std::function<void()> before = [] {};
  std::function<void(long)> before_call = [](long) {};
  std::function<void()> after_death = [] {};
};

void kill_at_every_call(const Story& story) {
  int stops = 0;
  double slowest = 0;
  for (int last = 1;; ++last) {
    SCOPED_TRACE("killed at stop " + std::to_string(last));
    story.before();
    const TracedRun run{story.claimer, story.before_call, last};
    ASSERT_TRUE(run.dead());
    story.after_death();
    // The dead claimer is still a zombie: its pid exists.
    const Stopwatch watch;
    auto next = claim(story.device);
    slowest = std::max(slowest, watch.ms());
    ASSERT_TRUE(next) << next.error().message;
    ASSERT_LT(watch.ms(), kMostMs);
    next->release();
    const auto left = lock_files_of(story.device);
    ASSERT_TRUE(left.empty()) << left.front();
    const auto identity = device::identify(story.device);
    ASSERT_TRUE(identity);
    const auto records = convention::read_proxy(convention::proxy_path(identity->node.id, {}));
    ASSERT_TRUE(records);
    ASSERT_TRUE(records->empty());
    if (run.stops() < last) break;
    stops = run.stops();
  }
  EXPECT_GE(stops, kFewestStops);
  ::testing::Test::RecordProperty("stops", stops);
  std::printf("killed at %d stops; slowest next claim %.2f ms\n", stops, slowest);
}

std::function<void()> claim_and_release(const std::string& device, const Options& options = {}) {
  return [=] {
    marker();
    auto mine = claim(device, options);
    if (!mine) ::_exit(1);
    mine->release();
    marker();
  };
}

TEST(KillAtEveryCall, of_an_exclusive_claim_of_a_pty_leaves_nothing) {
  const Pty pty;
  kill_at_every_call({.device = pty.path(), .claimer = claim_and_release(pty.path())});
}

TEST(KillAtEveryCall, of_a_shared_claim_of_a_pty_leaves_nothing) {
  const Pty pty;
  kill_at_every_call({.device = pty.path(), .claimer = claim_and_release(pty.path(), {.mode = Mode::shared})});
}

TEST(KillAtEveryCall, of_an_exclusive_claim_of_a_loop_device_leaves_nothing) {
  const LoopDevice loop;
  if (!loop.missing().empty()) GTEST_SKIP() << "needs " << loop.missing();
  kill_at_every_call({.device = loop.path(), .claimer = claim_and_release(loop.path())});
}

TEST(KillAtEveryCall, of_a_claim_that_takes_over_stale_lock_files_leaves_nothing) {
  const Pty pty;
  const pid_t dead = [] {
    Child child{[](Peer&) { return 0; }};
    const pid_t pid = child.pid();
    child.reap();
    return pid;
  }();
  const std::string number = pty.path().substr(pty.path().rfind('/') + 1);
  kill_at_every_call({.device = pty.path(), .claimer = claim_and_release(pty.path()), .before = [&] {
                        for (const std::string& name : {"LCK.." + number, "LCK..pts_" + number})
                          std::ofstream{"/run/lock/" + name} << "      " << dead << "\n";
                      }});
}

TEST(KillAtEveryCall, of_a_claim_that_waits_leaves_nothing) {
  const Pty pty;
  std::optional<Claim> held;
  kill_at_every_call({.device = pty.path(),
                      .claimer = claim_and_release(pty.path(), {.wait = Wait::at_most(kPatience)}),
                      .before =
                          [&] {
                            auto mine = claim(pty.path());
                            ASSERT_TRUE(mine) << mine.error().message;
                            held = std::move(*mine);
                          },
                      // It goes to sleep: now the device becomes free.
                      .before_call =
                          [&](long call) {
                            if (call == SYS_ppoll) held.reset();
                          },
                      .after_death = [&] { held.reset(); }});
}

TEST(KillAtEveryCall, of_a_downgrade_and_an_upgrade_leaves_nothing) {
  const Pty pty;
  kill_at_every_call({.device = pty.path(), .claimer = [&] {
                        auto mine = claim(pty.path());
                        marker();
                        if (!mine || !mine->downgrade() || !mine->upgrade()) ::_exit(1);
                        mine->release();
                        marker();
                      }});
}

}  // namespace
}  // namespace holdfast
