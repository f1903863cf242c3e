// SPDX-License-Identifier: MIT
#include "sync/futex.hpp"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <array>

#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#endif

namespace holdfast::sync::futex {
namespace {

constexpr std::uint64_t kSecond = 1'000'000'000;
constexpr std::uint64_t kNoWaitv = 10'000'000;  // how often to look where there is no futex_waitv (before 5.16)

void* address(const Word& word) { return const_cast<Word*>(&word); }  // the kernel's interface has no const

Woke woke(long result) {
  if (result >= 0) return Woke::look_again;
  if (errno == ETIMEDOUT) return Woke::timed_out;
  if (errno == EINTR) return Woke::interrupted;
  return Woke::look_again;  // EAGAIN; others cannot be: the word is aligned, mapped and ours
}

}  // namespace

timespec instant(std::uint64_t nanoseconds) {
  return {static_cast<time_t>(nanoseconds / kSecond), static_cast<long>(nanoseconds % kSecond)};
}

std::uint64_t now() {
  timespec time{};
  ::clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<std::uint64_t>(time.tv_sec) * kSecond + static_cast<std::uint64_t>(time.tv_nsec);
}

Woke wait(const Word& word, std::uint32_t value, Class as, std::uint64_t deadline) {
  const timespec until = instant(deadline);
  return woke(::syscall(SYS_futex, address(word), FUTEX_WAIT_BITSET, value, deadline != 0 ? &until : nullptr, nullptr,
                        static_cast<std::uint32_t>(as)));
}

Woke wait(const Word& word, std::uint32_t value, Class as, const volatile timespec& until) {
  return woke(::syscall(SYS_futex, address(word), FUTEX_WAIT_BITSET, value, const_cast<timespec*>(&until), nullptr,
                        static_cast<std::uint32_t>(as)));
}

Woke wait_any(std::span<const Watched> words, std::uint64_t deadline) {
  std::array<futex_waitv, FUTEX_WAITV_MAX> all{};
  for (std::size_t i = 0; i < words.size(); ++i) {
    all[i].val = words[i].value;
    all[i].uaddr = reinterpret_cast<std::uintptr_t>(words[i].word);
    all[i].flags = FUTEX_32;
  }
  const timespec until = instant(deadline);
  const long result =
      ::syscall(SYS_futex_waitv, all.data(), words.size(), 0, deadline != 0 ? &until : nullptr, CLOCK_MONOTONIC);
  if (result < 0 && errno == ENOSYS) {
    const std::uint64_t soon = now() + kNoWaitv;
    const bool last = deadline != 0 && deadline <= soon;
    const Woke why = wait(*words[0].word, words[0].value, Class::any, last ? deadline : soon);
    return why == Woke::timed_out && !last ? Woke::look_again : why;
  }
  return woke(result);
}

Woke wait_either(const Word& word, std::uint32_t value, const Word& other, std::uint32_t other_value,
                 std::uint64_t deadline) {
  const std::array<Watched, 2> both{{{&word, value}, {&other, other_value}}};
  return wait_any(both, deadline);
}

unsigned wake(const Word& word, int count, Class whom) {
  const long woken =
      ::syscall(SYS_futex, address(word), FUTEX_WAKE_BITSET, count, nullptr, nullptr, static_cast<std::uint32_t>(whom));
  return woken > 0 ? static_cast<unsigned>(woken) : 0;
}

namespace {

// The kernel's read-modify-write is at least a release (futex_atomic_op_inuser: lock-prefixed on x86, stlxr on arm64);
// the fence keeps the compiler and weaker kernels honest. Pairs with the acquire of whoever takes the word next.
void change_and_wake_all(Word& word, int change) {
#if defined(__SANITIZE_THREAD__)
  __tsan_release(&word);  // ThreadSanitizer neither sees the kernel's store nor knows fences
#else
  std::atomic_thread_fence(std::memory_order_release);
#endif
  ::syscall(SYS_futex, address(word), FUTEX_WAKE_OP, INT_MAX, nullptr, address(word), change);
}

}  // namespace

void release_and_wake_all(Word& word) { change_and_wake_all(word, FUTEX_OP(FUTEX_OP_SET, 0, FUTEX_OP_CMP_LT, 0)); }

void clear_waiters_and_wake_all(Word& word) {
  change_and_wake_all(word, static_cast<int>(FUTEX_OP(FUTEX_OP_ANDN | FUTEX_OP_OPARG_SHIFT, 31U, FUTEX_OP_CMP_LT, 0U)));
}

}  // namespace holdfast::sync::futex
