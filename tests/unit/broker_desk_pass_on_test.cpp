// SPDX-License-Identifier: MIT
// broker_desk_pass_on_test.cpp - when a claim's marks go on to the next as they are, and when they are given back.
#include <gtest/gtest.h>

#include "broker_world.hpp"

#include <functional>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

using namespace holdfast;
using namespace holdfast::broker;

namespace {

constexpr std::string_view kGivenBack = "given back, hook, b:granted, a:done";

// What is heard when `a` releases, saying that it has no copies, and `b` waits for what it asked for.
struct Scene {
  FakeWorld world;
  wire::Claim first = FakeWorld::claim_of("x");
  wire::Claim second = FakeWorld::claim_of("x");
  uid_t others_user = 1000;

  std::string release(wire::Copies copies = wire::Copies::closed, char by = 'a') {
    world.connect('a');
    world.connect('b', others_user);
    world.say('a', first);
    world.say('b', second);
    if (by == 'c') world.connect('c', 0);
    world.heard();
    world.say(by, wire::Release{world.claim('a'), copies});
    return world.heard();
  }
};

TEST(PassingOn, changes_the_name_alone_and_comes_before_the_answer) {
  Scene scene;
  EXPECT_EQ(scene.release(), "passed on to b, b:granted, hook, a:done");
  EXPECT_EQ(scene.world.journal, std::vector{scene.world.claim('b')});
}

TEST(PassingOn, goes_on_to_the_one_after_that) {
  Scene scene;
  scene.release();
  scene.world.connect('c');
  scene.world.say('c', scene.second);
  scene.world.heard();
  scene.world.say('b', wire::Release{scene.world.claim('b'), wire::Copies::closed});
  EXPECT_EQ(scene.world.heard(), "passed on to c, c:granted, hook, b:done");
  scene.world.say('c', wire::Release{scene.world.claim('c'), wire::Copies::closed});
  EXPECT_EQ(scene.world.heard(), "given back, hook, c:done");
  EXPECT_TRUE(scene.world.journal.empty());
}

TEST(PassingOn, needs_the_word_that_nobody_has_a_copy) {
  Scene scene;
  EXPECT_EQ(scene.release(wire::Copies::kept), kGivenBack);
}

TEST(PassingOn, is_for_the_same_user_alone) {
  Scene scene;
  scene.others_user = 1001;
  EXPECT_EQ(scene.release(), kGivenBack);
}

TEST(PassingOn, is_for_the_same_wish_alone) {
  for (const auto& change : std::initializer_list<std::function<void(wire::Claim&)>>{
           [](wire::Claim& claim) { claim.mode = Mode::shared; }, [](wire::Claim& claim) { claim.cover = Cover::unit; },
           [](wire::Claim& claim) { claim.opening = Opening::never; },
           [](wire::Claim& claim) { claim.conventions = claim.conventions.without(Convention::flock); }}) {
    Scene other;
    change(other.second);
    EXPECT_EQ(other.release().substr(0, 10), "given back");
    Scene before;
    change(before.first);
    EXPECT_EQ(before.release().substr(0, 10), "given back");
  }
  Scene more;
  more.second = FakeWorld::claim_of("xy");
  EXPECT_EQ(more.release(), kGivenBack);
}

TEST(PassingOn, is_not_for_the_children_of_a_tree) {
  Scene scene;
  scene.first.owner_scope = OwnerScope::tree;
  EXPECT_EQ(scene.release(), kGivenBack);
}

TEST(PassingOn, is_done_when_the_marks_can_be_and_no_hook_expects_otherwise) {
  Scene scene;
  scene.world.connect('a');
  scene.world.connect('b');
  scene.world.say('a', scene.first);
  scene.world.say('b', scene.second);
  scene.world.heard();
  scene.world.hooks_say = "not now";
  scene.world.say('a', wire::Release{scene.world.claim('a'), wire::Copies::closed});
  EXPECT_EQ(scene.world.heard(), "given back, hook, b:no: held by somebody else, a:done");
  Scene met;
  met.world.connect('a');
  met.world.connect('b');
  met.world.say('a', met.first);
  met.world.say('b', met.second);
  met.world.heard();
  met.world.stranger = "somebody";
  met.world.say('a', wire::Release{met.world.claim('a'), wire::Copies::closed});
  EXPECT_EQ(met.world.heard(), "given back, hook, a:done");
}

TEST(PassingOn, is_not_done_when_another_releases_who_knows_nothing_of_copies) {
  Scene scene;
  scene.world.connect('a');
  scene.world.say('a', scene.first);
  scene.world.connect('b');
  scene.world.say('b', scene.second);
  scene.world.heard();
  scene.world.kill('a');
  EXPECT_EQ(scene.world.heard().substr(0, 10), "given back");
}

TEST(PassingOn, skips_nobody_who_is_let_in_together) {
  Scene scene;
  scene.first = FakeWorld::claim_of("xy");
  scene.second = FakeWorld::claim_of("x");
  scene.world.connect('a');
  scene.world.connect('b');
  scene.world.connect('c');
  scene.world.say('a', scene.first);
  scene.world.say('b', scene.second);
  scene.world.say('c', FakeWorld::claim_of("y"));
  scene.world.heard();
  scene.world.say('a', wire::Release{scene.world.claim('a'), wire::Copies::closed});
  EXPECT_EQ(scene.world.heard(), "given back, hook, b:granted, c:granted, a:done");
}

}  // namespace
