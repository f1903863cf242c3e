// SPDX-License-Identifier: MIT
// The protocol of the semaphore that knows who took its units: a lock word for each unit, and a gate in front of them.
//
// Whoever finds no free unit takes the gate, a robust lock as any, and sleeps on all units at once. So there is one
// sleeper on the units: the kernel's single wake for a dead holder's unit reaches it, and if it is killed itself, its
// successor at the gate looks at all units afresh. The units are mutex words with the mutex's sticky waiters bit.
//
// A sleep on many words is not ended by every handler. An interruptible wait sleeps on `given` instead, a count that
// whoever gives a unit with the waiters bit raises. Not after the release, for then the semaphore may be gone; but one
// that reads the count between the two, and finds the unit still taken, must not sleep on it. So the unit's flag is
// turned on before the count is raised, and who sees the flag looks again. Of a dead holder it hears by looking now and
// then.
//
// `L` has the nodes units and gate, and the cell given; M::Watching collects the words to sleep on.
//
// Memory order: that of mutex_protocol.hpp for each unit. The flag, the count and the release are stores of one thread,
// the count with release; a waiter reads the count with acquire and the unit after it: if it read the raised count it
// sees the flag, or the unit released.
#pragma once

#include "sync/mutex_protocol.hpp"

namespace holdfast::sync::owned_protocol {

/// A free unit, if there is one. A unit has nothing to repair: its death is told once and forgotten.
template <class M, class L>
Outcome take_free(M& m, L& l, std::uint32_t home) {
  const std::size_t units = l.units.size();
  std::size_t at = home < units ? home : home % units;
  for (std::size_t k = 0; k < units; ++k, at = at + 1 < units ? at + 1 : 0) {
    auto& unit = l.units[at];
    if (words::owner(m.load(unit.word, std::memory_order_relaxed)) != 0) continue;
    m.pend(unit);
    std::uint32_t seen = m.load(unit.word, std::memory_order_relaxed);
    if (words::owner(seen) == 0 &&
        m.cas(unit.word, seen, words::taken(seen, m.me(), false), std::memory_order_acquire)) {
      const Outcome outcome = mutex_protocol::own(m, unit, seen);
      if (outcome == Outcome::clean) [[likely]]
        return outcome;
      m.store(unit.dirty, 0, std::memory_order_relaxed);
      return Outcome::owner_died;
    }
    m.unpend();
  }
  return Outcome::again;
}

/// Whether the caller has all units: then nobody can end its wait.
template <class M, class L>
bool has_all(M& m, L& l) {
  for (auto& unit : l.units)
    if (words::owner(m.load(unit.word, std::memory_order_relaxed)) != m.me()) return false;
  return true;
}

/// One look of the one who holds the gate.
template <class M, class L>
Outcome look(M& m, L& l, std::uint32_t home, int& spun, const Wait& wait) {
  const std::uint32_t given = m.load(l.given, std::memory_order_acquire);
  const Outcome outcome = owned_protocol::take_free(m, l, home);
  if (outcome != Outcome::again) return outcome;
  if (m.told_to_end(wait)) return Outcome::interrupted;
  if (m.spin(spun)) return Outcome::again;
  if (m.past(wait)) return Outcome::timed_out;
  typename M::Watching watching;
  for (auto& unit : l.units) {
    std::uint32_t seen = m.load(unit.word, std::memory_order_relaxed);
    if (words::owner(seen) == 0) return Outcome::again;
    if ((seen & words::kFlag) != 0 && wait.how == Wait::How::interruptible) {
      m.give_way();
      return Outcome::again;
    }
    if (!words::has_waiters(seen)) {
      if (!m.cas(unit.word, seen, words::awaited(seen), std::memory_order_relaxed)) return Outcome::again;
      seen = words::awaited(seen);
    }
    watching.add(unit.word, seen);
  }
  const futex::Woke why = m.sleep_on(watching, l.given, given, wait);
  spun = 0;
  if (why == futex::Woke::interrupted && wait.how == Wait::How::interruptible) return Outcome::interrupted;
  return Outcome::again;
}

template <class M, class L>
Outcome down(M& m, L& l, std::uint32_t home, const Wait& wait) {
  Outcome outcome = owned_protocol::take_free(m, l, home);
  if (outcome != Outcome::again) return outcome;
  if (owned_protocol::has_all(m, l)) return Outcome::deadlock;
  if (wait.how == Wait::How::never) return Outcome::busy;
  int spun = 0;
  while (m.spin(spun)) {
    outcome = owned_protocol::take_free(m, l, home);
    if (outcome != Outcome::again) return outcome;
  }
  const Outcome first = mutex_protocol::lock(m, l.gate, wait);
  if (!holds(first)) return first;
  m.store(l.gate.dirty, 0, std::memory_order_relaxed);  // it protects nothing that a death could damage
  spun = 0;
  do outcome = owned_protocol::look(m, l, home, spun, wait);
  while (outcome == Outcome::again);
  mutex_protocol::unlock(m, l.gate);
  return outcome;
}

/// Somebody sleeps, or did: nobody else changes the word any more. From the release on the semaphore may be gone.
template <class M, class L, class N>
[[gnu::noinline]] void release_to_waiters(M& m, L& l, N& unit) {
  m.store(unit.word, words::kWaiters | words::kFlag | m.me(), std::memory_order_relaxed);
  std::uint32_t given = m.load(l.given, std::memory_order_relaxed);
  while (!m.cas(l.given, given, given + 1, std::memory_order_release)) {
  }
  if (m.lonely(unit.word)) {
    m.lonely(unit.word, false);
    m.release_and_wake_all(unit.word);
    m.wake_one(l.given, futex::Class::any);
  } else {
    m.store(unit.word, words::released_to_waiters(), std::memory_order_release);
    const unsigned woken = m.wake_one(unit.word, futex::Class::any) + m.wake_one(l.given, futex::Class::any);
    m.lonely(unit.word, woken == 0);
  }
  m.unpend();
}

template <class M, class L, class N>
Outcome up(M& m, L& l, N& unit) {
  m.pend(unit);
  m.dequeue(unit);
  std::uint32_t alone = m.me();
  if (m.cas(unit.word, alone, 0, std::memory_order_release)) [[likely]] {
    m.unpend();
    return Outcome::clean;
  }
  owned_protocol::release_to_waiters(m, l, unit);
  return Outcome::clean;
}

}  // namespace holdfast::sync::owned_protocol
