// SPDX-License-Identifier: MIT
// The wait for a turn polls: it is met when two threads find new orders at once, a few hundred times in a program's
// life.
#include "sync/order_turn.hpp"

#include <sched.h>
#include <time.h>

namespace holdfast::sync::order {

namespace {

std::int64_t now() noexcept {
  timespec time{};
  ::clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * std::int64_t{1'000'000'000} + time.tv_nsec;
}

}  // namespace

Turn::Turn(Word& word, Token& token) noexcept : word_{word}, token_{token}, mine_{token.next()} {
  std::uint64_t seen = 0;
  // Acquire pairs with the release in give_back(): bits that the last one set are seen. A turn that is taken over was
  // released by nobody: its bits are seen as they come, and the closure is made from those.
  if (word_.compare_exchange_strong(seen, mine_, std::memory_order_acquire)) return;
  std::uint64_t waited_for = seen;
  std::int64_t until = now() + kPatience;
  for (int round = 0;; ++round) {
    if (seen != 0 && seen == waited_for) {
      // Mine: this is a handler that interrupted the turn of its own thread, which cannot go on before we return.
      if (token_.is_mine(seen) || now() > until) {
        if (word_.compare_exchange_strong(seen, mine_, std::memory_order_acquire)) {
          taken_over_ = true;
          return;
        }
        continue;
      }
    } else if (seen != 0) {
      waited_for = seen;
      until = now() + kPatience;
    }
    if (round < 16) {
      ::sched_yield();
    } else {
      const timespec pause{.tv_sec = 0, .tv_nsec = 50'000};
      ::clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, nullptr);
    }
    seen = 0;
    if (word_.compare_exchange_strong(seen, mine_, std::memory_order_acquire)) return;
  }
}

bool Turn::still_mine() noexcept {
  const std::uint64_t next = token_.next();
  std::uint64_t expected = mine_;
  if (!word_.compare_exchange_strong(expected, next, std::memory_order_acq_rel)) return false;
  mine_ = next;
  return true;
}

bool Turn::give_back() noexcept {
  std::uint64_t expected = mine_;
  return word_.compare_exchange_strong(expected, 0, std::memory_order_release, std::memory_order_relaxed);
}

}  // namespace holdfast::sync::order
