// SPDX-License-Identifier: MIT
// events.cpp - see the header.
#include "observe/events.hpp"

#include "base/error.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <ctime>

namespace holdfast::observe {
namespace {

using namespace std::chrono_literals;
using nlohmann::ordered_json;
using Instant = std::chrono::system_clock::time_point;

std::string clock_text(Instant at, Zone zone, const char* pattern) {
  const std::time_t seconds = std::chrono::system_clock::to_time_t(std::chrono::floor<std::chrono::seconds>(at));
  std::tm parts{};
  zone == Zone::utc ? ::gmtime_r(&seconds, &parts) : ::localtime_r(&seconds, &parts);
  char text[64];
  return {text, std::strftime(text, sizeof text, pattern, &parts)};
}

bool has_mode(EventKind kind) {
  return kind != EventKind::denied && kind != EventKind::added && kind != EventKind::removed &&
         kind != EventKind::missed;
}
bool ends_a_claim(EventKind kind) {
  return kind == EventKind::released || kind == EventKind::lapsed || kind == EventKind::revoked;
}
std::string_view word_of(Mode mode) { return mode == Mode::exclusive ? "exclusive" : "shared"; }

std::string who_text(const Holder& who) {
  if (who.pid <= 0 && who.command.empty()) return "";
  const std::string command = base::printable(who.command, 32);
  std::string text = fmt::format("{}[{}]", command.empty() ? "?" : command, who.pid);
  if (!who.user.empty()) text += fmt::format(" ({})", base::printable(who.user, 32));
  return text;
}

ordered_json or_null(const std::string& text) { return text.empty() ? ordered_json{} : ordered_json(text); }
ordered_json seconds_or_null(std::chrono::nanoseconds duration) {
  return duration == 0ns ? ordered_json{} : ordered_json(std::chrono::duration<double>{duration}.count());
}

}  // namespace

std::string duration_text(std::chrono::nanoseconds duration) {
  const auto in = [duration](auto unit) { return std::chrono::duration_cast<decltype(unit)>(duration).count(); };
  if (duration < 1s) return fmt::format("{} ms", in(1ms));
  if (duration < 1min) return fmt::format("{}.{} s", in(1s), in(1ms) % 1000 / 100);
  if (duration < 1h) return fmt::format("{} min {:02} s", in(1min), in(1s) % 60);
  if (duration < 24h) return fmt::format("{} h {:02} min", in(1h), in(1min) % 60);
  return fmt::format("{} d {} h", in(24h) / 24, in(1h) % 24);
}

std::string to_line(const Event& event, Zone zone) {
  const auto milliseconds = std::chrono::floor<std::chrono::milliseconds>(event.at.time_since_epoch()).count();
  std::string line = fmt::format("{}.{:03} {:<10}", clock_text(event.at, zone, "%H:%M:%S"),
                                 (milliseconds % 1000 + 1000) % 1000, to_string(event.kind));
  if (!event.device.empty()) line += " " + base::printable(event.device);
  std::vector<std::string> facts;
  if (auto who = who_text(event.who); !who.empty()) facts.push_back(std::move(who));
  if (has_mode(event.kind)) facts.emplace_back(word_of(event.mode));
  if (event.waited >= 1ms) facts.push_back("waited " + duration_text(event.waited));
  if (event.held >= 1ms) facts.push_back("held " + duration_text(event.held));
  if (!facts.empty()) line += fmt::format("  {}", fmt::join(facts, ", "));
  const std::string purpose = base::printable(event.who.purpose, 80);
  const std::string detail = base::printable(event.detail);
  if (!purpose.empty()) line += ": " + purpose;
  if (!detail.empty()) line += (facts.empty() ? "  " : "; ") + detail;
  return line + "\n";
}

std::string to_json_line(const Event& event) {
  ordered_json out;
  out["event"] = to_string(event.kind);
  out["at"] = iso_time(event.at);
  out["device"] = or_null(event.device);
  out["number"] = or_null(event.number);
  out["mode"] = has_mode(event.kind) ? ordered_json(word_of(event.mode)) : ordered_json{};
  out["pid"] = event.who.pid > 0 ? ordered_json(event.who.pid) : ordered_json{};
  out["start_ticks"] = event.who.start_ticks > 0 ? ordered_json(event.who.start_ticks) : ordered_json{};
  out["command"] = or_null(event.who.command);
  out["user"] = or_null(event.who.user);
  out["since"] = event.who.since ? ordered_json(iso_time(*event.who.since)) : ordered_json{};
  out["purpose"] = or_null(event.who.purpose);
  out["waited_seconds"] = seconds_or_null(event.waited);
  out["held_seconds"] = seconds_or_null(event.held);
  out["detail"] = or_null(event.detail);
  return out.dump(-1, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

std::string to_table(std::span<const Event> events, Zone zone) {
  if (events.empty()) return "nothing happened\n";
  using Cells = std::array<std::string, 10>;
  std::vector<Cells> rows{{"TIME", "EVENT", "DEVICE", "HOLDER", "PID", "USER", "MODE", "WAITED", "HELD", "PURPOSE"}};
  const auto or_dash = [](const std::string& text) { return text.empty() ? std::string{"-"} : text; };
  const auto span_or_dash = [](std::chrono::nanoseconds span) { return span >= 1ms ? duration_text(span) : "-"; };
  for (const Event& event : events) {
    std::string last = base::printable(event.who.purpose, 80);
    if (!event.detail.empty() && event.kind != EventKind::added && event.kind != EventKind::removed)
      last += (last.empty() ? "" : "; ") + base::printable(event.detail);
    rows.push_back({clock_text(event.at, zone, "%F %H:%M:%S"), std::string{to_string(event.kind)},
                    or_dash(base::printable(event.device)), or_dash(base::printable(event.who.command, 32)),
                    event.who.pid > 0 ? fmt::format("{}", event.who.pid) : "-",
                    or_dash(base::printable(event.who.user, 32)),
                    has_mode(event.kind) ? std::string{word_of(event.mode)} : "-", span_or_dash(event.waited),
                    span_or_dash(event.held), last});
  }
  return aligned(rows);
}

// --- The drawing -----------------------------------------------------------------------------------------------------

namespace {

constexpr double kWidth = 1000;
constexpr double kLeft = 170;
constexpr double kRight = 20;
constexpr double kTop = 34;
constexpr double kRow = 34;
constexpr double kBar = 18;
constexpr int kTicks = 6;

// What XML 1.0 may not contain is out after base::printable(), but for the two non-characters.
std::string xml(std::string_view text) {
  std::string out;
  const std::string shown = base::printable(text);
  for (std::size_t i = 0; i < shown.size(); ++i) {
    const std::string_view three = std::string_view{shown}.substr(i, 3);
    if (three == "\xEF\xBF\xBE" || three == "\xEF\xBF\xBF") {
      out += '?';
      i += 2;
      continue;
    }
    switch (shown[i]) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += shown[i];
    }
  }
  return out;
}

// Who had a device from when to when.
struct Stay {
  const Event* event = nullptr;  // its end, or its beginning when it goes on
  Instant from;
  Instant to;
  std::chrono::nanoseconds waited{};
  bool goes_on = false;
};
struct Row {
  std::string device;
  std::vector<Stay> stays;
  std::vector<const Event*> marks;
};

bool is_same_claim(const Event& begin, const Event& end) {
  return begin.who.pid == end.who.pid && begin.who.start_ticks == end.who.start_ticks;
}

std::vector<Row> rows_of(std::span<const Event> events, Instant now) {
  std::vector<Row> rows;
  for (const Event& event : events) {
    if (event.device.empty()) continue;
    auto row = std::ranges::find(rows, event.device, &Row::device);
    if (row == rows.end()) row = rows.insert(rows.end(), Row{event.device, {}, {}});
    if (event.kind == EventKind::claimed) {
      row->stays.push_back({&event, event.at, std::max(event.at, now), event.waited, true});
    } else if (ends_a_claim(event.kind)) {
      auto begun = std::ranges::find_if(
          row->stays, [&event](const Stay& stay) { return stay.goes_on && is_same_claim(*stay.event, event); });
      if (begun == row->stays.end()) {
        const auto held = std::chrono::duration_cast<Instant::duration>(event.held);
        begun = row->stays.insert(row->stays.end(), {&event, event.at - held, event.at, event.waited, false});
      }
      begun->event = &event;
      begun->to = std::max(begun->from, event.at);
      begun->goes_on = false;
    } else if (event.kind != EventKind::waiting) {  // a wait that ended in a claim is seen before it
      row->marks.push_back(&event);
    }
  }
  return rows;
}

// The same holder has the same colour in every drawing.
int hue_of(const Holder& who) {
  std::uint32_t hash = 2'166'136'261U;  // FNV-1a
  const std::string name = who.command + who.user;
  for (const char letter : name) hash = (hash ^ static_cast<unsigned char>(letter)) * 16'777'619U;
  return static_cast<int>(hash % 360);
}

std::string_view mark_colour(EventKind kind) {
  if (kind == EventKind::denied || kind == EventKind::refused) return "#c00";
  return kind == EventKind::added || kind == EventKind::removed ? "#080" : "#555";
}

}  // namespace

std::string to_svg(std::span<const Event> events, Instant now, Zone zone) {
  const std::vector<Row> rows = rows_of(events, now);
  Instant first = now;
  Instant last = events.empty() ? now : events.front().at;
  for (const Row& row : rows) {
    for (const Stay& stay : row.stays) {
      first = std::min(first, stay.from - std::chrono::duration_cast<Instant::duration>(stay.waited));
      last = std::max(last, stay.to);
    }
    for (const Event* mark : row.marks) {
      first = std::min(first, mark->at);
      last = std::max(last, mark->at);
    }
  }
  last = std::max(last, first + 1s);
  const double scale = (kWidth - kLeft - kRight) / std::chrono::duration<double>{last - first}.count();
  const auto x = [&](Instant at) { return kLeft + std::chrono::duration<double>{at - first}.count() * scale; };
  const double height = kTop + kRow * static_cast<double>(std::max<std::size_t>(rows.size(), 1)) + 10;

  std::string svg = fmt::format(
      "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
      "<svg xmlns=\"http://www.w3.org/2000/svg\" version=\"1.1\" width=\"{0:.0f}\" height=\"{1:.0f}\" "
      "viewBox=\"0 0 {0:.0f} {1:.0f}\" font-family=\"sans-serif\" font-size=\"11\">\n"
      "<title>who had which device, {2} to {3}</title>\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n",
      kWidth, height, clock_text(first, zone, "%F %H:%M:%S"), clock_text(last, zone, "%F %H:%M:%S"));
  const bool days = last - first > 20h;
  for (int i = 0; i <= kTicks; ++i) {
    const Instant at = first + (last - first) / kTicks * i;
    svg += fmt::format(
        "<line x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"{1:.0f}\" y2=\"{2:.0f}\" stroke=\"#ddd\"/>"
        "<text x=\"{0:.1f}\" y=\"16\" text-anchor=\"{3}\" fill=\"#555\">{4}</text>\n",
        x(at), kTop - 10, height - 6, i == kTicks ? "end" : "middle",
        clock_text(at, zone, days ? "%m-%d %H:%M" : "%T"));
  }
  double y = kTop;
  for (const Row& row : rows) {
    svg += fmt::format("<text x=\"8\" y=\"{:.1f}\">{}</text>\n", y + kBar - 4, xml(row.device));
    for (const Stay& stay : row.stays) {
      const Event& event = *stay.event;
      const int hue = hue_of(event.who);
      if (stay.waited >= 1ms) {
        svg += fmt::format(
            "<line x1=\"{:.1f}\" x2=\"{:.1f}\" y1=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"hsl({},60%,45%)\" "
            "stroke-width=\"2\" stroke-dasharray=\"3 2\"><title>{} waited {}</title></line>\n",
            x(stay.from - std::chrono::duration_cast<Instant::duration>(stay.waited)), x(stay.from), y + kBar / 2,
            y + kBar / 2, hue, xml(who_text(event.who)), duration_text(stay.waited));
      }
      svg += fmt::format(
          "<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.0f}\" rx=\"2\" fill=\"hsl({},60%,{}%)\" "
          "stroke=\"hsl({},60%,35%)\"{}><title>{}, {}, {} {}{}{}</title></rect>\n",
          x(stay.from), y, std::max((x(stay.to) - x(stay.from)), 1.5), kBar, hue, event.mode == Mode::shared ? 80 : 60,
          hue, stay.goes_on ? " stroke-dasharray=\"4 2\"" : "", xml(who_text(event.who)), word_of(event.mode),
          stay.goes_on                        ? "has it for"
          : event.kind == EventKind::released ? "held"
                                              : to_string(event.kind),
          stay.goes_on || event.kind == EventKind::released ? duration_text(stay.to - stay.from)
                                                            : "after " + duration_text(stay.to - stay.from),
          event.who.purpose.empty() ? "" : ": ", xml(event.who.purpose));
    }
    for (const Event* mark : row.marks) {
      svg += fmt::format(
          "<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3\" fill=\"{}\"><title>{}</title></circle>\n", x(mark->at),
          y + kBar + 5, mark_colour(mark->kind),
          xml(fmt::format("{} {} {}", clock_text(mark->at, zone, "%T"), to_string(mark->kind), who_text(mark->who))));
    }
    y += kRow;
  }
  if (rows.empty()) svg += fmt::format("<text x=\"8\" y=\"{:.1f}\">nothing happened</text>\n", kTop + kBar - 4);
  return svg + "</svg>\n";
}

}  // namespace holdfast::observe
