// SPDX-License-Identifier: MIT
// rw_semaphore between processes that are killed: readers and writers, both policies, downgrades included.
#include <holdfast/sync/rw_semaphore.hpp>

#include <vector>

#include "process/sync_support.hpp"

#if defined(__clang__)
#pragma clang diagnostic ignored "-Wthread-safety-analysis"  // what it forbids is what is tested here
#endif

namespace {

using namespace sync_tests;
using holdfast::sync::Acquired;
using holdfast::sync::Policy;
using holdfast::sync::rw_semaphore;

constexpr int kThreads = 2;

struct State : Ledger {
  explicit State(Policy policy) : lock(policy) {}
  rw_semaphore lock;
  Section section;
  // Who reads, by its ticket; a writer that finds a ticket there found a reader beside it, unless that one is dead.
  std::array<std::array<std::atomic<Ticket>, kThreads>, kProcesses> reading{};
  std::array<std::atomic<Ticket>, kProcesses> newest{};  // the latest ticket of each place: older ones are dead
};

void check_no_reader(State& state) {
  for (int place = 0; place < kProcesses; ++place) {
    for (const auto& each : state.reading[place]) {
      const Ticket ticket = each;
      if (ticket == 0 || ticket != state.newest[place]) continue;
      // Alive a moment ago, or killed a moment ago and not replaced yet: only one that goes on reading is a violation.
      std::this_thread::sleep_for(5ms);
      if (each == 0 && state.newest[place] == ticket) ++state.violations;
    }
  }
}

void work(State& state, int place, Ticket ticket) {
  state.newest[place] = ticket;  // first: what is cleared now was not left by its reader
  for (auto& each : state.reading[place]) each = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&state, place, ticket, t] {
      std::atomic<Ticket>& reading = state.reading[place][t];
      const Ticket mine = ticket * kThreads + static_cast<Ticket>(t);
      std::minstd_rand random(mine);
      while (!state.stop) {
        if (random() % 4 != 0) {
          const auto got = random() % 8 == 0 ? state.lock.down_read_timeout(1ms) : state.lock.down_read();
          if (!got) continue;
          reading = ticket;
          state.inside = place;
          if (*got == Acquired::owner_died) state.told();
          if (*got == Acquired::clean && state.section.occupied()) ++state.violations;
          linger(random);
          reading = 0;
          if (!state.lock.up_read()) ++state.violations;
        } else {
          const auto got = random() % 8 == 0 ? state.lock.down_write_timeout(1ms) : state.lock.down_write();
          if (!got) continue;
          state.section.enter(state, place, mine, *got != Acquired::clean);
          if (random() % 16 == 0) check_no_reader(state);
          if (*got != Acquired::clean) static_cast<void>(state.lock.consistent());
          linger(random);
          state.section.leave(state, mine);
          if (random() % 2 == 0) {
            if (!state.lock.up_write()) ++state.violations;
          } else {
            if (!state.lock.downgrade_write()) ++state.violations;
            reading = ticket;
            linger(random);
            reading = 0;
            if (!state.lock.up_read()) ++state.violations;
          }
        }
        ++state.done;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

class RwProcess : public testing::TestWithParam<Policy> {};
INSTANTIATE_TEST_SUITE_P(policies, RwProcess, testing::Values(Policy::phase_fair, Policy::writer_first),
                         [](const auto& name) {
                           return name.param == Policy::phase_fair ? "phase_fair" : "writer_first";
                         });

TEST_P(RwProcess, it_outlives_kills_of_random_readers_and_writers) {
  Shared<State> state(GetParam());
  const Outcome outcome = kill_at_random(*state, [&](int place, Ticket ticket) { work(*state, place, ticket); });
  expect_held_up(*state, outcome);
}

TEST_P(RwProcess, a_writer_and_a_reader_asleep_survive_the_death_of_the_reader_inside) {
  Shared<rw_semaphore> lock(GetParam());
  Shared<std::atomic<int>> through;
  Shared<std::atomic<bool>> inside;
  const pid_t reader = child([&] {
    static_cast<void>(lock->down_read());
    *inside = true;
    ::pause();
  });
  ASSERT_TRUE(comes_true([&] { return inside->load(); }));
  std::vector<pid_t> waiters;
  waiters.push_back(child([&] {
    if (lock->down_write() == Acquired::clean) ++*through;
    static_cast<void>(lock->up_write());
  }));
  ASSERT_TRUE(comes_true([&] { return lock->writer() != 0; }));  // it drains
  waiters.push_back(child([&] {
    if (lock->down_read() == Acquired::clean) ++*through;
    static_cast<void>(lock->up_read());
  }));
  kill_and_reap(reader);
  EXPECT_TRUE(comes_true([&] { return *through == 2; }));
  for (const pid_t pid : waiters) kill_and_reap(pid);
}

}  // namespace
