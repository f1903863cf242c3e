// SPDX-License-Identifier: MIT
// agenda.hpp - what the desk has to do at an instant, one entry for each claim and kind. The arbiter keeps the
// deadlines of those who wait and the ends of claims by itself.
#pragma once

#include "arbiter/values.hpp"
#include "wire/message.hpp"

#include <array>
#include <cstdint>
#include <optional>
#include <set>
#include <tuple>
#include <unordered_map>

namespace holdfast::broker {

enum class Due : std::uint8_t {
  deadline,          ///< of a request that was elected, but has a stranger in its way
  upgrade_deadline,  ///< the same of an upgrade
  retry,             ///< to take the marks again
  lapses_soon,       ///< the holder is to be warned
  kick,              ///< the grace is over
};
inline constexpr std::size_t kDues = 5;

class Agenda {
 public:
  struct Entry {
    arbiter::Time at;
    wire::ClaimId claim{};
    Due due = Due::deadline;
    auto operator<=>(const Entry&) const = default;
  };

  /// In place of an earlier one.
  void set(wire::ClaimId claim, Due due, arbiter::Time at) {
    clear(claim, due);
    entries_.insert({at, claim, due});
    times_[claim][static_cast<std::size_t>(due)] = at;
  }
  void clear(wire::ClaimId claim, Due due) {
    const auto found = times_.find(claim);
    if (found == times_.end()) return;
    auto& time = found->second[static_cast<std::size_t>(due)];
    if (time) entries_.erase({*time, claim, due});
    time.reset();
  }
  void clear(wire::ClaimId claim) {
    for (std::size_t due = 0; due < kDues; ++due) clear(claim, static_cast<Due>(due));
    times_.erase(claim);
  }
  [[nodiscard]] std::optional<arbiter::Time> at(wire::ClaimId claim, Due due) const {
    const auto found = times_.find(claim);
    return found == times_.end() ? std::nullopt : found->second[static_cast<std::size_t>(due)];
  }
  [[nodiscard]] std::optional<arbiter::Time> next() const {
    return entries_.empty() ? std::nullopt : std::optional{entries_.begin()->at};
  }
  /// Takes out the first that is due.
  [[nodiscard]] std::optional<Entry> pop(arbiter::Time now) {
    if (entries_.empty() || entries_.begin()->at > now) return std::nullopt;
    const Entry entry = *entries_.begin();
    clear(entry.claim, entry.due);
    return entry;
  }

 private:
  std::set<Entry> entries_;
  std::unordered_map<wire::ClaimId, std::array<std::optional<arbiter::Time>, kDues>> times_;
};

}  // namespace holdfast::broker
