// SPDX-License-Identifier: MIT
// broker_desk_test.cpp - the desk in a world of the test's own: what is answered, to whom, and in which order.
#include <gtest/gtest.h>

#include "broker_world.hpp"

using namespace holdfast;
using namespace holdfast::broker;
using namespace std::chrono_literals;

namespace {

constexpr wire::Patience kTry{false, {}};

wire::Patience at_most(wire::Duration time) { return {true, time}; }

// Connections a, b, c... in this order, so that the owners are named alike.
void connect(FakeWorld& world, std::string_view names, uid_t uid = 1000) {
  for (const char name : names) world.connect(name, uid);
}

TEST(Desk, grants_what_is_free_and_writes_it_down_first) {
  FakeWorld world;
  connect(world, "a");
  world.say('a', FakeWorld::claim_of("x"));
  EXPECT_EQ(world.heard(), "a:granted");
  EXPECT_EQ(world.journal, std::vector{world.claim('a')});
}

TEST(Desk, grants_to_the_next_before_the_releaser_hears_that_it_is_done) {
  FakeWorld world;
  connect(world, "ab");
  world.say('a', FakeWorld::claim_of("x"));
  world.say('b', FakeWorld::claim_of("x"));
  EXPECT_EQ(world.heard(), "a:granted, b:queued 0");
  world.say('a', wire::Release{world.claim('a')});
  EXPECT_EQ(world.heard(), "given back, hook, b:granted, a:done");
}

TEST(Desk, takes_nothing_before_slow_hands_have_given_it_back) {
  FakeWorld world;
  connect(world, "ab");
  world.say('a', FakeWorld::claim_of("x"));
  world.say('b', FakeWorld::claim_of("x"));
  world.hands_are_slow = true;
  world.asked_hands.clear();
  world.say('a', wire::Release{world.claim('a')});
  EXPECT_TRUE(world.asked_hands.empty());
  world->given_back(world.claim('a'));
  ASSERT_EQ(world.asked_hands.size(), 1U);
  world.heard();
  world.finish_taking(world.asked_hands.front());
  EXPECT_EQ(world.heard(), "b:granted, a:done");
}

TEST(Desk, refuses_a_try_and_names_the_holder) {
  FakeWorld world;
  connect(world, "ab");
  world.say('a', FakeWorld::claim_of("x"));
  world.say('b', FakeWorld::claim_of("x", kTry));
  EXPECT_EQ(world.refusal().code, errc::refused);
  ASSERT_TRUE(world.refusal().holder);
  EXPECT_EQ(world.refusal().holder->pid, 'a');
}

TEST(Desk, refuses_a_try_of_what_the_owner_holds_itself_as_busy) {
  FakeWorld world;
  connect(world, "a");
  world.say('a', FakeWorld::claim_of("x"));
  world.say('a', FakeWorld::claim_of("x", kTry));
  EXPECT_EQ(world.refusal().code, errc::refused);
  world.say('a', FakeWorld::claim_of("x"));
  EXPECT_EQ(world.refusal().code, errc::deadlock);
  EXPECT_EQ(world.refusal().holder->pid, 'a');
}

TEST(Desk, names_the_circle_that_a_wait_would_close) {
  FakeWorld world;
  connect(world, "ab");
  world.say('a', FakeWorld::claim_of("x"));
  world.say('b', FakeWorld::claim_of("y"));
  world.say('a', FakeWorld::claim_of("y"));
  world.heard();
  world.say('b', FakeWorld::claim_of("x"));
  EXPECT_EQ(world.refusal().code, errc::deadlock);
  EXPECT_EQ(world.refusal().message,
            "waiting would never end: b[98] waits for /dev/x, which a[97] holds, a[97] waits for /dev/y, which b[98] "
            "holds");
}

TEST(Desk, lets_a_disk_and_its_partition_meet) {
  FakeWorld world;
  connect(world, "ab");
  world.say('a', FakeWorld::claim_of("X"));
  world.say('b', FakeWorld::claim_of("x", kTry));
  EXPECT_EQ(world.refusal().code, errc::refused);
}

TEST(Desk, leaves_to_the_client_what_it_cannot_see) {
  FakeWorld world;
  connect(world, "a");
  world.say('a', FakeWorld::claim_of("x1"));
  EXPECT_EQ(world.heard(), "a:not mine");
  EXPECT_EQ(world->claim_count(), 0U);
}

TEST(Desk, refuses_who_may_not_open_the_device) {
  FakeWorld world;
  connect(world, "a");
  world.forbidden = "join the group";
  world.say('a', FakeWorld::claim_of("x"));
  EXPECT_EQ(world.refusal().code, errc::not_permitted);
}

TEST(Desk, ends_a_wait_at_its_deadline_and_names_the_holder) {
  FakeWorld world;
  connect(world, "ab");
  world.say('a', FakeWorld::claim_of("x"));
  world.say('b', FakeWorld::claim_of("x", at_most(5s)));
  world.pass(5s);
  EXPECT_EQ(world.refusal().code, errc::timed_out);
  EXPECT_EQ(world.refusal().holder->pid, 'a');
}

TEST(Desk, takes_back_a_request_that_waits) {
  FakeWorld world;
  connect(world, "ab");
  world.say('a', FakeWorld::claim_of("x"));
  const std::uint32_t number = world.say('b', FakeWorld::claim_of("x"));
  world.heard();
  world.say('b', wire::Cancel{number});
  EXPECT_EQ(world.refusal().code, errc::interrupted);
  world.heard();
  world.say('a', wire::Release{world.claim('a')});
  EXPECT_EQ(world.heard(), "given back, hook, a:done");
  EXPECT_EQ(world->claim_count(), 0U);
}

// --- Strangers
// --------------------------------------------------------------------------------------------------------

TEST(Stranger, is_named_to_a_try_and_leaves_nothing_behind) {
  FakeWorld world;
  connect(world, "a");
  world.stranger = "minicom has it";
  world.say('a', FakeWorld::claim_of("x", kTry));
  EXPECT_EQ(world.refusal().message, "minicom has it");
  world.stranger.reset();
  world.heard();
  world.say('a', FakeWorld::claim_of("x", kTry));
  EXPECT_EQ(world.heard(), "a:granted");
}

TEST(Stranger, keeps_the_elected_at_its_place_and_the_others_behind_it) {
  FakeWorld world;
  connect(world, "ab");
  world.stranger = "minicom has it";
  world.say('a', FakeWorld::claim_of("x"));
  world.say('b', FakeWorld::claim_of("x"));
  EXPECT_EQ(world.heard(), "a:queued 0, b:queued 0");
  world.stranger.reset();
  ASSERT_EQ(world.watched.size(), 1U);
  world->try_again(world.watched.front());
  EXPECT_EQ(world.heard(), "a:granted");
}

TEST(Stranger, that_cannot_be_watched_is_tried_again_five_times_a_second) {
  FakeWorld world;
  connect(world, "a");
  world.watches_strangers = false;
  world.stranger = "minicom has it";
  world.say('a', FakeWorld::claim_of("x"));
  world.heard();
  world.stranger.reset();
  world.pass(199ms);
  EXPECT_EQ(world.heard(), "");
  world.pass(1ms);
  EXPECT_EQ(world.heard(), "a:granted");
}

TEST(Stranger, does_not_stop_deadline_and_cancel) {
  FakeWorld world;
  connect(world, "ab");
  world.stranger = "minicom has it";
  world.say('a', FakeWorld::claim_of("x", at_most(1s)));
  const std::uint32_t number = world.say('b', FakeWorld::claim_of("x"));
  world.pass(1s);
  EXPECT_EQ(world.refusal().code, errc::timed_out);
  EXPECT_EQ(world.refusal().message, "minicom has it; the time to wait is over");
  world.heard();
  world.say('b', wire::Cancel{number});
  EXPECT_EQ(world.heard(), "b:no: " + make_error_code(errc::interrupted).message() + ", b:done");
  EXPECT_EQ(world->claim_count(), 0U);
}

// --- Hooks
// ------------------------------------------------------------------------------------------------------------

TEST(Hook, that_objects_refuses_the_claim_and_lets_the_next_in) {
  FakeWorld world;
  connect(world, "ab");
  world.hooks_are_slow = true;
  world.say('a', FakeWorld::claim_of("x"));
  world.say('b', FakeWorld::claim_of("x"));
  EXPECT_EQ(world.heard(), "b:queued 0");
  world->hooks_ran(world.asked_hooks.at(0), std::unexpected(Error{errc::refused, "not today", "", {}, 0}));
  EXPECT_EQ(world.refusal().message, "not today");
  ASSERT_EQ(world.asked_hooks.size(), 2U);
  world.heard();
  world->hooks_ran(world.asked_hooks.at(1), {});
  EXPECT_EQ(world.heard(), "b:granted");
}

// --- Ends
// -------------------------------------------------------------------------------------------------------------

TEST(End, of_the_owner_gives_the_device_to_the_next) {
  FakeWorld world;
  connect(world, "ab");
  world.say('a', FakeWorld::claim_of("x"));
  world.say('b', FakeWorld::claim_of("x"));
  world.heard();
  world.kill('a');
  EXPECT_EQ(world.heard(), "given back, hook, a:closed, b:granted");
  EXPECT_EQ(world.events.back().kind, wire::EventKind::claimed);
}

TEST(End, of_the_owner_while_the_hands_take_gives_back_what_they_bring) {
  FakeWorld world;
  connect(world, "ab");
  world.hands_are_slow = true;
  world.say('a', FakeWorld::claim_of("x"));
  world.say('b', FakeWorld::claim_of("x"));
  const wire::ClaimId first = world.asked_hands.at(0);
  world.kill('a');
  EXPECT_EQ(world.asked_hands.size(), 1U) << "the other must wait for the hands";
  world.finish_taking(first);
  world->given_back(first);
  ASSERT_EQ(world.asked_hands.size(), 2U);
  world.heard();
  world.finish_taking(world.asked_hands.at(1));
  EXPECT_EQ(world.heard(), "b:granted");
}

TEST(End, of_the_connection_releases_what_the_speaker_claimed_and_what_it_waited_for) {
  FakeWorld world;
  connect(world, "abc");
  world.say('a', FakeWorld::claim_of("x"));
  world.say('b', FakeWorld::claim_of("x"));
  world.say('c', FakeWorld::claim_of("x"));
  world.heard();
  world.hang_up('b');
  world.hang_up('a');
  EXPECT_EQ(world.heard(), "given back, hook, c:granted");
}

wire::Claim for_process(pid_t pid, uid_t uid, Enclosed& enclosed) {
  wire::Claim claim = FakeWorld::claim_of("x");
  claim.owner = wire::OwnerGiven::by_pidfd;
  enclosed.owner.emplace();
  enclosed.owner->peer.process = {pid, 7};
  enclosed.owner->peer.rights.uid = uid;
  return claim;
}

TEST(End, of_the_connection_does_not_end_a_claim_for_another_process) {
  FakeWorld world;
  connect(world, "ac");
  Enclosed enclosed;
  const wire::Claim claim = for_process(4242, 1000, enclosed);
  world.say('a', claim, std::move(enclosed));
  world.say('c', FakeWorld::claim_of("x"));
  EXPECT_EQ(world.heard(), "a:granted, c:queued 0");
  EXPECT_TRUE(world.alone.empty());
  world.hang_up('a');
  EXPECT_EQ(world.heard(), "");
  EXPECT_EQ(world.alone, std::vector{world.claim('a')});
  // Its user may end it, by whatever process.
  world.say('c', wire::Release{world.claim('a')});
  EXPECT_EQ(world.heard(), "given back, hook, c:granted, c:done");
}

TEST(End, of_the_connection_ends_a_claim_for_another_process_whose_grant_was_not_read) {
  FakeWorld world;
  connect(world, "a");
  Enclosed enclosed;
  const wire::Claim claim = for_process(4242, 1000, enclosed);
  world.say('a', claim, std::move(enclosed));
  world.hang_up('a', Farewell::unread);
  EXPECT_EQ(world->claim_count(), 0U);
}

TEST(Owner, of_another_user_is_roots_to_name) {
  FakeWorld world;
  world.connect('a', 1000);
  world.connect('b', 0);
  Enclosed enclosed;
  const wire::Claim claim = for_process(4242, 1001, enclosed);
  world.say('a', claim, std::move(enclosed));
  EXPECT_EQ(world.refusal().code, errc::not_permitted);
  Enclosed again;
  world.heard();
  const wire::Claim same = for_process(4242, 1001, again);
  world.say('b', same, std::move(again));
  EXPECT_EQ(world.heard(), "b:granted");
}

TEST(Owner, alone_may_release) {
  FakeWorld world;
  connect(world, "ab");
  world.say('a', FakeWorld::claim_of("x"));
  world.say('b', wire::Release{world.claim('a')});
  EXPECT_EQ(world.refusal().code, errc::not_held);
}

TEST(Lease, is_warned_about_and_lapses_to_the_next) {
  FakeWorld world;
  connect(world, "ab");
  wire::Claim claim = FakeWorld::claim_of("x");
  claim.lease = 8s;
  world.say('a', claim);
  world.say('b', FakeWorld::claim_of("x"));
  world.heard();
  world.pass(6s);
  EXPECT_EQ(world.notices['a'].why, wire::Ending::lapses_soon);
  EXPECT_EQ(world.notices['a'].grace, 2s);
  world.heard();
  world.pass(2s);
  EXPECT_EQ(world.heard(), "given back, a:notice 2, hook, b:granted");
}

TEST(Lease, that_is_renewed_goes_on) {
  FakeWorld world;
  connect(world, "a");
  wire::Claim claim = FakeWorld::claim_of("x");
  claim.lease = 8s;
  world.say('a', claim);
  world.pass(5s);
  world.say('a', wire::Renew{world.claim('a'), 100s});
  world.heard();
  world.pass(50s);
  EXPECT_EQ(world.heard(), "");
  EXPECT_EQ(world->claim_count(), 1U);
}

TEST(Kick, asks_first_revokes_when_the_grace_is_over_and_says_so_then) {
  FakeWorld world;
  world.connect('a', 1000);
  world.connect('b', 0);
  world.say('a', FakeWorld::claim_of("x"));
  world.heard();
  world.say('b', wire::Kick{FakeWorld::claim_of("x").devices[0], 10s, "maintenance"});
  EXPECT_EQ(world.heard(), "a:notice 0");
  EXPECT_EQ(world.notices['a'].reason, "maintenance");
  world.pass(10s);
  EXPECT_EQ(world.heard(), "given back, a:notice 3, hook, b:done");
  EXPECT_EQ(world.events.back().kind, wire::EventKind::revoked);
  EXPECT_EQ(world.events.back().detail, "by b[98] of user0: maintenance");
}

TEST(Kick, is_done_as_soon_as_the_holder_leaves) {
  FakeWorld world;
  connect(world, "ab");
  world.say('a', FakeWorld::claim_of("x"));
  world.say('b', wire::Kick{FakeWorld::claim_of("x").devices[0], 10s, ""});
  world.heard();
  world.say('a', wire::Release{world.claim('a')});
  EXPECT_EQ(world.heard(), "given back, hook, b:done, a:done");
}

TEST(Kick, is_for_root_and_the_holders_user_alone) {
  FakeWorld world;
  world.connect('a', 1000);
  world.connect('b', 1001);
  world.say('b', wire::Kick{FakeWorld::claim_of("x").devices[0], 0s, ""});
  EXPECT_EQ(world.refusal().code, errc::not_held);
  world.say('a', FakeWorld::claim_of("x"));
  world.say('b', wire::Kick{FakeWorld::claim_of("x").devices[0], 0s, ""});
  EXPECT_EQ(world.refusal().code, errc::not_permitted);
}

TEST(Unplugged, device_ends_claims_and_waits) {
  FakeWorld world;
  connect(world, "ab");
  world.say('a', FakeWorld::claim_of("x"));
  world.say('b', FakeWorld::claim_of("x"));
  world.heard();
  world->device_gone({device::Kind::character, 4, 'x', 0});
  EXPECT_EQ(world.heard(), "b:no: " + make_error_code(errc::gone).message() + ", given back, a:notice 4, hook");
}

// --- Modes
// ------------------------------------------------------------------------------------------------------------

wire::Claim shared_of(std::string_view minors) {
  wire::Claim claim = FakeWorld::claim_of(minors);
  claim.mode = Mode::shared;
  return claim;
}

TEST(Downgrade, lets_sharers_in) {
  FakeWorld world;
  connect(world, "ab");
  world.say('a', FakeWorld::claim_of("x"));
  world.say('b', shared_of("x"));
  world.heard();
  world.say('a', wire::Downgrade{world.claim('a')});
  EXPECT_EQ(world.heard(), "a:shared, b:shared");
}

TEST(Upgrade, waits_for_the_other_sharers) {
  FakeWorld world;
  connect(world, "ab");
  world.say('a', shared_of("x"));
  world.say('b', shared_of("x"));
  world.heard();
  world.say('a', wire::Upgrade{world.claim('a'), {true, {}}});
  EXPECT_EQ(world.heard(), "a:queued 0");
  world.say('b', wire::Release{world.claim('b')});
  EXPECT_EQ(world.heard(), "given back, hook, a:granted, b:done");
}

TEST(Upgrade, that_a_stranger_stops_leaves_the_claim_shared) {
  FakeWorld world;
  connect(world, "ab");
  world.say('a', shared_of("x"));
  world.stranger = "a sharer without us";
  world.say('a', wire::Upgrade{world.claim('a'), kTry});
  EXPECT_EQ(world.refusal().message, "a sharer without us");
  world.stranger.reset();
  world.heard();
  world.say('b', shared_of("x"));
  EXPECT_EQ(world.heard(), "b:shared");
}

// --- Telling
// ----------------------------------------------------------------------------------------------------------

TEST(Progress, is_told_to_those_who_want_it_when_their_place_changes) {
  FakeWorld world;
  connect(world, "abc");
  world.say('a', FakeWorld::claim_of("x"));
  world.pass(10s);
  world.say('b', FakeWorld::claim_of("x"));
  wire::Claim told = FakeWorld::claim_of("x");
  told.progress = wire::Progress::told;
  world.say('c', told);
  EXPECT_EQ(world.heard(), "a:granted, b:queued 0, c:queued 1");
  world.say('a', wire::Release{world.claim('a')});
  world.heard();
  world.pass(50ms);
  EXPECT_EQ(world.heard(), "c:queued 0");
  EXPECT_EQ(world.queued['c'].estimate, 5s) << "half of how long it was held before";
}

TEST(Status, is_paged_as_it_is_read) {
  FakeWorld world;
  connect(world, "ab");
  world.say('a', FakeWorld::claim_of("x"));
  world.post_is_stuck = true;
  world.say('b', wire::StatusQuery{});
  EXPECT_TRUE(world.status.empty());
  world.say('b', wire::StatusQuery{});
  EXPECT_EQ(world.refusal().code, errc::no_resources);
  world.post_is_stuck = false;
  world->drained(ConnectionId{'b'});
  ASSERT_EQ(world.status.size(), 1U);
  EXPECT_EQ(world.status[0].more, wire::More::last);
  ASSERT_EQ(world.status[0].devices.size(), 1U);
  EXPECT_EQ(world.status[0].devices[0].holders.at(0).pid, 'a');
}

TEST(Find, says_which_claim_it_is) {
  FakeWorld world;
  connect(world, "ab");
  world.say('a', FakeWorld::claim_of("xy"));
  world.heard();
  world.say('a', wire::Find{FakeWorld::claim_of("y").devices, wire::OwnerGiven::speaker});
  EXPECT_EQ(world.heard(), "a:found");
  world.say('b', wire::Find{FakeWorld::claim_of("y").devices, wire::OwnerGiven::speaker});
  EXPECT_EQ(world.refusal().code, errc::not_held);
}

TEST(Waiters, of_a_user_are_limited_and_roots_are_not) {
  Rulebook rules;
  rules.limits.waiters = 2;
  FakeWorld world{rules};
  connect(world, "abcd", 1000);
  connect(world, "efg", 0);
  for (const char name : {'a', 'b', 'c'}) world.say(name, FakeWorld::claim_of("x"));
  world.heard();
  world.say('d', FakeWorld::claim_of("x"));
  EXPECT_EQ(world.refusal().code, errc::no_resources);
  world.heard();
  for (const char name : {'e', 'f', 'g'}) world.say(name, FakeWorld::claim_of("x"));
  EXPECT_EQ(world.heard(), "e:queued 2, f:queued 3, g:queued 4");
}

TEST(Place, from_before_a_restart_counts_only_for_a_while) {
  FakeWorld world;
  connect(world, "abcdef");
  world.say('a', FakeWorld::claim_of("x"));
  world.say('b', FakeWorld::claim_of("x"));
  world.say('e', FakeWorld::claim_of("x"));
  const auto came_back = [](char name) {
    const arbiter::DeviceKey device = key_of(device::DeviceId{device::Kind::character, 4, 'x', 0});
    wire::Claim claim = FakeWorld::claim_of("x");
    claim.place = PlaceSeal{}.sealed(arbiter::Place{0}, {name, 1}, {&device, 1});
    return claim;
  };
  world.heard();
  world.say('c', came_back('d'));
  EXPECT_EQ(world.heard(), "c:queued 2") << "another one's place";
  world.say('d', came_back('d'));
  EXPECT_EQ(world.heard(), "d:queued 0");
  world.pass(10s);
  world.say('f', came_back('f'));
  EXPECT_EQ(world.heard(), "f:queued 4") << "too late";
}

constexpr wire::ClaimId kAdopted{77};

// A's claim of x from before a restart.
void adopt(FakeWorld& world, wire::WallTime since) {
  ClaimRecord record;
  record.id = kAdopted;
  record.owner = {'a', 1};
  record.since = since;
  record.devices.push_back({{device::Kind::character, 4, 'x', 0}, "/dev/x", arbiter::Token{5}, true});
  Process owner;
  owner.peer.process = record.owner;
  ASSERT_TRUE(world->adopt(record, std::move(owner), {}, Desk::Marks::to_be_resumed));
}

TEST(Adopted, claim_is_its_owners_until_that_dies) {
  FakeWorld world;
  adopt(world, world.wall());
  connect(world, "ab");
  world.say('b', FakeWorld::claim_of("x"));
  EXPECT_EQ(world.heard(), "b:queued 0");
  world.say('b', wire::Resume{kAdopted, {}, {}});
  EXPECT_EQ(world.refusal().code, errc::not_held);
  world.heard();
  world.say('a', wire::Resume{kAdopted, {}, {}});
  EXPECT_EQ(world.heard(), "a:granted");
  world.kill('a');
  EXPECT_EQ(world.heard(), "given back, hook, a:closed, b:granted");
}

TEST(Adopted, claim_was_held_since_it_was_granted_and_not_since_the_restart) {
  FakeWorld world;
  adopt(world, world.wall() - 40s);
  connect(world, "a");
  world.pass(2s);
  world.kill('a');
  ASSERT_EQ(world.events.back().kind, wire::EventKind::lapsed);
  EXPECT_EQ(world.events.back().held, 42s);
}

TEST(Adopted, claim_of_a_clock_that_was_set_forward_was_held_since_the_boot_at_most) {
  FakeWorld world;
  adopt(world, world.wall() - 24h * 365 * 56);
  connect(world, "a");
  world.kill('a');
  EXPECT_EQ(world.events.back().held, world.clock_now.time_since_epoch());
}

TEST(Adopted, claim_of_a_clock_that_was_set_back_was_held_for_a_moment) {
  FakeWorld world;
  adopt(world, world.wall() + 1h);
  connect(world, "a");
  world.kill('a');
  EXPECT_EQ(world.events.back().held, 0s);
}

}  // namespace
