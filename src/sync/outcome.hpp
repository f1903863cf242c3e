// SPDX-License-Identifier: MIT
// What a protocol came to, and how its caller wants to wait; shared by the protocols, the public classes and the
// models.
#pragma once

#include <holdfast/sync/error.hpp>

#include <cstdint>

namespace holdfast::sync {

enum class Outcome : std::uint8_t {
  clean,         // done; where something was taken, in a clean state
  owner_died,    // taken, see Acquired
  inconsistent,  // taken, see Acquired
  again,         // inside the protocols: not settled yet
  deadlock,
  not_owner,
  busy,
  timed_out,
  interrupted,
  overflow,
  unsupported,
  foreign_namespace,
};

constexpr bool holds(Outcome outcome) { return outcome <= Outcome::inconsistent; }

struct Wait {
  enum class How : std::uint8_t {
    never,          // a try form
    plain,          // handlers run, and the wait goes on
    interruptible,  // a handler ends it
    killable,       // noted termination ends it
  };
  How how = How::plain;
  std::uint64_t deadline = 0;  // CLOCK_MONOTONIC in nanoseconds; 0: none
};

constexpr errc error_of(Outcome outcome) {
  switch (outcome) {
    case Outcome::deadlock:
      return errc::deadlock;
    case Outcome::not_owner:
      return errc::not_owner;
    case Outcome::busy:
      return errc::busy;
    case Outcome::timed_out:
      return errc::timed_out;
    case Outcome::interrupted:
      return errc::interrupted;
    case Outcome::overflow:
      return errc::overflow;
    case Outcome::owner_died:
      return errc::owner_dead;
    case Outcome::inconsistent:
      return errc::inconsistent;
    case Outcome::foreign_namespace:
      return errc::foreign_namespace;
    default:
      return errc::unsupported;
  }
}

inline Result<Acquired> acquired(Outcome outcome) {
  if (holds(outcome)) return static_cast<Acquired>(outcome);
  return std::unexpected(make_error_code(error_of(outcome)));
}
static_assert(static_cast<int>(Acquired::owner_died) == static_cast<int>(Outcome::owner_died));
static_assert(static_cast<int>(Acquired::inconsistent) == static_cast<int>(Outcome::inconsistent));

inline Result<> done(Outcome outcome) {
  if (outcome == Outcome::clean) return {};
  return std::unexpected(make_error_code(error_of(outcome)));
}

}  // namespace holdfast::sync
