// SPDX-License-Identifier: MIT
// log.cpp - see the header.
#include "broker/log.hpp"

#include <fmt/format.h>

#include <unistd.h>

#include <cstdlib>
#include <string>

namespace holdfast::broker {

Log::Log(Verbosity verbosity)
    : most_{verbosity == Verbosity::all ? Level::debug : Level::notice},
      to_journal_{::getenv("JOURNAL_STREAM") != nullptr} {}

void Log::say(Level level, std::string_view line) const {
  if (!says(level)) return;
  const std::string text =
      to_journal_ ? fmt::format("<{}>{}\n", static_cast<int>(level), line) : fmt::format("holdfastd: {}\n", line);
  // One write, so that lines stay whole; there is nobody to tell that it failed.
  static_cast<void>(!::write(STDERR_FILENO, text.data(), text.size()));
}

}  // namespace holdfast::broker
