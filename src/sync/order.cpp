// SPDX-License-Identifier: MIT
// The validator in a process: threads' records, the graph they are compared with, and what is told when they disagree.
//
// The fast path is in the header: a thread compares a hash of what it holds with hashes that it found in order before.
// Everything here runs when that misses, allocates nothing by malloc, takes no lock that a signal handler could find
// taken for ever, and so may itself run in a handler.
#include <holdfast/sync/order.hpp>

#include "sync/order_graph.hpp"
#include "sync/order_report.hpp"
#include "sync/order_stack.hpp"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <mutex>
#include <new>

namespace holdfast::sync::order {

namespace {

// Pages of zeros: malloc may be what the interrupted code is in.
void* pages(std::size_t size) noexcept {
  void* memory = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return memory == MAP_FAILED ? nullptr : memory;
}

// The text that a class was made of, if its pointer leads to it: in a lock of shared memory it may be another
// process's.
bool read_name(const LockClass& lock_class, char (&to)[256]) noexcept {
  if (lock_class.name() == nullptr) return false;
  // The kernel answers EFAULT where a load would be a fault, and less when a page ends.
  iovec here{.iov_base = to, .iov_len = sizeof to - 1};
  iovec there{.iov_base = const_cast<char*>(lock_class.name()), .iov_len = sizeof to - 1};
  ssize_t length = ::process_vm_readv(::getpid(), &here, 1, &there, 1, 0);
  if (length < 0) {
    there.iov_len = 4096 - reinterpret_cast<std::uintptr_t>(lock_class.name()) % 4096;
    if (there.iov_len < sizeof to - 1) length = ::process_vm_readv(::getpid(), &here, 1, &there, 1, 0);
  }
  if (length <= 0) return false;
  to[length] = '\0';
  const std::uint64_t key = lock_class.nested(0).key();
  const std::uint32_t line = LockClass::line_of(key);
  return key == (line != 0 ? LockClass::key_of(to, line) : LockClass::key_of(to));
}

// What was told already. Of this process, so that a finding is told again in the next run of whoever mends it.
class Told {
 public:
  enum class Answer : std::uint8_t { first, again, full };
  Answer ask(std::uint64_t what) noexcept {
    for (std::size_t i = 0; i < seen_.size(); ++i) {
      Word& slot = seen_[((what * 0x9e3779b97f4a7c15 >> 52) + i) % seen_.size()];
      std::uint64_t at = 0;
      if (slot.compare_exchange_strong(at, what, std::memory_order_relaxed)) return Answer::first;
      if (at == what) return Answer::again;
    }
    return Answer::full;
  }

 private:
  std::array<Word, 4096> seen_{};
};

// One graph as this process uses it. Never freed: a thread may be in it when another switches to the next.
struct Session {
  explicit Session(Region& memory) noexcept : region{memory}, modules{memory} {}
  Region& region;
  Modules modules;
  Told told;
  std::atomic<std::uint64_t> reports{0};
  std::uint32_t nonce = 0;
  char path[4096] = {};
  // Options that may change while it is on. Relaxed but for `handler`, whose release publishes the others.
  std::atomic<void*> context{nullptr};
  std::atomic<Handler> handler{nullptr};
  std::atomic<Afterwards> afterwards{Afterwards::go_on};
};

// The release store that switches it on pairs with the acquire loads here and in enter().
constinit std::atomic<Session*> session{nullptr};
constinit std::mutex switching;  // held by those who switch alone, never in a hook
pthread_key_t at_exit;
constinit std::once_flag at_exit_made;

constexpr std::uint32_t kSession = 0xffff0000;
constexpr std::uint64_t kNotClass = 15;  // in Held::what

// Of threads that have no record yet. Never written.
constinit detail::Thread nobody{.epoch = 0,
                                .tid = 0,
                                .top = nobody.held,
                                .nested = 0,
                                .valid = {},
                                .floor = nobody.held,
                                .turns = 0,
                                .signal = 0,
                                .reporting = false,
                                .held = {}};

// Everything a finding needs, too much for the small stack of a signal handler.
struct Desk {
  static constexpr std::size_t kMost = 8;
  struct Line {
    Sighting sighting;
    Frame frames[kFrames + 1];
    char paths[kFrames + 1][112];
    char wanted[56];
    char held[56];
  };
  Graph::Search search;
  Edge way[kMost];
  Acquisition acquisitions[kMost];
  Line lines[kMost];
  std::size_t used;
  char text[32 * 1024];
};

class Finder {
 public:
  // \param below  frame address of the function that the program called
  Finder(Session& of, detail::Thread& thread, const void* below) noexcept
      : session_{of},
        graph_{of.region},
        thread_{thread},
        below_{below},
        token_{(std::uint64_t{of.nonce} << 22) ^ thread.tid, thread.turns} {}

  // Whether the chain may be remembered as valid.
  bool look(const LockClass& lock_class, std::uint64_t what, const void* lock, const void* where) noexcept {
    if (lock_class.key() == 0) return true;
    const std::optional<ClassIndex> number = graph_.number(what & ~kNotClass);
    if (!number) {
      tell_full("there are 1024 classes, and locks of more are not looked at");
      return true;
    }
    wanted_ = *number;
    char name[256];
    if (!graph_.has_name(wanted_) && read_name(lock_class, name)) graph_.set_name(wanted_, name);
    how_ = how_of(what);
    bool clean = true;
    if ((what & detail::kTried) == 0) clean = look_at_held(lock);
    look_at_signals(what, where);
    if (graph_.witnesses_full()) tell_full("there are 8192 orders, and stacks of more are not kept");
    if (session_.modules.full()) tell_full("there are 256 modules, and places in more are not named");
    // Who takes a lock that a handler takes as well is asked for his signal mask each time, unless it is known.
    return clean && (graph_.handler_signals(wanted_) == 0 || thread_.signal != 0 ||
                     (what & static_cast<std::uint64_t>(Signals::blocked)) != 0);
  }

 private:
  [[nodiscard]] static How how_of(std::uint64_t what) noexcept { return static_cast<How>(what & 3); }

  bool look_at_held(const void* lock) noexcept {
    bool clean = true;
    for (const detail::Held* at = thread_.floor; ++at <= thread_.top;) {
      const detail::Held& held = *at;
      if (held.lock == nullptr) continue;
      const std::optional<ClassIndex> from = graph_.find(held.what & ~kNotClass);
      if (!from) continue;
      const Edge edge{*from, how_of(held.what), wanted_, how_};
      if (held.lock == lock || edge.from == edge.to) {
        if (is_shared(edge.held) && edge.wanted == How::recursive_shared) continue;
        if (held.lock == lock && edge.wanted == How::counted) continue;
        const auto kind = held.lock == lock ? Report::Kind::recursion : Report::Kind::nesting;
        tell(kind, edge, held.where);
        clean = false;  // the other of the two kinds has the same chain
        continue;
      }
      if (graph_.knows(edge)) continue;
      const Sighting& now = sighting(held.where);
      if (graph_.add(edge, now, token_) == Graph::Added::closes_cycle)
        tell(Report::Kind::inversion, edge, held.where);
      else if (graph_.any_handlers())
        tell_signal_conflicts();
    }
    return clean;
  }

  void look_at_signals(std::uint64_t what, const void* where) noexcept {
    Use use{.of = wanted_, .how = how_, .handler = 0, .open = 0};
    if ((what & static_cast<std::uint64_t>(Signals::blocked)) == 0) {
      // rt_sigprocmask(2) itself: pthread_sigmask(3) hides the C library's own signals, and the kernel's set is a word.
      std::uint64_t mask = 0;
      if (::syscall(SYS_rt_sigprocmask, SIG_BLOCK, nullptr, &mask, sizeof mask) == 0) use.open = ~mask;
    }
    if (thread_.signal != 0 && (what & detail::kTried) == 0) use.handler = std::uint64_t{1} << (thread_.signal - 1);
    if (graph_.knows(use)) return;
    const std::uint64_t handlers_before = graph_.handler_signals(wanted_);
    graph_.add(use, sighting(where), token_);
    // A class that handlers take is looked at closely from now on: threads must not trust what they found before.
    std::uint32_t epoch = thread_.epoch;
    if (graph_.handler_signals(wanted_) != handlers_before && (epoch & ~kSession) != ~kSession)
      detail::epoch.compare_exchange_strong(epoch, epoch + 1, std::memory_order_relaxed);
    if (graph_.any_handlers()) tell_signal_conflicts();
  }

  // The stack here and now, walked once for all orders of one acquisition.
  const Sighting& sighting(const void* held_at) noexcept {
    if (!captured_) {
      capture(session_.modules, below_, now_);
      now_.process = static_cast<std::uint32_t>(::getpid());
      now_.thread = thread_.tid;
      std::strncpy(now_.program, program_invocation_short_name, sizeof now_.program - 1);
      captured_ = true;
    }
    now_.held_at = session_.modules.pack(held_at);
    return now_;
  }

  [[nodiscard]] bool first_time(Report::Kind kind, std::uint64_t one, std::uint64_t other) noexcept {
    return session_.told.ask(1 + static_cast<std::uint64_t>(kind) + (one << 8) + (other << 32)) == Told::Answer::first;
  }

  Acquisition& add_line(Desk& desk, const Sighting* seen, ClassIndex wanted, How wanted_how) noexcept {
    Desk::Line& line = desk.lines[desk.used];
    Acquisition& shown = desk.acquisitions[desk.used++];
    shown = {};
    graph_.name(wanted, line.wanted);
    shown.wanted = line.wanted;
    shown.wanted_how = wanted_how;
    if (seen == nullptr) return shown;
    line.sighting = *seen;
    shown.program = line.sighting.program;
    shown.process = static_cast<pid_t>(seen->process);
    shown.thread = static_cast<pid_t>(seen->thread);
    // dladdr takes the loader's lock, which the interrupted code may hold.
    const auto symbols = thread_.signal != 0 ? Modules::Symbols::leave : Modules::Symbols::look;
    for (std::size_t i = 0; i < seen->frames; ++i)
      session_.modules.unpack(seen->stack[i], line.paths[i], line.frames[i], symbols);
    shown.stack = {line.frames, seen->frames};
    session_.modules.unpack(seen->held_at, line.paths[kFrames], shown.held_at, symbols);
    return shown;
  }

  void add_edge(Desk& desk, const Edge& edge, const Sighting* seen) noexcept {
    Desk::Line& line = desk.lines[desk.used];
    Acquisition& shown = add_line(desk, seen, edge.to, edge.wanted);
    graph_.name(edge.from, line.held);
    shown.held = line.held;
    shown.held_how = edge.held;
  }

  void add_use(Desk& desk, WitnessKey key, ClassIndex of, How how) noexcept {
    Sighting seen;
    add_line(desk, graph_.witness(key, seen) ? &seen : nullptr, of, how);
  }

  void tell(Report::Kind kind, const Edge& edge, const void* held_at) noexcept {
    if (!first_time(kind, edge.from, edge.to)) return;
    Desk* desk = new_desk();
    if (desk == nullptr) return;
    add_edge(*desk, edge, &sighting(held_at));
    Report report{.kind = kind, .acquisitions = {}, .left_out = 0, .signal = 0, .limit = nullptr};
    if (kind == Report::Kind::inversion) {
      const std::size_t length = graph_.way_back(edge, desk->search, desk->way);
      for (std::size_t i = 0; i < length && desk->used < Desk::kMost; ++i) {
        Sighting seen;
        const bool known = graph_.witness(WitnessKey::of(desk->way[i]), seen);
        add_edge(*desk, desk->way[i], known ? &seen : nullptr);
      }
      report.left_out = length + 1 - desk->used;
    }
    deliver(report, desk);
  }

  void tell_signal_conflicts() noexcept {
    graph_.signal_conflicts([this](const SignalConflict& conflict) {
      const bool same = conflict.wanted == conflict.held;
      const auto kind = same ? Report::Kind::signal_unsafe : Report::Kind::signal_inversion;
      if (!first_time(kind, class_of(conflict.wanted), class_of(conflict.held))) return;
      Desk* desk = new_desk();
      if (desk == nullptr) return;
      const bool recursive = conflict.wanted % 2 != 0;
      add_use(*desk, {WitnessKey::kInHandler, class_of(conflict.wanted), false, recursive}, class_of(conflict.wanted),
              recursive ? How::recursive_shared : How::exclusive);
      add_use(*desk, {WitnessKey::kOpen, class_of(conflict.held), conflict.held_shared, false}, class_of(conflict.held),
              conflict.held_shared ? How::shared : How::exclusive);
      deliver({.kind = kind,
               .acquisitions = {},
               .left_out = 0,
               .signal = 1 + __builtin_ctzll(conflict.signals),
               .limit = nullptr},
              desk);
    });
  }

 public:
  void tell_full(const char* limit) noexcept {
    if (!first_time(Report::Kind::full, reinterpret_cast<std::uintptr_t>(limit), 0)) return;
    if (Desk* desk = new_desk(); desk != nullptr)
      deliver({.kind = Report::Kind::full, .acquisitions = {}, .left_out = 0, .signal = 0, .limit = limit}, desk);
  }

 private:
  [[nodiscard]] static Desk* new_desk() noexcept { return static_cast<Desk*>(pages(sizeof(Desk))); }

  void deliver(Report report, Desk* desk) noexcept {
    report.acquisitions = {desk->acquisitions, desk->used};
    session_.reports.fetch_add(1, std::memory_order_relaxed);
    const int kept = errno;
    thread_.reporting = true;
    if (const Handler handler = session_.handler.load(std::memory_order_acquire); handler != nullptr) {
      handler(report, session_.context.load(std::memory_order_relaxed));
    } else {
      // One call, so that blocks of several threads do not mix.
      const std::size_t length = write_report(report, desk->text);
      [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, desk->text, length);
    }
    thread_.reporting = false;
    errno = kept;
    const bool end = session_.afterwards.load(std::memory_order_relaxed) == Afterwards::abort;
    ::munmap(desk, sizeof *desk);
    if (end && report.kind != Report::Kind::full) ::abort();
  }

  Session& session_;
  Graph graph_;
  detail::Thread& thread_;
  const void* below_;
  Token token_;
  ClassIndex wanted_ = 0;
  How how_ = How::exclusive;
  bool captured_ = false;
  Sighting now_{};
};

// Locks that one thread took and another gave back: nobody may touch another's record, so its owner looks here before
// it compares orders. A set of hashes, with room for what threads that never look leave behind.
class HandedOver {
 public:
  void add(const void* lock, std::uint32_t tid) noexcept {
    const std::uint64_t what = hash_of(lock, tid);
    Word* at = &slots_[what % slots_.size()];
    for (std::size_t i = 0; i < kProbes; ++i) {
      Word& slot = slots_[(what + i) % slots_.size()];
      std::uint64_t seen = 0;
      if (slot.compare_exchange_strong(seen, what, std::memory_order_relaxed) || seen == what) {
        at = nullptr;
        break;
      }
    }
    if (at != nullptr) at->store(what, std::memory_order_relaxed);  // the eldest guess is forgotten
    any_.store(true, std::memory_order_relaxed);
  }
  [[nodiscard]] bool any() const noexcept { return any_.load(std::memory_order_relaxed); }
  /// Whether it was handed over; then it is not any more.
  [[nodiscard]] bool take(const void* lock, std::uint32_t tid) noexcept {
    const std::uint64_t what = hash_of(lock, tid);
    for (std::size_t i = 0; i < kProbes; ++i) {
      std::uint64_t seen = what;
      if (slots_[(what + i) % slots_.size()].compare_exchange_strong(seen, 0, std::memory_order_relaxed)) return true;
    }
    return false;
  }

 private:
  static constexpr std::size_t kProbes = 8;
  static std::uint64_t hash_of(const void* lock, std::uint32_t tid) noexcept {
    return ((reinterpret_cast<std::uintptr_t>(lock) ^ (std::uint64_t{tid} << 40)) * 0x9e3779b97f4a7c15 >> 16) |
           1ULL << 63;
  }

  std::atomic<bool> any_{false};
  std::array<Word, 1024> slots_{};
};
constinit HandedOver handed_over;

void forget(void* thread) {
  detail::self = &nobody;
  ::munmap(thread, sizeof(detail::Thread));
}

std::error_code error_now() noexcept { return {errno, std::generic_category()}; }

// A file's graph, or one of this process alone.
std::error_code map(const char* path, Region*& region) noexcept {
  if (*path == '\0') {
    region = static_cast<Region*>(pages(sizeof(Region)));
    if (region == nullptr) return error_now();
    return {};
  }
  const int fd = ::open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) return error_now();
  std::error_code error;
  struct stat status{};
  void* memory = MAP_FAILED;
  if (::fstat(fd, &status) != 0) {
    error = error_now();
  } else if (!S_ISREG(status.st_mode) || (status.st_size != 0 && status.st_size != sizeof(Region))) {
    error = {EMEDIUMTYPE, std::generic_category()};
  } else {
    // Two who come first set the same size.
    if (::ftruncate(fd, sizeof(Region)) == 0)
      memory = ::mmap(nullptr, sizeof(Region), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED) error = error_now();
  }
  ::close(fd);
  if (error) return error;
  region = static_cast<Region*>(memory);
  std::uint64_t magic = 0;
  if (!region->magic.compare_exchange_strong(magic, kMagic, std::memory_order_relaxed) && magic != kMagic) {
    ::munmap(memory, sizeof(Region));
    return {EMEDIUMTYPE, std::generic_category()};
  }
  return {};
}

// With `switching` held.
std::error_code begin(const Options& options) noexcept {
  std::call_once(at_exit_made, [] { ::pthread_key_create(&at_exit, &forget); });
  if (options.graph.size() >= sizeof Session::path) return {ENAMETOOLONG, std::generic_category()};
  Session* now = session.load(std::memory_order_relaxed);
  if (now == nullptr || options.graph != now->path) {
    Region* region = nullptr;
    if (const std::error_code error = map(options.graph.c_str(), region); error) return error;
    void* memory = pages(sizeof(Session));
    if (memory == nullptr) {
      const std::error_code error = error_now();
      ::munmap(region, sizeof *region);
      return error;
    }
    now = new (memory) Session{*region};
    std::memcpy(now->path, options.graph.c_str(), options.graph.size());
    if (::getrandom(&now->nonce, sizeof now->nonce, GRND_NONBLOCK) != sizeof now->nonce)
      now->nonce = static_cast<std::uint32_t>(::getpid());
  }
  now->context.store(options.context, std::memory_order_relaxed);
  now->afterwards.store(options.afterwards, std::memory_order_relaxed);
  now->handler.store(options.handler, std::memory_order_release);
  static constinit std::uint32_t count = 0;
  const bool other = session.exchange(now, std::memory_order_release) != now;
  const std::uint32_t was = detail::epoch.load(std::memory_order_relaxed);
  if (other || was == 0 || was == detail::kUndecided) {
    count = count % 0xfffe + 1;  // neither 0 nor the half of kUndecided
    detail::epoch.store(count << 16, std::memory_order_release);
  }
  return {};
}

// HOLDFAST_ORDER=on|abort|off, HOLDFAST_ORDER_GRAPH=FILE. Asked once, at the first lock.
void decide() noexcept {
  const std::lock_guard guard{switching};
  if (detail::epoch.load(std::memory_order_relaxed) != detail::kUndecided) return;
  const char* word = ::secure_getenv("HOLDFAST_ORDER");
  const char* graph = ::secure_getenv("HOLDFAST_ORDER_GRAPH");
  const std::string_view asked = word != nullptr ? word : HOLDFAST_SYNC_ORDER == 2 ? "on" : "off";
  if (asked == "on" || asked == "abort") {
    Options options;
    if (graph != nullptr) options.graph = graph;
    if (asked == "abort") options.afterwards = Afterwards::abort;
    const std::error_code error = begin(options);
    if (!error) return;
    constexpr std::string_view kMessage =
        "holdfast: HOLDFAST_ORDER_GRAPH cannot be used: lock order is not validated\n";
    [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, kMessage.data(), kMessage.size());
  }
  detail::epoch.store(0, std::memory_order_relaxed);
}

}  // namespace

namespace detail {

constinit std::atomic<std::uint32_t> epoch{kUndecided};
constinit thread_local Thread* self __attribute__((tls_model("initial-exec"))) = &nobody;

Thread* enter(std::uint32_t now) noexcept {
  if (now == kUndecided) {
    decide();
    now = epoch.load(std::memory_order_relaxed);
  }
  // Acquire: the session that `now` speaks of, or a later one.
  if (now == 0 || session.load(std::memory_order_acquire) == nullptr) return nullptr;
  if (self == &nobody) {
    auto* made = static_cast<Thread*>(pages(sizeof(Thread)));
    if (made == nullptr) return nullptr;
    made->tid = static_cast<std::uint32_t>(::syscall(SYS_gettid));
    made->top = made->floor = made->held;
    ::pthread_setspecific(at_exit, made);
    self = made;
  }
  Thread& thread = *self;
  if (thread.epoch == now) return &thread;
  if ((thread.epoch & kSession) != (now & kSession)) {
    thread.top = thread.floor = thread.held;
    thread.held[0] = {};
    thread.nested = 0;
  }
  std::memset(thread.valid, 0, sizeof thread.valid);
  thread.epoch = now;
  return &thread;
}

void acquire_slowly(const LockClass& lock_class, std::uint64_t what, const void* lock, const void* where,
                    std::uint32_t now) noexcept {
  Thread* const thread = enter(now);
  if (thread == nullptr) return;
  if (handed_over.any())
    for (const Held* at = thread->top; at > thread->floor; --at)
      if (at->lock != nullptr && handed_over.take(at->lock, thread->tid)) release_slowly(at->lock, now);
  Held* const top = thread->top;
  const std::uint64_t chain = longer(top->chain, what);
  const bool room = top != thread->held + kMostHeld;
  if (!thread->reporting) {
    Finder finder{*session.load(std::memory_order_acquire), *thread, __builtin_frame_address(0)};
    const bool valid = finder.look(lock_class, what, lock, where);
    if (!room) finder.tell_full("a thread holds 48 locks, and more at a time are not looked at");
    if (valid && room) thread->valid[chain >> (64 - Thread::kChainBits)] = chain;
  }
  if (room) push(*thread, top, {lock, what, chain, where});
}

void release_slowly(const void* lock, std::uint32_t now) noexcept {
  Thread& thread = *self;
  if (&thread == &nobody || now == kUndecided || (thread.epoch & kSession) != (now & kSession)) return;
  for (Held* at = thread.top; at != thread.held; --at) {
    if (at->lock != lock) continue;
    if (at <= thread.floor) {  // nothing may move below a handler
      at->lock = nullptr;
      return;
    }
    for (; at != thread.top; ++at) {
      *at = at[1];
      at->chain = longer(at[-1].chain, at->what);
    }
    --thread.top;
    return;
  }
}

void hand_over(const void* lock, std::uint32_t tid) noexcept { handed_over.add(lock, tid); }

std::uint64_t block_signals(std::uint32_t now) noexcept {
  Thread* const thread = enter(now);
  if (thread == nullptr) return 0;
  const std::uint64_t before = thread->nested;
  thread->nested = before | static_cast<std::uint64_t>(Signals::blocked);
  return before;
}

void unblock_signals(std::uint64_t before) noexcept {
  if (self != &nobody) self->nested = before;
}

void downgrade(const void* lock) noexcept {
  Thread& thread = *self;
  for (Held* at = thread.top; at != thread.floor; --at) {
    if (at->lock != lock) continue;
    at->what |= static_cast<std::uint64_t>(How::shared);
    for (; at <= thread.top; ++at) at->chain = longer(at[-1].chain, at->what);
    return;
  }
}

}  // namespace detail

InHandler::InHandler(int signal) noexcept {
  const std::uint32_t now = detail::epoch.load(std::memory_order_relaxed);
  if (now == 0 || signal < 1 || signal > static_cast<int>(kSignals)) return;
  thread_ = detail::enter(now);
  if (thread_ == nullptr) return;
  top_ = thread_->top;
  floor_ = thread_->floor;
  nested_ = thread_->nested;
  epoch_ = thread_->epoch;
  signal_ = thread_->signal;
  // One entry is left alone: the interrupted code may be writing it. Without room for a floor nothing can be looked at.
  detail::Held* const floor = top_ + 2;
  if (floor > thread_->held + kMostHeld) {
    thread_ = nullptr;
    return;
  }
  // The place is part of the chain, so that equal chains have equal room above them.
  const std::uint64_t what = (static_cast<std::uint64_t>(floor - thread_->held) << 8) | static_cast<unsigned>(signal);
  *floor = {nullptr, 0, detail::longer(1, what), nullptr};
  thread_->top = thread_->floor = floor;
  thread_->nested = 0;
  thread_->signal = signal;
  std::atomic_signal_fence(std::memory_order_seq_cst);
}

InHandler::~InHandler() {
  if (thread_ == nullptr) return;
  std::atomic_signal_fence(std::memory_order_seq_cst);
  thread_->signal = signal_;
  const bool same = (thread_->epoch & kSession) == (epoch_ & kSession);  // else all was forgotten meanwhile
  thread_->top = same ? top_ : thread_->held;
  thread_->floor = same ? floor_ : thread_->held;
  thread_->nested = same ? nested_ : 0;
}

std::error_code switch_on(const Options& options) {
  const std::lock_guard guard{switching};
  return begin(options);
}

void switch_off() noexcept {
  const std::lock_guard guard{switching};
  detail::epoch.store(0, std::memory_order_relaxed);
}

bool is_on() noexcept {
  if (detail::epoch.load(std::memory_order_relaxed) == detail::kUndecided) decide();
  return detail::epoch.load(std::memory_order_relaxed) != 0;
}

Contents contents() noexcept {
  const Session* now = session.load(std::memory_order_acquire);
  if (now == nullptr) return {};
  return {.classes = Graph{now->region}.classes(),
          .orders = now->region.orders.load(std::memory_order_relaxed),
          .reports = now->reports.load(std::memory_order_relaxed)};
}

}  // namespace holdfast::sync::order
