// SPDX-License-Identifier: MIT
// driver_lock.cpp - holdfast on a device whose driver knows owners: a claim is the driver's lock, and strangers who
// took that are seen and waited for.
#include "vm/kmod/checksum_device.hpp"
#include "vm/support/module.hpp"

#include "interop/support/bench.hpp"
#include "process/support/child.hpp"

#include <holdfast/claim.hpp>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <optional>

namespace holdfast::vm {
namespace {

using interop::eventually;
using interop::Program;
using interop::run_to_the_end;
using interop::Stdio;
using testing::HasSubstr;
using testing_support::Child;
using testing_support::kPatience;
using testing_support::Peer;

class DriverLock : public testing::Test {
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

 private:
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

TEST_F(DriverLock, a_claim_is_the_drivers_lock) {
  const Checksum stranger;
  auto mine = claim(kChecksum);
  ASSERT_TRUE(mine) << mine.error().message;
  EXPECT_EQ(mine->enforcement(), Enforcement::native);
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

TEST_F(DriverLock, a_claimers_death_frees_it) {
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

TEST_F(DriverLock, a_stranger_is_named_and_waited_for) {
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

TEST_F(DriverLock, a_caller_inside_the_kernel_is_named) {
  ASSERT_EQ(tell_kuser('a', "lock"), 0);
  const auto refused = claim(kChecksum);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("held by the kernel"));
  const auto status = run_to_the_end(interop::holdfast({"status"}));
  EXPECT_THAT(status.output, HasSubstr(kChecksum)) << "though no process has it open";
  EXPECT_THAT(status.output, HasSubstr("kernel"));
}

TEST_F(DriverLock, status_and_explain_tell_of_it) {
  Child other = stranger();
  ASSERT_EQ(other.hear(), "locked");
  const auto status = run_to_the_end(interop::holdfast({"status", kChecksum}));
  EXPECT_THAT(status.output, HasSubstr("vm_kmod_test  " + std::to_string(other.pid()) + "  root"));
  EXPECT_THAT(status.output, HasSubstr("the driver's lock"));
  const auto explained = run_to_the_end(interop::holdfast({"explain", kChecksum}));
  EXPECT_THAT(explained.output, HasSubstr("driver"));
}

TEST_F(DriverLock, run_hands_it_to_its_command_and_takes_it_back) {
  const Checksum stranger;
  Program one{interop::run_with(kChecksum, {KMOD_POKE, kChecksum}), Stdio::pipes};
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

}  // namespace
}  // namespace holdfast::vm
