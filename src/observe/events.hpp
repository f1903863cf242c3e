// SPDX-License-Identifier: MIT
// events.hpp - what happened, as lines for people, as JSON for programs, and as a drawing. Pure: the values decide
// every byte. Names and purposes are strangers' words; see render.hpp.
#pragma once

#include "observe/render.hpp"

#include <holdfast/watch.hpp>

#include <chrono>
#include <span>
#include <string>

namespace holdfast::observe {

/// "250 ms", "3.2 s", "1 min 29 s", "2 h 05 min", "3 d 4 h"
[[nodiscard]] std::string duration_text(std::chrono::nanoseconds duration);

/// A line with its end: "12:04:11.250 claimed    /dev/ttyUSB0  picocom[4121] (joe), exclusive, waited 3.2 s: flash".
[[nodiscard]] std::string to_line(const Event& event, Zone zone = Zone::local);

/// One JSON object in one line with its end. The keys are stable:
///   {"event": "claimed", "at": "2026-11-22T12:04:11.000Z", "device": "/dev/ttyUSB0" | null, "number": "c188:0" | null,
///    "mode": "exclusive" | "shared" | null, "pid": 4121 | null, "start_ticks": 99 | null, "command": "picocom" | null,
///    "user": "joe" | null, "since": "2026-11-22T12:04:11.000Z" | null, "purpose": "flash" | null,
///    "waited_seconds": 3.2 | null, "held_seconds": 89.5 | null, "detail": "..." | null}
[[nodiscard]] std::string to_json_line(const Event& event);

/// A table with the columns TIME EVENT DEVICE HOLDER PID USER MODE WAITED HELD PURPOSE, an event a line, as they come.
[[nodiscard]] std::string to_table(std::span<const Event> events, Zone zone = Zone::local);

/// A drawing in SVG 1.1: a row per device, a bar for each time that somebody had it, a line before it for his wait,
/// what else happened as a mark; who and how long are titles of their shapes, which browsers show under the pointer.
/// Oldest event first; claims without an end go on until `now`.
[[nodiscard]] std::string to_svg(std::span<const Event> events, std::chrono::system_clock::time_point now,
                                 Zone zone = Zone::local);

}  // namespace holdfast::observe
