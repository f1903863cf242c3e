// SPDX-License-Identifier: MIT
// Where a lock-order validator hooks in: three calls, which are nothing unless the room is compiled with
// HOLDFAST_SYNC_ORDER. The public classes call them around their protocols; the protocols know nothing of it.
#pragma once

#include "sync/outcome.hpp"

namespace holdfast::sync::order {

enum class Side : std::uint8_t { exclusive, shared };

#if defined(HOLDFAST_SYNC_ORDER)
void wanted(const void* lock, Side side, Wait::How how);  // before the first look; may report, must not take locks
void had(const void* lock, Side side, Outcome outcome);   // after it: held, or given up
void given(const void* lock, Side side);                  // before the release
#else
inline void wanted(const void*, Side, Wait::How) {}
inline void had(const void*, Side, Outcome) {}
inline void given(const void*, Side) {}
#endif

}  // namespace holdfast::sync::order
