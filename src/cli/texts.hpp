// SPDX-License-Identifier: MIT
// texts.hpp - the table as text: what --help prints, holdfast(1), and the bash completion. Pure.
#pragma once

#include "cli/table.hpp"

#include <string>

namespace holdfast::cli {

/// `holdfast --help`: 80 columns.
[[nodiscard]] std::string help_text();
/// `holdfast run --help`.
[[nodiscard]] std::string help_text(const Command& command);

/// holdfast(1) in mdoc(7).
[[nodiscard]] std::string man_page();
[[nodiscard]] std::string bash_completion();

}  // namespace holdfast::cli
