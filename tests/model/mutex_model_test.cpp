// SPDX-License-Identifier: MIT
// The one-owner protocol in every interleaving, with deaths; and glibc's, to see that the explorer sees.
#include <gtest/gtest.h>

#include "model/explorer.hpp"
#include "sync/mutex_protocol.hpp"

namespace {

using namespace model;
namespace protocol = holdfast::sync::mutex_protocol;

struct NodeCells {
  Cell word{0};
  Cell dirty{1};
};

/// Threads that take the lock a number of times, and repair it when told to.
struct Locking {
  int times = 1;
  Wait wait;

  enum Where : std::uint8_t { kBegin, kLook, kInside, kUnlock };
  struct Context {
    std::uint8_t where = kBegin;
    std::uint8_t done = 0;
    Outcome outcome = Outcome::clean;
    protocol::Round round;
  };

  static bool may_sleep(const State&) { return false; }
  Context start(int) const { return {}; }
  bool finished(const Context& c, int) const { return c.where == kBegin && c.done == times; }

  void run(Machine& m, Context& c, int) const {
    NodeCells node;
    switch (c.where) {
      case kBegin:
        c.outcome = protocol::begin(m, node);
        c.where = c.outcome == Outcome::again ? kLook : kInside;
        break;
      case kLook:
        c.outcome = protocol::look(m, node, c.round, wait);
        if (c.outcome == Outcome::again) break;
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
        if (c.outcome != Outcome::clean) m.store(node.dirty, 0, std::memory_order_relaxed);
        m.ghost(Ghost::leave);
        c.where = kUnlock;
        c.outcome = Outcome::clean;
        break;
      case kUnlock:
        protocol::unlock(m, node);
        c.where = kBegin;
        ++c.done;
        break;
      default:
        break;
    }
  }
};

/// What glibc 2.36 does (nptl/pthread_mutex_lock.c and _unlock.c, robust kinds): unlock stores 0.
struct Glibc : Locking {
  void run(Machine& m, Context& c, int thread) const {
    NodeCells node;
    if (c.where != kUnlock) return Locking::run(m, c, thread);
    m.pend(node);
    m.dequeue(node);
    std::uint32_t seen = m.load(node.word, std::memory_order_relaxed);
    if (!m.cas(node.word, seen, 0, std::memory_order_release)) {  // the two are its exchange: one more try is enough,
      if (!m.cas(node.word, seen, 0, std::memory_order_release)) return;  // the waiters bit is set once
    }
    if (words::has_waiters(seen)) m.wake_one(node.word, Class::any);
    m.unpend();
    c.where = kBegin;
    ++c.done;
  }
};

template <class Program>
Verdict explored(const Program& program, const Scope& scope) {
  const Verdict verdict = Explorer<Program>(program, scope).explore();
  std::printf("%d threads, %d times, %d kills, %d ends: %s, %zu states\n", scope.threads, program.times, scope.kills,
              scope.ends, to_string(verdict.what), verdict.states);
  return verdict;
}

TEST(MutexModel, no_interleaving_without_deaths_wedges_or_lets_two_in) {
  EXPECT_EQ(explored(Locking{.times = 2, .wait = {}}, {.threads = 3}).story, "");
}

TEST(MutexModel, no_death_wedges_it_or_lets_two_in_or_goes_untold) {
  EXPECT_EQ(explored(Locking{.times = 2, .wait = {}}, {.threads = 2, .kills = 2}).story, "");
  EXPECT_EQ(explored(Locking{.times = 1, .wait = {}}, {.threads = 3, .kills = 2}).story, "");
  EXPECT_EQ(explored(Locking{.times = 2, .wait = {}}, {.threads = 3, .kills = 1}).story, "");
}

TEST(MutexModel, no_wait_that_ends_early_takes_a_wake_along) {
  const Wait interruptible{Wait::How::interruptible};
  EXPECT_EQ(explored(Locking{.times = 1, .wait = interruptible}, {.threads = 3, .kills = 1, .ends = 2}).story, "");
}

TEST(MutexModel, four_threads) { EXPECT_EQ(explored(Locking{.times = 1, .wait = {}}, {.threads = 4}).story, ""); }

TEST(MutexModel, four_threads_and_two_deaths) {
  if (!deep()) GTEST_SKIP() << "takes half a minute: set HOLDFAST_MODEL_DEEP";
  EXPECT_EQ(explored(Locking{.times = 1, .wait = {}}, {.threads = 4, .kills = 2}).story, "");
}

TEST(MutexModel, the_explorer_finds_how_one_kill_wedges_glibcs) {
  Glibc glibc;
  const Verdict verdict = explored(glibc, {.threads = 3, .kills = 1});
  EXPECT_EQ(verdict.what, Verdict::What::wedged) << verdict.story;
  std::printf("%s\n", verdict.story.c_str());
}

}  // namespace
