// SPDX-License-Identifier: MIT
// rw_semaphore: the reader/writer protocol with threads as owners. Which slot is a reader's is not written down
// anywhere: the thread's robust list says it.
#include <holdfast/sync/rw_semaphore.hpp>

#include "sync/answers.hpp"
#include "sync/host.hpp"
#include "sync/order_hook.hpp"
#include "sync/rw_protocol.hpp"

namespace holdfast::sync {
namespace {

using detail::RwLayout;
using order::Side;

rw_protocol::Policy policy_of(const RwLayout& l) {
  return l.policy == static_cast<std::uint32_t>(Policy::writer_first) ? rw_protocol::Policy::writer_first
                                                                      : rw_protocol::Policy::phase_fair;
}

Node* slot_of(const Thread& thread, const RwLayout& l) { return held_within(thread, l.slots.data(), sizeof(l.slots)); }

/// Whether the thread is inside already, in whatever way: then it would wait for itself.
[[gnu::always_inline]] inline bool inside(const Thread& thread, const RwLayout& l) {
  return !holds_nothing(thread) &&
         (words::owner(l.writer.word.load(std::memory_order_relaxed)) == thread.tid || slot_of(thread, l) != nullptr);
}

// What follows goes the short way, inlined into the public functions, while nobody watches and nothing is in the way.

[[gnu::noinline]] Outcome read_slowly(RwLayout& l, const Wait& wait) {
  Thread* const thread = self();
  if (thread == nullptr) return Outcome::unsupported;
  if (inside(*thread, l)) return Outcome::deadlock;
  Host host(*thread);
  return rw_protocol::down_read(host, l, thread->home, wait, policy_of(l));
}

[[gnu::noinline, gnu::flatten]] Outcome write_slowly(RwLayout& l, const Wait& wait) {
  Thread* const thread = self();
  if (thread == nullptr) return Outcome::unsupported;
  if (inside(*thread, l)) return Outcome::deadlock;
  Host host(*thread);
  return rw_protocol::down_write(host, l, wait, policy_of(l));
}

[[gnu::noinline]] Outcome take_watched(RwLayout& l, Side side, const Wait& wait, const void* where) {
  order::wanted(&l, side, wait.how, where);
  const Outcome outcome = side == Side::shared ? read_slowly(l, wait) : write_slowly(l, wait);
  order::had(&l, side, wait.how, outcome, where);
  return outcome;
}

/// A slot is ours, and a writer was there before.
[[gnu::noinline]] Outcome read_behind_writer(RwLayout& l, const Wait& wait) {
  Host host(this_thread);
  return rw_protocol::read_in_slot(host, l, l.slots[this_thread.home], wait);
}

[[gnu::always_inline]] inline Outcome read(RwLayout& l, const Wait& wait) {
  if (order::watched()) [[unlikely]]
    return take_watched(l, Side::shared, wait, __builtin_return_address(0));
  Thread& thread = this_thread;
  if (thread.tid == 0 || inside(thread, l) || thread.home >= RwLayout::kSlots) [[unlikely]]
    return read_slowly(l, wait);
  Host host(thread);
  if (!rw_protocol::try_slot(host, l, thread.home)) [[unlikely]]
    return read_slowly(l, wait);
  if (!rw_protocol::may_read(host, l)) [[unlikely]]
    return read_behind_writer(l, wait);
  return rw_protocol::told(host, l);
}

[[gnu::always_inline]] inline Outcome write(RwLayout& l, const Wait& wait) {
  if (order::watched()) [[unlikely]]
    return take_watched(l, Side::exclusive, wait, __builtin_return_address(0));
  return write_slowly(l, wait);
}

[[gnu::noinline]] Outcome end_read_slowly(RwLayout& l) {
  Thread* const thread = self();
  if (thread == nullptr) return Outcome::unsupported;
  order::given(&l, Side::shared);
  Host host(*thread);
  Node* const slot = slot_of(*thread, l);
  if (slot == nullptr) return rw_protocol::up_read_as_guest(host, l, policy_of(l));
  rw_protocol::leave_slot(host, *slot);
  return Outcome::clean;
}

[[gnu::always_inline]] inline Outcome end_read(RwLayout& l) {
  Thread& thread = this_thread;
  Node* const slot = thread.tid != 0 ? held_last(thread, l.slots.data(), sizeof(l.slots)) : nullptr;
  if (slot == nullptr || order::watched()) [[unlikely]]
    return end_read_slowly(l);
  Host host(thread);
  rw_protocol::leave_slot(host, *slot);
  return Outcome::clean;
}

[[gnu::flatten]] Outcome end_write(RwLayout& l) {
  Thread* const thread = self();
  if (thread == nullptr) [[unlikely]]
    return Outcome::unsupported;
  if (order::watched()) [[unlikely]]
    order::given(&l, Side::exclusive);
  Host host(*thread);
  return rw_protocol::up_write(host, l, policy_of(l));
}

/// For the throwing forms: a lock whose state is in doubt is not for them.
[[noreturn, gnu::noinline]] void refuse(RwLayout& l, Outcome outcome, Outcome (&give)(RwLayout&)) {
  if (holds(outcome)) give(l);
  raise(outcome);
}

[[gnu::always_inline]] inline bool clean(RwLayout& l, Outcome outcome, Outcome no, Outcome (&give)(RwLayout&)) {
  if (outcome == Outcome::clean) [[likely]]
    return true;
  if (outcome == no) return false;
  refuse(l, outcome, give);
}

Outcome set_dirty(RwLayout& l, std::uint32_t damage) {
  const Thread* const thread = self();
  if (thread == nullptr || words::owner(l.writer.word.load(std::memory_order_relaxed)) != thread->tid ||
      l.inside.load(std::memory_order_relaxed) == 0)
    return Outcome::not_owner;
  l.writer.dirty.store(damage, std::memory_order_relaxed);
  return Outcome::clean;
}

}  // namespace

[[gnu::flatten]] Result<Acquired> rw_semaphore::down_read() { return acquired(read(layout_, {})); }
Result<Acquired> rw_semaphore::down_read_trylock() { return acquired(read(layout_, {Wait::How::never})); }
Result<Acquired> rw_semaphore::down_read_interruptible() { return acquired(read(layout_, {Wait::How::interruptible})); }
Result<Acquired> rw_semaphore::down_read_killable() { return acquired(read(layout_, {Wait::How::killable})); }
Result<Acquired> rw_semaphore::down_read_until(Deadline deadline) { return acquired(read(layout_, until(deadline))); }
[[gnu::flatten]] Result<> rw_semaphore::up_read() { return done(end_read(layout_)); }

Result<Acquired> rw_semaphore::down_write() { return acquired(write(layout_, {})); }
Result<Acquired> rw_semaphore::down_write_trylock() { return acquired(write(layout_, {Wait::How::never})); }
Result<Acquired> rw_semaphore::down_write_interruptible() {
  return acquired(write(layout_, {Wait::How::interruptible}));
}
Result<Acquired> rw_semaphore::down_write_killable() { return acquired(write(layout_, {Wait::How::killable})); }
Result<Acquired> rw_semaphore::down_write_until(Deadline deadline) { return acquired(write(layout_, until(deadline))); }
Result<> rw_semaphore::up_write() { return done(end_write(layout_)); }

Result<> rw_semaphore::downgrade_write() {
  Thread* const thread = self();
  if (thread == nullptr) return done(Outcome::unsupported);
  Host host(*thread);
  const Outcome outcome = rw_protocol::downgrade(host, layout_, thread->home);
  if (outcome == Outcome::clean) order::downgraded(&layout_);
  return done(outcome);
}

void rw_semaphore::lock() { clean(layout_, write(layout_, {}), Outcome::clean, end_write); }
bool rw_semaphore::try_lock() { return clean(layout_, write(layout_, {Wait::How::never}), Outcome::busy, end_write); }
bool rw_semaphore::try_lock_by(Deadline deadline) {
  return clean(layout_, write(layout_, until(deadline)), Outcome::timed_out, end_write);
}
void rw_semaphore::unlock() {
  const Outcome outcome = end_write(layout_);
  if (outcome != Outcome::clean) [[unlikely]]
    raise(outcome);
}

[[gnu::flatten]] void rw_semaphore::lock_shared() {
  clean(layout_, read(layout_, {}), Outcome::clean, end_read_slowly);
}
bool rw_semaphore::try_lock_shared() {
  return clean(layout_, read(layout_, {Wait::How::never}), Outcome::busy, end_read_slowly);
}
bool rw_semaphore::try_lock_shared_by(Deadline deadline) {
  return clean(layout_, read(layout_, until(deadline)), Outcome::timed_out, end_read_slowly);
}
[[gnu::flatten]] void rw_semaphore::unlock_shared() {
  const Outcome outcome = end_read(layout_);
  if (outcome != Outcome::clean) [[unlikely]]
    raise(outcome);
}

bool rw_semaphore::is_locked() const noexcept {
  if (writer() != 0) return true;
  const std::uint32_t used = layout_.used.load(std::memory_order_relaxed);
  for (std::uint32_t i = 0; i < used; ++i)
    if (words::reads(layout_.slots[i].word.load(std::memory_order_relaxed))) return true;
  return false;
}
std::uint32_t rw_semaphore::writer() const noexcept {
  return words::owner(layout_.writer.word.load(std::memory_order_relaxed));
}

Result<> rw_semaphore::consistent() { return done(set_dirty(layout_, rw_protocol::kNoDamage)); }
Result<> rw_semaphore::mark_inconsistent() { return done(set_dirty(layout_, rw_protocol::kTold)); }

}  // namespace holdfast::sync
