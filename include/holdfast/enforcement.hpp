// SPDX-License-Identifier: MIT
// enforcement.hpp - the levels of options.hpp as words.
#pragma once

#include <holdfast/options.hpp>

#include <string_view>

namespace holdfast {

/// "advisory", "native", "guarded".
[[nodiscard]] constexpr std::string_view to_string(Enforcement level) noexcept {
  return level == Enforcement::guarded ? "guarded" : level == Enforcement::native ? "native" : "advisory";
}

}  // namespace holdfast
