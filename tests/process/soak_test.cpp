// SPDX-License-Identifier: MIT
// soak_test.cpp - eight processes claim three devices, exclusively and shared, while they are killed at random and born
// again. A checker that knows nothing of claims must not see one overlap, and no device may come to a standstill.
//
// The checker is in support/overlap.hpp.
#include "process/support/child.hpp"
#include "process/support/devices.hpp"
#include "process/support/overlap.hpp"

#include <holdfast/claim.hpp>

#include <gtest/gtest.h>

#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

namespace holdfast {
namespace {

using namespace testing_support;
using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

constexpr int kWorkers = 8;
constexpr auto kStandstill = 5s;  // a second is usual; a busy machine may need more

enum class Claiming { real, pretended };

[[noreturn]] void work(Boards& boards, const std::vector<std::string>& devices, int worker, Claiming claiming) {
  std::minstd_rand random{static_cast<unsigned>(::getpid())};
  while (true) {
    const std::size_t device = random() % devices.size();
    const Mode mode = random() % 3 == 0 ? Mode::exclusive : Mode::shared;
    const int pause_us = static_cast<int>(random() % 1000);
    Claim mine;
    if (claiming == Claiming::real) {
      auto taken = claim(devices[device], {.mode = mode, .wait = Wait::at_most(2s)});
      if (!taken) {
        if (taken.error().code != errc::timed_out) {
          ++boards.faults;
          std::printf("fault: %s\n", taken.error().message.c_str());
          std::fflush(stdout);
        }
        continue;
      }
      mine = std::move(*taken);
    }
    boards.hold(boards.devices[device], mode, worker, pause_us);
  }
}

class Soak {
 public:
  Soak(std::vector<std::string> devices, Claiming claiming) : devices_{std::move(devices)}, claiming_{claiming} {
    for (int worker = 0; worker < kWorkers; ++worker) bear(worker);
  }
  Soak(const Soak&) = delete;
  Soak& operator=(const Soak&) = delete;
  ~Soak() {
    for (int worker = 0; worker < kWorkers; ++worker) end(worker);
  }

  // Kills now and then, until `duration` is over.
  void run(Clock::duration duration) {
    std::minstd_rand random{4711};
    const auto until = Clock::now() + duration;
    last_moved_.fill(Clock::now());
    while (Clock::now() < until) {
      ::poll(nullptr, 0, static_cast<int>(random() % 40));
      const int victim = static_cast<int>(random() % kWorkers);
      end(victim);
      bear(victim);
      ++kills_;
      look_for_progress();
    }
  }

  [[nodiscard]] int overlaps() const { return boards_->overlaps; }
  [[nodiscard]] int faults() const { return boards_->faults; }
  [[nodiscard]] int kills() const { return kills_; }
  [[nodiscard]] Clock::duration longest_standstill() const { return longest_; }
  [[nodiscard]] std::uint64_t grants() const { return boards_->grants(); }

 private:
  void bear(int worker) {
    const pid_t pid = ::fork();
    if (pid < 0) std::abort();
    if (pid == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      work(*boards_, devices_, worker, claiming_);
    }
    workers_[static_cast<std::size_t>(worker)] = pid;
  }

  void end(int worker) {
    const pid_t pid = workers_[static_cast<std::size_t>(worker)];
    const base::UniqueFd pidfd = pidfd_of(pid);
    ::kill(pid, SIGKILL);
    static_cast<void>(wait_for_death(pidfd.get()));
    boards_->forget(pid);
    ::waitpid(pid, nullptr, 0);
  }

  void look_for_progress() {
    for (std::size_t i = 0; i < 2 * devices_.size(); ++i) {
      const std::uint64_t now = boards_->devices[i / 2].grants[i % 2];
      if (now != seen_[i]) last_moved_[i] = Clock::now();
      seen_[i] = now;
      longest_ = std::max(longest_, Clock::now() - last_moved_[i]);
    }
  }

  std::vector<std::string> devices_;
  Claiming claiming_;
  SharedBoards boards_;
  std::array<pid_t, kWorkers> workers_{};
  std::array<std::uint64_t, 6> seen_{};
  std::array<Clock::time_point, 6> last_moved_{};
  Clock::duration longest_{};
  int kills_ = 0;
};

Clock::duration soak_time() {
  if (const char* seconds = std::getenv("HOLDFAST_SOAK_SECONDS")) return std::chrono::seconds{std::atoi(seconds)};
  const char* ci = std::getenv("CI");
  return ci != nullptr && std::string{ci} == "true" ? 60s : 10s;
}

TEST(Soak, of_eight_processes_with_random_kills_shows_no_overlap_and_no_standstill) {
  const Pty first;
  const Pty second;
  const LoopDevice loop;
  std::vector<std::string> devices{first.path(), second.path()};
  if (loop.missing().empty()) devices.push_back(loop.path());
  Soak soak{devices, Claiming::real};
  soak.run(soak_time());
  const double standstill = std::chrono::duration<double>{soak.longest_standstill()}.count();
  std::printf("%llu grants, %d kills, longest standstill of a mode on a device %.2f s\n",
              static_cast<unsigned long long>(soak.grants()), soak.kills(), standstill);
  EXPECT_EQ(soak.overlaps(), 0);
  EXPECT_EQ(soak.faults(), 0);
  EXPECT_LT(soak.longest_standstill(), kStandstill);
  EXPECT_GT(soak.kills(), 10);
  EXPECT_GT(soak.grants(), 100U);
}

TEST(Soak, of_processes_that_only_pretend_to_claim_is_caught_by_the_checker) {
  const Pty first;
  Soak soak{{first.path()}, Claiming::pretended};
  soak.run(1s);
  EXPECT_GT(soak.overlaps(), 0);
}

}  // namespace
}  // namespace holdfast
