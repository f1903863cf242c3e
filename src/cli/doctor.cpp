// SPDX-License-Identifier: MIT
// doctor.cpp - `holdfast doctor`: observe's findings and the guard's, printed; the exit status is 1 when one of them is
// a problem.
#include "observe/doctor.hpp"

#include "cli/command.hpp"
#include "cli/guard_here.hpp"

#include <algorithm>
#include <iterator>
#include <utility>

namespace holdfast::cli {

int doctor_command(const CommandLine& line) {
  auto findings = observe::examine();
  std::ranges::move(guard_findings(), std::back_inserter(findings));
  print(line.has(kJson) ? observe::to_json(findings) : observe::to_text(findings));
  return observe::is_healthy(findings) ? 0 : 1;
}

}  // namespace holdfast::cli
