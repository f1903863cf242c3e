// SPDX-License-Identifier: MIT
// What the calling thread is to the kernel: its id and its robust list, the chain of lock words that the kernel gives
// back when the thread ends in whatever way. The list is the one that the C library registered for its own robust
// mutexes; ours and theirs may hang on it side by side.
#pragma once

#include <holdfast/sync/node.hpp>

#include <atomic>
#include <cstdint>

struct robust_list_head;

namespace holdfast::sync {

using Node = detail::RobustNode;

struct Thread {
  std::uint32_t tid = 0;   // 0: not known yet, or this is a child fresh from fork
  std::uint32_t home = 0;  // where this thread looks first for a reader's slot
  robust_list_head* head = nullptr;
  const void* lonely = nullptr;  // the word whose last wake by this thread found nobody
  std::uint64_t waited = 0;      // when it last began to wait for a lock
  std::uint32_t shown = 0;       // where others see that it lives, 0 when it does not show it (life.hpp)
};

// initial-exec: one instruction to reach, also from the shared library; 40 bytes of the loader's reserve.
extern thread_local constinit Thread this_thread __attribute__((tls_model("initial-exec")));

/// Asks the kernel; false when the C library has no list of the shape we know (then tid stays 0).
bool introduce(Thread& thread);

/// The calling thread, or nullptr when robust locks cannot work here.
inline Thread* self() {
  Thread& thread = this_thread;
  if (thread.tid == 0 && !introduce(thread)) [[unlikely]]
    return nullptr;
  return &thread;
}

// How the list changes. The kernel walks it in this very thread, so plain stores in this order are enough, if the
// compiler keeps the order. At each instant the list can be walked, and a word that is ours is on it or pending.

inline void in_order() { std::atomic_signal_fence(std::memory_order_seq_cst); }

/// Tells the kernel which word is being worked on: if we die it is treated as if it were on the list, and if nobody
/// owns it, one sleeper is woken in our stead.
void pend(Thread& thread, Node& node);
void unpend(Thread& thread);
void enqueue(Thread& thread, Node& node);
void dequeue(Node& node);

/// Whether the list is empty.
bool holds_nothing(const Thread& thread);

/// The latest node on this thread's list, if it lies in [first, first + bytes), else nullptr.
Node* held_last(const Thread& thread, const void* first, std::size_t bytes);

/// The node on this thread's list that lies in [first, first + bytes), or nullptr.
Node* held_within(const Thread& thread, const void* first, std::size_t bytes);

}  // namespace holdfast::sync

#include "sync/thread_inline.hpp"
