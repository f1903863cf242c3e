// SPDX-License-Identifier: MIT
// The four stores that every lock and unlock does, inline. Included by thread.hpp alone.
#pragma once

#include <linux/futex.h>

namespace holdfast::sync {

// The kernel unlinks what a dead thread held, and gives it free with the word (kernel/futex/core.c:
// handle_futex_death, a full barrier). ThreadSanitizer sees no kernel: to it the next holder's stores are a race.
#define HF_AFTER_THE_KERNEL __attribute__((no_sanitize("thread")))

namespace list {
// An entry is the address of a node's `next`; `previous` lies in the 8 bytes before, also in the C library's nodes and
// in front of its list head (glibc sysdeps/nptl: __pthread_list_t, struct pthread robust_prev). Bit 0 of a link marks a
// priority-inheriting mutex of the C library's.
inline void** next_at(void* entry) {
  const auto mark = reinterpret_cast<std::uintptr_t>(entry) & 1;
  return reinterpret_cast<void**>(static_cast<char*>(entry) - mark);
}
inline void** previous_at(void* entry) { return next_at(entry) - 1; }
inline void* entry_of(Node& node) { return static_cast<void*>(&node.next); }

HF_AFTER_THE_KERNEL inline void store(void* volatile* where, void* what) { *where = what; }
}  // namespace list

inline void pend_at(Thread& thread, void* entry) {
  list::store(reinterpret_cast<void* volatile*>(&thread.head->list_op_pending), entry);
  in_order();
}

inline void pend(Thread& thread, Node& node) { pend_at(thread, list::entry_of(node)); }

inline void unpend(Thread& thread) {
  in_order();
  list::store(reinterpret_cast<void* volatile*>(&thread.head->list_op_pending), nullptr);
}

HF_AFTER_THE_KERNEL inline void enqueue(Thread& thread, Node& node) {
  void* const first = thread.head->list.next;
  *list::previous_at(first) = list::entry_of(node);
  // Not in one wide store: a node may lie across two cache lines, and the loads in dequeue then wait for it.
  list::store(&node.next, first);
  list::store(&node.previous, &thread.head->list);
  in_order();
  thread.head->list.next = static_cast<robust_list*>(list::entry_of(node));
  in_order();
}

HF_AFTER_THE_KERNEL inline void dequeue(Node& node) {
  *list::previous_at(node.next) = node.previous;
  *list::next_at(node.previous) = node.next;
  in_order();
}

inline bool holds_nothing(const Thread& thread) { return thread.head->list.next == &thread.head->list; }

namespace list {
inline Node* node_within(void* entry, const void* first, std::size_t bytes) {
  auto* const next = static_cast<void*>(next_at(entry));
  const auto offset = reinterpret_cast<std::uintptr_t>(next) - reinterpret_cast<std::uintptr_t>(first);
  return offset < bytes ? reinterpret_cast<Node*>(static_cast<char*>(next) - offsetof(Node, next)) : nullptr;
}
}  // namespace list

inline Node* held_last(const Thread& thread, const void* first, std::size_t bytes) {
  return list::node_within(thread.head->list.next, first, bytes);
}

inline Node* held_within(const Thread& thread, const void* first, std::size_t bytes) {
  void* const head = &thread.head->list;
  for (void* entry = thread.head->list.next; entry != head; entry = *list::next_at(entry))
    if (Node* const node = list::node_within(entry, first, bytes); node != nullptr) return node;
  return nullptr;
}

}  // namespace holdfast::sync

#undef HF_AFTER_THE_KERNEL
