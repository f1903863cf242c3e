// SPDX-License-Identifier: MIT
// mutex: the one-owner protocol with threads as owners.
#include <holdfast/sync/mutex.hpp>

#include "sync/answers.hpp"
#include "sync/host.hpp"
#include "sync/mutex_protocol.hpp"
#include "sync/order_hook.hpp"

namespace holdfast::sync {
namespace {

Outcome take(Node& node, const Wait& wait) {
  Thread* const thread = self();
  if (thread == nullptr) [[unlikely]]
    return Outcome::unsupported;
  order::wanted(&node, order::Side::exclusive, wait.how);
  Host host(*thread);
  const Outcome outcome = mutex_protocol::lock(host, node, wait);
  order::had(&node, order::Side::exclusive, wait.how, outcome);
  return outcome;
}

Outcome give(Node& node) {
  Thread* const thread = self();
  if (thread == nullptr) [[unlikely]]
    return Outcome::unsupported;
  order::given(&node, order::Side::exclusive);
  Host host(*thread);
  return mutex_protocol::unlock(host, node);
}

/// For the throwing forms: a lock whose state is in doubt is not for them.
bool take_clean(Node& node, const Wait& wait, Outcome no) {
  const Outcome outcome = take(node, wait);
  if (outcome == Outcome::clean) [[likely]]
    return true;
  if (outcome == no) return false;
  if (holds(outcome)) give(node);
  raise(outcome);
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
