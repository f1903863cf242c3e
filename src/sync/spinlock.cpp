// SPDX-License-Identifier: MIT
// The slow paths of the spinlocks, and the robust one: the one-owner protocol without sleepers.
#include <holdfast/sync/spinlock.hpp>

#include "sync/answers.hpp"
#include "sync/mutex_protocol.hpp"
#include "sync/order_hook.hpp"
#include "sync/spin.hpp"

namespace holdfast::sync {

void spinlock::lock_slowly() noexcept {
  Spin spin;
  do {
    while (is_locked()) spin.again();
  } while (taken_.exchange(1, std::memory_order_acquire) != 0);
}

signals_blocked::signals_blocked() noexcept {
  sigset_t all;
  ::sigfillset(&all);
  for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL}) ::sigdelset(&all, fault);
  ::pthread_sigmask(SIG_BLOCK, &all, &saved_);
#if HOLDFAST_SYNC_ORDER
  order_epoch_ = order::detail::epoch.load(std::memory_order_relaxed);
  if (order_epoch_ != 0) order_ = order::detail::block_signals(order_epoch_);
#endif
}

signals_blocked::~signals_blocked() {
#if HOLDFAST_SYNC_ORDER
  if (order_epoch_ != 0) order::detail::unblock_signals(order_);
#endif
  ::pthread_sigmask(SIG_SETMASK, &saved_, nullptr);
}

namespace {
constexpr std::uint32_t kWriter = 0x80000000;
constexpr std::uint32_t kWriterWaits = 0x40000000;
}  // namespace

// The acquire of each successful cas pairs with the release of the unlock of the other kind before: a writer's frees
// the word, a reader's takes itself out of the count.

bool rw_spinlock::try_lock() noexcept {
  std::uint32_t seen = word_.load(std::memory_order_relaxed) & kWriterWaits;
  return word_.compare_exchange_strong(seen, kWriter, std::memory_order_acquire, std::memory_order_relaxed);
}

void rw_spinlock::lock() noexcept {
  Spin spin;
  while (!try_lock()) {
    // Taking the word clears the bit, also for other writers that wait: they set it again.
    if ((word_.load(std::memory_order_relaxed) & kWriterWaits) == 0)
      word_.fetch_or(kWriterWaits, std::memory_order_relaxed);
    spin.again();
  }
}

void rw_spinlock::unlock() noexcept { word_.fetch_and(~kWriter, std::memory_order_release); }

bool rw_spinlock::try_lock_shared() noexcept {
  std::uint32_t seen = word_.load(std::memory_order_relaxed);
  while ((seen & (kWriter | kWriterWaits)) == 0) {
    if (word_.compare_exchange_weak(seen, seen + 1, std::memory_order_acquire, std::memory_order_relaxed)) return true;
  }
  return false;
}

void rw_spinlock::lock_shared() noexcept {
  Spin spin;
  while (!try_lock_shared()) spin.again();
}

void rw_spinlock::unlock_shared() noexcept { word_.fetch_sub(1, std::memory_order_release); }

std::uint32_t seqlock::read_begin_slowly() const noexcept {
  Spin spin;
  std::uint32_t begin = 0;
  while (((begin = sequence_.load(std::memory_order_acquire)) & 1) != 0) spin.again();
  return begin;
}

namespace {

Outcome take_unwatched(Node& node, const Wait& wait) {
  Thread* const thread = self();
  if (thread == nullptr) [[unlikely]]
    return Outcome::unsupported;
  Host host(*thread);
  Outcome outcome = mutex_protocol::begin(host, node);
  if (outcome != Outcome::again) [[likely]]
    return outcome;
  Spin spin;
  for (;;) {
    std::uint32_t seen = node.word.load(std::memory_order_relaxed);
    if (words::owner(seen) == 0) {
      if (Host::cas(node.word, seen, words::taken(seen, host.me(), false), std::memory_order_acquire))
        return mutex_protocol::own(host, node, seen);
      continue;
    }
    outcome = words::owner(seen) == host.me() ? Outcome::deadlock : Outcome::busy;
    if (outcome == Outcome::deadlock || wait.how == Wait::How::never) {
      host.unpend();
      return outcome;
    }
    spin.again();
  }
}

Outcome give_unwatched(Node& node) {
  Thread* const thread = self();
  if (thread == nullptr) [[unlikely]]
    return Outcome::unsupported;
  Host host(*thread);
  if (words::owner(node.word.load(std::memory_order_relaxed)) != host.me()) [[unlikely]]
    return Outcome::not_owner;
  host.pend(node);
  host.dequeue(node);
  node.word.store(0, std::memory_order_release);  // nobody sleeps, so nobody is to be woken
  host.unpend();
  return Outcome::clean;
}

[[gnu::noinline]] Outcome take_watched(Node& node, const Wait& wait, const void* where) {
  order::wanted(node.order_class, &node, order::How::exclusive, wait.how, where);
  const Outcome outcome = take_unwatched(node, wait);
  order::had(node.order_class, &node, order::How::exclusive, wait.how, outcome, where);
  return outcome;
}

[[gnu::noinline]] Outcome give_watched(Node& node) {
  order::released(&node);
  return give_unwatched(node);
}

// Inlined, as take_clean is, so that the return address is the program's.
[[gnu::always_inline]] inline Outcome take(Node& node, const Wait& wait) {
  return order::watched() ? take_watched(node, wait, __builtin_return_address(0)) : take_unwatched(node, wait);
}

Outcome give(Node& node) { return order::watched() ? give_watched(node) : give_unwatched(node); }

[[gnu::always_inline]] inline bool take_clean(Node& node, const Wait& wait) {
  const Outcome outcome = take(node, wait);
  if (outcome == Outcome::clean) [[likely]]
    return true;
  if (outcome == Outcome::busy) return false;
  if (holds(outcome)) give(node);
  raise(outcome);
}

}  // namespace

void robust_spinlock::lock() { take_clean(node_, {}); }
bool robust_spinlock::try_lock() { return take_clean(node_, {Wait::How::never}); }
void robust_spinlock::unlock() {
  const Outcome outcome = give(node_);
  if (outcome != Outcome::clean) [[unlikely]]
    raise(outcome);
}
Result<Acquired> robust_spinlock::lock_checked() { return acquired(take(node_, {})); }
Result<Acquired> robust_spinlock::trylock() { return acquired(take(node_, {Wait::How::never})); }
Result<> robust_spinlock::unlock_checked() { return done(give(node_)); }
bool robust_spinlock::is_locked() const noexcept {
  return words::owner(node_.word.load(std::memory_order_relaxed)) != 0;
}
Result<> robust_spinlock::consistent() {
  const Thread* const thread = self();
  if (thread == nullptr || words::owner(node_.word.load(std::memory_order_relaxed)) != thread->tid)
    return done(Outcome::not_owner);
  node_.dirty.store(0, std::memory_order_relaxed);
  return {};
}

}  // namespace holdfast::sync
