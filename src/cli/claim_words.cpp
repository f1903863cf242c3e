// SPDX-License-Identifier: MIT
// claim_words.cpp - the options that run and claim share, as holdfast::Options.
#include "cli/command_line.hpp"
#include "convention/convention.hpp"

#include <fmt/format.h>

namespace holdfast::cli {

std::expected<ConventionSet, UsageError> parse_conventions(std::string_view text) {
  ConventionSet set;
  for (std::string_view rest = text;;) {
    const auto comma = rest.find(',');
    const std::string_view name = rest.substr(0, comma);
    const std::optional<Convention> convention = convention::convention_named(name);
    if (!convention) {
      std::string known;
      for (const convention::Entry& entry : convention::table())
        known += (known.empty() ? "" : ", ") + std::string{entry.name};
      return std::unexpected{fmt::format("{} is not a convention; there are {}", quoted(name), known)};
    }
    set = set.with(*convention);
    if (comma == std::string_view::npos) return set;
    rest.remove_prefix(comma + 1);
  }
}

std::expected<ClaimWords, UsageError> claim_words(const CommandLine& line) {
  ClaimWords words;
  Options& options = words.options;
  options.wait = Wait::for_ever();  // as flock(1) does
  ConventionSet without;
  for (const GivenOption& given : line.options) {
    switch (given.key) {
      case kExclusive:
        options.mode = Mode::exclusive;
        break;
      case kShared:
        options.mode = Mode::shared;
        break;
      case kNonblock:
        options.wait = Wait::none();
        break;
      case kUnit:
        options.cover = Cover::unit;
        break;
      case kNoOpen:
        options.opening = Opening::never;
        break;
      case kPurpose:
        options.purpose = given.value;
        break;
      case kVerbose:
        words.verbose = true;
        break;
      case kWait: {
        const auto wait = parse_wait(given.value);
        if (!wait) return std::unexpected{wait.error()};
        options.wait = *wait;
        break;
      }
      case kPriority: {
        const auto priority = parse_priority(given.value);
        if (!priority) return std::unexpected{priority.error()};
        options.priority = *priority;
        break;
      }
      case kFor: {
        const auto lease = parse_span(given.value);
        if (!lease) return std::unexpected{lease.error()};
        options.lease = *lease;
        break;
      }
      case kGuard: {
        const auto guarding = parse_guarding(given.value);
        if (!guarding) return std::unexpected{guarding.error()};
        options.guarding = *guarding;
        break;
      }
      case kPid: {
        const auto pid = parse_pid(given.value);
        if (!pid) return std::unexpected{pid.error()};
        words.owner = *pid;
        break;
      }
      case kConflictExitCode: {
        const auto code = parse_exit_code(given.value);
        if (!code) return std::unexpected{code.error()};
        words.refused_status = *code;
        break;
      }
      case kConvention:
      case kWithout: {
        const auto set = parse_conventions(given.value);
        if (!set) return std::unexpected{set.error()};
        (given.key == kConvention ? options.conventions : without) = *set;
        break;
      }
      default:
        break;  // the subcommand's own
    }
  }
  for (const convention::Entry& entry : convention::table())
    if (without.contains(entry.id)) options.conventions = options.conventions.without(entry.id);
  if (options.conventions.empty()) return std::unexpected{UsageError{"-C and --without leave no convention to take"}};
  if (line.operands.empty()) return std::unexpected{UsageError{"name at least one device"}};
  return words;
}

}  // namespace holdfast::cli
