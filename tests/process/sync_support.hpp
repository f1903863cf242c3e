// SPDX-License-Identifier: MIT
// What the kill tests of the locks share: memory between processes, and a loop that kills at random and watches whether
// the survivors go on.
#pragma once

#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <deque>
#include <functional>
#include <new>
#include <random>
#include <thread>
#include <vector>

namespace sync_tests {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

/// A T in memory that forked children share.
template <class T>
class Shared {
 public:
  template <class... Arguments>
  explicit Shared(Arguments&&... arguments) {
    void* const memory = ::mmap(nullptr, sizeof(T), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    object_ = new (memory) T(std::forward<Arguments>(arguments)...);
  }
  Shared(const Shared&) = delete;
  Shared& operator=(const Shared&) = delete;
  ~Shared() { ::munmap(static_cast<void*>(object_), sizeof(T)); }

  T* operator->() const { return object_; }
  T& operator*() const { return *object_; }

 private:
  T* object_;
};

inline constexpr auto kGenerous = 20s;

template <class Condition>
bool comes_true(Condition condition) {
  for (const auto end = Clock::now() + kGenerous; Clock::now() < end;) {
    if (condition()) return true;
    std::this_thread::sleep_for(100us);
  }
  return condition();
}

/// A child that runs `work` and ends with 0; dies with its parent.
template <class Work>
pid_t child(Work work) {
  const pid_t parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid != 0) return pid;
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(1);
  work();
  ::_exit(0);
}

inline void kill_and_reap(pid_t pid) {
  ::kill(pid, SIGKILL);
  ::waitpid(pid, nullptr, 0);
}

/// One number for each worker incarnation, so that a dead one can be told from its successor in the same place.
using Ticket = std::uint32_t;

constexpr int kProcesses = 8;

struct Ledger {
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> done{0};
  std::atomic<std::uint64_t> deaths_told{0};
  std::atomic<std::int64_t> told_at{0};  // Clock, nanoseconds
  std::atomic<std::uint64_t> violations{0};
  std::atomic<int> inside{-1};  // the place of one that was inside a moment ago: a hint whom to kill

  void told() {
    told_at = Clock::now().time_since_epoch().count();
    ++deaths_told;
  }
};

/// How many kills a test does: few, unless the environment asks for a soak.
inline long kills_wanted() {
  constexpr long kFew = 600;
  const char* const wanted = ::getenv("HOLDFAST_SYNC_KILLS");
  return wanted != nullptr ? ::atol(wanted) : kFew;
}

struct Outcome {
  long kills = 0;
  bool all_ended = true;  // every survivor finished when it was told to stop
  bool went_on = true;    // somebody got through between any two checks
  std::chrono::nanoseconds longest_gap{0};
  std::vector<std::int64_t> recoveries;  // nanoseconds from a kill to its being told, where it was told before the next
};

/// Whether the lock tells of deaths, so that some are waited for.
enum class Deaths : std::uint8_t { told, untold };

/// Eight processes run work(place, ticket) until ledger.stop; now one at random, now one that is inside is killed every
/// 0.1 to 1 ms and replaced, as often as kills_wanted() says and until some deaths were told. Then every survivor must
/// come to an end by itself.
inline Outcome kill_at_random(Ledger& ledger, const std::function<void(int, Ticket)>& work,
                              Deaths deaths = Deaths::told) {
  Outcome outcome;
  std::array<pid_t, kProcesses> pids{};
  Ticket tickets = 0;
  const auto start = [&](int place) {
    const Ticket ticket = ++tickets;
    pids[place] = child([&] { work(place, ticket); });
  };
  for (int place = 0; place < kProcesses; ++place) start(place);

  // The killer is one thread against eight busy processes: where it may, it goes first.
  const sched_param first_of_all{1};
  const bool goes_first = ::sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &first_of_all) == 0;

  constexpr std::uint64_t kToldAtLeast = 5;
  std::minstd_rand random(std::random_device{}());
  const long wanted = kills_wanted();
  std::uint64_t seen = 0;
  std::uint64_t told = 0;
  std::deque<pid_t> dying;
  std::int64_t killed_at = 0;
  auto moved = Clock::now();
  while (outcome.kills < wanted || (deaths == Deaths::told && ledger.deaths_told < kToldAtLeast)) {
    std::this_thread::sleep_for(std::chrono::microseconds(100 + random() % 900));  // the moment of the kill is random
    if (const std::uint64_t now_told = ledger.deaths_told; now_told != told) {
      if (const std::int64_t at = ledger.told_at; at > killed_at) outcome.recoveries.push_back(at - killed_at);
      told = now_told;
    }
    const int inside = ledger.inside;
    const int place = inside >= 0 && random() % 2 == 0 ? inside : static_cast<int>(random() % kProcesses);
    killed_at = Clock::now().time_since_epoch().count();
    ::kill(pids[place], SIGKILL);
    // Not waited for: a dying process needs a processor to end, and that may take long beside eight busy ones.
    dying.push_back(pids[place]);
    while (::waitpid(dying.front(), nullptr, dying.size() > kProcesses ? 0 : WNOHANG) > 0) {
      dying.pop_front();
      if (dying.empty()) break;
    }
    ++outcome.kills;
    start(place);
    const auto now = Clock::now();
    if (const std::uint64_t done = ledger.done; done != seen) {
      seen = done;
      moved = now;
    } else if (outcome.longest_gap = std::max<std::chrono::nanoseconds>(outcome.longest_gap, now - moved);
               now - moved > kGenerous) {
      outcome.went_on = false;
      break;
    }
  }
  const sched_param as_all{0};
  if (goes_first) ::sched_setscheduler(0, SCHED_OTHER, &as_all);
  for (const pid_t pid : dying) ::waitpid(pid, nullptr, 0);
  // No more kills: a wedge would show as a process that does not end.
  const std::uint64_t before = ledger.done;
  outcome.went_on = outcome.went_on && comes_true([&] { return ledger.done != before; });
  ledger.stop = true;
  for (const pid_t pid : pids) {
    if (!comes_true([&] { return ::waitpid(pid, nullptr, WNOHANG) == pid; })) {
      outcome.all_ended = false;
      kill_and_reap(pid);
    }
  }
  return outcome;
}

inline void expect_held_up(const Ledger& ledger, Outcome outcome) {
  EXPECT_EQ(ledger.violations, 0U);
  EXPECT_TRUE(outcome.went_on) << "nobody got through any more";
  EXPECT_TRUE(outcome.all_ended) << "a survivor slept for ever";
  EXPECT_GE(outcome.kills, kills_wanted());
  EXPECT_GT(ledger.done, 50U);
  std::printf("%ld kills, %lu operations, %lu deaths told, longest standstill %.1f ms", outcome.kills,
              static_cast<unsigned long>(ledger.done.load()), static_cast<unsigned long>(ledger.deaths_told.load()),
              std::chrono::duration<double, std::milli>(outcome.longest_gap).count());
  std::vector<std::int64_t>& all = outcome.recoveries;
  if (!all.empty()) {
    std::sort(all.begin(), all.end());
    const auto at = [&](double share) {
      return static_cast<double>(all[static_cast<std::size_t>(share * static_cast<double>(all.size() - 1))]) / 1e3;
    };
    std::printf("; from kill to told, %zu times, us: 50 %% %.0f, 90 %% %.0f, 99 %% %.0f, 99.9 %% %.0f, most %.0f",
                all.size(), at(0.5), at(0.9), at(0.99), at(0.999), at(1));
  }
  std::printf("\n");
}

/// Who is inside an exclusive section. A holder that died leaves its mark, and the next one was told.
class Section {
 public:
  void enter(Ledger& ledger, int place, Ticket ticket, bool told_of_death) {
    ledger.inside = place;
    const Ticket before = inside_.exchange(ticket);
    if (told_of_death) {
      ledger.told();
    } else if (before != 0) {
      ++ledger.violations;
    }
  }
  void leave(Ledger& ledger, Ticket ticket) {
    if (inside_.exchange(0) != ticket) ++ledger.violations;
  }
  [[nodiscard]] bool occupied() const { return inside_ != 0; }

 private:
  std::atomic<Ticket> inside_{0};
};

/// Who holds one of several units, at most one a place; for locks that let a number in at a time.
class Holders {
 public:
  /// The first thing that one does in its place; whatever its predecessor held, it does not hold.
  void begin(int place, Ticket ticket) { marks_[place] = std::uint64_t{ticket} << 32; }
  void enter(Ledger& ledger, int place, Ticket ticket) {
    ledger.inside = place;
    marks_[place] = std::uint64_t{ticket} << 32 | std::max(1U, ++entered_);
  }
  void leave(int place, Ticket ticket) { begin(place, ticket); }

  /// Whether more than `units` hold at one moment; asked by one of them. One that was killed leaves its mark behind, so
  /// marks are believed when those who made them take them away themselves.
  [[nodiscard]] bool more_than(int units, int asking) const {
    const Marks first = look();
    Marks both = look();
    int marks = 0;
    for (int i = 0; i < kProcesses; ++i) {
      if (both[i] != first[i] || static_cast<std::uint32_t>(both[i]) == 0) both[i] = 0;
      if (both[i] != 0) ++marks;
    }
    if (marks <= units) return false;
    int alive = 1;  // the one that asks
    for (int i = 0; i < kProcesses; ++i) {
      if (both[i] == 0 || i == asking) continue;
      std::uint64_t now = both[i];
      if (comes_true([&] { return (now = marks_[i]) != both[i]; }) && now >> 32 == both[i] >> 32) ++alive;
    }
    return alive > units;
  }

 private:
  using Marks = std::array<std::uint64_t, kProcesses>;
  [[nodiscard]] Marks look() const {
    Marks all{};
    for (int i = 0; i < kProcesses; ++i) all[i] = marks_[i];
    return all;
  }

  std::atomic<std::uint32_t> entered_{0};
  std::array<std::atomic<std::uint64_t>, kProcesses> marks_{};  // ticket, and which of its holds or 0
};

/// Some work of random length.
inline void linger(std::minstd_rand& random) {
  for (auto i = random() % 200; i > 0; --i) asm volatile("");
}

}  // namespace sync_tests
