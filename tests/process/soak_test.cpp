// SPDX-License-Identifier: MIT
// soak_test.cpp - eight processes claim three devices, exclusively and shared, while they are killed at random and born
// again. A checker that knows nothing of claims must not see one overlap, and no device may come to a standstill.
//
// The checker is shared memory: who holds says so right after claim() and takes it back right before release(). A word
// left by a killed holder names a process that is dead or dying, so it counts only while its process lives; the parent
// clears it between the death and the reaping, while the pid cannot be used again. What it cannot see is a holder that
// is killed before it has said so.
#include "process/support/child.hpp"
#include "process/support/devices.hpp"

#include "base/process.hpp"

#include <holdfast/claim.hpp>

#include <gtest/gtest.h>

#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <new>
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

// What the checker knows of one device.
struct Board {
  std::atomic<pid_t> exclusive{0};
  std::array<std::atomic<pid_t>, kWorkers> shared{};
  std::array<std::atomic<std::uint64_t>, 2> grants{};  // exclusive, shared
};

struct Boards {
  std::array<Board, 3> devices;
  std::atomic<int> overlaps{0};
  std::atomic<int> faults{0};
};
static_assert(std::atomic<pid_t>::is_always_lock_free);

bool holds(pid_t pid) { return pid != 0 && pid != ::getpid() && base::is_alive({pid, 0}); }

void hold_exclusively(Boards& boards, Board& board, int pause_us) {
  const pid_t self = ::getpid();
  if (holds(board.exclusive.exchange(self))) ++boards.overlaps;
  for (const auto& sharer : board.shared)
    if (holds(sharer)) ++boards.overlaps;
  ::usleep(static_cast<useconds_t>(pause_us));  // the work
  pid_t expected = self;
  if (!board.exclusive.compare_exchange_strong(expected, 0)) ++boards.overlaps;
}

void hold_shared(Boards& boards, Board& board, int worker, int pause_us) {
  auto& place = board.shared[static_cast<std::size_t>(worker)];
  place = ::getpid();
  if (holds(board.exclusive)) ++boards.overlaps;
  ::usleep(static_cast<useconds_t>(pause_us));
  if (holds(board.exclusive)) ++boards.overlaps;
  place = 0;
}

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
    Board& board = boards.devices[device];
    if (mode == Mode::exclusive)
      hold_exclusively(boards, board, pause_us);
    else
      hold_shared(boards, board, worker, pause_us);
    ++board.grants[mode == Mode::exclusive ? 0 : 1];
  }
}

class Soak {
 public:
  Soak(std::vector<std::string> devices, Claiming claiming) : devices_{std::move(devices)}, claiming_{claiming} {
    void* const memory = ::mmap(nullptr, sizeof(Boards), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) std::abort();
    boards_ = new (memory) Boards;
    for (int worker = 0; worker < kWorkers; ++worker) bear(worker);
  }
  Soak(const Soak&) = delete;
  Soak& operator=(const Soak&) = delete;
  ~Soak() {
    for (int worker = 0; worker < kWorkers; ++worker) end(worker);
    ::munmap(boards_, sizeof(Boards));
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
  [[nodiscard]] std::uint64_t grants() const {
    std::uint64_t sum = 0;
    for (const Board& board : boards_->devices) sum += board.grants[0] + board.grants[1];
    return sum;
  }

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
    for (Board& board : boards_->devices) {
      pid_t expected = pid;
      board.exclusive.compare_exchange_strong(expected, 0);
      for (auto& place : board.shared) {
        expected = pid;
        place.compare_exchange_strong(expected, 0);
      }
    }
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
  Boards* boards_ = nullptr;
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
