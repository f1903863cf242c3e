// SPDX-License-Identifier: MIT
// place_seal.cpp - see the header. The cipher is four rounds of a Feistel network over the halves of the number, whose
// round function is SipHash (Luby and Rackoff: four rounds of a pseudo-random function are a pseudo-random
// permutation).
#include "broker/place_seal.hpp"

#include <sys/random.h>

#include <algorithm>
#include <bit>
#include <vector>

namespace holdfast::broker {
namespace {

constexpr unsigned kRounds = 4;
constexpr std::uint64_t kPlaces = std::uint64_t{1} << 44U;

// The halves change places in each round, and once more at the end, so that the rounds in reverse are the inverse.
std::uint64_t encipher(const PlaceKey& key, std::uint64_t number, bool backwards) {
  auto left = static_cast<std::uint32_t>(number >> 32U);
  auto right = static_cast<std::uint32_t>(number);
  for (unsigned i = 0; i < kRounds; ++i) {
    const std::uint64_t round = backwards ? kRounds - 1 - i : i;
    const std::array<std::uint64_t, 2> words{round, right};
    left ^= static_cast<std::uint32_t>(sip_hash(key, words));
    std::swap(left, right);
  }
  return std::uint64_t{right} << 32U | left;
}

PlaceKey key_for(const PlaceKey& key, const base::ProcessId& waiter, std::span<const arbiter::DeviceKey> devices) {
  std::vector<std::uint64_t> words{0, static_cast<std::uint64_t>(waiter.pid), waiter.start_ticks};
  for (const arbiter::DeviceKey device : devices) words.push_back(static_cast<std::uint64_t>(device));
  PlaceKey made{};
  for (std::uint64_t i = 0; i < made.size(); ++i) {
    words[0] = i;
    made.at(i) = sip_hash(key, words);
  }
  return made;
}

}  // namespace

std::uint64_t sip_hash(const PlaceKey& key, std::span<const std::uint64_t> words) {
  std::array<std::uint64_t, 4> v{key[0] ^ 0x736f6d6570736575U, key[1] ^ 0x646f72616e646f6dU,
                                 key[0] ^ 0x6c7967656e657261U, key[1] ^ 0x7465646279746573U};
  const auto round = [&v] {
    v[0] += v[1];
    v[1] = std::rotl(v[1], 13) ^ v[0];
    v[0] = std::rotl(v[0], 32);
    v[2] += v[3];
    v[3] = std::rotl(v[3], 16) ^ v[2];
    v[0] += v[3];
    v[3] = std::rotl(v[3], 21) ^ v[0];
    v[2] += v[1];
    v[1] = std::rotl(v[1], 17) ^ v[2];
    v[2] = std::rotl(v[2], 32);
  };
  const auto absorb = [&](std::uint64_t word) {
    v[3] ^= word;
    round();
    round();
    v[0] ^= word;
  };
  for (const std::uint64_t word : words) absorb(word);
  absorb(std::uint64_t{words.size_bytes() & 0xffU} << 56U);
  v[2] ^= 0xff;
  for (int i = 0; i < 4; ++i) round();
  return v[0] ^ v[1] ^ v[2] ^ v[3];
}

PlaceKey new_place_key() {
  PlaceKey key{};
  // Up to 256 bytes are never cut short (getrandom(2)).
  [[maybe_unused]] const ssize_t got = ::getrandom(key.data(), sizeof key, 0);
  return key;
}

wire::Place PlaceSeal::sealed(arbiter::Place place, const base::ProcessId& waiter,
                              std::span<const arbiter::DeviceKey> devices) const {
  return wire::Place{encipher(key_for(key_, waiter, devices), static_cast<std::uint64_t>(place), false)};
}

std::optional<arbiter::Place> PlaceSeal::opened(wire::Place place, const base::ProcessId& waiter,
                                                std::span<const arbiter::DeviceKey> devices) const {
  const std::uint64_t number = encipher(key_for(key_, waiter, devices), static_cast<std::uint64_t>(place), true);
  if (number >= kPlaces) return std::nullopt;
  return arbiter::Place{number};
}

}  // namespace holdfast::broker
