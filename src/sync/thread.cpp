// SPDX-License-Identifier: MIT
#include "sync/thread.hpp"

#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace holdfast::sync {

thread_local constinit Thread this_thread;

namespace {

// The child's thread has another id and an empty list; what its memory says of held locks is about the parent.
void forget() { this_thread = Thread{}; }

// Homes are handed out densely, so that a lock used by few threads has few slots for a writer to look at.
std::uint32_t next_home() {
  static constinit std::atomic<std::uint32_t> homes{0};
  return homes.fetch_add(1, std::memory_order_relaxed);  // a hint: pairs with nothing
}

}  // namespace

bool introduce(Thread& thread) {
  static const bool watched = ::pthread_atfork(nullptr, nullptr, forget) == 0;
  constexpr long kWordBeforeLink = -static_cast<long>(offsetof(Node, next) - offsetof(Node, word));
  robust_list_head* head = nullptr;
  std::size_t size = 0;
  if (!watched || ::syscall(SYS_get_robust_list, 0, &head, &size) != 0 || head == nullptr ||
      size != sizeof(robust_list_head) || head->futex_offset != kWordBeforeLink)
    return false;
  thread.head = head;
  thread.home = next_home();
  thread.tid = static_cast<std::uint32_t>(::syscall(SYS_gettid));
  return true;
}

}  // namespace holdfast::sync
