// SPDX-License-Identifier: MIT
// The protocol of the mutex that processes own, in every interleaving, with deaths that the kernel does not clean up.
// A sleeper looks for a death by itself, and for nothing else: a wake that got lost is found here.
#include <gtest/gtest.h>

#include "model/explorer.hpp"
#include "sync/process_protocol.hpp"

namespace {

using namespace model;
namespace protocol = holdfast::sync::process_protocol;

struct Layout {
  Cell cell{0};
  Cell dirty{1};
  Cell thread{2};
  struct Word {  // the explorer asks a node for its number, the protocol for a cell
    std::uint8_t at = 0;
    Cell operator()() const { return {at}; }
  } word;
};

/// Processes that take the lock a number of times, and repair it when told to.
struct Locking {
  int times = 1;
  Wait wait;
  enum class Flaw : std::uint8_t { none, forgets_sleepers, pends_not } flaw = Flaw::none;

  enum Where : std::uint8_t { kBegin, kLook, kInside, kUnlock };
  struct Context {
    std::uint8_t where = kBegin;
    std::uint8_t done = 0;
    Outcome outcome = Outcome::clean;
    protocol::Round round;
  };

  static bool may_sleep(const State&) { return false; }
  static bool would_see(const State& state, const Step& sleep) { return is_gone(state, state.memory[sleep.cell]); }
  Context start(int) const { return {}; }
  bool finished(const Context& c, int) const { return c.where == kBegin && c.done == times; }

  void run(Machine& m, Context& c, int) const {
    Layout l;
    switch (c.where) {
      case kBegin:
        c.outcome = protocol::begin(m, l);
        if (c.outcome == Outcome::again && flaw == Flaw::pends_not) m.unpend();
        c.where = c.outcome == Outcome::again ? kLook : kInside;
        break;
      case kLook:
        c.outcome = protocol::look(m, l, c.round, wait);
        if (c.outcome == Outcome::again) {
          // What is only told to the system call that asks is not remembered: so equal states are equal.
          c.round.asked = 0;
          break;
        }
        c.round = {};
        c.where = kInside;
        if (!holds(c.outcome)) {
          c.where = kBegin;
          c.outcome = Outcome::clean;
          ++c.done;
        }
        break;
      case kInside:
        m.ghost(Ghost::enter, c.outcome);
        if (c.outcome != Outcome::clean) m.store(l.dirty, 0, std::memory_order_relaxed);
        m.ghost(Ghost::leave);
        c.where = kUnlock;
        c.outcome = Outcome::clean;
        break;
      case kUnlock:
        if (flaw == Flaw::forgets_sleepers) {
          unlock_as_glibc(m, l);
        } else {
          protocol::unlock(m, l);
        }
        c.where = kBegin;
        ++c.done;
        break;
      default:
        break;
    }
  }

  static void unlock_as_glibc(Machine& m, Layout& l) {
    m.store(l.thread, 0, std::memory_order_relaxed);
    std::uint32_t seen = m.name();
    if (m.cas(l.cell, seen, 0, std::memory_order_release)) return;
    m.pend(l);
    m.store(l.cell, 0, std::memory_order_release);
    m.wake_one(l.word(), Class::any);
    m.unpend();
  }
};

Verdict explored(const Locking& program, const Scope& scope) {
  const Verdict verdict = Explorer<Locking>(program, scope).explore();
  std::printf("%d processes, %d times, %d kills, %d ends: %s, %zu states\n", scope.threads, program.times, scope.kills,
              scope.ends, to_string(verdict.what), verdict.states);
  return verdict;
}

TEST(ProcessModel, no_interleaving_without_deaths_wedges_or_lets_two_in) {
  EXPECT_EQ(explored({.times = 2, .wait = {}}, {.threads = 3}).story, "");
  EXPECT_EQ(explored({.times = 1, .wait = {}}, {.threads = 4}).story, "");
}

TEST(ProcessModel, no_death_wedges_it_or_lets_two_in_or_goes_untold) {
  EXPECT_EQ(explored({.times = 2, .wait = {}}, {.threads = 2, .kills = 2}).story, "");
  EXPECT_EQ(explored({.times = 1, .wait = {}}, {.threads = 3, .kills = 2}).story, "");
  EXPECT_EQ(explored({.times = 2, .wait = {}}, {.threads = 3, .kills = 1}).story, "");
}

TEST(ProcessModel, no_wait_that_ends_early_takes_a_wake_along) {
  const Wait interruptible{Wait::How::interruptible};
  EXPECT_EQ(explored({.times = 1, .wait = interruptible}, {.threads = 3, .kills = 1, .ends = 2}).story, "");
}

TEST(ProcessModel, the_scopes_that_take_minutes) {
  if (!deep()) GTEST_SKIP() << "set HOLDFAST_MODEL_DEEP";
  EXPECT_EQ(explored({.times = 1, .wait = {}}, {.threads = 4, .kills = 2}).story, "");
  EXPECT_EQ(explored({.times = 2, .wait = {}}, {.threads = 3, .kills = 2}).story, "");
}

// Negative controls.

TEST(ProcessModel, an_unlock_that_forgets_the_sleepers_wedges_it) {
  EXPECT_EQ(
      explored({.times = 1, .wait = {}, .flaw = Locking::Flaw::forgets_sleepers}, {.threads = 3, .kills = 1}).what,
      Verdict::What::wedged);
}

TEST(ProcessModel, a_waiter_that_marks_nothing_as_pending_takes_its_wake_along) {
  EXPECT_EQ(explored({.times = 1, .wait = {}, .flaw = Locking::Flaw::pends_not}, {.threads = 3, .kills = 1}).what,
            Verdict::What::wedged);
}

}  // namespace
