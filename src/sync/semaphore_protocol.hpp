// SPDX-License-Identifier: MIT
// The protocol of the plain semaphore: a count that anybody may raise.
//
// The sleepers' word must have no owner in the kernel's eyes whenever a wake may be needed: only then does the kernel
// pass on the wake of a waiter that was killed (words.hpp; handle_futex_death). So the count, which would look like an
// owner, is not in it. The word says whether units are there (flag: "available") and whether somebody may sleep; it is
// the low half of one 64-bit cell with the count in the high half, so that the two cannot disagree.
//
// Memory order. The acquire of the cas that takes a unit pairs with the release of the cas that gave it. The waiters
// bit is sticky and cleared only in one step with waking all, as everywhere.
#pragma once

#include "sync/mutex_protocol.hpp"

namespace holdfast::sync::semaphore_protocol {

using mutex_protocol::Round;

// The 64-bit cell.
constexpr std::uint64_t pack(std::uint32_t count, bool waiters) {
  return static_cast<std::uint64_t>(count) << 32 | (count != 0 ? words::kFlag : 0) | (waiters ? words::kWaiters : 0);
}
constexpr std::uint32_t count_of(std::uint64_t cell) { return static_cast<std::uint32_t>(cell >> 32); }
constexpr std::uint32_t word_of(std::uint64_t cell) { return static_cast<std::uint32_t>(cell); }

/// Leaves without a unit; a wake that we may have consumed is passed on if there is a unit to wake for.
template <class M, class S>
Outcome give_up(M& m, S& s, const Round& round, Outcome why) {
  if (round.woken && count_of(m.load(s.cell, std::memory_order_relaxed)) != 0) m.wake_one(s.word(), futex::Class::any);
  m.unpend();
  return why;
}

template <class M, class S>
Outcome look(M& m, S& s, Round& round, const Wait& wait) {
  std::uint64_t seen = m.load(s.cell, std::memory_order_relaxed);
  if (count_of(seen) != 0) {
    const std::uint64_t less = pack(count_of(seen) - 1, words::has_waiters(word_of(seen)));
    if (!m.cas(s.cell, seen, less, std::memory_order_acquire)) return Outcome::again;
    m.unpend();
    return Outcome::clean;
  }
  if (wait.how == Wait::How::never) return semaphore_protocol::give_up(m, s, round, Outcome::busy);
  if (m.told_to_end(wait)) return semaphore_protocol::give_up(m, s, round, Outcome::interrupted);
  if (m.spin(round.spun)) return Outcome::again;
  if (m.past(wait)) return semaphore_protocol::give_up(m, s, round, Outcome::timed_out);
  if (!words::has_waiters(word_of(seen))) {
    if (!m.cas(s.cell, seen, pack(0, true), std::memory_order_relaxed)) return Outcome::again;
    seen = pack(0, true);
  }
  const futex::Woke why = m.sleep(s.word(), word_of(seen), futex::Class::any, wait);
  round.spun = 0;
  round.woken = why == futex::Woke::look_again;
  if (why == futex::Woke::interrupted && wait.how == Wait::How::interruptible)
    return semaphore_protocol::give_up(m, s, round, Outcome::interrupted);
  return Outcome::again;
}

template <class M, class S>
Outcome down(M& m, S& s, const Wait& wait) {
  m.pend(s);
  Round round;
  Outcome outcome = Outcome::again;
  while (outcome == Outcome::again) outcome = semaphore_protocol::look(m, s, round, wait);
  return outcome;
}

/// One try at giving a unit.
template <class M, class S>
Outcome give(M& m, S& s, std::uint32_t most) {
  std::uint64_t seen = m.load(s.cell, std::memory_order_relaxed);
  if (count_of(seen) >= most) {
    m.unpend();
    return Outcome::overflow;
  }
  const bool waiters = words::has_waiters(word_of(seen));
  if (!m.cas(s.cell, seen, pack(count_of(seen) + 1, waiters), std::memory_order_release)) return Outcome::again;
  // If we die here, the pending word has no owner, and the kernel wakes one in our stead.
  if (waiters) m.lonely(s.word(), m.wake_one(s.word(), futex::Class::any) == 0);
  m.unpend();
  return Outcome::clean;
}

template <class M, class S>
Outcome up(M& m, S& s, std::uint32_t most) {
  m.pend(s);
  // Before the unit is given: afterwards the semaphore may be gone.
  if (m.lonely(s.word())) {
    m.lonely(s.word(), false);
    m.clear_waiters_and_wake_all(s.word());
  }
  Outcome outcome = Outcome::again;
  while (outcome == Outcome::again) outcome = semaphore_protocol::give(m, s, most);
  return outcome;
}

}  // namespace holdfast::sync::semaphore_protocol
