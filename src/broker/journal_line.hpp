// SPDX-License-Identifier: MIT
// journal_line.hpp - one fact of the journal as one line of text, and back.
//
// A line is its own proof: it ends with a checksum of itself, so that half a line, or one that something else wrote
// over, is no line. Strings of clients are in it, so all but plain characters are written as %XX.
//
//   holdfast 1 BOOT EPOCH BASE NEXT KEY KEY #SUM
//   claim ID PID START UID MODE SCOPE OWNER UNTIL SINCE WRITTEN DEVICES FILES PURPOSE [GUARD] #SUM
//       GUARD, where the kernel was told of it: OWNER ROOT UNTIL DEVICES (guard/guard.hpp)
//       OWNER: speaker, or by_pidfd:PID:START:CONVENTIONS:OPENING of who asked
//   end ID #SUM
//   token DEVICE NUMBER #SUM
#pragma once

#include "broker/interfaces.hpp"
#include "broker/place_seal.hpp"

#include <chrono>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

namespace holdfast::broker {

/// CLOCK_BOOTTIME: the journal is of one boot, and a claim's time goes on while the machine sleeps or its clock is set.
struct BootClock {
  using duration = std::chrono::nanoseconds;
  using rep = duration::rep;
  using period = duration::period;
  using time_point = std::chrono::time_point<BootClock>;
  [[nodiscard]] static time_point now();
};

/// The first line.
struct JournalHead {
  std::string boot;  ///< /proc/sys/kernel/random/boot_id
  wire::Epoch epoch{};
  std::uint64_t token_base = 0;
  std::uint64_t next_claim = 1;
  PlaceKey place_key{};
  bool operator==(const JournalHead&) const = default;
};
/// A claim as it is from now on. Its `until` is on CLOCK_BOOTTIME here.
struct JournalClaim {
  ClaimRecord claim;
  wire::WallTime written{};  ///< marks that were made later are not the claim's
};
struct JournalEnd {
  wire::ClaimId claim{};
};
struct JournalToken {
  device::DeviceId device;
  arbiter::Token token{};
};
using JournalLine = std::variant<JournalHead, JournalClaim, JournalEnd, JournalToken>;

/// With the line end.
[[nodiscard]] std::string journal_text(const JournalLine& line);
[[nodiscard]] std::string journal_text(const JournalHead& head);
[[nodiscard]] std::string journal_text(const JournalClaim& entry);
/// As of a JournalClaim with `until` for the claim's own.
[[nodiscard]] std::string journal_text(const ClaimRecord& claim, std::optional<arbiter::Time> until,
                                       wire::WallTime written);
[[nodiscard]] std::string journal_text(const JournalEnd& end);
[[nodiscard]] std::string journal_text(const JournalToken& token);
/// A line's content with its checksum, as a line ends.
[[nodiscard]] std::string with_checksum(std::string_view content);
/// Without the line end; nullopt for what we did not write.
[[nodiscard]] std::optional<JournalLine> parse_journal_line(std::string_view text);

}  // namespace holdfast::broker
