// SPDX-License-Identifier: MIT
// arbiter.hpp - who gets a device next: requests go in, decisions come out, and nothing else happens.
//
// All requests stand in one total order, the same on every device. A request is granted when, on each of its devices,
// nothing that is held and nothing that stands before it conflicts with it. So the first in a queue keeps its devices
// for itself until it has them all, big sets do not starve, and those that hold nothing cannot block each other for
// ever.
//
//   place in the order = number in the order of queueing + Rules::overtake x (classes below urgent)
//
// A class is thus worth a fixed number of places: a request overtakes at most so many earlier ones, and is overtaken by
// at most so many later ones, for each class between them. writer_first puts all exclusive before all shared requests.
//
// phase_fair, after Brandenburg and Anderson ("Reader-Writer Synchronization for Shared-Memory Multiprocessor Real-Time
// Systems", ECRTS 2009): when an exclusive claim of a device ends or becomes shared, the shared requests that wait
// there are granted before the next exclusive one. So a shared request waits for one exclusive claim at most, and an
// exclusive one is passed by one batch of shared ones for each exclusive claim that ends before it. Only requests for
// that one device are let in so, of owners that wait for nothing else: the others would come to stand in different
// orders on different devices. They keep to the order.
//
// An upgrade waits for the other shared holders, before all who wait. One claim at a time can do so on a device.
//
// Deadlock: owner A waits for owner B when B holds, upgrades, or stands before a request of A, in conflict with it. A
// wait that would close a cycle of owners is refused; so there never is one, as every other change only takes
// waits away or adds them towards owners that wait for nothing. Owners are the smallest unit: one that holds a
// device shared and asks for it again while an exclusive request waits there would wait for itself, and is refused.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "arbiter/id_table.hpp"
#include "arbiter/pool.hpp"
#include "arbiter/timers.hpp"
#include "arbiter/values.hpp"

namespace holdfast::arbiter {

/// A value: it can be copied, and does the same with the same calls.
///
/// Every call that takes the time first does what was due by then, as advance() does; a time before the latest one
/// counts as the latest one. Decisions are appended to `out` in the order in which they come into force.
///
/// \thread  not thread-safe
/// \cost    O(log n) in those who wait and hold, times the devices of a set, and no allocation once the peak of use was
///          reached; where shared sets wait at the front of a queue for other devices, O(their number) more for each
///          change there. A wait by an owner that holds or waits already, or one that overtakes somebody while
///          such owners are about, costs O(n): it looks for a cycle.
class Arbiter {
 public:
  /// \param tokens  the latest token of each device, from before a restart
  explicit Arbiter(Rules rules = {}, std::span<const Held> tokens = {});

  /// Answered by Granted, Queued or Refused, later by Granted or Withdrawn. A deadline that is past counts as none().
  RequestId request(Time now, const Request& wanted, Decisions& out);

  /// Takes back a request that waits. False when it does not, or is not the owner's: it was answered already.
  bool cancel(Time now, OwnerId owner, RequestId request, Decisions& out);

  /// False when it is not a claim of the owner (any more).
  bool release(Time now, OwnerId owner, ClaimId claim, Decisions& out);

  /// Exclusive to shared, and lets in those that the order or the policy now lets in. A shared claim stays as it is.
  /// False as in release().
  bool downgrade(Time now, OwnerId owner, ClaimId claim, Decisions& out);

  /// Shared to exclusive on all devices of the claim: Upgraded, Queued or Refused, later Upgraded or Withdrawn. The
  /// claim stays shared until it is Upgraded. With an exclusive claim it is Upgraded at once and keeps its tokens.
  RequestId upgrade(Time now, OwnerId owner, ClaimId claim, Patience patience, Decisions& out);

  /// The claim lapses `lease` from now, whatever was said before. False as in release().
  bool renew(Time now, OwnerId owner, ClaimId claim, Duration lease, Decisions& out);

  /// False when there is no such claim.
  bool revoke(Time now, ClaimId claim, Revocation why, Decisions& out);

  /// Ends all claims and requests of the owner, then lets others in.
  void owner_died(Time now, OwnerId owner, Decisions& out);

  /// Ends claims whose time is over and requests whose deadline passed, in the order of their times; of those at one
  /// instant the claims first, so that a waiter may still get what lapses at its deadline.
  void advance(Time now, Decisions& out);

  /// When advance() has something to do; never, when nothing is timed.
  [[nodiscard]] std::optional<Time> next_deadline() const;

  /// Takes over a claim that an earlier arbiter granted, with its tokens, without a decision. To be done before any
  /// request is made: who waits is not asked.
  /// \returns ClaimId::none when it conflicts with one that is held, or names no device
  ClaimId adopt(const Adoption& claim);

  /// The claims of a device, in the order of their grants.
  [[nodiscard]] std::vector<Holding> holders(DeviceKey device) const;
  /// Those who wait for a device, in the order of requests; with phase_fair shared ones may be let in before. Upgrades
  /// come first.
  [[nodiscard]] std::vector<Waiting> queue(DeviceKey device) const;
  /// How many stand before it on the device where most do; nothing when it does not wait.
  /// \cost  O(those behind it on its devices)
  [[nodiscard]] std::optional<std::size_t> ahead_of(RequestId request) const;
  [[nodiscard]] std::optional<Holding> holding(ClaimId claim) const;  ///< with the token of its first device
  [[nodiscard]] std::vector<Held> devices(ClaimId claim) const;       ///< in the order of their keys
  /// The latest token of each device that was ever asked for, to be kept for the next arbiter.
  [[nodiscard]] std::vector<Held> tokens() const;
  [[nodiscard]] std::size_t waiting_count() const { return waiting_; }
  [[nodiscard]] std::size_t claim_count() const { return claims_; }

 private:
  using Key = std::uint64_t;  // the place in the order, unique among waiters of a device
  static constexpr Key kLast = ~Key{0};

  enum class Kind : std::uint8_t { free, waits, holds, upgrades };

  /// A request, which becomes a claim when it is granted; or the upgrade of a claim.
  struct Record {
    Index next = kNone;  // owner's claims or pending; or free
    Index previous = kNone;
    std::uint32_t generation = 1;
    Kind kind = Kind::free;
    Mode mode = Mode::exclusive;
    Priority priority = Priority::normal;
    Index owner = kNone;
    Index first_node = kNone;
    Index partner = kNone;  // holds: the upgrade that it waits for; upgrades: the claim
    Key key = 0;
    std::optional<Duration> lease;
    std::optional<Time> until;
  };
  /// A record's place on one of its devices: in the queue, then among the holders.
  struct Node {
    Index next = kNone;
    Index previous = kNone;
    Index record = kNone;
    Index device = kNone;
    Index sibling = kNone;  // the record's next node
    Key key = 0;            // the record's, at hand for those who look along a queue
    Token token{};
  };
  /// What a queue holds. Those that a phase may let in stand apart from those that it may not.
  enum class Line : std::uint8_t { exclusive, shared, shared_set };
  static constexpr std::size_t kLines = 3;
  using Queues = std::array<List, kPriorityCount>;  // each in the order of keys, because these rise within a class
  struct Device {
    DeviceKey key{};
    Token token{};
    Index upgrade = kNone;
    bool held_exclusively = false;
    List holders;
    std::array<Queues, kLines> queues;
    // The walk's: what of this device it has seen.
    std::uint64_t walk = 0;
    bool holders_seen = false;
    std::array<std::array<Index, kPriorityCount>, kLines> unseen;
  };
  struct Owner {
    Index next = kNone;  // free
    OwnerId id{};
    List claims;
    List pending;
    // The walk's: who led here.
    std::uint64_t walk = 0;
    Index parent = kNone;
    Index via = kNone;
    Stands how = Stands::holds;
    [[nodiscard]] bool is_entangled() const { return pending.count > 1 || (!pending.empty() && !claims.empty()); }
  };
  struct Touched {
    Index device = kNone;
    bool phase_ended = false;
  };

  // Records, owners, devices.
  [[nodiscard]] Index device_at(DeviceKey key);
  [[nodiscard]] Index owner_at(OwnerId id);
  [[nodiscard]] Index new_record(Kind kind, OwnerId owner);
  void free_record(Index at);
  void list_under_owner(Index at);
  void unlist_under_owner(Index at);
  void add_node(Index record, DeviceKey device, Token token);
  [[nodiscard]] std::uint64_t id_of(Index record) const;
  [[nodiscard]] Index find(std::uint64_t id, Kind kind) const;
  [[nodiscard]] Index find_claim(OwnerId owner, ClaimId claim) const;
  template <class Visit>
  void each_node(Index record, Visit&& visit) const;

  // The order.
  [[nodiscard]] Key key_of(Place place, Priority priority, Mode mode) const;
  [[nodiscard]] Line line_of(const Record& record) const;
  [[nodiscard]] List& queue_of(Index node);
  [[nodiscard]] Key first_key(const Device& device, Line line) const;
  [[nodiscard]] bool is_blocked(const Device& device, const Record& record) const;
  [[nodiscard]] bool is_grantable(Index at) const;
  [[nodiscard]] bool overtakes(Index at) const;
  void enqueue(Index at);
  void dequeue(Index at);

  // Decisions.
  void grant(Index at, Decisions& out);
  void hold(Index at);
  void refuse(Index at, Reason reason, Decisions& out);
  void withdraw(Index at, Withdrawal why, Decisions& out);
  void end_claim(Index at, End why, Revocation revocation, Decisions& out);
  void grant_upgrade(Index upgrade, Decisions& out);
  [[nodiscard]] bool can_upgrade(Index claim) const;
  void let_in(Index record, Decisions& out);
  [[nodiscard]] bool may_wait(Index at, Patience patience, Decisions& out);
  void take_out(Index at);
  void touch(Index record, bool phase_ended);
  void settle(Decisions& out);
  void let_in_shared(Index at_device, Decisions& out);
  void settle_device(Index at_device, Decisions& out);
  void set_timer(Index record, Time time);
  void begin(Time now, Decisions& out);
  [[nodiscard]] Range list_devices(Index record, Decisions& out) const;
  [[nodiscard]] Range list_blockers(Index at_record, Decisions& out) const;
  [[nodiscard]] Time after(Duration duration) const;

  // deadlock.cpp
  [[nodiscard]] bool is_in_its_own_way(Index at, Decisions& out, Range& cycle) const;
  [[nodiscard]] bool closes_cycle(Index record, Decisions& out, Range& cycle);
  [[nodiscard]] bool walk_from(Index at);
  [[nodiscard]] bool reach(Index at, Index from, Index device, Stands how);
  void list_cycle(Decisions& out, Range& cycle) const;

  Rules rules_;
  Time now_ = Time::min();
  std::uint64_t next_place_;
  std::uint64_t next_rank_ = 0;
  std::size_t waiting_ = 0;
  std::size_t claims_ = 0;
  std::size_t entangled_ = 0;  // owners without which no cycle can be
  Pool<Record> records_;
  Pool<Node> nodes_;
  Pool<Owner> owners_;
  std::vector<Device> devices_;
  IdTable<OwnerId> owner_table_;
  IdTable<DeviceKey> device_table_;
  Timers timers_;
  // Scratch, kept for its memory.
  std::vector<DeviceKey> wanted_;
  std::vector<Touched> touched_;
  std::uint64_t walk_ = 0;
  std::vector<Index> reached_;  // owners, the one that is about to wait first
};

}  // namespace holdfast::arbiter
