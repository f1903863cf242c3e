// SPDX-License-Identifier: MIT
// The machine under the protocols: real atomics, the kernel's futexes, the thread's robust list. The protocols are
// templates over it; the model tier puts a simulated machine in its place and runs the same code.
#pragma once

#include "sync/futex.hpp"
#include "sync/interruption.hpp"
#include "sync/outcome.hpp"
#include "sync/thread.hpp"
#include "sync/words.hpp"

#include <algorithm>
#include <climits>

namespace holdfast::sync {

/// Bumped by note_termination(); killable waits watch it beside their word.
extern constinit std::atomic<std::uint32_t> termination;

/// How long one looks before one sleeps, in pauses: about as long as a sleep and a wake-up take together.
constexpr int kSpinLimit = 1000;
constexpr int kSpinStep = 128;               // the most between two looks: some 4 us where a pause is long
constexpr std::uint64_t kRecently = 10'000;  // ns

/// How long a reader sleeps, whoever is faster, before writers let it in first: in nanoseconds, a few wake-ups.
constexpr std::uint64_t kPatience = 200'000;

inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("isb");
#endif
}

class Host {
 public:
  using Cell = std::atomic<std::uint32_t>;

  explicit Host(Thread& thread) : thread_(thread) {}

  [[nodiscard]] std::uint32_t me() const { return thread_.tid; }

  static std::uint32_t load(const Cell& cell, std::memory_order order) { return cell.load(order); }
  static void store(Cell& cell, std::uint32_t value, std::memory_order order) { cell.store(value, order); }
  /// On failure `expected` is what was seen, relaxed.
  static bool cas(Cell& cell, std::uint32_t& expected, std::uint32_t value, std::memory_order order) {
    return cell.compare_exchange_strong(expected, value, order, std::memory_order_relaxed);
  }

  using WideCell = std::atomic<std::uint64_t>;
  static std::uint64_t load(const WideCell& cell, std::memory_order order) { return cell.load(order); }
  static void store(WideCell& cell, std::uint64_t value, std::memory_order order) { cell.store(value, order); }
  static bool cas(WideCell& cell, std::uint64_t& expected, std::uint64_t value, std::memory_order order) {
    return cell.compare_exchange_strong(expected, value, order, std::memory_order_relaxed);
  }

  void pend(Node& node) { sync::pend(thread_, node); }
  /// For words that are no node: whatever lies 32 bytes behind them stands for the link.
  template <class Layout>
  void pend(Layout& layout) {
    pend_at(thread_, static_cast<void*>(&layout.next));
  }
  void unpend() { sync::unpend(thread_); }
  void enqueue(Node& node) { sync::enqueue(thread_, node); }
  void dequeue(Node& node) { sync::dequeue(node); }

  /// One step of looking before sleeping; false when it is time to sleep. With growing pauses: each look takes the line
  /// from those who work on it. One that waited a moment ago begins with a long pause: others are busy here, and get
  /// through more if they are let alone.
  bool spin(int& spent) {
    if (spent != 0) return spin_by(spent, std::min(spent + 1, kSpinStep));
    const std::uint64_t now = futex::now();
    const bool again = now - thread_.waited < kRecently;
    thread_.waited = now;
    return spin_by(spent, again ? kSpinStep / 2 : 1);
  }
  /// The same for who is next, and holds up the others meanwhile.
  static bool spin_next(int& spent) { return spin_by(spent, 1); }
  /// The same for sections of a few instructions.
  static bool spin_short(int& spent) { return spin_by(spent, std::min(spent + 1, kSpinStep / 4)); }

  /// Whether whoever `word` names as owner is gone without the kernel having said so: not so for threads.
  static constexpr bool owner_is_gone(const Node&, std::uint32_t) { return false; }

  static bool told_to_end(const Wait& wait) {
    return wait.how == Wait::How::killable && termination.load(std::memory_order_acquire) != 0;
  }

  static futex::Woke sleep(const Cell& cell, std::uint32_t value, futex::Class as, const Wait& wait) {
    // Watching `termination` in the same call leaves no moment in which it could be missed.
    if (wait.how == Wait::How::killable) return futex::wait_either(cell, value, termination, 0, wait.deadline);
    if (wait.how == Wait::How::interruptible) return sleep_interruptibly(cell, value, as, wait.deadline);
    return futex::wait(cell, value, as, wait.deadline);
  }
  static bool past(const Wait& wait) { return wait.deadline != 0 && futex::now() >= wait.deadline; }

  /// Whether one that first slept at `since`, which it writes down, has waited long enough.
  static bool impatient(std::uint64_t& since) {
    const std::uint64_t now = futex::now();
    if (since == 0) since = now;
    return now - since >= kPatience;
  }

  static unsigned wake_one(const Cell& cell, futex::Class whom) { return futex::wake(cell, 1, whom); }
  static unsigned wake_all(const Cell& cell, futex::Class whom) { return futex::wake(cell, INT_MAX, whom); }
  static void release_and_wake_all(Cell& cell) { futex::release_and_wake_all(cell); }
  static void clear_waiters_and_wake_all(Cell& cell) { futex::clear_waiters_and_wake_all(cell); }

  /// Whether this thread's last wake on the word found nobody. A hint, kept in the thread because the lock may be gone
  /// once it is released; the protocols are right whatever it says.
  bool lonely(const Cell& cell) { return thread_.lonely == &cell; }
  void lonely(const Cell& cell, bool found_nobody) {
    if (found_nobody) {
      thread_.lonely = &cell;
    } else if (thread_.lonely == &cell) {
      thread_.lonely = nullptr;
    }
  }

 private:
  static bool spin_by(int& spent, int step) {
    if (spent >= kSpinLimit) return false;
    for (int i = 0; i < step; ++i) relax();
    spent += step;
    return true;
  }

  Thread& thread_;
};

}  // namespace holdfast::sync
