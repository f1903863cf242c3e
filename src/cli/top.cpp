// SPDX-License-Identifier: MIT
// top.cpp - `holdfast top`: until it is live, what status shows.
#include "cli/command.hpp"

namespace holdfast::cli {

int top_command(const CommandLine& line) { return status_command(line); }

}  // namespace holdfast::cli
