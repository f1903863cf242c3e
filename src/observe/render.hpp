// SPDX-License-Identifier: MIT
// render.hpp - a survey as text for people and as JSON for programs. Pure: the values decide every byte.
//
// Names of commands and purposes are chosen by strangers; on their way to a terminal they pass base::printable(), in
// JSON they are escaped, and bytes that are not UTF-8 become U+FFFD.
#pragma once

#include "observe/observe.hpp"

#include <algorithm>
#include <array>
#include <string>
#include <string_view>
#include <vector>

namespace holdfast::observe {

/// Which time zone the clock times of a text are in.
enum class Zone : std::uint8_t { local, utc };

/// A table with the columns DEVICE HOLDER PID USER SINCE MODE MEANS PURPOSE, a line per Use, then a line per blindness.
///
/// HOLDER is the command, "kernel", or "?" for somebody unseen. MODE is "exclusive", "shared" or "-", after "waits" for
/// a waiter; "stale" for a dead process's lock file. Further lock files of one process are counted: "UUCP lock file
/// LCK..ttyS0 (+2)". A device that was asked for and that nobody uses has one line, "free"; a sibling of it that nobody
/// uses has none. Columns are aligned by display width; wide East Asian characters count two.
/// \param now  times of the last 20 hours are shown as 12:04:11, older ones as 2026-11-22 12:04
[[nodiscard]] std::string to_table(const Survey& survey, std::chrono::system_clock::time_point now,
                                   Zone zone = Zone::local);

/// One JSON object, indented, ending in a newline. The keys are stable:
///   {"devices": [{"device": "/dev/ttyS0", "number": "c4:64", "relation": null | "same_function"...,
///                 "uses": [{"who": "process" | "kernel" | "unknown", "standing": "holds" | "waits" | "opened" |
///                 "stale",
///                           "pid": 4121 | null, "start_ticks": 99 | null, "command": "picocom" | null, "user": "joe" |
///                           null, "since": "2026-11-22T12:04:11.000Z" | null, "mode": "exclusive" | "shared" | null,
///                           "holdfast": true, "means": ["holdfast"...], "purpose": "flash" | null,
///                           "place": 3 | null, "lapses_in_seconds": 12.5 | null,
///                           "enforcement": "advisory" | "native" | "guarded" | null}], "denials": 3}],
///    "blind": ["descriptors of 41 processes of other users: run as root to see them"]}
[[nodiscard]] std::string to_json(const Survey& survey);

/// How many columns a terminal needs for the text. Pure; knows combining and wide characters by range.
[[nodiscard]] std::size_t display_width(std::string_view text);

/// Rows of cells as lines, each column as wide as its widest cell; the last may be empty.
template <std::size_t columns>
[[nodiscard]] std::string aligned(const std::vector<std::array<std::string, columns>>& rows) {
  std::array<std::size_t, columns> widths{};
  for (const auto& row : rows)
    for (std::size_t i = 0; i < columns; ++i) widths[i] = std::max(widths[i], display_width(row[i]));
  std::string text;
  for (const auto& row : rows) {
    std::string line;
    for (std::size_t i = 0; i < columns; ++i) {
      line += row[i];
      line.append(widths[i] - display_width(row[i]) + 2, ' ');
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  return text;
}

/// "2026-11-22T12:04:11.000Z"
[[nodiscard]] std::string iso_time(std::chrono::system_clock::time_point time);

/// The means of one Use for people: "holdfast, UUCP lock file LCK..ttyS0 (+2), flock".
[[nodiscard]] std::string short_means(const std::vector<std::string>& means);

/// "guarded, 3 denied"; empty when the level is not known.
[[nodiscard]] std::string level_text(const DeviceUse& device, const Use& use);

/// "picocom[4121]", "kernel", "?".
[[nodiscard]] std::string name_of(const Use& use);

}  // namespace holdfast::observe
