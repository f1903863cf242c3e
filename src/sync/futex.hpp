// SPDX-License-Identifier: MIT
// The futex calls the locks use. All are of the shared kind, also inside one process: the wake that the kernel does for
// a dead owner is (handle_futex_death wakes with FLAGS_SHARED), and a private sleeper would not hear it.
#pragma once

#include <time.h>

#include <atomic>
#include <cstdint>
#include <span>

namespace holdfast::sync::futex {

using Word = std::atomic<std::uint32_t>;

/// Classes of sleepers on one word, for FUTEX_WAIT_BITSET. The kernel's own wakes reach all of them.
enum class Class : std::uint32_t { any = 0xffffffff, readers = 1, writers = 2 };

enum class Woke : std::uint8_t {
  look_again,   ///< woken, or the word was another; a wake may have been consumed
  timed_out,    ///< no wake was consumed
  interrupted,  ///< a handler ran; no wake was consumed
};

/// Sleeps while `word` is `value`, until CLOCK_MONOTONIC is `deadline` (0: for ever).
///
/// A wait for ever is restarted by the kernel after a handler with SA_RESTART, one with a deadline is not: pass
/// kFarAway to hear of every handler. (futex(2); seen on 6.1 and 6.18)
Woke wait(const Word& word, std::uint32_t value, Class as, std::uint64_t deadline);

/// The same with a deadline that a handler may change until the kernel reads it.
Woke wait(const Word& word, std::uint32_t value, Class as, const volatile timespec& until);
timespec instant(std::uint64_t nanoseconds);

/// Sleeps while `word` is `value` and `other` is `other_value`. Not ended by handlers.
Woke wait_either(const Word& word, std::uint32_t value, const Word& other, std::uint32_t other_value,
                 std::uint64_t deadline);

/// Sleeps until one of up to 128 words is not its value any more. Not ended by handlers.
struct Watched {
  const Word* word;
  std::uint32_t value;
};
Woke wait_any(std::span<const Watched> words, std::uint64_t deadline);

/// Wakes up to `count` sleepers of a class; returns how many there were.
unsigned wake(const Word& word, int count, Class whom);

/// Sets `word` to 0 and wakes every sleeper on it, in one step: no sleeper can come between, and neither can our death.
/// (FUTEX_WAKE_OP changes and wakes under the lock of the word's hash bucket: kernel/futex/waitwake.c)
void release_and_wake_all(Word& word);

/// Clears the waiters bit (31) of a word and wakes every sleeper on it, in one step.
void clear_waiters_and_wake_all(Word& word);

constexpr std::uint64_t kFarAway = 4'000'000'000ULL * 1'000'000'000ULL;  ///< a century of uptime

std::uint64_t now();  ///< CLOCK_MONOTONIC in nanoseconds

}  // namespace holdfast::sync::futex
