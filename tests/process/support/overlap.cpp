// SPDX-License-Identifier: MIT
// overlap.cpp - see the header.
#include "process/support/overlap.hpp"

#include "base/process.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <new>

namespace holdfast::testing_support {

namespace {

bool holds(pid_t pid) { return pid != 0 && pid != ::getpid() && base::is_alive({pid, 0}); }

}  // namespace

void Boards::hold(Board& board, Mode mode, int worker, int pause_us) {
  if (mode == Mode::exclusive)
    hold_exclusively(board, pause_us);
  else
    hold_shared(board, worker, pause_us);
  ++board.grants[mode == Mode::exclusive ? 0 : 1];
}

void Boards::hold_exclusively(Board& board, int pause_us) {
  const pid_t self = ::getpid();
  if (holds(board.exclusive.exchange(self))) ++overlaps;
  for (const auto& sharer : board.shared)
    if (holds(sharer)) ++overlaps;
  ::usleep(static_cast<useconds_t>(pause_us));  // the work
  pid_t expected = self;
  if (!board.exclusive.compare_exchange_strong(expected, 0)) ++overlaps;
}

void Boards::hold_shared(Board& board, int worker, int pause_us) {
  auto& place = board.shared[static_cast<std::size_t>(worker)];
  place = ::getpid();
  if (holds(board.exclusive)) ++overlaps;
  ::usleep(static_cast<useconds_t>(pause_us));
  if (holds(board.exclusive)) ++overlaps;
  place = 0;
}

void Boards::forget(pid_t pid) {
  for (Board& board : devices) {
    pid_t expected = pid;
    board.exclusive.compare_exchange_strong(expected, 0);
    for (auto& place : board.shared) {
      expected = pid;
      place.compare_exchange_strong(expected, 0);
    }
  }
}

std::uint64_t Boards::grants() const {
  std::uint64_t sum = 0;
  for (const Board& board : devices) sum += board.grants[0] + board.grants[1];
  return sum;
}

SharedBoards::SharedBoards() {
  void* const memory = ::mmap(nullptr, sizeof(Boards), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) std::abort();
  boards_ = new (memory) Boards;
}

SharedBoards::~SharedBoards() { ::munmap(boards_, sizeof(Boards)); }

}  // namespace holdfast::testing_support
