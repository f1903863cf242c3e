// SPDX-License-Identifier: MIT
// desk_course.cpp - the course of a ticket: queued, elected, its marks taken, held, over.
//
// The arbiter's decisions are noted first, all of a batch (apply()), and only then acted upon (run()): acting may ask
// the arbiter again. What ends in a batch is given back while it is noted, so before anybody takes.
#include "broker/desk.hpp"

#include "base/error.hpp"
#include "claim/parcel.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <utility>

namespace holdfast::broker {

using namespace std::chrono_literals;
using base::failure;

namespace {

constexpr arbiter::Duration kRetry = 200ms;     // as a waiter without a broker looks at what has no event
constexpr arbiter::Duration kWarnAtMost = 60s;  // before a claim lapses, or a quarter of its time
constexpr arbiter::Duration kTellEvery = 50ms;  // how far one is in the queue

Error over(const Ticket& ticket, std::string_view what) {
  return failure(errc::not_held, fmt::format("the claim of {} {}", ticket.taking->devices.front()->node.path, what),
                 {});
}

wire::EventKind kind_of(const Over& over) {
  switch (over.why) {
    case arbiter::End::released:
      return wire::EventKind::released;
    case arbiter::End::revoked:
      return wire::EventKind::revoked;
    case arbiter::End::lapsed:
    case arbiter::End::owner_died:
      return wire::EventKind::lapsed;
  }
  return wire::EventKind::released;
}

}  // namespace

// --- What the arbiter decided
// -----------------------------------------------------------------------------------------

void Desk::apply(const DoneLater& done) {
  for (const arbiter::Decision& decision : decisions_.all())
    std::visit([&](const auto& one) { decided(one, done); }, decision);
}

void Desk::decided(const arbiter::Granted& granted, const DoneLater& done) {
  Ticket* ticket = find_arbiter(static_cast<std::uint64_t>(granted.request));
  if (ticket == nullptr) return;
  ticket->stage = Stage::elected;
  ticket->before = done;
  ticket->tokens.clear();
  for (const arbiter::Held& held : decisions_.devices(granted)) ticket->tokens.push_back(held.token);
  if (ticket->patience.waits() && ticket->patience.deadline() != arbiter::Time::max())
    agenda_.set(ticket->id, Due::deadline, ticket->patience.deadline());
  to_go_on_.push_back(ticket->id);
  queue_moved(*ticket);
}

void Desk::decided(const arbiter::Queued& queued, const DoneLater& /*done*/) {
  Ticket* ticket = find_arbiter(static_cast<std::uint64_t>(queued.request));
  if (ticket == nullptr) return;
  if (ticket->change) {
    send(ticket->change->connection, ticket->change->number, wire::Queued{});
    return;
  }
  std::vector<arbiter::DeviceKey> keys;
  for (const Node& node : ticket->nodes) keys.push_back(node.key);
  ticket->place = rules_.places.sealed(queued.place, ticket->taking->owner, keys);
  ticket->lock_file = world_.hands.lock_file_of(*ticket->taking);
  tell_queued(*ticket, arbiter_.ahead_of(queued.request).value_or(0));
  tell(wire::EventKind::waiting, *ticket);
}

void Desk::decided(const arbiter::Refused& refused, const DoneLater& /*done*/) {
  Ticket* ticket = find_arbiter(static_cast<std::uint64_t>(refused.request));
  if (ticket == nullptr) return;
  // Who does not wait is not in a circle, even when it is itself that has the device.
  const bool waits = (ticket->change ? ticket->change->patience : ticket->patience).waits();
  const Error error = refused.reason == arbiter::Reason::deadlock && waits ? circle(refused) : busy(refused);
  if (ticket->change) return refuse_change(*ticket, error);
  refuse(ticket->connection, ticket->number, error);
  tell(wire::EventKind::refused, *ticket, error.message);
  forget(*ticket);
}

void Desk::decided(const arbiter::Withdrawn& withdrawn, const DoneLater& /*done*/) {
  Ticket* ticket = find_arbiter(static_cast<std::uint64_t>(withdrawn.request));
  if (ticket == nullptr) return;
  const bool late = withdrawn.why == arbiter::Withdrawal::timed_out;
  if (ticket->change && ticket->change->request == withdrawn.request) {
    by_arbiter_.erase(static_cast<std::uint64_t>(withdrawn.request));
    ticket->change->request = {};
    if (withdrawn.why != arbiter::Withdrawal::cancelled)
      refuse_change(*ticket, late ? held_up_by_others(*ticket, errc::timed_out) : over(*ticket, "is over"));
    return;
  }
  queue_moved(*ticket);
  if (late) {
    const Error error = held_up_by_others(*ticket, errc::timed_out);
    refuse(ticket->connection, ticket->number, error);
    tell(wire::EventKind::refused, *ticket, error.message);
  }
  forget(*ticket);
}

void Desk::decided(const arbiter::Upgraded& upgraded, const DoneLater& done) {
  Ticket* ticket = find_arbiter(static_cast<std::uint64_t>(upgraded.request));
  if (ticket == nullptr || !ticket->change) return;
  by_arbiter_.erase(static_cast<std::uint64_t>(upgraded.request));
  ticket->change->request = {};
  ticket->change->elected = true;
  ticket->before = done;
  ticket->tokens.clear();
  for (const arbiter::Held& held : decisions_.devices(upgraded)) ticket->tokens.push_back(held.token);
  if (ticket->change->patience.waits() && ticket->change->patience.deadline() != arbiter::Time::max())
    agenda_.set(ticket->id, Due::upgrade_deadline, ticket->change->patience.deadline());
  to_go_on_.push_back(ticket->id);
}

void Desk::decided(const arbiter::Downgraded& /*downgraded*/, const DoneLater& /*done*/) {}
void Desk::decided(const arbiter::Renewed& /*renewed*/, const DoneLater& /*done*/) {}

void Desk::decided(const arbiter::Ended& ended, const DoneLater& done) {
  Ticket* ticket = find_arbiter(static_cast<std::uint64_t>(ended.claim));
  if (ticket == nullptr) return;
  ticket->over = {ticket->because.value_or(ended.why), ended.revocation};
  ticket->before = done;
  by_arbiter_.erase(ticket->arbiter_id);
  ticket->arbiter_id = 0;
  if (ticket->change) refuse_change(*ticket, over(*ticket, "is over"));
  if (passing_ && passing_->from == ticket->id) return;  // when the whole batch is noted
  if (ticket->is_held() || ticket->stage == Stage::taking) return leave(*ticket);
  forget(*ticket);
}

// --- Taking
// -----------------------------------------------------------------------------------------------------------

void Desk::run() {
  while (true) {
    if (!to_ask_.empty()) {
      const auto question = std::move(to_ask_.front());
      to_ask_.pop_front();
      decisions_.clear();
      question();
      apply({});
    } else if (!to_go_on_.empty()) {
      const wire::ClaimId next = to_go_on_.front();
      to_go_on_.pop_front();
      if (Ticket* ticket = find(next); ticket != nullptr) go_on(*ticket);
    } else {
      return;
    }
  }
}

bool Desk::held_up(const Ticket& ticket) const {
  return !leaving_.empty() &&
         std::ranges::any_of(ticket.nodes, [&](const Node& node) { return leaving_.contains(node.key); });
}

void Desk::go_on(Ticket& ticket) {
  if (held_up(ticket)) {
    held_up_.push_back(ticket.id);
    return;
  }
  if (ticket.stage == Stage::held && ticket.change && ticket.change->elected) return change(ticket);
  if (ticket.stage == Stage::elected || ticket.stage == Stage::blocked) take(ticket);
}

void Desk::take(Ticket& ticket) {
  if (!ticket.hooks_ran) {
    ticket.stage = Stage::hooks;
    auto answer = world_.hooks.before_grant(record_of(ticket));
    if (!answer) return ticket.before.reset();  // programs take their time
    ticket.hooks_ran = true;
    if (!*answer) return give_up(ticket, answer->error());
  }
  agenda_.clear(ticket.id, Due::retry);
  ticket.stage = Stage::taking;
  if (auto result = world_.hands.take(ticket.id, *ticket.taking)) took(ticket, std::move(*result));
}

void Desk::taken(wire::ClaimId claim, Hands::Taken result) {
  if (Ticket* ticket = find(claim); ticket != nullptr) took(*ticket, std::move(result));
  run();
}

void Desk::hooks_ran(wire::ClaimId claim, Result<> answer) {
  Ticket* ticket = find(claim);
  if (ticket == nullptr || ticket->stage != Stage::hooks) return;
  ticket->hooks_ran = true;
  ticket->stage = Stage::elected;
  if (answer)
    go_on(*ticket);
  else
    give_up(*ticket, answer.error());
  run();
}

void Desk::try_again(wire::ClaimId claim) {
  Ticket* ticket = find(claim);
  if (ticket == nullptr) return;
  go_on(*ticket);
  run();
}

void Desk::took(Ticket& ticket, Hands::Taken result) {
  if (ticket.stage == Stage::leaving) {  // it was over before the hands were through
    if (!result || world_.hands.give_back(ticket.id, std::move(*result))) left(ticket);
    return;
  }
  ticket.stage = Stage::elected;  // the hands are through
  if (result) return hold(ticket, std::move(*result));
  if (result.error().obstacle.kind == convention::Obstacle::Kind::busy && ticket.patience.waits())
    return block(ticket, result.error());
  give_up(ticket, result.error().obstacle.error);
}

void Desk::hold(Ticket& ticket, claiming::Holding holding) {
  ticket.holding = std::move(holding);
  if (ticket.lease) start_lease(ticket);
  if (auto enforced = enforce(ticket); !enforced) {
    ticket.stage = Stage::held;  // its marks are
    return give_up(ticket, enforced.error());
  }
  begin_to_hold(ticket);
  world_.memory.granted(record_of(ticket), ticket.holding);
  grant(ticket);
  tell_claimed(ticket);
}

void Desk::begin_to_hold(Ticket& ticket) {
  const uid_t uid = ticket.taking->speaker->rights.uid;
  waiters_.remove(uid);
  claims_.force(uid);
  ticket.was_held = true;
  ticket.stage = Stage::held;
  ticket.granted = world_.clock.now();
  ticket.since = world_.clock.wall();
  ticket.in_the_way.reset();
  agenda_.clear(ticket.id, Due::deadline);
  world_.strangers.forget(ticket.id);
}

void Desk::grant(Ticket& ticket) {
  answer_granted(ticket, ticket.connection, ticket.number);
  ticket.before.reset();
}

void Desk::tell_claimed(const Ticket& ticket) {
  tell(wire::EventKind::claimed, ticket, is_guarded(ticket) ? "guarded" : "");
}

void Desk::answer_granted(Ticket& ticket, ConnectionId connection, std::uint32_t number) {
  wire::Granted granted;
  granted.claim = ticket.id;
  granted.mode = ticket.mode;
  granted.enforcement = level_of(ticket);
  if (ticket.until) granted.lapses_in = *ticket.until - world_.clock.now();
  for (std::size_t i = 0; i < ticket.nodes.size(); ++i)
    granted.devices.push_back({books_.at(ticket.nodes[i].key).name, told(ticket.tokens[i])});
  claiming::Parcel parcel = claiming::pack(ticket.holding);
  granted.marks = std::move(parcel.marks);
  if (parcel.descriptors.size() <= wire::kMostDescriptors && send(connection, number, granted, parcel.descriptors)) {
    connections_.at(connection).last_told = ticket.id;
    return;
  }
  // Nobody would ever give back what nobody was told of.
  refuse(
      connection, number,
      failure(errc::no_resources,
              "the claim's descriptors cannot be sent: there are too many, or too many of the user's are not read yet",
              {}));
  to_ask_.emplace_back([this, id = ticket.id] {
    if (const Ticket* undelivered = find(id); undelivered != nullptr && undelivered->arbiter_id != 0)
      arbiter_.release(world_.clock.now(), undelivered->owner, arbiter::ClaimId{undelivered->arbiter_id}, decisions_);
  });
}

// The stranger may be gone any time; until then nobody passes.
void Desk::block(Ticket& ticket, const claiming::Obstruction& obstruction) {
  ticket.stage = Stage::blocked;
  cut(ticket);  // what was handed over to it early would keep the stranger from coming to an end
  ticket.in_the_way = obstruction.obstacle.error;
  ticket.before.reset();
  if (!ticket.told_ahead) tell_queued(ticket, 0);
  if (!world_.strangers.watch(ticket.id, obstruction, *ticket.taking))
    agenda_.set(ticket.id, Due::retry, world_.clock.now() + kRetry);
}

// An elected one that gets nothing.
void Desk::give_up(Ticket& ticket, const Error& error) {
  refuse(ticket.connection, ticket.number, error);
  tell(wire::EventKind::refused, ticket, error.message);
  end(ticket, arbiter::End::released);
}

// --- Giving back
// ------------------------------------------------------------------------------------------------------

// By us, not by its holder.
void Desk::end(Ticket& ticket, arbiter::End why) {
  decisions_.clear();
  ticket.because = why;
  if (ticket.stage == Stage::queued)
    arbiter_.cancel(world_.clock.now(), ticket.owner, arbiter::RequestId{ticket.arbiter_id}, decisions_);
  else if (ticket.arbiter_id != 0)
    arbiter_.release(world_.clock.now(), ticket.owner, arbiter::ClaimId{ticket.arbiter_id}, decisions_);
  apply({});
}

void Desk::withdraw(Ticket& ticket) { end(ticket, arbiter::End::released); }

// The arbiter has given it to others already: they wait until its marks are gone.
void Desk::leave(Ticket& ticket) {
  const bool busy = ticket.hands_are_at_it();
  ticket.stage = Stage::leaving;
  cut(ticket);
  for (const Node& node : ticket.nodes) ++leaving_[node.key];
  if (busy) return;  // took() or have_changed() goes on
  if (world_.hands.give_back(ticket.id, std::move(ticket.holding))) left(ticket);
}

void Desk::given_back(wire::ClaimId claim) {
  if (Ticket* ticket = find(claim); ticket != nullptr && ticket->stage == Stage::leaving) left(*ticket);
  run();
}

void Desk::left(Ticket& ticket) {
  for (const Node& node : ticket.nodes)
    if (const auto count = leaving_.find(node.key); --count->second == 0) leaving_.erase(count);
  to_go_on_.insert(to_go_on_.end(), held_up_.begin(), held_up_.end());
  held_up_.clear();
  if (ticket.was_held) {
    world_.memory.ended(ticket.id);
    const arbiter::Duration hold = world_.clock.now() - ticket.granted;
    for (const Node& node : ticket.nodes) {
      auto& usual = books_.at(node.key).usual_hold;
      usual = usual ? *usual + (hold - *usual) / 4 : hold;
    }
    tell_end(ticket);
    world_.hooks.after_end(record_of(ticket), ticket.over.why);
  }
  forget(ticket);
}

void Desk::tell_end(const Ticket& ticket) {
  const std::string by = ticket.kicking ? ticket.kicking->by : std::string{};
  const std::string reason = ticket.kicking ? ticket.kicking->reason : std::string{};
  std::string detail;
  if (ticket.over.why == arbiter::End::lapsed) {
    notify(ticket, wire::Ending::lapsed, 0ns, {}, {});
    detail = "its time was over";
  } else if (ticket.over.why == arbiter::End::revoked && ticket.over.revocation == arbiter::Revocation::device_gone) {
    notify(ticket, wire::Ending::device_gone, 0ns, {}, {});
    detail = "the device is gone";
  } else if (ticket.over.why == arbiter::End::revoked) {
    notify(ticket, wire::Ending::revoked, 0ns, by, reason);
    detail = reason.empty() ? fmt::format("by {}", by) : fmt::format("by {}: {}", by, reason);
  } else if (ticket.over.why == arbiter::End::owner_died) {
    detail = "its owner died or hung up";
  }
  tell(kind_of(ticket.over), ticket, detail);
}

// --- Changing the mode
// ------------------------------------------------------------------------------------------------

// Downwards the marks change first and then others are let in; upwards the arbiter has seen to it that no other claim
// is left, and the marks follow.
void Desk::change(Ticket& ticket) {
  ticket.stage = Stage::changing;
  agenda_.clear(ticket.id, Due::retry);
  if (auto result = world_.hands.change(ticket.id, std::move(ticket.holding), ticket.change->to))
    have_changed(ticket, std::move(*result));
}

void Desk::changed(wire::ClaimId claim, Hands::Changed result) {
  if (Ticket* ticket = find(claim); ticket != nullptr) have_changed(*ticket, std::move(result));
  run();
}

void Desk::have_changed(Ticket& ticket, Hands::Changed result) {
  if (ticket.stage == Stage::leaving) {
    if (world_.hands.give_back(ticket.id, std::move(result.holding))) left(ticket);
    return;
  }
  ticket.stage = Stage::held;
  ticket.holding = std::move(result.holding);
  if (!ticket.change) return;
  if (!result.result) {
    const bool waits = ticket.change->patience.waits() && result.result.error().code == errc::refused;
    ticket.before.reset();
    if (!waits) return refuse_change(ticket, result.result.error());
    ticket.in_the_way = std::move(result.result.error());
    agenda_.set(ticket.id, Due::retry, world_.clock.now() + kRetry);
    return;
  }
  const ModeChange change = *std::exchange(ticket.change, std::nullopt);
  agenda_.clear(ticket.id, Due::upgrade_deadline);
  ticket.mode = change.to;
  ticket.in_the_way.reset();
  world_.memory.granted(record_of(ticket), ticket.holding);
  answer_granted(ticket, change.connection, change.number);
  ticket.before.reset();
  tell(change.to == Mode::shared ? wire::EventKind::downgraded : wire::EventKind::upgraded, ticket);
  if (change.to == Mode::exclusive) return;
  decisions_.clear();
  arbiter_.downgrade(world_.clock.now(), ticket.owner, arbiter::ClaimId{ticket.arbiter_id}, decisions_);
  apply({});
}

// The claim stays as it was.
void Desk::refuse_change(Ticket& ticket, const Error& error) {
  const ModeChange change = *std::exchange(ticket.change, std::nullopt);
  agenda_.clear(ticket.id, Due::upgrade_deadline);
  agenda_.clear(ticket.id, Due::retry);
  refuse(change.connection, change.number, error);
  if (change.request != arbiter::RequestId::none) {
    by_arbiter_.erase(static_cast<std::uint64_t>(change.request));
    to_ask_.emplace_back([this, owner = ticket.owner, request = change.request] {
      arbiter_.cancel(world_.clock.now(), owner, request, decisions_);
    });
  } else if (change.to == Mode::exclusive && change.elected && ticket.arbiter_id != 0) {
    to_ask_.emplace_back([this, id = ticket.id] {
      if (const Ticket* shared = find(id); shared != nullptr && shared->arbiter_id != 0)
        arbiter_.downgrade(world_.clock.now(), shared->owner, arbiter::ClaimId{shared->arbiter_id}, decisions_);
    });
  }
}

// --- Time
// -------------------------------------------------------------------------------------------------------------

void Desk::start_lease(Ticket& ticket) {
  const arbiter::Time now = world_.clock.now();
  decisions_.clear();
  arbiter_.renew(now, ticket.owner, arbiter::ClaimId{ticket.arbiter_id}, *ticket.lease, decisions_);
  ticket.until = *ticket.lease > arbiter::Time::max() - now ? arbiter::Time::max() : now + *ticket.lease;
  warn_before(ticket);
  apply({});
}

void Desk::warn_before(const Ticket& ticket) {
  const arbiter::Duration left = *ticket.until - world_.clock.now();
  agenda_.set(ticket.id, Due::lapses_soon, *ticket.until - std::min(kWarnAtMost, left / 4));
}

std::optional<arbiter::Time> Desk::next_deadline() const {
  std::optional<arbiter::Time> next;
  for (const auto& one : {arbiter_.next_deadline(), agenda_.next(), progress_at_})
    if (one && (!next || *one < *next)) next = one;
  return next;
}

void Desk::advance() {
  const arbiter::Time now = world_.clock.now();
  decisions_.clear();
  arbiter_.advance(now, decisions_);
  apply({});
  while (const auto entry = agenda_.pop(now)) due(*entry);
  if (progress_at_ && *progress_at_ <= now) tell_progress();
  run();
}

void Desk::due(const Agenda::Entry& entry) {
  Ticket* ticket = find(entry.claim);
  if (ticket == nullptr) return;
  switch (entry.due) {
    case Due::deadline:
      if (ticket->is_elected()) give_up(*ticket, held_up_by_others(*ticket, errc::timed_out));
      break;
    case Due::upgrade_deadline:
      if (ticket->change && ticket->stage == Stage::held)
        refuse_change(*ticket, held_up_by_others(*ticket, errc::timed_out));
      break;
    case Due::retry:
      go_on(*ticket);
      break;
    case Due::lapses_soon:
      if (ticket->until) notify(*ticket, wire::Ending::lapses_soon, *ticket->until - world_.clock.now(), {}, {});
      break;
    case Due::kick:
      if (!ticket->is_held()) break;
      decisions_.clear();
      arbiter_.revoke(world_.clock.now(), arbiter::ClaimId{ticket->arbiter_id}, arbiter::Revocation::administrator,
                      decisions_);
      apply({});
      break;
  }
}

void Desk::device_gone(const device::DeviceId& device) {
  const arbiter::DeviceKey key = key_of(device);
  const Error gone = failure(errc::gone, fmt::format("{} is gone: it was unplugged", path_of(key)), path_of(key));
  for (const arbiter::Waiting& waiting : arbiter_.queue(key)) {
    Ticket* ticket = find_arbiter(static_cast<std::uint64_t>(waiting.request));
    if (ticket == nullptr || ticket->stage != Stage::queued) continue;
    refuse(ticket->connection, ticket->number, gone);
    withdraw(*ticket);
  }
  for (const arbiter::Holding& holding : arbiter_.holders(key)) {
    Ticket* ticket = find_arbiter(static_cast<std::uint64_t>(holding.claim));
    if (ticket == nullptr) continue;
    if (ticket->is_elected()) {
      give_up(*ticket, gone);
      continue;
    }
    decisions_.clear();
    arbiter_.revoke(world_.clock.now(), holding.claim, arbiter::Revocation::device_gone, decisions_);
    apply({});
  }
  run();
}

void Desk::queue_moved(const Ticket& ticket) {
  for (const Node& node : ticket.nodes) {
    Book& book = books_.at(node.key);
    if (book.told == 0) continue;
    book.moved = true;
    if (!progress_at_) progress_at_ = world_.clock.now() + kTellEvery;
  }
}

}  // namespace holdfast::broker
