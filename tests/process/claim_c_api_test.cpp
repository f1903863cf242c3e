// SPDX-License-Identifier: MIT
// claim_c_api_test.cpp - the C front door answers with errno and keeps the same promises.
#include "process/support/devices.hpp"

#include <holdfast/holdfast.h>

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <string>

namespace {

class CApi : public testing::Test {
 protected:
  const holdfast::testing_support::Pty pty_;
  const std::string& device_ = pty_.path();
};

TEST_F(CApi, a_claim_is_held_until_it_is_released) {
  hf_claim* claim = nullptr;
  ASSERT_EQ(hf_claim_device(&claim, device_.c_str(), nullptr, nullptr), 0);
  EXPECT_EQ(hf_claim_held(claim), 1);
  EXPECT_GE(hf_claim_fd(claim, 0), 0);
  hf_claim* second = nullptr;
  hf_error error{};
  EXPECT_EQ(hf_claim_device(&second, device_.c_str(), nullptr, &error), -1);
  EXPECT_EQ(errno, EBUSY);
  EXPECT_EQ(error.holder, ::getpid());
  EXPECT_NE(std::string{error.message}.find(device_), std::string::npos);
  EXPECT_EQ(second, nullptr);
  hf_release(claim);
  EXPECT_EQ(hf_claim_device(&second, device_.c_str(), nullptr, &error), 0);
  hf_release(second);
}

TEST_F(CApi, errno_says_what_is_wrong) {
  hf_claim* claim = nullptr;
  EXPECT_EQ(hf_claim_device(&claim, "/dev/no-such-device", nullptr, nullptr), -1);
  EXPECT_EQ(errno, ENOENT);
  EXPECT_EQ(hf_claim_device(&claim, "/", nullptr, nullptr), -1);
  EXPECT_EQ(errno, ENODEV);
  EXPECT_EQ(hf_claim_device(&claim, "", nullptr, nullptr), -1);
  EXPECT_EQ(errno, EINVAL);
  EXPECT_EQ(hf_claim_device(&claim, nullptr, nullptr, nullptr), -1);
  EXPECT_EQ(errno, EINVAL);
  EXPECT_EQ(hf_claim_devices(&claim, nullptr, 0, nullptr, nullptr), -1);
  EXPECT_EQ(errno, EINVAL);
  hf_options options{};
  options.size = sizeof options;
  for (const std::uint32_t unknown : {1U << 31U, 0U + HF_GUARDED + HF_UNGUARDED}) {
    options.flags = unknown;
    EXPECT_EQ(hf_claim_device(&claim, device_.c_str(), &options, nullptr), -1);
    EXPECT_EQ(errno, EINVAL);
  }
  EXPECT_EQ(hf_claim_fd(nullptr, 0), -1);
  EXPECT_EQ(hf_claim_held(nullptr), 0);
  hf_release(nullptr);
}

TEST_F(CApi, a_wait_ends_at_its_deadline) {
  hf_claim* first = nullptr;
  ASSERT_EQ(hf_claim_device(&first, device_.c_str(), nullptr, nullptr), 0);
  hf_options options{};
  options.size = sizeof options;
  options.wait_ms = 50;
  hf_claim* second = nullptr;
  EXPECT_EQ(hf_claim_device(&second, device_.c_str(), &options, nullptr), -1);
  EXPECT_EQ(errno, ETIMEDOUT);
  hf_release(first);
}

TEST_F(CApi, shared_claims_share_and_change_mode) {
  hf_options options{};
  options.size = sizeof options;
  options.flags = HF_SHARED;
  hf_claim* first = nullptr;
  hf_claim* second = nullptr;
  ASSERT_EQ(hf_claim_device(&first, device_.c_str(), &options, nullptr), 0);
  ASSERT_EQ(hf_claim_device(&second, device_.c_str(), &options, nullptr), 0);
  EXPECT_EQ(hf_claim_upgrade(first), -1);
  EXPECT_EQ(errno, EBUSY);
  hf_release(second);
  EXPECT_EQ(hf_claim_upgrade(first), 0);
  EXPECT_EQ(hf_claim_device(&second, device_.c_str(), &options, nullptr), -1);
  EXPECT_EQ(hf_claim_downgrade(first), 0);
  EXPECT_EQ(hf_claim_device(&second, device_.c_str(), &options, nullptr), 0);
  hf_release(first);
  hf_release(second);
}

TEST_F(CApi, a_forked_child_holds_nothing_and_may_free_its_copy) {
  hf_claim* claim = nullptr;
  ASSERT_EQ(hf_claim_device(&claim, device_.c_str(), nullptr, nullptr), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    const bool inert = hf_claim_held(claim) == 0 && hf_claim_fd(claim, 0) == -1 && errno == EPERM;
    hf_release(claim);
    ::_exit(inert ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(hf_claim_held(claim), 1);
  hf_release(claim);
}

}  // namespace
