// SPDX-License-Identifier: MIT
// explain.cpp - `holdfast explain`: one explanation per device; with --json an array of them.
#include "observe/explain.hpp"

#include "cli/command.hpp"
#include "cli/guard_here.hpp"

namespace holdfast::cli {

int explain_command(const CommandLine& line) {
  if (line.operands.empty()) return fail_usage("explain", "name a device");
  const bool json = line.has(kJson);
  std::string text;
  for (const std::string& device : line.operands) {
    auto explanation = observe::explain(device, line.has(kUnit) ? Cover::unit : Cover::function);
    if (!explanation) return fail(explanation.error());
    explanation->guard = guard_outlook(explanation->covered);
    if (!text.empty()) text += json ? "," : "\n";
    text += json ? observe::to_json(*explanation) : observe::to_text(*explanation, std::chrono::system_clock::now());
  }
  print(json ? "[" + text + "]\n" : text);
  return 0;
}

}  // namespace holdfast::cli
