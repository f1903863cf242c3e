// SPDX-License-Identifier: MIT
// port_programs.cpp - the versions are Debian 12's.
#include "vm/support/port_programs.hpp"

#include <algorithm>
#include <array>
#include <ostream>
#include <string_view>

namespace holdfast::vm {
namespace {

using interop::Mark;
using interop::Scratch;
using interop::SerialProgram;
using interop::Started;

constexpr const char* kModemManager = R"(
mkdir -p /run/dbus
dbus-daemon --system --fork --nopidfile
exec ModemManager
)";

std::vector<PortProgram> make_table() {
  std::vector<PortProgram> rows;
  // The others of the table do on a port what they do on a pseudo-terminal.
  constexpr std::array<std::string_view, 6> kNames{"picocom", "minicom", "tio", "screen", "gpsd", "socat"};
  for (const SerialProgram& program : interop::serial_programs()) {
    if (std::ranges::find(kNames, program.row) == kNames.end()) continue;
    PortProgram row{program, "/dev/ttyUSB0"};
    row.program.note = {};
    if (program.row == "gpsd") {
      row.program.mark = Mark::tiocexcl;
      row.program.means = "TIOCEXCL";
      row.program.refusal = "already opened by another process";
      row.program.note = "asks nobody, and as root counts in /proc who has the port open: us, too";
      row.run_options = {"--no-open"};
      row.goes_on = true;
    }
    rows.push_back(row);
  }
  rows.push_back({{.row = "ModemManager",
                   .binary = "ModemManager",
                   .comm = "ModemManager",
                   .mark = Mark::tiocexcl,
                   .refusal = {},
                   .means = "TIOCEXCL",
                   .talk = {},
                   .start = [](const std::string&, const Scratch&) { return Started{{"sh", "-c", kModemManager}, {}}; },
                   .note = "tries every port that may be a modem's, some seconds after it has come"},
                  "/dev/ttyACM0"});
  rows.back().under_run = false;
  rows.push_back({{.row = "brltty",
                   .binary = "brltty",
                   .comm = "brltty",
                   .mark = Mark::none,
                   .refusal = {},
                   .means = {},
                   .talk = {},
                   .start =
                       [](const std::string& device, const Scratch&) {
                         return Started{{"brltty", "-n", "-e", "-N", "-b", "pm", "-d", "serial:" + device, "-x", "no"},
                                        {}};
                       }},
                  "/dev/ttyUSB0"});
  return rows;
}

}  // namespace

const std::vector<PortProgram>& port_programs() {
  static const std::vector<PortProgram> table = make_table();
  return table;
}

void PrintTo(const PortProgram& program, std::ostream* out) { *out << program.program.row; }

}  // namespace holdfast::vm
