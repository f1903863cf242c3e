// SPDX-License-Identifier: MIT
// port_programs.hpp - the rows of the table for real serial ports: those of serial_programs.hpp that differ there, and
// the daemons that look at every new port.
#pragma once

#include "interop/serial_programs.hpp"

#include <iosfwd>
#include <string>
#include <vector>

namespace holdfast::vm {

struct PortProgram {
  interop::SerialProgram program;
  std::string port = "/dev/ttyUSB0";
  interop::Words run_options = {};  ///< without which it does not work under run
  bool goes_on = false;             ///< lives on when it is refused
  bool under_run = true;            ///< whether anybody would run it so
};

[[nodiscard]] const std::vector<PortProgram>& port_programs();
void PrintTo(const PortProgram& program, std::ostream* out);  // NOLINT(readability-identifier-naming): GoogleTest's

}  // namespace holdfast::vm
