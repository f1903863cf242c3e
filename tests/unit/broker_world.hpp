// SPDX-License-Identifier: MIT
// broker_world.hpp - a world for the desk in which nothing is real: a clock that stands, hands that do as they are
// told, and connections that write down what they are sent, in the order of all that happens.
#pragma once

#include "broker/desk.hpp"

#include <fmt/format.h>
#include <sys/eventfd.h>

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace holdfast::broker {

class FakeWorld final : Clock, Post, Devices, Gate, Memory, Events, Hooks, Strangers, Deaths, Hands {
 public:
  explicit FakeWorld(Rulebook rules = {})
      : desk{World{*this, *this, *this, *this, *this, *this, *this, *this, *this, *this}, rules} {}

  Desk& operator*() { return desk; }
  Desk* operator->() { return &desk; }

  // --- What the test says.
  /// Connections are named by letters; each is of a process of its own, of `uid`.
  void connect(char name, uid_t uid = 1000) {
    Process process;
    process.peer.process = {name, 1};
    process.peer.rights.uid = uid;
    process.peer.user = fmt::format("user{}", uid);
    process.peer.command = std::string(1, name);
    desk.opened(ConnectionId{static_cast<std::uint64_t>(name)}, std::move(process));
  }
  std::uint32_t say(char name, wire::FromClient message, Enclosed enclosed = {}) {
    wire::Numbered<wire::FromClient> numbered{next_number++, std::move(message)};
    desk.heard(ConnectionId{static_cast<std::uint64_t>(name)}, numbered, std::move(enclosed));
    return numbered.number;
  }
  static wire::Claim claim_of(std::string_view minors, wire::Patience patience = {true, {}}) {
    wire::Claim claim;
    for (const char minor : minors)
      claim.devices.push_back({"", wire::NodeKind::character, 4, static_cast<std::uint32_t>(minor), 0});
    claim.patience = patience;
    return claim;
  }
  void hang_up(char name, Farewell farewell = Farewell::read) {
    desk.closed(ConnectionId{static_cast<std::uint64_t>(name)}, farewell);
  }
  void kill(char name) { desk.owner_died(owners.at(name)); }
  void pass(arbiter::Duration time) {
    clock_now += time;
    desk.advance();
  }
  /// What happened since it was asked last, separated by commas.
  std::string heard() {
    std::string all;
    for (const std::string& line : std::exchange(lines, {})) all += (all.empty() ? "" : ", ") + line;
    return all;
  }
  wire::ClaimId claim(char name) const { return claims.at(name); }
  const wire::Refused& refusal() const { return last_refusal; }

  // --- What the test arranges.
  bool hands_are_slow = false;
  std::optional<std::string> stranger;   ///< who has every device
  std::optional<std::string> forbidden;  ///< why nobody may
  bool hooks_are_slow = false;
  std::optional<std::string> hooks_say;  ///< why not
  bool watches_strangers = true;
  bool post_is_stuck = false;  ///< connections read nothing
  std::vector<wire::ClaimId> asked_hands;
  std::vector<wire::ClaimId> asked_hooks;
  std::vector<wire::ClaimId> watched;
  std::vector<wire::ClaimId> journal;
  std::vector<wire::Event> events;
  std::map<char, wire::RevokeNotice> notices;
  std::map<char, wire::Queued> queued;
  std::vector<wire::StatusAnswer> status;

  void finish_taking(wire::ClaimId claim) { desk.taken(claim, take_now()); }
  Hands::Taken take_now() {
    if (!stranger) return claiming::Holding{};
    claiming::Obstruction obstruction;
    obstruction.obstacle.kind = convention::Obstacle::Kind::busy;
    obstruction.obstacle.error.code = errc::refused;
    obstruction.obstacle.error.message = *stranger;
    return std::unexpected(std::move(obstruction));
  }

 private:
  static std::string name_of(ConnectionId id) { return std::string(1, static_cast<char>(id)); }

  arbiter::Time now() const override { return clock_now; }
  wire::WallTime wall() const override { return wire::WallTime{clock_now.time_since_epoch()}; }

  bool send(ConnectionId to, std::uint32_t /*number*/, const wire::FromBroker& message, std::span<const int>) override {
    const char name = static_cast<char>(to);
    const auto line = [&](const std::string& what) { lines.push_back(fmt::format("{}:{}", name, what)); };
    if (const auto* granted = std::get_if<wire::Granted>(&message)) {
      claims[name] = granted->claim;
      line(granted->mode == Mode::shared ? "shared" : "granted");
    } else if (const auto* waits = std::get_if<wire::Queued>(&message)) {
      queued[name] = *waits;
      line(fmt::format("queued {}", waits->ahead));
    } else if (const auto* refused = std::get_if<wire::Refused>(&message)) {
      last_refusal = *refused;
      line(std::string{"no: "} + make_error_code(refused->code).message());
    } else if (std::holds_alternative<wire::Done>(message)) {
      line("done");
    } else if (std::holds_alternative<wire::Renewed>(message)) {
      line("renewed");
    } else if (const auto* notice = std::get_if<wire::RevokeNotice>(&message)) {
      notices[name] = *notice;
      line(fmt::format("notice {}", static_cast<int>(notice->why)));
    } else if (std::holds_alternative<wire::NotMine>(message)) {
      line("not mine");
    } else if (const auto* found = std::get_if<wire::Found>(&message)) {
      line(found->claim == claims[name] ? "found" : "found another");
    } else if (const auto* answer = std::get_if<wire::StatusAnswer>(&message)) {
      status.push_back(*answer);
      line("status");
    }
    return true;
  }
  std::size_t queued_bytes(ConnectionId) const override { return post_is_stuck ? 1U << 20 : 0; }
  void close(ConnectionId which) override { lines.push_back(fmt::format("{}:closed", name_of(which))); }

  // Minor numbers are letters; a digit is a device that is not there, a capital letter a disk with its partition.
  Result<std::shared_ptr<const device::Device>> find(const wire::DeviceName& name) override {
    if (name.minor < 'A') return std::unexpected(Error{errc::no_such_device, "not here", "", {}, 0});
    auto device = std::make_shared<device::Device>();
    device->node.id = {device::Kind::character, name.major, name.minor, 0};
    device->node.path = fmt::format("/dev/{}", static_cast<char>(name.minor));
    device->given = device->node.path;
    device->family = device::Family::terminal;
    if (name.minor < 'a') {
      device::Sibling part;
      part.node.id = {device::Kind::character, name.major, name.minor - 'A' + 'a', 0};
      part.node.path = fmt::format("/dev/{}", static_cast<char>(part.node.id.minor));
      part.relation = device::Relation::partition;
      device->siblings.push_back(part);
    }
    return device;
  }
  Result<> may_claim(const device::Device&, const Peer&) override {
    if (forbidden) return std::unexpected(Error{errc::not_permitted, *forbidden, "", {}, 0});
    return {};
  }
  void granted(const ClaimRecord& claim, const claiming::Holding&) override { journal.push_back(claim.id); }
  void ended(wire::ClaimId claim) override { std::erase(journal, claim); }
  void happened(const wire::Event& event) override { events.push_back(event); }
  std::optional<Result<>> before_grant(const ClaimRecord& claim) override {
    asked_hooks.push_back(claim.id);
    if (hooks_are_slow) return std::nullopt;
    if (hooks_say) return Result<>{std::unexpected(Error{errc::refused, *hooks_say, "", {}, 0})};
    return Result<>{};
  }
  void after_end(const ClaimRecord&, arbiter::End) override { lines.emplace_back("hook"); }
  void forget(wire::ClaimId claim) override { std::erase(watched, claim); }
  bool watch(wire::ClaimId claim, const claiming::Obstruction&, const Taking&) override {
    watched.push_back(claim);
    return watches_strangers;
  }
  void watch(arbiter::OwnerId owner, base::UniqueFd) override { owners[next_owner_name(owner)] = owner; }
  void forget(arbiter::OwnerId owner) override {
    std::erase_if(owners, [&](const auto& each) { return each.second == owner; });
  }
  std::optional<Taken> take(wire::ClaimId claim, const Taking&) override {
    asked_hands.push_back(claim);
    if (hands_are_slow) return std::nullopt;
    return take_now();
  }
  std::optional<Changed> change(wire::ClaimId, claiming::Holding holding, Mode) override {
    if (stranger) return Changed{std::move(holding), std::unexpected(Error{errc::refused, *stranger, "", {}, 0})};
    return Changed{std::move(holding), {}};
  }
  std::optional<Result<claiming::Holding>> adopt(wire::ClaimId, const Taking&, wire::Marks,
                                                 std::vector<base::ProcessFd>) override {
    return claiming::Holding{};
  }
  bool give_back(wire::ClaimId, claiming::Holding) override {
    lines.emplace_back("given back");
    return !hands_are_slow;
  }
  // The desk numbers owners in the order in which it meets them.
  char next_owner_name(arbiter::OwnerId owner) { return static_cast<char>('a' + static_cast<int>(owner) - 1); }

 public:
  arbiter::Time clock_now{std::chrono::hours{1}};

 private:
  std::map<char, arbiter::OwnerId> owners;
  std::map<char, wire::ClaimId> claims;
  std::vector<std::string> lines;
  std::uint32_t next_number = 2;
  wire::Refused last_refusal;

 public:
  Desk desk;
};

}  // namespace holdfast::broker
