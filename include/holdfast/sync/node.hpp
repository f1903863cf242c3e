// SPDX-License-Identifier: MIT
// sync/node.hpp - the memory of one robust lock word: the part of every lock that the kernel reads when its owner dies.
//
// Layout version 1, for 64-bit glibc, whose robust list says "the word is 32 bytes before the link": 40 bytes, word at
// 0, previous at 24, next at 32. All-zero memory is a free lock, so a lock may be placed in fresh shared memory without
// a constructor having run. The meaning of the bits of `word` is in src/sync/words.hpp.
#pragma once

#include <holdfast/sync/lock_class.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace holdfast::sync::detail {

struct RobustNode {
  std::atomic<std::uint32_t> word{0};
  std::atomic<std::uint32_t> dirty{0};  ///< 1 since an owner's death was told, until consistent()
  LockClass order_class;                ///< for the lock-order validator; its pointer is the maker's
  void* previous = nullptr;             ///< written by the owner of the word alone, so needs no atomicity
  void* next = nullptr;
};
static_assert(sizeof(RobustNode) == 40 && offsetof(RobustNode, previous) == 24 && offsetof(RobustNode, next) == 32);
static_assert(sizeof(LockClass) == 16);
static_assert(std::atomic<std::uint32_t>::is_always_lock_free);

}  // namespace holdfast::sync::detail
