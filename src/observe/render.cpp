// SPDX-License-Identifier: MIT
// render.cpp - what a survey looks like. The table's columns are as wide as their widest cell, measured as a terminal
// shows them; only the last column may be empty, so nothing needs quoting.
#include "observe/render.hpp"

#include "base/error.hpp"
#include "observe/events.hpp"

#include <fmt/format.h>
#include <holdfast/enforcement.hpp>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <ctime>

namespace holdfast::observe {
namespace {

using nlohmann::ordered_json;

constexpr std::string_view kLockFileMeans = "UUCP lock file ";
constexpr std::size_t kColumns = 8;
using Row = std::array<std::string, kColumns>;

std::string_view word_of(Mode mode) { return mode == Mode::exclusive ? "exclusive" : "shared"; }

std::tm broken_down(std::chrono::system_clock::time_point time, Zone zone) {
  const std::time_t seconds = std::chrono::system_clock::to_time_t(time);
  std::tm parts{};
  zone == Zone::utc ? ::gmtime_r(&seconds, &parts) : ::localtime_r(&seconds, &parts);
  return parts;
}

std::string formatted(const std::tm& parts, const char* pattern) {
  char text[64];
  return {text, std::strftime(text, sizeof text, pattern, &parts)};
}

std::string time_cell(const Use& use, std::chrono::system_clock::time_point now, Zone zone) {
  if (!use.who.since) return "-";
  const bool recent = now - *use.who.since < std::chrono::hours{20};
  return formatted(broken_down(*use.who.since, zone), recent ? "%H:%M:%S" : "%F %H:%M");
}

std::string mode_cell(const Use& use) {
  if (use.standing == Standing::stale) return "stale";
  const std::string_view mode = use.mode ? word_of(*use.mode) : "-";
  if (use.standing != Standing::waits) return std::string{mode};
  return use.mode ? fmt::format("waits {}", mode) : "waits";
}

std::string command_cell(const Use& use) {
  const std::string command = base::printable(use.who.command, 32);
  return command.empty() ? "?" : command;
}

std::string means_cell(const DeviceUse& device, const Use& use) {
  std::string means = short_means(use.who.means);
  if (use.place > 0) means += fmt::format(", number {} in the queue", use.place);
  if (use.lapses_in) means += fmt::format(", {} left", duration_text(*use.lapses_in));
  if (use.level) means += fmt::format(", {}", level_text(device, use));
  return means;
}

Row row_of(const DeviceUse& device, const Use& use, std::chrono::system_clock::time_point now, Zone zone) {
  const std::string user = base::printable(use.who.user, 32);
  return {base::printable(device.node.path),
          command_cell(use),
          use.who.pid > 0 ? fmt::format("{}", use.who.pid) : "-",
          user.empty() ? "-" : user,
          time_cell(use, now, zone),
          mode_cell(use),
          means_cell(device, use),
          base::printable(use.who.purpose, 80)};
}

ordered_json or_null(const std::string& text) { return text.empty() ? ordered_json{} : ordered_json(text); }

ordered_json json_of(const Use& use) {
  ordered_json out;
  out["who"] = to_string(use.kind);
  out["standing"] = to_string(use.standing);
  out["pid"] = use.who.pid > 0 ? ordered_json(use.who.pid) : ordered_json{};
  out["start_ticks"] = use.who.start_ticks > 0 ? ordered_json(use.who.start_ticks) : ordered_json{};
  out["command"] = or_null(use.who.command);
  out["user"] = or_null(use.who.user);
  out["since"] = use.who.since ? ordered_json(iso_time(*use.who.since)) : ordered_json{};
  out["mode"] = use.mode ? ordered_json(word_of(*use.mode)) : ordered_json{};
  out["holdfast"] = use.ours;
  out["means"] = use.who.means;
  out["purpose"] = or_null(use.who.purpose);
  out["place"] = use.place > 0 ? ordered_json(use.place) : ordered_json{};
  out["enforcement"] = use.level ? ordered_json(to_string(*use.level)) : ordered_json{};
  out["lapses_in_seconds"] =
      use.lapses_in ? ordered_json(std::chrono::duration<double>{*use.lapses_in}.count()) : ordered_json{};
  return out;
}

// The ranges of EastAsianWidth.txt (Unicode 15) that are wide, joined where only unassigned code points lie between.
constexpr std::pair<char32_t, char32_t> kWide[] = {
    {0x1100, 0x115F}, {0x2E80, 0x303E}, {0x3041, 0xA4CF}, {0xA960, 0xA97F},   {0xAC00, 0xD7A3},   {0xF900, 0xFAFF},
    {0xFE30, 0xFE6F}, {0xFF00, 0xFF60}, {0xFFE0, 0xFFE6}, {0x1F300, 0x1F64F}, {0x1F900, 0x1F9FF}, {0x20000, 0x3FFFD}};
// Characters that take no column of their own: combining marks, zero width joiners, bidirectional controls.
constexpr std::pair<char32_t, char32_t> kNoWidth[] = {
    {0x0300, 0x036F}, {0x0483, 0x0489}, {0x0591, 0x05BD}, {0x0610, 0x061A}, {0x064B, 0x065F},
    {0x1AB0, 0x1AFF}, {0x1DC0, 0x1DFF}, {0x200B, 0x200F}, {0x202A, 0x202E}, {0x2060, 0x2064},
    {0x20D0, 0x20FF}, {0xFE00, 0xFE0F}, {0xFE20, 0xFE2F}, {0xFEFF, 0xFEFF}};

template <std::size_t count>
bool in_ranges(char32_t point, const std::pair<char32_t, char32_t> (&ranges)[count]) {
  return std::ranges::any_of(ranges,
                             [point](const auto& range) { return point >= range.first && point <= range.second; });
}

}  // namespace

std::size_t display_width(std::string_view text) {
  std::size_t width = 0;
  while (!text.empty()) {
    const auto lead = static_cast<unsigned char>(text.front());
    const std::size_t length = lead < 0xC0 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    char32_t point = length == 1 ? lead : lead & (0xFFU >> (length + 1));
    for (std::size_t i = 1; i < std::min(length, text.size()); ++i)
      point = (point << 6) | (static_cast<unsigned char>(text[i]) & 0x3FU);
    width += in_ranges(point, kNoWidth) ? 0 : in_ranges(point, kWide) ? 2 : 1;
    text.remove_prefix(std::min(length, text.size()));
  }
  return width;
}

std::string iso_time(std::chrono::system_clock::time_point time) {
  const auto whole = std::chrono::floor<std::chrono::seconds>(time);
  const auto rest = std::chrono::duration_cast<std::chrono::milliseconds>(time - whole).count();
  return fmt::format("{}.{:03}Z", formatted(broken_down(whole, Zone::utc), "%FT%H:%M:%S"), rest);
}

std::string short_means(const std::vector<std::string>& means) {
  std::vector<std::string> parts;
  std::size_t lock_file_at = 0;
  std::size_t lock_files = 0;
  for (const std::string& one : means) {
    if (!one.starts_with(kLockFileMeans)) {
      parts.push_back(base::printable(one));
    } else if (++lock_files == 1) {
      lock_file_at = parts.size();
      const auto slash = one.rfind('/');
      parts.push_back(base::printable(std::string{kLockFileMeans} +
                                      one.substr(slash == std::string::npos ? kLockFileMeans.size() : slash + 1)));
    }
  }
  if (lock_files > 1) parts[lock_file_at] += fmt::format(" (+{})", lock_files - 1);
  return fmt::format("{}", fmt::join(parts, ", "));
}

std::string level_text(const DeviceUse& device, const Use& use) {
  if (!use.level) return {};
  std::string text{to_string(*use.level)};
  if (device.denials > 0) text += fmt::format(", {} denied", device.denials);
  return text;
}

std::string name_of(const Use& use) {
  if (use.kind == UserKind::kernel) return "kernel";
  if (use.who.pid <= 0) return "?";
  return fmt::format("{}[{}]", command_cell(use), use.who.pid);
}

std::string to_table(const Survey& survey, std::chrono::system_clock::time_point now, Zone zone) {
  std::vector<Row> rows;
  for (const DeviceUse& device : survey.devices) {
    for (const Use& use : device.uses) rows.push_back(row_of(device, use, now, zone));
    if (device.uses.empty() && !device.relation)
      rows.push_back({base::printable(device.node.path), "free", "-", "-", "-", "-", "-", ""});
  }
  std::string text;
  if (rows.empty()) {
    text = "no device is in use\n";
  } else {
    rows.insert(rows.begin(), {"DEVICE", "HOLDER", "PID", "USER", "SINCE", "MODE", "MEANS", "PURPOSE"});
    text = aligned(rows);
  }
  for (const std::string& line : survey.blind) text += fmt::format("not seen: {}\n", base::printable(line));
  return text;
}

std::string to_json(const Survey& survey) {
  ordered_json out;
  out["devices"] = ordered_json::array();
  for (const DeviceUse& device : survey.devices) {
    ordered_json one;
    one["device"] = device.node.path;
    one["number"] = device::to_string(device.node.id);
    one["relation"] = device.relation ? ordered_json(device::to_string(*device.relation)) : ordered_json{};
    one["uses"] = ordered_json::array();
    for (const Use& use : device.uses) one["uses"].push_back(json_of(use));
    one["denials"] = device.denials;
    out["devices"].push_back(std::move(one));
  }
  out["blind"] = survey.blind;
  return out.dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace holdfast::observe
