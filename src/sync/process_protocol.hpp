// SPDX-License-Identifier: MIT
// The protocol of the mutex that a process owns: the one-owner protocol's word with a process in it, and its start time
// beside it in one 64-bit cell.
//
// The kernel gives nothing back at a process's end, only at a thread's: the word's owner equals no thread id. So those
// who wait look for the owner's death themselves, each sleeping for some milliseconds at most. Wakes need no such help:
// the sticky waiters bit and the pending mark carry them past any death, as in mutex_protocol.hpp.
//
// `M` is the machine, `L` has the cells `cell`, `dirty` and `thread`, and word(), the half of `cell` that one sleeps
// on. A cell's value has the word in its low half and, as the machine names its process, the start time in the high
// one.
//
// Memory order: as in mutex_protocol.hpp. Taking from a dead owner is ordered by its end: the kernel's report of it
// comes after all that its threads did. `dirty` is touched by the owning process alone, and `thread` is written by it
// alone; who reads `thread` finds his own id only if he wrote it.
#pragma once

#include "sync/mutex_protocol.hpp"

namespace holdfast::sync::process_protocol {

template <class V>
constexpr std::uint32_t word_of(V cell) {
  return static_cast<std::uint32_t>(cell);
}
template <class V>
constexpr bool is(V cell, V name) {
  return (cell & ~static_cast<V>(words::kWaiters)) == name;
}

template <class M, class L>
Outcome own(M& m, L& l, bool from_the_dead) {
  // If we die before it is said, the next one finds a dead owner, and is told as we should have been.
  if (from_the_dead) m.store(l.dirty, 1, std::memory_order_relaxed);
  m.store(l.thread, m.me(), std::memory_order_relaxed);
  if (from_the_dead) return Outcome::owner_died;
  return m.load(l.dirty, std::memory_order_relaxed) != 0 ? Outcome::inconsistent : Outcome::clean;
}

struct Round {
  int spun = 0;
  bool slept = false;       // others may sleep here too: take the word with the waiters bit
  bool woken = false;       // the last sleep may have consumed a wake
  bool ask = false;         // time to ask whether the owner lives
  std::uint32_t asked = 0;  // how often in vain: one asks ever more seldom
};

template <class M, class L>
Outcome give_up(M& m, L& l, const Round& round, Outcome why) {
  if (round.woken && words::owner(word_of(m.load(l.cell, std::memory_order_relaxed))) == 0)
    m.wake_one(l.word(), futex::Class::any);
  m.unpend();
  return why;
}

/// One look at a lock that was not free at first sight; called until it answers anything but again.
template <class M, class L>
Outcome look(M& m, L& l, Round& round, const Wait& wait) {
  auto seen = m.load(l.cell, std::memory_order_relaxed);
  using Value = decltype(seen);
  const Value waiters = words::kWaiters;
  const bool free = words::owner(word_of(seen)) == 0;
  const bool dead = !free && m.owner_is_gone(seen, round.ask || wait.how == Wait::How::never);
  if (free || dead) {
    const Value mine = m.name() | (seen & waiters) | (round.slept ? waiters : 0);
    if (!m.cas(l.cell, seen, mine, std::memory_order_acquire)) return Outcome::again;
    const Outcome outcome = process_protocol::own(m, l, dead);
    m.unpend();
    return outcome;
  }
  if (is(seen, m.name()) && m.load(l.thread, std::memory_order_relaxed) == m.me())
    return process_protocol::give_up(m, l, round, Outcome::deadlock);
  if (wait.how == Wait::How::never) return process_protocol::give_up(m, l, round, Outcome::busy);
  if (m.told_to_end(wait)) return process_protocol::give_up(m, l, round, Outcome::interrupted);
  if (m.spin(round.spun)) return Outcome::again;
  if (m.past(wait)) return process_protocol::give_up(m, l, round, Outcome::timed_out);
  if (!words::has_waiters(word_of(seen))) {
    if (!m.cas(l.cell, seen, seen | waiters, std::memory_order_relaxed)) return Outcome::again;
    seen |= waiters;
  }
  const futex::Woke why = m.sleep_until_asking(l.word(), word_of(seen), round.asked, wait);
  round.slept = true;
  round.spun = 0;
  round.woken = why == futex::Woke::look_again;
  round.ask = why == futex::Woke::timed_out;
  round.asked = round.ask ? round.asked + 1 : 0;
  if (why == futex::Woke::interrupted && wait.how == Wait::How::interruptible)
    return process_protocol::give_up(m, l, round, Outcome::interrupted);
  return Outcome::again;
}

/// The first look: a free lock that nobody waits for.
template <class M, class L>
Outcome begin(M& m, L& l) {
  auto seen = m.name();
  seen = 0;
  if (m.cas(l.cell, seen, m.name(), std::memory_order_acquire)) [[likely]]
    return process_protocol::own(m, l, false);
  m.pend(l);
  return Outcome::again;
}

template <class M, class L>
Outcome lock(M& m, L& l, const Wait& wait) {
  Outcome outcome = process_protocol::begin(m, l);
  if (outcome == Outcome::again) [[unlikely]] {
    Round round;
    do outcome = process_protocol::look(m, l, round, wait);
    while (outcome == Outcome::again);
  }
  return outcome;
}

/// From the release on the lock may be another's, or gone: nothing but the wake touches it.
template <class M, class L>
[[gnu::noinline]] void release_to_waiters(M& m, L& l) {
  m.pend(l);
  if (m.lonely(l.word())) {
    m.lonely(l.word(), false);
    m.release_and_wake_all(l.word());
  } else {
    m.store(l.cell, words::kWaiters, std::memory_order_release);
    m.lonely(l.word(), m.wake_one(l.word(), futex::Class::any) == 0);
  }
  m.unpend();
}

template <class M, class L>
Outcome unlock(M& m, L& l) {
  if (!is(m.load(l.cell, std::memory_order_relaxed), m.name())) [[unlikely]]
    return Outcome::not_owner;
  m.store(l.thread, 0, std::memory_order_relaxed);
  auto alone = m.name();
  if (m.cas(l.cell, alone, 0, std::memory_order_release)) [[likely]]
    return Outcome::clean;
  process_protocol::release_to_waiters(m, l);
  return Outcome::clean;
}

}  // namespace holdfast::sync::process_protocol
