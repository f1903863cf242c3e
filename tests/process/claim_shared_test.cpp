// SPDX-License-Identifier: MIT
// claim_shared_test.cpp - many share, nobody has it for himself meanwhile; and changing between the two lets nobody in
// who should stay out.
#include "process/support/child.hpp"
#include "process/support/devices.hpp"

#include <holdfast/claim.hpp>

#include <gtest/gtest.h>

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <memory>
#include <new>
#include <string>
#include <vector>

namespace holdfast {
namespace {

using namespace testing_support;

const Options kShared{.mode = Mode::shared};

std::string try_claim(const std::string& device, const Options& options = {}) {
  const auto taken = claim(device, options);
  return taken ? "taken" : taken.error().message;
}

// Claims shared, then does as it is told, a word at a time, and says how that went.
int sharer(Peer& test, const std::string& device) {
  auto mine = claim(device, kShared);
  test.tell(mine ? "claimed" : mine.error().message);
  if (!mine) return 1;
  while (true) {
    const std::string order = test.hear();
    if (order == "release") {
      mine->release();
      test.tell("released");
    } else if (order == "upgrade" || order == "downgrade") {
      const auto changed = order == "upgrade" ? mine->upgrade() : mine->downgrade();
      test.tell(changed ? "done" : changed.error().message);
    } else {
      return 0;
    }
  }
}

class Shared : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    if (GetParam() && !loop_.missing().empty()) GTEST_SKIP() << "needs " << loop_.missing();
  }
  [[nodiscard]] std::string device() const { return GetParam() ? loop_.path() : pty_.path(); }
  [[nodiscard]] Child a_sharer() const {
    return Child{[this](Peer& test) { return sharer(test, device()); }};
  }

 private:
  Pty pty_;
  LoopDevice loop_;
};

TEST_P(Shared, is_granted_to_many_and_keeps_an_exclusive_one_out) {
  std::vector<std::unique_ptr<Child>> sharers;
  for (int i = 0; i < 10; ++i) {
    sharers.push_back(std::make_unique<Child>([this](Peer& test) { return sharer(test, device()); }));
    ASSERT_EQ(sharers.back()->hear(), "claimed");
  }
  for (const auto& one : sharers) {
    EXPECT_NE(try_claim(device()), "taken");
    one->tell("release");
    ASSERT_EQ(one->hear(), "released");
  }
  EXPECT_EQ(try_claim(device()), "taken") << "though the sharers live on";
  EXPECT_TRUE(lock_files_of(device()).empty());
}

TEST_P(Shared, is_refused_while_somebody_has_it_exclusively) {
  const auto mine = claim(device());
  ASSERT_TRUE(mine);
  EXPECT_NE(in_a_child([&] { return try_claim(device(), kShared); }), "taken");
}

TEST_P(Shared, does_not_outlive_a_killed_sharer) {
  Child first = a_sharer();
  ASSERT_EQ(first.hear(), "claimed");
  Child second = a_sharer();
  ASSERT_EQ(second.hear(), "claimed");
  first.kill();
  EXPECT_NE(try_claim(device()), "taken");
  second.kill();
  EXPECT_EQ(try_claim(device()), "taken");
  EXPECT_TRUE(lock_files_of(device()).empty());
}

TEST_P(Shared, is_upgraded_only_when_alone) {
  Child first = a_sharer();
  ASSERT_EQ(first.hear(), "claimed");
  Child second = a_sharer();
  ASSERT_EQ(second.hear(), "claimed");
  first.tell("upgrade");
  EXPECT_NE(first.hear().find("is held by"), std::string::npos);
  EXPECT_EQ(in_a_child([&] { return try_claim(device(), kShared); }), "taken") << "the refused one is shared still";
  second.tell("release");
  ASSERT_EQ(second.hear(), "released");
  first.tell("upgrade");
  EXPECT_EQ(first.hear(), "done");
  EXPECT_NE(try_claim(device(), kShared), "taken");
  first.tell("downgrade");
  EXPECT_EQ(first.hear(), "done");
  EXPECT_EQ(try_claim(device(), kShared), "taken");
}

TEST_P(Shared, by_downgrade_lets_sharers_in_at_once_and_never_an_exclusive_one) {
  void* const memory =
      ::mmap(nullptr, sizeof(std::atomic<bool>), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(memory, MAP_FAILED);
  auto* const stop = new (memory) std::atomic<bool>{false};
  auto mine = claim(device());
  ASSERT_TRUE(mine);
  Child contender{[&](Peer& test) {
    int tries = 0;
    int taken = 0;
    test.tell("trying");
    while (!*stop) {
      ++tries;
      if (claim(device())) ++taken;
    }
    test.tell(taken > 0 ? "taken" : tries > 0 ? "never" : "not tried");
    return 0;
  }};
  ASSERT_EQ(contender.hear(), "trying");
  for (int turn = 0; turn < 50; ++turn) {
    ASSERT_TRUE(mine->downgrade());
    // A contender's attempt may be in the way for an instant: its lock on another convention, never the claim.
    ASSERT_EQ(in_a_child([&] { return try_claim(device(), kShared); }), "taken");
    auto up = mine->upgrade();
    ASSERT_TRUE(up) << up.error().message;
  }
  *stop = true;
  EXPECT_EQ(contender.hear(), "never");
  ::munmap(memory, sizeof *stop);
}

INSTANTIATE_TEST_SUITE_P(Devices, Shared, ::testing::Values(false, true),
                         [](const auto& device) { return device.param ? "loop" : "pty"; });

TEST(SharedLockFile, passes_to_a_sharer_and_goes_with_the_last) {
  const Pty pty;
  ASSERT_EQ(try_claim(pty.path()), "taken");  // clears leftovers of the number's earlier life
  Child first{[&](Peer& test) { return sharer(test, pty.path()); }};
  ASSERT_EQ(first.hear(), "claimed");
  Child second{[&](Peer& test) { return sharer(test, pty.path()); }};
  ASSERT_EQ(second.hear(), "claimed");
  first.tell("release");
  ASSERT_EQ(first.hear(), "released");
  EXPECT_FALSE(lock_files_of(pty.path()).empty());
  EXPECT_NE(try_claim(pty.path(), {.conventions = {Convention::uucp}}), "taken");
  second.tell("release");
  ASSERT_EQ(second.hear(), "released");
  EXPECT_TRUE(lock_files_of(pty.path()).empty());
  EXPECT_EQ(try_claim(pty.path()), "taken");
}

TEST(SharedLockFile, of_two_claims_of_one_process_goes_with_the_last) {
  const Pty pty;
  ASSERT_EQ(try_claim(pty.path()), "taken");
  auto first = claim(pty.path(), kShared);
  auto second = claim(pty.path(), kShared);
  ASSERT_TRUE(first && second);
  first->release();
  EXPECT_FALSE(lock_files_of(pty.path()).empty());
  second->release();
  EXPECT_TRUE(lock_files_of(pty.path()).empty());
}

}  // namespace
}  // namespace holdfast
