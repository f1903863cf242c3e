// SPDX-License-Identifier: MIT
// Chains of nested locks with three builds of one lock around std::mutex: without the validator's hooks, with them
// switched off, with them on. Off and on are the same code.
#pragma once

#include <time.h>
#include <holdfast/sync/order.hpp>

#include <array>
#include <mutex>
#include <utility>

namespace bench {

namespace order = holdfast::sync::order;
using holdfast::sync::LockClass;

struct Bare {
  void lock() { mutex.lock(); }
  void unlock() { mutex.unlock(); }
  std::mutex mutex;
  LockClass unused;  // equal locks lie in equal lines
};

struct Hooked {
  void lock() {
    order::acquiring(lock_class, this, order::How::exclusive, order::here());
    mutex.lock();
  }
  void unlock() {
    mutex.unlock();
    order::released(this);
  }
  std::mutex mutex;
  LockClass lock_class;
};

inline double nanoseconds() {
  timespec time{};
  ::clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) * 1e9 + static_cast<double>(time.tv_nsec);
}

/// Nanoseconds for a chain of `kDepth` locks taken and given back.
template <std::size_t kDepth, class Lock>
[[gnu::noinline]] double chain(std::array<Lock, 4>& locks) {
  constexpr int kRounds = 4000;
  const double start = nanoseconds();
  for (int round = 0; round < kRounds; ++round) {
    [&]<std::size_t... kAt>(std::index_sequence<kAt...>) {
      (locks[kAt].lock(), ...);
      (locks[kDepth - 1 - kAt].unlock(), ...);
    }(std::make_index_sequence<kDepth>{});
  }
  return (nanoseconds() - start) / kRounds;
}

}  // namespace bench
