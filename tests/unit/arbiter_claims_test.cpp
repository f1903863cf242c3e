// SPDX-License-Identifier: MIT
// arbiter_claims_test.cpp - grants, refusals, and the ends of claims; one case each. What holds in all cases is in
// model/arbiter_model_test.cpp.
#include <gtest/gtest.h>

#include "arbiter_scene.hpp"

using namespace holdfast;
using namespace holdfast::arbiter;
using namespace std::chrono_literals;

TEST(ArbiterClaims, a_free_device_is_granted_at_once) {
  Scene scene;
  EXPECT_EQ(scene.exclusive('a', "X"), "1 granted X#1");
  EXPECT_EQ(scene.holders('X'), "1");
  EXPECT_EQ(scene.arbiter().claim_count(), 1U);
}

TEST(ArbiterClaims, the_next_in_the_queue_is_granted_when_the_holder_releases) {
  Scene scene;
  scene.exclusive('a', "X");
  EXPECT_EQ(scene.exclusive('b', "X"), "2 queued");
  EXPECT_EQ(scene.exclusive('c', "X"), "3 queued");
  EXPECT_EQ(scene.queue('X'), "2 3");
  EXPECT_EQ(scene.release(1), "1 released, 2 granted X#2");
  EXPECT_EQ(scene.release(2), "2 released, 3 granted X#3");
  EXPECT_EQ(scene.queue('X'), "");
}

TEST(ArbiterClaims, one_that_does_not_want_to_wait_is_told_who_holds) {
  Scene scene;
  scene.shared('a', "X");
  scene.shared('b', "X");
  EXPECT_EQ(scene.exclusive('c', "X", kTry), "3 refused busy: a holds X, b holds X");
  EXPECT_EQ(scene.queue('X'), "");
}

TEST(ArbiterClaims, one_that_does_not_want_to_wait_never_passes_those_who_do) {
  Scene scene;
  scene.shared('a', "X");
  scene.exclusive('b', "X");
  EXPECT_EQ(scene.shared('c', "X", kTry), "3 refused busy: b waits for X");
}

TEST(ArbiterClaims, a_deadline_that_is_past_is_no_wait) {
  Scene scene;
  scene.exclusive('a', "X");
  scene.at(second(5));
  EXPECT_EQ(scene.exclusive('b', "X", {Patience::until(second(5))}), "2 refused busy: a holds X");
}

TEST(ArbiterClaims, a_refusal_names_no_more_than_it_has_room_for) {
  Scene scene;
  for (char owner = 'a'; owner <= 'z'; ++owner) scene.shared(owner, "X");
  const std::string refusal = scene.exclusive('A', "X", kTry);
  EXPECT_EQ(static_cast<std::size_t>(std::count(refusal.begin(), refusal.end(), 'X')), kMostBlockers);
}

TEST(ArbiterClaims, a_set_is_granted_all_at_once) {
  Scene scene;
  scene.exclusive('a', "X");
  scene.exclusive('b', "Y");
  EXPECT_EQ(scene.exclusive('c', "YX"), "3 queued");
  EXPECT_EQ(scene.release(1), "1 released");
  EXPECT_EQ(scene.release(2), "2 released, 3 granted X#2 Y#2");
}

TEST(ArbiterClaims, the_first_in_a_queue_keeps_its_devices_for_itself) {
  Scene scene;
  scene.exclusive('a', "Y");
  scene.exclusive('b', "XY");
  EXPECT_EQ(scene.exclusive('c', "X", kTry), "3 refused busy: b waits for X");
  EXPECT_EQ(scene.exclusive('c', "X"), "4 queued");
  EXPECT_EQ(scene.release(1), "1 released, 2 granted X#1 Y#2");
  EXPECT_EQ(scene.release(2), "2 released, 4 granted X#2");
}

TEST(ArbiterClaims, devices_named_twice_count_once) {
  Scene scene;
  EXPECT_EQ(scene.exclusive('a', "XYX"), "1 granted X#1 Y#1");
  EXPECT_EQ(scene.release(1), "1 released");
  EXPECT_EQ(scene.exclusive('b', ""), "2 refused no device");
}

TEST(ArbiterClaims, a_waiter_that_leaves_lets_those_behind_it_in) {
  Scene scene;
  scene.shared('a', "X");
  scene.exclusive('b', "X");
  scene.shared('c', "X");
  scene.shared('d', "X");
  EXPECT_EQ(scene.cancel(2), "2 cancelled, 3 granted X#0, 4 granted X#0");
}

TEST(ArbiterClaims, only_its_owner_can_give_back_or_cancel) {
  Scene scene;
  scene.exclusive('a', "X");
  scene.exclusive('b', "X");
  Decisions out;
  EXPECT_FALSE(scene.arbiter().release(second(0), Scene::owner_of('b'), scene.claim_of(1), out));
  EXPECT_FALSE(scene.arbiter().downgrade(second(0), Scene::owner_of('b'), scene.claim_of(1), out));
  EXPECT_FALSE(scene.arbiter().renew(second(0), Scene::owner_of('b'), scene.claim_of(1), 1s, out));
  EXPECT_FALSE(scene.arbiter().cancel(second(0), Scene::owner_of('a'), scene.request_of(2), out));
  EXPECT_TRUE(out.all().empty());
}

TEST(ArbiterClaims, an_id_of_the_past_means_nothing) {
  Scene scene;
  scene.exclusive('a', "X");
  scene.exclusive('b', "X");
  scene.release(1);
  EXPECT_EQ(scene.release(1), "");
  EXPECT_FALSE(scene.done());
  EXPECT_EQ(scene.cancel(2), "");
  EXPECT_FALSE(scene.done());
  scene.exclusive('a', "Y");  // takes the memory of claim 1
  EXPECT_EQ(scene.release(1), "");
  EXPECT_EQ(scene.holders('Y'), "3");
}

TEST(ArbiterClaims, the_death_of_an_owner_ends_all_that_it_has_before_others_get_in) {
  Scene scene;
  scene.exclusive('a', "X");
  scene.exclusive('a', "Y");
  scene.exclusive('b', "Z");
  scene.exclusive('a', "Z");
  scene.exclusive('c', "XY");
  EXPECT_EQ(scene.die('a'), "4 withdrawn by death, 1 ended by death, 2 ended by death, 5 granted X#2 Y#2");
  EXPECT_EQ(scene.die('a'), "");
  EXPECT_EQ(scene.release(3), "3 released");
}

TEST(ArbiterClaims, a_revoked_claim_is_gone_for_its_owner) {
  Scene scene;
  scene.exclusive('a', "X");
  scene.exclusive('b', "X");
  EXPECT_EQ(scene.revoke(1), "1 revoked, 2 granted X#2");
  scene.release(1);
  EXPECT_FALSE(scene.done());
}

TEST(ArbiterClaims, a_downgrade_lets_in_the_shared_that_are_next) {
  Scene scene{Policy::fifo};
  scene.exclusive('a', "X");
  scene.shared('b', "X");
  scene.exclusive('c', "X");
  scene.shared('d', "X");
  EXPECT_EQ(scene.downgrade(1), "1 downgraded, 2 granted X#1");
  EXPECT_EQ(scene.downgrade(1), "1 downgraded");
  EXPECT_EQ(scene.queue('X'), "3 4s");
}

TEST(ArbiterClaims, an_upgrade_waits_for_the_other_holders_and_before_all_waiters) {
  Scene scene;
  scene.shared('a', "X");
  scene.shared('b', "X");
  scene.exclusive('c', "X");
  EXPECT_EQ(scene.upgrade(1), "4 queued");
  EXPECT_EQ(scene.queue('X'), "4 3");
  EXPECT_EQ(scene.shared('d', "X"), "5 queued");
  EXPECT_EQ(scene.release(2), "2 released, 1 upgraded X#1");
  EXPECT_EQ(scene.release(1), "1 released, 5 granted X#1");
}

TEST(ArbiterClaims, an_upgrade_of_the_only_holder_is_granted_at_once) {
  Scene scene;
  scene.shared('a', "XY");
  EXPECT_EQ(scene.upgrade(1, Patience::none()), "1 upgraded X#1 Y#1");
  EXPECT_EQ(scene.upgrade(1, Patience::none()), "1 upgraded X#1 Y#1");
}

TEST(ArbiterClaims, a_second_upgrade_of_a_device_is_refused) {
  Scene scene;
  scene.shared('a', "X");
  scene.shared('b', "X");
  scene.upgrade(1);
  EXPECT_EQ(scene.upgrade(2), "4 refused already upgrading: a holds X, a upgrades X");
}

TEST(ArbiterClaims, an_upgrade_that_is_not_waited_for_is_told_who_holds_and_the_claim_stays_shared) {
  Scene scene;
  scene.shared('a', "X");
  scene.shared('b', "X");
  EXPECT_EQ(scene.upgrade(1, Patience::none()), "3 refused busy: b holds X");
  EXPECT_EQ(scene.holders('X'), "1s 2s");
  EXPECT_EQ(scene.shared('c', "X"), "4 granted X#0");
}

TEST(ArbiterClaims, a_cancelled_upgrade_lets_others_share_again) {
  Scene scene;
  scene.shared('a', "X");
  scene.shared('b', "X");
  scene.upgrade(1);
  scene.shared('c', "X");
  EXPECT_EQ(scene.cancel(3), "3 cancelled, 4 granted X#0");
}

TEST(ArbiterClaims, an_upgrade_ends_with_its_claim) {
  Scene scene;
  scene.shared('a', "X");
  scene.shared('b', "X");
  scene.upgrade(1);
  EXPECT_EQ(scene.release(1), "3 withdrawn with its claim, 1 released");
  EXPECT_EQ(scene.exclusive('c', "X"), "4 queued");
  EXPECT_EQ(scene.release(2), "2 released, 4 granted X#1");
}

TEST(ArbiterClaims, an_upgrade_of_what_is_not_held_is_refused) {
  Scene scene;
  scene.shared('a', "X");
  scene.release(1);
  EXPECT_EQ(scene.upgrade(1), "2 refused not held");
}

TEST(ArbiterTime, a_request_is_withdrawn_at_its_deadline) {
  Scene scene;
  scene.exclusive('a', "X");
  scene.exclusive('b', "X", {Patience::until(second(5))});
  scene.exclusive('c', "X", {Patience::until(second(3))});
  EXPECT_EQ(scene.arbiter().next_deadline(), second(3));
  EXPECT_EQ(scene.at(second(2)), "");
  EXPECT_EQ(scene.at(second(6)), "3 timed out, 2 timed out");
  EXPECT_EQ(scene.arbiter().next_deadline(), std::nullopt);
}

TEST(ArbiterTime, a_granted_request_has_no_deadline_any_more) {
  Scene scene;
  scene.exclusive('a', "X");
  scene.exclusive('b', "X", {Patience::until(second(5))});
  scene.release(1);
  EXPECT_EQ(scene.arbiter().next_deadline(), std::nullopt);
  EXPECT_EQ(scene.at(second(6)), "");
}

TEST(ArbiterTime, a_claim_lapses_when_its_lease_is_over_and_the_next_one_begins_then) {
  Scene scene;
  scene.exclusive('a', "X", {.lease = 10s});
  scene.exclusive('b', "X", {.lease = 10s});
  EXPECT_EQ(scene.at(second(12)), "1 lapsed, 2 granted X#2");
  EXPECT_EQ(scene.arbiter().next_deadline(), second(22));
}

TEST(ArbiterTime, a_renewed_claim_lapses_later) {
  Scene scene;
  scene.exclusive('a', "X", {.lease = 10s});
  scene.at(second(9));
  EXPECT_EQ(scene.renew(1, 10s), "1 renewed");
  EXPECT_EQ(scene.at(second(18)), "");
  EXPECT_EQ(scene.at(second(19)), "1 lapsed");
  scene.renew(1, 10s);
  EXPECT_FALSE(scene.done());
}

TEST(ArbiterTime, a_lease_longer_than_time_never_ends) {
  Scene scene;
  scene.at(second(5));
  scene.exclusive('a', "X", {.lease = Duration::max()});
  EXPECT_EQ(scene.arbiter().next_deadline(), Time::max());
}

TEST(ArbiterTime, what_lapses_at_a_waiters_deadline_is_the_waiters) {
  Scene scene;
  scene.exclusive('b', "X", {.lease = 10s});
  scene.exclusive('a', "X", {Patience::until(second(10))});
  EXPECT_EQ(scene.at(second(10)), "1 lapsed, 2 granted X#2");
}

TEST(ArbiterTime, every_call_first_does_what_was_due) {
  Scene scene;
  scene.exclusive('a', "X", {.lease = 10s});
  Decisions out;
  const DeviceKey device{'X'};
  scene.arbiter().request(second(10), {.owner = Scene::owner_of('b'), .devices = {&device, 1}}, out);
  ASSERT_EQ(out.all().size(), 2U);
  EXPECT_EQ(std::get<Ended>(out.all()[0]).why, End::lapsed);
  EXPECT_EQ(std::get<Granted>(out.all()[1]).owner, Scene::owner_of('b'));
}

TEST(ArbiterTime, time_does_not_run_backwards) {
  Scene scene;
  scene.at(second(10));
  scene.at(second(3));
  scene.exclusive('a', "X", {.lease = 10s});
  EXPECT_EQ(scene.arbiter().next_deadline(), second(20));
}

TEST(ArbiterTokens, a_token_rises_with_each_exclusive_grant_of_its_device_alone) {
  Scene scene;
  EXPECT_EQ(scene.exclusive('a', "X"), "1 granted X#1");
  scene.release(1);
  EXPECT_EQ(scene.exclusive('b', "Y"), "2 granted Y#1");
  EXPECT_EQ(scene.shared('c', "X"), "3 granted X#1");
  EXPECT_EQ(scene.upgrade(3), "3 upgraded X#2");
  EXPECT_EQ(scene.die('c'), "3 ended by death");
  EXPECT_EQ(scene.exclusive('d', "X"), "5 granted X#3");
}

TEST(ArbiterTokens, tokens_go_on_where_the_last_arbiter_stopped) {
  Scene scene;
  scene.exclusive('a', "XY");
  Arbiter next{{}, scene.arbiter().tokens()};
  Decisions out;
  const DeviceKey device{'Y'};
  next.request(second(0), {.owner = OwnerId{1}, .devices = {&device, 1}}, out);
  EXPECT_EQ(out.devices(std::get<Granted>(out.all()[0]))[0], (Held{device, Token{2}}));
}

TEST(ArbiterRestart, an_adopted_claim_keeps_its_token_and_keeps_others_out) {
  Scene scene;
  const Held held[] = {{DeviceKey{'Y'}, Token{7}}, {DeviceKey{'X'}, Token{3}}};
  const ClaimId claim = scene.arbiter().adopt(
      {.owner = Scene::owner_of('a'), .devices = held, .mode = Mode::exclusive, .until = second(9)});
  ASSERT_NE(claim, ClaimId::none);
  EXPECT_EQ(scene.arbiter().devices(claim), (std::vector<Held>{held[1], held[0]}));
  EXPECT_EQ(scene.arbiter().adopt({.owner = Scene::owner_of('b'), .devices = held, .mode = Mode::shared}),
            ClaimId::none);
  EXPECT_EQ(scene.exclusive('b', "X"), "1 queued");
  Decisions out;
  EXPECT_TRUE(scene.arbiter().release(second(1), Scene::owner_of('a'), claim, out));
  EXPECT_EQ(out.devices(std::get<Granted>(out.all().back()))[0].token, Token{4});
}

TEST(ArbiterRestart, shared_claims_are_adopted_side_by_side) {
  Arbiter arbiter;
  const Held held[] = {{DeviceKey{'X'}, Token{3}}};
  EXPECT_NE(arbiter.adopt({.owner = OwnerId{1}, .devices = held, .mode = Mode::shared}), ClaimId::none);
  EXPECT_NE(arbiter.adopt({.owner = OwnerId{2}, .devices = held, .mode = Mode::shared}), ClaimId::none);
  EXPECT_EQ(arbiter.adopt({.owner = OwnerId{3}, .devices = held, .mode = Mode::exclusive}), ClaimId::none);
  EXPECT_EQ(arbiter.adopt({.owner = OwnerId{3}, .devices = {}}), ClaimId::none);
}

TEST(ArbiterRestart, waiters_come_back_to_their_places_in_any_order) {
  Scene before;
  before.exclusive('z', "X");
  std::vector<Place> places;
  for (const char owner : {'a', 'b', 'c'}) {
    const DeviceKey device{'X'};
    Decisions out;
    before.arbiter().request(
        second(0), {.owner = Scene::owner_of(owner), .devices = {&device, 1}, .patience = Patience::for_ever()}, out);
    places.push_back(std::get<Queued>(out.all()[0]).place);
  }
  Scene scene;
  scene.exclusive('z', "X");
  scene.exclusive('c', "X", {.place = places[2]});
  scene.exclusive('a', "X", {.place = places[0]});
  scene.exclusive('d', "X");
  scene.exclusive('b', "X", {.place = places[1]});
  EXPECT_EQ(scene.queue('X'), "3 5 2 4");
  EXPECT_EQ(scene.release(1), "1 released, 3 granted X#2");
}
