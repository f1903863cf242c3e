// SPDX-License-Identifier: MIT
// Strangers of every kind in an elected claim's way: while they can be seen there, nobody tries; when they go, somebody
// does, and daemonless claims see one waiter.
#include "broker/stranger_watch.hpp"

#include "claim/obstacle_look.hpp"
#include "process/support/child.hpp"
#include "process/support/devices.hpp"

#include <holdfast/claim.hpp>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <fstream>
#include <functional>
#include <memory>

namespace holdfast::broker {
namespace {

using namespace testing_support;
using namespace std::chrono_literals;
using Clock = StrangerWatch::Clock;

constexpr wire::ClaimId kClaim{7};

class StrangerWatchTest : public ::testing::Test {
 protected:
  StrangerWatchTest() {
    auto device = device::identify(pty_.path());
    EXPECT_TRUE(device);
    taking_.devices = {std::make_shared<const device::Device>(*device)};
    taking_.owner = base::self();
  }

  // Tries once; watches what stands in the way. Whether something does.
  bool is_blocked() {
    auto attempt = claiming::attempt({taking_.devices.front().get(), 1}, taking_.options, taking_.owner);
    if (attempt) return false;
    met_ = attempt.error().convention;
    EXPECT_EQ(attempt.error().obstacle.kind, convention::Obstacle::Kind::busy)
        << attempt.error().obstacle.error.message;
    return watch_.watch(kClaim, attempt.error(), taking_);
  }

  // As the loop does it: whether it is worth trying within the time.
  bool is_worth_trying(Clock::duration time) {
    const auto end = Clock::now() + time;
    while (true) {
      const auto now = Clock::now();
      if (now >= end) return false;
      ++looks_;
      if (const auto worth = watch_.worth_trying(now); !worth.empty()) {
        EXPECT_EQ(worth, std::vector{kClaim});
        return true;
      }
      const auto left = std::min(watch_.next_look().value_or(end), end) - now;
      const auto nanoseconds = std::max(std::chrono::nanoseconds{left}, 0ns).count();
      const timespec timeout{nanoseconds / 1'000'000'000, nanoseconds % 1'000'000'000};
      pollfd heard{watch_.fd(), POLLIN, 0};
      ::ppoll(&heard, 1, &timeout, nullptr);
    }
  }

  // How long until the device was had, trying whenever it is worth it.
  Clock::duration time_until_taken() {
    const auto start = Clock::now();
    while (is_worth_trying(kPatience) && is_blocked()) {
    }
    return Clock::now() - start;
  }

  // A stranger that was seen stays; when it goes, the claim comes at once.
  void expect_calm_until(Child& stranger, const std::function<void()>& go, Clock::duration at_most) {
    ASSERT_EQ(stranger.hear(), "has it");
    ASSERT_TRUE(is_blocked());
    EXPECT_FALSE(is_worth_trying(700ms));
    EXPECT_LT(looks_, 40) << "five looks a second, and some after the events of the first attempt";
    go();
    EXPECT_LT(time_until_taken(), at_most);
    EXPECT_FALSE(is_blocked());
  }

  Pty pty_;
  Taking taking_;
  StrangerWatch watch_;
  Convention met_ = Convention::proxy;
  int looks_ = 0;
};

std::function<int(testing_support::Peer&)> opens_and(const std::string& path, const std::function<bool(int)>& mark) {
  return [=](testing_support::Peer& test) {
    const base::UniqueFd fd{::open(path.c_str(), O_RDWR | O_NOCTTY | O_CLOEXEC)};
    test.tell(fd && mark(fd.get()) ? "has it" : "failed");
    test.hear();
    return 0;
  };
}

TEST_F(StrangerWatchTest, daemonless_claim_that_is_released_is_followed_at_once) {
  Child stranger{[&](testing_support::Peer& test) {
    auto mine = claim(pty_.path());
    test.tell(mine ? "has it" : mine.error().message);
    test.hear();
    return 0;
  }};
  expect_calm_until(stranger, [&] { stranger.tell("go"); }, 5s);
  EXPECT_EQ(met_, Convention::proxy);
}

TEST_F(StrangerWatchTest, daemonless_claim_shows_one_waiter) {
  auto theirs = claim(pty_.path());
  ASSERT_TRUE(theirs);
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(is_blocked());
  const auto waiters = [&] {
    const auto records = convention::read_proxy(convention::proxy_path(taking_.devices.front()->node.id, {}));
    return std::ranges::count_if(*records, [](const convention::ProxyRecord& record) { return record.waiting; });
  };
  EXPECT_EQ(waiters(), 1);
  watch_.forget(kClaim);
  EXPECT_EQ(waiters(), 0);
  EXPECT_FALSE(watch_.next_look());
}

TEST_F(StrangerWatchTest, killed_holder_of_a_flock_is_followed) {
  taking_.options.conventions = ConventionSet{Convention::flock};
  Child stranger{opens_and(pty_.path(), [](int fd) { return ::flock(fd, LOCK_EX) == 0; })};
  expect_calm_until(stranger, [&] { stranger.kill(); }, 5s);
  EXPECT_EQ(met_, Convention::flock);
}

TEST_F(StrangerWatchTest, unlock_without_an_event_is_found_by_looking) {
  taking_.options.conventions = ConventionSet{Convention::flock};
  Child stranger{[&](testing_support::Peer& test) {
    const base::UniqueFd fd{::open(pty_.path().c_str(), O_RDWR | O_NOCTTY | O_CLOEXEC)};
    test.tell(::flock(fd.get(), LOCK_EX) == 0 ? "has it" : "failed");
    test.hear();
    ::flock(fd.get(), LOCK_UN);
    test.hear();
    return 0;
  }};
  expect_calm_until(stranger, [&] { stranger.tell("unlock"); }, 5s);
}

TEST_F(StrangerWatchTest, removal_of_a_lock_file_is_followed) {
  taking_.options.conventions = ConventionSet{Convention::uucp};
  const std::string number = pty_.path().substr(pty_.path().rfind('/') + 1);
  const std::string file = "/run/lock/LCK..pts_" + number;
  Child stranger{[&](testing_support::Peer& test) {
    std::ofstream{file} << "      " << ::getpid() << "\n";
    test.tell("has it");
    test.hear();
    ::unlink(file.c_str());
    test.hear();
    return 0;
  }};
  expect_calm_until(stranger, [&] { stranger.tell("unlink"); }, 5s);
  EXPECT_EQ(met_, Convention::uucp);
  ::unlink(file.c_str());
}

TEST_F(StrangerWatchTest, what_cannot_be_seen_is_tried_five_times_a_second) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root, whom TIOCEXCL does not bind";
  taking_.options.conventions = ConventionSet{Convention::tiocexcl};
  Child stranger{opens_and(pty_.path(), [](int fd) { return ::ioctl(fd, TIOCEXCL) == 0; })};
  ASSERT_EQ(stranger.hear(), "has it");
  ASSERT_TRUE(is_blocked());
  int tries = 0;
  const Stopwatch watch;
  while (watch.ms() < 2000) {
    if (!is_worth_trying(2s)) break;
    ++tries;
    ASSERT_TRUE(is_blocked());
  }
  EXPECT_GE(tries, 3);
  EXPECT_LE(tries, 24);
  stranger.kill();
  EXPECT_LT(time_until_taken(), 5s);
}

TEST_F(StrangerWatchTest, device_that_goes_is_worth_an_attempt_that_says_so) {
  auto pty = std::make_optional<Pty>();
  auto device = device::identify(pty->path());
  ASSERT_TRUE(device);
  taking_.devices = {std::make_shared<const device::Device>(*device)};
  auto theirs = claim(pty->path());
  ASSERT_TRUE(theirs);
  ASSERT_TRUE(is_blocked());
  pty.reset();
  EXPECT_TRUE(is_worth_trying(5s));
}

TEST_F(StrangerWatchTest, claims_are_told_apart) {
  taking_.options.conventions = ConventionSet{Convention::flock};
  Pty other;
  const auto other_device = device::identify(other.path());
  ASSERT_TRUE(other_device);
  const base::UniqueFd other_lock{::open(other.path().c_str(), O_RDWR | O_NOCTTY | O_CLOEXEC)};
  ASSERT_EQ(::flock(other_lock.get(), LOCK_EX), 0);
  const auto attempt = claiming::attempt({&*other_device, 1}, taking_.options, taking_.owner);
  ASSERT_FALSE(attempt);
  Taking other_taking = taking_;
  other_taking.devices = {std::make_shared<const device::Device>(*other_device)};
  ASSERT_TRUE(watch_.watch(wire::ClaimId{8}, attempt.error(), other_taking));
  Child stranger{opens_and(pty_.path(), [](int fd) { return ::flock(fd, LOCK_EX) == 0; })};
  expect_calm_until(stranger, [&] { stranger.kill(); }, 5s);
}

}  // namespace
}  // namespace holdfast::broker
