// SPDX-License-Identifier: MIT
// deadlock.cpp - whether a wait would close a cycle of owners: a walk over who waits for whom, the nearest first, from
// the one who is about to wait, until it comes back or has seen all. What of a device was seen once is not looked at
// again, so the walk takes one step for each that waits or holds, however many stand in whose way.
#include <algorithm>

#include "arbiter/arbiter.hpp"

namespace holdfast::arbiter {

// One that does not want to wait learns too that no waiting would help.
bool Arbiter::is_in_its_own_way(Index at, Decisions& out, Range& cycle) const {
  const Record& record = records_[at];
  const Index whose = record.kind == Kind::upgrades ? record.partner : at;
  for (Index own = records_[whose].first_node; own != kNone; own = nodes_[own].sibling) {
    const Device& device = devices_[nodes_[own].device];
    if (record.mode == Mode::shared && !device.held_exclusively) continue;
    for (Index node = device.holders.first; node != kNone; node = nodes_[node].next) {
      const Index holder = nodes_[node].record;
      if (holder == whose || records_[holder].owner != record.owner) continue;
      cycle = {static_cast<std::uint32_t>(out.cycles_.size()), 1};
      out.cycles_.push_back({owners_[record.owner].id, device.key, Stands::holds});
      return true;
    }
  }
  return false;
}

bool Arbiter::closes_cycle(Index record, Decisions& out, Range& cycle) {
  ++walk_;
  const Index start = records_[record].owner;
  owners_[start].walk = walk_;
  owners_[start].parent = kNone;
  reached_.assign(1, start);
  for (std::size_t i = 0; i < reached_.size(); ++i)  // NOLINT(modernize-loop-convert): the list grows meanwhile
    for (Index pending = owners_[reached_[i]].pending.first; pending != kNone; pending = records_[pending].next)
      if (walk_from(pending)) {
        list_cycle(out, cycle);
        return true;
      }
  return false;
}

// Reaches all owners that stand in the record's way; true when the first of the walk is among them.
bool Arbiter::walk_from(Index at) {
  const Record& record = records_[at];
  const bool upgrades = record.kind == Kind::upgrades;
  const Index whose = upgrades ? record.partner : at;
  for (Index own = records_[whose].first_node; own != kNone; own = nodes_[own].sibling) {
    const Index at_device = nodes_[own].device;
    Device& device = devices_[at_device];
    const auto holders_in_the_way = [&] {
      for (Index node = device.holders.first; node != kNone; node = nodes_[node].next)
        if (nodes_[node].record != whose &&
            reach(records_[nodes_[node].record].owner, record.owner, at_device, Stands::holds))
          return true;
      return false;
    };
    if (upgrades) {  // sees all holders but itself, so others must look for themselves
      if (holders_in_the_way()) return true;
      continue;
    }
    if (device.walk != walk_) {
      device.walk = walk_;
      device.holders_seen = false;
      for (std::size_t line = 0; line < kLines; ++line)
        for (std::size_t i = 0; i < kPriorityCount; ++i) device.unseen[line][i] = device.queues[line][i].first;
    }
    if (device.upgrade != kNone && reach(records_[device.upgrade].owner, record.owner, at_device, Stands::upgrades))
      return true;
    const bool exclusive = record.mode == Mode::exclusive;
    if (!device.holders_seen && (exclusive || device.held_exclusively)) {
      device.holders_seen = true;
      if (holders_in_the_way()) return true;
    }
    for (const Line line : {Line::exclusive, Line::shared, Line::shared_set}) {
      if (line != Line::exclusive && !exclusive) break;
      for (Index& node : device.unseen[static_cast<std::size_t>(line)])
        for (; node != kNone && nodes_[node].key < record.key; node = nodes_[node].next)
          if (reach(records_[nodes_[node].record].owner, record.owner, at_device, Stands::waits_ahead)) return true;
    }
  }
  return false;
}

bool Arbiter::reach(Index at, Index from, Index device, Stands how) {
  Owner& owner = owners_[at];
  const bool is_start = at == reached_.front();
  if (owner.walk == walk_ && !is_start) return false;
  owner.walk = walk_;
  owner.parent = from;
  owner.via = device;
  owner.how = how;
  if (!is_start) reached_.push_back(at);
  return is_start;
}

// The start's parent is the one whose wait closes the cycle.
void Arbiter::list_cycle(Decisions& out, Range& cycle) const {
  const Index start = reached_.front();
  cycle.first = static_cast<std::uint32_t>(out.cycles_.size());
  Index at = start;
  do {
    const Owner& owner = owners_[at];
    out.cycles_.push_back({owners_[owner.parent].id, devices_[owner.via].key, owner.how});
    at = owner.parent;
  } while (at != start);
  std::reverse(out.cycles_.begin() + cycle.first, out.cycles_.end());
  cycle.count = static_cast<std::uint32_t>(out.cycles_.size()) - cycle.first;
}

}  // namespace holdfast::arbiter
