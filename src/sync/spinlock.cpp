// SPDX-License-Identifier: MIT
// The slow paths of the spinlocks, and the robust one: the one-owner protocol without sleepers.
#include <holdfast/sync/spinlock.hpp>

#include "sync/answers.hpp"
#include "sync/order_hook.hpp"
#include "sync/spin.hpp"
#include "sync/spin_protocol.hpp"

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

/// The machine of a lock without an owner: it needs no thread.
class Looking {
 public:
  using Cell = std::atomic<std::uint32_t>;
  static std::uint32_t load(const Cell& cell, std::memory_order order) { return cell.load(order); }
  static bool cas(Cell& cell, std::uint32_t& expected, std::uint32_t value, std::memory_order order) {
    return cell.compare_exchange_strong(expected, value, order, std::memory_order_relaxed);
  }
  static void look_later(const Cell&, std::uint32_t, Spin& spin) { spin.again(); }
};

}  // namespace

bool rw_spinlock::try_lock() noexcept {
  Looking machine;
  return spin_protocol::try_write(machine, word_);
}

void rw_spinlock::lock() noexcept {
  Looking machine;
  Spin spin;
  while (!spin_protocol::look_to_write(machine, word_, spin)) {
  }
}

void rw_spinlock::unlock() noexcept { word_.fetch_and(~spin_protocol::kWriter, std::memory_order_release); }

bool rw_spinlock::try_lock_shared() noexcept {
  Looking machine;
  std::uint32_t seen = 0;
  return spin_protocol::try_read(machine, word_, seen);
}

void rw_spinlock::lock_shared() noexcept {
  Looking machine;
  Spin spin;
  while (!spin_protocol::look_to_read(machine, word_, spin)) {
  }
}

void rw_spinlock::unlock_shared() noexcept { word_.fetch_sub(1, std::memory_order_release); }

std::uint32_t seqlock::read_begin_slowly() const noexcept {
  Spin spin;
  std::uint32_t begin = 0;
  while (((begin = sequence_.load(std::memory_order_acquire)) & 1) != 0) spin.again();
  return begin;
}

namespace {

class SpinHost : public Host {
 public:
  using Host::Host;
  static void look_later(const Cell&, std::uint32_t, Spin& spin) { spin.again(); }
};

Outcome take_unwatched(Node& node, const Wait& wait) {
  Thread* const thread = self();
  if (thread == nullptr) [[unlikely]]
    return Outcome::unsupported;
  SpinHost host(*thread);
  Spin spin;
  return spin_protocol::lock(host, node, spin, wait);
}

Outcome give_unwatched(Node& node) {
  Thread* const thread = self();
  if (thread == nullptr) [[unlikely]]
    return Outcome::unsupported;
  Host host(*thread);
  return spin_protocol::unlock(host, node);
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

[[gnu::always_inline]] inline Outcome give(Node& node) {
  return order::watched() ? give_watched(node) : give_unwatched(node);
}

[[gnu::always_inline]] inline bool take_clean(Node& node, const Wait& wait) {
  const Outcome outcome = take(node, wait);
  if (outcome == Outcome::clean) [[likely]]
    return true;
  if (outcome == Outcome::busy) return false;
  if (holds(outcome)) give(node);
  raise(outcome);
}

}  // namespace

[[gnu::flatten]] void robust_spinlock::lock() { take_clean(node_, {}); }
bool robust_spinlock::try_lock() { return take_clean(node_, {Wait::How::never}); }
[[gnu::flatten]] void robust_spinlock::unlock() {
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
