// SPDX-License-Identifier: MIT
// kill_at_every_syscall_test.cpp - death releases, whenever it comes: a claimer is stopped by ptrace(2) at the entry
// and at the exit of each of its system calls in turn and killed there. The next claim must succeed at once and, once
// it is given back, nothing may be left in the lock directory.
#include "process/support/child.hpp"
#include "process/support/devices.hpp"
#include "process/support/traced_run.hpp"

#include "base/unique_fd.hpp"
#include "convention/lock_file.hpp"
#include "convention/proxy.hpp"
#include "device/device.hpp"

#include <holdfast/claim.hpp>

#include <gtest/gtest.h>

#include <fcntl.h>
#include <sys/syscall.h>
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

struct Story {
  std::string device;
  std::function<void()> claimer;
  std::function<void()> before = [] {};
  std::function<void(long)> before_call = [](long) {};
  std::function<void()> after_death = [] {};
};

// What tests before left on its way to a name of this terminal, whose number was another's before.
void sweep() {
  const base::UniqueFd directory{::open("/run/lock", O_PATH | O_DIRECTORY | O_CLOEXEC)};
  convention::sweep_private_names(directory.get());
}

void kill_at_every_call(const Story& story) {
  sweep();
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
