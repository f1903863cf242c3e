// SPDX-License-Identifier: MIT
// Where the lock-order validator hooks in: three calls, which the public classes make around their protocols; the
// protocols know nothing of it. Compiled out they are nothing, switched off a load and a branch each.
//
// `lock` is the address of a lock whose first member is a RobustNode: that holds the class. A lock without a class is
// not looked at. `where` is the place in the program that asked for the lock.
#pragma once

#include <holdfast/sync/node.hpp>
#include <holdfast/sync/order.hpp>

#include "sync/outcome.hpp"

namespace holdfast::sync::order {

enum class Side : std::uint8_t { exclusive, shared };

#if HOLDFAST_SYNC_ORDER

namespace hook {

// Our readers wait behind a waiting writer, whatever the policy: to read twice is not harmless.
constexpr How how_of(Side side) { return side == Side::exclusive ? How::exclusive : How::shared; }

inline const LockClass& class_of(const void* lock) {
  return static_cast<const sync::detail::RobustNode*>(lock)->order_class;
}

}  // namespace hook

// Asked first, by functions that go two ways then. A call that may follow costs registers where it stands, and so eight
// percent of a lock; asked like this a mutex is 0.4 ns slower than without the validator when nobody watches.
inline bool watched() { return detail::epoch.load(std::memory_order_relaxed) != 0; }

// For locks that have their class elsewhere, or are taken in other ways.
inline void wanted(const LockClass& lock_class, const void* lock, How as, Wait::How how, const void* where) {
  if (how != Wait::How::never) acquiring(lock_class, lock, as, where);
}
inline void had(const LockClass& lock_class, const void* lock, How as, Wait::How how, Outcome outcome,
                const void* where) {
  if (how != Wait::How::never) {
    if (!holds(outcome)) released(lock);
  } else if (holds(outcome)) {
    acquired_by_try(lock_class, lock, as, where);
  }
}

// Before the first look; may report, and take no lock of ours.
[[gnu::always_inline]] inline void wanted(const void* lock, Side side, Wait::How how,
                                          const void* where = __builtin_return_address(0),
                                          Signals signals = Signals::ask) {
  if (how != Wait::How::never) acquiring(hook::class_of(lock), lock, hook::how_of(side), where, signals);
}

// After it: held, or given up.
[[gnu::always_inline]] inline void had(const void* lock, Side side, Wait::How how, Outcome outcome,
                                       const void* where = __builtin_return_address(0),
                                       Signals signals = Signals::ask) {
  if (how != Wait::How::never) {
    if (!holds(outcome)) released(lock);
  } else if (holds(outcome)) {
    acquired_by_try(hook::class_of(lock), lock, hook::how_of(side), where, signals);
  }
}

// Before the release.
[[gnu::always_inline]] inline void given(const void* lock, Side) { released(lock); }

#else

constexpr bool watched() { return false; }
inline void wanted(const LockClass&, const void*, How, Wait::How, const void*) {}
inline void had(const LockClass&, const void*, How, Wait::How, Outcome, const void*) {}
inline void wanted(const void*, Side, Wait::How, const void* = nullptr) {}
inline void had(const void*, Side, Wait::How, Outcome, const void* = nullptr) {}
inline void given(const void*, Side) {}

#endif

}  // namespace holdfast::sync::order
