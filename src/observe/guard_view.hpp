// SPDX-License-Identifier: MIT
// guard_view.hpp - what the guard does at the moment, as text and as JSON. Pure; who may ask the guard fills it in.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace holdfast::observe {

struct GuardView {
  enum class State : std::uint8_t { off, on };
  struct Device {
    std::string path;    ///< its number where it has no node
    std::string number;  ///< "c188:0"
    std::int64_t owners = 0;
    std::uint64_t denials = 0;                     ///< since somebody owns it
    std::optional<std::chrono::nanoseconds> left;  ///< of a claim for a time
  };
  /// A process with a device in its memory, owners among them: such use cannot be taken back.
  struct Mapping {
    std::string path;
    pid_t pid = 0;
    std::string command;
  };
  /// Something that the machine lacks.
  struct Lack {
    std::string what;
    std::string remedy;
  };
  State state = State::off;
  std::vector<Device> devices;
  std::vector<Mapping> mappings;
  std::vector<Lack> lacks;
};

/// "the guard is on" or "the guard is off", then a table of DEVICE NUMBER OWNERS DENIED LEFT, a line per mapping and
/// per lack.
[[nodiscard]] std::string to_text(const GuardView& view);

/// {"guard": "on" | "off", "devices": [{"device", "number", "owners", "denials", "lapses_in_seconds": 12.5 | null}],
///  "mappings": [{"device", "pid", "command"}], "lacks": [{"what", "remedy"}]}, ending in a newline. The keys are
///  stable.
[[nodiscard]] std::string to_json(const GuardView& view);

}  // namespace holdfast::observe
