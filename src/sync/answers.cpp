// SPDX-License-Identifier: MIT
#include "sync/answers.hpp"

#include <holdfast/sync/termination.hpp>

#include "sync/host.hpp"

namespace holdfast::sync {

constinit std::atomic<std::uint32_t> termination{0};

void raise(Outcome outcome) { throw std::system_error(make_error_code(error_of(outcome))); }

void note_termination() noexcept {
  termination.store(1, std::memory_order_release);  // pairs with the acquire in Host::told_to_end
  futex::wake(termination, INT_MAX, futex::Class::any);
}

void clear_termination() noexcept { termination.store(0, std::memory_order_relaxed); }

bool termination_noted() noexcept { return termination.load(std::memory_order_acquire) != 0; }

}  // namespace holdfast::sync
