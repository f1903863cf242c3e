// SPDX-License-Identifier: MIT
// process_mutex: the one-owner protocol's word with a process in it, and its start time beside it in one 64-bit cell.
//
// The kernel gives nothing back at a process's end, only at a thread's, so the waiters look for themselves: each sleeps
// for some milliseconds at most. So no order of kills can leave one asleep for ever; the sticky waiters bit and the
// pending mark (mutex_protocol.hpp) only make wakes prompt.
//
// Memory order: as in mutex_protocol.hpp. Taking from a dead owner is ordered by its end: the kernel's report of it
// comes after all that its threads did.
#include <holdfast/sync/process_mutex.hpp>

#include <algorithm>

#include "sync/answers.hpp"
#include "sync/host.hpp"
#include "sync/process.hpp"

namespace holdfast::sync {
namespace {

using Layout = detail::ProcessMutexLayout;

constexpr std::uint64_t kFirstLook = 1'000'000;
constexpr std::uint64_t kLastLook = 16'000'000;

constexpr std::uint32_t word_of(std::uint64_t cell) { return static_cast<std::uint32_t>(cell); }
constexpr std::uint32_t pid_of(std::uint64_t cell) { return words::owner(word_of(cell)) & ~words::kProcess; }
constexpr std::uint32_t start_of(std::uint64_t cell) { return static_cast<std::uint32_t>(cell >> 32); }

constexpr std::uint64_t name_of(const Process& process) {
  return static_cast<std::uint64_t>(process.start) << 32 | words::kProcess | process.pid;
}

bool is_ours(const Layout& l, const Process& process) {
  const std::uint64_t cell = l.cell.load(std::memory_order_relaxed);
  return (cell & ~static_cast<std::uint64_t>(words::kWaiters)) == name_of(process);
}

/// The first that locks decides in which pid namespace the ids are.
bool same_namespace(Layout& l, const Process& process) {
  std::uint32_t theirs = l.pid_namespace.load(std::memory_order_relaxed);
  if (theirs == 0 && l.pid_namespace.compare_exchange_strong(theirs, process.pid_namespace, std::memory_order_relaxed))
    return true;
  return theirs == process.pid_namespace;
}

Outcome own(Layout& l, const Thread& thread, bool from_the_dead) {
  if (from_the_dead) l.dirty.store(1, std::memory_order_relaxed);
  l.thread.store(thread.tid, std::memory_order_relaxed);
  if (from_the_dead) return Outcome::owner_died;
  return l.dirty.load(std::memory_order_relaxed) != 0 ? Outcome::inconsistent : Outcome::clean;
}

/// A look at a lock that was not free at first sight, until it is settled.
Outcome wait_for(Layout& l, const Thread& thread, const Process& process, const Wait& wait) {
  const std::uint64_t me = name_of(process);
  std::uint64_t waiters = 0;
  std::uint64_t patience = kFirstLook;
  bool look_for_death = wait.how == Wait::How::never;
  int spun = 0;
  for (;;) {
    std::uint64_t seen = l.cell.load(std::memory_order_relaxed);
    const bool free = words::owner(word_of(seen)) == 0;
    const bool dead = !free && look_for_death && pid_of(seen) != process.pid && is_gone(pid_of(seen), start_of(seen));
    if (free || dead) {
      if (Host::cas(l.cell, seen, me | (seen & words::kWaiters) | waiters, std::memory_order_acquire))
        return own(l, thread, dead);
      continue;
    }
    // A process that has our id and another start time is gone: we have its id.
    if (pid_of(seen) == process.pid && start_of(seen) != process.start) {
      if (Host::cas(l.cell, seen, me | words::kWaiters, std::memory_order_acquire)) return own(l, thread, true);
      continue;
    }
    if (is_ours(l, process) && l.thread.load(std::memory_order_relaxed) == thread.tid) return Outcome::deadlock;
    if (wait.how == Wait::How::never) return Outcome::busy;
    if (Host::told_to_end(wait)) return Outcome::interrupted;
    if (Host::spin(spun)) continue;
    if (Host::past(wait)) return Outcome::timed_out;
    if (!words::has_waiters(word_of(seen))) {
      if (!Host::cas(l.cell, seen, seen | words::kWaiters, std::memory_order_relaxed)) continue;
      seen |= words::kWaiters;
    }
    const std::uint64_t soon = futex::now() + patience;
    const std::uint64_t deadline = wait.deadline != 0 ? std::min(wait.deadline, soon) : soon;
    const futex::Woke why = Host::sleep(l.word, word_of(seen), futex::Class::any, {wait.how, deadline});
    waiters = words::kWaiters;
    spun = 0;
    look_for_death = why == futex::Woke::timed_out;
    patience = look_for_death ? std::min(patience * 2, kLastLook) : kFirstLook;
    if (why == futex::Woke::interrupted && wait.how == Wait::How::interruptible) return Outcome::interrupted;
  }
}

Outcome take(Layout& l, const Wait& wait) {
  Thread* const thread = self();
  const Process process = this_process();
  if (thread == nullptr || process.pid == 0) [[unlikely]]
    return Outcome::unsupported;
  if (l.pid_namespace.load(std::memory_order_relaxed) != process.pid_namespace && !same_namespace(l, process))
      [[unlikely]]
    return Outcome::foreign_namespace;
  std::uint64_t seen = 0;
  if (Host::cas(l.cell, seen, name_of(process), std::memory_order_acquire)) [[likely]]
    return own(l, *thread, false);
  Host host(*thread);
  host.pend(l);
  const Outcome outcome = wait_for(l, *thread, process, wait);
  // A killable wait may have consumed a wake; the others look again by themselves.
  if (!holds(outcome) && words::owner(word_of(l.cell.load(std::memory_order_relaxed))) == 0)
    Host::wake_one(l.word, futex::Class::any);
  host.unpend();
  return outcome;
}

Outcome give(Layout& l) {
  Thread* const thread = self();
  const Process process = this_process();
  if (thread == nullptr || process.pid == 0) [[unlikely]]
    return Outcome::unsupported;
  if (!is_ours(l, process)) [[unlikely]]
    return Outcome::not_owner;
  l.thread.store(0, std::memory_order_relaxed);
  std::uint64_t alone = name_of(process);
  if (Host::cas(l.cell, alone, 0, std::memory_order_release)) [[likely]]
    return Outcome::clean;
  // From the release on the lock may be another's, or gone: nothing but the wake touches it.
  Host host(*thread);
  host.pend(l);
  if (host.lonely(l.word)) {
    host.lonely(l.word, false);
    Host::release_and_wake_all(l.word);
  } else {
    l.cell.store(words::kWaiters, std::memory_order_release);
    host.lonely(l.word, Host::wake_one(l.word, futex::Class::any) == 0);
  }
  host.unpend();
  return Outcome::clean;
}

bool take_clean(Layout& l, const Wait& wait, Outcome no) {
  const Outcome outcome = take(l, wait);
  if (outcome == Outcome::clean) [[likely]]
    return true;
  if (outcome == no) return false;
  if (holds(outcome)) give(l);
  raise(outcome);
}

Outcome set_dirty(Layout& l, std::uint32_t dirty) {
  if (!is_ours(l, this_process())) return Outcome::not_owner;
  l.dirty.store(dirty, std::memory_order_relaxed);
  return Outcome::clean;
}

}  // namespace

void process_mutex::lock() { take_clean(layout_, {}, Outcome::clean); }
bool process_mutex::try_lock() { return take_clean(layout_, {Wait::How::never}, Outcome::busy); }
bool process_mutex::try_lock_by(Deadline deadline) { return take_clean(layout_, until(deadline), Outcome::timed_out); }
void process_mutex::unlock() {
  const Outcome outcome = give(layout_);
  if (outcome != Outcome::clean) [[unlikely]]
    raise(outcome);
}

Result<Acquired> process_mutex::lock_checked() { return acquired(take(layout_, {})); }
Result<Acquired> process_mutex::trylock() { return acquired(take(layout_, {Wait::How::never})); }
Result<Acquired> process_mutex::lock_until_checked(Deadline deadline) {
  return acquired(take(layout_, until(deadline)));
}
Result<Acquired> process_mutex::lock_interruptible() { return acquired(take(layout_, {Wait::How::interruptible})); }
Result<Acquired> process_mutex::lock_killable() { return acquired(take(layout_, {Wait::How::killable})); }
Result<> process_mutex::unlock_checked() { return done(give(layout_)); }

bool process_mutex::is_locked() const noexcept { return holder() != 0; }
std::uint32_t process_mutex::holder() const noexcept { return pid_of(layout_.cell.load(std::memory_order_relaxed)); }

Result<> process_mutex::consistent() { return done(set_dirty(layout_, 0)); }
Result<> process_mutex::mark_inconsistent() { return done(set_dirty(layout_, 1)); }

}  // namespace holdfast::sync
