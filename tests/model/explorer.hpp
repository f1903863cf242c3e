// SPDX-License-Identifier: MIT
// An explicit-state explorer that runs the locks' own protocol code (src/sync/*_protocol.hpp) on a simulated machine,
// in every interleaving of its threads, with a kill -9 at every step, the kernel's clean-up of the dead included.
//
// The protocols are templates over their machine. Here each call into the machine is one step of the model. A thread is
// stopped at its next call by running the current piece of protocol again with the answers it got so far, and leaving
// it by longjmp where the answers end; when the piece returns, its answers are forgotten and only its context is kept.
// So a state is: memory, the futex queues, each thread's context and answers, and what the kernel knows of each thread.
//
// Steps that only the thread itself and its kernel can see (the robust list) are not interleaved with the others'
// steps, only with the thread's own death: that is exact, and leaves a tenth of the states.
#pragma once

#include <setjmp.h>
#include <stdlib.h>

#include <array>
#include <bit>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <deque>
#include <string>
#include <type_traits>
#include <unordered_map>
#include <vector>

#include "sync/futex.hpp"
#include "sync/outcome.hpp"
#include "sync/words.hpp"

namespace model {

namespace words = holdfast::sync::words;
using holdfast::sync::Outcome;
using holdfast::sync::Wait;
using holdfast::sync::futex::Class;
using holdfast::sync::futex::Woke;

constexpr int kThreads = 4;
constexpr int kCells = 24;
constexpr int kAnswers = 32;
constexpr int kContext = 40;
constexpr std::uint8_t kNone = 0xff;
constexpr std::uint8_t kStuck = kCells - 1;  // a cell that keeps its 0 whatever is stored: for negative controls

/// A cell of memory, by its number; a node, by the number of its word, which its other cells follow.
struct Cell {
  std::uint8_t at = kNone;
};

/// A cell with a count in its high half, of which the kernel sees the low half alone (semaphore_protocol.hpp). The
/// model keeps the count where an owner would be, and hides it from its kernel.
struct WideCell {
  std::uint8_t at = kNone;
};
constexpr std::uint8_t kFirstWide = 18;  // up to kStuck

constexpr std::uint32_t seen_by_kernel(int cell, std::uint32_t value) {
  return cell >= kFirstWide && cell < kStuck ? value & ~words::kOwner : value;
}

enum class Kind : std::uint8_t {
  load,
  store,
  cas,
  pend,
  unpend,
  enqueue,
  dequeue,
  sleep,
  sleep_on,
  look_later,
  wake,
  clear_wake,
  clear_waiters,
  choose,
  gone,
  ghost
};

enum class Ghost : std::uint8_t { enter, leave, enter_shared, leave_shared, to_shared };

/// Sleeps that end by themselves now and then to see whether the owner, a process, is gone. In the model they do so
/// only when it is: so a lost wake is not mended by looking, and shows.
constexpr std::uint8_t kCanEnd = 1;
constexpr std::uint8_t kLooks = 2;

struct Step {
  Kind kind = Kind::load;
  std::uint8_t cell = 0;
  std::uint8_t can_end = 0;  // a sleep that a timeout or a handler may end, or that looks for a dead process (kLooks)
  std::uint8_t detail = 0;   // sleep: class; wake: 1 or all; ghost: which
  std::uint32_t a = 0;
  std::uint32_t b = 0;
};

enum class Life : std::uint8_t { runs, sleeps, finished, dying, dead };

struct ThreadState {
  std::array<unsigned char, kContext> context;
  std::array<std::uint32_t, kAnswers> answers;
  Step next;
  std::uint8_t answered;
  Life life;
  std::uint8_t pending;              // node being worked on
  std::array<std::uint8_t, 4> held;  // nodes on the robust list, the latest first
  std::uint8_t dying_at;             // next entry of `held`; then the pending one
  std::uint8_t dying_wake;           // the mark is set, the wake is to come
};

struct Sleeper {
  std::uint32_t cells;  // a bit for each that it sleeps on
  std::uint8_t thread;
  std::uint8_t as;
  std::uint8_t unused[2];
};

struct State {
  std::array<std::uint32_t, kCells> memory;
  std::array<ThreadState, kThreads> threads;
  std::array<Sleeper, kThreads> queue;  // in the order in which they fell asleep
  std::uint8_t sleeping;
  std::uint8_t kills;
  std::uint8_t ends;              // sleeps ended by a timeout or a handler
  std::uint8_t inside;            // threads in an exclusive section
  std::uint8_t shared;            // threads in a shared section
  std::uint8_t corpse;            // one died inside and nobody was told
  std::uint8_t phases[kThreads];  // writers that went in while the reader slept
  [[nodiscard]] Class queue_class(int thread) const {
    for (const Sleeper& each : queue)
      if (each.as != 0 && each.thread == thread) return static_cast<Class>(each.as);
    return Class::any;
  }
};
static_assert(std::is_trivially_copyable_v<State> && std::has_unique_object_representations_v<Step>);

/// Whether the process that a word names has ended.
inline bool is_gone(const State& state, std::uint32_t word) {
  const std::uint32_t owner = words::owner(word);
  const std::uint32_t process = owner & ~words::kProcess;
  return (owner & words::kProcess) != 0 && process != 0 && state.threads[process - 1].life == Life::dead;
}

/// Whether a reader that is about to sleep has been patient for long enough.
enum class Patience : std::uint8_t { none, endless, either };

/// The machine as the protocols see it.
class Machine {
 public:
  using CellType = Cell;

  [[nodiscard]] std::uint32_t me() const { return me_; }
  std::uint32_t load(Cell cell, std::memory_order) { return step({Kind::load, cell.at}); }
  void store(Cell cell, std::uint32_t value, std::memory_order) { step({Kind::store, cell.at, 0, 0, value}); }
  bool cas(Cell cell, std::uint32_t& expected, std::uint32_t value, std::memory_order) {
    const std::uint32_t seen = step({Kind::cas, cell.at, 0, 0, expected, value});
    const bool done = seen == expected;
    expected = seen;
    return done;
  }
  std::uint64_t load(WideCell cell, std::memory_order order) { return wide(load(Cell{cell.at}, order)); }
  bool cas(WideCell cell, std::uint64_t& expected, std::uint64_t value, std::memory_order order) {
    std::uint32_t seen = narrow(expected);
    const bool done = cas(Cell{cell.at}, seen, narrow(value), order);
    expected = wide(seen);
    return done;
  }
  void clear_waiters_and_wake_all(Cell cell) { step({Kind::clear_waiters, cell.at}); }
  template <class N>
  void pend(N& node) {
    step({Kind::pend, node.word.at});
  }
  void unpend() { step({Kind::unpend}); }
  template <class N>
  void enqueue(N& node) {
    step({Kind::enqueue, node.word.at});
  }
  template <class N>
  void dequeue(N& node) {
    step({Kind::dequeue, node.word.at});
  }
  template <class N>
  static constexpr bool owner_is_gone(const N&, std::uint32_t) {
    return false;
  }

  // Processes, each with one thread. No thread's id is a process's name, so the kernel does not touch their words.
  [[nodiscard]] std::uint32_t name() const { return words::kProcess | me_; }
  bool owner_is_gone(std::uint32_t cell, bool ask) { return ask && step({Kind::gone, 0, 0, 0, cell}) != 0; }
  Woke sleep_until_asking(Cell cell, std::uint32_t value, std::uint32_t, const Wait& wait) {
    const std::uint8_t can_end = wait.how == Wait::How::interruptible ? kLooks | kCanEnd : kLooks;
    return static_cast<Woke>(step({Kind::sleep, cell.at, can_end, 3, value}));
  }

  /// Words to sleep on, in the order of their cells; what they hold in few bits: no word of the model needs more.
  struct Watching {
    std::uint32_t cells = 0;
    std::uint32_t values = 0;
    void add(Cell cell, std::uint32_t value) {
      cells |= 1U << cell.at;
      values = and_pack(values, value);
    }
    static std::uint32_t and_pack(std::uint32_t packed, std::uint32_t value) {
      return packed << 6 | value >> 30 << 4 | (value & 15);
    }
  };
  static void give_way() {}
  /// An interruptible wait sleeps on `count` alone, and looks at the units now and then.
  Woke sleep_on(const Watching& units, Cell count, std::uint32_t so_far, const Wait& wait) {
    if (wait.how == Wait::How::interruptible)
      return static_cast<Woke>(step({Kind::sleep, count.at, kLooks | kCanEnd, 3, so_far}));
    const std::uint8_t can_end = wait.deadline != 0 ? kCanEnd : 0;
    return static_cast<Woke>(step({Kind::sleep_on, 0, can_end, 3, units.values, units.cells}));
  }

  /// What spins looks again when there is something new to see: until then it changes nothing.
  struct Spinning {};
  void look_later(Cell cell, std::uint32_t value, Spinning&) { step({Kind::look_later, cell.at, 0, 0, value}); }

  // Looking again before sleeping is the same as being scheduled later.
  static bool spin(int&) { return false; }
  static bool spin_next(int&) { return false; }
  bool impatient(std::uint64_t&) { return patience_ == Patience::none || (patience_ == Patience::either && choose()); }
  static bool told_to_end(const Wait&) { return false; }
  static bool past(const Wait&) { return false; }
  Woke sleep(Cell cell, std::uint32_t value, Class as, const Wait& wait) {
    const std::uint8_t can_end = wait.how == Wait::How::interruptible || wait.deadline != 0 ? 1 : 0;
    return static_cast<Woke>(
        step({Kind::sleep, cell.at, can_end, static_cast<std::uint8_t>(static_cast<std::uint32_t>(as) & 3), value}));
  }
  unsigned wake_one(Cell cell, Class whom) { return step({Kind::wake, cell.at, 0, 1, class_bits(whom)}); }
  unsigned wake_all(Cell cell, Class whom) { return step({Kind::wake, cell.at, 0, kThreads, class_bits(whom)}); }
  void release_and_wake_all(Cell cell) { step({Kind::clear_wake, cell.at}); }
  bool lonely(Cell) { return choose(); }  // the protocols must be right whatever the hint says
  static void lonely(Cell, bool) {}

  bool choose() { return step({Kind::choose}) != 0; }
  void ghost(Ghost what, Outcome outcome = Outcome::clean) {
    step({Kind::ghost, 0, 0, static_cast<std::uint8_t>(what), static_cast<std::uint32_t>(outcome)});
  }

 private:
  template <class Program>
  friend class Explorer;

  static std::uint64_t wide(std::uint32_t value) {
    return static_cast<std::uint64_t>(words::owner(value)) << 32 | (value & ~words::kOwner);
  }
  static std::uint32_t narrow(std::uint64_t value) {
    return static_cast<std::uint32_t>(value) | static_cast<std::uint32_t>(value >> 32);
  }
  static std::uint32_t class_bits(Class whom) { return static_cast<std::uint32_t>(whom) & 3; }

  std::uint32_t step(const Step& wanted) {
    if (at_ < answered_) return answers_[at_++];
    wanted_ = wanted;
    longjmp(stop_, 1);  // over frames of trivial objects only
  }

  jmp_buf stop_;
  const std::uint32_t* answers_ = nullptr;
  int answered_ = 0;
  int at_ = 0;
  std::uint32_t me_ = 0;
  Patience patience_ = Patience::none;
  Step wanted_;
};

struct Scope {
  int threads = 2;
  int kills = 0;
  int ends = 0;                                            // timeouts and handlers
  std::vector<std::pair<int, std::uint32_t>> memory = {};  // what is not zero at the start
  std::size_t most_states = 20'000'000;
  int most_shared = kThreads;  // in a shared section at a time

  Patience patience = Patience::none;
};

struct Verdict {
  enum class What : std::uint8_t { holds, violated, wedged, too_large } what = What::holds;
  std::size_t states = 0;
  std::string story;  // the steps that lead there
  int most_phases = 0;
};

/// Program: struct Context (trivial, at most kContext bytes); Context start(int thread) const; bool finished(const
/// Context&, int thread) const; void run(Machine&, Context&, int thread) const, one piece of protocol; bool
/// may_sleep(const State&), whether at the end a sleeper is as it should be.
template <class Program>
class Explorer {
 public:
  using Context = typename Program::Context;
  static_assert(std::is_trivially_copyable_v<Context> && sizeof(Context) <= kContext);

  Explorer(Program program, Scope scope) : program_(program), scope_(scope) { machine_.patience_ = scope.patience; }

  Verdict explore() {
    State first;
    std::memset(static_cast<void*>(&first), 0, sizeof(first));
    for (const auto& [cell, value] : scope_.memory) first.memory[cell] = value;
    for (int t = 0; t < scope_.threads; ++t) {
      ThreadState& thread = first.threads[t];
      thread.pending = kNone;
      thread.held.fill(kNone);
      const Context context = program_.start(t);
      std::memcpy(thread.context.data(), &context, sizeof(context));
      settle(first, t);
    }
    for (int t = scope_.threads; t < kThreads; ++t) first.threads[t].life = Life::dead;
    add(first, {}, "");
    while (!open_.empty() && verdict_.what == Verdict::What::holds) {
      current_ = open_.front();
      open_.pop_front();
      here_ = key(current_);
      expand();
    }
    verdict_.states = seen_.size();
    return verdict_;
  }

 private:
  struct Key {
    std::uint64_t a = 0;
    std::uint64_t b = 0;
    bool operator==(const Key&) const = default;
  };
  struct HashKey {
    std::size_t operator()(const Key& k) const { return k.a; }
  };
  struct From {
    Key parent;
    const char* what;
    std::uint32_t thread_and_cell;
  };

  // 128 bits of a state stand for it: two states of ten million share them once in 10^24 runs.
  static Key key(const State& state) {
    static_assert(sizeof(State) % 4 == 0);
    std::uint64_t a = 0x9E3779B97F4A7C15;
    std::uint64_t b = 0xC2B2AE3D27D4EB4F;
    const auto* const bytes = reinterpret_cast<const unsigned char*>(&state);
    for (std::size_t i = 0; i < sizeof(State); i += 4) {
      std::uint32_t word = 0;
      std::memcpy(&word, bytes + i, 4);
      a = (a ^ word) * 0xFF51AFD7ED558CCD;
      a ^= a >> 32;
      b = (b + word) * 0xC4CEB9FE1A85EC53;
      b ^= b >> 29;
    }
    return {a, b};
  }

  void add(const State& state, const Key& parent, const char* what, int thread = 0, int cell = 0) {
    const auto [at, fresh] =
        seen_.try_emplace(key(state), From{parent, what, static_cast<std::uint32_t>(thread << 8 | (cell & 0xff))});
    if (!fresh) return;
    open_.push_back(state);
    if (seen_.size() > scope_.most_states) fail(Verdict::What::too_large, here_, "too many states");
  }

  void fail(Verdict::What what, Key at, const std::string& why) {
    verdict_.what = what;
    std::vector<std::string> lines;
    for (; seen_.contains(at) && *seen_.at(at).what != '\0'; at = seen_.at(at).parent) {
      const From& from = seen_.at(at);
      lines.push_back("T" + std::to_string((from.thread_and_cell >> 8) + 1) + " " + from.what + " [" +
                      std::to_string(from.thread_and_cell & 0xff) + "]");
    }
    for (auto line = lines.rbegin(); line != lines.rend(); ++line) verdict_.story += *line + "\n";
    verdict_.story += why;
  }

  /// Runs thread `t` up to its next step, or to its end.
  void settle(State& state, int t) {
    ThreadState& thread = state.threads[t];
    for (;;) {
      Context& context = running_;  // not of this frame, into which longjmp returns
      std::memcpy(&context, thread.context.data(), sizeof(context));
      if (program_.finished(context, t)) {
        thread.life = Life::finished;
        thread.next = {};
        return;
      }
      machine_.answers_ = thread.answers.data();
      machine_.answered_ = thread.answered;
      machine_.at_ = 0;
      machine_.me_ = static_cast<std::uint32_t>(t) + 1;
      if (setjmp(machine_.stop_) != 0) {
        thread.next = machine_.wanted_;
        return;
      }
      program_.run(machine_, context, t);
      std::memset(thread.context.data(), 0, thread.context.size());
      std::memcpy(thread.context.data(), &context, sizeof(context));
      thread.answers.fill(0);
      thread.answered = 0;
    }
  }

  void answer(State& state, int t, std::uint32_t value) {
    ThreadState& thread = state.threads[t];
    if (thread.answered == kAnswers) {
      fail(Verdict::What::violated, here_, "the explorer's log of answers is too short");
      return;
    }
    thread.answers[thread.answered++] = value;
    settle(state, t);
  }

  static void leave_queue(State& state, int i) {
    for (int k = i; k + 1 < state.sleeping; ++k) state.queue[k] = state.queue[k + 1];
    state.queue[--state.sleeping] = {};
  }

  unsigned wake(State& state, std::uint8_t cell, unsigned most, std::uint32_t classes) {
    unsigned woken = 0;
    for (int i = 0; i < state.sleeping && woken < most;) {
      const Sleeper sleeper = state.queue[i];
      if ((sleeper.cells >> cell & 1) == 0 || (sleeper.as & classes) == 0) {
        ++i;
        continue;
      }
      leave_queue(state, i);
      state.threads[sleeper.thread].life = Life::runs;
      answer(state, sleeper.thread, static_cast<std::uint32_t>(Woke::look_again));
      ++woken;
    }
    return woken;
  }

  static bool is_private(Kind kind) {
    return kind == Kind::pend || kind == Kind::unpend || kind == Kind::enqueue || kind == Kind::dequeue;
  }

  void expand() {
    // A step that nobody else can see: it, or the thread's death before it, and nothing else from here.
    for (int t = 0; t < scope_.threads; ++t) {
      const ThreadState& thread = current_.threads[t];
      if (thread.life != Life::runs || !is_private(thread.next.kind)) continue;
      perform(t);
      kill(t);
      return;
    }
    bool progress = false;
    for (int t = 0; t < scope_.threads && verdict_.what == Verdict::What::holds; ++t) {
      switch (current_.threads[t].life) {
        case Life::runs:
          if (!spins_in_vain(t)) {
            progress = true;
            perform(t);
          }
          kill(t);
          break;
        case Life::sleeps:
          end_sleep(t);
          if (look_for_itself(t)) progress = true;
          kill(t);
          break;
        case Life::dying:
          progress = true;
          bury(t);
          break;
        default:
          break;
      }
    }
    if (progress || verdict_.what != Verdict::What::holds) return;
    for (int t = 0; t < scope_.threads; ++t) {
      if (spins_in_vain(t)) {
        fail(Verdict::What::wedged, here_,
             "T" + std::to_string(t + 1) + " spins for ever on cell " + std::to_string(current_.threads[t].next.cell));
        return;
      }
      if (current_.threads[t].life == Life::sleeps && !program_.may_sleep(current_)) {
        fail(Verdict::What::wedged, here_,
             "T" + std::to_string(t + 1) + " sleeps for ever on cell " + std::to_string(current_.threads[t].next.cell));
        return;
      }
    }
  }

  [[nodiscard]] bool spins_in_vain(int t) const {
    const ThreadState& thread = current_.threads[t];
    return thread.life == Life::runs && thread.next.kind == Kind::look_later &&
           current_.memory[thread.next.cell] == thread.next.a;
  }

  void kill(int t) {
    if (current_.kills >= scope_.kills) return;
    State state = current_;
    ThreadState& thread = state.threads[t];
    ++state.kills;
    if (thread.life == Life::sleeps)
      for (int i = 0; i < state.sleeping; ++i)
        if (state.queue[i].thread == t) leave_queue(state, i);
    const auto bit = static_cast<std::uint8_t>(1U << t);
    if ((state.inside & bit) != 0) state.corpse = 1;
    state.inside = static_cast<std::uint8_t>(state.inside & ~bit);
    state.shared = static_cast<std::uint8_t>(state.shared & ~bit);
    state.phases[t] = 0;
    thread.life = Life::dying;
    thread.context.fill(0);
    thread.answers.fill(0);
    thread.answered = 0;
    thread.next = {};
    add(state, here_, "is killed", t);
  }

  /// One step of the kernel's exit: the list first, the pending node last; the mark and the wake are two steps.
  void bury(int t) {
    State state = current_;
    ThreadState& thread = state.threads[t];
    const auto me = static_cast<std::uint32_t>(t) + 1;
    const auto finish_entry = [&] {
      thread.dying_wake = 0;
      if (thread.dying_at < thread.held.size()) {
        ++thread.dying_at;
      } else {
        thread.pending = kNone;
      }
    };
    while (thread.dying_at < thread.held.size() &&
           (thread.held[thread.dying_at] == kNone || thread.held[thread.dying_at] == thread.pending))
      ++thread.dying_at;
    const bool at_pending = thread.dying_at >= thread.held.size();
    const std::uint8_t node = at_pending ? thread.pending : thread.held[thread.dying_at];
    const char* what = "is gone";
    if (node == kNone) {
      thread.held.fill(kNone);
      thread.dying_at = 0;
      thread.life = Life::dead;
    } else if (thread.dying_wake != 0) {
      wake(state, node, 1, 3);
      finish_entry();
      what = "kernel wakes one";
    } else if (std::uint32_t& word = state.memory[node]; at_pending && words::owner(seen_by_kernel(node, word)) == 0) {
      wake(state, node, 1, 3);
      finish_entry();
      what = "kernel wakes one for the pending word";
    } else if (words::owner(word) == me) {
      const bool waiters = words::has_waiters(word);
      word = words::after_owners_death(word);
      if (waiters) {
        thread.dying_wake = 1;
      } else {
        finish_entry();
      }
      what = "kernel marks the death";
    } else {
      finish_entry();
      what = "kernel finds another's word";
    }
    add(state, here_, what, t, node);
  }

  void end_sleep(int t) {
    if (current_.ends >= scope_.ends || (current_.threads[t].next.can_end & kCanEnd) == 0) return;
    State state = current_;
    ++state.ends;
    stand_up(state, t, Woke::interrupted);
    add(state, here_, "is interrupted", t);
  }

  bool look_for_itself(int t) {
    const Step& sleep = current_.threads[t].next;
    if constexpr (requires { program_.would_see(current_, sleep); }) {
      if ((sleep.can_end & kLooks) == 0 || !program_.would_see(current_, sleep)) return false;
    } else {
      return false;
    }
    State state = current_;
    stand_up(state, t, Woke::timed_out);
    add(state, here_, "looks for itself", t);
    return true;
  }

  void stand_up(State& state, int t, Woke why) {
    for (int i = 0; i < state.sleeping; ++i)
      if (state.queue[i].thread == t) leave_queue(state, i);
    state.threads[t].life = Life::runs;
    answer(state, t, static_cast<std::uint32_t>(why));
  }

  void perform(int t) {
    const Step step = current_.threads[t].next;
    if (step.kind == Kind::choose) {
      for (std::uint32_t choice : {0U, 1U}) {
        State state = current_;
        answer(state, t, choice);
        add(state, here_, choice != 0 ? "chooses yes" : "chooses no", t);
      }
      return;
    }
    State state = current_;
    ThreadState& thread = state.threads[t];
    std::uint32_t& cell = state.memory[step.cell];
    switch (step.kind) {
      case Kind::load:
        answer(state, t, cell);
        return add(state, here_, "loads", t, step.cell);
      case Kind::store:
        if (step.cell != kStuck) cell = step.a;
        answer(state, t, 0);
        return add(state, here_, "stores", t, step.cell);
      case Kind::cas: {
        const std::uint32_t seen = cell;
        if (seen == step.a) cell = step.b;
        answer(state, t, seen);
        return add(state, here_, seen == step.a ? "cas" : "cas fails", t, step.cell);
      }
      case Kind::pend:
        thread.pending = step.cell;
        answer(state, t, 0);
        return add(state, here_, "pends", t, step.cell);
      case Kind::unpend:
        thread.pending = kNone;
        answer(state, t, 0);
        return add(state, here_, "unpends", t);
      case Kind::enqueue:
        if (thread.held.back() != kNone)
          return fail(Verdict::What::violated, here_, "the explorer's list is too short");
        for (std::size_t i = thread.held.size() - 1; i > 0; --i) thread.held[i] = thread.held[i - 1];
        thread.held[0] = step.cell;
        answer(state, t, 0);
        return add(state, here_, "enqueues", t, step.cell);
      case Kind::dequeue: {
        std::size_t i = 0;
        while (i < thread.held.size() && thread.held[i] != step.cell) ++i;
        if (i == thread.held.size()) return fail(Verdict::What::violated, here_, "dequeues what is not on its list");
        for (; i + 1 < thread.held.size(); ++i) thread.held[i] = thread.held[i + 1];
        thread.held.back() = kNone;
        answer(state, t, 0);
        return add(state, here_, "dequeues", t, step.cell);
      }
      case Kind::sleep:
        if (seen_by_kernel(step.cell, cell) != step.a) {
          answer(state, t, static_cast<std::uint32_t>(Woke::look_again));
          return add(state, here_, "does not sleep", t, step.cell);
        }
        thread.life = Life::sleeps;
        state.queue[state.sleeping++] = {1U << step.cell, static_cast<std::uint8_t>(t), step.detail, {}};
        return add(state, here_, "sleeps", t, step.cell);
      case Kind::sleep_on: {
        std::uint32_t packed = 0;
        for (std::uint8_t at = 0; at < kCells; ++at)
          if ((step.b >> at & 1) != 0) packed = Machine::Watching::and_pack(packed, state.memory[at]);
        if (packed != step.a) {
          answer(state, t, static_cast<std::uint32_t>(Woke::look_again));
          return add(state, here_, "does not sleep", t, step.cell);
        }
        thread.life = Life::sleeps;
        state.queue[state.sleeping++] = {step.b, static_cast<std::uint8_t>(t), step.detail, {}};
        return add(state, here_, "sleeps on all", t, step.cell);
      }
      case Kind::wake: {
        const unsigned woken = wake(state, step.cell, step.detail, step.a);
        answer(state, t, woken);
        return add(state, here_, woken != 0 ? "wakes" : "wakes nobody", t, step.cell);
      }
      case Kind::clear_wake:
        cell = 0;
        wake(state, step.cell, kThreads, 3);
        answer(state, t, 0);
        return add(state, here_, "clears and wakes all", t, step.cell);
      case Kind::clear_waiters:
        cell &= ~words::kWaiters;
        wake(state, step.cell, kThreads, 3);
        answer(state, t, 0);
        return add(state, here_, "clears the waiters bit and wakes all", t, step.cell);
      case Kind::look_later:
        answer(state, t, 0);
        return add(state, here_, "looks again", t, step.cell);
      case Kind::gone: {
        const bool gone = is_gone(state, step.a);
        answer(state, t, gone ? 1 : 0);
        return add(state, here_, gone ? "finds the owner gone" : "finds the owner alive", t);
      }
      case Kind::ghost:
        return haunt(state, t, step);
      default:
        return;
    }
  }

  void haunt(State& state, int t, const Step& step) {
    const auto bit = static_cast<std::uint8_t>(1U << t);
    const bool told = static_cast<Outcome>(step.a) == Outcome::owner_died;
    const char* what = "";
    switch (static_cast<Ghost>(step.detail)) {
      case Ghost::enter:
      case Ghost::enter_shared: {
        const bool shared = static_cast<Ghost>(step.detail) == Ghost::enter_shared;
        if (state.inside != 0 || (!shared && state.shared != 0))
          return fail(Verdict::What::violated, here_, "T" + std::to_string(t + 1) + " enters beside another");
        if (state.corpse != 0 && static_cast<Outcome>(step.a) == Outcome::clean)
          return fail(Verdict::What::violated, here_, "T" + std::to_string(t + 1) + " is not told of the death");
        if (told) state.corpse = 0;
        if (shared) {
          state.shared |= bit;
          if (std::popcount(state.shared) > scope_.most_shared)
            return fail(Verdict::What::violated, here_, "T" + std::to_string(t + 1) + " is one too many");
          state.phases[t] = 0;
        } else {
          state.inside |= bit;
          for (int r = 0; r < scope_.threads; ++r) {
            if (state.threads[r].life != Life::sleeps || state.queue_class(r) != Class::readers) continue;
            ++state.phases[r];
            verdict_.most_phases = std::max<int>(verdict_.most_phases, state.phases[r]);
          }
        }
        what = shared ? "ENTERS SHARED" : "ENTERS";
        break;
      }
      case Ghost::leave:
        state.inside &= static_cast<std::uint8_t>(~bit);
        what = "LEAVES";
        break;
      case Ghost::leave_shared:
        state.shared &= static_cast<std::uint8_t>(~bit);
        what = "LEAVES SHARED";
        break;
      case Ghost::to_shared:
        state.inside &= static_cast<std::uint8_t>(~bit);
        state.shared |= bit;
        what = "DOWNGRADES";
        break;
    }
    answer(state, t, 0);
    add(state, here_, what, t);
  }

  Program program_;
  Scope scope_;
  Machine machine_;
  Context running_;
  State current_;
  Key here_;
  std::deque<State> open_;
  std::unordered_map<Key, From, HashKey> seen_;
  Verdict verdict_;
};

/// Whether the scopes that take minutes are wanted too.
inline bool deep() { return ::getenv("HOLDFAST_MODEL_DEEP") != nullptr; }

inline const char* to_string(Verdict::What what) {
  switch (what) {
    case Verdict::What::holds:
      return "holds";
    case Verdict::What::violated:
      return "violated";
    case Verdict::What::wedged:
      return "wedged";
    case Verdict::What::too_large:
      return "too large";
  }
  return "?";
}

}  // namespace model
