// SPDX-License-Identifier: MIT
// The protocols of the spinlocks that have states to get wrong: the robust one, and readers and writers.
//
// Robust: the one-owner protocol without sleepers, so that a release is a plain store. The pending mark covers it: a
// thread that dies between taking the node off its list and that store still owns the word in the kernel's eyes.
//
// Readers and writers: one word. Bit 31: a writer is inside; bit 30: one waits, and new readers stay out; below:
// readers inside. Taking the word clears bit 30, also for other writers that wait: they set it again.
//
// Memory order: the acquire of each successful cas pairs with the release of the unlock of the other kind before: a
// writer's frees the word, a reader's takes itself out of the count. All else is a hint what to try next.
#pragma once

#include "sync/mutex_protocol.hpp"

namespace holdfast::sync::spin_protocol {

// ------------------------------------------------------------------------------------------------------------ robust

/// One look at a lock that was not free at first sight.
template <class M, class N, class Spinning>
Outcome look(M& m, N& n, Spinning& spinning, const Wait& wait) {
  std::uint32_t seen = m.load(n.word, std::memory_order_relaxed);
  if (words::owner(seen) == 0) {
    if (!m.cas(n.word, seen, words::taken(seen, m.me(), false), std::memory_order_acquire)) return Outcome::again;
    return mutex_protocol::own(m, n, seen);
  }
  const bool own = words::owner(seen) == m.me();
  if (own || wait.how == Wait::How::never) {
    m.unpend();
    return own ? Outcome::deadlock : Outcome::busy;
  }
  m.look_later(n.word, seen, spinning);
  return Outcome::again;
}

template <class M, class N, class Spinning>
Outcome lock(M& m, N& n, Spinning& spinning, const Wait& wait) {
  Outcome outcome = mutex_protocol::begin(m, n);
  while (outcome == Outcome::again) outcome = spin_protocol::look(m, n, spinning, wait);
  return outcome;
}

template <class M, class N>
Outcome unlock(M& m, N& n) {
  if (words::owner(m.load(n.word, std::memory_order_relaxed)) != m.me()) [[unlikely]]
    return Outcome::not_owner;
  m.pend(n);
  m.dequeue(n);
  m.store(n.word, 0, std::memory_order_release);  // nobody sleeps, so nobody is to be woken
  m.unpend();
  return Outcome::clean;
}

// -------------------------------------------------------------------------------------------------- readers and
// writers

constexpr std::uint32_t kWriter = 0x80000000;
constexpr std::uint32_t kWriterWaits = 0x40000000;

template <class M, class W>
bool try_write(M& m, W& word) {
  std::uint32_t seen = m.load(word, std::memory_order_relaxed) & kWriterWaits;
  return m.cas(word, seen, kWriter, std::memory_order_acquire);
}

/// One look of a writer. True: it is in.
template <class M, class W, class Spinning>
bool look_to_write(M& m, W& word, Spinning& spinning) {
  if (spin_protocol::try_write(m, word)) return true;
  std::uint32_t seen = m.load(word, std::memory_order_relaxed);
  if ((seen & ~kWriterWaits) == 0) return false;
  if ((seen & kWriterWaits) == 0) {
    if (!m.cas(word, seen, seen | kWriterWaits, std::memory_order_relaxed)) return false;
    seen |= kWriterWaits;
  }
  m.look_later(word, seen, spinning);
  return false;
}

template <class M, class W>
bool try_read(M& m, W& word, std::uint32_t& seen) {
  seen = m.load(word, std::memory_order_relaxed);
  while ((seen & (kWriter | kWriterWaits)) == 0)
    if (m.cas(word, seen, seen + 1, std::memory_order_acquire)) return true;
  return false;
}

template <class M, class W, class Spinning>
bool look_to_read(M& m, W& word, Spinning& spinning) {
  std::uint32_t seen = 0;
  if (spin_protocol::try_read(m, word, seen)) return true;
  m.look_later(word, seen, spinning);
  return false;
}

}  // namespace holdfast::sync::spin_protocol
