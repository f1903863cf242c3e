// SPDX-License-Identifier: MIT
// driver_lock.cpp - holdfast on a device whose driver knows owners: a claim is the driver's lock, and strangers who
// took that are seen and waited for. Without a broker, and through one, which cannot take it for its clients.
#include "vm/kmod/checksum_device.hpp"
#include "vm/support/module.hpp"

#include "interop/support/bench.hpp"
#include "process/support/broker.hpp"
#include "process/support/child.hpp"
#include "process/support/shell.hpp"

#include <holdfast/claim.hpp>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <optional>
#include <string>
#include <utility>

namespace holdfast::vm {
namespace {

using interop::eventually;
using interop::Program;
using interop::run_to_the_end;
using interop::Stdio;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using testing_support::Child;
using testing_support::ended;
using testing_support::kPatience;
using testing_support::Peer;

class DriverLock : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    const auto built = modules();
    if (!built.missing.empty()) GTEST_SKIP() << built.missing;
    if (GetParam() == "broker") broker_.emplace();
    exclusive_.emplace("holdfast_exclusive");
    checksum_.emplace("checksum");
    user_.emplace("checksum_kuser");
  }
  void TearDown() override {
    user_.reset();
    checksum_.reset();
    exclusive_.reset();
    broker_.reset();
  }
  [[nodiscard]] interop::Words environment() const {
    return broker_ ? interop::Words{"HOLDFAST_SOCKET=" + broker_->socket()} : interop::Words{};
  }

 private:
  std::optional<testing_support::BrokerUnderTest> broker_;
  std::optional<Module> exclusive_;
  std::optional<Module> checksum_;
  std::optional<Module> user_;
};

// Locks the device as a program that knows nothing of holdfast, until it is told something.
Child stranger() {
  return Child{[](Peer& test) {
    const Checksum device;
    test.tell(device.lock() == 0 ? "locked" : "refused");
    test.hear();
    return 0;
  }};
}

TEST_P(DriverLock, a_claim_is_the_drivers_lock) {
  const Checksum stranger;
  auto mine = claim(kChecksum);
  ASSERT_TRUE(mine) << mine.error().message;
  EXPECT_EQ(mine->enforcement(), Enforcement::native);
  EXPECT_EQ(mine->is_brokered(), GetParam() == "broker");
  EXPECT_EQ(stranger.owner().pid, ::getpid());
  const auto fd = mine->fd();
  ASSERT_TRUE(fd);
  hf_checksum_process job{};
  EXPECT_EQ(ioctl_errno(*fd, HF_IOC_PROCESS, reinterpret_cast<unsigned long>(&job)), 0);
  EXPECT_EQ(testing_support::in_a_child([] {
              const Checksum other;
              return std::to_string(other.try_lock()) + " " + std::to_string(other.process());
            }),
            std::to_string(EAGAIN) + " " + std::to_string(EPERM));
  mine->release();
  EXPECT_EQ(stranger.owner().state, static_cast<unsigned>(HF_EXCLUSIVE_FREE));
}

TEST_P(DriverLock, a_claimers_death_frees_it) {
  Child claimer{[](Peer& test) {
    const auto mine = claim(kChecksum);
    test.tell(mine ? "claimed" : mine.error().message);
    test.hear();
    return 0;
  }};
  ASSERT_EQ(claimer.hear(), "claimed");
  claimer.kill();
  EXPECT_EQ(Checksum{}.try_lock(), 0);
}

TEST_P(DriverLock, a_stranger_is_named_and_waited_for) {
  Child other = stranger();
  ASSERT_EQ(other.hear(), "locked");
  const auto refused = claim(kChecksum);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, errc::refused);
  ASSERT_TRUE(refused.error().holder);
  EXPECT_EQ(refused.error().holder->pid, other.pid());
  EXPECT_THAT(refused.error().message, HasSubstr("the driver's lock"));
  Child waiter{[](Peer& test) {
    const auto mine = claim(kChecksum, {.wait = Wait::for_ever()});
    test.tell(mine ? "claimed" : mine.error().message);
    test.hear();
    return 0;
  }};
  other.tell("go");
  EXPECT_EQ(waiter.hear(), "claimed");
}

TEST_P(DriverLock, a_caller_inside_the_kernel_is_named) {
  ASSERT_EQ(tell_kuser('a', "lock"), 0);
  const auto refused = claim(kChecksum);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("held by the kernel"));
  const auto status = run_to_the_end(interop::holdfast({"status"}));
  EXPECT_THAT(status.output, HasSubstr(kChecksum)) << "though no process has it open";
  EXPECT_THAT(status.output, HasSubstr("kernel"));
}

TEST_P(DriverLock, status_and_explain_tell_of_it) {
  Child other = stranger();
  ASSERT_EQ(other.hear(), "locked");
  const auto status = run_to_the_end(interop::holdfast({"status", kChecksum}));
  EXPECT_THAT(status.output, HasSubstr("vm_kmod_test  " + std::to_string(other.pid()) + "  root"));
  EXPECT_THAT(status.output, HasSubstr("the driver's lock"));
  const auto explained = run_to_the_end(interop::holdfast({"explain", kChecksum}));
  EXPECT_THAT(explained.output, HasSubstr("driver"));
}

TEST_P(DriverLock, run_hands_it_to_its_command_and_takes_it_back) {
  const Checksum stranger;
  Program one{interop::run_with(kChecksum, {KMOD_POKE, kChecksum}), Stdio::pipes, environment()};
  ASSERT_TRUE(eventually([&] { return one.has_said("done"); }, {&one}, {}, kPatience)) << one.output();
  // Unlocked by the command: the front's again.
  ASSERT_TRUE(eventually([&] { return stranger.owner().pid == one.pid(); }, {&one}, {}, kPatience))
      << attribute("hf_exclusive/owner");
  EXPECT_EQ(stranger.try_lock(), EAGAIN);
  ::kill(one.pid(), SIGUSR1);
  ASSERT_TRUE(eventually([&] { return one.ended().has_value(); }, {&one}, {}, kPatience));
  EXPECT_EQ(*one.ended(), 0) << one.output();
  EXPECT_EQ(stranger.try_lock(), 0);
}

TEST_P(DriverLock, goes_from_a_dead_claimer_to_the_next_in_the_queue) {
  const Checksum stranger;
  Child first{[](Peer& test) {
    const auto mine = claim(kChecksum);
    test.tell(mine ? "claimed" : mine.error().message);
    test.hear();
    return 0;
  }};
  ASSERT_EQ(first.hear(), "claimed");
  Child next{[](Peer& test) {
    // Daemonless nobody says when it waits: there it may come when the first is dead.
    if (GetParam() == "daemonless") test.tell("asks");
    Options options{.wait = Wait::for_ever()};
    options.on_progress = [&, told = false](const Progress&) mutable {
      if (!std::exchange(told, true)) test.tell("asks");
    };
    const auto mine = claim(kChecksum, options);
    const bool is_its_own_way = mine && mine->is_brokered() == (GetParam() == "broker");
    test.tell(is_its_own_way ? "claimed" : mine ? "claimed the other way" : mine.error().message);
    test.hear();
    return 0;
  }};
  ASSERT_EQ(next.hear(), "asks");
  first.kill();
  ASSERT_EQ(next.hear(), "claimed");
  EXPECT_EQ(stranger.owner().pid, next.pid());
  EXPECT_EQ(stranger.try_lock(), EAGAIN);
}

TEST_P(DriverLock, is_each_holders_own_while_two_take_turns) {
  const auto takes_turns = [](Peer& test) {
    const Checksum look;
    for (int turn = 0; turn < 40; ++turn) {
      const auto mine = claim(kChecksum, {.wait = Wait::for_ever()});
      if (!mine || look.owner().pid != ::getpid() || mine->enforcement() != Enforcement::native ||
          mine->is_brokered() != (GetParam() == "broker")) {
        test.tell(mine ? "without the lock" : mine.error().message);
        return 1;
      }
    }
    test.tell("done");
    return 0;
  };
  Child one{takes_turns};
  Child other{takes_turns};
  EXPECT_EQ(one.hear(), "done");
  EXPECT_EQ(other.hear(), "done");
}

class BrokeredDriverLock : public DriverLock {};

TEST_P(BrokeredDriverLock, is_not_taken_by_who_claims_for_another_process) {
  const Checksum stranger;
  Child owner{[](Peer& test) {
    test.hear();
    return 0;
  }};
  const auto claimed = ended(fmt::format("$H claim -v --pid {} $D 2>&1", owner.pid()), kChecksum);
  EXPECT_EQ(claimed.status, 0) << claimed.out;
  EXPECT_THAT(claimed.out, AllOf(HasSubstr("enforcement: advisory"), Not(HasSubstr("driver"))));
  EXPECT_EQ(stranger.try_lock(), 0);
}

TEST_P(BrokeredDriverLock, ends_when_its_holder_hears_that_it_was_kicked) {
  const Checksum stranger;
  Child holder{[](Peer& test) {
    auto mine = claim(kChecksum);
    test.tell(mine ? "claimed" : mine.error().message);
    test.hear();
    const auto there = mine->check();
    test.tell(!there && there.error().code == errc::revoked ? "revoked" : "still there");
    test.hear();
    return 0;
  }};
  ASSERT_EQ(holder.hear(), "claimed");
  EXPECT_EQ(ended("$H kick --grace 0 $D", kChecksum).status, 0);
  EXPECT_EQ(stranger.try_lock(), EAGAIN);
  holder.tell("check");
  ASSERT_EQ(holder.hear(), "revoked");
  EXPECT_EQ(stranger.try_lock(), 0) << "though its claim is there still";
}

INSTANTIATE_TEST_SUITE_P(Ways, BrokeredDriverLock, testing::Values("broker"),
                         [](const auto& one) { return one.param; });
INSTANTIATE_TEST_SUITE_P(Ways, DriverLock, testing::Values("daemonless", "broker"),
                         [](const auto& one) { return one.param; });

}  // namespace
}  // namespace holdfast::vm
