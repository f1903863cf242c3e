// SPDX-License-Identifier: MIT
// How one signal is enough to end an interruptible wait: no moment is left between the last look and the sleep.
//
// The kernel reads the deadline of a sleep from the thread's memory when the sleep begins. A handler that says so sets
// it to the past: a sleep that has not begun then ends at once, and one that has begun is ended by the handler itself.
#pragma once

#include "sync/futex.hpp"

namespace holdfast::sync {

/// As futex::wait, ended by handlers whatever their SA_RESTART says, and by what was noted before.
futex::Woke sleep_interruptibly(const futex::Word& word, std::uint32_t value, futex::Class as, std::uint64_t deadline);

}  // namespace holdfast::sync
