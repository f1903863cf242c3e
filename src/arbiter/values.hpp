// SPDX-License-Identifier: MIT
// values.hpp - what goes into the arbiter and what comes out: numbers that cannot be mixed up, requests, decisions.
#pragma once

#include <holdfast/options.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <variant>
#include <vector>

namespace holdfast::arbiter {

/// A device, whatever it is: the caller's number for it.
enum class DeviceKey : std::uint64_t {};
/// Whoever claims: the caller's number for it. An owner never waits for itself.
enum class OwnerId : std::uint64_t {};
/// One asking, until it is answered for good. Never used twice.
enum class RequestId : std::uint64_t { none = 0 };
/// One claim, until it ends. Never used twice.
enum class ClaimId : std::uint64_t { none = 0 };
/// Rises strictly with each exclusive grant of a device; a shared grant carries the latest.
enum class Token : std::uint64_t {};
/// A place in the one order of all requests; lets a waiter come back to it after a restart.
enum class Place : std::uint64_t {};

/// The caller's clock, which nobody can read here: instants are handed in.
struct Clock {
  using duration = std::chrono::nanoseconds;
  using rep = duration::rep;
  using period = duration::period;
  using time_point = std::chrono::time_point<Clock>;
};
using Time = Clock::time_point;
using Duration = Clock::duration;

/// How long a request may wait.
class Patience {
 public:
  [[nodiscard]] static constexpr Patience none() { return Patience{Time::min()}; }
  [[nodiscard]] static constexpr Patience for_ever() { return Patience{Time::max()}; }
  [[nodiscard]] static constexpr Patience until(Time deadline) { return Patience{deadline}; }
  [[nodiscard]] constexpr bool waits() const { return deadline_ != Time::min(); }
  [[nodiscard]] constexpr Time deadline() const { return deadline_; }

 private:
  explicit constexpr Patience(Time deadline) : deadline_{deadline} {}
  Time deadline_;
};

using holdfast::Priority;
inline constexpr std::size_t kPriorityCount = 5;

enum class Policy : std::uint8_t {
  phase_fair,    ///< the order of asking; but when an exclusive claim ends, the shared that wait get in before the next
  writer_first,  ///< exclusive before shared: shared ones may wait for ever
  fifo,          ///< the order of asking
};

struct Rules {
  Policy policy = Policy::phase_fair;
  /// How many earlier waiters, on all devices together, a request may overtake for each class that it is above them.
  std::uint32_t overtake = 64;
  /// After a restart above all places from before it, so that who asks anew does not come before who comes back.
  std::uint64_t first_place = 1;
};

struct Request {
  OwnerId owner{};
  std::span<const DeviceKey> devices;  ///< granted all at once; order and duplicates do not matter
  Mode mode = Mode::exclusive;
  Patience patience = Patience::none();
  Priority priority = Priority::normal;
  std::optional<Duration> lease = std::nullopt;  ///< the claim lapses so long after its grant, unless renewed
  std::optional<Place> place = std::nullopt;     ///< the place that it had before a restart
};

/// A device of a claim, with the token of its grant.
struct Held {
  DeviceKey device{};
  Token token{};
  bool operator==(const Held&) const = default;
};

/// A claim that was granted by an earlier arbiter.
struct Adoption {
  OwnerId owner{};
  std::span<const Held> devices;
  Mode mode = Mode::exclusive;
  std::optional<Time> until = std::nullopt;
};

/// How one owner stands in another's way.
enum class Stands : std::uint8_t { holds, waits_ahead, upgrades };

/// `owner` is in the way on `device`.
struct Blocker {
  DeviceKey device{};
  OwnerId owner{};
  Stands how = Stands::holds;
};

/// One step of a cycle: `owner` waits for `device`, where the owner of the next step (of the first, after the last)
/// stands in the way.
struct WaitsFor {
  OwnerId owner{};
  DeviceKey device{};
  Stands how = Stands::holds;
};

enum class Reason : std::uint8_t {
  busy,               ///< it would have to wait, and does not want to
  deadlock,           ///< its wait would close a cycle of owners; a cycle of one is an owner that waits for itself
  already_upgrading,  ///< another claim of a device waits for its upgrade
  not_held,           ///< no such claim of this owner
  no_device,          ///< an empty set
};

enum class End : std::uint8_t { released, lapsed, revoked, owner_died };
enum class Revocation : std::uint8_t { none, administrator, device_gone, policy };
enum class Withdrawal : std::uint8_t {
  cancelled,
  timed_out,
  owner_died,
  claim_ended  ///< the claim whose upgrade it was
};

/// A part of one of the lists in Decisions.
struct Range {
  std::uint32_t first = 0;
  std::uint32_t count = 0;
};

struct Granted {
  RequestId request{};
  ClaimId claim{};
  OwnerId owner{};
  Mode mode = Mode::exclusive;
  std::optional<Time> until;
  Range devices;
};
struct Queued {
  RequestId request{};
  OwnerId owner{};
  Place place{};
};
struct Refused {
  RequestId request{};
  OwnerId owner{};
  Reason reason = Reason::busy;
  Range blockers;  ///< at most kMostBlockers
  Range cycle;     ///< for deadlock
};
struct Withdrawn {
  RequestId request{};
  OwnerId owner{};
  Withdrawal why = Withdrawal::cancelled;
};
struct Upgraded {
  RequestId request{};
  ClaimId claim{};
  OwnerId owner{};
  Range devices;
};
struct Downgraded {
  ClaimId claim{};
  OwnerId owner{};
};
struct Renewed {
  ClaimId claim{};
  OwnerId owner{};
  std::optional<Time> until;
};
struct Ended {
  ClaimId claim{};
  OwnerId owner{};
  Mode mode = Mode::exclusive;
  End why = End::released;
  Revocation revocation = Revocation::none;
  Range devices;
};
using Decision = std::variant<Granted, Queued, Refused, Withdrawn, Upgraded, Downgraded, Renewed, Ended>;

inline constexpr std::size_t kMostBlockers = 16;

/// The caller's buffer: what was decided, in order. Reused, it grows no more.
class Decisions {
 public:
  void clear() {
    list_.clear();
    held_.clear();
    blockers_.clear();
    cycles_.clear();
  }
  [[nodiscard]] std::span<const Decision> all() const { return list_; }
  [[nodiscard]] std::span<const Held> devices(const Granted& granted) const { return part(held_, granted.devices); }
  [[nodiscard]] std::span<const Held> devices(const Upgraded& upgraded) const { return part(held_, upgraded.devices); }
  [[nodiscard]] std::span<const Held> devices(const Ended& ended) const { return part(held_, ended.devices); }
  [[nodiscard]] std::span<const Blocker> blockers(const Refused& refused) const {
    return part(blockers_, refused.blockers);
  }
  [[nodiscard]] std::span<const WaitsFor> cycle(const Refused& refused) const { return part(cycles_, refused.cycle); }

 private:
  friend class Arbiter;
  template <class T>
  static std::span<const T> part(const std::vector<T>& list, Range range) {
    return std::span<const T>{list}.subspan(range.first, range.count);
  }
  std::vector<Decision> list_;
  std::vector<Held> held_;
  std::vector<Blocker> blockers_;
  std::vector<WaitsFor> cycles_;
};

/// Who holds a device.
struct Holding {
  ClaimId claim{};
  OwnerId owner{};
  Mode mode = Mode::exclusive;
  Token token{};
  std::optional<Time> until;
  bool operator==(const Holding&) const = default;
};

/// Who waits for a device.
struct Waiting {
  RequestId request{};
  OwnerId owner{};
  Mode mode = Mode::exclusive;
  Priority priority = Priority::normal;
  bool operator==(const Waiting&) const = default;
};

}  // namespace holdfast::arbiter
