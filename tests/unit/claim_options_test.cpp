// SPDX-License-Identifier: MIT
// The words in which a claim is asked for.
#include <holdfast/options.hpp>

#include <gtest/gtest.h>

#include <chrono>

namespace holdfast {
namespace {

using namespace std::chrono_literals;

TEST(ConventionSet, begins_empty_and_takes_members_in_and_out) {
  constexpr ConventionSet none;
  static_assert(none.empty());
  constexpr ConventionSet one = none.with(Convention::flock);
  static_assert(one.contains(Convention::flock) && !one.contains(Convention::posix) && !one.empty());
  static_assert(one.without(Convention::flock) == none);
  static_assert(one.with(Convention::flock) == one);
  static_assert(none.without(Convention::flock) == none);
  static_assert(ConventionSet{Convention::flock, Convention::uucp} == one.with(Convention::uucp));
}

TEST(ConventionSet, all_has_every_convention_and_nothing_else) {
  ConventionSet set = ConventionSet::all();
  for (int value = 0; value < kConventionCount; ++value) {
    EXPECT_TRUE(set.contains(static_cast<Convention>(value))) << value;
    set = set.without(static_cast<Convention>(value));
  }
  EXPECT_TRUE(set.empty());
  EXPECT_EQ(static_cast<int>(Convention::tiocexcl), kConventionCount - 1);
}

TEST(Wait, none_does_not_wait_and_for_ever_does_not_end) {
  EXPECT_FALSE(Wait::none().waits());
  EXPECT_TRUE(Wait::for_ever().waits());
  EXPECT_FALSE(Wait::for_ever().ends());
  EXPECT_FALSE(Options{}.wait.waits()) << "the default refuses at once";
}

TEST(Wait, duration_ends_that_much_later) {
  const auto before = Wait::Clock::now();
  const Wait wait = Wait::at_most(5s);
  EXPECT_TRUE(wait.waits());
  EXPECT_TRUE(wait.ends());
  EXPECT_GE(wait.deadline(), before + 5s);
  EXPECT_LE(wait.deadline(), Wait::Clock::now() + 5s);
}

TEST(Wait, duration_too_long_for_the_clock_waits_for_ever) {
  EXPECT_FALSE(Wait::at_most(Wait::Clock::duration::max()).ends());
  EXPECT_FALSE(Wait::at_most(Wait::Clock::time_point::max() - Wait::Clock::now()).ends());
  EXPECT_TRUE(Wait::at_most(24h * 365 * 100).ends()) << "a hundred years are not for ever";
}

TEST(Wait, duration_of_zero_or_less_is_over_at_once_but_is_a_wait) {
  for (const Wait::Clock::duration duration : {Wait::Clock::duration{0}, Wait::Clock::duration{-1s}}) {
    const Wait wait = Wait::at_most(duration);
    EXPECT_TRUE(wait.waits());
    EXPECT_LE(wait.deadline(), Wait::Clock::now());
  }
  const Wait wait = Wait::at_most(Wait::Clock::duration::min());
  EXPECT_TRUE(wait.waits());
  EXPECT_LE(wait.deadline(), Wait::Clock::now());
}

}  // namespace
}  // namespace holdfast
