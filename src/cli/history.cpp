// SPDX-License-Identifier: MIT
// history.cpp - `holdfast history`: the broker's events, as a table, as JSON lines, or drawn.
#include "claim/inquiry.hpp"
#include "cli/command.hpp"
#include "observe/events.hpp"

namespace holdfast::cli {

int history_command(const CommandLine& line) {
  const auto now = std::chrono::system_clock::now();
  std::optional<std::chrono::system_clock::time_point> since;
  std::uint32_t most = 100;
  bool is_limited = false;
  for (const GivenOption& given : line.options) {
    if (given.key == kSince) {
      const auto when = parse_when(given.value, now);
      if (!when) return fail_usage("history", when.error());
      since = *when;
    } else if (given.key == kLines) {
      const auto count = parse_count(given.value);
      if (!count) return fail_usage("history", count.error());
      most = *count;
      is_limited = true;
    }
  }
  if (line.has(kJson) && line.has(kSvg)) return fail_usage("history", "--json and --svg exclude each other");
  if (since && !is_limited) most = UINT32_MAX;  // all since then
  const auto events = claiming::history(line.operands, since, most);
  if (!events) return fail(events.error());
  if (line.has(kSvg)) {
    print(observe::to_svg(*events, now));
  } else if (line.has(kJson)) {
    for (const Event& event : *events) print(observe::to_json_line(event));
  } else {
    print(observe::to_table(*events));
  }
  return 0;
}

}  // namespace holdfast::cli
