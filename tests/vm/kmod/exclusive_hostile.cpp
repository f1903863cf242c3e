// SPDX-License-Identifier: MIT
// exclusive_hostile.cpp - many processes and the kernel fight for the checksum device and are killed at random, hostile
// programs call it with nonsense, each module passes its own selftest, and what LOCK and UNLOCK cost is measured.
// HOLDFAST_SOAK_SECONDS=60 makes the fights long.
#include "vm/kmod/checksum_device.hpp"
#include "vm/support/kernel.hpp"
#include "vm/support/module.hpp"

#include "interop/support/bench.hpp"
#include "process/support/child.hpp"

#include <gtest/gtest.h>

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <fstream>
#include <optional>
#include <thread>
#include <vector>

namespace holdfast::vm {
namespace {

using testing_support::Child;
using testing_support::Peer;

class ExclusiveHostile : public testing::Test {
 protected:
  void SetUp() override {
    const auto built = modules();
    if (!built.missing.empty()) GTEST_SKIP() << built.missing;
    exclusive_.emplace("holdfast_exclusive");
    checksum_.emplace("checksum");
    user_.emplace("checksum_kuser");
  }
  void TearDown() override {
    user_.reset();
    checksum_.reset();
    exclusive_.reset();
  }
  // Afterwards it is as new.
  static void expect_usable() {
    const Checksum device;
    EXPECT_EQ(device.lock(), 0) << attribute("hf_exclusive/owner");
    EXPECT_EQ(device.owner().waiters, 0U);
    EXPECT_EQ(device.sums("123456789").crc32c, 0xe3069283U);
    EXPECT_EQ(device.unlock(), 0);
  }

 private:
  std::optional<Module> exclusive_;
  std::optional<Module> checksum_;
  std::optional<Module> user_;
};

// What the processes of a fight write down of it, in memory that they share.
struct Fight {
  std::atomic<int> inside;  // the owner, while it is one
  std::atomic<std::uint64_t> grants;
  std::atomic<std::uint64_t> deaths;    // owners that were found dead by the next
  std::atomic<std::uint64_t> overlaps;  // owners that were found alive
};

bool is_dead(int pid) {
  std::ifstream file{"/proc/" + std::to_string(pid) + "/stat"};
  std::string stat;
  std::getline(file, stat);
  const auto name_ends = stat.rfind(") ");
  return name_ends == std::string::npos || stat[name_ends + 2] == 'Z' || stat[name_ends + 2] == 'X';
}

void fight_once(Fight& fight, const Checksum& device, Random& random) {
  const int error = random() % 4 == 0   ? device.try_lock()
                    : random() % 3 == 0 ? device.lock_within(static_cast<std::int64_t>(random() % 20'000'000))
                                        : device.lock();
  if (error != 0) return;
  ++fight.grants;
  const int before = fight.inside.exchange(::getpid());
  if (before != 0 && is_dead(before)) ++fight.deaths;
  if (before != 0 && !is_dead(before)) ++fight.overlaps;
  for (auto times = random() % 3; times > 0; --times)
    if (device.process() != 0) ++fight.overlaps;
  // A child that has the file open when its parent dies.
  if (random() % 16 == 0 && ::fork() == 0) {
    ::usleep(3000);
    ::_exit(device.process() == EPERM && device.unlock() == EPERM ? 0 : 1);
  }
  fight.inside = 0;
  if (device.unlock() != 0) ++fight.overlaps;
}

TEST_F(ExclusiveHostile, there_is_one_owner_whoever_is_killed) {
  auto* const fight =
      static_cast<Fight*>(::mmap(nullptr, sizeof(Fight), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  ASSERT_NE(fight, MAP_FAILED);
  std::atomic<bool> over = false;
  std::atomic<int> rounds = 0;
  std::thread kernel{[&] {
    while (!over)
      if (tell_kuser('b', "compete 5") == 0) ++rounds;
  }};
  const Storm seen = storm(
      5,
      [&](Random& random) {
        const Checksum device;
        fight_once(*fight, device, random);
      },
      soak_time());
  over = true;
  kernel.join();
  std::printf("%llu owners, %d kills, %llu died as owners, %s lapses, %d rounds in the kernel\n",
              static_cast<unsigned long long>(fight->grants), seen.kills,
              static_cast<unsigned long long>(fight->deaths), attribute("hf_exclusive/lapses").c_str(), rounds.load());
  EXPECT_EQ(fight->overlaps, 0U);
  EXPECT_GT(fight->grants, 50U);
  EXPECT_GT(seen.kills, 5);
  EXPECT_GT(rounds, 0);
  EXPECT_TRUE(becomes_free());
  expect_usable();
  ::munmap(fight, sizeof(Fight));
}

TEST_F(ExclusiveHostile, nonsense_does_no_harm) {
  std::atomic<bool> over = false;
  std::thread rival{[&] {  // so that there is somebody to wait for
    const Checksum device;
    while (!over)
      if (device.lock() == 0) static_cast<void>(device.unlock());
  }};
  const auto calls = bombard(
      {kChecksum, "/sys/kernel/debug/checksum_kuser/c"},
      {HF_IOC_LOCK, HF_IOC_TRYLOCK, HF_IOC_UNLOCK, HF_IOC_LOCK_UNTIL, HF_IOC_OWNER, HF_IOC_PROCESS}, soak_time());
  over = true;
  rival.join();
  std::printf("%llu calls\n", static_cast<unsigned long long>(calls));
  EXPECT_GT(calls, 1000U);
  EXPECT_TRUE(becomes_free());
  expect_usable();
}

class ExclusiveSelftest : public ExclusiveHostile, public testing::WithParamInterface<const char*> {};

TEST_P(ExclusiveSelftest, passes) {
  const auto ending = interop::run_to_the_end({std::string{KMOD_FOLDER "/kmod_"} + GetParam() + "_selftest"});
  EXPECT_EQ(ending.status, 0) << ending.output;
}

INSTANTIATE_TEST_SUITE_P(, ExclusiveSelftest, testing::Values("holdfast_exclusive", "checksum", "checksum_kuser"),
                         [](const auto& module) { return module.param; });

// The best of many short runs: the others are those in which the host did something else.
template <class Call>
double best_ns(const Call& call) {
  constexpr int kRuns = 400;
  constexpr int kCalls = 100;
  double best = 1e18;
  for (int run = 0; run < kRuns; ++run) {
    const testing_support::Stopwatch watch;
    for (int i = 0; i < kCalls; ++i) call();
    best = std::min(best, watch.ms() * 1e6 / kCalls);
  }
  return best;
}

TEST_F(ExclusiveHostile, lock_and_unlock_against_two_empty_ioctls) {
  const Checksum device;
  const int fd = device.fd();
  int failures = 0;
  const double empty = best_ns([&] {
    failures += ::ioctl(fd, _IO(HF_EXCLUSIVE_IOC, 0x0f), 0) == 0;
    failures += ::ioctl(fd, _IO(HF_EXCLUSIVE_IOC, 0x0f), 0) == 0;
  });
  const double pair = best_ns([&] {
    failures += ::ioctl(fd, HF_IOC_LOCK, 0) != 0;
    failures += ::ioctl(fd, HF_IOC_UNLOCK, 0) != 0;
  });
  EXPECT_EQ(failures, 0);
  std::printf("LOCK and UNLOCK %.0f ns, two empty ioctls %.0f ns: %.2f\n", pair, empty, pair / empty);
}

}  // namespace
}  // namespace holdfast::vm
