// SPDX-License-Identifier: MIT
// store.hpp - claims' descriptors in the care of systemd while there is no broker (sd_notify(3), FDSTORE=1).
//
// The store gives back single descriptors in no order. So a claim is one descriptor there: a socket in whose queue lies
// one message, the claim's marks with all their descriptors, which live as long as the queue does. What is read of it
// is peeked at, so that it is there for the broker after the next, too.
//
// Two kinds of claims are not kept: those that ended before they were a second old, because systemd reads its messages
// one by one, unless nobody but the broker has their descriptors any more; and those that hold O_EXCL, because that
// ends with the last copy, and systemd would close its own too late for the next in the queue. Clients that have copies
// resume.
#pragma once

#include "base/process_fd.hpp"
#include "base/unique_fd.hpp"
#include "claim/holding.hpp"
#include "wire/message.hpp"

#include <chrono>
#include <map>
#include <optional>
#include <vector>

namespace holdfast::broker {

class DescriptorStore {
 public:
  using Clock = std::chrono::steady_clock;
  struct Kept {
    wire::ClaimId claim{};
    wire::Marks marks;
    std::vector<base::ProcessFd> descriptors;
  };

  /// Without systemd ($NOTIFY_SOCKET) it keeps nothing.
  DescriptorStore();

  /// What an earlier broker left. To be called once, before threads and forks; what cannot be understood is removed.
  [[nodiscard]] std::vector<Kept> take_over();

  /// Kept once it is a second old. A claim that is kept already stays as it is.
  void keep(wire::ClaimId claim, const claiming::Holding& holding, Clock::time_point now);
  /// Kept at once, unless there were too many of these: nobody else has its descriptors any more.
  void hurry(wire::ClaimId claim, Clock::time_point now);
  /// Before its marks are given back.
  void drop(wire::ClaimId claim);

  /// When advance() has something to do.
  [[nodiscard]] std::optional<Clock::time_point> next_due() const;
  void advance(Clock::time_point now);

 private:
  /// nothing: it is with systemd.
  struct Entry {
    std::optional<Clock::time_point> due;
    base::UniqueFd socket;
  };
  void send(wire::ClaimId claim, Entry& entry, Clock::time_point now);
  void wait_until(Clock::time_point due);
  bool may_send_at_once(Clock::time_point now);

  bool is_there_ = false;
  std::map<wire::ClaimId, Entry> entries_;
  std::optional<Clock::time_point> next_due_;  // of an entry, or earlier
  Clock::time_point second_ends_{};
  int sent_at_once_ = 0;
};

}  // namespace holdfast::broker
