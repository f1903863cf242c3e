// SPDX-License-Identifier: MIT
#include "broker/limits.hpp"

#include "broker/agenda.hpp"

#include <gtest/gtest.h>

using namespace holdfast;
using namespace holdfast::broker;
using namespace std::chrono_literals;

TEST(Count, refuses_what_is_too_much_for_one_user_alone) {
  Count count{2};
  EXPECT_TRUE(count.add(1000));
  EXPECT_TRUE(count.add(1000));
  EXPECT_FALSE(count.add(1000));
  EXPECT_TRUE(count.add(1001));
  count.remove(1000);
  EXPECT_TRUE(count.add(1000));
  EXPECT_EQ(count.of(1000), 2U);
}

TEST(Count, does_not_refuse_root) {
  Count count{0};
  EXPECT_TRUE(count.add(0, 100));
}

TEST(Rate, lets_a_burst_through_and_then_as_much_as_time_passes) {
  Rate rate{100};
  arbiter::Time now{1h};
  for (int i = 0; i < 100; ++i) EXPECT_FALSE(rate.count(1000, now)) << i;
  const auto again = rate.count(1000, now);
  ASSERT_TRUE(again);
  EXPECT_GT(*again, now);
  EXPECT_FALSE(rate.count(1001, now)) << "another user";
  now += 500ms;
  int through = 0;
  while (!rate.count(1000, now)) ++through;
  EXPECT_NEAR(through, 50, 2);
}

TEST(Agenda, keeps_one_entry_for_each_claim_and_kind) {
  Agenda agenda;
  const arbiter::Time now{1h};
  agenda.set(wire::ClaimId{1}, Due::kick, now + 5s);
  agenda.set(wire::ClaimId{1}, Due::kick, now + 2s);
  agenda.set(wire::ClaimId{2}, Due::retry, now + 3s);
  EXPECT_EQ(agenda.next(), now + 2s);
  EXPECT_FALSE(agenda.pop(now + 1s));
  EXPECT_EQ(agenda.pop(now + 9s)->claim, wire::ClaimId{1});
  agenda.clear(wire::ClaimId{2});
  EXPECT_FALSE(agenda.pop(now + 9s));
  EXPECT_FALSE(agenda.next());
}
