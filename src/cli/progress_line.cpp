// SPDX-License-Identifier: MIT
// progress_line.cpp - see the header.
#include "cli/progress_line.hpp"

#include "observe/events.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <string_view>

namespace holdfast::cli {
namespace {

constexpr std::string_view kWipe = "\r\x1b[K";

void write_out(std::string_view text) {
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, text.data(), text.size());
}

std::string_view ending(std::uint32_t ordinal) {
  if (ordinal / 10 % 10 == 1) return "th";
  switch (ordinal % 10) {
    case 1:
      return "st";
    case 2:
      return "nd";
    case 3:
      return "rd";
    default:
      return "th";
  }
}

}  // namespace

std::string progress_text(const Progress& progress) {
  const std::uint32_t place = progress.ahead + 1;
  std::string text = fmt::format("holdfast: waiting, {}{} in the queue", place, ending(place));
  if (!progress.estimate) return text;
  // A guess has no tenths of a second.
  const auto seconds = std::max(std::chrono::round<std::chrono::seconds>(*progress.estimate), std::chrono::seconds{1});
  text += seconds < std::chrono::minutes{1} ? fmt::format(", about {} s", seconds.count())
                                            : ", about " + observe::duration_text(seconds);
  return text;
}

bool ProgressLine::can_be_seen() const {
  const char* const terminal = std::getenv("TERM");
  return ::isatty(STDERR_FILENO) == 1 && terminal != nullptr && std::string_view{terminal} != "dumb";
}

void ProgressLine::show(const Progress& progress) {
  shown_ = true;
  write_out(std::string{kWipe} + progress_text(progress));
}

ProgressLine::~ProgressLine() {
  if (shown_) write_out(kWipe);
}

}  // namespace holdfast::cli
