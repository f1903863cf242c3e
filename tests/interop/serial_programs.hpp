// SPDX-License-Identifier: MIT
// serial_programs.hpp - the rows of the serial table: each program, how it is started on a line, and the truth about it
// that the tests assert.
#pragma once

#include "interop/support/bench.hpp"

#include <iosfwd>
#include <string>
#include <vector>

namespace holdfast::interop {

/// How a program marks a line, as far as it can be seen from outside.
enum class Mark : std::uint8_t { uucp, flock, posix, tiocexcl, none };

struct Started {
  Words command;
  Words environment;
};

/// A short talk over the line, to see that a program works. Empty parts are left out.
struct Talk {
  std::string typed;  ///< by its user
  std::string heard;  ///< at the far end of the line
  std::string said;   ///< by the far end
  std::string shown;  ///< to its user
};

struct SerialProgram {
  std::string row;     ///< in test names and in the table
  std::string binary;  ///< must be installed
  std::string comm;    ///< what the kernel calls it
  Mark mark = Mark::none;
  std::string refusal;  ///< what it says when somebody has the line; empty: it honours nothing that a claim can set
  std::string means;    ///< by which a claim sees it; empty: a claim does not
  Talk talk;
  std::string quit = {};  ///< keys that end it with status 0; empty: it is killed
  Started (*start)(const std::string& device, const Scratch& scratch) = nullptr;
  std::string note = {};         ///< footnote
  std::string lacks = {};        ///< why the tests that need it to go on do not work here
  std::string device_name = {};  ///< a link of this name in /dev instead of /dev/pts/N
  bool passing = false;          ///< has the line for a moment only: it is stopped to look at it
};

[[nodiscard]] const std::vector<SerialProgram>& serial_programs();
void PrintTo(const SerialProgram& program, std::ostream* out);  // NOLINT(readability-identifier-naming): GoogleTest's

}  // namespace holdfast::interop
