// SPDX-License-Identifier: MIT
// The semaphores between processes that are killed: units of the dead come back, and no wake is lost.
#include <holdfast/sync/semaphore.hpp>

#include <vector>

#include "process/sync_support.hpp"

namespace {

using namespace sync_tests;
using holdfast::sync::Acquired;
using holdfast::sync::owned_semaphore;
using holdfast::sync::semaphore;

constexpr int kUnits = 3;

TEST(OwnedSemaphoreProcess, it_outlives_kills_of_random_holders_and_waiters) {
  struct State : Ledger {
    owned_semaphore<kUnits> units;
    Holders holders;
  };
  Shared<State> state;
  const Outcome outcome = kill_at_random(*state, [&](int place, Ticket ticket) {
    std::minstd_rand random(ticket);
    state->holders.begin(place, ticket);
    while (!state->stop) {
      const auto got = random() % 8 == 0 ? state->units.down_timeout(1ms) : state->units.down();
      if (!got) continue;
      if (*got == Acquired::owner_died) state->told();
      state->holders.enter(*state, place, ticket);
      linger(random);
      if (state->holders.more_than(kUnits, place)) ++state->violations;
      state->holders.leave(place, ticket);
      if (!state->units.up()) ++state->violations;
      if (state->units.up()) ++state->violations;
      ++state->done;
    }
  });
  expect_held_up(*state, outcome);
  EXPECT_EQ(state->units.value(), static_cast<unsigned>(kUnits));
}

TEST(SemaphoreProcess, killed_waiters_take_neither_wake_nor_unit_along) {
  // Every unit is given by this process and taken by a child, which counts it; a kill between taking and counting loses
  // the count of one unit, never a wake: the units that were given are all taken.
  struct State : Ledger {
    semaphore units{0};
  };
  Shared<State> state;
  std::atomic<bool> stop{false};
  std::uint64_t given = 0;
  std::thread giver([&] {
    // At the end the survivors still wait: give until they have all seen it.
    while (!stop || !state->stop || state->units.value() < 64) {
      if (state->units.value() < (state->stop ? 64 : 4) && state->units.up()) ++given;
      std::this_thread::yield();
    }
  });
  const Outcome outcome = kill_at_random(
      *state,
      [&](int place, Ticket) {
        while (!state->stop) {
          if (!state->units.down()) ++state->violations;
          ++state->done;
          state->inside = place;
        }
      },
      Deaths::untold);
  stop = true;
  giver.join();
  expect_held_up(*state, outcome);
  const std::uint64_t counted = state->done + state->units.value();
  EXPECT_LE(counted, given);
  EXPECT_LE(given - counted, static_cast<std::uint64_t>(outcome.kills));
}

}  // namespace
