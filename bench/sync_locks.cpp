// SPDX-License-Identifier: MIT
// What the locks cost beside their peers, in one run: alone, among threads with an empty and with a short section, for
// readers and writers, and from a holder's death to the next holder. Prints Markdown tables of medians.
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <holdfast/sync/mutex.hpp>
#include <holdfast/sync/process_mutex.hpp>
#include <holdfast/sync/rw_semaphore.hpp>
#include <holdfast/sync/semaphore.hpp>
#include <holdfast/sync/spinlock.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <memory>
#include <mutex>
#include <new>
#include <shared_mutex>
#include <thread>
#include <vector>

#if __has_include(<boost/interprocess/sync/interprocess_mutex.hpp>)
#include <boost/interprocess/sync/interprocess_mutex.hpp>
#include <boost/interprocess/sync/interprocess_upgradable_mutex.hpp>
#define HAVE_BOOST 1
#endif

namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;
namespace sync = holdfast::sync;

constexpr int kRepeats = 5;

double median(std::vector<double> values) {
  std::ranges::sort(values);
  return values[values.size() / 2];
}

struct Pthread {
  pthread_mutex_t it{};
  explicit Pthread(bool robust) {
    pthread_mutexattr_t attributes;
    ::pthread_mutexattr_init(&attributes);
    ::pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    if (robust) ::pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    ::pthread_mutex_init(&it, &attributes);
  }
  void lock() {
    if (::pthread_mutex_lock(&it) == EOWNERDEAD) ::pthread_mutex_consistent(&it);
  }
  void unlock() { ::pthread_mutex_unlock(&it); }
};
struct PthreadShared : Pthread {
  PthreadShared() : Pthread(false) {}
};
struct PthreadRobust : Pthread {
  PthreadRobust() : Pthread(true) {}
};

struct Posix {
  sem_t it{};
  Posix() { ::sem_init(&it, 1, 1); }
  void lock() { ::sem_wait(&it); }
  void unlock() { ::sem_post(&it); }
};
struct Plain {
  sync::semaphore it{1};
  void lock() { static_cast<void>(it.down()); }
  void unlock() { static_cast<void>(it.up()); }
};
struct Owned {
  sync::owned_semaphore<1> it;
  void lock() { static_cast<void>(it.down()); }
  void unlock() { static_cast<void>(it.up()); }
};
struct WriterFirst : sync::rw_semaphore {
  WriterFirst() : rw_semaphore(sync::Policy::writer_first) {}
};

void work(int length) {
  for (int i = 0; i < length; ++i) asm volatile("");
}

/// Nanoseconds for one call, alone.
template <class Body>
double alone(Body body) {
  std::vector<double> times;
  for (int repeat = 0; repeat < kRepeats; ++repeat) {
    constexpr int kCalls = 500'000;
    const auto begin = Clock::now();
    for (int i = 0; i < kCalls; ++i) body();
    times.push_back(std::chrono::duration<double, std::nano>(Clock::now() - begin).count() / kCalls);
  }
  return median(times);
}

struct Rate {
  double millions = 0;  // a second
  double fairness = 0;  // the slowest thread's share by the fastest one's
};

/// How often a number of threads get through body(thread, round).
template <class Body>
Rate among(int threads, Body body) {
  std::vector<double> rates;
  std::vector<double> fairness;
  for (int repeat = 0; repeat < kRepeats; ++repeat) {
    std::atomic<bool> stop{false};
    std::vector<unsigned long> done(static_cast<std::size_t>(threads));
    std::vector<std::thread> running;
    for (int t = 0; t < threads; ++t) {
      running.emplace_back([&, t] {
        unsigned long rounds = 0;
        while (!stop.load(std::memory_order_relaxed)) body(t, rounds++);
        done[static_cast<std::size_t>(t)] = rounds;
      });
    }
    std::this_thread::sleep_for(100ms);
    stop = true;
    for (std::thread& thread : running) thread.join();
    unsigned long all = 0;
    for (const unsigned long each : done) all += each;
    rates.push_back(static_cast<double>(all) / 1e5);
    const auto [least, most] = std::ranges::minmax(done);
    fairness.push_back(static_cast<double>(least) / static_cast<double>(most));
  }
  return {median(rates), median(fairness)};
}

template <class Lock>
void exclusive(const char* name) {
  const auto lock = std::make_unique<Lock>();
  std::printf("| %s | %.1f |", name, alone([&] {
                lock->lock();
                lock->unlock();
              }));
  for (const int section : {0, 800}) {
    double fair = 0;
    for (const int threads : {2, 4, 8}) {
      const Rate rate = among(threads, [&](int, unsigned long) {
        lock->lock();
        work(section);
        lock->unlock();
      });
      std::printf(" %.2f%s", rate.millions, threads == 8 ? " |" : " /");
      fair = rate.fairness;
    }
    if (section != 0) std::printf(" %.2f |\n", fair);
  }
}

template <class Lock>
void shared(const char* name, void (Lock::*lock_shared)(), void (Lock::*unlock_shared)()) {
  const auto lock = std::make_unique<Lock>();
  const auto read = [&] {
    (lock.get()->*lock_shared)();
    (lock.get()->*unlock_shared)();
  };
  const auto write = [&] {
    lock->lock();
    lock->unlock();
  };
  std::printf("| %s | %.1f | %.1f |", name, alone(read), alone(write));
  for (const unsigned long one_write_in : {0UL, 100UL, 10UL}) {
    for (const int threads : {2, 4, 8}) {
      const Rate rate = among(threads, [&](int, unsigned long round) {
        if (one_write_in != 0 && round % one_write_in == 0) {
          write();
        } else {
          read();
        }
      });
      std::printf(" %.1f%s", rate.millions, threads == 8 ? " |" : " /");
    }
  }
  std::printf("\n");
}

/// From SIGKILL of a holder to the return of lock() in a sleeping waiter, in microseconds: median and 99 %.
template <class Lock, class Take, class Give>
void recovery(const char* name, Take take, Give give) {
  struct State {
    Lock lock;
    std::atomic<bool> held{false};
    std::atomic<bool> waits{false};
    std::atomic<Clock::rep> had{0};
  };
  std::vector<double> times;
  for (int i = 0; i < 100; ++i) {
    void* const memory = ::mmap(nullptr, sizeof(State), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    auto* const state = new (memory) State;
    const pid_t holder = ::fork();
    if (holder == 0) {
      take(state->lock);
      state->held = true;
      for (;;) ::pause();
    }
    while (!state->held) std::this_thread::yield();
    const pid_t waiter = ::fork();
    if (waiter == 0) {
      state->waits = true;
      take(state->lock);
      state->had = Clock::now().time_since_epoch().count();
      give(state->lock);
      ::_exit(0);
    }
    while (!state->waits) std::this_thread::yield();
    std::this_thread::sleep_for(3ms);
    const auto begin = Clock::now();
    ::kill(holder, SIGKILL);
    ::waitpid(waiter, nullptr, 0);
    ::waitpid(holder, nullptr, 0);
    times.push_back(static_cast<double>(state->had - begin.time_since_epoch().count()) / 1e3);
    ::munmap(memory, sizeof(State));
  }
  std::ranges::sort(times);
  std::printf("| %s | %.0f | %.0f |\n", name, times[50], times[98]);
}

}  // namespace

int main() {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  std::printf("| lock | lock+unlock ns | empty section, M/s, 2 / 4 / 8 threads | short section | fairness of 8 |\n");
  std::printf("|---|---|---|---|---|\n");
  exclusive<std::mutex>("std::mutex");
  exclusive<PthreadShared>("pthread, shared");
  exclusive<PthreadRobust>("pthread, shared, robust");
#if defined(HAVE_BOOST)
  exclusive<boost::interprocess::interprocess_mutex>("boost::interprocess_mutex");
#endif
  exclusive<sync::mutex>("mutex");
  exclusive<sync::process_mutex>("process_mutex");
  exclusive<Posix>("sem_t");
  exclusive<Plain>("semaphore");
  exclusive<Owned>("owned_semaphore<1>");
  exclusive<sync::spinlock>("spinlock");
  exclusive<sync::robust_spinlock>("robust_spinlock");

  std::printf("\n| lock | read ns | write ns | readers only, M/s, 2 / 4 / 8 | one write in 100 | one in 10 |\n");
  std::printf("|---|---|---|---|---|---|\n");
  shared<std::shared_mutex>("std::shared_mutex", &std::shared_mutex::lock_shared, &std::shared_mutex::unlock_shared);
#if defined(HAVE_BOOST)
  using Boost = boost::interprocess::interprocess_upgradable_mutex;
  shared<Boost>("boost upgradable", &Boost::lock_sharable, &Boost::unlock_sharable);
#endif
  shared<sync::rw_semaphore>("rw_semaphore, phase_fair", &sync::rw_semaphore::lock_shared,
                             &sync::rw_semaphore::unlock_shared);
  shared<WriterFirst>("rw_semaphore, writer_first", &WriterFirst::lock_shared, &WriterFirst::unlock_shared);

  std::printf("\n| a holder is killed: to the next one, us | median | 99 %% |\n|---|---|---|\n");
  recovery<PthreadRobust>(
      "pthread, shared, robust", [](PthreadRobust& l) { l.lock(); }, [](PthreadRobust& l) { l.unlock(); });
  const auto take = [](auto& l) { static_cast<void>(l.lock_checked()); };
  const auto give = [](auto& l) { static_cast<void>(l.unlock_checked()); };
  recovery<sync::mutex>("mutex", take, give);
  recovery<sync::process_mutex>("process_mutex", take, give);
  recovery<sync::rw_semaphore>(
      "rw_semaphore, writer after reader",
      [](sync::rw_semaphore& l) {
        static_cast<void>(l.writer() == 0 && !l.is_locked() ? l.down_read() : l.down_write());
      },
      [](sync::rw_semaphore& l) { static_cast<void>(l.up_write()); });
  recovery<sync::owned_semaphore<1>>(
      "owned_semaphore<1>", [](auto& l) { static_cast<void>(l.down()); }, [](auto& l) { static_cast<void>(l.up()); });
}
