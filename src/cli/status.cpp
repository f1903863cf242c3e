// SPDX-License-Identifier: MIT
// status.cpp - `holdfast status`: observe's survey, printed.
#include "cli/command.hpp"
#include "observe/render.hpp"

namespace holdfast::cli {

int status_command(const CommandLine& line) {
  const auto survey = observe::survey(line.operands);
  if (!survey) return fail(survey.error());
  print(line.has(kJson) ? observe::to_json(*survey) : observe::to_table(*survey, std::chrono::system_clock::now()));
  return 0;
}

}  // namespace holdfast::cli
