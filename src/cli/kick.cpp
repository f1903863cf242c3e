// SPDX-License-Identifier: MIT
// kick.cpp - `holdfast kick`: asks the broker to take a device back, and waits until it is.
#include "base/error.hpp"
#include "claim/inquiry.hpp"
#include "cli/command.hpp"

namespace holdfast::cli {

int kick_command(const CommandLine& line) {
  if (line.operands.size() != 1) return fail_usage("kick", "name one device");
  std::chrono::nanoseconds grace = std::chrono::seconds{10};
  std::string reason;
  for (const GivenOption& given : line.options) {
    if (given.key == kPurpose) reason = given.value;
    if (given.key != kGrace) continue;
    const auto seconds = parse_seconds(given.value);
    if (!seconds) return fail_usage("kick", seconds.error());
    grace = *seconds;
  }
  const auto kicked = claiming::kick(line.operands.front(), grace, reason);
  if (kicked) return 0;
  // Nobody to kick is a refusal, and no fault of the system's.
  return kicked.error().code == errc::not_held ? fail({errc::refused, kicked.error().message, {}, {}, 0})
                                               : fail(kicked.error());
}

}  // namespace holdfast::cli
