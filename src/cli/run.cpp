// SPDX-License-Identifier: MIT
// run.cpp - `holdfast run`: words to run::Request, Outcome to exit status.
#include "run/run.hpp"

#include "base/error.hpp"
#include "cli/command.hpp"

#include <fmt/format.h>

namespace holdfast::cli {

int run_command(const CommandLine& line) {
  if (!line.separated || line.command.empty())
    return fail_usage("run", "a command must follow the devices after --, as in: holdfast run DEVICE -- COMMAND");
  const auto words = claim_words(line);
  if (!words) return fail_usage("run", words.error());

  run::Request request;
  request.devices = line.operands;
  request.command = line.command;
  request.hand_over = line.has(kNoHandOver) ? run::HandOver::never : run::HandOver::when_asked;
  request.verbose = words->verbose;
  const auto outcome = attempt_and_tell(*words, [&request](const Options& options) {
    request.options = options;
    return run::run(request);
  });
  if (!outcome) return fail(outcome.error(), words->refused_status);

  switch (outcome->kind) {
    case run::Outcome::Kind::exited:
      return outcome->value;
    case run::Outcome::Kind::killed:
      return kExitSignalled + outcome->value;
    case run::Outcome::Kind::not_executable:
    case run::Outcome::Kind::not_found:
      break;
  }
  complain(fmt::format("{}: {}", base::printable(request.command.front()), base::errno_text(outcome->value)));
  return outcome->kind == run::Outcome::Kind::not_found ? kExitNotFound : kExitNotExecutable;
}

}  // namespace holdfast::cli
