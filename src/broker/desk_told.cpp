// SPDX-License-Identifier: MIT
// desk_told.cpp - what the desk says: who holds, who stands where, what happened, and why not.
#include "broker/desk.hpp"

#include "base/error.hpp"
#include "convention/convention.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <utility>

namespace holdfast::broker {

using base::failure;

namespace {

constexpr std::size_t kWaitersShown = 16;  // of a device in one status answer
constexpr std::size_t kHoldersShown = 32;
constexpr std::size_t kPage = 16 * 1024;        // bytes, about, of one answer: a packet has 64 KiB
constexpr std::size_t kPagesAhead = 64 * 1024;  // bytes that wait to be read before the next page is made

std::size_t size_of(const Holder& holder) {
  return 64 + holder.command.size() + holder.user.size() + holder.purpose.size();
}

std::size_t size_of(const wire::DeviceStatus& status) {
  std::size_t size = 64 + status.device.path.size();
  for (const Holder& holder : status.holders) size += size_of(holder);
  for (const wire::Waiter& waiter : status.waiters) size += size_of(waiter.who);
  return size;
}

}  // namespace

Holder Desk::holder_of(const Ticket& ticket) const {
  const Peer& who = *owners_.at(ticket.owner).who;
  Holder holder;
  holder.pid = who.process.pid;
  holder.start_ticks = who.process.start_ticks;
  holder.command = who.command;
  holder.user = who.user;
  holder.since = ticket.was_held ? ticket.since : ticket.asked_at;
  holder.purpose = ticket.taking->options.purpose;
  holder.means.emplace_back(convention::entry(Convention::proxy).means);
  return holder;
}

wire::Token Desk::told(arbiter::Token token) const {
  return wire::Token{rules_.token_base + static_cast<std::uint64_t>(token)};
}

std::string Desk::name_of(arbiter::OwnerId owner) const {
  const auto found = owners_.find(owner);
  if (found == owners_.end()) return "a process";
  return fmt::format("{}[{}]", base::printable(found->second.who->command), found->second.who->process.pid);
}

const std::string& Desk::path_of(arbiter::DeviceKey key) const {
  static const std::string kUnknown = "a device";
  const auto found = books_.find(key);
  return found == books_.end() ? kUnknown : found->second.name.path;
}

// --- Why not
// ----------------------------------------------------------------------------------------------------------

Error Desk::refusal_by(arbiter::DeviceKey device, const Ticket* other, arbiter::Stands how) const {
  const std::string& path = path_of(device);
  Error error = failure(errc::refused, fmt::format("{} is held by somebody else", path), path);
  if (other == nullptr) return error;
  error.holder = holder_of(*other);
  switch (how) {
    case arbiter::Stands::holds:
      error.message = other->is_elected() ? fmt::format("{} is being given to {}", path, to_string(*error.holder))
                                          : fmt::format("{} is held by {}", path, to_string(*error.holder));
      break;
    case arbiter::Stands::waits_ahead:
      error.message = fmt::format("{} is awaited by {}, who asked before", path, to_string(*error.holder));
      break;
    case arbiter::Stands::upgrades:
      error.message = fmt::format("{} is held by {}, who waits to have it alone", path, to_string(*error.holder));
      break;
  }
  return error;
}

// A holder rather than somebody who waits, if there is one.
Error Desk::busy(const arbiter::Refused& refused) const {
  if (refused.reason == arbiter::Reason::not_held) return failure(errc::not_held, "the claim is not held", {});
  const auto blockers = decisions_.blockers(refused);
  if (blockers.empty()) return failure(errc::refused, "somebody else holds it", {});
  const auto holds =
      std::ranges::find(blockers, arbiter::Stands::holds, [](const arbiter::Blocker& blocker) { return blocker.how; });
  const arbiter::Blocker& first = holds == blockers.end() ? blockers.front() : *holds;
  Error error = refusal_by(first.device, ticket_of(first.owner, first.device, first.how), first.how);
  if (refused.reason == arbiter::Reason::already_upgrading) error.message += "; one at a time can";
  return error;
}

// The one of the owner's tickets that is in the way there.
const Ticket* Desk::ticket_of(arbiter::OwnerId id, arbiter::DeviceKey device, arbiter::Stands how) const {
  const auto owner = owners_.find(id);
  if (owner == owners_.end()) return nullptr;
  const Ticket* found = nullptr;
  for (const wire::ClaimId claim : owner->second.tickets) {
    const auto ticket = tickets_.find(claim);
    if (ticket == tickets_.end()) continue;
    const bool is_there = std::ranges::find(ticket->second->nodes, device, &Node::key) != ticket->second->nodes.end();
    if (!is_there) continue;
    const bool fits = (ticket->second->stage == Stage::queued) == (how == arbiter::Stands::waits_ahead);
    if (fits || found == nullptr) found = ticket->second.get();
    if (fits) break;
  }
  return found;
}

// Of one that waits, when its time is over: the stranger, or who holds one of its devices.
Error Desk::held_up_by_others(const Ticket& ticket, errc code) const {
  Error error = failure(code, fmt::format("{} is held by somebody else", path_of(ticket.nodes.front().key)),
                        path_of(ticket.nodes.front().key));
  if (ticket.in_the_way) {
    error = *ticket.in_the_way;
  } else {
    for (const Node& node : ticket.nodes)
      for (const arbiter::Holding& holding : arbiter_.holders(node.key))
        if (holding.owner != ticket.owner) {
          error =
              refusal_by(node.key, ticket_of(holding.owner, node.key, arbiter::Stands::holds), arbiter::Stands::holds);
          break;
        }
  }
  error.code = code;
  if (code == errc::timed_out) error.message += "; the time to wait is over";
  return error;
}

Error Desk::circle(const arbiter::Refused& refused) const {
  std::string text = "waiting would never end: ";
  const auto cycle = decisions_.cycle(refused);
  for (std::size_t i = 0; i < cycle.size(); ++i) {
    const std::string next = name_of(cycle[(i + 1) % cycle.size()].owner);
    text += fmt::format("{}{} waits for {}, which {} {}", i == 0 ? "" : ", ", name_of(cycle[i].owner),
                        path_of(cycle[i].device), next,
                        cycle[i].how == arbiter::Stands::holds ? "holds" : "comes before it for");
  }
  if (cycle.empty()) return failure(errc::deadlock, text, {});
  Error error = failure(errc::deadlock, text, path_of(cycle[0].device));
  if (const Ticket* next = ticket_of(cycle[1 % cycle.size()].owner, cycle[0].device, cycle[0].how); next != nullptr)
    error.holder = holder_of(*next);
  return error;
}

// --- The queue
// --------------------------------------------------------------------------------------------------------

std::optional<arbiter::Duration> Desk::estimate(const Ticket& ticket, std::size_t ahead) const {
  std::optional<arbiter::Duration> longest;
  for (const Node& node : ticket.nodes)
    if (const auto& usual = books_.at(node.key).usual_hold; usual)
      longest = std::max(longest.value_or(arbiter::Duration::zero()), *usual);
  if (!longest) return std::nullopt;
  constexpr std::size_t kNoEnd = 1'000'000;
  return *longest / 2 + *longest * static_cast<std::int64_t>(std::min(ahead, kNoEnd));
}

void Desk::tell_queued(Ticket& ticket, std::size_t ahead) {
  ticket.told_ahead = static_cast<std::uint32_t>(ahead);
  send(ticket.connection, ticket.number, wire::Queued{ticket.place, *ticket.told_ahead, estimate(ticket, ahead)});
}

// One walk along each queue that moved, however many are told: asking each for its place would be a walk each.
void Desk::tell_progress() {
  progress_at_.reset();
  std::unordered_map<Ticket*, std::size_t> ahead;
  for (auto& [key, book] : books_) {
    if (!std::exchange(book.moved, false)) continue;
    std::size_t place = 0;
    for (const arbiter::Waiting& waiting : arbiter_.queue(key)) {
      Ticket* ticket = find_arbiter(static_cast<std::uint64_t>(waiting.request));
      if (ticket != nullptr && ticket->progress == wire::Progress::told && ticket->stage == Stage::queued) {
        std::size_t& most = ahead[ticket];
        most = std::max(most, place);
      }
      ++place;
    }
  }
  for (const auto& [ticket, place] : ahead)
    if (ticket->told_ahead != static_cast<std::uint32_t>(place)) tell_queued(*ticket, place);
}

// --- What happened
// ----------------------------------------------------------------------------------------------------

void Desk::tell(wire::EventKind kind, const Ticket& ticket, const std::string& detail) {
  wire::Event event;
  event.kind = kind;
  event.at = world_.clock.wall();
  event.mode = ticket.mode;
  event.who = holder_of(ticket);
  event.detail = base::printable(detail, wire::kMostText);
  const arbiter::Time now = world_.clock.now();
  event.waited = (ticket.was_held ? ticket.granted : now) - ticket.asked;
  const bool has_held = ticket.was_held && kind != wire::EventKind::claimed;
  event.held = has_held ? now - ticket.granted : wire::Duration::zero();
  for (const Node& node : ticket.nodes) {
    if (!node.named) continue;
    event.device = books_.at(node.key).name;
    world_.events.happened(event);
  }
}

ClaimRecord Desk::record_of(const Ticket& ticket) const {
  ClaimRecord record;
  record.id = ticket.id;
  record.owner = ticket.taking->owner;
  record.uid = owners_.at(ticket.owner).who->rights.uid;
  record.scope = ticket.taking->options.owner_scope;
  record.given = ticket.given;
  record.asked = {ticket.taking->speaker->process, ticket.taking->options.conventions, ticket.taking->options.opening};
  record.mode = ticket.mode;
  record.until = ticket.until;
  record.since = ticket.since;
  record.purpose = ticket.taking->options.purpose;
  record.enforced = ticket.enforced;
  for (std::size_t i = 0; i < ticket.nodes.size(); ++i)
    record.devices.push_back({ticket.nodes[i].id, ticket.nodes[i].path,
                              i < ticket.tokens.size() ? ticket.tokens[i] : arbiter::Token{}, ticket.nodes[i].named});
  for (const auto& mark : ticket.holding.marks()) {
    if (mark->convention() != Convention::uucp) continue;
    convention::MarkView view = mark->view();
    std::ranges::move(view.files, std::back_inserter(record.lock_files));
  }
  return record;
}

// --- Status
// -----------------------------------------------------------------------------------------------------------

std::optional<wire::DeviceStatus> Desk::status_of(arbiter::DeviceKey key) const {
  const auto book = books_.find(key);
  if (book == books_.end() || book->second.tickets == 0) return std::nullopt;
  wire::DeviceStatus status;
  status.device = book->second.name;
  const auto waits = [&](const Ticket& ticket) {
    ++status.waiting;
    if (status.waiters.size() < kWaitersShown)
      status.waiters.push_back({holder_of(ticket), ticket.mode, ticket.priority});
  };
  for (const arbiter::Holding& holding : arbiter_.holders(key)) {
    const auto ticket = by_arbiter_.find(static_cast<std::uint64_t>(holding.claim));
    if (ticket == by_arbiter_.end()) continue;
    if (!ticket->second->is_held()) {
      waits(*ticket->second);
      continue;
    }
    const Enforcement level = level_of(*ticket->second);
    status.enforcement = status.holders.empty() ? level : std::min(status.enforcement, level);
    status.mode = ticket->second->mode;
    status.token = told(holding.token);
    if (ticket->second->until) status.lapses_in = *ticket->second->until - world_.clock.now();
    if (status.holders.size() < kHoldersShown) status.holders.push_back(holder_of(*ticket->second));
  }
  for (const arbiter::Waiting& waiting : arbiter_.queue(key))
    if (const auto ticket = by_arbiter_.find(static_cast<std::uint64_t>(waiting.request));
        ticket != by_arbiter_.end() && ticket->second->stage == Stage::queued)
      waits(*ticket->second);
  status.denials = world_.enforcer.denials(id_of(status.device));
  return status;
}

// As much as fits ahead of the reader; drained() goes on.
void Desk::send_pages(ConnectionId connection) {
  Connection& asking = connections_.at(connection);
  while (asking.paging && world_.post.queued_bytes(connection) < kPagesAhead) {
    wire::StatusAnswer answer;
    std::size_t size = 0;
    while (!asking.paging->left.empty() && size < kPage) {
      const arbiter::DeviceKey key = asking.paging->left.back();
      asking.paging->left.pop_back();
      auto status = status_of(key);
      if (!status) continue;
      size += size_of(*status);
      answer.devices.push_back(std::move(*status));
    }
    const std::uint32_t number = asking.paging->number;
    answer.more = asking.paging->left.empty() ? wire::More::last : wire::More::follows;
    if (answer.more == wire::More::last) asking.paging.reset();
    if (!send(connection, number, answer)) asking.paging.reset();
  }
}

void Desk::drained(ConnectionId connection) {
  if (connections_.contains(connection)) send_pages(connection);
}

}  // namespace holdfast::broker
