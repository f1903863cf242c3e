// SPDX-License-Identifier: MIT
// From what a protocol came to, to what the throwing forms do with it.
#pragma once

#include <holdfast/sync/timing.hpp>

#include "sync/outcome.hpp"

namespace holdfast::sync {

[[noreturn]] void raise(Outcome outcome);

inline std::uint64_t nanoseconds(Deadline deadline) {
  const auto count = std::chrono::duration_cast<std::chrono::nanoseconds>(deadline.time_since_epoch()).count();
  return count > 0 ? static_cast<std::uint64_t>(count) : 1;  // 0 means no deadline
}

inline Wait until(Deadline deadline) { return {Wait::How::plain, nanoseconds(deadline)}; }

}  // namespace holdfast::sync
