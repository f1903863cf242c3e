// SPDX-License-Identifier: MIT
// place_seal.hpp - places that only this broker and the next one can give.
//
// A waiter is told its place in the order, and comes back to it after a restart. A number that anybody may invent would
// be a way past those who wait; so it is enciphered, under a key that the journal keeps and that differs from waiter to
// waiter and from one set of devices to another. What was not enciphered for this waiter comes out as a number with 20
// high bits that are not all 0, but for one try in a million; and as one that is of use in far fewer still.
#pragma once

#include "arbiter/values.hpp"
#include "base/process.hpp"
#include "wire/message.hpp"

#include <array>
#include <cstdint>
#include <optional>
#include <span>

namespace holdfast::broker {

using PlaceKey = std::array<std::uint64_t, 2>;
/// From the kernel's generator.
[[nodiscard]] PlaceKey new_place_key();

class PlaceSeal {
 public:
  explicit PlaceSeal(const PlaceKey& key = {}) : key_{key} {}
  [[nodiscard]] wire::Place sealed(arbiter::Place place, const base::ProcessId& waiter,
                                   std::span<const arbiter::DeviceKey> devices) const;
  /// nullopt when it is no place of this waiter's for these devices.
  [[nodiscard]] std::optional<arbiter::Place> opened(wire::Place place, const base::ProcessId& waiter,
                                                     std::span<const arbiter::DeviceKey> devices) const;

 private:
  PlaceKey key_;
};

/// SipHash-2-4 (Aumasson, Bernstein) of 64-bit words. Public for its test.
[[nodiscard]] std::uint64_t sip_hash(const PlaceKey& key, std::span<const std::uint64_t> words);

}  // namespace holdfast::broker
