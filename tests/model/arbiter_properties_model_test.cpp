// SPDX-License-Identifier: MIT
// arbiter_properties_model_test.cpp - long random histories, with more owners and devices than can be explored in full:
// the arbiter and the naive reference decide the same, step by step. What they do not agree on is shrunk to few steps.
#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>

#include "arbiter_subject.hpp"
#include "arbiter_world.hpp"

namespace {

using namespace world;

constexpr int kOwners = 6;

struct Choice {
  std::uint32_t act = 0;
  std::uint32_t which = 0;
  std::uint32_t how = 0;
};
std::ostream& operator<<(std::ostream& out, const Choice& choice) {
  return out << "{" << choice.act << ", " << choice.which << ", " << choice.how << "}";
}

struct History {
  Rules rules;
  World world{};
  Subject subject{rules};

  template <class Do>
  void step(Do act) {
    subject.forget_decisions();
    Reference reference{rules, world};
    Events expected = act(reference);
    Events decided = subject.decided();
    std::sort(expected.begin(), expected.end());
    std::sort(decided.begin(), decided.end());
    RC_ASSERT(subject.done());
    RC_ASSERT(expected == decided);
    RC_ASSERT(!Reference(rules, world).cycle());
    RC_ASSERT(subject.differs_from(world, rules) == "");
  }

  void act(const Choice& choice) {
    const int now = world.now;
    const auto& claims = world.claims;
    const auto& waiters = world.waiters;
    switch (choice.act % 12) {
      case 0:
        if (!claims.empty()) release(claims[choice.which % claims.size()]);
        return;
      case 1:
        if (!waiters.empty()) {
          const Waiter waiter = waiters[choice.which % waiters.size()];
          step([&](Reference& r) {
            subject.cancel(waiter.number, waiter.owner, now);
            return r.cancel(waiter.number);
          });
        }
        return;
      case 2:
        if (choice.how % 4 == 0) {
          const int owner = static_cast<int>(choice.which % kOwners);
          step([&](Reference& r) {
            subject.die(owner, now);
            return r.die(owner);
          });
        }
        return;
      case 3:
      case 4:
        if (!claims.empty()) change(claims[choice.which % claims.size()], choice.how);
        return;
      case 5:
        tick();
        return;
      default:
        ask(choice);
    }
  }

  void release(Claim claim) {
    step([&](Reference& r) {
      subject.release(claim.number, claim.owner, world.now);
      return r.release(claim.number);
    });
  }

  void change(Claim claim, std::uint32_t how) {
    const int now = world.now;
    if (claim.exclusive) {
      step([&](Reference& r) {
        subject.downgrade(claim.number, claim.owner, now);
        return r.downgrade(claim.number);
      });
    } else {
      step([&](Reference& r) {
        subject.upgrade(world.next_number, claim.number, claim.owner, how % 3 != 0, now);
        return r.upgrade(claim.number, how % 3 != 0);
      });
    }
  }

  // To the next instant, unless several things are due then: the reference does not know their order.
  void tick() {
    std::vector<int> due;
    for (const Claim& each : world.claims)
      if (each.until != 0) due.push_back(each.until);
    for (const Waiter& each : world.waiters)
      if (each.until != 0) due.push_back(each.until);
    std::sort(due.begin(), due.end());
    if (due.empty() || (due.size() > 1 && due[0] == due[1])) return;
    step([&](Reference& r) {
      subject.tick(due[0]);
      return r.tick(due[0]);
    });
  }

  void ask(const Choice& choice) {
    Wish wish;
    wish.owner = static_cast<std::int8_t>(choice.which % kOwners);
    wish.set = static_cast<std::uint8_t>(1 + choice.how % 7);
    if (choice.how / 7 % 2 == 0) wish.set = static_cast<std::uint8_t>(1U << (choice.how % 3));
    wish.exclusive = choice.how / 14 % 2 == 0;
    wish.waits = choice.how / 28 % 8 != 0;
    wish.priority = static_cast<std::int8_t>(choice.how / 224 % 5);
    if (wish.waits && choice.how / 1120 % 4 == 0) wish.deadline = static_cast<int>(1 + choice.how / 4480 % 997);
    if (choice.how / 1120 % 4 == 1) wish.lease = static_cast<int>(1 + choice.how / 4480 % 997);
    step([&](Reference& r) {
      subject.ask(world.next_number, wish, world.next_place, world.now);
      return r.ask(wish);
    });
  }
};

void agrees(Policy policy) {
  const int overtake = *rc::gen::inRange(0, 6);
  const auto choices =
      *rc::gen::scale(4.0, rc::gen::container<std::vector<Choice>>(rc::gen::build<Choice>(
                               rc::gen::set(&Choice::act, rc::gen::inRange<std::uint32_t>(0, 12)),
                               rc::gen::set(&Choice::which, rc::gen::inRange<std::uint32_t>(0, 60)),
                               rc::gen::set(&Choice::how, rc::gen::inRange<std::uint32_t>(0, 4480 * 997)))));
  History history{{policy, overtake, kOwners}};
  for (const Choice& each : choices) history.act(each);
  RC_CLASSIFY(history.world.waiters.size() > 10, "more than ten wait");
}

RC_GTEST_PROP(ArbiterProperties, phase_fair_decides_as_the_reference_does, ()) { agrees(Policy::phase_fair); }
RC_GTEST_PROP(ArbiterProperties, writer_first_decides_as_the_reference_does, ()) { agrees(Policy::writer_first); }
RC_GTEST_PROP(ArbiterProperties, fifo_decides_as_the_reference_does, ()) { agrees(Policy::fifo); }

}  // namespace
