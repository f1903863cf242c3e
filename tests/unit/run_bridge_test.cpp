// SPDX-License-Identifier: MIT
// run_bridge_test.cpp - the bridge against a model of the kernel's locks, with a stranger that tries at every step.
#include "run/bridge.hpp"

#include <gtest/gtest.h>

#include <cerrno>

namespace holdfast::run {
namespace {

enum class Kind { flock, record };

// What three descriptions hold. A failed flock conversion loses the old lock, a failed record lock keeps it.
class Model final : public Passable {
 public:
  Model(Kind kind, Level ours) : kind_{kind}, ours_{ours} {}

  int set_ours(Level level) override { return set(ours_, level, theirs_, stranger_); }
  int set_theirs(Level level) override { return set(theirs_, level, ours_, stranger_); }

  // After every step a stranger tries; `shared_stranger` takes and keeps a read lock if it can.
  bool shared_stranger = false;
  int exclusive_successes = 0;
  Level ours() const { return ours_; }
  Level theirs() const { return theirs_; }
  Level stranger() const { return stranger_; }

 private:
  static bool compatible(Level one, Level other) {
    return one == Level::none || other == Level::none || (one == Level::read && other == Level::read);
  }
  int set(Level& mine, Level wanted, Level other, Level third) {
    const bool granted = compatible(wanted, other) && compatible(wanted, third);
    if (granted) {
      mine = wanted;
    } else if (kind_ == Kind::flock && mine != wanted) {
      mine = Level::none;
    }
    if (compatible(Level::write, ours_) && compatible(Level::write, theirs_)) ++exclusive_successes;
    if (shared_stranger && compatible(Level::read, ours_) && compatible(Level::read, theirs_)) stranger_ = Level::read;
    return granted ? 0 : EAGAIN;
  }

  Kind kind_;
  Level ours_;
  Level theirs_ = Level::none;
  Level stranger_ = Level::none;
};

class Bridge : public testing::TestWithParam<Kind> {};

TEST_P(Bridge, passes_every_level_with_no_step_at_which_a_stranger_gets_it_exclusively) {
  for (const Level held : {Level::read, Level::write}) {
    for (const Level wanted : {Level::read, Level::write}) {
      Model lock{GetParam(), held};
      EXPECT_EQ(pass_to_them(lock, held, wanted), 0);
      EXPECT_EQ(lock.theirs(), wanted);
      EXPECT_EQ(lock.ours(), Level::none);
      EXPECT_TRUE(pass_back(lock, held));
      EXPECT_EQ(lock.ours(), held);
      EXPECT_EQ(lock.theirs(), Level::none);
      EXPECT_EQ(lock.exclusive_successes, 0);
    }
  }
}

TEST_P(Bridge, keeps_at_least_a_shared_lock_when_a_shared_stranger_slips_in) {
  Model lock{GetParam(), Level::write};
  lock.shared_stranger = true;
  EXPECT_EQ(pass_to_them(lock, Level::write, Level::write), EAGAIN);
  EXPECT_EQ(lock.stranger(), Level::read);
  EXPECT_EQ(lock.ours(), Level::read);
  EXPECT_EQ(lock.theirs(), Level::none);
}

TEST_P(Bridge, does_not_come_back_while_another_process_of_the_command_shares_it) {
  Model lock{GetParam(), Level::none};
  ASSERT_EQ(lock.set_theirs(Level::read), 0);
  lock.shared_stranger = true;  // stands for that process
  ASSERT_EQ(lock.set_theirs(Level::read), 0);
  EXPECT_FALSE(pass_back(lock, Level::write));
  EXPECT_EQ(lock.ours(), Level::none);
}

INSTANTIATE_TEST_SUITE_P(Run, Bridge, testing::Values(Kind::flock, Kind::record),
                         [](const auto& of) { return of.param == Kind::flock ? "flock" : "record"; });

}  // namespace
}  // namespace holdfast::run
