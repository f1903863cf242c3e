// SPDX-License-Identifier: MIT
// drive_programs.hpp - the rows of the table for optical drives, and the truth about each. They are what
// block_programs.hpp calls a program; a drive has two nodes, and some programs work on both.
#pragma once

#include "interop/block_programs.hpp"

#include <iosfwd>
#include <optional>
#include <vector>

namespace holdfast::vm {

struct DriveProgram {
  interop::BlockProgram by_sr;
  std::optional<interop::BlockProgram> by_sg;
};

[[nodiscard]] const std::vector<DriveProgram>& drive_programs();
void PrintTo(const DriveProgram& program, std::ostream* out);  // NOLINT(readability-identifier-naming): GoogleTest's

}  // namespace holdfast::vm
