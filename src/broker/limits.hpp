// SPDX-License-Identifier: MIT
// limits.hpp - how much of the broker one user may have. A user who takes too much is told so, or is not listened to
// for a while; the others notice nothing. Root could end the broker anyway, and is not counted.
#pragma once

#include "arbiter/values.hpp"

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <unordered_map>

namespace holdfast::broker {

struct Limits {
  std::size_t connections = 512;
  std::size_t claims = 1024;           ///< held
  std::size_t waiters = 4096;          ///< requests that are not answered yet
  std::size_t queued_bytes = 1 << 22;  ///< waiting to be read, all connections together
  std::size_t descriptors = 4096;   ///< sent and not read: the kernel counts them all as ours (unix(7), ETOOMANYREFS)
  std::uint32_t messages = 50'000;  ///< per second, and at once after a rest
};

/// What each user has, of one thing.
class Count {
 public:
  explicit Count(std::size_t most) : most_{most} {}
  /// False, and nothing is added, when it would be too much.
  [[nodiscard]] bool add(uid_t uid, std::size_t more = 1);
  /// Adds whatever the limit says.
  void force(uid_t uid) { ++counts_[uid]; }
  void remove(uid_t uid, std::size_t less = 1);
  [[nodiscard]] std::size_t of(uid_t uid) const;

 private:
  std::size_t most_;
  std::unordered_map<uid_t, std::size_t> counts_;
};

/// A bucket for each user that fills with time.
class Rate {
 public:
  explicit Rate(std::uint32_t per_second) : per_second_{per_second} {}
  /// Counts one message. Nothing: go on; else the instant from which on the user is to be listened to again.
  [[nodiscard]] std::optional<arbiter::Time> count(uid_t uid, arbiter::Time now);
  /// Forgets users whose buckets are full again.
  void sweep(arbiter::Time now);

 private:
  // When the bucket is full again: a bucket in one number (the "generic cell rate algorithm").
  std::uint32_t per_second_;
  std::unordered_map<uid_t, arbiter::Time> full_at_;
};

}  // namespace holdfast::broker
