// SPDX-License-Identifier: MIT
// desk_people.cpp - who is there: processes, their connections, what they own, and what becomes of it when they go.
#include "broker/desk.hpp"

#include <algorithm>
#include <utility>
#include <vector>

namespace holdfast::broker {

arbiter::OwnerId Desk::owner_for(Process who) {
  const auto [known, is_new] = processes_.try_emplace(who.peer.process, arbiter::OwnerId{next_owner_});
  if (!is_new) return known->second;
  const arbiter::OwnerId id{next_owner_++};
  Owner& owner = owners_[id];
  owner.id = id;
  owner.who = std::make_shared<const Peer>(std::move(who.peer));
  world_.deaths.watch(id, std::move(who.pidfd));
  return id;
}

void Desk::forget_if_unused(arbiter::OwnerId id) {
  const auto found = owners_.find(id);
  if (found == owners_.end() || !found->second.tickets.empty() || !found->second.connections.empty()) return;
  processes_.erase(found->second.who->process);
  owners_.erase(found);
  world_.deaths.forget(id);
}

Ticket* Desk::find(wire::ClaimId claim) {
  const auto found = tickets_.find(claim);
  return found == tickets_.end() ? nullptr : found->second.get();
}

Ticket* Desk::find_arbiter(std::uint64_t id) {
  const auto found = by_arbiter_.find(id);
  return found == by_arbiter_.end() ? nullptr : found->second;
}

void Desk::forget(Ticket& ticket) {
  const auto found = tickets_.find(ticket.id);
  const std::unique_ptr<Ticket> gone = std::move(found->second);  // lives to the end of this function
  tickets_.erase(found);
  cut(*gone);  // what was handed over to one that never came to hold it
  if (gone->arbiter_id != 0) by_arbiter_.erase(gone->arbiter_id);
  if (gone->change) by_arbiter_.erase(static_cast<std::uint64_t>(gone->change->request));
  agenda_.clear(gone->id);
  if (gone->stage == Stage::hooks) world_.hooks.forget(gone->id);
  if (!gone->was_held) world_.strangers.forget(gone->id);
  (gone->was_held ? claims_ : waiters_).remove(gone->taking->speaker->rights.uid);
  for (const Node& node : gone->nodes) {
    Book& book = books_.at(node.key);
    --book.tickets;
    if (gone->progress == wire::Progress::told) --book.told;
  }
  if (const auto asked = connections_.find(gone->connection); asked != connections_.end())
    asked->second.tickets.erase(gone->id);
  owners_.at(gone->owner).tickets.erase(gone->id);
  forget_if_unused(gone->owner);
}

void Desk::closed(ConnectionId connection, Farewell farewell) {
  const auto found = connections_.find(connection);
  if (found == connections_.end()) return;
  const Connection gone = std::move(found->second);
  connections_.erase(found);
  const std::vector<wire::ClaimId> asked(gone.tickets.begin(), gone.tickets.end());
  for (const wire::ClaimId id : asked) {
    Ticket* ticket = find(id);
    if (ticket == nullptr) continue;
    ticket->connection = ConnectionId::none;
    if (ticket->stage == Stage::leaving) continue;
    // A claim for another process stays, unless nobody ever heard that it was granted.
    const bool unheard_of = farewell == Farewell::unread && gone.last_told == id;
    if (ticket->is_held() && !ticket->ends_with_connection() && !unheard_of) {
      world_.memory.is_ours_alone(id);
      continue;
    }
    end(*ticket, arbiter::End::owner_died);
  }
  for (const auto& [id, ticket] : tickets_)
    if (ticket->change && ticket->change->connection == connection) ticket->change->connection = ConnectionId::none;
  owners_.at(gone.speaker).connections.erase(connection);
  forget_if_unused(gone.speaker);
  run();
}

void Desk::owner_died(arbiter::OwnerId id) {
  const auto found = owners_.find(id);
  if (found == owners_.end() || found->second.dead) return;
  Owner& owner = found->second;
  owner.dead = true;
  const std::vector<ConnectionId> connections(owner.connections.begin(), owner.connections.end());
  const std::vector<wire::ClaimId> owned(owner.tickets.begin(), owner.tickets.end());
  for (const wire::ClaimId claim : owned)
    if (Ticket* ticket = find(claim); ticket != nullptr && ticket->stage != Stage::leaving && ticket->ends_with_owner())
      end(*ticket, arbiter::End::owner_died);
  // Children that inherited the socket keep open what the claim of a whole tree hangs on, and nothing else.
  for (const ConnectionId connection : connections) {
    const auto still = connections_.find(connection);
    if (still == connections_.end()) continue;
    const bool tree = std::ranges::any_of(still->second.tickets, [&](wire::ClaimId claim) {
      const Ticket* ticket = find(claim);
      return ticket != nullptr && ticket->is_held() && !ticket->ends_with_owner();
    });
    if (!tree) world_.post.close(connection);
  }
  run();
}

ConnectionId Desk::listener_of(const Ticket& ticket) const {
  if (connections_.contains(ticket.connection)) return ticket.connection;
  const auto owner = owners_.find(ticket.owner);
  return owner == owners_.end() || owner->second.connections.empty() ? ConnectionId::none
                                                                     : *owner->second.connections.begin();
}

void Desk::notify(const Ticket& ticket, wire::Ending why, arbiter::Duration grace, const std::string& by,
                  const std::string& reason) {
  send(listener_of(ticket), 0, wire::RevokeNotice{ticket.id, why, grace, by, reason});
}

}  // namespace holdfast::broker
