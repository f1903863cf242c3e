// SPDX-License-Identifier: MIT
// codec.hpp - messages to bytes and back. Whatever the bytes are, decoding ends, allocates no more than a small
// multiple of the packet, and says no to all that encoding would not have made: of what is said yes to, each byte is as
// we would write it.
//
//   offset 0  u16  "hf"                 4  u32  number of the message
//          2  u8   version              8  u16  kind: index of the variant; 0x8000 more from the broker
//          3  u8   descriptors beside  10  u16  length of what follows
//
// Little-endian. Numbers have their size; a text is u16 length and bytes without 0; a list is u16 count and elements;
// what may be missing is u8 0, or 1 and the value; a duration is i64 nanoseconds.
#pragma once

#include <cstddef>
#include <cstdint>
#include <expected>
#include <span>
#include <string_view>
#include <vector>

#include "wire/message.hpp"

namespace holdfast::wire {

inline constexpr std::uint8_t kVersion = 2;
inline constexpr std::size_t kHeaderBytes = 12;
inline constexpr std::size_t kMostBytes = kHeaderBytes + 0xffff;  ///< room that a receiver needs
inline constexpr std::size_t kMostDevices = 64;                   ///< in one claim
inline constexpr std::size_t kMostDescriptors = 250;              ///< SCM_MAX_FD is 253 (unix(7))
inline constexpr std::size_t kMostPath = 4095;
inline constexpr std::size_t kMostPurpose = 80;
inline constexpr std::size_t kMostText = 1024;

enum class Fault : std::uint8_t {
  not_ours,           ///< no header, or not this protocol's
  wrong_length,       ///< the packet is longer or shorter than its header says
  wrong_version,      ///< another version, and neither Hello nor Welcome
  unknown_kind,       ///< no message of that side
  malformed,          ///< a field is cut off, out of range or too long, or bytes are left over
  wrong_descriptors,  ///< more or fewer descriptors came than the message says
  too_large,          ///< encoding: a text, a list or the whole has more than the limits above
};
[[nodiscard]] std::string_view to_string(Fault fault) noexcept;

template <class Body>
struct Numbered {
  std::uint32_t number = 0;
  Body body;
};

/// \param descriptors  how many came beside the packet by SCM_RIGHTS; the caller closes them on a fault
[[nodiscard]] std::expected<Numbered<FromClient>, Fault> decode_from_client(std::span<const std::byte> packet,
                                                                            std::size_t descriptors);
[[nodiscard]] std::expected<Numbered<FromBroker>, Fault> decode_from_broker(std::span<const std::byte> packet,
                                                                            std::size_t descriptors);

/// Replaces what is in `packet`, whose memory is used again.
[[nodiscard]] std::expected<void, Fault> encode(std::uint32_t number, const FromClient& message,
                                                std::vector<std::byte>& packet);
[[nodiscard]] std::expected<void, Fault> encode(std::uint32_t number, const FromBroker& message,
                                                std::vector<std::byte>& packet);

}  // namespace holdfast::wire
