// SPDX-License-Identifier: MIT
// arbiter_world.hpp - the arbiter's rule once more, written so that it is plainly right and nothing else: no queues, no
// cursors, every question answered by looking at everybody. And what must hold of every state and every step,
// whoever made it.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace world {

constexpr int kMostOwners = 6;
constexpr int kDevices = 3;
constexpr int kTopClass = 4;

enum class Policy : std::uint8_t { phase_fair, writer_first, fifo };
struct Rules {
  Policy policy = Policy::phase_fair;
  int overtake = 1;
  int owners = 3;
};

enum class What : std::uint8_t {
  granted,
  queued,
  busy,
  deadlock,
  already_upgrading,
  upgraded,
  downgraded,
  released,
  lapsed,
  died,
  cancelled,
  timed_out,
  withdrawn_by_death,
  withdrawn_with_claim,
};
inline const char* name(What what) {
  constexpr const char* kNames[] = {
      "granted",  "queued", "busy", "deadlock",  "already upgrading", "upgraded",           "downgraded",
      "released", "lapsed", "died", "cancelled", "timed out",         "withdrawn by death", "withdrawn with its claim"};
  return kNames[static_cast<int>(what)];
}

struct Event {
  What what = What::granted;
  std::int16_t number = 0;
  auto operator<=>(const Event&) const = default;
};
using Events = std::vector<Event>;

struct Wish {
  std::int8_t owner = 0;
  std::uint8_t set = 1;
  bool exclusive = true;
  bool waits = true;
  std::int8_t priority = 2;
  int deadline = 0;  // from now; 0: none
  int lease = 0;     // 0: none
};

struct Claim {
  std::int16_t number = 0;
  std::int8_t owner = 0;
  std::uint8_t set = 0;
  bool exclusive = false;
  int until = 0;
};
struct Waiter {
  std::int16_t number = 0;
  std::int8_t owner = 0;
  std::uint8_t set = 0;
  bool exclusive = false;
  std::int8_t priority = 0;
  std::int16_t upgrade_of = -1;
  int place = 0;
  int until = 0;
  int lease = 0;
  // What the checks count.
  bool was_alone = true;       // its owner waited for nothing else all the while
  std::uint8_t phases = 0;     // exclusive claims of its device that began meanwhile
  std::uint8_t overtaken = 0;  // by later ones in its way, but for those that a shared phase let in
};

struct World {
  std::vector<Claim> claims;
  std::vector<Waiter> waiters;
  std::array<int, kDevices> tokens{};
  int next_place = 1;
  int next_number = 0;
  int upgrades = 0;
  int downgrades = 0;
  int now = 0;

  const Claim* claim(int number) const {
    for (const Claim& each : claims)
      if (each.number == number) return &each;
    return nullptr;
  }
  Claim* claim(int number) { return const_cast<Claim*>(std::as_const(*this).claim(number)); }
  const Waiter* waiter(int number) const {
    for (const Waiter& each : waiters)
      if (each.number == number) return &each;
    return nullptr;
  }
};

/// The rule.
class Reference {
 public:
  Reference(Rules rules, World& world) : rules_{rules}, world_{world} {}

  Events ask(const Wish& wish) {
    Waiter waiter = waiter_of(wish, world_);
    const int number = waiter.number;
    world_.waiters.push_back(waiter);
    ++world_.next_number;
    bool overtakes = false;
    for (const Waiter& each : world_.waiters)
      overtakes = overtakes || (each.upgrade_of < 0 && (each.set & wish.set) != 0 && before(waiter, each));
    if (may_go(waiter)) {
      if (cycle()) return drop(What::deadlock, number);
      if (overtakes) ++world_.next_place;
      go(number);
    } else if (!wish.waits) {
      bool own = false;
      for (const Claim& each : world_.claims) own = own || (each.owner == wish.owner && in_the_way(each, waiter));
      return drop(own ? What::deadlock : What::busy, number);
    } else if (cycle()) {
      return drop(What::deadlock, number);
    } else {
      ++world_.next_place;
      tell(What::queued, number);
    }
    return events_;
  }
  Events upgrade(int claim_number, bool waits) {
    const Claim claim = *world_.claim(claim_number);
    Waiter waiter;
    waiter.number = static_cast<std::int16_t>(world_.next_number++);
    waiter.owner = claim.owner;
    waiter.set = claim.set;
    waiter.exclusive = true;
    waiter.upgrade_of = claim.number;
    ++world_.upgrades;
    bool another = false;
    for (const Waiter& each : world_.waiters)
      another = another || (each.upgrade_of >= 0 && (each.set & claim.set) != 0);
    world_.waiters.push_back(waiter);
    if (another) return drop(What::already_upgrading, waiter.number);
    if (may_go(waiter)) {
      if (cycle()) return drop(What::deadlock, waiter.number);
      go(waiter.number);
    } else if (!waits) {
      bool own = false;
      for (const Claim& each : world_.claims) own = own || (each.owner == claim.owner && in_the_way(each, waiter));
      return drop(own ? What::deadlock : What::busy, waiter.number);
    } else if (cycle()) {
      return drop(What::deadlock, waiter.number);
    } else {
      tell(What::queued, waiter.number);
    }
    return events_;
  }
  Events release(int number) {
    end(number, What::released);
    settle();
    return events_;
  }
  Events downgrade(int number) {
    Claim& claim = *world_.claim(number);
    claim.exclusive = false;
    ended_ |= claim.set;
    ++world_.downgrades;
    tell(What::downgraded, number);
    settle();
    return events_;
  }
  Events cancel(int number) {
    drop(What::cancelled, number);
    settle();
    return events_;
  }
  Events die(int owner) {
    for (const Waiter& each : std::vector(world_.waiters))
      if (each.owner == owner) drop(What::withdrawn_by_death, each.number);
    for (const Claim& each : std::vector(world_.claims))
      if (each.owner == owner) end(each.number, What::died);
    settle();
    return events_;
  }
  Events tick(int now) {
    world_.now = now;
    for (const Claim& each : std::vector(world_.claims))
      if (each.until != 0 && each.until <= now) end(each.number, What::lapsed);
    settle();
    for (const Waiter& each : std::vector(world_.waiters))
      if (each.until != 0 && each.until <= now) drop(What::timed_out, each.number);
    settle();
    return events_;
  }

  static Waiter waiter_of(const Wish& wish, const World& world) {
    Waiter waiter;
    waiter.number = static_cast<std::int16_t>(world.next_number);
    waiter.owner = wish.owner;
    waiter.set = wish.set;
    waiter.exclusive = wish.exclusive;
    waiter.priority = wish.priority;
    waiter.place = world.next_place;
    waiter.until = wish.deadline == 0 ? 0 : world.now + wish.deadline;
    waiter.lease = wish.lease;
    return waiter;
  }

  /// Whether `a` stands before `b`; neither is an upgrade.
  bool before(const Waiter& a, const Waiter& b) const {
    if (rules_.policy == Policy::writer_first && a.exclusive != b.exclusive) return a.exclusive;
    const int at_a = a.place + (kTopClass - a.priority) * rules_.overtake;
    const int at_b = b.place + (kTopClass - b.priority) * rules_.overtake;
    return at_a != at_b ? at_a < at_b : a.priority > b.priority;
  }
  static bool in_the_way(const Claim& claim, const Waiter& waiter) {
    return (claim.set & waiter.set) != 0 && (claim.exclusive || waiter.exclusive) && claim.number != waiter.upgrade_of;
  }
  bool in_the_way(const Waiter& other, const Waiter& waiter) const {
    if (other.number == waiter.number || (other.set & waiter.set) == 0 || waiter.upgrade_of >= 0) return false;
    return other.upgrade_of >= 0 || ((other.exclusive || waiter.exclusive) && before(other, waiter));
  }
  bool may_go(const Waiter& waiter) const {
    for (const Claim& each : world_.claims)
      if (in_the_way(each, waiter)) return false;
    for (const Waiter& each : world_.waiters)
      if (in_the_way(each, waiter)) return false;
    return true;
  }
  /// Whether owners wait for each other in a circle.
  bool cycle() const {
    bool waits_for[kMostOwners][kMostOwners] = {};
    for (const Waiter& waiter : world_.waiters) {
      for (const Claim& each : world_.claims)
        if (in_the_way(each, waiter)) waits_for[waiter.owner][each.owner] = true;
      for (const Waiter& each : world_.waiters)
        if (in_the_way(each, waiter)) waits_for[waiter.owner][each.owner] = true;
    }
    for (int via = 0; via < rules_.owners; ++via)
      for (int a = 0; a < rules_.owners; ++a)
        for (int b = 0; b < rules_.owners; ++b) waits_for[a][b] |= waits_for[a][via] && waits_for[via][b];
    for (int a = 0; a < rules_.owners; ++a)
      if (waits_for[a][a]) return true;
    return false;
  }

 private:
  void tell(What what, int number) { events_.push_back({what, static_cast<std::int16_t>(number)}); }
  Events drop(What what, int number) {
    std::erase_if(world_.waiters, [&](const Waiter& each) { return each.number == number; });
    tell(what, number);
    return events_;
  }
  void end(int number, What why) {
    for (const Waiter& each : std::vector(world_.waiters))
      if (each.upgrade_of == number) drop(What::withdrawn_with_claim, each.number);
    if (world_.claim(number)->exclusive) ended_ |= world_.claim(number)->set;
    std::erase_if(world_.claims, [&](const Claim& each) { return each.number == number; });
    tell(why, number);
  }
  void go(int number) {
    const Waiter waiter = *world_.waiter(number);
    std::erase_if(world_.waiters, [&](const Waiter& each) { return each.number == number; });
    if (waiter.upgrade_of >= 0) {
      world_.claim(waiter.upgrade_of)->exclusive = true;
      tell(What::upgraded, waiter.upgrade_of);
    } else {
      world_.claims.push_back({waiter.number, waiter.owner, waiter.set, waiter.exclusive,
                               waiter.lease == 0 ? 0 : world_.now + waiter.lease});
      tell(What::granted, number);
    }
    for (int device = 0; device < kDevices; ++device)
      if (waiter.exclusive && (waiter.set >> device & 1) != 0) ++world_.tokens[static_cast<std::size_t>(device)];
  }
  void settle() {
    for (int device = 0; device < kDevices; ++device)
      if (rules_.policy == Policy::phase_fair && (ended_ >> device & 1) != 0) let_in_shared(1 << device);
    ended_ = 0;
    for (bool again = true; again;) {
      again = false;
      for (const Waiter& each : std::vector(world_.waiters))
        if (may_go(each)) {
          go(each.number);
          again = true;
        }
    }
  }
  void let_in_shared(int set) {
    for (const Waiter& each : std::vector(world_.waiters)) {
      bool blocked = false;
      for (const Claim& claim : world_.claims) blocked = blocked || in_the_way(claim, each);
      int requests = 0;
      for (const Waiter& other : world_.waiters) {
        requests += other.owner == each.owner;
        blocked = blocked || (other.upgrade_of >= 0 && (other.set & set) != 0);
      }
      if (each.set == set && !each.exclusive && requests == 1 && !blocked) go(each.number);
    }
  }

  Rules rules_;
  World& world_;
  Events events_;
  int ended_ = 0;  // devices of which an exclusive claim ended
};

}  // namespace world
