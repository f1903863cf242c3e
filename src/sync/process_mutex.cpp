// SPDX-License-Identifier: MIT
// process_mutex: its protocol with processes as owners, and how their end is noticed.
#include <holdfast/sync/process_mutex.hpp>

#include <algorithm>

#include "sync/answers.hpp"
#include "sync/host.hpp"
#include "sync/order_hook.hpp"
#include "sync/process.hpp"
#include "sync/process_protocol.hpp"

namespace holdfast::sync {
namespace {

using Layout = detail::ProcessMutexLayout;

constexpr std::uint64_t kFirstLook = 1'000'000;
constexpr std::uint32_t kMostDoublings = 4;  // 16 ms

constexpr std::uint32_t pid_of(std::uint64_t cell) {
  return words::owner(process_protocol::word_of(cell)) & ~words::kProcess;
}
constexpr std::uint32_t start_of(std::uint64_t cell) { return static_cast<std::uint32_t>(cell >> 32); }

constexpr std::uint64_t name_of(const Process& process) {
  return static_cast<std::uint64_t>(process.start) << 32 | words::kProcess | process.pid;
}

bool is_ours(const Layout& l, const Process& process) {
  return process_protocol::is(l.cell.load(std::memory_order_relaxed), name_of(process));
}

/// The layout as the protocol wants it.
struct View {
  Layout& layout;
  std::atomic<std::uint64_t>& cell = layout.cell;
  std::atomic<std::uint32_t>& dirty = layout.dirty;
  std::atomic<std::uint32_t>& thread = layout.thread;
  void*& next = layout.next;
  [[nodiscard]] std::atomic<std::uint32_t>& word() const { return layout.word; }
};

class ProcessHost : public Host {
 public:
  ProcessHost(Thread& thread, const Process& process) : Host(thread), process_(process) {}

  [[nodiscard]] std::uint64_t name() const { return name_of(process_); }
  /// \param ask  whether it is time for a system call
  [[nodiscard]] bool owner_is_gone(std::uint64_t cell, bool ask) const {
    if (pid_of(cell) == process_.pid) return start_of(cell) != process_.start;  // we have its id
    return ask && is_gone(pid_of(cell), start_of(cell));
  }
  static futex::Woke sleep_until_asking(const Cell& word, std::uint32_t value, std::uint32_t asked, const Wait& wait) {
    const std::uint64_t soon = futex::now() + (kFirstLook << std::min(asked, kMostDoublings));
    const std::uint64_t deadline = wait.deadline != 0 ? std::min(wait.deadline, soon) : soon;
    return sleep(word, value, futex::Class::any, {wait.how, deadline});
  }

 private:
  const Process process_;
};

/// The first that locks decides in which pid namespace the ids are.
bool same_namespace(Layout& l, const Process& process) {
  std::uint32_t theirs = l.pid_namespace.load(std::memory_order_relaxed);
  if (theirs == 0 && l.pid_namespace.compare_exchange_strong(theirs, process.pid_namespace, std::memory_order_relaxed))
    return true;
  return theirs == process.pid_namespace;
}

Outcome take_unwatched(Layout& l, const Wait& wait) {
  Thread* const thread = self();
  const Process process = this_process();
  if (thread == nullptr || process.pid == 0) [[unlikely]]
    return Outcome::unsupported;
  if (l.pid_namespace.load(std::memory_order_relaxed) != process.pid_namespace && !same_namespace(l, process))
      [[unlikely]]
    return Outcome::foreign_namespace;
  ProcessHost host(*thread, process);
  View view{l};
  return process_protocol::lock(host, view, wait);
}

Outcome give_unwatched(Layout& l) {
  Thread* const thread = self();
  const Process process = this_process();
  if (thread == nullptr || process.pid == 0) [[unlikely]]
    return Outcome::unsupported;
  ProcessHost host(*thread, process);
  View view{l};
  return process_protocol::unlock(host, view);
}

[[gnu::noinline]] Outcome take_watched(Layout& l, const Wait& wait, const void* where) {
  order::wanted(l.order_class, &l, order::How::exclusive, wait.how, where);
  const Outcome outcome = take_unwatched(l, wait);
  order::had(l.order_class, &l, order::How::exclusive, wait.how, outcome, where);
  return outcome;
}

[[gnu::noinline]] Outcome give_watched(Layout& l) {
  const Thread* const thread = self();
  const std::uint32_t taker = l.thread.load(std::memory_order_relaxed);
  if (thread != nullptr && taker != thread->tid && taker != 0 && is_ours(l, this_process())) {
    order::released_for(&l, taker);
  } else {
    order::released(&l);
  }
  return give_unwatched(l);
}

// Inlined, as take_clean is, so that the return address is the program's.
[[gnu::always_inline]] inline Outcome take(Layout& l, const Wait& wait) {
  return order::watched() ? take_watched(l, wait, __builtin_return_address(0)) : take_unwatched(l, wait);
}

Outcome give(Layout& l) { return order::watched() ? give_watched(l) : give_unwatched(l); }

[[gnu::always_inline]] inline bool take_clean(Layout& l, const Wait& wait, Outcome no) {
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
