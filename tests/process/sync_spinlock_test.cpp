// SPDX-License-Identifier: MIT
// robust_spinlock between processes that are killed: those that spin on a dead holder's lock get on, and are told.
#include <holdfast/sync/spinlock.hpp>

#include "process/sync_support.hpp"

#if defined(__clang__)
#pragma clang diagnostic ignored "-Wthread-safety-analysis"  // what it forbids is what is tested here
#endif

namespace {

using namespace sync_tests;
using holdfast::sync::Acquired;
using holdfast::sync::robust_spinlock;

TEST(RobustSpinlockProcess, it_outlives_kills_of_random_holders_and_waiters) {
  struct State : Ledger {
    robust_spinlock lock;
    Section section;
  };
  Shared<State> state;
  const Outcome outcome = kill_at_random(*state, [&](int place, Ticket ticket) {
    std::minstd_rand random(ticket);
    while (!state->stop) {
      const auto got = random() % 8 == 0 ? state->lock.trylock() : state->lock.lock_checked();
      if (!got) continue;
      state->section.enter(*state, place, ticket, *got == Acquired::owner_died);
      if (*got != Acquired::clean) static_cast<void>(state->lock.consistent());
      linger(random);
      state->section.leave(*state, ticket);
      if (!state->lock.unlock_checked()) ++state->violations;
      ++state->done;
    }
  });
  expect_held_up(*state, outcome);
}

}  // namespace
