// SPDX-License-Identifier: MIT
// doctor.cpp - `holdfast doctor`: observe's findings, printed; the exit status is 1 when one of them is a problem.
#include "observe/doctor.hpp"

#include "cli/command.hpp"

namespace holdfast::cli {

int doctor_command(const CommandLine& line) {
  const auto findings = observe::examine();
  print(line.has(kJson) ? observe::to_json(findings) : observe::to_text(findings));
  return observe::is_healthy(findings) ? 0 : 1;
}

}  // namespace holdfast::cli
