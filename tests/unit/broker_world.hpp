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

class FakeWorld : Clock, Post, Devices, Gate, Memory, Events, Hooks, Strangers, Deaths, Hands, Enforcer {
 public:
  explicit FakeWorld(Rulebook rules = {})
      : desk{World{*this, *this, *this, *this, *this, *this, *this, *this, *this, *this, *this}, rules} {}

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
  wire::WallTime wall() const override { return wire::WallTime{clock_now.time_since_epoch()}; }
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
  bool post_is_stuck = false;        ///< connections read nothing
  std::uint64_t guard_number = 0;    ///< 0: none is installed
  std::optional<errc> guard_says;    ///< why not
  std::vector<std::string> guarded;  ///< who owns which devices: "a:xy"
  std::vector<Wish> wishes;
  std::vector<guard::Enforced> journaled;  ///< with the grants
  std::map<char, Enforcement> levels;      ///< that were granted
  std::vector<std::string> denial_notices;
  std::vector<wire::ClaimId> asked_hands;
  std::vector<wire::ClaimId> asked_hooks;
  std::vector<wire::ClaimId> watched;
  std::vector<wire::ClaimId> journal;
  std::vector<wire::Event> events;
  std::vector<wire::ClaimId> alone;  ///< claims of which nobody but the broker has the descriptors
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

  bool send(ConnectionId to, std::uint32_t /*number*/, const wire::FromBroker& message, std::span<const int>) override {
    const char name = static_cast<char>(to);
    const auto line = [&](const std::string& what) { lines.push_back(fmt::format("{}:{}", name, what)); };
    if (const auto* granted = std::get_if<wire::Granted>(&message)) {
      claims[name] = granted->claim;
      levels[name] = granted->enforcement;
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
      if (notice->why == wire::Ending::denied) denial_notices.push_back(notice->reason);
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
  void granted(const ClaimRecord& claim, const claiming::Holding&) override {
    journal.push_back(claim.id);
    if (claim.enforced) journaled.push_back(*claim.enforced);
    if (guard_number != 0) lines.emplace_back("journal");
  }
  void ended(wire::ClaimId claim) override { std::erase(journal, claim); }
  void is_ours_alone(wire::ClaimId claim) override { alone.push_back(claim); }
  void passed_on(wire::ClaimId from, const ClaimRecord& to, const claiming::Holding&) override {
    std::erase(journal, from);
    journal.push_back(to.id);
  }
  void happened(const wire::Event& event) override { events.push_back(event); }
  std::optional<Result<>> before_grant(const ClaimRecord& claim) override {
    asked_hooks.push_back(claim.id);
    if (hooks_are_slow) return std::nullopt;
    if (hooks_say) return Result<>{std::unexpected(Error{errc::refused, *hooks_say, "", {}, 0})};
    return Result<>{};
  }
  bool are_there() override { return hooks_are_slow || hooks_say; }
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
  bool can_pass_on(const claiming::Holding&) override { return !stranger; }
  std::string lock_file_of(const Taking&) override { return {}; }
  void pass_on(claiming::Holding&, const Taking& to, const std::string&, wire::WallTime) override {
    lines.push_back(fmt::format("passed on to {}", static_cast<char>(to.owner.pid)));
  }
  bool give_back(wire::ClaimId, claiming::Holding) override {
    lines.emplace_back("given back");
    return !hands_are_slow;
  }
  // --- The guard: its owner is a letter, its devices are minor numbers.
  std::uint64_t installed() override { return guard_number; }
  std::string lack() override { return "the guard is not installed: `holdfast guard on`"; }
  static std::string owner_and_devices(const guard::Enforced& claim) {
    std::string text(1, static_cast<char>(claim.root.tgid));
    text += ':';
    for (const hf_guard_device& device : claim.devices) text += static_cast<char>(device.dev & 0xffU);
    return text;
  }
  Result<guard::Enforced> enforce(const Wish& wish) override {
    wishes.push_back(wish);
    if (guard_says) return std::unexpected(Error{*guard_says, "the guard says no", "", {}, 0});
    guard::Enforced claim;
    claim.root.tgid = static_cast<std::uint32_t>(wish.owner.pid);
    for (const device::Node& node : wish.nodes) {
      hf_guard_device device{};
      device.dev = HF_GUARD_DEV(node.id.major, node.id.minor);
      claim.devices.push_back(device);
    }
    guarded.push_back(owner_and_devices(claim));
    lines.push_back("guard " + guarded.back());
    return claim;
  }
  Result<guard::Enforced> hand_over(const guard::Enforced& from, const Wish& wish) override {
    if (guard_says) return std::unexpected(Error{*guard_says, "the guard says no", "", {}, 0});
    wishes.push_back(wish);
    guard::Enforced claim = from;
    claim.root.tgid = static_cast<std::uint32_t>(wish.owner.pid);
    std::ranges::replace(guarded, owner_and_devices(from), owner_and_devices(claim));
    lines.push_back(fmt::format("guard {} to {}", owner_and_devices(from), owner_and_devices(claim)));
    return claim;
  }
  Result<> renew(guard::Enforced& claim, std::optional<arbiter::Time> until) override {
    if (guard_says) return std::unexpected(Error{*guard_says, "the guard says no", "", {}, 0});
    lines.push_back(fmt::format("{} until {}", owner_and_devices(claim), until ? "then" : "ever"));
    return {};
  }
  void release(const guard::Enforced& claim) override {
    const auto found = std::ranges::find(guarded, owner_and_devices(claim));
    if (found != guarded.end()) guarded.erase(found);
    lines.push_back("cut " + owner_and_devices(claim));
  }
  std::uint64_t denials(const device::DeviceId& device) override { return device.minor; }

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
