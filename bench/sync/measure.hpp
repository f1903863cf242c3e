// SPDX-License-Identifier: MIT
// How locks are measured: trials of many locks take turns, round after round, and medians are compared. So whatever
// else the machine does meets all alike. Threads are pinned, thread i to processor i modulo their number: left alone,
// the scheduler puts two threads that wake each other on one processor, where they do not contend at all.
#pragma once

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <functional>
#include <map>
#include <new>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace bench {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

inline double since(Clock::time_point begin) {
  return std::chrono::duration<double, std::nano>(Clock::now() - begin).count();
}

/// The value below which `part` of them lie.
inline double quantile(std::vector<double> values, double part) {
  if (values.empty()) return NAN;
  std::ranges::sort(values);
  return values[std::min(values.size() - 1, static_cast<std::size_t>(static_cast<double>(values.size()) * part))];
}

/// What was seen of each lock, by the name of the figure.
class Ledger {
 public:
  void see(const std::string& figure, const std::string& lock, double value) { seen_[{figure, lock}].push_back(value); }
  /// NAN when nothing was seen: the lock is not installed here, or the figure was left out.
  [[nodiscard]] double median(const std::string& figure, const std::string& lock) const {
    return quantile(all(figure, lock), 0.5);
  }
  [[nodiscard]] double most(const std::string& figure, const std::string& lock) const {
    return quantile(all(figure, lock), 1);
  }

 private:
  [[nodiscard]] std::vector<double> all(const std::string& figure, const std::string& lock) const {
    const auto at = seen_.find({figure, lock});
    return at != seen_.end() ? at->second : std::vector<double>{};
  }
  std::map<std::pair<std::string, std::string>, std::vector<double>> seen_;
};

inline void pin(int to) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<unsigned>(to) % std::thread::hardware_concurrency(), &set);
  ::pthread_setaffinity_np(::pthread_self(), sizeof(set), &set);
}

inline void work(int length) {
  for (int i = 0; i < length; ++i) asm volatile("");
}

/// How long work() must be for a section of 0.43 us.
inline int short_section() {
  static const int length = [] {
    std::vector<double> times;
    for (int i = 0; i < 101; ++i) {
      const auto begin = Clock::now();
      work(10'000);
      times.push_back(since(begin));
    }
    return static_cast<int>(430 / (quantile(times, 0.25) / 10'000));
  }();
  return length;
}

inline void busy_for(std::chrono::nanoseconds length) {
  for (const auto end = Clock::now() + length; Clock::now() < end;) {
  }
}

/// Something in memory that a child of fork shares.
template <class T>
class Shared {
 public:
  Shared() : it_(new(map()) T) {}
  Shared(const Shared&) = delete;
  Shared& operator=(const Shared&) = delete;
  ~Shared() {
    it_->~T();
    ::munmap(static_cast<void*>(it_), sizeof(T));
  }
  T* operator->() const { return it_; }
  T& operator*() const { return *it_; }

 private:
  static void* map() {
    void* const memory = ::mmap(nullptr, sizeof(T), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    return memory;
  }
  T* it_;
};

/// Runs body(0) here and body(1) beside it, in a thread or in a process of its own.
enum class Beside : std::uint8_t { thread, process };

template <class Body>
void two(Beside how, Body body) {
  if (how == Beside::process) {
    const pid_t child = ::fork();
    if (child == 0) {
      pin(1);
      body(1);
      ::_exit(0);
    }
    std::thread([&] { pin(0), body(0); }).join();
    ::waitpid(child, nullptr, 0);
  } else {
    std::thread other([&] { pin(1), body(1); });
    std::thread([&] { pin(0), body(0); }).join();
    other.join();
  }
}

// ------------------------------------------------------------------------------------------------- what is measured

/// Nanoseconds for one call, alone, of this thread's processor time: the quarter of some slices, so that what others
/// did to the caches meanwhile does not count.
template <class Body>
double alone(int calls, Body body) {
  constexpr int kSlices = 12;
  const auto spent = [] {
    timespec time{};
    ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return static_cast<double>(time.tv_sec) * 1e9 + static_cast<double>(time.tv_nsec);
  };
  std::vector<double> slices;
  for (int slice = 0; slice < kSlices; ++slice) {
    const double begin = spent();
    for (int i = 0; i < calls / kSlices; ++i) body();
    slices.push_back((spent() - begin) / (calls / kSlices));
  }
  return quantile(slices, 0.25);
}

struct Rate {
  double millions = 0;  // a second
  double fairness = 0;  // the slowest thread's share by the fastest one's
};

constexpr auto kWindow = 60ms;

/// How often a number of threads get through body(thread, round).
template <class Body>
Rate among(int threads, Body body) {
  struct alignas(64) Count {
    unsigned long rounds = 0;
  };
  std::atomic<bool> go{false};
  std::atomic<bool> stop{false};
  std::vector<Count> done(static_cast<std::size_t>(threads));
  std::vector<std::thread> running;
  for (int t = 0; t < threads; ++t) {
    running.emplace_back([&, t] {
      pin(t);
      while (!go.load(std::memory_order_relaxed)) ::sched_yield();
      unsigned long rounds = 0;
      while (!stop.load(std::memory_order_relaxed)) body(t, rounds++);
      done[static_cast<std::size_t>(t)].rounds = rounds;
    });
  }
  const auto begin = Clock::now();
  go = true;
  std::this_thread::sleep_for(kWindow);
  stop = true;
  const double length = since(begin);
  for (std::thread& thread : running) thread.join();
  std::vector<double> each;
  double all = 0;
  for (const Count& count : done) {
    each.push_back(static_cast<double>(count.rounds));
    all += each.back();
  }
  const auto [least, most] = std::ranges::minmax(each);
  return {all * 1e3 / length, least / most};
}

/// How often two processes together get through a lock, in millions a second.
template <class Lock>
double between_processes() {
  struct State {
    Lock lock;
    std::atomic<unsigned> ready{0};
    std::atomic<bool> stop{false};
    std::atomic<unsigned long> done{0};
    double length = 0;
  };
  const Shared<State> state;
  two(Beside::process, [&](int side) {
    state->ready.fetch_add(1);
    while (state->ready.load() != 2) ::sched_yield();
    const auto begin = Clock::now();
    unsigned long rounds = 0;
    while (!state->stop.load(std::memory_order_relaxed)) {
      state->lock.lock();
      state->lock.unlock();
      if (++rounds % 64 == 0 && side == 0 && Clock::now() - begin > kWindow) {
        state->stop = true;
        state->length = since(begin);
      }
    }
    state->done.fetch_add(rounds);
  });
  return static_cast<double>(state->done.load()) * 1e3 / state->length;
}

/// From unlock() to the return of lock() in a waiter that has waited for 60 us on the other processor, in microseconds.
template <class Lock>
double hand_over(Beside how) {
  constexpr int kTimes = 40;
  struct State {
    Lock lock;
    std::atomic<int> turn{0};
    Clock::time_point given;
    double times[kTimes] = {};
  };
  const Shared<State> state;
  two(how, [&](int side) {
    for (int i = 0; i < kTimes; ++i) {
      if (side == 0) {
        state->lock.lock();
        state->turn = 2 * i + 1;
        busy_for(60us);
        state->given = Clock::now();
        state->lock.unlock();
        while (state->turn.load() != 2 * i + 2) ::sched_yield();
      } else {
        while (state->turn.load() != 2 * i + 1) ::sched_yield();
        state->lock.lock();
        state->times[i] = since(state->given) / 1e3;
        state->lock.unlock();
        state->turn = 2 * i + 2;
      }
    }
  });
  return quantile({std::begin(state->times), std::end(state->times)}, 0.5);
}

struct Waits {
  double median = 0;
  double most_of_them = 0;  // 99 %
  double longest = 0;
};

/// One thread among three others that hold the lock for 20 us again and again: how long it waits, in microseconds.
template <class Hold, class Want, class End>
Waits among_others(Hold hold, Want want, End end) {
  constexpr auto kLength = 250ms;
  std::atomic<bool> stop{false};
  std::vector<std::thread> others;
  for (int t = 0; t < 3; ++t) {
    others.emplace_back([&, t] {
      pin(t);
      while (!stop.load(std::memory_order_relaxed)) hold([] { busy_for(20us); });
    });
  }
  std::vector<double> waits;
  std::thread odd([&] {
    pin(3);
    for (const auto last = Clock::now() + kLength; Clock::now() < last;) {
      const auto begin = Clock::now();
      want();
      waits.push_back(since(begin) / 1e3);
      end();
      std::this_thread::sleep_for(300us);
    }
  });
  std::this_thread::sleep_for(kLength + 10ms);
  stop = true;  // one that starves gets in now, and has waited all the time
  odd.join();
  for (std::thread& thread : others) thread.join();
  return {quantile(waits, 0.5), quantile(waits, 0.99), quantile(waits, 1)};
}

/// From SIGKILL of a holder to the return of lock() in a sleeping waiter, in microseconds.
template <class Lock, class Take, class Settle>
double after_death(std::size_t memory, std::chrono::microseconds wait, Take take, Settle settle) {
  struct State {
    Lock lock;
    std::atomic<bool> held{false};
    std::atomic<bool> waits{false};
    Clock::time_point had;
  };
  const Shared<State> state;
  const pid_t holder = ::fork();
  if (holder == 0) {
    settle(state->lock);
    if (memory != 0) ::mmap(nullptr, memory, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    take(state->lock);
    state->held = true;
    for (;;) ::pause();
  }
  const pid_t waiter = ::fork();
  if (waiter == 0) {
    settle(state->lock);
    while (!state->held) std::this_thread::sleep_for(100us);
    state->waits = true;
    take(state->lock);
    state->had = Clock::now();
    ::_exit(0);
  }
  while (!state->waits) std::this_thread::sleep_for(100us);
  std::this_thread::sleep_for(wait);
  const auto begin = Clock::now();
  ::kill(holder, SIGKILL);
  ::waitpid(waiter, nullptr, 0);
  ::waitpid(holder, nullptr, 0);
  return std::chrono::duration<double, std::micro>(state->had - begin).count();
}

// -------------------------------------------------------------------------------------------------------- the rounds

/// The trials, by group; locks of a group follow one another, and a round begins with another of them each time.
class Rounds {
 public:
  void add(const std::string& group, std::function<void(Ledger&)> trial) {
    const auto at = std::ranges::find(groups_, group, &Group::name);
    if (at == groups_.end()) {
      groups_.push_back({group, {std::move(trial)}});
    } else {
      at->trials.push_back(std::move(trial));
    }
  }
  void run(Ledger& ledger, int rounds, const std::string& only) const {
    for (int round = 0; round < rounds; ++round) {
      for (const Group& group : groups_) {
        if (group.name.find(only) == std::string::npos) continue;
        for (std::size_t i = 0; i < group.trials.size(); ++i)
          group.trials[(i + static_cast<std::size_t>(round)) % group.trials.size()](ledger);
      }
      std::fprintf(stderr, "sync_locks: round %d of %d\n", round + 1, rounds);
    }
  }

 private:
  struct Group {
    std::string name;
    std::vector<std::function<void(Ledger&)>> trials;
  };
  std::vector<Group> groups_;
};

}  // namespace bench
