// SPDX-License-Identifier: MIT
// arbiter_scene.hpp - an arbiter spoken to in letters: owners are 'a', 'b', ..., devices 'X', 'Y', ..., and requests
// are numbered from 1 in the order in which they were made; a claim has the number of its request. What was decided
// comes back as text: "1 granted X#1" (with the token), "2 queued", "3 refused busy: a holds X", "4 refused deadlock: b
// waits for X, a waits for Y".
#pragma once

#include <initializer_list>
#include <map>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "arbiter/arbiter.hpp"

namespace holdfast::arbiter {

struct How {
  Patience patience = Patience::for_ever();
  Priority priority = Priority::normal;
  std::optional<Duration> lease = std::nullopt;
  std::optional<Place> place = std::nullopt;
};
inline const How kTry{Patience::none()};

inline Time second(int n) { return Time{std::chrono::seconds{n}}; }

class Scene {
 public:
  explicit Scene(Policy policy = Policy::phase_fair, std::uint32_t overtake = 64)
      : arbiter_{Rules{.policy = policy, .overtake = overtake}} {}

  std::string exclusive(char owner, std::string_view devices, const How& how = {}) {
    return ask(owner, devices, Mode::exclusive, how);
  }
  std::string shared(char owner, std::string_view devices, const How& how = {}) {
    return ask(owner, devices, Mode::shared, how);
  }
  std::string upgrade(int claim, Patience patience = Patience::for_ever()) {
    return answer([&] {
      const int number = ++asked_;
      const RequestId id = arbiter_.upgrade(now_, owners_[claim], claim_of(claim), patience, out_);
      number_of_[static_cast<std::uint64_t>(id)] = number;
      ids_[number] = static_cast<std::uint64_t>(id);
      owners_[number] = owners_[claim];
    });
  }
  std::string cancel(int request) {
    return answer([&] { done_ = arbiter_.cancel(now_, owners_[request], RequestId{ids_[request]}, out_); });
  }
  std::string release(int claim) {
    return answer([&] { done_ = arbiter_.release(now_, owners_[claim], claim_of(claim), out_); });
  }
  std::string downgrade(int claim) {
    return answer([&] { done_ = arbiter_.downgrade(now_, owners_[claim], claim_of(claim), out_); });
  }
  std::string renew(int claim, Duration lease) {
    return answer([&] { done_ = arbiter_.renew(now_, owners_[claim], claim_of(claim), lease, out_); });
  }
  std::string revoke(int claim) {
    return answer([&] { done_ = arbiter_.revoke(now_, claim_of(claim), Revocation::administrator, out_); });
  }
  std::string die(char owner) {
    return answer([&] { arbiter_.owner_died(now_, owner_of(owner), out_); });
  }
  std::string at(Time now) {
    now_ = now;
    return answer([&] { arbiter_.advance(now_, out_); });
  }

  /// "1 2s 4": those who wait, in order; s for shared.
  std::string queue(char device) const {
    std::string text;
    for (const Waiting& each : arbiter_.queue(DeviceKey{static_cast<std::uint64_t>(device)}))
      text += (text.empty() ? "" : " ") + std::to_string(number_of_.at(static_cast<std::uint64_t>(each.request))) +
              (each.mode == Mode::shared ? "s" : "");
    return text;
  }
  std::string holders(char device) const {
    std::string text;
    for (const Holding& each : arbiter_.holders(DeviceKey{static_cast<std::uint64_t>(device)}))
      text += (text.empty() ? "" : " ") + std::to_string(number_of_.at(static_cast<std::uint64_t>(each.claim))) +
              (each.mode == Mode::shared ? "s" : "");
    return text;
  }
  [[nodiscard]] bool done() const { return done_; }
  Arbiter& arbiter() { return arbiter_; }
  ClaimId claim_of(int number) { return ClaimId{ids_[number]}; }
  RequestId request_of(int number) { return RequestId{ids_[number]}; }
  static OwnerId owner_of(char owner) { return OwnerId{static_cast<std::uint64_t>(owner)}; }

 private:
  std::string ask(char owner, std::string_view devices, Mode mode, const How& how) {
    return answer([&] {
      std::vector<DeviceKey> keys;
      for (const char device : devices) keys.push_back(DeviceKey{static_cast<std::uint64_t>(device)});
      const int number = ++asked_;
      const RequestId id = arbiter_.request(now_,
                                            {.owner = owner_of(owner),
                                             .devices = keys,
                                             .mode = mode,
                                             .patience = how.patience,
                                             .priority = how.priority,
                                             .lease = how.lease,
                                             .place = how.place},
                                            out_);
      number_of_[static_cast<std::uint64_t>(id)] = number;
      ids_[number] = static_cast<std::uint64_t>(id);
      owners_[number] = owner_of(owner);
    });
  }
  template <class Do>
  std::string answer(Do what) {
    out_.clear();
    what();
    std::string text;
    for (const Decision& each : out_.all())
      text += (text.empty() ? "" : ", ") + std::visit([&](const auto& decision) { return words(decision); }, each);
    return text;
  }

  template <class Id>
  std::string number(Id id) const {
    return std::to_string(number_of_.at(static_cast<std::uint64_t>(id)));
  }
  template <class Id>
  static std::string letter(Id id) {
    return {static_cast<char>(id)};
  }
  static std::string set(std::span<const Held> devices) {
    std::string text;
    for (const Held& each : devices)
      text += " " + letter(each.device) + "#" + std::to_string(static_cast<std::uint64_t>(each.token));
    return text;
  }
  std::string words(const Granted& granted) const {
    return number(granted.request) + " granted" + set(out_.devices(granted));
  }
  std::string words(const Queued& queued) const { return number(queued.request) + " queued"; }
  std::string words(const Upgraded& upgraded) const {
    return number(upgraded.claim) + " upgraded" + set(out_.devices(upgraded));
  }
  std::string words(const Downgraded& downgraded) const { return number(downgraded.claim) + " downgraded"; }
  std::string words(const Renewed& renewed) const { return number(renewed.claim) + " renewed"; }
  std::string words(const Withdrawn& withdrawn) const {
    constexpr const char* kWhy[] = {"cancelled", "timed out", "withdrawn by death", "withdrawn with its claim"};
    return number(withdrawn.request) + " " + kWhy[static_cast<int>(withdrawn.why)];
  }
  std::string words(const Ended& ended) const {
    constexpr const char* kWhy[] = {"released", "lapsed", "revoked", "ended by death"};
    return number(ended.claim) + " " + kWhy[static_cast<int>(ended.why)];
  }
  std::string words(const Refused& refused) const {
    constexpr const char* kReason[] = {"busy", "deadlock", "already upgrading", "not held", "no device"};
    std::string text = number(refused.request) + " refused " + kReason[static_cast<int>(refused.reason)];
    const char* before = ": ";
    if (refused.reason == Reason::deadlock) {
      for (const WaitsFor& each : out_.cycle(refused)) {
        text += before + letter(each.owner) + " waits for " + letter(each.device);
        before = ", ";
      }
      return text;
    }
    constexpr const char* kHow[] = {"holds", "waits for", "upgrades"};
    for (const Blocker& each : out_.blockers(refused)) {
      text += before + letter(each.owner) + " " + kHow[static_cast<int>(each.how)] + " " + letter(each.device);
      before = ", ";
    }
    return text;
  }

  Arbiter arbiter_;
  Decisions out_;
  Time now_ = second(0);
  int asked_ = 0;
  bool done_ = false;
  std::map<int, std::uint64_t> ids_;
  std::map<int, OwnerId> owners_;
  std::map<std::uint64_t, int> number_of_;
};

}  // namespace holdfast::arbiter
