// SPDX-License-Identifier: MIT
// overlap.hpp - a checker that knows nothing of claims: who holds says so in shared memory right after the claim and
// takes it back right before the release, and looks whether anybody else says so too.
//
// A word left by a killed holder names a process that is dead or dying, so it counts only while its process lives; the
// parent clears it between the death and the reaping, while the pid cannot be used again. What the checker cannot see
// is a holder that is killed before it has said so.
#pragma once

#include <holdfast/options.hpp>

#include <sys/types.h>

#include <array>
#include <atomic>
#include <cstdint>

namespace holdfast::testing_support {

inline constexpr int kMostWorkers = 16;
static_assert(std::atomic<pid_t>::is_always_lock_free);

/// What the checker knows of one device.
struct Board {
  std::atomic<pid_t> exclusive{0};
  std::array<std::atomic<pid_t>, kMostWorkers> shared{};
  std::array<std::atomic<std::uint64_t>, 2> grants{};  ///< exclusive, shared
};

struct Boards {
  std::array<Board, 3> devices;
  std::atomic<int> overlaps{0};
  std::atomic<int> faults{0};

  /// Called by the holder: holds the device for so long, and counts the grant.
  void hold(Board& board, Mode mode, int worker, int pause_us);
  /// Called by the parent, between the death and the reaping.
  void forget(pid_t pid);
  [[nodiscard]] std::uint64_t grants() const;

 private:
  void hold_exclusively(Board& board, int pause_us);
  void hold_shared(Board& board, int worker, int pause_us);
};

/// In memory that forked children share.
class SharedBoards {
 public:
  SharedBoards();
  SharedBoards(const SharedBoards&) = delete;
  SharedBoards& operator=(const SharedBoards&) = delete;
  ~SharedBoards();
  Boards& operator*() const { return *boards_; }
  Boards* operator->() const { return boards_; }

 private:
  Boards* boards_;
};

}  // namespace holdfast::testing_support
