// SPDX-License-Identifier: MIT
// Places in the queue: who was given one comes back to it, nobody else does.
#include "broker/place_seal.hpp"

#include <gtest/gtest.h>

#include <vector>

namespace holdfast::broker {
namespace {

const std::vector<arbiter::DeviceKey> kDevices{arbiter::DeviceKey{7}, arbiter::DeviceKey{9}};
const std::vector<arbiter::DeviceKey> kOther{arbiter::DeviceKey{7}};
const base::ProcessId kWaiter{4121, 998877};

TEST(SipHash, is_the_published_function) {
  // The 8-byte row of the authors' table: key 00..0f, message 00..07.
  const PlaceKey key{0x0706050403020100U, 0x0f0e0d0c0b0a0908U};
  const std::vector<std::uint64_t> words{0x0706050403020100U};
  EXPECT_EQ(sip_hash(key, words), 0x93f5f5799a932462U);
}

TEST(PlaceSeal, is_opened_for_whom_and_for_what_it_was_made) {
  const PlaceSeal seal{new_place_key()};
  for (const std::uint64_t number : {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{1} << 43U}) {
    const wire::Place place = seal.sealed(arbiter::Place{number}, kWaiter, kDevices);
    EXPECT_EQ(seal.opened(place, kWaiter, kDevices), arbiter::Place{number});
  }
}

TEST(PlaceSeal, is_no_place_for_another_waiter_or_another_device_or_another_broker) {
  const PlaceSeal seal{{1, 2}};
  const wire::Place place = seal.sealed(arbiter::Place{5}, kWaiter, kDevices);
  EXPECT_FALSE(seal.opened(place, {4121, 998878}, kDevices));
  EXPECT_FALSE(seal.opened(place, {4122, 998877}, kDevices));
  EXPECT_FALSE(seal.opened(place, kWaiter, kOther));
  EXPECT_FALSE((PlaceSeal{{1, 3}}.opened(place, kWaiter, kDevices)));
}

TEST(PlaceSeal, is_not_invented) {
  const PlaceSeal seal{{1, 2}};
  int opened = 0;
  for (std::uint64_t number = 0; number < 100'000; ++number)
    opened += seal.opened(wire::Place{number}, kWaiter, kDevices) ? 1 : 0;
  EXPECT_LE(opened, 3) << "of a hundred thousand, where one in a million is expected";
}

}  // namespace
}  // namespace holdfast::broker
