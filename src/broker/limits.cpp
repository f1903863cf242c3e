// SPDX-License-Identifier: MIT
// limits.cpp - see the header.
#include "broker/limits.hpp"

#include <algorithm>
#include <chrono>

namespace holdfast::broker {

using namespace std::chrono_literals;

namespace {

constexpr uid_t kRoot = 0;
constexpr arbiter::Duration kPause = 10ms;  // a user over the rate is not listened to for so long at once

}  // namespace

bool Count::add(uid_t uid, std::size_t more) {
  const std::size_t now = of(uid);
  if (uid != kRoot && now + more > most_) return false;
  counts_[uid] = now + more;
  return true;
}

void Count::remove(uid_t uid, std::size_t less) {
  const auto found = counts_.find(uid);
  if (found == counts_.end()) return;
  found->second -= std::min(found->second, less);
  if (found->second == 0) counts_.erase(found);
}

std::size_t Count::of(uid_t uid) const {
  const auto found = counts_.find(uid);
  return found == counts_.end() ? 0 : found->second;
}

std::optional<arbiter::Time> Rate::count(uid_t uid, arbiter::Time now) {
  if (uid == kRoot) return std::nullopt;
  arbiter::Time& full_at = full_at_.try_emplace(uid, now).first->second;
  full_at = std::max(full_at, now) + arbiter::Duration{1s} / per_second_;
  if (full_at - now <= 1s) return std::nullopt;
  return now + kPause;
}

void Rate::sweep(arbiter::Time now) {
  std::erase_if(full_at_, [&](const auto& each) { return each.second <= now; });
}

}  // namespace holdfast::broker
