// SPDX-License-Identifier: MIT
// wire_fuzz.cpp - packets that anybody may send to the broker, or a false broker to a client. The first byte is the
// number of descriptors that came beside. What is understood must be exactly what we would have written for it.
#include "fuzz.hpp"

#include "wire/codec.hpp"

#include <algorithm>
#include <span>
#include <vector>

using namespace holdfast;
using fuzz::require;

namespace {

template <class Side>
void same_again(const std::expected<wire::Numbered<Side>, wire::Fault>& message, std::span<const std::byte> packet) {
  if (!message) return require(message.error() != wire::Fault::too_large, "too large is said by the writer alone");
  if (packet[2] != std::byte{wire::kVersion})
    return require(message->body.index() == 0, "a greeting of another version");
  std::vector<std::byte> again;
  require(wire::encode(message->number, message->body, again).has_value(), "what was read can be written");
  require(std::ranges::equal(again, packet), "each byte of it had a meaning");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::size_t descriptors = data[0];
  const std::span<const std::byte> packet{reinterpret_cast<const std::byte*>(data + 1), size - 1};
  const auto from_client = wire::decode_from_client(packet, descriptors);
  const auto from_broker = wire::decode_from_broker(packet, descriptors);
  require(!from_client || !from_broker, "a message has one side");
  same_again(from_client, packet);
  same_again(from_broker, packet);
  return 0;
}
