// SPDX-License-Identifier: MIT
// arbiter_subject.hpp - the arbiter as the worlds of arbiter_world.hpp see it; on request with a flaw that must be
// caught.
#pragma once

#include <algorithm>
#include <string>
#include <variant>
#include <vector>

#include "arbiter/arbiter.hpp"
#include "arbiter_world.hpp"

namespace world {

namespace arbiter = holdfast::arbiter;
using holdfast::Mode;

enum class Flaw : std::uint8_t {
  none,
  two_may_write,  // asks for shared where exclusive was meant
  blind,          // takes each request for another owner's
  shared_barge,   // lets shared requests pass those who wait
  order_of_fifo,  // has another policy than it says
  deaf,           // says that it cancelled, and does not
  free_passes,    // lets those overtake again and again that are granted at once
};

/// The arbiter, called with the world's numbers.
class Subject {
 public:
  explicit Subject(const Rules& rules, Flaw flaw = Flaw::none)
      : arbiter_{{.policy = static_cast<arbiter::Policy>(flaw == Flaw::order_of_fifo ? Policy::fifo : rules.policy),
                  .overtake = static_cast<std::uint32_t>(rules.overtake)}},
        flaw_{flaw} {}

  void ask(int number, const Wish& wish, int place, int now) {
    std::vector<arbiter::DeviceKey> keys;
    for (int device = 0; device < kDevices; ++device)
      if ((wish.set >> device & 1) != 0) keys.push_back(arbiter::DeviceKey{static_cast<std::uint64_t>(device)});
    arbiter::Request request{.owner = owner(wish.owner, number),
                             .devices = keys,
                             .mode = wish.exclusive && flaw_ != Flaw::two_may_write ? Mode::exclusive : Mode::shared,
                             .patience = arbiter::Patience::none(),
                             .priority = static_cast<arbiter::Priority>(wish.priority)};
    if (wish.waits) request.patience = arbiter::Patience::for_ever();
    if (wish.deadline != 0) request.patience = arbiter::Patience::until(at(now + wish.deadline));
    if (wish.lease != 0) request.lease = arbiter::Duration{wish.lease};
    if (flaw_ == Flaw::shared_barge && !wish.exclusive) request.place = arbiter::Place{0};
    if (flaw_ == Flaw::free_passes) request.place = arbiter::Place{static_cast<std::uint64_t>(place)};
    id(number) = static_cast<std::uint64_t>(arbiter_.request(at(now), request, out_));
  }
  void upgrade(int number, int claim, int of, bool waits, int now) {
    id(number) = static_cast<std::uint64_t>(
        arbiter_.upgrade(at(now), owner(of, claim), arbiter::ClaimId{id(claim)},
                         waits ? arbiter::Patience::for_ever() : arbiter::Patience::none(), out_));
  }
  void release(int number, int of, int now) {
    done_ = arbiter_.release(at(now), owner(of, number), arbiter::ClaimId{id(number)}, out_);
  }
  void downgrade(int number, int of, int now) {
    done_ = arbiter_.downgrade(at(now), owner(of, number), arbiter::ClaimId{id(number)}, out_);
  }
  void cancel(int number, int of, int now) {
    if (flaw_ == Flaw::deaf)
      pretended_.push_back({What::cancelled, static_cast<std::int16_t>(number)});
    else
      done_ = arbiter_.cancel(at(now), owner(of, number), arbiter::RequestId{id(number)}, out_);
  }
  void die(int of, int now) { arbiter_.owner_died(at(now), owner(of, of), out_); }
  void tick(int now) { arbiter_.advance(at(now), out_); }

  Events decided() const {
    Events events = pretended_;
    for (const arbiter::Decision& each : out_.all())
      std::visit([&](const auto& d) { events.push_back(event(d)); }, each);
    return events;
  }
  arbiter::Decisions& decisions() { return out_; }
  const arbiter::Arbiter& arbiter() const { return arbiter_; }
  int number(std::uint64_t id) const {
    // From the end: the latest of those that had this number of the arbiter's.
    for (int n = static_cast<int>(ids_.size()) - 1; n >= 0; --n)
      if (ids_[static_cast<std::size_t>(n)] == id) return n;
    return -1;
  }
  void forget_decisions() {
    out_.clear();
    pretended_.clear();
    done_ = true;
  }
  /// Whether the arbiter knew what it was to release, cancel or downgrade.
  bool done() const { return done_; }
  static arbiter::Time at(int now) { return arbiter::Time{arbiter::Duration{now}}; }

  /// Where what can be looked up in the arbiter is not as in the world; empty when all is.
  std::string differs_from(const World& world, const Rules& rules) const {
    World copy = world;
    const Reference reference{rules, copy};
    for (std::uint64_t device = 0; device < kDevices; ++device) {
      std::vector<int> holders;
      std::vector<int> queue;
      for (const arbiter::Holding& each : arbiter_.holders(arbiter::DeviceKey{device}))
        holders.push_back(number(static_cast<std::uint64_t>(each.claim)));
      for (const arbiter::Waiting& each : arbiter_.queue(arbiter::DeviceKey{device}))
        queue.push_back(number(static_cast<std::uint64_t>(each.request)));
      std::vector<int> expected;
      for (const Claim& each : world.claims)
        if ((each.set >> device & 1) != 0) expected.push_back(each.number);
      std::sort(holders.begin(), holders.end());
      std::sort(expected.begin(), expected.end());
      if (holders != expected) return "holders differ";
      std::vector<Waiter> waiters;
      for (const Waiter& each : world.waiters)
        if ((each.set >> device & 1) != 0) waiters.push_back(each);
      std::sort(waiters.begin(), waiters.end(), [&](const Waiter& a, const Waiter& b) {
        if ((a.upgrade_of >= 0) != (b.upgrade_of >= 0)) return a.upgrade_of >= 0;
        return a.upgrade_of < 0 && reference.before(a, b);
      });
      expected.clear();
      for (const Waiter& each : waiters) {
        if (expected.size() != arbiter_.ahead_of(arbiter::RequestId{ids_[static_cast<std::size_t>(each.number)]}) &&
            (each.set & (each.set - 1)) == 0)
          return "another place in the queue";
        expected.push_back(each.number);
      }
      if (queue != expected) return "queues differ";
    }
    for (const arbiter::Held& each : arbiter_.tokens())
      if (static_cast<int>(each.token) != world.tokens[static_cast<std::size_t>(each.device)]) return "tokens differ";
    return "";
  }

 private:
  std::uint64_t& id(int number) {
    if (static_cast<std::size_t>(number) >= ids_.size()) ids_.resize(static_cast<std::size_t>(number) * 2);
    return ids_[static_cast<std::size_t>(number)];
  }
  arbiter::OwnerId owner(int of, int number) const {
    return arbiter::OwnerId{static_cast<std::uint64_t>(flaw_ == Flaw::blind ? 100 + number : of)};
  }
  template <class Id>
  Event make(What what, Id id) const {
    return {what, static_cast<std::int16_t>(number(static_cast<std::uint64_t>(id)))};
  }
  Event event(const arbiter::Granted& d) const { return make(What::granted, d.claim); }
  Event event(const arbiter::Queued& d) const { return make(What::queued, d.request); }
  Event event(const arbiter::Refused& d) const {
    constexpr What kReasons[] = {What::busy, What::deadlock, What::already_upgrading};
    return make(kReasons[static_cast<int>(d.reason)], d.request);
  }
  Event event(const arbiter::Withdrawn& d) const {
    constexpr What kWhy[] = {What::cancelled, What::timed_out, What::withdrawn_by_death, What::withdrawn_with_claim};
    return make(kWhy[static_cast<int>(d.why)], d.request);
  }
  Event event(const arbiter::Upgraded& d) const { return make(What::upgraded, d.claim); }
  Event event(const arbiter::Downgraded& d) const { return make(What::downgraded, d.claim); }
  Event event(const arbiter::Renewed& d) const { return make(What::busy, d.claim); }
  Event event(const arbiter::Ended& d) const {
    constexpr What kWhy[] = {What::released, What::lapsed, What::released, What::died};
    return make(kWhy[static_cast<int>(d.why)], d.claim);
  }

  arbiter::Arbiter arbiter_;
  arbiter::Decisions out_;
  std::vector<std::uint64_t> ids_ = std::vector<std::uint64_t>(8);
  Events pretended_;
  bool done_ = true;
  Flaw flaw_;
};

}  // namespace world
