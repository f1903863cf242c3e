// SPDX-License-Identifier: MIT
// The semaphores between processes that are killed: units of the dead come back, and no wake is lost.
#include <holdfast/sync/semaphore.hpp>

#include <vector>

#include "process/sync_support.hpp"

namespace {

using namespace sync_tests;
using holdfast::sync::owned_semaphore;
using holdfast::sync::semaphore;

constexpr int kUnits = 3;

TEST(OwnedSemaphoreProcess, it_outlives_kills_of_random_holders_and_waiters) {
  struct State : Ledger {
    owned_semaphore<kUnits> units;
    std::array<std::atomic<bool>, kProcesses> holds{};
  };
  Shared<State> state;
  const Outcome outcome = kill_at_random(
      *state,
      [&](int place, Ticket ticket) {
        std::minstd_rand random(ticket);
        state->holds[place] = false;  // what the predecessor left
        while (!state->stop) {
          const auto got = random() % 8 == 0 ? state->units.down_timeout(1ms) : state->units.down();
          if (!got) continue;
          state->holds[place] = true;
          linger(random);
          state->holds[place] = false;
          if (!state->units.up()) ++state->violations;
          if (state->units.up()) ++state->violations;
          ++state->done;
        }
      },
      Deaths::untold);
  expect_held_up(*state, outcome);
  EXPECT_EQ(state->units.value(), static_cast<unsigned>(kUnits));
}

TEST(SemaphoreProcess, killed_waiters_take_no_wake_along) {
  // Every unit is given by this process and taken by a child, which counts it; a kill between taking and counting loses
  // a count, never a wake: the units that were given are all taken.
  struct State : Ledger {
    semaphore units{0};
  };
  Shared<State> state;
  std::atomic<bool> stop{false};
  std::thread giver([&] {
    while (!stop) {
      if (state->units.value() < 4) static_cast<void>(state->units.up());
      std::this_thread::yield();
    }
    // The survivors still wait: give until they have all seen the end.
    while (state->stop == false || state->units.value() < 64) {
      if (state->units.value() < 64) static_cast<void>(state->units.up());
      std::this_thread::yield();
    }
  });
  const Outcome outcome = kill_at_random(
      *state,
      [&](int, Ticket) {
        while (!state->stop) {
          if (!state->units.down()) ++state->violations;
          ++state->done;
        }
      },
      Deaths::untold);
  stop = true;
  giver.join();
  expect_held_up(*state, outcome);
}

}  // namespace
