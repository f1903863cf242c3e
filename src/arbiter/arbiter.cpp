// SPDX-License-Identifier: MIT
// arbiter.cpp - the rule. What changes, marks the devices that it touches; settle() then lets in whom the order and
// the policy let in there. A grant lets nobody else in, so that one pass is enough.
#include "arbiter/arbiter.hpp"

#include <algorithm>
#include <initializer_list>

namespace holdfast::arbiter {

namespace {

constexpr std::size_t at(Mode mode) { return static_cast<std::size_t>(mode); }
constexpr std::size_t at(Priority priority) { return static_cast<std::size_t>(priority); }

}  // namespace

Arbiter::Arbiter(Rules rules, std::span<const Held> tokens) : rules_{rules}, next_place_{rules.first_place} {
  for (const Held& each : tokens) {
    Token& token = devices_[device_at(each.device)].token;
    token = std::max(token, each.token);
  }
}

// --- What can be asked for ------------------------------------------------------------------------------------------

RequestId Arbiter::request(Time now, const Request& wanted, Decisions& out) {
  begin(now, out);
  const Index record = new_record(Kind::waits, wanted.owner);
  const RequestId id{id_of(record)};
  wanted_.assign(wanted.devices.begin(), wanted.devices.end());
  std::sort(wanted_.begin(), wanted_.end());
  wanted_.erase(std::unique(wanted_.begin(), wanted_.end()), wanted_.end());
  for (auto device = wanted_.rbegin(); device != wanted_.rend(); ++device) add_node(record, *device, {});
  const Place place = wanted.place.value_or(Place{next_place_});
  if (wanted.place) next_place_ = std::max(next_place_, static_cast<std::uint64_t>(place) + 1);
  records_[record].mode = wanted.mode;
  records_[record].priority = wanted.priority;
  records_[record].lease = wanted.lease;
  records_[record].key = key_of(place, wanted.priority, wanted.mode);
  if (wanted_.empty()) {
    refuse(record, Reason::no_device, out);
    return id;
  }
  // A place is used up by those who wait and those who overtake; so no more can overtake than there are places between.
  const bool grantable = is_grantable(record);
  if (grantable && !overtakes(record)) {
    unlist_under_owner(record);
    grant(record, out);
    return id;
  }
  enqueue(record);
  if (!may_wait(record, grantable ? Patience::for_ever() : wanted.patience, out)) return id;
  if (!wanted.place) ++next_place_;
  if (grantable)
    let_in(record, out);
  else
    out.list_.emplace_back(Queued{id, wanted.owner, place});
  return id;
}

bool Arbiter::cancel(Time now, OwnerId owner, RequestId request, Decisions& out) {
  begin(now, out);
  Index record = find(static_cast<std::uint64_t>(request), Kind::waits);
  if (record == kNone) record = find(static_cast<std::uint64_t>(request), Kind::upgrades);
  if (record == kNone || owners_[records_[record].owner].id != owner) return false;
  withdraw(record, Withdrawal::cancelled, out);
  settle(out);
  return true;
}

bool Arbiter::release(Time now, OwnerId owner, ClaimId claim, Decisions& out) {
  begin(now, out);
  const Index record = find_claim(owner, claim);
  if (record == kNone) return false;
  end_claim(record, End::released, Revocation::none, out);
  settle(out);
  return true;
}

bool Arbiter::downgrade(Time now, OwnerId owner, ClaimId claim, Decisions& out) {
  begin(now, out);
  const Index record = find_claim(owner, claim);
  if (record == kNone) return false;
  out.list_.emplace_back(Downgraded{claim, owner});
  if (records_[record].mode == Mode::shared) return true;
  records_[record].mode = Mode::shared;
  each_node(record, [&](const Node& node) { devices_[node.device].held_exclusively = false; });
  touch(record, true);
  settle(out);
  return true;
}

RequestId Arbiter::upgrade(Time now, OwnerId owner, ClaimId claim, Patience patience, Decisions& out) {
  begin(now, out);
  const Index record = find_claim(owner, claim);
  const Index upgrade = new_record(Kind::upgrades, owner);
  const RequestId id{id_of(upgrade)};
  if (record == kNone) {
    refuse(upgrade, Reason::not_held, out);
    return id;
  }
  records_[upgrade].partner = record;
  if (records_[record].mode == Mode::exclusive) {
    out.list_.emplace_back(Upgraded{id, claim, owner, list_devices(record, out)});
    unlist_under_owner(upgrade);
    free_record(upgrade);
    return id;
  }
  bool another = false;
  each_node(record, [&](const Node& node) { another = another || devices_[node.device].upgrade != kNone; });
  if (another) {
    refuse(upgrade, Reason::already_upgrading, out);
    return id;
  }
  records_[record].partner = upgrade;
  each_node(record, [&](const Node& node) { devices_[node.device].upgrade = upgrade; });
  const bool grantable = can_upgrade(record);
  if (!may_wait(upgrade, grantable ? Patience::for_ever() : patience, out)) return id;
  if (grantable)
    grant_upgrade(upgrade, out);
  else
    out.list_.emplace_back(Queued{id, owner, Place{}});
  return id;
}

bool Arbiter::renew(Time now, OwnerId owner, ClaimId claim, Duration lease, Decisions& out) {
  begin(now, out);
  const Index record = find_claim(owner, claim);
  if (record == kNone) return false;
  timers_.remove(record);
  records_[record].until = after(lease);
  set_timer(record, *records_[record].until);
  out.list_.emplace_back(Renewed{claim, owner, records_[record].until});
  return true;
}

bool Arbiter::revoke(Time now, ClaimId claim, Revocation why, Decisions& out) {
  begin(now, out);
  const Index record = find(static_cast<std::uint64_t>(claim), Kind::holds);
  if (record == kNone) return false;
  end_claim(record, End::revoked, why, out);
  settle(out);
  return true;
}

void Arbiter::owner_died(Time now, OwnerId owner, Decisions& out) {
  begin(now, out);
  const Index dead = owner_table_.find(owner);
  if (dead == kNone) return;
  // With its last record it leaves the table, but nobody takes its place here before both lists were seen to be empty.
  while (!owners_[dead].pending.empty()) withdraw(owners_[dead].pending.first, Withdrawal::owner_died, out);
  while (!owners_[dead].claims.empty()) end_claim(owners_[dead].claims.first, End::owner_died, Revocation::none, out);
  settle(out);
}

void Arbiter::advance(Time now, Decisions& out) { begin(now, out); }

std::optional<Time> Arbiter::next_deadline() const {
  return timers_.empty() ? std::nullopt : std::optional{timers_.front().at};
}

ClaimId Arbiter::adopt(const Adoption& claim) {
  for (const Held& each : claim.devices) {
    const Device& device = devices_[device_at(each.device)];
    if (!device.holders.empty() && (claim.mode == Mode::exclusive || device.held_exclusively)) return ClaimId::none;
  }
  if (claim.devices.empty()) return ClaimId::none;
  std::vector<Held> devices(claim.devices.begin(), claim.devices.end());
  std::sort(devices.begin(), devices.end(), [](const Held& a, const Held& b) { return a.device < b.device; });
  devices.erase(
      std::unique(devices.begin(), devices.end(), [](const Held& a, const Held& b) { return a.device == b.device; }),
      devices.end());
  const Index record = new_record(Kind::waits, claim.owner);
  records_[record].mode = claim.mode;
  for (auto each = devices.rbegin(); each != devices.rend(); ++each) add_node(record, each->device, each->token);
  unlist_under_owner(record);
  each_node(record,
            [&](const Node& node) { devices_[node.device].token = std::max(devices_[node.device].token, node.token); });
  hold(record);
  records_[record].until = claim.until;
  if (claim.until) set_timer(record, *claim.until);
  return ClaimId{id_of(record)};
}

// --- What can be looked up ------------------------------------------------------------------------------------------

std::vector<Holding> Arbiter::holders(DeviceKey device) const {
  std::vector<Holding> found;
  const Index index = device_table_.find(device);
  if (index == kNone) return found;
  for (Index node = devices_[index].holders.first; node != kNone; node = nodes_[node].next) {
    const Record& record = records_[nodes_[node].record];
    found.push_back(
        {ClaimId{id_of(nodes_[node].record)}, owners_[record.owner].id, record.mode, nodes_[node].token, record.until});
  }
  return found;
}

std::vector<Waiting> Arbiter::queue(DeviceKey device) const {
  std::vector<Waiting> found;
  const Index index = device_table_.find(device);
  if (index == kNone) return found;
  const auto add = [&](Index at) {
    const Record& record = records_[at];
    found.push_back({RequestId{id_of(at)}, owners_[record.owner].id, record.mode, record.priority});
  };
  if (devices_[index].upgrade != kNone) add(devices_[index].upgrade);
  std::vector<Index> all;
  for (const Queues& queues : devices_[index].queues)
    for (const List& list : queues)
      for (Index node = list.first; node != kNone; node = nodes_[node].next) all.push_back(nodes_[node].record);
  std::sort(all.begin(), all.end(), [&](Index a, Index b) { return records_[a].key < records_[b].key; });
  for (const Index each : all) add(each);
  return found;
}

std::optional<std::size_t> Arbiter::ahead_of(RequestId request) const {
  if (find(static_cast<std::uint64_t>(request), Kind::upgrades) != kNone) return 0;
  const Index record = find(static_cast<std::uint64_t>(request), Kind::waits);
  if (record == kNone) return std::nullopt;
  std::size_t most = 0;
  each_node(record, [&](const Node& own) {
    const Device& device = devices_[own.device];
    std::size_t ahead = device.upgrade == kNone ? 0 : 1;
    for (const Queues& queues : device.queues)
      for (const List& list : queues) {
        ahead += list.count;
        for (Index node = list.last; node != kNone && nodes_[node].key >= records_[record].key;
             node = nodes_[node].previous)
          --ahead;
      }
    most = std::max(most, ahead);
  });
  return most;
}

std::optional<Holding> Arbiter::holding(ClaimId claim) const {
  const Index at = find(static_cast<std::uint64_t>(claim), Kind::holds);
  if (at == kNone) return std::nullopt;
  const Record& record = records_[at];
  return Holding{claim, owners_[record.owner].id, record.mode, nodes_[record.first_node].token, record.until};
}

std::vector<Held> Arbiter::devices(ClaimId claim) const {
  std::vector<Held> found;
  const Index record = find(static_cast<std::uint64_t>(claim), Kind::holds);
  if (record != kNone)
    each_node(record, [&](const Node& node) { found.push_back({devices_[node.device].key, node.token}); });
  return found;
}

std::vector<Held> Arbiter::tokens() const {
  std::vector<Held> found;
  found.reserve(devices_.size());
  for (const Device& device : devices_) found.push_back({device.key, device.token});
  return found;
}

// --- The order ------------------------------------------------------------------------------------------------------

Arbiter::Key Arbiter::key_of(Place place, Priority priority, Mode mode) const {
  const std::uint64_t below_urgent = kPriorityCount - 1 - at(priority);
  // Of two that come to one number the higher class is first. The mode makes places that were handed back wrongly
  // differ.
  const Key key =
      ((static_cast<std::uint64_t>(place) + below_urgent * rules_.overtake) << 4) | (below_urgent << 1) | at(mode);
  constexpr Key kAfterAll = Key{1} << 63;
  return rules_.policy == Policy::writer_first && mode == Mode::shared ? key | kAfterAll : key;
}

Arbiter::Line Arbiter::line_of(const Record& record) const {
  if (record.mode == Mode::exclusive) return Line::exclusive;
  return nodes_[record.first_node].sibling == kNone ? Line::shared : Line::shared_set;
}

List& Arbiter::queue_of(Index node) {
  const Record& record = records_[nodes_[node].record];
  return devices_[nodes_[node].device].queues[static_cast<std::size_t>(line_of(record))][at(record.priority)];
}

Arbiter::Key Arbiter::first_key(const Device& device, Line line) const {
  Key first = kLast;
  for (const List& list : device.queues[static_cast<std::size_t>(line)])
    if (!list.empty()) first = std::min(first, nodes_[list.first].key);
  return first;
}

bool Arbiter::is_blocked(const Device& device, const Record& record) const {
  if (device.upgrade != kNone || device.held_exclusively) return true;
  if (first_key(device, Line::exclusive) < record.key) return true;
  if (record.mode == Mode::shared) return false;
  return !device.holders.empty() || first_key(device, Line::shared) < record.key ||
         first_key(device, Line::shared_set) < record.key;
}

bool Arbiter::is_grantable(Index at) const {
  const Record& record = records_[at];
  for (Index node = record.first_node; node != kNone; node = nodes_[node].sibling)
    if (is_blocked(devices_[nodes_[node].device], record)) return false;
  return true;
}

// Whether somebody who waits comes to stand behind it.
bool Arbiter::overtakes(Index at) const {
  const Record& record = records_[at];
  if (record.kind == Kind::upgrades) return true;
  bool found = false;
  each_node(at, [&](const Node& node) {
    for (const Queues& queues : devices_[node.device].queues)
      for (const List& list : queues) found = found || (!list.empty() && nodes_[list.last].key > record.key);
  });
  return found;
}

void Arbiter::enqueue(Index at) {
  for (Index node = records_[at].first_node; node != kNone; node = nodes_[node].sibling) {
    List& list = queue_of(node);
    nodes_[node].key = records_[at].key;
    // Only one that came back to an old place is not the last of its class.
    Index before = list.last;
    while (before != kNone && nodes_[before].key > records_[at].key) before = nodes_[before].previous;
    list.insert_after(nodes_, before, node);
  }
  ++waiting_;
}

void Arbiter::dequeue(Index at) {
  for (Index node = records_[at].first_node; node != kNone; node = nodes_[node].sibling)
    queue_of(node).unlink(nodes_, node);
  --waiting_;
}

// --- Decisions ------------------------------------------------------------------------------------------------------

void Arbiter::let_in(Index record, Decisions& out) {
  timers_.remove(record);
  dequeue(record);
  unlist_under_owner(record);
  grant(record, out);
}

// Not yet in a queue, or no longer; on no list of its owner.
void Arbiter::grant(Index at, Decisions& out) {
  Record& record = records_[at];
  if (record.mode == Mode::exclusive)
    each_node(at, [&](const Node& node) {
      Token& token = devices_[node.device].token;
      token = Token{static_cast<std::uint64_t>(token) + 1};
    });
  for (Index node = record.first_node; node != kNone; node = nodes_[node].sibling)
    nodes_[node].token = devices_[nodes_[node].device].token;
  hold(at);
  if (record.lease) {
    record.until = after(*record.lease);
    set_timer(at, *record.until);
  }
  const std::uint64_t id = id_of(at);
  out.list_.emplace_back(
      Granted{RequestId{id}, ClaimId{id}, owners_[record.owner].id, record.mode, record.until, list_devices(at, out)});
}

void Arbiter::hold(Index at) {
  Record& record = records_[at];
  record.kind = Kind::holds;
  list_under_owner(at);
  for (Index node = record.first_node; node != kNone; node = nodes_[node].sibling) {
    Device& device = devices_[nodes_[node].device];
    device.holders.push_back(nodes_, node);
    device.held_exclusively = record.mode == Mode::exclusive;
  }
  ++claims_;
}

// Answers a new record that waits nowhere, and ends it.
void Arbiter::refuse(Index at, Reason reason, Decisions& out) {
  const bool in_the_way = reason == Reason::already_upgrading;
  out.list_.emplace_back(Refused{RequestId{id_of(at)}, owners_[records_[at].owner].id, reason,
                                 in_the_way ? list_blockers(at, out) : Range{}, Range{}});
  unlist_under_owner(at);
  free_record(at);
}

// The record is in the queues already, so that its wait can be looked at; it leaves them again when it is refused.
bool Arbiter::may_wait(Index at, Patience patience, Decisions& out) {
  Refused refused{RequestId{id_of(at)}, owners_[records_[at].owner].id, Reason::busy, {}, {}};
  if (!patience.waits() || patience.deadline() <= now_) {
    if (is_in_its_own_way(at, out, refused.cycle)) refused.reason = Reason::deadlock;
  } else {
    const bool may_close = entangled_ > 0 && (owners_[records_[at].owner].is_entangled() || overtakes(at));
    if (!may_close || !closes_cycle(at, out, refused.cycle)) {
      if (patience.deadline() != Time::max()) set_timer(at, patience.deadline());
      return true;
    }
    refused.reason = Reason::deadlock;
  }
  refused.blockers = list_blockers(at, out);
  out.list_.emplace_back(refused);
  take_out(at);
  return false;
}

// A record that waits goes, unanswered.
void Arbiter::take_out(Index at) {
  if (records_[at].kind == Kind::waits) {
    dequeue(at);
  } else {
    const Index claim = records_[at].partner;
    each_node(claim, [&](const Node& node) { devices_[node.device].upgrade = kNone; });
    records_[claim].partner = kNone;
  }
  unlist_under_owner(at);
  free_record(at);
}

void Arbiter::withdraw(Index at, Withdrawal why, Decisions& out) {
  const Record& record = records_[at];
  out.list_.emplace_back(Withdrawn{RequestId{id_of(at)}, owners_[record.owner].id, why});
  timers_.remove(at);
  touch(record.kind == Kind::waits ? at : record.partner, false);
  take_out(at);
}

void Arbiter::end_claim(Index at, End why, Revocation revocation, Decisions& out) {
  if (records_[at].partner != kNone) withdraw(records_[at].partner, Withdrawal::claim_ended, out);
  const Record& record = records_[at];
  out.list_.emplace_back(
      Ended{ClaimId{id_of(at)}, owners_[record.owner].id, record.mode, why, revocation, list_devices(at, out)});
  timers_.remove(at);
  touch(at, record.mode == Mode::exclusive);
  for (Index node = record.first_node; node != kNone; node = nodes_[node].sibling) {
    Device& device = devices_[nodes_[node].device];
    device.holders.unlink(nodes_, node);
    device.held_exclusively = false;
  }
  --claims_;
  unlist_under_owner(at);
  free_record(at);
}

bool Arbiter::can_upgrade(Index claim) const {
  bool alone = true;
  each_node(claim, [&](const Node& node) { alone = alone && devices_[node.device].holders.count == 1; });
  return alone;
}

void Arbiter::grant_upgrade(Index upgrade, Decisions& out) {
  const Index claim = records_[upgrade].partner;
  records_[claim].partner = kNone;
  records_[claim].mode = Mode::exclusive;
  for (Index node = records_[claim].first_node; node != kNone; node = nodes_[node].sibling) {
    Device& device = devices_[nodes_[node].device];
    device.upgrade = kNone;
    device.held_exclusively = true;
    device.token = Token{static_cast<std::uint64_t>(device.token) + 1};
    nodes_[node].token = device.token;
  }
  out.list_.emplace_back(Upgraded{RequestId{id_of(upgrade)}, ClaimId{id_of(claim)}, owners_[records_[claim].owner].id,
                                  list_devices(claim, out)});
  timers_.remove(upgrade);
  unlist_under_owner(upgrade);
  free_record(upgrade);
}

void Arbiter::touch(Index record, bool phase_ended) {
  each_node(record, [&](const Node& node) { touched_.push_back({node.device, phase_ended}); });
}

void Arbiter::settle(Decisions& out) {
  if (rules_.policy == Policy::phase_fair)
    for (const Touched& each : touched_)
      if (each.phase_ended) let_in_shared(each.device, out);
  for (const Touched& each : touched_) settle_device(each.device, out);
  touched_.clear();
}

// The shared phase after an exclusive one.
void Arbiter::let_in_shared(Index at_device, Decisions& out) {
  const Device& device = devices_[at_device];
  if (device.held_exclusively || device.upgrade != kNone) return;
  for (const List& list : device.queues[static_cast<std::size_t>(Line::shared)])
    for (Index node = list.first; node != kNone;) {
      const Index record = nodes_[node].record;
      node = nodes_[node].next;
      if (owners_[records_[record].owner].pending.count == 1) let_in(record, out);
    }
}

void Arbiter::settle_device(Index at_device, Decisions& out) {
  const Device& device = devices_[at_device];
  if (device.held_exclusively) return;
  if (device.upgrade != kNone) {
    if (can_upgrade(records_[device.upgrade].partner)) grant_upgrade(device.upgrade, out);
    return;
  }
  // Those in the lines of `some`, in order, up to `limit`.
  const auto let_in_up_to = [&](Key limit, std::initializer_list<Line> some) {
    std::array<Index, 2 * kPriorityCount> heads;
    std::size_t count = 0;
    for (const Line line : some)
      for (const List& list : device.queues[static_cast<std::size_t>(line)])
        if (!list.empty()) heads[count++] = list.first;
    const auto key = [&](Index node) { return node == kNone ? kLast : nodes_[node].key; };
    while (count > 0) {
      Index& head = *std::min_element(heads.begin(), heads.begin() + static_cast<std::ptrdiff_t>(count),
                                      [&](Index a, Index b) { return key(a) < key(b); });
      if (head == kNone || key(head) > limit) return;
      const Index record = nodes_[head].record;
      head = nodes_[head].next;
      if (is_grantable(record)) let_in(record, out);
    }
  };
  const Key first_exclusive = first_key(device, Line::exclusive);
  let_in_up_to(first_exclusive, {Line::shared, Line::shared_set});
  if (device.holders.empty() && first_exclusive != kLast) let_in_up_to(first_exclusive, {Line::exclusive});
}

// --- Time -----------------------------------------------------------------------------------------------------------

void Arbiter::begin(Time now, Decisions& out) {
  now_ = std::max(now_, now);
  while (!timers_.empty() && timers_.front().at <= now_) {
    const Index record = timers_.front().record;
    if (records_[record].kind == Kind::holds)
      end_claim(record, End::lapsed, Revocation::none, out);
    else
      withdraw(record, Withdrawal::timed_out, out);
    settle(out);
  }
}

void Arbiter::set_timer(Index record, Time time) {
  constexpr std::uint64_t kDeadlinesAfter = std::uint64_t{1} << 63;
  const std::uint64_t rank = next_rank_++ | (records_[record].kind == Kind::holds ? 0 : kDeadlinesAfter);
  timers_.add({time, rank, record});
}

Time Arbiter::after(Duration duration) const { return duration > Time::max() - now_ ? Time::max() : now_ + duration; }

// --- Records --------------------------------------------------------------------------------------------------------

Index Arbiter::device_at(DeviceKey key) {
  Index found = device_table_.find(key);
  if (found != kNone) return found;
  found = static_cast<Index>(devices_.size());
  devices_.emplace_back().key = key;
  device_table_.insert(key, found);
  return found;
}

Index Arbiter::owner_at(OwnerId id) {
  Index found = owner_table_.find(id);
  if (found != kNone) return found;
  found = owners_.take();
  owners_[found] = Owner{};
  owners_[found].id = id;
  owner_table_.insert(id, found);
  return found;
}

Index Arbiter::new_record(Kind kind, OwnerId owner) {
  const Index record = records_.take();
  const std::uint32_t generation = records_[record].generation;
  records_[record] = Record{};
  records_[record].generation = generation;
  records_[record].kind = kind;
  records_[record].owner = owner_at(owner);
  list_under_owner(record);
  return record;
}

void Arbiter::free_record(Index at) {
  Record& record = records_[at];
  for (Index node = record.first_node; node != kNone;) {
    const Index gone = node;
    node = nodes_[node].sibling;
    nodes_.give_back(gone);
  }
  Owner& owner = owners_[record.owner];
  if (owner.claims.empty() && owner.pending.empty()) {
    owner_table_.erase(owner.id);
    owners_.give_back(record.owner);
  }
  record.kind = Kind::free;
  ++record.generation;
  records_.give_back(at);
}

void Arbiter::list_under_owner(Index at) {
  Owner& owner = owners_[records_[at].owner];
  entangled_ -= owner.is_entangled();
  (records_[at].kind == Kind::holds ? owner.claims : owner.pending).push_back(records_, at);
  entangled_ += owner.is_entangled();
}

void Arbiter::unlist_under_owner(Index at) {
  Owner& owner = owners_[records_[at].owner];
  entangled_ -= owner.is_entangled();
  (records_[at].kind == Kind::holds ? owner.claims : owner.pending).unlink(records_, at);
  entangled_ += owner.is_entangled();
}

// In front of its others: they are added from the last to the first.
void Arbiter::add_node(Index record, DeviceKey device, Token token) {
  const Index node = nodes_.take();
  nodes_[node] = Node{kNone, kNone, record, device_at(device), records_[record].first_node, 0, token};
  records_[record].first_node = node;
}

std::uint64_t Arbiter::id_of(Index record) const {
  return static_cast<std::uint64_t>(records_[record].generation) << 32 | record;
}

Index Arbiter::find(std::uint64_t id, Kind kind) const {
  const Index at = static_cast<Index>(id);
  if (at >= records_.size() || records_[at].kind != kind || id_of(at) != id) return kNone;
  return at;
}

Index Arbiter::find_claim(OwnerId owner, ClaimId claim) const {
  const Index at = find(static_cast<std::uint64_t>(claim), Kind::holds);
  return at != kNone && owners_[records_[at].owner].id == owner ? at : kNone;
}

template <class Visit>
void Arbiter::each_node(Index record, Visit&& visit) const {
  for (Index node = records_[record].first_node; node != kNone; node = nodes_[node].sibling) visit(nodes_[node]);
}

Range Arbiter::list_devices(Index record, Decisions& out) const {
  const auto first = static_cast<std::uint32_t>(out.held_.size());
  each_node(record, [&](const Node& node) { out.held_.push_back({devices_[node.device].key, node.token}); });
  return {first, static_cast<std::uint32_t>(out.held_.size()) - first};
}

// Holders first: they can be asked to leave.
Range Arbiter::list_blockers(Index at_record, Decisions& out) const {
  const Record& record = records_[at_record];
  const bool upgrades = record.kind == Kind::upgrades;
  const auto first = static_cast<std::uint32_t>(out.blockers_.size());
  const auto add = [&](const Device& device, Index in_the_way, Stands how) {
    if (out.blockers_.size() - first < kMostBlockers)
      out.blockers_.push_back({device.key, owners_[records_[in_the_way].owner].id, how});
  };
  const Index whose = upgrades ? record.partner : at_record;
  each_node(whose, [&](const Node& own) {
    const Device& device = devices_[own.device];
    if (record.mode == Mode::exclusive || device.held_exclusively)
      for (Index node = device.holders.first; node != kNone && out.blockers_.size() - first < kMostBlockers;
           node = nodes_[node].next)
        if (nodes_[node].record != whose) add(device, nodes_[node].record, Stands::holds);
  });
  each_node(whose, [&](const Node& own) {
    const Device& device = devices_[own.device];
    if (device.upgrade != kNone && device.upgrade != at_record) add(device, device.upgrade, Stands::upgrades);
    if (upgrades) return;
    for (const Line line : {Line::exclusive, Line::shared, Line::shared_set}) {
      if (line != Line::exclusive && record.mode == Mode::shared) break;
      for (const List& list : device.queues[static_cast<std::size_t>(line)])
        if (!list.empty() && nodes_[list.first].key < record.key)
          add(device, nodes_[list.first].record, Stands::waits_ahead);
    }
  });
  return {first, static_cast<std::uint32_t>(out.blockers_.size()) - first};
}

}  // namespace holdfast::arbiter
