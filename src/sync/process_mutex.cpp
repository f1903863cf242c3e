// SPDX-License-Identifier: MIT
// process_mutex: its protocol with processes as owners, and how their end is noticed.
#include <holdfast/sync/process_mutex.hpp>

#include <algorithm>
#include <array>
#include <climits>
#include <utility>

#include "sync/answers.hpp"
#include "sync/host.hpp"
#include "sync/life.hpp"
#include "sync/order_hook.hpp"
#include "sync/process.hpp"
#include "sync/process_protocol.hpp"

namespace holdfast::sync {
namespace {

using Layout = detail::ProcessMutexLayout;

constexpr std::uint64_t kFirstLook = 1'000'000;
constexpr std::uint32_t kMostDoublings = 4;  // 16 ms
constexpr std::uint64_t kSoon = 50'000;      // after a rumour of the owner's end; doubled up to 13 ms

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

/// The machine of those who need not wait.
class NamedHost : public Host {
 public:
  NamedHost(Thread& thread, const Process& process) : Host(thread), process_(process) {}

  [[nodiscard]] std::uint64_t name() const { return name_of(process_); }

 protected:
  const Process process_;
};

class ProcessHost : public NamedHost {
 public:
  ProcessHost(Thread& thread, const Process& process, const Layout& layout)
      : NamedHost(thread, process), layout_(layout) {}

  /// \param ask  whether it is time for a system call
  [[nodiscard]] bool owner_is_gone(std::uint64_t cell, bool ask) {
    if (pid_of(cell) == process_.pid) return start_of(cell) != process_.start;  // we have its id
    const bool heard = std::exchange(heard_, false);
    return (ask || heard) && is_gone(pid_of(cell), start_of(cell));
  }
  futex::Woke sleep_until_asking(const Cell& word, std::uint32_t value, std::uint32_t asked, const Wait& wait) {
    const std::uint64_t length = rumours_ != 0 ? kSoon << std::min(rumours_++, 2 * kMostDoublings)
                                               : kFirstLook << std::min(asked, kMostDoublings);
    const std::uint64_t soon = futex::now() + length;
    const std::uint64_t deadline = wait.deadline != 0 ? std::min(wait.deadline, soon) : soon;
    // Most waits are over before it would pay to look for the owner's page.
    futex::Watched life{nullptr, 0};
    if (asked != 0 && wait.how != Wait::How::interruptible) life = owners_life();
    if (life.word == nullptr) return sleep(word, value, futex::Class::any, {wait.how, deadline});
    const bool killable = wait.how == Wait::How::killable;
    const std::array<futex::Watched, 3> all{{{&word, value}, life, {&termination, 0}}};
    const futex::Woke why = futex::wait_any({all.data(), killable ? 3U : 2U}, deadline);
    if (life.word->load(std::memory_order_relaxed) != life.value) {
      heard_ = true;
      rumours_ = std::max(rumours_, 1U);
      futex::wake(*life.word, INT_MAX, futex::Class::any);  // the kernel woke one of us
    }
    return why;
  }

 private:
  futex::Watched owners_life() {
    const std::uint64_t owner = layout_.cell.load(std::memory_order_relaxed);
    return watch_.word(pid_of(owner), start_of(owner), layout_.life.load(std::memory_order_relaxed),
                       layout_.thread.load(std::memory_order_relaxed));
  }

  const Layout& layout_;
  life::Watch watch_;
  bool heard_ = false;
  std::uint32_t rumours_ = 0;
};

/// The first that locks decides in which pid namespace the ids are.
bool same_namespace(Layout& l, const Process& process) {
  std::uint32_t theirs = l.pid_namespace.load(std::memory_order_relaxed);
  if (theirs == 0 && l.pid_namespace.compare_exchange_strong(theirs, process.pid_namespace, std::memory_order_relaxed))
    return true;
  return theirs == process.pid_namespace;
}

[[gnu::noinline]] Outcome take_slowly(Layout& l, const Wait& wait) {
  Thread* const thread = self();
  const Process process = this_process();
  if (thread == nullptr || process.pid == 0) return Outcome::unsupported;
  if (l.pid_namespace.load(std::memory_order_relaxed) != process.pid_namespace && !same_namespace(l, process))
    return Outcome::foreign_namespace;
  if (thread->shown == 0) thread->shown = life::show(*thread);
  ProcessHost host(*thread, process, l);
  View view{l};
  const Outcome outcome = process_protocol::lock(host, view, wait);
  if (holds(outcome)) l.life.store(thread->shown, std::memory_order_relaxed);
  return outcome;
}

[[gnu::always_inline]] inline Outcome take_unwatched(Layout& l, const Wait& wait) {
  Thread& thread = this_thread;
  if (const Process process = this_process();
      thread.shown != 0 && l.pid_namespace.load(std::memory_order_relaxed) == process.pid_namespace) [[likely]] {
    NamedHost host(thread, process);
    View view{l};
    const Outcome outcome = process_protocol::begin(host, view);
    if (outcome != Outcome::again) [[likely]] {
      l.life.store(thread.shown, std::memory_order_relaxed);
      return outcome;
    }
  }
  return take_slowly(l, wait);
}

[[gnu::always_inline]] inline Outcome give_unwatched(Layout& l) {
  Thread* const thread = self();
  const Process process = this_process();
  if (thread == nullptr || process.pid == 0) [[unlikely]]
    return Outcome::unsupported;
  NamedHost host(*thread, process);
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

[[gnu::always_inline]] inline Outcome give(Layout& l) { return order::watched() ? give_watched(l) : give_unwatched(l); }

[[noreturn, gnu::noinline]] void refuse(Layout& l, Outcome outcome) {
  if (holds(outcome)) give(l);
  raise(outcome);
}

[[gnu::always_inline]] inline bool take_clean(Layout& l, const Wait& wait, Outcome no) {
  const Outcome outcome = take(l, wait);
  if (outcome == Outcome::clean) [[likely]]
    return true;
  if (outcome == no) return false;
  refuse(l, outcome);
}

Outcome set_dirty(Layout& l, std::uint32_t dirty) {
  if (!is_ours(l, this_process())) return Outcome::not_owner;
  l.dirty.store(dirty, std::memory_order_relaxed);
  return Outcome::clean;
}

}  // namespace

[[gnu::flatten]] void process_mutex::lock() { take_clean(layout_, {}, Outcome::clean); }
bool process_mutex::try_lock() { return take_clean(layout_, {Wait::How::never}, Outcome::busy); }
bool process_mutex::try_lock_by(Deadline deadline) { return take_clean(layout_, until(deadline), Outcome::timed_out); }
[[gnu::flatten]] void process_mutex::unlock() {
  const Outcome outcome = give(layout_);
  if (outcome != Outcome::clean) [[unlikely]]
    raise(outcome);
}

[[gnu::flatten]] Result<Acquired> process_mutex::lock_checked() { return acquired(take(layout_, {})); }
Result<Acquired> process_mutex::trylock() { return acquired(take(layout_, {Wait::How::never})); }
Result<Acquired> process_mutex::lock_until_checked(Deadline deadline) {
  return acquired(take(layout_, until(deadline)));
}
Result<Acquired> process_mutex::lock_interruptible() { return acquired(take(layout_, {Wait::How::interruptible})); }
Result<Acquired> process_mutex::lock_killable() { return acquired(take(layout_, {Wait::How::killable})); }
[[gnu::flatten]] Result<> process_mutex::unlock_checked() { return done(give(layout_)); }

bool process_mutex::is_locked() const noexcept { return holder() != 0; }
std::uint32_t process_mutex::holder() const noexcept { return pid_of(layout_.cell.load(std::memory_order_relaxed)); }

Result<> process_mutex::consistent() { return done(set_dirty(layout_, 0)); }
Result<> process_mutex::mark_inconsistent() { return done(set_dirty(layout_, 1)); }

}  // namespace holdfast::sync
