// SPDX-License-Identifier: MIT
// sync/timing.hpp - the deadlines of timed waits: instants on CLOCK_MONOTONIC, whatever clock the caller thinks in.
#pragma once

#include <chrono>
#include <cstdint>

namespace holdfast::sync {

/// An instant on CLOCK_MONOTONIC; suspended time does not count.
using Deadline = std::chrono::steady_clock::time_point;

namespace detail {

template <class Rep, class Period>
Deadline after(const std::chrono::duration<Rep, Period>& length) {
  using std::chrono::steady_clock;
  const steady_clock::time_point now = steady_clock::now();
  // Compared as floating point, so that a length like hours::max() means for ever and does not wrap.
  const std::chrono::duration<double> left = steady_clock::time_point::max() - now;
  if (std::chrono::duration<double>(length) >= left) return steady_clock::time_point::max();
  return now + std::chrono::ceil<steady_clock::duration>(length);
}

/// Calls `wait_until(Deadline)` until it says yes or `instant` has passed on the caller's own clock, which may be set.
template <class Clock, class Duration, class WaitUntil>
bool until(const std::chrono::time_point<Clock, Duration>& instant, WaitUntil wait_until) {
  if constexpr (std::is_same_v<Clock, std::chrono::steady_clock>) {
    return wait_until(std::chrono::time_point_cast<std::chrono::steady_clock::duration>(instant));
  } else {
    for (;;) {
      const auto left = instant - Clock::now();
      if (wait_until(after(left))) return true;
      if (Clock::now() >= instant) return false;
    }
  }
}

}  // namespace detail
}  // namespace holdfast::sync
