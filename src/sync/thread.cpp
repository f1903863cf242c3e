// SPDX-License-Identifier: MIT
#include "sync/thread.hpp"

#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <bit>

namespace holdfast::sync {

thread_local constinit Thread this_thread;

namespace {

// Which homes are taken in this process. Handed out densely and taken back when a thread ends, so that a lock has few
// slots for a writer to look at. A hint: pairs with nothing.
constinit std::atomic<std::uint64_t> homes{0};
constinit std::atomic<std::uint32_t> more_homes{64};
constinit std::array<const char, 64> marks{};  // addresses that stand for homes
constinit pthread_key_t leaving = 0;

std::uint32_t next_home() {
  std::uint64_t taken = homes.load(std::memory_order_relaxed);
  while (taken != ~std::uint64_t{0})
    if (homes.compare_exchange_weak(taken, taken | (taken + 1), std::memory_order_relaxed))
      return static_cast<std::uint32_t>(std::countr_one(taken));
  return more_homes.fetch_add(1, std::memory_order_relaxed);
}

/// Whoever uses locks still later in this thread shares a home, which costs time only.
void leave(void* mark) {
  homes.fetch_and(~(std::uint64_t{1} << (static_cast<const char*>(mark) - marks.data())), std::memory_order_relaxed);
}

// The child's thread has another id and an empty list; what its memory says of held locks is about the parent.
void forget() {
  this_thread = Thread{};
  ::pthread_setspecific(leaving, nullptr);
  homes.store(0, std::memory_order_relaxed);
}

bool watch() { return ::pthread_atfork(nullptr, nullptr, forget) == 0 && ::pthread_key_create(&leaving, leave) == 0; }

// Before the library is unloaded: a thread that ended later would find no code there.
[[gnu::destructor]] void forget_key() {
  if (homes.load(std::memory_order_relaxed) != 0) ::pthread_key_delete(leaving);
}

}  // namespace

bool introduce(Thread& thread) {
  static const bool watched = watch();
  constexpr long kWordBeforeLink = -static_cast<long>(offsetof(Node, next) - offsetof(Node, word));
  robust_list_head* head = nullptr;
  std::size_t size = 0;
  if (!watched || ::syscall(SYS_get_robust_list, 0, &head, &size) != 0 || head == nullptr ||
      size != sizeof(robust_list_head) || head->futex_offset != kWordBeforeLink)
    return false;
  thread.head = head;
  thread.home = next_home();
  // No allocation for the first 32 keys of a process: this may be a signal handler.
  if (thread.home < marks.size()) ::pthread_setspecific(leaving, &marks[thread.home]);
  thread.tid = static_cast<std::uint32_t>(::syscall(SYS_gettid));
  return true;
}

}  // namespace holdfast::sync
