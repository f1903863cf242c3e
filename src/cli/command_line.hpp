// SPDX-License-Identifier: MIT
// command_line.hpp - from argv to words, by the table. Pure: touches nothing but getopt(3)'s own state.
#pragma once

#include "cli/table.hpp"

#include <holdfast/options.hpp>

#include <chrono>
#include <cstdint>
#include <expected>
#include <string>
#include <string_view>
#include <vector>

namespace holdfast::cli {

struct GivenOption {
  Key key;
  std::string_view value;  ///< empty for an option without argument
};

struct CommandLine {
  std::vector<GivenOption> options;   ///< in the order given
  std::vector<std::string> operands;  ///< the devices
  std::vector<std::string> command;   ///< what follows "--"
  bool separated = false;             ///< whether there was a "--"

  [[nodiscard]] bool has(Key key) const;
};

/// A usage error: one line without the program's name.
using UsageError = std::string;

/// The text as it may be shown, between quotes.
[[nodiscard]] std::string quoted(std::string_view text);

/// `argv[0]` is the subcommand's name. Options may stand between the devices; "--" ends options and devices.
[[nodiscard]] std::expected<CommandLine, UsageError> parse(const Command& command, int argc, char** argv);

/// "1", "0.25": at least 0, decimal, without sign, exponent or unit. More than the clock can count waits for ever.
[[nodiscard]] std::expected<Wait, UsageError> parse_wait(std::string_view text);
/// As parse_wait(), where for ever is none: at most a hundred years.
[[nodiscard]] std::expected<std::chrono::nanoseconds, UsageError> parse_seconds(std::string_view text);
/// 1 to 4294967295.
[[nodiscard]] std::expected<std::uint32_t, UsageError> parse_count(std::string_view text);
/// "2026-11-22", "2026-11-22 12:04:11", "12:04" of today, "today", "yesterday" in local time,
/// "2026-11-22T12:04:11.000Z", and "90s", "15min", "2h", "3d" before `now`.
[[nodiscard]] std::expected<std::chrono::system_clock::time_point, UsageError> parse_when(
    std::string_view text, std::chrono::system_clock::time_point now);
/// "90", "1.5h": seconds, or with s, m, h or d.
[[nodiscard]] std::expected<std::chrono::nanoseconds, UsageError> parse_span(std::string_view text);
/// "idle" to "urgent".
[[nodiscard]] std::expected<Priority, UsageError> parse_priority(std::string_view text);
/// "require", "auto", "off"; nothing is "require".
[[nodiscard]] std::expected<Guarding, UsageError> parse_guarding(std::string_view text);
[[nodiscard]] std::expected<pid_t, UsageError> parse_pid(std::string_view text);
/// 0 to 255.
[[nodiscard]] std::expected<int, UsageError> parse_exit_code(std::string_view text);
/// "uucp,flock".
[[nodiscard]] std::expected<ConventionSet, UsageError> parse_conventions(std::string_view text);

/// What the options of run and claim say together.
struct ClaimWords {
  Options options;
  int refused_status = 75;  // EX_TEMPFAIL
  pid_t owner = 0;          ///< of --pid; 0: we
  bool verbose = false;
};
[[nodiscard]] std::expected<ClaimWords, UsageError> claim_words(const CommandLine& line);

}  // namespace holdfast::cli
