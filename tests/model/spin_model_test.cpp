// SPDX-License-Identifier: MIT
// The protocols of the spinlocks in every interleaving: the robust one with deaths, readers and writers without.
#include <gtest/gtest.h>

#include "model/explorer.hpp"
#include "sync/spin_protocol.hpp"

namespace {

using namespace model;
namespace protocol = holdfast::sync::spin_protocol;

struct NodeCells {
  Cell word{0};
  Cell dirty{1};
};

/// Threads that take the robust lock a number of times, and repair when told to.
struct Locking {
  int times = 1;
  enum class Flaw : std::uint8_t { none, pends_not } flaw = Flaw::none;

  enum Where : std::uint8_t { kBegin, kLook, kInside, kUnlock };
  struct Context {
    std::uint8_t where = kBegin;
    std::uint8_t done = 0;
    Outcome outcome = Outcome::clean;
  };

  static bool may_sleep(const State&) { return false; }
  Context start(int) const { return {}; }
  bool finished(const Context& c, int) const { return c.where == kBegin && c.done == times; }

  void run(Machine& m, Context& c, int) const {
    NodeCells node;
    Machine::Spinning spinning;
    switch (c.where) {
      case kBegin:
        c.outcome = holdfast::sync::mutex_protocol::begin(m, node);
        c.where = c.outcome == Outcome::again ? kLook : kInside;
        break;
      case kLook:
        c.outcome = protocol::look(m, node, spinning, {});
        if (c.outcome != Outcome::again) c.where = kInside;
        break;
      case kInside:
        m.ghost(Ghost::enter, c.outcome);
        if (c.outcome != Outcome::clean) m.store(node.dirty, 0, std::memory_order_relaxed);
        m.ghost(Ghost::leave);
        c.where = kUnlock;
        c.outcome = Outcome::clean;
        break;
      case kUnlock:
        if (flaw == Flaw::pends_not) {
          m.dequeue(node);
          m.store(node.word, 0, std::memory_order_release);
        } else {
          protocol::unlock(m, node);
        }
        c.where = kBegin;
        ++c.done;
        break;
      default:
        break;
    }
  }
};

Verdict explored(const Locking& program, const Scope& scope) {
  const Verdict verdict = Explorer<Locking>(program, scope).explore();
  std::printf("%d threads, %d times, %d kills: %s, %zu states\n", scope.threads, program.times, scope.kills,
              to_string(verdict.what), verdict.states);
  return verdict;
}

TEST(SpinModel, no_death_leaves_the_robust_one_locked_or_lets_two_in_or_goes_untold) {
  EXPECT_EQ(explored({.times = 3}, {.threads = 2, .kills = 2}).story, "");
  EXPECT_EQ(explored({.times = 2}, {.threads = 3, .kills = 2}).story, "");
  EXPECT_EQ(explored({.times = 1}, {.threads = 4, .kills = 3}).story, "");
}

TEST(SpinModel, a_release_that_marks_nothing_as_pending_leaves_it_locked) {
  EXPECT_EQ(explored({.times = 1, .flaw = Locking::Flaw::pends_not}, {.threads = 2, .kills = 1}).what,
            Verdict::What::wedged);
}

/// r reads, w writes.
struct Using {
  std::array<const char*, kThreads> words{};
  bool keeps_waiting_bit = false;

  enum Where : std::uint8_t { kNext, kRead, kWrite, kReading, kWriting };
  struct Context {
    std::uint8_t where = kNext;
    std::uint8_t word = 0;
  };

  static bool may_sleep(const State&) { return false; }
  Context start(int) const { return {}; }
  bool finished(const Context& c, int thread) const { return c.where == kNext && words[thread][c.word] == '\0'; }

  void run(Machine& m, Context& c, int thread) const {
    const Cell word{0};
    Machine::Spinning spinning;
    switch (c.where) {
      case kNext:
        c.where = words[thread][c.word] == 'r' ? kRead : kWrite;
        break;
      case kRead:
        if (protocol::look_to_read(m, word, spinning)) c.where = kReading;
        break;
      case kWrite:
        if (keeps_waiting_bit) {
          std::uint32_t seen = m.load(word, std::memory_order_relaxed) & protocol::kWriterWaits;
          if (m.cas(word, seen, seen | protocol::kWriter, std::memory_order_acquire)) {
            c.where = kWriting;
            break;
          }
        }
        if (protocol::look_to_write(m, word, spinning)) c.where = kWriting;
        break;
      case kReading:
        m.ghost(Ghost::enter_shared);
        m.ghost(Ghost::leave_shared);
        change(m, word, [](std::uint32_t seen) { return seen - 1; });
        c = {kNext, static_cast<std::uint8_t>(c.word + 1)};
        break;
      case kWriting:
        m.ghost(Ghost::enter);
        m.ghost(Ghost::leave);
        change(m, word, [](std::uint32_t seen) { return seen & ~protocol::kWriter; });
        c = {kNext, static_cast<std::uint8_t>(c.word + 1)};
        break;
      default:
        break;
    }
  }

  /// The lock's fetch_sub and fetch_and.
  template <class Change>
  static void change(Machine& m, Cell word, Change how) {
    std::uint32_t seen = m.load(word, std::memory_order_relaxed);
    while (!m.cas(word, seen, how(seen), std::memory_order_release)) {
    }
  }
};

Verdict explored(const std::vector<const char*>& words, Using program = {}) {
  std::string said;
  for (std::size_t i = 0; i < words.size(); ++i) {
    program.words[i] = words[i];
    said += std::string(words[i]) + " ";
  }
  const Verdict verdict = Explorer<Using>(program, {.threads = static_cast<int>(words.size())}).explore();
  std::printf("%s: %s, %zu states\n", said.c_str(), to_string(verdict.what), verdict.states);
  return verdict;
}

TEST(SpinModel, readers_and_writers_do_not_mix_and_all_get_in) {
  for (const auto& words : std::vector<std::vector<const char*>>{
           {"rrr", "www"}, {"rw", "wr", "r"}, {"rr", "ww", "w"}, {"r", "r", "w", "w"}, {"rwr", "wrw"}})
    EXPECT_EQ(explored(words).story, "");
}

TEST(SpinModel, a_writer_that_leaves_the_waiting_bit_behind_locks_the_readers_out) {
  Using flawed;
  flawed.keeps_waiting_bit = true;
  EXPECT_EQ(explored({"r", "w", "r"}, flawed).what, Verdict::What::wedged);
}

}  // namespace
