// SPDX-License-Identifier: MIT
// The protocol of the reader/writer semaphore.
//
// A reader is a slot: a lock word of its own on its robust list. No counter of readers exists that a death could leave
// wrong; the kernel itself takes a dead reader out and wakes the writer that waits for it. A writer owns the writer's
// word, which keeps new readers out, and then waits until no slot holds a reader inside (it drains).
//
// A reader that finds a writer turns its slot's flag on (waits), and sleeps on the writer's word. A releasing writer
// wakes the readers, and whoever runs first is in: to wait each time for threads that sleep would make every change of
// phase as long as a wake-up. But a reader that has waited long enough says so (impatient), and a releasing writer of
// the phase-fair kind turns the flags of such readers off before it frees its word: exactly those are let in, and the
// next writer drains exactly them. So no reader waits for more than one phase of the writers beyond its patience.
//
// The writer's word comes back equal when one thread writes twice. A reader that was let in between its last look at
// its slot and its sleep must not fall asleep on such a word: that writer waits for it. So a reader writes down, in its
// slot, the word it may sleep on, before that last look; and a writer that drains such a slot wakes it, and first makes
// its own word differ, by the flag, if it is that one.
//
// Cells of `L`: writer (a node: word, dirty), inside, guest, used, impatient; slots[i], nodes with a cell impatient;
// kSlots of them. In a slot `dirty` is the word its reader may sleep on, without the waiters bit; 0 for none.
//
//   inside   1 while a writer changes what the lock protects: its death then, and only then, leaves damage
//   guest    1 while a reader that found no free slot holds the writer's word
//   used     no slot from here on has ever been taken: how far a writer must look
//   impatient  1 in a slot whose reader must be let in; 1 of the lock, written after it, when a writer must look for
//   one
//
// Memory order. Two threads meet as in Dekker's algorithm: a reader writes its slot and then reads the writer's word, a
// writer writes its word and then reads the slots; at least one must see the other. So these four accesses are seq_cst,
// and so are the accesses with which a reader begins to wait, writes down what it may sleep on and looks at its slot,
// and those with which it is let in and drained, for the same reason. A writer's acquire of the writer's word pairs
// with the release of the writer before; its acquire load of a slot in drain pairs with the release with which the
// reader left. A reader's seq_cst load of an open word pairs, as an acquire, with the last writer's release; a reader
// that is let in while it waits reads its slot with acquire, which pairs with the release cas in let_readers_in.
// inside, guest and the writer's dirty are touched by the owner of the writer's word alone, but that readers read dirty
// once they are in.
#pragma once

#include "sync/mutex_protocol.hpp"

namespace holdfast::sync::rw_protocol {

using futex::Class;
using futex::Woke;

enum class Policy : std::uint8_t { phase_fair, writer_first };

// What `dirty` of the writer's word says. A death is told to the first that gets in, a reader or a writer.
enum Damage : std::uint32_t { kNoDamage = 0, kTold = 1, kUntold = 2 };

template <class M, class L>
Outcome told(M& m, L& l) {
  std::uint32_t damage = m.load(l.writer.dirty, std::memory_order_relaxed);
  if (damage == kNoDamage) [[likely]]
    return Outcome::clean;
  if (damage == kUntold && m.cas(l.writer.dirty, damage, kTold, std::memory_order_relaxed)) return Outcome::owner_died;
  return Outcome::inconsistent;
}

// ---------------------------------------------------------------------------------------------------------- release

/// Which readers that wait a release lets in, and which it only wakes.
enum class Admit : std::uint8_t { none, impatient, all };

template <class M, class L>
[[gnu::noinline]] void let_readers_in(M& m, L& l, Admit whom) {
  const std::uint32_t used = m.load(l.used, std::memory_order_seq_cst);
  for (std::uint32_t i = 0; i < used; ++i) {
    auto& slot = l.slots[i];
    std::uint32_t seen = m.load(slot.word, std::memory_order_seq_cst);
    if (!words::waits_to_read(seen)) continue;
    if (whom == Admit::impatient && m.load(slot.impatient, std::memory_order_relaxed) == 0) continue;
    // It may give up or die meanwhile: then the slot is another, and there is nobody to let in.
    m.cas(slot.word, seen, words::let_in(seen), std::memory_order_seq_cst);
  }
}

constexpr Admit admits(Policy policy) { return policy == Policy::phase_fair ? Admit::impatient : Admit::none; }

/// Frees the writer's word, which is ours.
template <class M, class L>
void release(M& m, L& l, Admit whom) {
  auto& writer = l.writer;
  m.pend(writer);
  m.dequeue(writer);
  std::uint32_t seen = m.load(writer.word, std::memory_order_relaxed);
  if (!words::has_waiters(seen) && m.cas(writer.word, seen, 0, std::memory_order_seq_cst)) [[likely]] {
    m.unpend();
    return;
  }
  if (whom == Admit::all) {
    let_readers_in(m, l, whom);
  } else if (whom == Admit::impatient && m.load(l.impatient, std::memory_order_acquire) != 0) {
    m.store(l.impatient, 0,
            std::memory_order_seq_cst);  // before the look: who says so later is seen by the next writer
    let_readers_in(m, l, whom);
  }
  // From here on the lock may be another's, or gone: see mutex_protocol::unlock.
  if (m.lonely(writer.word)) {
    m.lonely(writer.word, false);
    m.release_and_wake_all(writer.word);
  } else {
    m.store(writer.word, words::released_to_waiters(), std::memory_order_seq_cst);
    unsigned woken = 0;
    if (whom != Admit::none) {
      woken = m.wake_all(writer.word, Class::readers);
      woken += m.wake_one(writer.word, Class::writers);
    } else {
      woken = m.wake_one(writer.word, Class::writers);
      if (woken == 0) woken = m.wake_all(writer.word, Class::readers);
    }
    m.lonely(writer.word, woken == 0);
  }
  m.unpend();
}

// ---------------------------------------------------------------------------------------------- taking the writer's
// word

/// The writer's word is ours since a moment ago; `before` is what it was.
template <class M, class L>
void own(M& m, L& l, std::uint32_t before) {
  // All of this before unpend: if we die, the next owner finds a dead owner again and does the same.
  if (words::owner_died(before)) {
    if (m.load(l.inside, std::memory_order_relaxed) != 0) m.store(l.writer.dirty, kUntold, std::memory_order_relaxed);
    m.store(l.inside, 0, std::memory_order_relaxed);
    m.store(l.guest, 0, std::memory_order_relaxed);
  }
  m.enqueue(l.writer);
  m.unpend();
}

/// Takes an ownerless writer's word, if it still is `seen`.
template <class M, class L>
bool try_own(M& m, L& l, std::uint32_t seen, bool slept) {
  std::uint32_t expected = seen;
  if (!m.cas(l.writer.word, expected, words::taken(seen, m.me(), slept), std::memory_order_seq_cst)) return false;
  own(m, l, seen);
  return true;
}

using Round = mutex_protocol::Round;

/// One look of a writer at a word that was not free at first sight.
template <class M, class L>
Outcome look_to_write(M& m, L& l, Round& round, const Wait& wait) {
  auto& writer = l.writer;
  std::uint32_t seen = m.load(writer.word, std::memory_order_relaxed);
  if (words::owner(seen) == 0) return try_own(m, l, seen, round.slept) ? Outcome::clean : Outcome::again;
  if (words::owner(seen) == m.me()) return mutex_protocol::give_up(m, writer, round, Outcome::deadlock);
  if (wait.how == Wait::How::never) return mutex_protocol::give_up(m, writer, round, Outcome::busy);
  if (m.told_to_end(wait)) return mutex_protocol::give_up(m, writer, round, Outcome::interrupted);
  if (m.spin(round.spun)) return Outcome::again;
  if (m.past(wait)) return mutex_protocol::give_up(m, writer, round, Outcome::timed_out);
  if (!words::has_waiters(seen)) {
    if (!m.cas(writer.word, seen, words::awaited(seen), std::memory_order_relaxed)) return Outcome::again;
    seen = words::awaited(seen);
  }
  const Woke why = m.sleep(writer.word, seen, Class::writers, wait);
  round.slept = true;
  round.spun = 0;
  round.woken = why == Woke::look_again;
  if (why == Woke::interrupted && wait.how == Wait::How::interruptible)
    return mutex_protocol::give_up(m, writer, round, Outcome::interrupted);
  return Outcome::again;
}

template <class M, class L>
Outcome begin_to_write(M& m, L& l) {
  m.pend(l.writer);
  return try_own(m, l, 0, false) ? Outcome::clean : Outcome::again;
}

/// A reader that is inside its slot may not know it yet: it was let in, and the wake did not reach it, because the last
/// writer died before, or is still on its way to it, or because it had not fallen asleep.
template <class M, class L, class N>
void tell_let_in(M& m, L& l, N& slot) {
  const std::uint32_t may_sleep_on = m.load(slot.dirty, std::memory_order_seq_cst);
  if (may_sleep_on == 0) return;
  std::uint32_t word = m.load(l.writer.word, std::memory_order_relaxed);
  while ((word & ~words::kWaiters) == may_sleep_on &&
         !m.cas(l.writer.word, word, word ^ words::kFlag, std::memory_order_seq_cst)) {
  }
  m.wake_all(l.writer.word, Class::readers);
}

/// One look at slot `at`, which must be left before a writer goes in; moves `at` on, and is done when all are free.
template <class M, class L>
Outcome drain(M& m, L& l, std::uint32_t& at, Round& round, const Wait& wait) {
  if (at >= m.load(l.used, std::memory_order_seq_cst)) return Outcome::clean;
  auto& slot = l.slots[at];
  std::uint32_t seen = m.load(slot.word, std::memory_order_seq_cst);
  if (!words::reads(seen)) {
    ++at;
    round.spun = 0;
    return Outcome::again;
  }
  if (wait.how == Wait::How::never) return Outcome::busy;
  if (m.told_to_end(wait)) return Outcome::interrupted;
  if (m.spin_next(round.spun)) return Outcome::again;
  if (m.past(wait)) return Outcome::timed_out;
  if (!words::has_waiters(seen)) {
    if (!m.cas(slot.word, seen, words::awaited(seen), std::memory_order_relaxed)) return Outcome::again;
    seen = words::awaited(seen);
  }
  tell_let_in(m, l, slot);
  const Woke why = m.sleep(slot.word, seen, Class::any, wait);
  round.spun = 0;
  if (why == Woke::interrupted && wait.how == Wait::How::interruptible) return Outcome::interrupted;
  return Outcome::again;
}

/// Alone with the lock, and nothing said of its state yet.
template <class M, class L>
Outcome exclude(M& m, L& l, const Wait& wait, Policy policy) {
  Outcome outcome = begin_to_write(m, l);
  if (outcome == Outcome::again) [[unlikely]] {
    Round round;
    do outcome = look_to_write(m, l, round, wait);
    while (outcome == Outcome::again);
  }
  if (outcome != Outcome::clean) return outcome;
  std::uint32_t at = 0;
  Round round;
  do outcome = drain(m, l, at, round, wait);
  while (outcome == Outcome::again);
  if (outcome != Outcome::clean) release(m, l, admits(policy));
  return outcome;
}

/// From here on our death leaves damage.
template <class M, class L>
Outcome enter(M& m, L& l) {
  m.store(l.inside, 1, std::memory_order_relaxed);
  return told(m, l);
}

template <class M, class L>
Outcome down_write(M& m, L& l, const Wait& wait, Policy policy) {
  const Outcome outcome = exclude(m, l, wait, policy);
  return outcome == Outcome::clean ? enter(m, l) : outcome;
}

template <class M, class L>
Outcome up_write(M& m, L& l, Policy policy) {
  if (words::owner(m.load(l.writer.word, std::memory_order_relaxed)) != m.me() ||
      m.load(l.guest, std::memory_order_relaxed) != 0) [[unlikely]]
    return Outcome::not_owner;
  m.store(l.inside, 0, std::memory_order_relaxed);
  release(m, l, admits(policy));
  return Outcome::clean;
}

// --------------------------------------------------------------------------------------------------------------
// readers

constexpr std::uint32_t kNoSlot = 0xffffffff;

/// Takes slot `i` as a reader inside, if nobody has it.
template <class M, class L>
bool try_slot(M& m, L& l, std::uint32_t i) {
  auto& slot = l.slots[i];
  std::uint32_t seen = m.load(slot.word, std::memory_order_relaxed);
  if (words::owner(seen) != 0) return false;
  std::uint32_t used = m.load(l.used, std::memory_order_relaxed);
  while (used <= i && !m.cas(l.used, used, i + 1, std::memory_order_seq_cst)) {
  }
  m.pend(slot);
  const bool ours = m.cas(slot.word, seen, words::taken(seen, m.me(), false), std::memory_order_seq_cst);
  if (ours) m.enqueue(slot);
  m.unpend();
  return ours;
}

/// Takes a slot, from `home` on. From then on every writer that comes later waits for us; whether one was there before,
/// the caller looks afterwards. kNoSlot when all are taken.
template <class M, class L>
std::uint32_t take_slot(M& m, L& l, std::uint32_t home) {
  for (std::uint32_t k = 0; k < l.kSlots; ++k) {
    const std::uint32_t i = (home + k) % l.kSlots;
    if (try_slot(m, l, i)) return i;
  }
  return kNoSlot;
}

/// Gives the slot back. A writer that sleeps on it is woken in the same step: the slot may be another reader's next.
template <class M, class N>
void leave_slot(M& m, N& slot) {
  m.pend(slot);
  m.dequeue(slot);
  std::uint32_t seen = m.load(slot.word, std::memory_order_relaxed);
  if (words::has_waiters(seen) || !m.cas(slot.word, seen, 0, std::memory_order_release)) [[unlikely]]
    m.release_and_wake_all(slot.word);
  m.unpend();
}

/// From inside to waiting, because a writer was there first; it may be draining us already.
template <class M, class N>
[[gnu::noinline]] void begin_to_wait(M& m, N& slot) {
  std::uint32_t seen = m.load(slot.word, std::memory_order_relaxed);
  while (!m.cas(slot.word, seen, words::made_to_wait(seen), std::memory_order_seq_cst)) {
  }
  // The word changed, so the writer cannot fall asleep on the old one; if it sleeps, and we die before the wake, the
  // kernel finds the waiters bit and wakes it.
  if (words::has_waiters(seen)) m.wake_all(slot.word, Class::any);
}

/// A wake that we consumed may have been the kernel's only one, for a dead writer's word: pass it on.
template <class M, class L>
void pass_on(M& m, L& l) {
  const std::uint32_t seen = m.load(l.writer.word, std::memory_order_seq_cst);
  if (words::owner(seen) != 0 || (seen & (words::kWaiters | words::kFlag)) == 0) return;
  m.wake_all(l.writer.word, Class::readers);
  m.wake_one(l.writer.word, Class::writers);
}

/// Stops waiting. If a writer lets us in at this very moment, we have been in and out.
template <class M, class L, class N>
Outcome stop_waiting(M& m, L& l, N& slot, const Round& round, Outcome why) {
  if (round.woken) pass_on(m, l);
  m.store(slot.impatient, 0, std::memory_order_relaxed);
  m.store(slot.dirty, 0, std::memory_order_relaxed);
  leave_slot(m, slot);
  return why;
}

/// A reader found the word of a dead writer: it owns it for a moment, to see what the death left, and lets all in.
template <class M, class L, class N>
Outcome bury_writer(M& m, L& l, N& slot, std::uint32_t seen) {
  if (!try_own(m, l, seen, true)) return Outcome::again;
  std::uint32_t mine = m.load(slot.word, std::memory_order_relaxed);
  while (!m.cas(slot.word, mine, words::let_in(mine), std::memory_order_seq_cst)) {
  }
  m.store(slot.impatient, 0, std::memory_order_relaxed);
  m.store(slot.dirty, 0, std::memory_order_relaxed);
  release(m, l, Admit::all);
  return told(m, l);
}

/// No writer was there before a reader that has a slot.
template <class M, class L>
bool may_read(M& m, L& l) {
  return words::open_to_readers(m.load(l.writer.word, std::memory_order_seq_cst));
}

/// In, after having waited.
template <class M, class L, class N>
Outcome arrive(M& m, L& l, N& slot, const Round& round) {
  m.store(slot.impatient, 0, std::memory_order_relaxed);
  m.store(slot.dirty, 0, std::memory_order_relaxed);
  if (round.slept) pass_on(m, l);
  m.unpend();
  return told(m, l);
}

/// One look of a reader that waits: its slot says so, and is on its list.
template <class M, class L, class N>
Outcome look_to_read(M& m, L& l, N& slot, Round& round, const Wait& wait) {
  std::uint32_t seen = m.load(l.writer.word, std::memory_order_seq_cst);
  // Written down before the look at the slot: whoever drains us after that look sees it (see the head of this file).
  if (words::owner(seen) != 0) m.store(slot.dirty, seen & ~words::kWaiters, std::memory_order_seq_cst);
  std::uint32_t mine = m.load(slot.word, std::memory_order_seq_cst);
  if (!words::waits_to_read(mine)) return arrive(m, l, slot, round);
  if (words::open_to_readers(seen)) {
    // As at first sight: in, and then see whether a writer was there before.
    if (!m.cas(slot.word, mine, words::let_in(mine), std::memory_order_seq_cst)) return Outcome::again;
    if (may_read(m, l)) return arrive(m, l, slot, round);
    begin_to_wait(m, slot);
    return Outcome::again;
  }
  if (words::owner_died(seen)) return bury_writer(m, l, slot, seen);
  if (wait.how == Wait::How::never) return stop_waiting(m, l, slot, round, Outcome::busy);
  if (m.told_to_end(wait)) return stop_waiting(m, l, slot, round, Outcome::interrupted);
  if (m.spin(round.spun)) return Outcome::again;
  if (m.past(wait)) return stop_waiting(m, l, slot, round, Outcome::timed_out);
  if (!words::has_waiters(seen)) {
    if (!m.cas(l.writer.word, seen, words::awaited(seen), std::memory_order_seq_cst)) return Outcome::again;
    seen = words::awaited(seen);
  }
  if (m.impatient(round.since)) {
    m.store(slot.impatient, 1, std::memory_order_relaxed);
    // Pairs with the load in release, so that who finds this finds that.
    m.store(l.impatient, 1, std::memory_order_seq_cst);
  }
  const Woke why = m.sleep(l.writer.word, seen, Class::readers, wait);
  round.slept = true;
  round.spun = 0;
  round.woken = why == Woke::look_again;
  if (why == Woke::interrupted && wait.how == Wait::How::interruptible)
    return stop_waiting(m, l, slot, round, Outcome::interrupted);
  return Outcome::again;
}

/// A slot is ours: in at once, or made to wait with the writer's word pending, so that a wake we are given survives us.
template <class M, class L, class N>
Outcome begin_to_read(M& m, L& l, N& slot) {
  if (may_read(m, l)) return told(m, l);
  m.pend(l.writer);
  begin_to_wait(m, slot);
  return Outcome::again;
}

/// A reader for whom there was no slot: it holds the writer's word, alone, but its death damages nothing.
template <class M, class L>
Outcome down_read_as_guest(M& m, L& l, const Wait& wait, Policy policy) {
  const Outcome outcome = exclude(m, l, wait, policy);
  if (outcome != Outcome::clean) return outcome;
  m.store(l.guest, 1, std::memory_order_relaxed);
  return told(m, l);
}

/// Waits as long as a writer was first; its slot is ours.
template <class M, class L, class N>
[[gnu::noinline]] Outcome wait_to_read(M& m, L& l, N& slot, const Wait& wait) {
  Round round;
  Outcome outcome = Outcome::again;
  do outcome = look_to_read(m, l, slot, round, wait);
  while (outcome == Outcome::again);
  return outcome;
}

template <class M, class L, class N>
Outcome read_in_slot(M& m, L& l, N& slot, const Wait& wait) {
  const Outcome outcome = begin_to_read(m, l, slot);
  if (outcome == Outcome::again) [[unlikely]]
    return wait_to_read(m, l, slot, wait);
  return outcome;
}

/// `home`: where to look for a slot first; the next time it is the slot that was found.
template <class M, class L>
Outcome down_read(M& m, L& l, std::uint32_t& home, const Wait& wait, Policy policy) {
  const std::uint32_t i = take_slot(m, l, home);
  if (i == kNoSlot) [[unlikely]]
    return down_read_as_guest(m, l, wait, policy);
  home = i;
  return read_in_slot(m, l, l.slots[i], wait);
}

template <class M, class L>
Outcome up_read_as_guest(M& m, L& l, Policy policy) {
  if (words::owner(m.load(l.writer.word, std::memory_order_relaxed)) != m.me() ||
      m.load(l.guest, std::memory_order_relaxed) == 0)
    return Outcome::not_owner;
  m.store(l.guest, 0, std::memory_order_relaxed);
  release(m, l, admits(policy));
  return Outcome::clean;
}

/// From writing to reading. The readers that wait get in at once, and no writer between.
template <class M, class L>
Outcome downgrade(M& m, L& l, std::uint32_t home) {
  if (words::owner(m.load(l.writer.word, std::memory_order_relaxed)) != m.me() ||
      m.load(l.guest, std::memory_order_relaxed) != 0)
    return Outcome::not_owner;
  const bool slot = take_slot(m, l, home) != kNoSlot;
  m.store(l.inside, 0, std::memory_order_relaxed);
  if (slot) {
    release(m, l, Admit::all);
  } else {
    m.store(l.guest, 1, std::memory_order_relaxed);
  }
  return Outcome::clean;
}

}  // namespace holdfast::sync::rw_protocol
