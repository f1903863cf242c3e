// SPDX-License-Identifier: MIT
// The lock words as pure functions: what a word says, and what it becomes. The locks apply them with atomic operations,
// the model tier (tests/model) applies the same ones to its own memory, and the kernel's part at a thread's death is
// written down here as well.
//
// A word, as the kernel reads those on a robust list (kernel/futex/core.c handle_futex_death; Documentation/locking/
// robust-futex-ABI.rst):
//
//   bit 31     waiters  somebody may sleep on this word. Sticky: a release keeps it, so that the duty to wake passes to
//                       whoever takes the lock next and cannot die with a waiter that was woken and then killed.
//                       Dropped only by release_and_wake_all, where dropping and waking are one step of the kernel.
//   bit 30     flag     without an owner: the owner died. With an owner the kernel does not look at it, and it is ours:
//                       a reader's slot: waits, is not inside; a writer's word: makes it differ (rw_protocol.hpp).
//   bits 29-0  owner    0 for nobody, else a thread id (at most 2^22, kernel PID_MAX_LIMIT), or with bit 29 a process
//                       in a registry, which no thread id can equal.
#pragma once

#include <cstdint>

namespace holdfast::sync::words {

constexpr std::uint32_t kWaiters = 0x80000000;
constexpr std::uint32_t kFlag = 0x40000000;
constexpr std::uint32_t kOwner = 0x3fffffff;
constexpr std::uint32_t kProcess = 0x20000000;

constexpr std::uint32_t owner(std::uint32_t word) { return word & kOwner; }
constexpr bool has_waiters(std::uint32_t word) { return (word & kWaiters) != 0; }
constexpr bool owner_died(std::uint32_t word) { return owner(word) == 0 && (word & kFlag) != 0; }

/// What an ownerless word becomes when `me` takes it. One that slept here cannot know whether others still do.
constexpr std::uint32_t taken(std::uint32_t word, std::uint32_t me, bool slept) {
  return me | (word & kWaiters) | (slept ? kWaiters : 0);
}

/// What a word becomes before somebody goes to sleep on it.
constexpr std::uint32_t awaited(std::uint32_t word) { return word | kWaiters; }

/// What a word with waiters becomes at its release: free, and the next owner has the duty to wake.
constexpr std::uint32_t released_to_waiters() { return kWaiters; }

/// The kernel's part, at the death of the owner.
constexpr std::uint32_t after_owners_death(std::uint32_t word) { return (word & kWaiters) | kFlag; }

// A reader's slot: owner and no flag is a reader inside, owner and flag one that waits. Only the slot's owner turns the
// flag on; it or a releasing writer turns it off.

constexpr bool reads(std::uint32_t slot) { return owner(slot) != 0 && (slot & kFlag) == 0; }
constexpr bool waits_to_read(std::uint32_t slot) { return owner(slot) != 0 && (slot & kFlag) != 0; }
constexpr std::uint32_t let_in(std::uint32_t slot) { return slot & ~kFlag; }
constexpr std::uint32_t made_to_wait(std::uint32_t slot) { return slot | kFlag; }

/// A writer's word that lets readers pass.
constexpr bool open_to_readers(std::uint32_t writer) { return (writer & ~kWaiters) == 0; }

}  // namespace holdfast::sync::words
