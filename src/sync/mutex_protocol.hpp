// SPDX-License-Identifier: MIT
// The protocol of every lock word with one owner: mutex, a process's mutex, a token of the owner-tracking semaphore.
//
// glibc's robust mutex stores 0 at unlock and forgets that somebody sleeps: when the one it wakes is killed while a
// third has taken the lock, the other sleepers sleep for ever on a free lock. Here the waiters bit is sticky
// (words.hpp). `M` is the machine (host.hpp, or the model's); `N` is a node with the cells `word` and `dirty`.
//
// Memory order. The acquire of each successful cas on `word` pairs with the release store, cas or release_and_wake_all
// of the owner before, which makes all it wrote inside visible. After an owner's death there is no release: the
// kernel's cmpxchg on the word orders what the dead thread had made visible, and the new owner is told to repair. Loads
// that only choose what to try next are relaxed: the cas checks. Setting the waiters bit is relaxed: it publishes
// nothing, and that it is seen before we sleep is the kernel's compare under the bucket lock. `dirty` is touched by the
// owner alone.
#pragma once

#include "sync/futex.hpp"
#include "sync/outcome.hpp"
#include "sync/words.hpp"

#include <atomic>

namespace holdfast::sync::mutex_protocol {

/// The word is ours since a moment ago; `before` is what it was.
template <class M, class N>
Outcome own(M& m, N& n, std::uint32_t before) {
  // Before enqueue and unpend: if we die here, the kernel marks the death again and the next owner does this.
  const bool died = words::owner_died(before);
  if (died) m.store(n.dirty, 1, std::memory_order_relaxed);
  m.enqueue(n);
  m.unpend();
  if (died) return Outcome::owner_died;
  return m.load(n.dirty, std::memory_order_relaxed) != 0 ? Outcome::inconsistent : Outcome::clean;
}

/// What a waiter remembers from one look to the next.
struct Round {
  int spun = 0;
  bool slept = false;       // others may sleep here too: take the word with the waiters bit
  bool woken = false;       // the last sleep may have consumed a wake
  std::uint64_t since = 0;  // a reader's: when it first slept
};

/// Leaves without the lock. A wake that we may have consumed is passed on, if the lock is free: else its owner has the
/// duty to wake. The pending mark covers our death on the way.
template <class M, class N>
Outcome give_up(M& m, N& n, const Round& round, Outcome why) {
  if (round.woken) {
    const std::uint32_t seen = m.load(n.word, std::memory_order_relaxed);
    if (words::owner(seen) == 0 && words::has_waiters(seen)) m.wake_one(n.word, futex::Class::any);
  }
  m.unpend();
  return why;
}

/// One look at a lock that was not free at first sight; called until it answers anything but again.
template <class M, class N>
Outcome look(M& m, N& n, Round& round, const Wait& wait) {
  std::uint32_t seen = m.load(n.word, std::memory_order_relaxed);
  if (words::owner(seen) == 0) {
    if (m.cas(n.word, seen, words::taken(seen, m.me(), round.slept), std::memory_order_acquire)) return own(m, n, seen);
    return Outcome::again;
  }
  if (words::owner(seen) == m.me()) return give_up(m, n, round, Outcome::deadlock);
  if (wait.how == Wait::How::never) return give_up(m, n, round, Outcome::busy);
  if (m.told_to_end(wait)) return give_up(m, n, round, Outcome::interrupted);
  if (m.owner_is_gone(n, seen)) return Outcome::again;
  if (m.spin(round.spun)) return Outcome::again;
  if (m.past(wait)) return give_up(m, n, round, Outcome::timed_out);
  if (!words::has_waiters(seen)) {
    if (!m.cas(n.word, seen, words::awaited(seen), std::memory_order_relaxed)) return Outcome::again;
    seen = words::awaited(seen);
  }
  const futex::Woke why = m.sleep(n.word, seen, futex::Class::any, wait);
  round.slept = true;
  round.spun = 0;
  round.woken = why == futex::Woke::look_again;
  if (why == futex::Woke::interrupted && wait.how == Wait::How::interruptible)
    return give_up(m, n, round, Outcome::interrupted);
  return Outcome::again;
}

/// The first look: a free lock that nobody waits for.
template <class M, class N>
Outcome begin(M& m, N& n) {
  m.pend(n);
  std::uint32_t seen = 0;
  if (m.cas(n.word, seen, m.me(), std::memory_order_acquire)) [[likely]]
    return own(m, n, 0);
  return Outcome::again;
}

template <class M, class N>
Outcome lock(M& m, N& n, const Wait& wait) {
  Outcome outcome = begin(m, n);
  if (outcome == Outcome::again) [[unlikely]] {
    Round round;
    do outcome = look(m, n, round, wait);
    while (outcome == Outcome::again);
  }
  return outcome;
}

/// Somebody sleeps, or did. From the release on the lock may be another's, or gone: nothing but the wake touches it.
template <class M, class N>
[[gnu::noinline]] void release_to_waiters(M& m, N& n) {
  if (m.lonely(n.word)) {
    m.lonely(n.word, false);
    m.release_and_wake_all(n.word);
  } else {
    m.store(n.word, words::released_to_waiters(), std::memory_order_release);
    m.lonely(n.word, m.wake_one(n.word, futex::Class::any) == 0);
  }
  m.unpend();
}

template <class M, class N>
Outcome unlock(M& m, N& n) {
  if (words::owner(m.load(n.word, std::memory_order_relaxed)) != m.me()) [[unlikely]]
    return Outcome::not_owner;
  m.pend(n);
  m.dequeue(n);
  std::uint32_t alone = m.me();
  if (m.cas(n.word, alone, 0, std::memory_order_release)) [[likely]] {
    m.unpend();
    return Outcome::clean;
  }
  release_to_waiters(m, n);
  return Outcome::clean;
}

}  // namespace holdfast::sync::mutex_protocol
