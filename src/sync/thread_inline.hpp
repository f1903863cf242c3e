// SPDX-License-Identifier: MIT
// The four stores that every lock and unlock does, inline. Included by thread.hpp alone.
#pragma once

#include <linux/futex.h>

namespace holdfast::sync {

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

inline void store(void* volatile* where, void* what) { *where = what; }
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

inline void enqueue(Thread& thread, Node& node) {
  void* const first = thread.head->list.next;
  *list::previous_at(first) = list::entry_of(node);
  node.next = first;
  node.previous = &thread.head->list;
  in_order();
  thread.head->list.next = static_cast<robust_list*>(list::entry_of(node));
  in_order();
}

inline void dequeue(Node& node) {
  *list::previous_at(node.next) = node.previous;
  *list::next_at(node.previous) = node.next;
  in_order();
  node.previous = nullptr;
  node.next = nullptr;
  in_order();
}

inline Node* held_within(const Thread& thread, const void* first, std::size_t bytes) {
  void* const head = &thread.head->list;
  for (void* entry = thread.head->list.next; entry != head;) {
    void** const next = list::next_at(entry);
    const auto offset = reinterpret_cast<std::uintptr_t>(next) - reinterpret_cast<std::uintptr_t>(first);
    if (offset < bytes) return reinterpret_cast<Node*>(reinterpret_cast<char*>(next) - offsetof(Node, next));
    entry = *next;
  }
  return nullptr;
}

}  // namespace holdfast::sync
