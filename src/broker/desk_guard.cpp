// SPDX-License-Identifier: MIT
// desk_guard.cpp - what the kernel is told of a claim: who owns its devices, from before the client hears that it is
// granted until it is over; and what the kernel tells, who was refused.
//
// The guard may come and go while claims live: whoever looks at it next (a grant, a question about the status) has it
// told of all that live.
#include "broker/desk.hpp"

#include "base/error.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <utility>

namespace holdfast::broker {

using namespace std::chrono_literals;
using base::failure;

namespace {

constexpr arbiter::Duration kTellDenialsEvery = 1s;

Error unguarded(std::string_view device, std::string_view why) {
  return failure(errc::system_fault, fmt::format("{} cannot be guarded: {}", device, why), std::string{device});
}

}  // namespace

// A request that can never be granted does not wait.
Result<> Desk::may_be_guarded(const wire::Claim& wanted) {
  if (wanted.guarding != Guarding::required || world_.enforcer.installed() != 0) return {};
  return std::unexpected(unguarded(wanted.devices.front().path, world_.enforcer.lack()));
}

Result<> Desk::enforce(Ticket& ticket) {
  if (ticket.guarding == Guarding::off) return {};
  look_at_guard();
  if (is_guarded(ticket)) {  // handed over by the one before
    if (ticket.until) enforce_until(ticket);
    return {};
  }
  if (guard_ == 0 && ticket.guarding == Guarding::automatic) return {};
  if (guard_ == 0) return std::unexpected(unguarded(path_of(ticket.nodes.front().key), world_.enforcer.lack()));
  auto told = tell_guard(ticket);
  // Where somebody else is the owner, the client would be refused its own device.
  if (told || (ticket.guarding == Guarding::automatic && told.error().code != errc::refused)) return {};
  return told;
}

Result<> Desk::tell_guard(Ticket& ticket, Ticket* from) {
  std::vector<device::Node> nodes;
  for (const Node& node : ticket.nodes) {
    if (node.locked_only) continue;
    device::Node& wanted = nodes.emplace_back();
    wanted.id = node.id;
    wanted.path = node.path;
  }
  Enforcer::Wish wish;
  wish.nodes = nodes;
  wish.owner = ticket.taking->owner;
  // The children of a shell, and of a command, use the device for it.
  const bool for_another = ticket.given == wire::OwnerGiven::by_pidfd;
  wish.scope = for_another ? OwnerScope::tree : ticket.taking->options.owner_scope;
  wish.ends = ticket.ends_with_owner() ? guard::Owner::Ends::with_root : guard::Owner::Ends::with_last_member;
  if (for_another && ticket.taking->speaker->process != wish.owner) wish.helper = ticket.taking->speaker->process;
  wish.mode = ticket.mode;
  wish.until = ticket.until;
  if (from != nullptr && ticket.lease) wish.until = world_.clock.now() + *ticket.lease;
  auto enforced = from != nullptr ? world_.enforcer.hand_over(*from->enforced, wish) : world_.enforcer.enforce(wish);
  if (!enforced) return std::unexpected(std::move(enforced.error()));
  if (from != nullptr) from->enforced.reset();
  ticket.enforced = std::move(*enforced);
  ticket.enforced_by = guard_;
  return {};
}

void Desk::look_at_guard() {
  const std::uint64_t now = world_.enforcer.installed();
  if (std::exchange(guard_, now) == now || now == 0) return;
  for (const auto& [id, ticket] : tickets_) {
    if (!ticket->is_held() || ticket->guarding == Guarding::off || is_guarded(*ticket)) continue;
    if (tell_guard(*ticket)) world_.memory.granted(record_of(*ticket), ticket->holding);
  }
}

// The kernel ends it by itself, whatever becomes of us.
void Desk::enforce_until(Ticket& ticket) {
  if (!is_guarded(ticket) || world_.enforcer.renew(*ticket.enforced, ticket.until)) return;
  cut(ticket);
  static_cast<void>(tell_guard(ticket));
}

void Desk::cut(Ticket& ticket) {
  if (is_guarded(ticket)) world_.enforcer.release(*ticket.enforced);
  ticket.enforced.reset();
}

bool Desk::is_guarded(const Ticket& ticket) const { return ticket.enforced && ticket.enforced_by == guard_; }

Enforcement Desk::level_of(const Ticket& ticket) const {
  return is_guarded(ticket) ? Enforcement::guarded : ticket.holding.enforcement();
}

void Desk::denied(const Denial& denial) {
  const arbiter::DeviceKey key = key_of(denial.device);
  const auto book = books_.find(key);
  if (book == books_.end()) return;  // guarded for somebody else's claim
  std::vector<const Ticket*> holders;
  for (const arbiter::Holding& holding : arbiter_.holders(key))
    if (const Ticket* ticket = find_arbiter(static_cast<std::uint64_t>(holding.claim));
        ticket != nullptr && ticket->is_held())
      holders.push_back(ticket);
  wire::Event event;
  event.kind = wire::EventKind::denied;
  event.at = world_.clock.wall();
  event.device = book->second.name;
  event.who = denial.who;
  event.detail = denial.operation;
  if (!holders.empty()) {
    event.mode = holders.front()->mode;
    event.detail += fmt::format("; held by {}", name_of(holders.front()->owner));
  }
  if (denial.before > 0) event.detail += fmt::format("; {} times more before", denial.before);
  world_.events.happened(event);

  book->second.denials_untold += 1 + denial.before;
  const arbiter::Time now = world_.clock.now();
  if (book->second.denial_told && now < *book->second.denial_told + kTellDenialsEvery) return;
  book->second.denial_told = now;
  const std::string by = fmt::format("{}[{}] of {}", base::printable(denial.who.command), denial.who.pid,
                                     base::printable(denial.who.user));
  std::string reason = fmt::format("{}: {} was refused ({})", book->second.name.path, by, denial.operation);
  if (const std::uint64_t times = std::exchange(book->second.denials_untold, 0); times > 1)
    reason += fmt::format(", {} times", times);
  for (const Ticket* ticket : holders)
    notify(*ticket, wire::Ending::denied, 0ns, by, base::printable(reason, wire::kMostText));
}

}  // namespace holdfast::broker
