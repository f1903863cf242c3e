// SPDX-License-Identifier: MIT
// What the kill tests of the locks share: memory between processes, and a loop that kills at random and watches whether
// the survivors go on.
#pragma once

#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <functional>
#include <new>
#include <random>
#include <thread>

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
  std::atomic<std::uint64_t> violations{0};
  std::array<std::atomic<std::uint64_t>, kProcesses> progress{};
};

inline long kills_wanted() {
  const char* const wanted = ::getenv("HOLDFAST_SYNC_KILLS");
  return wanted != nullptr ? ::atol(wanted) : 0;
}

struct Outcome {
  long kills = 0;
  bool all_ended = true;  // every survivor finished when it was told to stop
  bool went_on = true;    // somebody got through between any two checks
  std::chrono::nanoseconds longest_gap{0};
};

/// Whether the lock tells of deaths, so that one is waited for.
enum class Deaths : std::uint8_t { told, untold };

/// Eight processes run work(place, ticket) until ledger.stop; one at random is killed every 0.2 to 2 ms and replaced.
/// For three seconds, 50 kills and a death told at least, or HOLDFAST_SYNC_KILLS kills. Then every survivor must come
/// to an end by itself.
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

  std::minstd_rand random(std::random_device{}());
  const long wanted = kills_wanted();
  const auto end = Clock::now() + 3s;
  std::uint64_t seen = 0;
  auto moved = Clock::now();
  const auto patience = Clock::now() + 60s;  // a loaded machine or a sanitizer may need more than the three seconds
  const auto enough = [&] { return outcome.kills >= 50 && (deaths == Deaths::untold || ledger.deaths_told > 0); };
  while (wanted > 0 ? outcome.kills < wanted : Clock::now() < end || (!enough() && Clock::now() < patience)) {
    std::this_thread::sleep_for(std::chrono::microseconds(200 + random() % 1800));
    const int place = static_cast<int>(random() % kProcesses);
    kill_and_reap(pids[place]);
    ++outcome.kills;
    start(place);
    const auto now = Clock::now();
    if (const std::uint64_t done = ledger.done; done != seen) {
      seen = done;
      outcome.longest_gap = std::max<std::chrono::nanoseconds>(outcome.longest_gap, now - moved);
      moved = now;
    } else if (now - moved > kGenerous) {
      outcome.went_on = false;
      break;
    }
  }
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

inline void expect_held_up(const Ledger& ledger, const Outcome& outcome) {
  EXPECT_EQ(ledger.violations, 0U);
  EXPECT_TRUE(outcome.went_on) << "nobody got through any more";
  EXPECT_TRUE(outcome.all_ended) << "a survivor slept for ever";
  EXPECT_GE(outcome.kills, 50);
  EXPECT_GT(ledger.done, 1000U);
  std::printf("%ld kills, %lu operations, %lu deaths told, longest standstill %.1f ms\n", outcome.kills,
              static_cast<unsigned long>(ledger.done.load()), static_cast<unsigned long>(ledger.deaths_told.load()),
              std::chrono::duration<double, std::milli>(outcome.longest_gap).count());
}

/// Who is inside an exclusive section. A holder that died leaves its mark, and the next one was told.
class Section {
 public:
  void enter(Ledger& ledger, Ticket ticket, bool told_of_death) {
    const Ticket before = inside_.exchange(ticket);
    if (told_of_death) {
      ++ledger.deaths_told;
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

/// Some work of random length.
inline void linger(std::minstd_rand& random) {
  for (auto i = random() % 200; i > 0; --i) asm volatile("");
}

}  // namespace sync_tests
