// SPDX-License-Identifier: MIT
// desk.cpp - what clients say. Each message is looked at as a stranger's: what it names is found anew here, and who may
// say it is the kernel's word about the process behind the connection.
#include "broker/desk.hpp"

#include "base/error.hpp"

#include <fmt/format.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <utility>

namespace holdfast::broker {

using base::failure;

namespace {

constexpr std::size_t kMostKickers = 16;

bool uses_whole_disk(const Options& options) {
  return options.opening == Opening::allowed && options.conventions.contains(Convention::whole_disk);
}

arbiter::Patience patience_of(const wire::Patience& wanted, arbiter::Time now) {
  if (!wanted.waits) return arbiter::Patience::none();
  if (!wanted.at_most || *wanted.at_most >= arbiter::Time::max() - now) return arbiter::Patience::for_ever();
  return arbiter::Patience::until(now + std::max(*wanted.at_most, arbiter::Duration::zero()));
}

}  // namespace

arbiter::DeviceKey key_of(const device::DeviceId& id) {
  // Kernel numbers: 12 bits of major, 20 of minor (include/linux/kdev_t.h); a devpts instance has major 0.
  const std::uint64_t kind = id.kind == device::Kind::block ? 0 : 1;
  const std::uint64_t instance = ::minor(id.devpts);
  return arbiter::DeviceKey{kind << 63 | instance << 32 | std::uint64_t{id.major & 0xfffU} << 20 |
                            (id.minor & 0xfffffU)};
}

device::DeviceId id_of(const wire::DeviceName& name) {
  return {name.kind == wire::NodeKind::block ? device::Kind::block : device::Kind::character, name.major, name.minor,
          name.devpts};
}

arbiter::DeviceKey key_of(const wire::DeviceName& name) { return key_of(id_of(name)); }

Desk::Desk(const World& world, const Rulebook& rules)
    : world_{world},
      rules_{rules},
      arbiter_{rules.arbiter, rules.tokens},
      claims_{rules.limits.claims},
      waiters_{rules.limits.waiters},
      started_{world.clock.now()},
      next_claim_{static_cast<std::uint64_t>(rules.first_claim)} {}

Desk::~Desk() {
  for (const auto& [id, ticket] : tickets_) ticket->holding.let_go();
}

void Desk::opened(ConnectionId connection, Process who) {
  Connection& opened = connections_[connection];
  // Not the owner's: that is who the process was when it was first heard of, and it may have become another user since.
  opened.who = std::make_shared<const Peer>(who.peer);
  opened.speaker = owner_for(std::move(who));
  owners_.at(opened.speaker).connections.insert(connection);
}

void Desk::heard(ConnectionId connection, wire::Numbered<wire::FromClient>& message, Enclosed enclosed) {
  if (!connections_.contains(connection)) return;
  std::visit(
      [&]<class Body>(const Body& body) {
        if constexpr (std::is_same_v<Body, wire::Claim>)
          say(connection, message.number, body, std::move(enclosed.owner));
        else if constexpr (std::is_same_v<Body, wire::Find>)
          say(connection, message.number, body, enclosed.owner);
        else if constexpr (std::is_same_v<Body, wire::Resume>)
          say(connection, message.number, body, std::move(enclosed.descriptors));
        else if constexpr (requires { say(connection, message.number, body); })
          say(connection, message.number, body);
        else
          refuse(connection, message.number,
                 failure(errc::invalid_argument, "the broker did not expect this message here", {}));
      },
      message.body);
  run();
}

bool Desk::send(ConnectionId connection, std::uint32_t number, const wire::FromBroker& message,
                std::span<const int> descriptors) {
  if (const auto known = connections_.find(connection); known != connections_.end()) known->second.last_told.reset();
  return world_.post.send(connection, number, message, descriptors);
}

void Desk::refuse(ConnectionId connection, std::uint32_t number, const Error& error) {
  wire::Refused refused;
  refused.code = error.code.category() == error_category() ? static_cast<errc>(error.code.value()) : errc::system_fault;
  refused.errnum = error.errnum;
  refused.message = base::printable(error.message, wire::kMostText);
  refused.device = error.device.substr(0, wire::kMostPath);
  refused.holder = error.holder;
  send(connection, number, refused);
}

// --- Claim
// ------------------------------------------------------------------------------------------------------------

void Desk::say(ConnectionId connection, std::uint32_t number, const wire::Claim& wanted, std::optional<Process> owner) {
  const Connection& speaker = connections_.at(connection);
  const auto no = [&](const Error& error) { refuse(connection, number, error); };
  if (wanted.devices.empty()) return no(failure(errc::invalid_argument, "no device was named", {}));
  if (auto allowed = check_owner(speaker, wanted.owner, owner); !allowed) return no(allowed.error());
  auto devices = find_devices(wanted.devices);
  if (!devices) {
    send(connection, number, wire::NotMine{base::printable(devices.error().message, wire::kMostText)});
    return;
  }
  for (const auto& device : *devices)
    if (auto allowed = world_.gate.may_claim(*device, *speaker.who); !allowed) return no(allowed.error());
  if (auto guardable = may_be_guarded(wanted); !guardable) return no(guardable.error());
  const uid_t uid = speaker.who->rights.uid;
  if (claims_.of(uid) >= rules_.limits.claims && uid != 0)
    return no(failure(errc::no_resources,
                      fmt::format("user {} holds {} claims, which is the limit", speaker.who->user, claims_.of(uid)),
                      {}));
  if (!waiters_.add(uid))
    return no(failure(
        errc::no_resources,
        fmt::format("user {} waits for {} claims, which is the limit", speaker.who->user, waiters_.of(uid)), {}));

  auto made = std::make_unique<Ticket>();
  Ticket& ticket = *made;
  ticket.id = wire::ClaimId{next_claim_++};
  ticket.connection = connection;
  ticket.number = number;
  ticket.asker = speaker.speaker;
  ticket.owner = owner ? owner_for(std::move(*owner)) : speaker.speaker;
  ticket.given = wanted.owner;
  ticket.mode = wanted.mode;
  ticket.priority = wanted.priority;
  ticket.progress = wanted.progress;
  ticket.lease = wanted.lease;
  ticket.guarding = wanted.guarding;
  ticket.asked = world_.clock.now();
  ticket.asked_at = world_.clock.wall();
  ticket.patience = patience_of(wanted.patience, ticket.asked);
  auto taking = std::make_shared<Taking>();
  taking->devices = std::move(*devices);
  taking->owner = owners_.at(ticket.owner).who->process;
  taking->speaker = speaker.who;
  taking->options.mode = wanted.mode;
  taking->options.owner_scope = wanted.owner_scope;
  taking->options.cover = wanted.cover;
  taking->options.opening = wanted.opening;
  // The owner of a driver's lock is the process that asks for it.
  taking->options.conventions = wanted.conventions.without(Convention::driver);
  taking->options.purpose = base::printable(wanted.purpose, wire::kMostPurpose);
  ticket.taking = std::move(taking);
  lay_out(ticket);
  add_to_books(ticket);
  owners_.at(ticket.owner).tickets.insert(ticket.id);
  connections_.at(connection).tickets.insert(ticket.id);
  tickets_.emplace(ticket.id, std::move(made));

  std::vector<arbiter::DeviceKey> keys;
  keys.reserve(ticket.nodes.size());
  for (const Node& node : ticket.nodes) keys.push_back(node.key);
  arbiter::Request request;
  request.owner = ticket.owner;
  request.devices = keys;
  request.mode = wanted.mode;
  request.patience = ticket.patience;
  request.priority = wanted.priority;
  if (wanted.place && ticket.asked < started_ + rules_.places_count_for)
    request.place = rules_.places.opened(*wanted.place, ticket.taking->owner, keys);
  if (request.place && !places_used_.insert(*wanted.place).second) request.place.reset();
  decisions_.clear();
  ticket.arbiter_id = static_cast<std::uint64_t>(arbiter_.request(ticket.asked, request, decisions_));
  by_arbiter_[ticket.arbiter_id] = &ticket;
  apply({});
}

Result<std::vector<std::shared_ptr<const device::Device>>> Desk::find_devices(
    const std::vector<wire::DeviceName>& names) {
  std::vector<std::shared_ptr<const device::Device>> found;
  found.reserve(names.size());
  for (const wire::DeviceName& name : names) {
    auto device = world_.devices.find(name);
    if (!device) return std::unexpected(std::move(device.error()));
    const bool known = std::ranges::any_of(found, [&](const auto& one) { return one->node.id == (*device)->node.id; });
    if (!known) found.push_back(std::move(*device));
  }
  return found;
}

Result<> Desk::check_owner(const Connection& speaker, wire::OwnerGiven given,
                           const std::optional<Process>& owner) const {
  if (given == wire::OwnerGiven::speaker) {
    if (owners_.at(speaker.speaker).dead)
      return std::unexpected(failure(errc::not_held, "the process that made this connection is dead", {}));
    return {};
  }
  if (!owner) return std::unexpected(failure(errc::invalid_argument, "the owner's pidfd is missing", {}));
  const uid_t uid = speaker.who->rights.uid;
  if (uid == 0 || uid == owner->peer.rights.uid) return {};
  return std::unexpected(failure(errc::not_permitted,
                                 fmt::format("process {} belongs to {}: only root can claim for another user's process",
                                             owner->peer.process.pid, owner->peer.user),
                                 {}));
}

// Two claims that would meet at a mark must meet in the arbiter: it gets every node that is covered, and for a
// partition the disk whose lock the claim takes.
void Desk::lay_out(Ticket& ticket) {
  std::vector<Node>& nodes = ticket.nodes;
  const auto add = [&](const device::Node& node, bool named, bool locked_only) {
    nodes.push_back({key_of(node.id), node.id, node.path, named, locked_only});
  };
  for (const auto& device : ticket.taking->devices) {
    for (const device::Covered& covered : device::covered_nodes(*device, ticket.taking->options.cover))
      add(covered.node, covered.node.id == device->node.id, false);
    if (device->family != device::Family::partition || !uses_whole_disk(ticket.taking->options)) continue;
    for (const device::Sibling& sibling : device->siblings)
      if (sibling.relation == device::Relation::whole_disk) add(sibling.node, false, true);
  }
  std::ranges::sort(nodes, [](const Node& a, const Node& b) {
    return std::tie(a.key, b.named, a.locked_only) < std::tie(b.key, a.named, b.locked_only);
  });
  const auto rest = std::ranges::unique(nodes, {}, &Node::key);
  nodes.erase(rest.begin(), rest.end());
}

void Desk::add_to_books(Ticket& ticket) {
  for (const Node& node : ticket.nodes) {
    Book& book = books_[node.key];
    if (book.tickets++ == 0)
      book.name = {node.path, node.id.kind == device::Kind::block ? wire::NodeKind::block : wire::NodeKind::character,
                   node.id.major, node.id.minor, node.id.devpts};
    if (ticket.progress == wire::Progress::told) ++book.told;
  }
}

// --- The rest
// ---------------------------------------------------------------------------------------------------------

void Desk::say(ConnectionId connection, std::uint32_t number, const wire::Cancel& wanted) {
  const DoneLater done{world_.post, connection, number};
  const Error interrupted = failure(errc::interrupted, "the request was taken back", {});
  for (const wire::ClaimId id : connections_.at(connection).tickets) {
    Ticket* ticket = find(id);
    if (ticket == nullptr || ticket->number != wanted.asked || ticket->is_held() || ticket->stage == Stage::leaving)
      continue;
    refuse(connection, ticket->number, interrupted);
    withdraw(*ticket);
    return;
  }
  for (const auto& [id, ticket] : tickets_) {  // an upgrade: rare
    if (!ticket->change || ticket->change->connection != connection || ticket->change->number != wanted.asked) continue;
    if (ticket->stage == Stage::changing) return;  // decided in a moment
    refuse_change(*ticket, interrupted);
    return;
  }
}

Ticket* Desk::held_by(ConnectionId connection, wire::ClaimId claim) {
  Ticket* ticket = find(claim);
  if (ticket == nullptr || !ticket->is_held()) return nullptr;
  const Connection& speaker = connections_.at(connection);
  if (ticket->owner == speaker.speaker || ticket->asker == speaker.speaker) return ticket;
  const uid_t uid = speaker.who->rights.uid;
  const bool for_another = ticket->given == wire::OwnerGiven::by_pidfd;
  return for_another && (uid == 0 || uid == owners_.at(ticket->owner).who->rights.uid) ? ticket : nullptr;
}

// What answers it has descriptors that were opened with the asker's rights; a claim for another process may be for one
// of a user who may not open the device.
Ticket* Desk::changeable_by(ConnectionId connection, wire::ClaimId claim) {
  Ticket* ticket = held_by(connection, claim);
  if (ticket == nullptr || ticket->given != wire::OwnerGiven::by_pidfd) return ticket;
  const Peer& who = *connections_.at(connection).who;
  return who.rights.uid == 0 || who.process == ticket->taking->speaker->process ? ticket : nullptr;
}

namespace {

Error not_held(wire::ClaimId claim) {
  return failure(errc::not_held,
                 fmt::format("claim {} is not held by this process (any more)", static_cast<std::uint64_t>(claim)), {});
}

}  // namespace

void Desk::say(ConnectionId connection, std::uint32_t number, const wire::Release& wanted) {
  Ticket* ticket = held_by(connection, wanted.claim);
  if (ticket == nullptr) return refuse(connection, number, not_held(wanted.claim));
  const DoneLater done{world_.post, connection, number};
  decisions_.clear();
  arbiter_.release(world_.clock.now(), ticket->owner, arbiter::ClaimId{ticket->arbiter_id}, decisions_);
  if (Ticket* const heir = heir_of(*ticket); heir != nullptr) passing_ = {ticket->id, heir->id};
  apply(done);
  if (const auto passing = std::exchange(passing_, std::nullopt)) {
    Ticket* const to = find(passing->to);
    if (to != nullptr)
      hand_over(*ticket, *to, ticket->connection == connection ? wanted.copies : wire::Copies::kept);
    else
      leave(*ticket);
  }
  run();  // whoever comes next hears of it before `done` goes
}

void Desk::say(ConnectionId connection, std::uint32_t number, const wire::Downgrade& wanted) {
  Ticket* ticket = changeable_by(connection, wanted.claim);
  if (ticket == nullptr) return refuse(connection, number, not_held(wanted.claim));
  if (ticket->change)
    return refuse(connection, number, failure(errc::refused, "another change of the claim is not done yet", {}));
  ticket->change = ModeChange{connection, number, Mode::shared, {}, arbiter::Patience::none(), true};
  change(*ticket);
}

void Desk::say(ConnectionId connection, std::uint32_t number, const wire::Upgrade& wanted) {
  Ticket* ticket = changeable_by(connection, wanted.claim);
  if (ticket == nullptr) return refuse(connection, number, not_held(wanted.claim));
  if (ticket->change)
    return refuse(connection, number, failure(errc::refused, "another change of the claim is not done yet", {}));
  const arbiter::Time now = world_.clock.now();
  ticket->change = ModeChange{connection, number, Mode::exclusive, {}, patience_of(wanted.patience, now), false};
  decisions_.clear();
  const arbiter::RequestId request =
      arbiter_.upgrade(now, ticket->owner, arbiter::ClaimId{ticket->arbiter_id}, ticket->change->patience, decisions_);
  ticket->change->request = request;
  by_arbiter_[static_cast<std::uint64_t>(request)] = ticket;
  apply({});
}

void Desk::say(ConnectionId connection, std::uint32_t number, const wire::Renew& wanted) {
  Ticket* ticket = held_by(connection, wanted.claim);
  if (ticket == nullptr) return refuse(connection, number, not_held(wanted.claim));
  if (wanted.lease <= wire::Duration::zero())
    return refuse(connection, number, failure(errc::invalid_argument, "a claim cannot be renewed for no time", {}));
  ticket->lease = wanted.lease;
  start_lease(*ticket);
  enforce_until(*ticket);
  world_.memory.granted(record_of(*ticket), ticket->holding);
  send(connection, number, wire::Renewed{ticket->id, *ticket->until - world_.clock.now()});
}

void Desk::say(ConnectionId connection, std::uint32_t number, const wire::Find& wanted,
               const std::optional<Process>& owner) {
  const Connection& speaker = connections_.at(connection);
  if (auto allowed = check_owner(speaker, wanted.owner, owner); !allowed)
    return refuse(connection, number, allowed.error());
  const auto process = processes_.find(owner ? owner->peer.process : speaker.who->process);
  const auto has = [](const Ticket& ticket, const wire::DeviceName& name) {
    return std::ranges::any_of(ticket.nodes, [&](const Node& node) { return node.named && node.key == key_of(name); });
  };
  if (process != processes_.end())
    for (const wire::ClaimId id : owners_.at(process->second).tickets) {
      const Ticket* ticket = find(id);
      if (ticket == nullptr || !ticket->is_held()) continue;
      if (!std::ranges::all_of(wanted.devices, [&](const auto& name) { return has(*ticket, name); })) continue;
      wire::Found found{id, {}};
      if (ticket->until) found.lapses_in = *ticket->until - world_.clock.now();
      send(connection, number, found);
      return;
    }
  refuse(connection, number, failure(errc::not_held, "the process has no such claim", {}));
}

void Desk::say(ConnectionId connection, std::uint32_t number, const wire::StatusQuery& wanted) {
  Connection& asking = connections_.at(connection);
  look_at_guard();
  if (asking.paging)
    return refuse(connection, number,
                  failure(errc::no_resources, "one question about the status after the other, please", {}));
  Paging paging{number, {}};
  if (wanted.devices.empty())
    for (const auto& [key, book] : books_)
      if (book.tickets > 0) paging.left.push_back(key);
  for (const wire::DeviceName& name : wanted.devices) paging.left.push_back(key_of(name));
  std::ranges::reverse(paging.left);
  asking.paging = std::move(paging);
  send_pages(connection);
}

void Desk::say(ConnectionId connection, std::uint32_t number, const wire::Kick& wanted) {
  const Connection& asking = connections_.at(connection);
  const arbiter::DeviceKey key = key_of(wanted.device);
  std::vector<Ticket*> holders;
  for (const arbiter::Holding& holding : arbiter_.holders(key))
    if (Ticket* ticket = find_arbiter(static_cast<std::uint64_t>(holding.claim)); ticket != nullptr)
      if (ticket->is_held()) holders.push_back(ticket);
  if (holders.empty())
    return refuse(connection, number,
                  failure(errc::not_held,
                          fmt::format("{}: nobody holds it through the broker", base::printable(wanted.device.path)),
                          wanted.device.path));
  const Credentials& rights = asking.who->rights;
  const bool administers =
      rights.uid == 0 ||
      (rules_.administrators && (rights.gid == *rules_.administrators ||
                                 std::ranges::find(rights.groups, *rules_.administrators) != rights.groups.end()));
  for (const Ticket* ticket : holders) {
    if (!administers && owners_.at(ticket->owner).who->rights.uid != rights.uid)
      return refuse(connection, number,
                    failure(errc::not_permitted,
                            fmt::format("{} is held by {}: only its user, root and the broker's group may end that",
                                        path_of(key), name_of(ticket->owner)),
                            path_of(key)));
    if (ticket->kicking && ticket->kicking->waiting.size() >= kMostKickers)
      return refuse(connection, number, failure(errc::no_resources, "enough others ask for the same already", {}));
  }
  const arbiter::Time now = world_.clock.now();
  const arbiter::Duration grace = std::max(wanted.grace, arbiter::Duration::zero());
  const arbiter::Time end = grace > arbiter::Time::max() - now ? arbiter::Time::max() : now + grace;
  const DoneLater done{world_.post, connection, number};
  const std::string by = fmt::format("{}[{}] of {}", asking.who->command, asking.who->process.pid, asking.who->user);
  for (Ticket* ticket : holders) {
    if (!ticket->kicking) ticket->kicking.emplace();
    ticket->kicking->by = by;
    ticket->kicking->reason = base::printable(wanted.reason);
    ticket->kicking->waiting.push_back(done);
    const auto earlier = agenda_.at(ticket->id, Due::kick);
    agenda_.set(ticket->id, Due::kick, earlier ? std::min(*earlier, end) : end);
    if (grace > arbiter::Duration::zero())
      notify(*ticket, wire::Ending::asked_to_leave, grace, by, ticket->kicking->reason);
  }
  advance();
}

}  // namespace holdfast::broker
