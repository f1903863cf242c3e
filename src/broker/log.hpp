// SPDX-License-Identifier: MIT
// log.hpp - lines on standard error; under systemd each begins with its priority (sd-daemon(3)).
#pragma once

#include <cstdint>
#include <string_view>

namespace holdfast::broker {

enum class Level : std::uint8_t { error = 3, warning = 4, notice = 5, info = 6, debug = 7 };
enum class Verbosity : std::uint8_t { usual, all };

class Log {
 public:
  explicit Log(Verbosity verbosity);
  void say(Level level, std::string_view line) const;
  [[nodiscard]] bool says(Level level) const { return level <= most_; }

 private:
  Level most_;
  bool to_journal_;
};

}  // namespace holdfast::broker
