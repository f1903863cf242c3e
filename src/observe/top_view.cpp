// SPDX-License-Identifier: MIT
// top_view.cpp - one line per use, the device's name on its first. Of the width the purpose gets what is left.
#include "observe/top_view.hpp"

#include "base/error.hpp"
#include "observe/events.hpp"

#include <fmt/format.h>

#include <ctime>

namespace holdfast::observe {
namespace {

using namespace std::chrono_literals;

// DEVICE, HOLDER, USER, MODE, TIME; a blank between. 80 columns leave 16 for the purpose.
constexpr std::array<std::size_t, 5> kWidths{14, 17, 8, 9, 11};

std::string padded(std::string_view text, std::size_t width) {
  std::string cell = cut(text, width);
  cell.append(width - display_width(cell), ' ');
  return cell;
}

std::string row(const std::array<std::string, 6>& cells, std::size_t width) {
  std::string line;
  for (std::size_t i = 0; i < kWidths.size(); ++i) line += padded(cells[i], kWidths[i]) + " ";
  line = cut(line + cells.back(), width);
  line.erase(line.find_last_not_of(' ') + 1);
  return line;
}

// Short: "3 s", "1 min", "2 h 05", "3 d 4 h".
std::string short_duration(std::chrono::nanoseconds span) {
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(span).count();
  if (seconds < 60) return fmt::format("{} s", seconds);
  if (seconds < 3600) return fmt::format("{} min", seconds / 60);
  if (seconds < 86'400) return fmt::format("{} h {:02}", seconds / 3600, seconds / 60 % 60);
  return fmt::format("{} d {} h", seconds / 86'400, seconds / 3600 % 24);
}

std::string time_of(const Use& use, std::chrono::system_clock::time_point now) {
  if (use.lapses_in) return short_duration(*use.lapses_in) + " left";
  if (!use.who.since || *use.who.since > now) return "-";
  return short_duration(now - *use.who.since);
}

std::string mode_of(const Use& use) {
  if (use.standing == Standing::waits) return use.place > 0 ? fmt::format("waits {}", use.place) : "waits";
  if (use.standing != Standing::holds || !use.mode) return std::string{to_string(use.standing)};
  return *use.mode == Mode::exclusive ? "exclusive" : "shared";
}

std::string last_cell(const DeviceUse& device, const Use& use) {
  const std::string purpose = base::printable(use.who.purpose, 80);
  // Sixteen columns: the level that is worth them.
  const std::string level = use.level == Enforcement::guarded ? level_text(device, use) : "";
  return level + (level.empty() ? "" : "; ") + (purpose.empty() ? short_means(use.who.means) : purpose);
}

}  // namespace

std::string cut(std::string_view text, std::size_t width) {
  std::string kept;
  std::size_t used = 0;
  while (!text.empty()) {
    std::size_t length = 1;
    while (length < text.size() && (static_cast<unsigned char>(text[length]) & 0xC0) == 0x80) ++length;
    used += display_width(text.substr(0, length));
    if (used > width) break;
    kept += text.substr(0, length);
    text.remove_prefix(length);
  }
  return kept;
}

TopView top_view(const Survey& survey, Broker broker, std::chrono::system_clock::time_point now, std::size_t width,
                 Zone zone) {
  TopView view;
  std::size_t held = 0;
  std::size_t waiting = 0;
  for (const DeviceUse& device : survey.devices) {
    std::string name = base::printable(device.node.path);
    if (name.starts_with("/dev/")) name.erase(0, 5);
    bool is_held = false;
    for (const Use& use : device.uses) {
      is_held = is_held || use.standing == Standing::holds;
      waiting += use.standing == Standing::waits ? 1 : 0;
      view.body.push_back({use.standing == Standing::waits ? TopLine::Look::waiter
                           : name.empty()                  ? TopLine::Look::plain
                                                           : TopLine::Look::device,
                           row({name, name_of(use), base::printable(use.who.user, 32), mode_of(use), time_of(use, now),
                                last_cell(device, use)},
                               width)});
      name.clear();
    }
    if (device.uses.empty() && !device.relation)
      view.body.push_back({TopLine::Look::device, row({name, "free", "-", "-", "-", ""}, width)});
    held += is_held ? 1 : 0;
  }
  for (const std::string& line : survey.blind)
    view.body.push_back({TopLine::Look::plain, cut("not seen: " + base::printable(line), width)});

  const std::time_t seconds = std::chrono::system_clock::to_time_t(now);
  std::tm parts{};
  zone == Zone::utc ? ::gmtime_r(&seconds, &parts) : ::localtime_r(&seconds, &parts);
  char clock[16];
  const std::size_t length = std::strftime(clock, sizeof clock, "%H:%M:%S", &parts);
  view.head.push_back(
      {TopLine::Look::title, cut(fmt::format("holdfast {}  {} held, {} waiting, {}", std::string_view{clock, length},
                                             held, waiting, broker == Broker::answers ? "by the broker" : "no broker"),
                                 width)});
  view.head.push_back(
      {TopLine::Look::heading, padded(row({"DEVICE", "HOLDER", "USER", "MODE", "TIME", "PURPOSE"}, width), width)});
  return view;
}

}  // namespace holdfast::observe
