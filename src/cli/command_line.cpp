// SPDX-License-Identifier: MIT
// command_line.cpp - getopt_long(3) fed from the table. Operands are returned in place (optstring "-"), because only
// then is it known where "--" stood; a parsing library was left out because its set-up costs more than flock(1)'s
// whole start.
#include "cli/command_line.hpp"

#include "base/error.hpp"

#include <fmt/format.h>
#include <getopt.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

namespace holdfast::cli {
namespace {

constexpr int kOperand = 1;  // getopt(3) with "-": "as if it were the argument of an option with character code 1"

std::string letters(const Command& command) {
  std::string text = "-:";
  for (const Option& option : command.options) {
    if (option.letter() == '\0') continue;
    text += option.letter();
    if (option.argument != nullptr) text += option.may_lack_argument() ? "::" : ":";
  }
  return text;
}

std::vector<::option> long_names(const Command& command) {
  std::vector<::option> names;
  names.reserve(command.options.size() + 1);
  for (const Option& option : command.options) {
    const int argument = option.argument == nullptr   ? no_argument
                         : option.may_lack_argument() ? optional_argument
                                                      : required_argument;
    names.push_back({option.name, argument, nullptr, option.key});
  }
  names.push_back({});
  return names;
}

UsageError bad_option(int returned, char* const* argv) {
  // optopt holds a letter, a long option's key when its argument is missing or too many, or 0 for an unknown long name.
  const std::string_view word = argv[optind - 1];
  const std::string name = word.starts_with("--") || optopt <= 0 || optopt > 255
                               ? quoted(word)
                               : fmt::format("'-{}'", base::printable(std::string(1, static_cast<char>(optopt))));
  if (returned == ':') return fmt::format("option {} needs an argument", name);
  return fmt::format("{} is not an option here, or not a complete one", name);
}

}  // namespace

std::string quoted(std::string_view text) { return fmt::format("'{}'", base::printable(text, 80)); }

bool CommandLine::has(Key key) const {
  return std::ranges::any_of(options, [key](const GivenOption& given) { return given.key == key; });
}

std::expected<CommandLine, UsageError> parse(const Command& command, int argc, char** argv) {
  const std::string short_options = letters(command);
  const std::vector<::option> long_options = long_names(command);
  CommandLine line;
  opterr = 0;
  optind = 0;  // getopt(3): "a program that scans multiple argument vectors [...] must reinitialize getopt() by setting
               // optind to 0"
  int returned = 0;
  while ((returned = ::getopt_long(argc, argv, short_options.c_str(), long_options.data(), nullptr)) != -1) {
    if (returned == '?' || returned == ':') return std::unexpected{bad_option(returned, argv)};
    if (returned == kOperand)
      line.operands.emplace_back(optarg);
    else
      line.options.push_back({static_cast<Key>(returned), optarg != nullptr ? optarg : std::string_view{}});
  }
  // "--" is the only thing that ends the scan early. As the last word it may also be an option's argument; either way
  // nothing follows it.
  line.separated = optind > 1 && std::string_view{argv[optind - 1]} == "--";
  for (int i = optind; i < argc; ++i) line.command.emplace_back(argv[i]);
  return line;
}

std::expected<Wait, UsageError> parse_wait(std::string_view text) {
  double seconds = -1;
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, seconds, std::chars_format::fixed);
  const bool too_large = error == std::errc::result_out_of_range && rest == end && !text.starts_with('-');
  if (!too_large && (error != std::errc{} || rest != end || !std::isfinite(seconds) || std::signbit(seconds)))
    return std::unexpected{fmt::format("{} is not a number of seconds to wait", quoted(text))};
  using Seconds = std::chrono::duration<double>;
  if (too_large || Seconds{seconds} >= Seconds{Wait::Clock::duration::max()}) return Wait::for_ever();
  if (seconds == 0) return Wait::none();
  return Wait::at_most(std::chrono::duration_cast<Wait::Clock::duration>(Seconds{seconds}));
}

std::expected<std::chrono::nanoseconds, UsageError> parse_span(std::string_view text) {
  constexpr std::array<std::pair<char, int>, 4> kUnits{{{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}}};
  const auto unit = std::ranges::find(kUnits, text.empty() ? '\0' : text.back(), &std::pair<char, int>::first);
  const std::string_view number = unit == kUnits.end() ? text : text.substr(0, text.size() - 1);
  constexpr double kMostSeconds = 100.0 * 366 * 86400;
  double count = -1;
  const char* const end = number.data() + number.size();
  const auto [rest, error] = std::from_chars(number.data(), end, count, std::chars_format::fixed);
  const double seconds = count * (unit == kUnits.end() ? 1 : unit->second);
  if (error != std::errc{} || rest != end || !(seconds > 0) || seconds > kMostSeconds)
    return std::unexpected{fmt::format("{} is not a time; say 90, 15m, 2h or 3d", quoted(text))};
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::duration<double>{seconds});
}

std::expected<Priority, UsageError> parse_priority(std::string_view text) {
  constexpr std::array<std::string_view, 5> kNames{"idle", "low", "normal", "high", "urgent"};
  const auto* const found = std::ranges::find(kNames, text);
  if (found == kNames.end())
    return std::unexpected{
        fmt::format("{} is not a priority; there are idle, low, normal, high, urgent", quoted(text))};
  return static_cast<Priority>(found - kNames.begin());
}

std::expected<Guarding, UsageError> parse_guarding(std::string_view text) {
  if (text.empty() || text == "require") return Guarding::required;
  if (text == "auto") return Guarding::automatic;
  if (text == "off") return Guarding::off;
  return std::unexpected{fmt::format("{} does not say when to guard; there are require, auto, off", quoted(text))};
}

std::expected<pid_t, UsageError> parse_pid(std::string_view text) {
  pid_t pid = 0;
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, pid);
  if (error != std::errc{} || rest != end || pid <= 0)
    return std::unexpected{fmt::format("{} is not a process id", quoted(text))};
  return pid;
}

std::expected<int, UsageError> parse_exit_code(std::string_view text) {
  unsigned code = 256;
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, code);
  if (error != std::errc{} || rest != end || code > 255)
    return std::unexpected{fmt::format("{} is not an exit status from 0 to 255", quoted(text))};
  return static_cast<int>(code);
}

}  // namespace holdfast::cli
