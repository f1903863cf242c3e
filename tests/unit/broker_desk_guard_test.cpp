// SPDX-License-Identifier: MIT
// broker_desk_guard_test.cpp - when the desk tells the guard what, in a world of the test's own.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "broker_world.hpp"

using namespace holdfast;
using namespace holdfast::broker;
using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

namespace {

constexpr wire::Patience kTry{false, {}};

struct GuardedWorld : FakeWorld {
  explicit GuardedWorld(std::string_view names = "ab") {
    guard_number = 1;
    for (const char name : names) connect(name);
  }
};

wire::Claim claim_with(std::string_view minors, Guarding guarding, Mode mode = Mode::exclusive) {
  wire::Claim claim = FakeWorld::claim_of(minors);
  claim.guarding = guarding;
  claim.mode = mode;
  return claim;
}

Denial denial_of(char minor, std::uint64_t before = 0) {
  Denial denial;
  denial.device = {device::Kind::character, 4, static_cast<unsigned>(minor), 0};
  denial.who.pid = 4121;
  denial.who.command = "cat";
  denial.who.user = "root";
  denial.operation = "read or write";
  denial.before = before;
  return denial;
}

Enforcement status_level(FakeWorld& world) {
  world.status.clear();
  world.say('a', wire::StatusQuery{});
  return world.status.at(0).devices.at(0).enforcement;
}

TEST(GuardedDesk, enforces_before_it_writes_down_and_writes_down_before_it_tells) {
  GuardedWorld world;
  world.say('a', FakeWorld::claim_of("x"));
  EXPECT_EQ(world.heard(), "guard a:x, journal, a:granted");
  EXPECT_EQ(world.levels['a'], Enforcement::guarded);
  EXPECT_EQ(world.journaled.size(), 1U);
  EXPECT_EQ(status_level(world), Enforcement::guarded);
}

// `a` has it, `b` waits for it, and then `a` releases.
struct HandOver : GuardedWorld {
  explicit HandOver(const wire::Claim& first = FakeWorld::claim_of("x"),
                    const wire::Claim& second = FakeWorld::claim_of("x")) {
    say('a', first);
    say('b', second);
    heard();
  }
  std::string when_a_releases(wire::Copies copies = wire::Copies::kept) {
    say('a', wire::Release{claim('a'), copies});
    return heard();
  }
};

TEST(GuardedDesk, goes_over_to_the_next_before_it_is_given_back_and_taken_anew) {
  HandOver world;
  EXPECT_EQ(world.when_a_releases(), "guard a:x to b:x, given back, hook, journal, b:granted, a:done");
  EXPECT_EQ(world.levels['b'], Enforcement::guarded);
  ASSERT_EQ(world.journaled.size(), 2U);
  EXPECT_EQ(world.journaled[1].root.tgid, static_cast<unsigned>('b'));
  world.kill('b');
  EXPECT_THAT(world.guarded, IsEmpty());
}

TEST(GuardedDesk, goes_over_with_the_marks_where_these_go_on) {
  HandOver world;
  EXPECT_EQ(world.when_a_releases(wire::Copies::closed), "guard a:x to b:x, passed on to b, b:granted, hook, a:done");
  EXPECT_THAT(world.guarded, ElementsAre("b:x"));
}

TEST(GuardedDesk, hands_over_with_the_time_limit_of_the_next) {
  wire::Claim limited = FakeWorld::claim_of("x");
  limited.lease = 10s;
  for (const wire::Copies copies : {wire::Copies::kept, wire::Copies::closed}) {
    HandOver world{FakeWorld::claim_of("x"), limited};
    EXPECT_THAT(world.when_a_releases(copies), HasSubstr("b:x until then"));
    EXPECT_EQ(world.wishes.back().until, world.clock_now + 10s);
  }
}

TEST(GuardedDesk, cuts_before_the_next_is_let_in_where_that_one_asked_for_something_else) {
  HandOver shared{FakeWorld::claim_of("x"), claim_with("x", Guarding::automatic, Mode::shared)};
  EXPECT_EQ(shared.when_a_releases(), "cut a:x, given back, hook, guard b:x, journal, b:shared, a:done");
  HandOver more{FakeWorld::claim_of("x"), FakeWorld::claim_of("xy")};
  EXPECT_EQ(more.when_a_releases(), "cut a:x, given back, hook, guard b:xy, journal, b:granted, a:done");
  HandOver open{FakeWorld::claim_of("x"), claim_with("x", Guarding::off)};
  EXPECT_EQ(open.when_a_releases(wire::Copies::closed), "cut a:x, given back, hook, journal, b:granted, a:done");
}

TEST(GuardedDesk, cuts_and_asks_again_what_the_guard_does_not_hand_over) {
  HandOver world;
  world.guard_says = errc::not_held;
  EXPECT_EQ(world.when_a_releases(wire::Copies::closed), "cut a:x, given back, hook, journal, b:granted, a:done");
  EXPECT_EQ(world.levels['b'], Enforcement::advisory);
}

TEST(GuardedDesk, takes_back_what_was_handed_over_to_one_that_cannot_have_it) {
  HandOver dead;
  dead.hands_are_slow = true;
  EXPECT_EQ(dead.when_a_releases(), "guard a:x to b:x, given back");
  dead.kill('b');
  EXPECT_THAT(dead.guarded, IsEmpty());
  HandOver blocked;
  blocked.stranger = "somebody has it";
  EXPECT_THAT(blocked.when_a_releases(), HasSubstr("given back, hook, cut b:x"));
  EXPECT_THAT(blocked.guarded, IsEmpty()) << "the stranger must come to an end";
  blocked.stranger.reset();
  blocked.pass(1s);
  blocked->try_again(blocked.watched.at(0));
  EXPECT_THAT(blocked.heard(), HasSubstr("guard b:x, journal, b:granted"));
}

TEST(GuardedDesk, works_as_before_where_there_is_no_guard_or_it_is_not_wanted) {
  GuardedWorld world;
  world.say('a', claim_with("x", Guarding::off));
  EXPECT_EQ(world.heard(), "journal, a:granted");
  EXPECT_EQ(world.levels['a'], Enforcement::advisory);
  world.guard_number = 0;
  world.say('b', FakeWorld::claim_of("y"));
  EXPECT_EQ(world.heard(), "b:granted");
  EXPECT_THAT(world.wishes, IsEmpty());
}

TEST(GuardedDesk, refuses_at_once_what_requires_a_guard_that_is_not_there) {
  GuardedWorld world;
  world.guard_number = 0;
  world.say('b', FakeWorld::claim_of("x"));
  world.say('a', claim_with("x", Guarding::required));
  EXPECT_EQ(world.refusal().message, " cannot be guarded: the guard is not installed: `holdfast guard on`");
}

TEST(GuardedDesk, falls_back_or_refuses_as_was_asked_when_the_guard_cannot) {
  GuardedWorld world;
  world.guard_says = errc::no_resources;
  world.say('a', FakeWorld::claim_of("x"));
  EXPECT_EQ(world.heard(), "journal, a:granted");
  EXPECT_EQ(world.levels['a'], Enforcement::advisory);
  world.say('b', claim_with("y", Guarding::required));
  EXPECT_EQ(world.heard(), "b:no: out of resources, given back");
  EXPECT_EQ(world.refusal().message, "the guard says no");
  world.guard_says.reset();
  world.say('b', claim_with("y", Guarding::required));
  EXPECT_EQ(world.heard(), "guard b:y, journal, b:granted") << "nothing of the first is left";
}

TEST(GuardedDesk, grants_nothing_that_somebody_else_owns_in_the_kernel) {
  GuardedWorld world;
  world.guard_says = errc::refused;
  world.say('a', FakeWorld::claim_of("x"));
  EXPECT_THAT(world.heard(), HasSubstr("a:no: "));
  EXPECT_THAT(world.journal, IsEmpty());
}

TEST(GuardedDesk, lets_sharers_own_together_and_the_last_of_them_shut_the_rest_out) {
  GuardedWorld world;
  world.say('a', claim_with("x", Guarding::automatic, Mode::shared));
  world.say('b', claim_with("x", Guarding::automatic, Mode::shared));
  EXPECT_THAT(world.guarded, ElementsAre("a:x", "b:x"));
  world.say('b', wire::Release{world.claim('b')});
  world.heard();
  world.say('a', wire::Upgrade{world.claim('a'), kTry});
  EXPECT_EQ(world.heard(), "journal, a:granted") << "the owner stays who it is: there is no gap";
  world.say('a', wire::Downgrade{world.claim('a')});
  EXPECT_EQ(world.heard(), "journal, a:shared");
  EXPECT_THAT(world.guarded, ElementsAre("a:x"));
}

TEST(GuardedDesk, hands_the_time_limit_to_the_kernel_and_renews_it_there) {
  GuardedWorld world;
  wire::Claim claim = FakeWorld::claim_of("x");
  claim.lease = 10s;
  world.say('a', claim);
  ASSERT_EQ(world.wishes.size(), 1U);
  EXPECT_EQ(world.wishes[0].until, world.clock_now + 10s);
  world.heard();
  world.say('a', wire::Renew{world.claim('a'), 20s});
  EXPECT_EQ(world.heard(), "a:x until then, journal, a:renewed");
  world.pass(21s);
  EXPECT_THAT(world.guarded, IsEmpty());
}

TEST(GuardedDesk, owns_as_a_tree_what_is_claimed_for_another_process) {
  GuardedWorld world{"a"};
  wire::Claim claim = FakeWorld::claim_of("x");
  claim.owner = wire::OwnerGiven::by_pidfd;
  Enclosed enclosed;
  enclosed.owner.emplace();
  enclosed.owner->peer.process = {'s', 1};
  enclosed.owner->peer.rights.uid = 1000;
  world.say('a', claim, std::move(enclosed));
  ASSERT_EQ(world.wishes.size(), 1U);
  EXPECT_EQ(world.wishes[0].owner.pid, 's');
  EXPECT_EQ(world.wishes[0].scope, OwnerScope::tree);
  EXPECT_EQ(world.wishes[0].ends, guard::Owner::Ends::with_root);
  ASSERT_TRUE(world.wishes[0].helper);
  EXPECT_EQ(world.wishes[0].helper->pid, 'a');
}

TEST(GuardedDesk, owns_as_a_tree_until_the_last_member_what_a_tree_claims) {
  GuardedWorld world{"a"};
  wire::Claim claim = FakeWorld::claim_of("x");
  claim.owner_scope = OwnerScope::tree;
  world.say('a', claim);
  ASSERT_EQ(world.wishes.size(), 1U);
  EXPECT_EQ(world.wishes[0].scope, OwnerScope::tree);
  EXPECT_EQ(world.wishes[0].ends, guard::Owner::Ends::with_last_member);
  EXPECT_FALSE(world.wishes[0].helper);
}

TEST(GuardedDesk, notices_that_the_guard_went_and_tells_a_new_one_of_what_lives) {
  GuardedWorld world;
  world.say('a', FakeWorld::claim_of("x"));
  world.guard_number = 0;
  EXPECT_EQ(status_level(world), Enforcement::advisory);
  world.guard_number = 2;
  world.heard();
  EXPECT_EQ(status_level(world), Enforcement::guarded);
  EXPECT_EQ(world.heard(), "guard a:x, journal, a:status");
  world.guard_number = 0;
  static_cast<void>(status_level(world));
  world.heard();
  world.say('a', wire::Release{world.claim('a')});
  EXPECT_EQ(world.heard(), "given back, hook, a:done") << "a guard that is gone is told nothing";
}

TEST(GuardedDesk, goes_on_with_what_an_earlier_broker_told_the_guard) {
  GuardedWorld world;
  ClaimRecord record;
  record.id = wire::ClaimId{7};
  record.owner = {'a', 1};
  record.devices.push_back({{device::Kind::character, 4, 'x', 0}, "/dev/x", {}, true});
  record.enforced.emplace();
  record.enforced->root.tgid = 'a';
  record.enforced->devices.push_back({HF_GUARD_DEV(4, 'x'), 0, 0, 0});
  Process owner;
  owner.peer.process = {'a', 1};
  ASSERT_TRUE(world->adopt(record, std::move(owner), {}, Desk::Marks::complete));
  world.say('a', wire::Release{wire::ClaimId{7}});
  EXPECT_EQ(world.heard(), "cut a:x, given back, hook, a:done") << "the kernel knew already";
}

TEST(GuardedDesk, tells_who_was_refused_to_watchers_and_once_a_second_to_the_holder) {
  GuardedWorld world;
  world.say('a', FakeWorld::claim_of("x"));
  world.events.clear();
  world->denied(denial_of('x'));
  ASSERT_EQ(world.events.size(), 1U);
  EXPECT_EQ(world.events[0].kind, wire::EventKind::denied);
  EXPECT_EQ(world.events[0].who.pid, 4121);
  EXPECT_EQ(world.events[0].device.path, "/dev/x");
  EXPECT_EQ(world.events[0].detail, "read or write; held by a[97]");
  EXPECT_THAT(world.denial_notices, ElementsAre("/dev/x: cat[4121] of root was refused (read or write)"));
  for (int i = 0; i < 5; ++i) world->denied(denial_of('x', 10));
  EXPECT_EQ(world.events.size(), 6U);
  EXPECT_EQ(world.denial_notices.size(), 1U);
  world.pass(1s);
  world->denied(denial_of('x'));
  ASSERT_EQ(world.denial_notices.size(), 2U);
  EXPECT_EQ(world.denial_notices[1], "/dev/x: cat[4121] of root was refused (read or write), 56 times");
  world->denied(denial_of('z'));
  EXPECT_EQ(world.events.size(), 7U) << "guarded for somebody else's claim";
}

TEST(GuardedDesk, counts_the_refused_in_the_status) {
  GuardedWorld world;
  world.say('a', FakeWorld::claim_of("x"));
  static_cast<void>(status_level(world));
  EXPECT_EQ(world.status.at(0).devices.at(0).denials, static_cast<std::uint64_t>('x'));
}

}  // namespace
