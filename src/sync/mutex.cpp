// SPDX-License-Identifier: MIT
// mutex: the one-owner protocol with threads as owners.
#include <holdfast/sync/mutex.hpp>

#include "sync/answers.hpp"
#include "sync/host.hpp"
#include "sync/mutex_protocol.hpp"
#include "sync/order_hook.hpp"

namespace holdfast::sync {
namespace {

[[gnu::noinline]] Outcome take_slowly(Node& node, const Wait& wait) {
  Thread* const thread = self();
  if (thread == nullptr) [[unlikely]]
    return Outcome::unsupported;
  Host host(*thread);
  return mutex_protocol::lock(host, node, wait);
}

// What most calls do, inlined into each of them: a call more is a fifth of the time.
[[gnu::always_inline]] inline Outcome take_unwatched(Node& node, const Wait& wait) {
  if (this_thread.tid != 0) [[likely]] {
    Host host(this_thread);
    const Outcome outcome = mutex_protocol::begin(host, node);
    if (outcome != Outcome::again) [[likely]]
      return outcome;
  }
  return take_slowly(node, wait);
}

[[gnu::noinline]] Outcome give_slowly(Node& node) {
  Thread* const thread = self();
  if (thread == nullptr) [[unlikely]]
    return Outcome::unsupported;
  Host host(*thread);
  return mutex_protocol::unlock(host, node);
}

[[gnu::noinline]] Outcome take_watched(Node& node, const Wait& wait, const void* where) {
  order::wanted(&node, order::Side::exclusive, wait.how, where);
  const Outcome outcome = take_unwatched(node, wait);
  order::had(&node, order::Side::exclusive, wait.how, outcome, where);
  return outcome;
}

[[gnu::noinline]] Outcome give_watched(Node& node) {
  order::given(&node, order::Side::exclusive);
  return give_slowly(node);
}

// Inlined, as take_clean is, so that the return address is the program's.
[[gnu::always_inline]] inline Outcome take(Node& node, const Wait& wait) {
  if (order::watched()) [[unlikely]]
    return take_watched(node, wait, __builtin_return_address(0));
  return take_unwatched(node, wait);
}

[[gnu::always_inline]] inline Outcome give(Node& node) {
  if (order::watched()) [[unlikely]]
    return give_watched(node);
  if (this_thread.tid != 0) [[likely]] {
    Host host(this_thread);
    return mutex_protocol::unlock(host, node);
  }
  return give_slowly(node);
}

/// For the throwing forms: a lock whose state is in doubt is not for them.
[[noreturn, gnu::noinline]] void refuse(Node& node, Outcome outcome) {
  if (holds(outcome)) give(node);
  raise(outcome);
}

[[gnu::always_inline]] inline bool take_clean(Node& node, const Wait& wait, Outcome no) {
  const Outcome outcome = take(node, wait);
  if (outcome == Outcome::clean) [[likely]]
    return true;
  if (outcome == no) return false;
  refuse(node, outcome);
}

Outcome set_dirty(Node& node, std::uint32_t dirty) {
  const Thread* const thread = self();
  if (thread == nullptr || words::owner(node.word.load(std::memory_order_relaxed)) != thread->tid)
    return Outcome::not_owner;
  node.dirty.store(dirty, std::memory_order_relaxed);
  return Outcome::clean;
}

}  // namespace

void mutex::lock() { take_clean(node_, {}, Outcome::clean); }

bool mutex::try_lock() { return take_clean(node_, {Wait::How::never}, Outcome::busy); }

bool mutex::try_lock_until_deadline(Deadline deadline) {
  return take_clean(node_, until(deadline), Outcome::timed_out);
}

void mutex::unlock() {
  const Outcome outcome = give(node_);
  if (outcome != Outcome::clean) [[unlikely]]
    raise(outcome);
}

Result<Acquired> mutex::lock_checked() { return acquired(take(node_, {})); }
Result<Acquired> mutex::trylock() { return acquired(take(node_, {Wait::How::never})); }
Result<Acquired> mutex::lock_until_checked(Deadline deadline) { return acquired(take(node_, until(deadline))); }
Result<Acquired> mutex::lock_interruptible() { return acquired(take(node_, {Wait::How::interruptible})); }
Result<Acquired> mutex::lock_killable() { return acquired(take(node_, {Wait::How::killable})); }
Result<> mutex::unlock_checked() { return done(give(node_)); }

bool mutex::is_locked() const noexcept { return holder() != 0; }
std::uint32_t mutex::holder() const noexcept { return words::owner(node_.word.load(std::memory_order_relaxed)); }

Result<> mutex::consistent() { return done(set_dirty(node_, 0)); }
Result<> mutex::mark_inconsistent() { return done(set_dirty(node_, 1)); }

}  // namespace holdfast::sync
