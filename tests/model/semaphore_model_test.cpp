// SPDX-License-Identifier: MIT
// The counting protocol in every interleaving, with deaths: nobody sleeps for ever while there is a unit. A thread is a
// word: d takes a unit, u gives one.
#include <gtest/gtest.h>

#include "model/explorer.hpp"
#include "sync/semaphore_protocol.hpp"

namespace {

using namespace model;
namespace protocol = holdfast::sync::semaphore_protocol;

constexpr std::uint8_t kAt = kFirstWide;

struct Cells {
  WideCell cell{kAt};
  [[nodiscard]] static Cell word() { return {kAt}; }
};

/// What the explorer calls a node is what has a word.
struct Node : Cells {
  Cell word{kAt};
};

struct Counting {
  std::array<const char*, kThreads> words{};
  Wait wait;

  enum Where : std::uint8_t { kNext, kDown, kGive };
  struct Context {
    std::uint8_t where = kNext;
    std::uint8_t word = 0;
    Outcome outcome = Outcome::clean;
    protocol::Round round;
  };

  static bool may_sleep(const State& state) { return words::owner(state.memory[kAt]) == 0; }
  Context start(int) const { return {}; }
  bool finished(const Context& c, int thread) const { return c.where == kNext && words[thread][c.word] == '\0'; }

  void run(Machine& m, Context& c, int thread) const {
    Cells s;
    Node node;
    const auto next = [&] { c = {kNext, static_cast<std::uint8_t>(c.word + 1), Outcome::clean, {}}; };
    switch (c.where) {
      case kNext:
        m.pend(node);
        if (words[thread][c.word] == 'u') {
          if (m.lonely(s.word())) m.clear_waiters_and_wake_all(s.word());  // as protocol::up
          c.where = kGive;
        } else {
          c.where = kDown;
        }
        break;
      case kDown:
        if (protocol::look(m, s, c.round, wait) != Outcome::again) next();
        break;
      case kGive:
        if (protocol::give(m, s, 100) != Outcome::again) next();
        break;
      default:
        break;
    }
  }
};

void expect_holds(const std::vector<const char*>& words, std::uint32_t units, Scope scope, Wait wait = {}) {
  Counting program;
  program.wait = wait;
  scope.threads = static_cast<int>(words.size());
  if (units != 0) scope.memory = {{kAt, words::kFlag | units}};
  std::string said;
  for (std::size_t i = 0; i < words.size(); ++i) {
    program.words[i] = words[i];
    said += std::string(words[i]) + " ";
  }
  const Verdict verdict = Explorer<Counting>(program, scope).explore();
  std::printf("%s, %u units, %d kills, %d ends: %s, %zu states\n", said.c_str(), units, scope.kills, scope.ends,
              to_string(verdict.what), verdict.states);
  EXPECT_EQ(verdict.story, "") << said;
}

TEST(SemaphoreModel, nobody_sleeps_while_there_is_a_unit) {
  expect_holds({"d", "d", "uu"}, 0, {});
  expect_holds({"du", "du", "du"}, 1, {});
  expect_holds({"dudu", "dudu"}, 1, {});
  expect_holds({"d", "d", "u", "u"}, 0, {});
}

TEST(SemaphoreModel, no_death_takes_a_wake_along) {
  expect_holds({"d", "d", "uu"}, 0, {.kills = 2});
  expect_holds({"du", "du", "du"}, 1, {.kills = 2});
  expect_holds({"d", "d", "d", "u"}, 0, {.kills = 2});
}

TEST(SemaphoreModel, no_wait_that_ends_early_takes_a_wake_along) {
  expect_holds({"dd", "d", "uu"}, 0, {.kills = 1, .ends = 2}, Wait{Wait::How::interruptible});
}

}  // namespace
