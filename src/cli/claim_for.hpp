// SPDX-License-Identifier: MIT
// claim_for.hpp - `holdfast claim --pid` and `holdfast release --pid`: the owner is another process, the broker holds.
#pragma once

#include "cli/command_line.hpp"

#include <string>
#include <vector>

namespace holdfast::cli {

/// Claims, or renews what the process has; prints the line and returns the exit status.
int claim_for(const ClaimWords& words, const std::vector<std::string>& devices);

}  // namespace holdfast::cli
