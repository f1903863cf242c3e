// SPDX-License-Identifier: MIT
// arbiter_model_test.cpp - the arbiter in all interleavings of a few owners, devices and requests, with deaths,
// cancels, downgrades, upgrades, leases and deadlines. Each step is compared with a naive reference, and checked
// against what must hold whatever the rule is written like; a broken arbiter must be caught by each of the checks.
//
// A state is what is held and who waits. States that differ in the names of owners or devices alone count as one,
// and so do those that differ in what is past.
#include <gtest/gtest.h>

#include <map>
#include <sstream>
#include <unordered_set>

#include "arbiter_subject.hpp"
#include "arbiter_world.hpp"

namespace {

using namespace holdfast;
using world::Claim;
using world::Event;
using world::Events;
using world::Flaw;
using world::Reference;
using world::Subject;
using world::Waiter;
using world::What;
using world::Wish;
using world::World;

constexpr int kOwners = 3;

struct Scope {
  world::Rules rules{};
  int requests = 4;
  bool sets = true;
  bool tries = false;
  bool times = false;
  std::vector<std::int8_t> priorities{2};
  int upgrades = 0;
  int downgrades = 0;
  Flaw flaw = Flaw::none;
};

class Explorer {
 public:
  explicit Explorer(const Scope& scope) : scope_{scope} {}

  /// The first thing that does not hold, with the steps that lead there; empty when all holds.
  std::string explore() {
    expand(World{}, Subject{scope_.rules, scope_.flaw});
    return story_;
  }
  std::size_t states() const { return seen_.size(); }
  std::size_t steps() const { return steps_; }
  std::map<What, std::size_t> events;

 private:
  bool over() const { return !story_.empty(); }

  void expand(const World& world, const Subject& subject) {
    if (over() || !seen_.insert(key(world)).second) return;
    if (world.next_number - world.upgrades < scope_.requests) {
      for (Wish wish : wishes(world)) try_ask(world, subject, wish);
    }
    for (const Claim& claim : world.claims) {
      const int number = claim.number;
      const int owner = claim.owner;
      step(world, subject, "release", number, [&](Reference& r, Subject& s) {
        s.release(number, owner, world.now);
        return r.release(number);
      });
      if (claim.exclusive && world.downgrades < scope_.downgrades)
        step(world, subject, "downgrade", number, [&](Reference& r, Subject& s) {
          s.downgrade(number, owner, world.now);
          return r.downgrade(number);
        });
      if (!claim.exclusive && world.upgrades < scope_.upgrades)
        for (const bool waits : {true, false})
          if (waits || scope_.tries)
            step(world, subject, "upgrade", number, [&](Reference& r, Subject& s) {
              s.upgrade(world.next_number, number, owner, waits, world.now);
              return r.upgrade(number, waits);
            });
    }
    for (const Waiter& waiter : world.waiters)
      step(world, subject, "cancel", waiter.number, [&](Reference& r, Subject& s) {
        s.cancel(waiter.number, waiter.owner, world.now);
        return r.cancel(waiter.number);
      });
    for (std::int8_t owner = 0; owner < scope_.rules.owners && scope_.flaw != Flaw::blind; ++owner)
      if (!is_idle(world, owner))
        step(world, subject, "death of", owner, [&](Reference& r, Subject& s) {
          s.die(owner, world.now);
          return r.die(owner);
        });
    if (const int next = next_time(world); next != 0)
      step(world, subject, "time", next, [&](Reference& r, Subject& s) {
        s.tick(next);
        return r.tick(next);
      });
  }

  static bool is_idle(const World& world, int owner) {
    for (const Claim& each : world.claims)
      if (each.owner == owner) return false;
    for (const Waiter& each : world.waiters)
      if (each.owner == owner) return false;
    return true;
  }
  static int next_time(const World& world) {
    int next = 0;
    const auto consider = [&](int time) {
      if (time != 0 && (next == 0 || time < next)) next = time;
    };
    for (const Claim& each : world.claims) consider(each.until);
    for (const Waiter& each : world.waiters) consider(each.until);
    return next;
  }

  std::vector<Wish> wishes(const World& world) const {
    std::vector<Wish> all;
    bool idle_one = false;
    for (std::int8_t owner = 0; owner < scope_.rules.owners; ++owner) {
      if (is_idle(world, owner) && std::exchange(idle_one, true)) continue;  // one idle owner is like another
      for (std::uint8_t set = 1; set < (scope_.sets ? 4 : 2); ++set)
        for (const bool exclusive : {true, false})
          for (const std::int8_t priority : scope_.priorities) {
            const Wish wish{owner, set, exclusive, true, priority};
            all.push_back(wish);
            if (scope_.tries) {
              all.push_back(wish);
              all.back().waits = false;
            }
            if (scope_.times) {
              // Sums of these differ, so that no two things are due at once.
              all.push_back(wish);
              all.back().lease = 1000 << world.next_number;
              all.push_back(wish);
              all.back().deadline = 1003 << world.next_number;
            }
          }
    }
    return all;
  }

  void try_ask(const World& world, const Subject& subject, const Wish& wish) {
    step(world, subject, "ask", world.next_number, [&](Reference& r, Subject& s) {
      path_.back() += " owner " + std::to_string(wish.owner) + " set " + std::to_string(wish.set) +
                      (wish.exclusive ? " exclusive" : " shared") + (wish.waits ? "" : " now") + " class " +
                      std::to_string(wish.priority) + " lease " + std::to_string(wish.lease) + " deadline " +
                      std::to_string(wish.deadline);
      s.ask(world.next_number, wish, world.next_place, world.now);
      wish_ = wish;
      return r.ask(wish);
    });
  }

  template <class Do>
  void step(const World& world, const Subject& subject, const char* what, int number, Do act) {
    if (over()) return;
    ++steps_;
    path_.push_back(std::string{what} + " " + std::to_string(number));
    World expected_world = world;
    Subject next = subject;
    next.forget_decisions();
    Reference reference{scope_.rules, expected_world};
    Events expected = act(reference, next);
    Events decided = next.decided();
    for (const Event& each : decided) {
      path_.back() += std::string{"; "} + std::to_string(each.number) + " " + name(each.what);
      ++events[each.what];
    }
    World after = world;
    apply(after, decided, what[0] == 't' ? number : world.now);
    after.upgrades = expected_world.upgrades;
    after.downgrades = expected_world.downgrades;
    after.next_number = expected_world.next_number;
    check(world, after, decided, next);
    if (!over() && scope_.flaw == Flaw::none) compare(expected, decided, expected_world, next);
    if (!over()) expand(after, next);
    path_.pop_back();
  }

  void fail(const std::string& why) {
    for (const std::string& each : path_) story_ += each + "\n";
    story_ += why;
  }

  /// The world as the decisions say that it is.
  void apply(World& world, const Events& decided, int now) {
    world.now = now;
    const bool asked = path_.back().starts_with("ask");
    Waiter fresh = asked ? Reference::waiter_of(wish_, world) : Waiter{};
    if (path_.back().starts_with("upgrade")) {
      const int number = std::stoi(path_.back().substr(8));
      const Claim& claim = *world.claim(number);
      fresh.number = static_cast<std::int16_t>(world.next_number);
      fresh.owner = claim.owner;
      fresh.set = claim.set;
      fresh.exclusive = true;
      fresh.upgrade_of = claim.number;
    }
    for (const Event& each : decided) {
      const auto drop = [&] { std::erase_if(world.waiters, [&](const Waiter& w) { return w.number == each.number; }); };
      switch (each.what) {
        case What::queued:
          world.waiters.push_back(fresh);
          if (asked) ++world.next_place;
          break;
        case What::granted: {
          const Waiter* const found = world.waiter(each.number);
          const Waiter waiter = found == nullptr ? fresh : *found;
          if (found == nullptr && scope_.flaw != Flaw::free_passes && overtakes(world, waiter)) ++world.next_place;
          drop();
          world.claims.push_back(
              {waiter.number, waiter.owner, waiter.set, waiter.exclusive, waiter.lease == 0 ? 0 : now + waiter.lease});
          count_tokens(world, waiter.set, waiter.exclusive);
          break;
        }
        case What::upgraded:
          world.claim(each.number)->exclusive = true;
          std::erase_if(world.waiters, [&](const Waiter& w) { return w.upgrade_of == each.number; });
          count_tokens(world, world.claim(each.number)->set, true);
          break;
        case What::downgraded:
          world.claim(each.number)->exclusive = false;
          break;
        case What::released:
        case What::lapsed:
        case What::died:
          std::erase_if(world.claims, [&](const Claim& c) { return c.number == each.number; });
          break;
        case What::cancelled:
        case What::timed_out:
        case What::withdrawn_by_death:
        case What::withdrawn_with_claim:
          drop();
          break;
        case What::busy:
        case What::deadlock:
        case What::already_upgrading:
          break;
      }
    }
  }
  bool overtakes(const World& world, const Waiter& waiter) const {
    World copy = world;
    const Reference reference{scope_.rules, copy};
    for (const Waiter& each : world.waiters)
      if (each.upgrade_of < 0 && (each.set & waiter.set) != 0 && reference.before(waiter, each)) return true;
    return false;
  }
  static void count_tokens(World& world, unsigned set, bool exclusive) {
    for (unsigned device = 0; device < world::kDevices; ++device)
      if (exclusive && (set >> device & 1U) != 0) ++world.tokens[device];
  }

  /// What must hold whatever the rule: of the state, and of the step that led to it.
  void check(const World& before, World& after, const Events& decided, const Subject& subject) {
    for (const Claim& a : after.claims)
      for (const Claim& b : after.claims)
        if (a.number < b.number && (a.set & b.set) != 0 && (a.exclusive || b.exclusive))
          return fail("exclusion: two conflicting claims");
    const Reference reference{scope_.rules, after};
    for (const Waiter& each : after.waiters)
      if (reference.may_go(each)) return fail("work: " + std::to_string(each.number) + " waits for nothing");
    if (reference.cycle()) return fail("deadlock: owners wait for each other");

    unsigned ended = 0;  // devices of which an exclusive claim ended or became shared
    for (const Claim& each : before.claims) {
      const Claim* const now = after.claim(each.number);
      if (each.exclusive && (now == nullptr || !now->exclusive)) ended |= each.set;
    }
    for (Waiter& waiter : after.waiters) {
      int requests = 0;
      for (const Waiter& other : after.waiters) requests += other.owner == waiter.owner;
      waiter.was_alone = waiter.was_alone && requests == 1;
      for (const Event& event : decided) {
        if (event.what != What::granted && event.what != What::upgraded) continue;
        const Claim* const claim = after.claim(event.number);
        if (claim == nullptr || (claim->set & waiter.set) == 0 || !(claim->exclusive || waiter.exclusive)) continue;
        if (claim->exclusive) ++waiter.phases;
        if (event.what == What::upgraded || waiter.upgrade_of >= 0) continue;
        const bool by_phase = scope_.rules.policy == world::Policy::phase_fair && !claim->exclusive &&
                              (claim->set & ended) == claim->set && (claim->set & (claim->set - 1U)) == 0;
        const Waiter* const asked = before.waiter(event.number);
        const Waiter granted = asked == nullptr ? Reference::waiter_of(wish_, before) : *asked;
        if (!by_phase && !reference.before(granted, waiter))
          return fail("order: " + std::to_string(event.number) + " passed " + std::to_string(waiter.number));
        if (!by_phase && granted.place > waiter.place) ++waiter.overtaken;
      }
      const bool one_device = (waiter.set & (waiter.set - 1U)) == 0;
      if (scope_.rules.policy == world::Policy::phase_fair && !waiter.exclusive && one_device && waiter.was_alone &&
          waiter.phases > 1)
        return fail("phases: a shared request waits for a second exclusive claim");
      const int bound = (world::kTopClass - waiter.priority) * scope_.rules.overtake;
      if (scope_.rules.policy != world::Policy::writer_first && waiter.overtaken > bound)
        return fail("bypass: overtaken too often");
    }
    for (unsigned device = 0; device < world::kDevices; ++device)
      if (after.tokens[device] < before.tokens[device]) return fail("tokens fall");
    if (scope_.flaw == Flaw::none) check_tokens(after, subject);
  }

  void check_tokens(const World& after, const Subject& subject) {
    for (const arbiter::Held& each : subject.arbiter().tokens())
      if (static_cast<int>(each.token) != after.tokens[static_cast<std::size_t>(each.device)]) return fail("tokens");
  }

  void compare(Events& expected, Events& decided, const World& world, Subject& subject) {
    if (!subject.done()) return fail("unknown to the arbiter");
    std::sort(expected.begin(), expected.end());
    std::sort(decided.begin(), decided.end());
    if (expected != decided) {
      std::string why = "the reference says:";
      for (const Event& each : expected) why += " " + std::to_string(each.number) + " " + name(each.what) + ";";
      return fail(why);
    }
    if (const std::string difference = subject.differs_from(world, scope_.rules); !difference.empty())
      return fail(difference);
    check_refusals(world, subject);
  }

  /// A refusal for a deadlock names a cycle, each step of which is there to be seen once the request stood in the
  /// queue.
  void check_refusals(const World& after, Subject& subject) {
    for (const arbiter::Decision& each : subject.decisions().all()) {
      const auto* const refused = std::get_if<arbiter::Refused>(&each);
      if (refused == nullptr || refused->reason != arbiter::Reason::deadlock) continue;
      const auto cycle = subject.decisions().cycle(*refused);
      if (cycle.empty()) return fail("a deadlock without a cycle");
      std::vector<Waiter> waiters = after.waiters;
      if (path_.back().starts_with("ask")) {
        World before = after;
        --before.next_number;
        waiters.push_back(Reference::waiter_of(wish_, before));
      } else {
        const Claim& claim = *after.claim(std::stoi(path_.back().substr(8)));
        Waiter upgrade;
        upgrade.number = 99;
        upgrade.owner = claim.owner;
        upgrade.set = claim.set;
        upgrade.exclusive = true;
        upgrade.upgrade_of = claim.number;
        waiters.push_back(upgrade);
      }
      World copy = after;
      const Reference reference{scope_.rules, copy};
      for (std::size_t i = 0; i < cycle.size(); ++i) {
        const int from = static_cast<int>(cycle[i].owner);
        const int to = static_cast<int>(cycle[(i + 1) % cycle.size()].owner);
        const unsigned device = 1U << static_cast<unsigned>(cycle[i].device);
        bool seen = false;
        for (const Waiter& w : waiters) {
          if (w.owner != from || (w.set & device) == 0) continue;
          for (const Claim& c : after.claims)
            seen = seen || (c.owner == to && (c.set & device) != 0 && Reference::in_the_way(c, w));
          for (const Waiter& v : waiters)
            seen = seen || (v.owner == to && (v.set & device) != 0 && reference.in_the_way(v, w));
        }
        if (!seen) return fail("a cycle that is not there");
      }
    }
  }

  // 128 bits stand for a state: the least over all names of owners and devices.
  struct Key {
    std::uint64_t a = ~std::uint64_t{0};
    std::uint64_t b = ~std::uint64_t{0};
    auto operator<=>(const Key&) const = default;
  };
  struct HashKey {
    std::size_t operator()(const Key& k) const { return k.a; }
  };
  Key key(const World& world) const {
    std::array<int, kOwners> owners{0, 1, 2};
    Key least;
    do {
      for (const bool swapped : {false, true}) least = std::min(least, key(world, owners, swapped));
    } while (std::next_permutation(owners.begin(), owners.end()));
    return least;
  }
  Key key(const World& world, const std::array<int, kOwners>& owners, bool swapped) const {
    const auto set = [&](unsigned s) { return swapped ? (s >> 1 | (s & 1) << 1) : s; };
    const auto time = [&](int until) { return until == 0 ? 0 : until - world.now; };
    std::vector<std::uint64_t> words;
    for (const Claim& each : world.claims) {
      bool upgrading = false;
      for (const Waiter& w : world.waiters) upgrading = upgrading || w.upgrade_of == each.number;
      words.push_back(static_cast<std::uint64_t>(owners[static_cast<std::size_t>(each.owner)]) | set(each.set) << 4 |
                      std::uint64_t{each.exclusive} << 8 | std::uint64_t{upgrading} << 9 |
                      static_cast<std::uint64_t>(time(each.until)) << 16);
    }
    std::sort(words.begin(), words.end());
    words.push_back(0xffff);
    std::vector<Waiter> waiters = world.waiters;
    World copy = world;
    const Reference reference{scope_.rules, copy};
    std::sort(waiters.begin(), waiters.end(), [&](const Waiter& a, const Waiter& b) {
      if ((a.upgrade_of >= 0) != (b.upgrade_of >= 0)) return a.upgrade_of >= 0;
      if (a.upgrade_of >= 0) return set(a.set) < set(b.set);
      return reference.before(a, b);
    });
    for (const Waiter& each : waiters) {
      words.push_back(static_cast<std::uint64_t>(owners[static_cast<std::size_t>(each.owner)]) | set(each.set) << 4 |
                      std::uint64_t{each.exclusive} << 8 | std::uint64_t{each.upgrade_of >= 0} << 9 |
                      std::uint64_t{each.was_alone} << 10 | static_cast<std::uint64_t>(each.priority) << 12 |
                      static_cast<std::uint64_t>(time(each.until)) << 16 |
                      static_cast<std::uint64_t>(std::min<int>(each.phases, 2)) << 48 |
                      static_cast<std::uint64_t>(each.overtaken) << 52);
      words.push_back(static_cast<std::uint64_t>(each.lease));
      if (scope_.priorities.size() > 1) words.push_back(static_cast<std::uint64_t>(world.next_place - each.place));
    }
    words.push_back(static_cast<std::uint64_t>(world.next_number) | static_cast<std::uint64_t>(world.upgrades) << 8 |
                    static_cast<std::uint64_t>(world.downgrades) << 16);
    std::uint64_t a = 0x9E3779B97F4A7C15;
    std::uint64_t b = 0xC2B2AE3D27D4EB4F;
    for (const std::uint64_t word : words) {
      a = (a ^ word) * 0xFF51AFD7ED558CCD;
      a ^= a >> 32;
      b = (b + word) * 0xC4CEB9FE1A85EC53;
      b ^= b >> 29;
    }
    return {a, b};
  }

  Scope scope_;
  std::unordered_set<Key, HashKey> seen_;
  std::vector<std::string> path_;
  std::string story_;
  std::size_t steps_ = 0;
  Wish wish_;
};

/// Explores, and sees that what the scope is about did happen.
void holds(const Scope& scope, std::initializer_list<What> must_happen) {
  Explorer explorer{scope};
  const std::string story = explorer.explore();
  EXPECT_EQ(story, "");
  for (const What each : must_happen) EXPECT_GT(explorer.events[each], 0U) << name(each);
  std::ostringstream counts;
  counts << explorer.states() << " states, " << explorer.steps() << " steps";
  testing::Test::RecordProperty("explored", counts.str());
  std::printf("explored %s\n", counts.str().c_str());
}

void caught(const Scope& scope, const char* by) {
  Explorer explorer{scope};
  const std::string story = explorer.explore();
  EXPECT_NE(story.find(by), std::string::npos) << story;
}

class EachPolicy : public testing::TestWithParam<world::Policy> {};

constexpr std::initializer_list<What> kBasic = {What::granted,   What::queued, What::deadlock,          What::released,
                                                What::cancelled, What::died,   What::withdrawn_by_death};

TEST_P(EachPolicy, six_requests_of_three_owners_for_two_devices) {
  holds({.rules = {GetParam()}, .requests = 6}, kBasic);
}

TEST_P(EachPolicy, requests_that_may_not_want_to_wait) {
  holds({.rules = {GetParam()}, .requests = 4, .tries = true, .upgrades = 1},
        {What::granted, What::busy, What::deadlock});
}

TEST_P(EachPolicy, upgrades_and_downgrades) {
  holds({.rules = {GetParam()}, .requests = 4, .upgrades = 2, .downgrades = 1},
        {What::upgraded, What::downgraded, What::already_upgrading, What::withdrawn_with_claim, What::deadlock});
}

TEST_P(EachPolicy, classes_that_overtake_one_place) {
  holds({.rules = {GetParam(), 1}, .requests = 4, .priorities = {2, 3}, .downgrades = 1}, kBasic);
}

TEST_P(EachPolicy, classes_that_overtake_two_places) {
  holds({.rules = {GetParam(), 2}, .requests = 6, .sets = false, .priorities = {2, 3}, .upgrades = 1}, kBasic);
}

TEST_P(EachPolicy, leases_and_deadlines) {
  holds({.rules = {GetParam()}, .requests = 3, .tries = true, .times = true, .upgrades = 1, .downgrades = 1},
        {What::lapsed, What::timed_out, What::upgraded, What::downgraded});
}

TEST_P(EachPolicy, six_requests_for_one_device) {
  holds({.rules = {GetParam()}, .requests = 6, .sets = false, .upgrades = 1, .downgrades = 1},
        {What::upgraded, What::downgraded});
}

std::string policy_name(const testing::TestParamInfo<world::Policy>& tested) {
  constexpr const char* kNames[] = {"phase_fair", "writer_first", "fifo"};
  return kNames[static_cast<int>(tested.param)];
}
INSTANTIATE_TEST_SUITE_P(ArbiterModel, EachPolicy,
                         testing::Values(world::Policy::phase_fair, world::Policy::writer_first, world::Policy::fifo),
                         policy_name);

TEST(ArbiterModelCatches, an_arbiter_that_lets_two_write) {
  caught({.requests = 2, .flaw = Flaw::two_may_write}, "exclusion");
}

TEST(ArbiterModelCatches, an_arbiter_that_does_not_see_who_waits_for_whom) {
  caught({.flaw = Flaw::blind}, "deadlock");
}

TEST(ArbiterModelCatches, an_arbiter_that_lets_shared_requests_barge) {
  caught({.requests = 3, .flaw = Flaw::shared_barge}, "order");
}

TEST(ArbiterModelCatches, an_arbiter_that_makes_shared_requests_wait_for_two_phases) {
  caught({.sets = false, .upgrades = 1, .flaw = Flaw::order_of_fifo}, "phases");
}

TEST(ArbiterModelCatches, an_arbiter_that_has_another_order) {
  caught({.rules = {world::Policy::writer_first}, .flaw = Flaw::order_of_fifo}, "order");
}

TEST(ArbiterModelCatches, an_arbiter_that_leaves_the_next_one_waiting) {
  caught({.requests = 3, .flaw = Flaw::deaf}, "work");
}

TEST(ArbiterModelCatches, an_arbiter_that_lets_some_overtake_too_often) {
  caught(
      {.rules = {world::Policy::fifo}, .requests = 5, .sets = false, .priorities = {2, 3}, .flaw = Flaw::free_passes},
      "bypass");
}

}  // namespace
