// SPDX-License-Identifier: MIT
// top_view.hpp - a survey as the lines of a screen. Pure; `holdfast top` paints them.
#pragma once

#include "observe/render.hpp"

#include <chrono>
#include <string>
#include <string_view>
#include <vector>

namespace holdfast::observe {

struct TopLine {
  enum class Look : std::uint8_t { plain, title, heading, device, waiter };
  Look look = Look::plain;
  std::string text;  ///< at most as wide as asked for
};
/// Whether the broker answered.
enum class Broker : std::uint8_t { answers, is_silent };

struct TopView {
  std::vector<TopLine> head;  ///< stays when the rest is scrolled: title, headings
  std::vector<TopLine> body;
};
[[nodiscard]] TopView top_view(const Survey& survey, Broker broker, std::chrono::system_clock::time_point now,
                               std::size_t width, Zone zone = Zone::local);

/// `text` cut at `width` columns of a terminal.
[[nodiscard]] std::string cut(std::string_view text, std::size_t width);

}  // namespace holdfast::observe
