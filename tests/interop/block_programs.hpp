// SPDX-License-Identifier: MIT
// block_programs.hpp - the rows of the table for disks, and the truth about each.
#pragma once

#include "interop/support/bench.hpp"

#include <iosfwd>
#include <string>
#include <vector>

namespace holdfast::interop {

/// How a test catches the program while it has the disk.
enum class Hold : std::uint8_t {
  stopped,  ///< stopped by the test at the call that takes
  passing,  ///< stopped by the test when it is seen with it
  stays,    ///< by itself, until it is killed
  kernel,   ///< the program ends, the kernel keeps
  opens,    ///< it takes nothing, and has the disk open until it is killed
};

struct BlockProgram {
  std::string row;
  std::string binary;
  std::string refusal;  ///< what it says when somebody has the disk; " " : nothing, but fails; empty: it does not ask
  Hold hold = Hold::opens;
  std::string holder = {};  ///< whom a claim names
  std::string means = {};   ///< and by which means; empty: a claim does not see it
  Words (*command)(const std::string& device, const Scratch& scratch) = nullptr;
  Words (*staying)(const std::string& device) = nullptr;  ///< for Hold::stays and Hold::opens
  std::string input = {};
  Words (*before)(const std::string& device) = nullptr;  ///< what must be on the disk first
  Taking taking = Taking::exclusive_open;                ///< where it is stopped
  std::string note = {};
  Words run_options = {};   ///< without which it meets our own mark under run
  int status = 0;           ///< with which it ends when nobody is in its way
  int refused_status = -1;  ///< and when somebody is; -1: any but 0
};

[[nodiscard]] const std::vector<BlockProgram>& block_programs();
/// Those that want a disk with a driver of its own.
[[nodiscard]] const std::vector<BlockProgram>& disk_programs();
void PrintTo(const BlockProgram& program, std::ostream* out);  // NOLINT(readability-identifier-naming): GoogleTest's

}  // namespace holdfast::interop
