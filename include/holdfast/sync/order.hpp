// SPDX-License-Identifier: MIT
// order.hpp - finding deadlocks that have not happened yet.
//
// Locks that play the same role form a class. While a thread takes locks, the validator records which class was taken
// while which other was held, and says so the first time two orders contradict each other: no thread has to meet the
// other at the wrong moment for that. The record may live in a file; orders are then compared between processes, and
// between yesterday's run and today's. The idea, and the rules for readers, are those of the Linux kernel's lockdep.
//
// Three ways to build: HOLDFAST_SYNC_ORDER 0 leaves it out of the locks, 1 (the default) compiles it in, switched off
// until switch_on() or HOLDFAST_ORDER=on in the environment, 2 has it on unless HOLDFAST_ORDER=off.
//
// Locks that were made without a class are not looked at. None is guessed: a member's constructor does not know whose
// member it is, and the place where a lock is first taken would make one class of all that one function takes, and
// false reports of it.
//
// Limits: kMostClasses classes in a graph, kMostHeld locks held by a thread at a time, 8192 orders with a stack (more
// are kept without), 256 modules with a name. At each it says so once, and then leaves alone what it has no room for.
#pragma once

#include <holdfast/export.h>
#include <holdfast/sync/lock_class.hpp>

#include <sys/types.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <system_error>

#ifndef HOLDFAST_SYNC_ORDER
#define HOLDFAST_SYNC_ORDER 1
#endif

namespace holdfast::sync {

namespace order {

inline constexpr std::size_t kMostClasses = 1024;
inline constexpr std::uint32_t kMostHeld = 48;

/// How a lock is taken.
enum class How : std::uint8_t {
  exclusive = 0,
  /// Readers share it, but a reader waits behind a waiting writer: to read twice may deadlock.
  shared = 1,
  /// As exclusive, but a thread may take several units of one lock (owned_semaphore), which is no recursion. That
  /// threads which have some and wait for more may starve each other is not looked at.
  counted = 2,
  /// Readers share it and get in while a writer waits: to read twice is harmless.
  recursive_shared = 3,
};

/// What is known of the thread's signals at that moment.
enum class Signals : std::uint8_t {
  ask = 0,      ///< the validator asks the kernel, when it must know
  blocked = 4,  ///< all of them were blocked by the lock operation itself (irqsave)
};

/// A place in a program.
struct Frame {
  const char* module = nullptr;  ///< file of the program or library; null when unknown
  std::uintptr_t offset = 0;     ///< address in that file, as addr2line(1) wants it; without a module, in memory
  const char* symbol = nullptr;  ///< function, when it is exported and loaded here
  std::uintptr_t into = 0;       ///< bytes from the function's start
};

/// One lock taken, as a rule while another was held.
struct Acquisition {
  const char* wanted = nullptr;  ///< name of the class that was taken
  How wanted_how = How::exclusive;
  const char* held = nullptr;  ///< name of the class that was held; null when that does not matter
  How held_how = How::exclusive;
  Frame held_at;                 ///< where the held lock was taken
  std::span<const Frame> stack;  ///< where the wanted lock was taken, innermost first; empty when not recorded
  const char* program = nullptr;
  pid_t process = 0;
  pid_t thread = 0;
};

/// What was found. Everything in it is valid during the call of the handler only.
struct Report {
  enum class Kind : std::uint8_t {
    inversion,  ///< two orders contradict each other: acquisitions[0] is now, the others lead back, one after another
    recursion,  ///< a lock is taken by the thread that holds it
    nesting,    ///< two locks of one class are held at a time, and nothing says in which order: see nested()
    signal_unsafe,  ///< [0] in a handler, [1] elsewhere while its signal could come: the handler may interrupt the
                    ///< holder
    /// Like signal_unsafe with a lock between: the handler wants [0], whose holder may wait for [1], whose holder the
    /// handler interrupted.
    signal_inversion,
    full,  ///< a limit was met; `limit` says which
  };
  Kind kind = Kind::inversion;
  std::span<const Acquisition> acquisitions;
  std::size_t left_out = 0;     ///< acquisitions of a long cycle that are not shown
  int signal = 0;               ///< for signal_unsafe and signal_inversion
  const char* limit = nullptr;  ///< for full
};

/// The report as the block of text that goes to stderr when no handler is given.
[[nodiscard]] HF_API std::string to_string(const Report& report);

/// Called in the thread that was about to take the lock, before it waits; maybe in a signal handler. It may take locks,
/// which are then not checked.
using Handler = void (*)(const Report& report, void* context);

enum class Afterwards : std::uint8_t { go_on, abort };

struct Options {
  /// File of the graph, for orders across processes and runs; made when missing, mode 0600, some 3 MB with holes.
  /// Whoever may write it may spoil the findings. Empty: a graph of this process alone.
  std::string graph;
  Handler handler = nullptr;  ///< null: to stderr
  void* context = nullptr;    ///< handed to the handler
  Afterwards afterwards = Afterwards::go_on;
};

/// Starts validation. Locks that are held already are unknown to it; nothing is reported about them.
///
/// Called again it changes the options; another graph begins with nothing held.
/// \thread  thread-safe; takes effect in other threads at their next lock
/// \returns errno of open(2), ftruncate(2), mmap(2), and EMEDIUMTYPE for a file that is no graph of this version
[[nodiscard]] HF_API std::error_code switch_on(const Options& options = {});

/// Ends validation. What was recorded stays recorded.
HF_API void switch_off() noexcept;

[[nodiscard]] HF_API bool is_on() noexcept;

/// What the graph holds.
struct Contents {
  std::size_t classes = 0;
  std::size_t orders = 0;   ///< pairs of classes seen in that order, by kind of hold and wait
  std::size_t reports = 0;  ///< by this process
};
[[nodiscard]] HF_API Contents contents() noexcept;

// What follows is for those who write locks. A lock calls, with the address of the lock for its identity:
//
//   acquiring()        before it may wait; released() when it then does not get the lock
//   acquired_by_try()  after it got the lock without any waiting
//   released()         before or after it lets go
//   released_for()     instead, when the thread that lets go is not the one that took it
//   downgraded()       when a writer becomes a reader
//
// For a lock that anybody may release (a semaphore) call released() right after acquiring(): orders that lead to it are
// recorded then, orders that start from it are not.

namespace detail {

struct Held {
  const void* lock;     // null: the floor of what is held, or released by a handler that interrupted the holder
  std::uint64_t what;   // key of the class with How, Signals and kTried
  std::uint64_t chain;  // hash of this entry and all below
  const void* where;
};

// Written by its own thread alone, signal handlers of that thread included.
struct Thread {
  std::uint32_t epoch;  // 0 in `nobody`, which equals no epoch that is on
  std::uint32_t tid;
  Held* top;             // what was taken last; at least `floor`
  std::uint64_t nested;  // subclass of what is taken now, where it stands in a key; and Signals::blocked under irqsave
  // Chains that were found in order. A miss costs a look into the graph, a false hit needs 64 equal bits. A chain says
  // how deep it is, and none is here for which there was no room: so a hit needs no look at the limit.
  static constexpr unsigned kChainBits = 8;
  std::uint64_t valid[1U << kChainBits];
  Held* floor;  // entries below belong to what a signal handler interrupted
  std::uint32_t turns;
  int signal;  // of the handler that runs now, 0 outside
  bool reporting;
  Held held[kMostHeld + 1];
};

// High half: number of the switch_on(), low half: how often threads must forget Thread::valid. 0 is off. Relaxed: a
// thread that sees it late validates late; what hangs on it is read behind an acquire load, in enter().
inline constexpr std::uint32_t kUndecided = ~std::uint32_t{0};
HF_API extern constinit std::atomic<std::uint32_t> epoch;

// initial-exec: one instruction instead of a call; a pointer, because a library that is loaded late has little of that
// room.
HF_API extern constinit thread_local Thread* self __attribute__((tls_model("initial-exec")));

[[nodiscard]] HF_API Thread* enter(std::uint32_t now) noexcept;
HF_API void acquire_slowly(const LockClass& lock_class, std::uint64_t what, const void* lock, const void* where,
                           std::uint32_t now) noexcept;
HF_API void release_slowly(const void* lock, std::uint32_t now) noexcept;
HF_API void downgrade(const void* lock) noexcept;
HF_API void hand_over(const void* lock, std::uint32_t tid) noexcept;
/// \returns what unblock_signals() puts back
HF_API std::uint64_t block_signals(std::uint32_t now) noexcept;
HF_API void unblock_signals(std::uint64_t before) noexcept;

inline constexpr std::uint64_t kTried = 8;

// A bijection of either argument.
[[nodiscard]] inline std::uint64_t longer(std::uint64_t chain, std::uint64_t what) noexcept {
  return (((chain << 5) | (chain >> 59)) ^ what) * 0x9e3779b97f4a7c15;
}

inline void push(Thread& thread, Held* top, const Held& entry) noexcept {
  top[1] = entry;
  thread.top = top + 1;
  // A handler of this thread must find what is held, whatever the compiler keeps in registers.
  std::atomic_signal_fence(std::memory_order_seq_cst);
}

// Six stores in all, because what follows is a locked instruction, which waits for them.
inline void acquire(const LockClass& lock_class, std::uint64_t bits, const void* lock, const void* where,
                    std::uint32_t now) noexcept {
  Thread& thread = *self;
  const std::uint64_t what = lock_class.key() | bits | thread.nested;
  Held* const top = thread.top;
  const std::uint64_t chain = longer(top->chain, what);
  if (thread.epoch == now && thread.valid[chain >> (64 - Thread::kChainBits)] == chain) [[likely]]
    push(thread, top, {lock, what, chain, where});
  else
    acquire_slowly(lock_class, what, lock, where, now);
}

}  // namespace detail

/// The address of the code that asks.
[[nodiscard, gnu::always_inline]] inline const void* here() noexcept {
#if defined(__x86_64__)
  const void* address;
  asm("lea 0(%%rip), %0" : "=r"(address));
  return address;
#elif defined(__aarch64__)
  const void* address;
  asm("adr %0, ." : "=r"(address));
  return address;
#else
  return __builtin_return_address(0);
#endif
}

/// A thread is about to wait for a lock. Reports; never refuses.
/// \thread  safe in signal handlers
/// \cost    off: a load and a predicted branch. A chain that this thread had before: 1 to 2 ns. A new order: 2 to 3
///          us, twice that among 1,000 classes.
inline void acquiring(const LockClass& lock_class, const void* lock, How how, const void* where,
                      Signals signals = Signals::ask) noexcept {
  const std::uint32_t now = detail::epoch.load(std::memory_order_relaxed);
  if (now != 0) [[unlikely]]
    detail::acquire(lock_class, static_cast<std::uint64_t>(how) | static_cast<std::uint64_t>(signals), lock, where,
                    now);
}

/// A thread has got a lock without waiting, and would not have waited: nothing held before can wait because of it.
inline void acquired_by_try(const LockClass& lock_class, const void* lock, How how, const void* where,
                            Signals signals = Signals::ask) noexcept {
  const std::uint32_t now = detail::epoch.load(std::memory_order_relaxed);
  if (now != 0) [[unlikely]]
    detail::acquire(lock_class, static_cast<std::uint64_t>(how) | static_cast<std::uint64_t>(signals) | detail::kTried,
                    lock, where, now);
}

/// The thread does not hold the lock any more, or does not get it. In any order; a lock that is not known is none.
inline void released(const void* lock) noexcept {
  const std::uint32_t now = detail::epoch.load(std::memory_order_relaxed);
  if (now == 0) [[likely]]
    return;
  detail::Thread& thread = *detail::self;
  detail::Held* const top = thread.top;
  if (thread.epoch == now && top->lock == lock) [[likely]] {
    thread.top = top - 1;
    std::atomic_signal_fence(std::memory_order_seq_cst);
  } else {
    detail::release_slowly(lock, now);
  }
}

/// The thread `tid` (gettid(2)) of this process does not hold the lock any more: another gave it back.
inline void released_for(const void* lock, std::uint32_t tid) noexcept {
  if (detail::epoch.load(std::memory_order_relaxed) != 0) [[unlikely]]
    detail::hand_over(lock, tid);
}

/// The thread holds the lock as a reader from now on.
inline void downgraded(const void* lock) noexcept {
  if (detail::epoch.load(std::memory_order_relaxed) != 0) [[unlikely]]
    detail::downgrade(lock);
}

/// For who takes several locks of one class at a time, in an order of his own: by address, parent before child.
///
/// `a.lock(); { const order::Nested second{1}; b.lock(); }`: what this thread takes while a Nested lives is of that
/// subclass; 15 of them are enough for trees that are walked hand over hand with one for odd and one for even depths.
class Nested {
 public:
  /// \pre  subclass < 16
  explicit Nested(std::uint32_t subclass) noexcept {
    const std::uint32_t now = detail::epoch.load(std::memory_order_relaxed);
    if (now == 0) [[likely]]
      return;
    thread_ = detail::enter(now);
    if (thread_ == nullptr) return;
    before_ = thread_->nested;
    thread_->nested = (before_ & 15) | std::uint64_t{subclass & 15} << 4;
  }
  ~Nested() {
    if (thread_ != nullptr) thread_->nested = before_;
  }
  Nested(const Nested&) = delete;
  Nested& operator=(const Nested&) = delete;

 private:
  detail::Thread* thread_ = nullptr;
  std::uint64_t before_ = 0;
};

/// Put it first into a signal handler that takes locks: what is taken while it lives is taken in a handler of `signal`.
///
/// The validator cannot see by itself that a handler runs. Without it locks taken there look as if they were taken by
/// the code that was interrupted.
class InHandler {
 public:
  HF_API explicit InHandler(int signal) noexcept;
  HF_API ~InHandler();
  InHandler(const InHandler&) = delete;
  InHandler& operator=(const InHandler&) = delete;

 private:
  detail::Thread* thread_ = nullptr;
  detail::Held* top_ = nullptr;
  detail::Held* floor_ = nullptr;
  std::uint64_t nested_ = 0;
  std::uint32_t epoch_ = 0;
  int signal_ = 0;
};

}  // namespace order
}  // namespace holdfast::sync
