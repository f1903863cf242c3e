// SPDX-License-Identifier: MIT
// texts.hpp - the table as text: what --help prints, holdfast(1), and the bash completion. Pure.
#pragma once

#include "cli/table.hpp"

#include <string>
#include <string_view>

namespace holdfast::cli {

/// `holdfast --help`: 80 columns.
[[nodiscard]] std::string help_text();
/// `holdfast run --help`.
[[nodiscard]] std::string help_text(const Command& command);

/// Text lines of mdoc(7): broken after each sentence and before the width, escaped.
[[nodiscard]] std::string mdoc_text(std::string_view text);
/// holdfast(1) in mdoc(7).
[[nodiscard]] std::string man_page();
[[nodiscard]] std::string bash_completion();

}  // namespace holdfast::cli
