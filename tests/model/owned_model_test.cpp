// SPDX-License-Identifier: MIT
// The semaphore that knows its owners in every interleaving, with deaths: units come back, nobody sleeps for ever while
// one is free, no more are inside than there are units. A thread takes a unit and gives it back, some times over.
#include <gtest/gtest.h>

#include "model/explorer.hpp"
#include "sync/owned_protocol.hpp"

namespace {

using namespace model;
namespace protocol = holdfast::sync::owned_protocol;
namespace one_owner = holdfast::sync::mutex_protocol;

struct NodeCells {
  Cell word;
  Cell dirty;
};

template <int kUnits>
struct Cells {
  NodeCells gate{{0}, {1}};
  Cell given{2};
  std::array<NodeCells, kUnits> units = make();

 private:
  static constexpr std::array<NodeCells, kUnits> make() {
    std::array<NodeCells, kUnits> all;
    for (std::uint8_t i = 0; i < kUnits; ++i)
      all[i] = {{static_cast<std::uint8_t>(4 + 2 * i)}, {static_cast<std::uint8_t>(5 + 2 * i)}};
    return all;
  }
};

template <int kUnits>
struct Taking {
  int times = 1;
  Wait wait;
  enum class Flaw : std::uint8_t { none, counts_unseen, keeps_no_gate } flaw = Flaw::none;

  enum Where : std::uint8_t { kTry, kGate, kGateLook, kLook, kOpen, kInside, kGive };
  struct Context {
    std::uint8_t where = kTry;
    std::uint8_t done = 0;
    Outcome outcome = Outcome::clean;
    one_owner::Round round;
  };

  static bool may_sleep(const State&) { return false; }
  /// One that sleeps on the count hears of no death: the holder's, or the giver's between the release and the wake.
  static bool would_see(const State& state, const Step&) {
    if (state.kills == 0) return false;
    for (const NodeCells& unit : Cells<kUnits>().units)
      if (words::owner(state.memory[unit.word.at]) == 0) return true;
    return false;
  }
  Context start(int) const { return {}; }
  bool finished(const Context& c, int) const { return c.where == kTry && c.done == times; }

  void run(Machine& m, Context& c, int thread) const {
    Cells<kUnits> l;
    const auto home = static_cast<std::uint32_t>(thread);
    const auto next = [&] { c = {kTry, static_cast<std::uint8_t>(c.done + 1), Outcome::clean, {}}; };
    switch (c.where) {
      case kTry:
        c.where = protocol::take_free(m, l, home) != Outcome::again ? kInside
                  : flaw == Flaw::keeps_no_gate                     ? kLook
                                                                    : kGate;
        break;
      case kGate:
        c.where = one_owner::begin(m, l.gate) == Outcome::again ? kGateLook : kLook;
        break;
      case kGateLook:
        c.outcome = one_owner::look(m, l.gate, c.round, wait);
        if (c.outcome == Outcome::again) break;
        c.round = {};
        if (holds(c.outcome)) {
          c.where = kLook;
          c.outcome = Outcome::clean;
        } else {
          next();
        }
        break;
      case kLook:
        m.store(l.gate.dirty, 0, std::memory_order_relaxed);
        c.outcome = protocol::look(m, l, home, c.round.spun, wait);
        if (c.outcome == Outcome::again) break;
        c.where = kOpen;
        if (flaw == Flaw::keeps_no_gate) c.where = holds(c.outcome) ? kInside : kTry;
        break;
      case kOpen:
        one_owner::unlock(m, l.gate);
        if (holds(c.outcome)) {
          c.where = kInside;
          c.outcome = Outcome::clean;
        } else {
          next();
        }
        break;
      case kInside:
        m.ghost(Ghost::enter_shared);
        m.ghost(Ghost::leave_shared);
        c.where = kGive;
        break;
      case kGive:
        for (NodeCells& unit : l.units) {
          if (words::owner(m.load(unit.word, std::memory_order_relaxed)) != m.me()) continue;
          if (flaw == Flaw::counts_unseen) {
            m.store(l.given, m.load(l.given, std::memory_order_relaxed) + 1, std::memory_order_relaxed);
            one_owner::unlock(m, unit);
            m.wake_one(l.given, Class::any);
          } else {
            protocol::up(m, l, unit);
          }
          break;
        }
        next();
        break;
      default:
        break;
    }
  }
};

template <int kUnits>
Verdict explored(const Taking<kUnits>& program, Scope scope) {
  scope.most_shared = kUnits;
  const Verdict verdict = Explorer<Taking<kUnits>>(program, scope).explore();
  std::printf("%d units, %d threads, %d times, %d kills, %d ends: %s, %zu states\n", kUnits, scope.threads,
              program.times, scope.kills, scope.ends, to_string(verdict.what), verdict.states);
  return verdict;
}

constexpr Wait kInterruptible{Wait::How::interruptible};

TEST(OwnedModel, no_interleaving_without_deaths_wedges_or_lets_too_many_in) {
  EXPECT_EQ(explored(Taking<1>{.times = 1, .wait = {}}, {.threads = 3}).story, "");
  EXPECT_EQ(explored(Taking<1>{.times = 3, .wait = {}}, {.threads = 2}).story, "");
}

TEST(OwnedModel, no_death_wedges_it_or_loses_a_unit) {
  EXPECT_EQ(explored(Taking<1>{.times = 2, .wait = {}}, {.threads = 2, .kills = 2}).story, "");
  EXPECT_EQ(explored(Taking<1>{.times = 1, .wait = {}}, {.threads = 3, .kills = 1}).story, "");
  EXPECT_EQ(explored(Taking<2>{.times = 1, .wait = {}}, {.threads = 2, .kills = 2}).story, "");
}

TEST(OwnedModel, no_wait_that_ends_early_takes_a_wake_along) {
  EXPECT_EQ(explored(Taking<1>{.times = 2, .wait = kInterruptible}, {.threads = 2, .kills = 1, .ends = 2}).story, "");
  EXPECT_EQ(explored(Taking<1>{.times = 1, .wait = kInterruptible}, {.threads = 3, .ends = 1}).story, "");
}

TEST(OwnedModel, the_scopes_that_take_minutes) {
  if (!deep()) GTEST_SKIP() << "set HOLDFAST_MODEL_DEEP";
  EXPECT_EQ(explored(Taking<2>{.times = 1, .wait = {}}, {.threads = 3}).story, "");
  EXPECT_EQ(explored(Taking<2>{.times = 1, .wait = {}}, {.threads = 3, .kills = 1}).story, "");
  EXPECT_EQ(explored(Taking<1>{.times = 1, .wait = {}}, {.threads = 3, .kills = 2}).story, "");
  EXPECT_EQ(explored(Taking<1>{.times = 1, .wait = kInterruptible}, {.threads = 3, .kills = 1, .ends = 1}).story, "");
}

// Negative controls.

TEST(OwnedModel, a_count_that_is_raised_without_the_flag_is_missed) {
  const Verdict verdict =
      explored(Taking<1>{.times = 2, .wait = kInterruptible, .flaw = Taking<1>::Flaw::counts_unseen}, {.threads = 2});
  EXPECT_EQ(verdict.what, Verdict::What::wedged) << verdict.story;
}

TEST(OwnedModel, without_the_gate_a_killed_sleeper_takes_the_only_wake_along) {
  const Verdict verdict =
      explored(Taking<1>{.times = 1, .wait = {}, .flaw = Taking<1>::Flaw::keeps_no_gate}, {.threads = 3, .kills = 1});
  EXPECT_EQ(verdict.what, Verdict::What::wedged) << verdict.story;
}

}  // namespace
