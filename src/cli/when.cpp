// SPDX-License-Identifier: MIT
// when.cpp - times and counts as people write them. strptime(3) reads the clock's forms; what it leaves unread makes
// the text wrong.
#include "cli/command_line.hpp"

#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <ctime>

namespace holdfast::cli {
namespace {

using namespace std::chrono_literals;
using Instant = std::chrono::system_clock::time_point;

std::tm local(Instant at) {
  const std::time_t seconds = std::chrono::system_clock::to_time_t(at);
  std::tm parts{};
  ::localtime_r(&seconds, &parts);
  return parts;
}

Instant instant(std::tm parts) {
  parts.tm_isdst = -1;  // as it is then
  return std::chrono::system_clock::from_time_t(std::mktime(&parts));
}

// What is not in the pattern stays as it is in `parts`.
bool reads(const std::string& text, const char* pattern, std::tm& parts) {
  std::tm read = parts;
  const char* const end = ::strptime(text.c_str(), pattern, &read);
  if (end == nullptr || *end != '\0') return false;
  parts = read;
  return true;
}

std::optional<Instant> clock_time(const std::string& text, Instant now) {
  std::tm midnight = local(now);
  midnight.tm_hour = midnight.tm_min = midnight.tm_sec = 0;
  if (text == "today") return instant(midnight);
  if (text == "yesterday") {
    --midnight.tm_mday;
    return instant(midnight);
  }
  for (const char* const pattern : {"%Y-%m-%d", "%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M",
                                    "%Y-%m-%dT%H:%M:%S", "%H:%M", "%H:%M:%S"}) {
    std::tm parts = midnight;
    if (reads(text, pattern, parts)) return instant(parts);
  }
  // As --json writes it.
  if (!text.ends_with('Z')) return std::nullopt;
  std::tm parts{};
  if (!reads(text.substr(0, std::min(text.find('.'), text.size() - 1)), "%Y-%m-%dT%H:%M:%S", parts))
    return std::nullopt;
  return std::chrono::system_clock::from_time_t(::timegm(&parts));
}

std::optional<std::chrono::nanoseconds> ago(std::string_view text) {
  std::uint32_t count = 0;
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, count);
  if (error != std::errc{}) return std::nullopt;
  const std::string_view unit{rest, static_cast<std::size_t>(end - rest)};
  if (unit == "s") return count * 1s;
  if (unit == "min" || unit == "m") return count * 60s;
  if (unit == "h") return count * 3600s;
  if (unit == "d" && count <= 36'500) return count * 86'400s;
  return std::nullopt;
}

}  // namespace

std::expected<std::chrono::nanoseconds, UsageError> parse_seconds(std::string_view text) {
  constexpr double kMost = 3.0e9;
  double seconds = -1;
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, seconds, std::chars_format::fixed);
  if (error != std::errc{} || rest != end || !(seconds <= kMost) || std::signbit(seconds))
    return std::unexpected{fmt::format("{} is not a number of seconds", quoted(text))};
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::duration<double>{seconds});
}

std::expected<std::uint32_t, UsageError> parse_count(std::string_view text) {
  std::uint32_t count = 0;
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, count);
  if (error != std::errc{} || rest != end || count == 0)
    return std::unexpected{fmt::format("{} is not a number from 1 on", quoted(text))};
  return count;
}

std::expected<Instant, UsageError> parse_when(std::string_view text, Instant now) {
  if (const auto span = ago(text)) return now - *span;
  if (const auto at = clock_time(std::string{text}, now)) return *at;
  return std::unexpected{
      fmt::format("{} is no time: write 2026-11-22, \"2026-11-22 12:04\", 12:04, today or 2h", quoted(text))};
}

}  // namespace holdfast::cli
