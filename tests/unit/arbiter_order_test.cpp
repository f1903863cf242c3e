// SPDX-License-Identifier: MIT
// arbiter_order_test.cpp - who is next under each policy and class, and which waits are refused.
#include <gtest/gtest.h>

#include "arbiter_scene.hpp"

using namespace holdfast;
using namespace holdfast::arbiter;

namespace {
const How kHigh{Patience::for_ever(), Priority::high};
const How kUrgent{Patience::for_ever(), Priority::urgent};
}  // namespace

TEST(ArbiterPhaseFair, the_shared_that_wait_get_in_together_when_an_exclusive_claim_ends) {
  Scene scene;
  scene.exclusive('a', "X");
  scene.exclusive('b', "X");
  scene.shared('c', "X");
  scene.exclusive('d', "X");
  scene.shared('e', "X");
  EXPECT_EQ(scene.release(1), "1 released, 3 granted X#1, 5 granted X#1");
  EXPECT_EQ(scene.shared('f', "X"), "6 queued");
  EXPECT_EQ(scene.release(3), "3 released");
  EXPECT_EQ(scene.release(5), "5 released, 2 granted X#2");
  EXPECT_EQ(scene.release(2), "2 released, 6 granted X#2");
  EXPECT_EQ(scene.release(6), "6 released, 4 granted X#3");
}

TEST(ArbiterPhaseFair, a_downgrade_ends_an_exclusive_phase) {
  Scene scene;
  scene.exclusive('a', "X");
  scene.exclusive('b', "X");
  scene.shared('c', "X");
  EXPECT_EQ(scene.downgrade(1), "1 downgraded, 3 granted X#1");
}

TEST(ArbiterPhaseFair, the_end_of_a_shared_claim_lets_no_shared_pass) {
  Scene scene;
  scene.shared('a', "X");
  scene.shared('b', "X");
  scene.exclusive('c', "X");
  scene.shared('d', "X");
  EXPECT_EQ(scene.release(1), "1 released");
  EXPECT_EQ(scene.release(2), "2 released, 3 granted X#1");
}

TEST(ArbiterPhaseFair, a_shared_set_keeps_to_the_order) {
  Scene scene;
  scene.exclusive('a', "X");
  scene.exclusive('b', "X");
  scene.shared('c', "XY");
  EXPECT_EQ(scene.release(1), "1 released, 2 granted X#2");
  EXPECT_EQ(scene.release(2), "2 released, 3 granted X#2 Y#0");
}

TEST(ArbiterPhaseFair, one_that_waits_for_something_else_too_keeps_to_the_order) {
  Scene scene;
  scene.exclusive('a', "X");
  scene.exclusive('b', "Y");
  scene.exclusive('c', "X");
  scene.shared('d', "X");
  scene.exclusive('d', "Y");
  EXPECT_EQ(scene.release(1), "1 released, 3 granted X#2");
}

TEST(ArbiterPhaseFair, an_exclusive_set_that_is_first_is_passed_by_one_batch) {
  Scene scene;
  scene.exclusive('a', "X");
  scene.exclusive('b', "Y");
  scene.exclusive('c', "XY");
  scene.shared('d', "X");
  EXPECT_EQ(scene.release(1), "1 released, 4 granted X#1");
  EXPECT_EQ(scene.shared('e', "X"), "5 queued");
  EXPECT_EQ(scene.release(4), "4 released");
  EXPECT_EQ(scene.shared('d', "X"), "6 queued");
  EXPECT_EQ(scene.release(2), "2 released, 3 granted X#2 Y#2");
}

TEST(ArbiterFifo, the_order_is_that_of_asking) {
  Scene scene{Policy::fifo};
  scene.exclusive('a', "X");
  scene.exclusive('b', "X");
  scene.shared('c', "X");
  scene.exclusive('d', "X");
  scene.shared('e', "X");
  EXPECT_EQ(scene.release(1), "1 released, 2 granted X#2");
  EXPECT_EQ(scene.release(2), "2 released, 3 granted X#2");
  EXPECT_EQ(scene.release(3), "3 released, 4 granted X#3");
  EXPECT_EQ(scene.release(4), "4 released, 5 granted X#3");
}

TEST(ArbiterWriterFirst, exclusive_requests_come_before_shared_ones) {
  Scene scene{Policy::writer_first};
  scene.exclusive('a', "X");
  scene.shared('b', "X", kUrgent);
  scene.exclusive('c', "X");
  scene.exclusive('d', "X");
  EXPECT_EQ(scene.queue('X'), "3 4 2s");
  EXPECT_EQ(scene.release(1), "1 released, 3 granted X#2");
}

TEST(ArbiterPriority, a_higher_class_overtakes) {
  Scene scene;
  scene.exclusive('a', "X");
  scene.exclusive('b', "X");
  scene.exclusive('c', "X", kHigh);
  scene.exclusive('d', "X", kUrgent);
  EXPECT_EQ(scene.queue('X'), "4 3 2");
}

TEST(ArbiterPriority, a_class_overtakes_no_more_than_its_number_of_places) {
  Scene scene{Policy::phase_fair, 2};
  scene.exclusive('a', "X");
  for (const char owner : {'b', 'c', 'd', 'e'}) scene.exclusive(owner, "X");
  scene.exclusive('f', "X", kHigh);
  EXPECT_EQ(scene.queue('X'), "2 3 6 4 5");
  scene.exclusive('g', "X", kHigh);
  scene.exclusive('h', "X", kHigh);
  EXPECT_EQ(scene.queue('X'), "2 3 6 4 7 5 8");
}

TEST(ArbiterPriority, those_that_are_granted_at_once_use_up_places_when_they_overtake) {
  Scene scene{Policy::phase_fair, 2};
  scene.shared('a', "X");
  scene.exclusive('b', "X");
  EXPECT_EQ(scene.shared('c', "X", kHigh), "3 granted X#0");
  EXPECT_EQ(scene.shared('d', "X", kHigh), "4 granted X#0");
  EXPECT_EQ(scene.shared('e', "X", kHigh), "5 queued");
}

TEST(ArbiterPriority, a_class_without_places_is_no_class) {
  Scene scene{Policy::fifo, 0};
  scene.exclusive('a', "X");
  scene.exclusive('b', "X");
  scene.exclusive('c', "X", kUrgent);
  EXPECT_EQ(scene.queue('X'), "2 3");
}

TEST(ArbiterPriority, the_order_of_two_sets_is_the_same_on_all_devices) {
  Scene scene;
  scene.exclusive('a', "XY");
  scene.exclusive('b', "XY");
  scene.exclusive('c', "YX", kHigh);
  EXPECT_EQ(scene.queue('X'), "3 2");
  EXPECT_EQ(scene.queue('Y'), "3 2");
}

TEST(ArbiterQueries, the_place_in_a_queue_is_the_number_of_those_ahead) {
  Scene scene;
  scene.exclusive('a', "XY");
  scene.exclusive('b', "X");
  scene.exclusive('c', "X");
  scene.exclusive('d', "XY");
  scene.exclusive('e', "X", kHigh);
  EXPECT_EQ(scene.arbiter().ahead_of(scene.request_of(2)), 1U);
  EXPECT_EQ(scene.arbiter().ahead_of(scene.request_of(4)), 3U);
  EXPECT_EQ(scene.arbiter().ahead_of(scene.request_of(5)), 0U);
  EXPECT_EQ(scene.arbiter().ahead_of(scene.request_of(1)), std::nullopt);
}

TEST(ArbiterQueries, a_claim_can_be_looked_up) {
  Scene scene;
  scene.exclusive('a', "X", {.lease = std::chrono::seconds{4}});
  const auto found = scene.arbiter().holding(scene.claim_of(1));
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->owner, Scene::owner_of('a'));
  EXPECT_EQ(found->until, second(4));
  EXPECT_TRUE(scene.arbiter().holders(DeviceKey{'Q'}).empty());
  EXPECT_TRUE(scene.arbiter().queue(DeviceKey{'Q'}).empty());
}

TEST(ArbiterDeadlock, a_wait_that_closes_a_cycle_is_refused_with_the_cycle) {
  Scene scene;
  scene.exclusive('a', "X");
  scene.exclusive('b', "Y");
  scene.exclusive('c', "Z");
  EXPECT_EQ(scene.exclusive('a', "Y"), "4 queued");
  EXPECT_EQ(scene.exclusive('b', "Z"), "5 queued");
  EXPECT_EQ(scene.exclusive('c', "X"), "6 refused deadlock: c waits for X, a waits for Y, b waits for Z");
  EXPECT_EQ(scene.release(3), "3 released, 5 granted Z#2");
}

TEST(ArbiterDeadlock, an_owner_that_asks_again_for_what_it_holds_is_in_its_own_way) {
  Scene scene;
  scene.exclusive('a', "X");
  EXPECT_EQ(scene.exclusive('a', "X"), "2 refused deadlock: a waits for X");
  EXPECT_EQ(scene.shared('a', "X"), "3 refused deadlock: a waits for X");
  EXPECT_EQ(scene.exclusive('a', "YX", kTry), "4 refused deadlock: a waits for X");
}

TEST(ArbiterDeadlock, an_owner_may_share_a_device_with_itself) {
  Scene scene;
  scene.shared('a', "X");
  EXPECT_EQ(scene.shared('a', "X"), "2 granted X#0");
  EXPECT_EQ(scene.upgrade(1), "3 refused deadlock: a waits for X");
  EXPECT_EQ(scene.upgrade(1, Patience::none()), "4 refused deadlock: a waits for X");
}

TEST(ArbiterDeadlock, an_owner_that_shares_again_behind_a_waiter_would_wait_for_itself) {
  Scene scene;
  scene.shared('a', "X");
  scene.exclusive('b', "X");
  EXPECT_EQ(scene.shared('a', "X"), "3 refused deadlock: a waits for X, b waits for X");
}

TEST(ArbiterDeadlock, an_upgrade_that_closes_a_cycle_is_refused) {
  Scene scene;
  scene.shared('a', "X");
  scene.shared('b', "X");
  scene.exclusive('a', "Y");
  EXPECT_EQ(scene.exclusive('b', "Y"), "4 queued");
  EXPECT_EQ(scene.upgrade(1), "5 refused deadlock: a waits for X, b waits for Y");
  EXPECT_EQ(scene.cancel(4), "4 cancelled");
  EXPECT_EQ(scene.upgrade(1), "6 queued");
}

TEST(ArbiterDeadlock, two_shared_holders_that_wait_for_each_other_are_told) {
  Scene scene;
  scene.shared('a', "X");
  scene.shared('b', "X");
  scene.exclusive('c', "Y");
  EXPECT_EQ(scene.upgrade(1), "4 queued");
  EXPECT_EQ(scene.exclusive('b', "Y"), "5 queued");
  EXPECT_EQ(scene.exclusive('c', "X"), "6 refused deadlock: c waits for X, b waits for Y");
}

TEST(ArbiterDeadlock, an_owner_that_holds_nothing_closes_a_cycle_when_it_overtakes) {
  Scene scene;
  scene.shared('c', "X");
  scene.exclusive('b', "Y");
  scene.exclusive('e', "Z");
  EXPECT_EQ(scene.exclusive('c', "Y"), "4 queued");
  EXPECT_EQ(scene.shared('b', "XZ"), "5 queued");
  EXPECT_EQ(scene.exclusive('d', "X", kHigh), "6 refused deadlock: d waits for X, c waits for Y, b waits for X");
  EXPECT_EQ(scene.exclusive('d', "X"), "7 queued");
}

TEST(ArbiterDeadlock, a_grant_that_would_leave_a_cycle_is_refused) {
  Scene scene{Policy::writer_first};
  scene.exclusive('b', "Y");
  scene.exclusive('e', "Z");
  EXPECT_EQ(scene.shared('b', "XZ"), "3 queued");
  EXPECT_EQ(scene.exclusive('a', "Y"), "4 queued");
  EXPECT_EQ(scene.exclusive('a', "X"), "5 refused deadlock: a waits for Y, b waits for X");
  EXPECT_EQ(scene.exclusive('d', "X"), "6 granted X#1");
}
