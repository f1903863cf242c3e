// SPDX-License-Identifier: MIT
// run_driver.cpp - run::run() as a program, without the command line's comforts, for the tests of the room alone.
//
// Usage: run_driver [-s] [-v] [-N] [-w MILLISECONDS] DEVICE... -- COMMAND [ARGUMENT...]
#include "run/run.hpp"

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string_view>

int main(int argc, char** argv) {
  using holdfast::run::Outcome;
  holdfast::run::Request request;
  int i = 1;
  for (; i < argc && std::string_view{argv[i]} != "--"; ++i) {
    const std::string_view word{argv[i]};
    if (word == "-s") {
      request.options.mode = holdfast::Mode::shared;
    } else if (word == "-v") {
      request.verbose = true;
    } else if (word == "-N") {
      request.hand_over = holdfast::run::HandOver::never;
    } else if (word == "-w") {
      request.options.wait = holdfast::Wait::at_most(std::chrono::milliseconds{std::atoi(argv[++i])});
    } else {
      request.devices.emplace_back(word);
    }
  }
  for (++i; i < argc; ++i) request.command.emplace_back(argv[i]);
  const auto outcome = holdfast::run::run(request);
  if (!outcome) {
    std::fprintf(stderr, "holdfast: %s\n", outcome.error().message.c_str());
    return outcome.error().code == holdfast::errc::refused ? 75 : 71;
  }
  switch (outcome->kind) {
    case Outcome::Kind::exited:
      return outcome->value;
    case Outcome::Kind::killed:
      return 128 + outcome->value;
    case Outcome::Kind::not_executable:
      return 126;
    case Outcome::Kind::not_found:
      return 127;
  }
  return 71;
}
