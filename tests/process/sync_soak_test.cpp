// SPDX-License-Identifier: MIT
// Every lock, in every form, by threads of two processes at once: what they guard is counted without atomic steps, and
// must add up. HOLDFAST_SYNC_OPERATIONS says how many operations.
#include <holdfast/sync/mutex.hpp>
#include <holdfast/sync/process_mutex.hpp>
#include <holdfast/sync/rw_semaphore.hpp>
#include <holdfast/sync/semaphore.hpp>
#include <holdfast/sync/spinlock.hpp>

#include <sched.h>

#include "process/sync_support.hpp"

#if defined(__clang__)
#pragma clang diagnostic ignored "-Wthread-safety-analysis"  // forms are chosen at random
#endif

namespace {

using namespace sync_tests;
using namespace holdfast::sync;

using Random = std::minstd_rand;

std::uint64_t operations_wanted() {
  const char* const wanted = ::getenv("HOLDFAST_SYNC_OPERATIONS");
  return wanted != nullptr ? std::strtoull(wanted, nullptr, 10) : 200'000;
}

/// What a lock guards. Loads and stores of their own on purpose: two writers at once lose a count, and a reader beside
/// a writer sees the two differ.
class Guarded {
 public:
  void write(Random& random) {
    const std::uint64_t value = first_.load(std::memory_order_relaxed);
    first_.store(value + 1, std::memory_order_relaxed);
    if (random() % 256 == 0) ::sched_yield();  // as if preempted
    if (second_.load(std::memory_order_relaxed) != value) violations_.fetch_add(1, std::memory_order_relaxed);
    second_.store(value + 1, std::memory_order_relaxed);
    written_.fetch_add(1, std::memory_order_relaxed);
  }
  void read(Random& random) {
    const std::uint64_t value = second_.load(std::memory_order_relaxed);
    if (random() % 256 == 0) ::sched_yield();
    if (first_.load(std::memory_order_relaxed) != value) violations_.fetch_add(1, std::memory_order_relaxed);
  }
  /// For a seqlock: what was read is judged afterwards.
  [[nodiscard]] std::pair<std::uint64_t, std::uint64_t> look() const {
    return {second_.load(std::memory_order_relaxed), first_.load(std::memory_order_relaxed)};
  }
  void violated() { violations_.fetch_add(1, std::memory_order_relaxed); }
  [[nodiscard]] std::uint64_t violations() const {
    return violations_ + (first_ != written_ ? 1 : 0) + (second_ != written_ ? 1 : 0);
  }

 private:
  alignas(64) std::atomic<std::uint64_t> first_{0};
  std::atomic<std::uint64_t> second_{0};
  alignas(64) std::atomic<std::uint64_t> written_{0};
  std::atomic<std::uint64_t> violations_{0};
};

struct State {
  std::atomic<std::uint64_t> left{operations_wanted()};
  std::atomic<std::uint64_t> done{0};
  mutex one;
  process_mutex process;
  rw_semaphore fair;
  rw_semaphore writers{Policy::writer_first};
  robust_spinlock robust;
  spinlock spin;
  rw_spinlock rw_spin;
  seqlock sequence;
  owned_semaphore<1> single;
  owned_semaphore<3> units;
  semaphore binary{1, 1};
  std::atomic<int> with_units{0};
  std::array<Guarded, 11> guarded;
};

/// One of the forms in which a lock can be waited for.
template <class L>
bool take(L& lock, Random& random) {
  switch (random() % 5) {
    case 0:
      return lock.trylock().has_value();
    case 1:
      return lock.lock_timeout(50us).has_value();
    case 2:
      return lock.lock_interruptible().has_value();
    case 3:
      return lock.lock_killable().has_value();
    default:
      return lock.lock_checked().has_value();
  }
}
template <class S>
bool take_unit(S& semaphore, Random& random) {
  switch (random() % 5) {
    case 0:
      return semaphore.down_trylock().has_value();
    case 1:
      return semaphore.down_timeout(50us).has_value();
    case 2:
      return semaphore.down_interruptible().has_value();
    case 3:
      return semaphore.down_killable().has_value();
    default:
      return semaphore.down().has_value();
  }
}
bool read(rw_semaphore& lock, Random& random) {
  switch (random() % 5) {
    case 0:
      return lock.down_read_trylock().has_value();
    case 1:
      return lock.down_read_timeout(50us).has_value();
    case 2:
      return lock.down_read_interruptible().has_value();
    case 3:
      return lock.down_read_killable().has_value();
    default:
      return lock.down_read().has_value();
  }
}
bool write(rw_semaphore& lock, Random& random) {
  switch (random() % 5) {
    case 0:
      return lock.down_write_trylock().has_value();
    case 1:
      return lock.down_write_timeout(50us).has_value();
    case 2:
      return lock.down_write_interruptible().has_value();
    case 3:
      return lock.down_write_killable().has_value();
    default:
      return lock.down_write().has_value();
  }
}

void use(rw_semaphore& lock, Guarded& data, Random& random) {
  if (random() % 8 != 0) {
    if (!read(lock, random)) return;
    data.read(random);
    if (!lock.up_read()) data.violated();
  } else if (write(lock, random)) {
    data.write(random);
    if (random() % 4 != 0) {
      if (!lock.up_write()) data.violated();
    } else {
      if (!lock.downgrade_write()) data.violated();
      data.read(random);
      if (!lock.up_read()) data.violated();
    }
  }
}

void use(seqlock& lock, Guarded& data, Random& random) {
  if (random() % 8 == 0) {
    const std::lock_guard guard(lock);
    data.write(random);
    return;
  }
  std::uint32_t begin = 0;
  std::pair<std::uint64_t, std::uint64_t> seen;
  do {
    begin = lock.read_begin();
    seen = data.look();
  } while (lock.read_retry(begin));
  if (seen.first != seen.second) data.violated();
}

void operate(State& s, Random& random) {
  const auto which = random() % s.guarded.size();
  Guarded& data = s.guarded[which];
  switch (which) {
    case 0:
      if (!take(s.one, random)) return;
      data.write(random);
      if (!s.one.unlock_checked()) data.violated();
      return;
    case 1:
      if (!take(s.process, random)) return;
      data.write(random);
      if (!s.process.unlock_checked()) data.violated();
      return;
    case 2:
      return use(s.fair, data, random);
    case 3:
      return use(s.writers, data, random);
    case 4: {
      if (!(random() % 4 == 0 ? s.robust.trylock() : s.robust.lock_checked())) return;
      data.write(random);
      if (!s.robust.unlock_checked()) data.violated();
      return;
    }
    case 5: {
      if (random() % 64 == 0) {
        const irqsave_guard guard(s.spin);
        data.write(random);
        return;
      }
      const std::lock_guard guard(s.spin);
      data.write(random);
      return;
    }
    case 6: {
      if (random() % 8 != 0) {
        s.rw_spin.lock_shared();
        data.read(random);
        s.rw_spin.unlock_shared();
      } else {
        const std::lock_guard guard(s.rw_spin);
        data.write(random);
      }
      return;
    }
    case 7:
      return use(s.sequence, data, random);
    case 8:
      if (!take_unit(s.single, random)) return;
      data.write(random);
      if (!s.single.up()) data.violated();
      return;
    case 9:
      if (!take_unit(s.units, random)) return;
      if (++s.with_units > 3) data.violated();
      if (random() % 256 == 0) ::sched_yield();
      --s.with_units;
      if (!s.units.up()) data.violated();
      return;
    default:
      if (!take_unit(s.binary, random)) return;
      data.write(random);
      if (!s.binary.up()) data.violated();
      return;
  }
}

/// Two processes of four threads until no operation is left. Each takes a hundred at a time.
template <class Operate>
void soak(State& state, Operate operate) {
  std::array<pid_t, 2> pids{};
  for (pid_t& pid : pids) {
    pid = child([&] {
      std::vector<std::thread> threads;
      for (unsigned t = 0; t < 4; ++t) {
        threads.emplace_back([&, t] {
          Random random(static_cast<unsigned>(::getpid()) * 4 + t);
          constexpr std::uint64_t kAtATime = 100;
          for (;;) {
            std::uint64_t left = state.left;
            do {
              if (left == 0) return;
            } while (!state.left.compare_exchange_weak(left, left - std::min(left, kAtATime)));
            for (std::uint64_t i = std::min(left, kAtATime); i > 0; --i) operate(random);
            state.done += std::min(left, kAtATime);
          }
        });
      }
      for (std::thread& thread : threads) thread.join();
    });
  }
  // A wedge is a standstill: no time is set for the whole.
  std::uint64_t seen = 0;
  while (state.left != 0 && comes_true([&] { return state.done > seen || state.left == 0; })) seen = state.done;
  EXPECT_EQ(state.left, 0U) << "nobody got on";
  for (const pid_t pid : pids) {
    int status = -1;
    EXPECT_TRUE(comes_true([&] { return ::waitpid(pid, &status, WNOHANG) == pid; })) << "one never got what it wanted";
    EXPECT_EQ(status, 0);
    if (status == -1) kill_and_reap(pid);
  }
}

std::uint64_t violations(const State& state) {
  std::uint64_t all = 0;
  for (const Guarded& each : state.guarded) all += each.violations();
  return all;
}

TEST(SyncSoak, all_locks_in_all_forms_add_up) {
  Shared<State> state;
  soak(*state, [&](Random& random) { operate(*state, random); });
  EXPECT_EQ(violations(*state), 0U);
  EXPECT_EQ(state->units.value(), 3U);
  EXPECT_EQ(state->binary.value(), 1U);
  std::printf("%lu operations\n", static_cast<unsigned long>(state->done.load()));
}

// The test above can fail: for each kind of section, one that goes in without the lock now and then is found.
TEST(SyncSoak, a_lock_that_lets_one_in_a_hundred_through_is_found) {
  for (int kind = 0; kind < 3; ++kind) {
    Shared<State> state;
    const auto work = [&](Random& random) {
      const bool through = random() % 100 == 0;
      Guarded& data = state->guarded[0];
      if (kind == 0) {
        if (!through) state->one.lock();
        data.write(random);
        if (!through) state->one.unlock();
      } else if (kind == 1 && random() % 2 == 0) {
        if (!through) static_cast<void>(state->fair.down_read());
        data.read(random);
        if (!through) static_cast<void>(state->fair.up_read());
      } else if (kind == 1) {
        static_cast<void>(state->fair.down_write());
        data.write(random);
        static_cast<void>(state->fair.up_write());
      } else {
        if (!through) static_cast<void>(state->units.down());
        if (++state->with_units > 3) data.violated();
        if (random() % 256 == 0) ::sched_yield();
        --state->with_units;
        if (!through) static_cast<void>(state->units.up());
      }
    };
    // Most are found at once; it takes processors that are free for several threads at a time.
    for (int round = 0; round < 50 && violations(*state) == 0; ++round) {
      state->left = 200'000;
      soak(*state, work);
    }
    EXPECT_GT(violations(*state), 0U) << kind;
  }
}

}  // namespace
