// SPDX-License-Identifier: MIT
// stranger_watch.hpp - whether what stands in an elected claim's way has gone: a foreign program, or a holdfast that
// did not come through the broker. The same looks as a daemonless waiter's (claim/obstacle_look.hpp), for many claims
// in one loop: one descriptor to poll, and one time for the next look.
#pragma once

#include "base/places.hpp"
#include "base/unique_fd.hpp"
#include "broker/interfaces.hpp"
#include "convention/proxy.hpp"

#include <chrono>
#include <cstddef>
#include <map>
#include <optional>
#include <vector>

namespace holdfast::broker {

class StrangerWatch final : public Strangers {
 public:
  using Clock = std::chrono::steady_clock;

  explicit StrangerWatch(base::Places places = {});

  /// Enters the owner as waiting where daemonless claims see it, once for each device and claim.
  bool watch(wire::ClaimId claim, const claiming::Obstruction& obstruction, const Taking& taking) override;
  void forget(wire::ClaimId claim) override;

  /// Readable when something was heard; -1 where there is no more inotify(7): then looking alone is left.
  [[nodiscard]] int fd() const { return inotify_.get(); }
  [[nodiscard]] std::optional<Clock::time_point> next_look() const;
  /// To be called when fd() is readable or next_look() has come: the claims that may have their way free, each once
  /// until it is watched again. They stay entered as waiting until they are forgotten.
  [[nodiscard]] std::vector<wire::ClaimId> worth_trying(Clock::time_point now);

 private:
  struct Slot {
    device::DeviceId id;
    convention::WaiterSlot entry;
  };
  struct Watched {
    convention::Terms terms;
    std::vector<device::Device> devices;
    std::vector<Slot> slots;
    Convention convention = Convention::proxy;
    device::Node node;
    std::vector<int> watches;
    std::optional<Clock::time_point> next_look;  // nothing: it was said to be worth trying
    Clock::time_point not_before;                // of looks after an event
    std::size_t pauses = 0;                      // of claiming::kAfterEvent that are to come
  };

  bool listen(wire::ClaimId claim, Watched& watched);  // whether it is to something new
  void hear(Clock::time_point now);
  [[nodiscard]] bool stands(const Watched& watched) const;
  [[nodiscard]] bool is_worth_trying(Watched& watched, Clock::time_point now) const;

  base::Places places_;
  base::UniqueFd inotify_;
  std::map<wire::ClaimId, Watched> watched_;
  std::map<int, std::vector<wire::ClaimId>> listeners_;  // of each watch descriptor
};

}  // namespace holdfast::broker
