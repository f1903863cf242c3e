// SPDX-License-Identifier: MIT
// desk_restart.cpp - claims from before the broker was started anew: they are the clients' all the time, whose copies
// of the descriptors keep others out. The journal says whose they are; the descriptors come from the store at once, or
// with the client when it speaks next.
#include "broker/desk.hpp"

#include "base/error.hpp"
#include "broker/survivors.hpp"
#include "claim/parcel.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace holdfast::broker {

using base::failure;

bool Desk::adopt(const ClaimRecord& claim, Process owner, claiming::Holding holding, Marks marks) {
  look_at_guard();
  std::vector<wire::DeviceName> names;
  std::vector<Node> nodes;
  std::vector<arbiter::Held> held;
  for (const ClaimRecord::Device& device : claim.devices) {
    nodes.push_back({key_of(device.id), device.id, device.path, device.named});
    held.push_back({nodes.back().key, device.token});
    if (device.named)
      names.push_back({device.path,
                       device.id.kind == device::Kind::block ? wire::NodeKind::block : wire::NodeKind::character,
                       device.id.major, device.id.minor, device.id.devpts});
  }
  auto devices = find_devices(names);
  if (!devices || devices->empty()) return false;
  const arbiter::OwnerId id = owner_for(std::move(owner));
  const arbiter::ClaimId adopted = arbiter_.adopt({id, held, claim.mode, claim.until});
  if (adopted == arbiter::ClaimId::none) {
    forget_if_unused(id);
    return false;
  }
  auto made = std::make_unique<Ticket>();
  Ticket& ticket = *made;
  ticket.id = claim.id;
  ticket.arbiter_id = static_cast<std::uint64_t>(adopted);
  ticket.stage = Stage::held;
  ticket.asker = ticket.owner = id;
  ticket.given = claim.given;
  auto taking = std::make_shared<Taking>();
  taking->options.mode = claim.mode;
  taking->options.owner_scope = claim.scope;
  taking->options.cover = cover_of(*devices, claim);
  taking->options.purpose = claim.purpose;
  taking->devices = std::move(*devices);
  taking->owner = claim.owner;
  auto speaker = std::make_shared<Peer>(*owners_.at(id).who);
  if (claim.given == wire::OwnerGiven::by_pidfd) {
    speaker->process = claim.asked.by;
    taking->options.conventions = claim.asked.conventions;
    taking->options.opening = claim.asked.opening;
  }
  taking->speaker = std::move(speaker);
  ticket.taking = std::move(taking);
  ticket.nodes = std::move(nodes);
  for (const arbiter::Held& one : held) ticket.tokens.push_back(one.token);
  ticket.mode = claim.mode;
  ticket.until = claim.until;
  // By the wall clock, all that the journal has; it may have been set since. The journal is of this boot.
  const arbiter::Time now = world_.clock.now();
  const arbiter::Duration by_the_wall = world_.clock.wall() - claim.since;
  const arbiter::Duration held_for = std::clamp(by_the_wall, arbiter::Duration::zero(), now.time_since_epoch());
  ticket.asked = ticket.granted = now - held_for;
  ticket.asked_at = ticket.since = claim.since;
  ticket.was_held = true;
  ticket.to_be_resumed = marks == Marks::to_be_resumed;
  ticket.holding = std::move(holding);
  ticket.enforced = claim.enforced;
  ticket.enforced_by = guard_;
  ticket.guarding = claim.enforced ? Guarding::automatic : Guarding::off;
  claims_.force(ticket.taking->speaker->rights.uid);
  add_to_books(ticket);
  owners_.at(id).tickets.insert(ticket.id);
  by_arbiter_[ticket.arbiter_id] = &ticket;
  if (ticket.until) warn_before(ticket);
  tickets_.emplace(ticket.id, std::move(made));
  return true;
}

bool Desk::is_to_be_resumed(wire::ClaimId claim) const {
  const auto found = tickets_.find(claim);
  return found != tickets_.end() && found->second->to_be_resumed;
}

bool Desk::awaits_resume(ConnectionId connection, wire::ClaimId claim) {
  const Ticket* ticket = connections_.contains(connection) ? changeable_by(connection, claim) : nullptr;
  return ticket != nullptr && ticket->to_be_resumed && ticket->stage == Stage::held && !ticket->change;
}

void Desk::is_over(wire::ClaimId claim, LockFiles files) {
  Ticket* ticket = find(claim);
  if (ticket == nullptr || !ticket->to_be_resumed || ticket->stage != Stage::held) return;
  if (files == LockFiles::the_owners) ticket->holding.let_go();
  end(*ticket, arbiter::End::released);
  run();
}

void Desk::say(ConnectionId connection, std::uint32_t number, const wire::Resume& wanted,
               std::vector<base::ProcessFd> descriptors) {
  Ticket* ticket = changeable_by(connection, wanted.claim);
  if (ticket == nullptr || ticket->change || ticket->stage != Stage::held)
    return refuse(
        connection, number,
        failure(errc::not_held, fmt::format("claim {} is over", static_cast<std::uint64_t>(wanted.claim)), {}));
  if (const auto before = connections_.find(ticket->connection); before != connections_.end())
    before->second.tickets.erase(ticket->id);
  ticket->connection = connection;
  connections_.at(connection).tickets.insert(ticket->id);
  if (!ticket->to_be_resumed) return answer_granted(*ticket, connection, number);
  ticket->number = number;
  ticket->stage = Stage::changing;
  if (auto result = world_.hands.adopt(ticket->id, *ticket->taking, wanted.marks, std::move(descriptors)))
    adopted(ticket->id, std::move(*result));
}

void Desk::adopted(wire::ClaimId claim, Result<claiming::Holding> result) {
  Ticket* ticket = find(claim);
  if (ticket == nullptr) return;
  if (ticket->stage == Stage::leaving) {
    if (!result || world_.hands.give_back(ticket->id, std::move(*result))) left(*ticket);
    return run();
  }
  ticket->stage = Stage::held;
  if (result) {
    ticket->to_be_resumed = false;
    ticket->holding.let_go();  // the same lock files are in the other
    ticket->holding = std::move(*result);
    world_.memory.granted(record_of(*ticket), ticket->holding);
    answer_granted(*ticket, ticket->connection, ticket->number);
  } else {
    refuse(ticket->connection, ticket->number, result.error());
    // What it does not have it does not hold: somebody else may have taken it meanwhile.
    if (result.error().code == errc::refused) end(*ticket, arbiter::End::released);
  }
  run();
}

}  // namespace holdfast::broker
