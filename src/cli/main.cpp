// SPDX-License-Identifier: MIT
// main.cpp - from argv to a subcommand and back to an exit status. Everything else is in the subcommand's file.
#include "cli/command.hpp"
#include "cli/texts.hpp"

namespace {

using namespace holdfast::cli;

int dispatch(const Command& command, const CommandLine& line) {
  switch (command.verb) {
    case Verb::run:
      return run_command(line);
    case Verb::claim:
      return claim_command(line);
    case Verb::release:
      return release_command(line);
    case Verb::status:
      return status_command(line);
    case Verb::watch:
      return watch_command(line);
    case Verb::top:
      return top_command(line);
    case Verb::history:
      return history_command(line);
    case Verb::kick:
      return kick_command(line);
    case Verb::explain:
      return explain_command(line);
    case Verb::doctor:
      return doctor_command(line);
    case Verb::guard:
      return guard_command(line);
  }
  return kExitUsage;
}

int help(std::string_view topic) {
  const Command* const command = command_named(topic);
  if (!topic.empty() && command == nullptr) return fail_usage("", quoted(topic) + " is not a command");
  print(command != nullptr ? help_text(*command) : help_text());
  return 0;
}

int answer(int argc, char** argv) {
  if (argc < 2) return fail_usage("", "name a command");
  const std::string_view first = argv[1];
  if (first == "--help" || first == "-h") return help("");
  if (first == "help") return help(argc > 2 ? argv[2] : "");
  if (first == "--version" || first == "-V") {
    print("holdfast " HOLDFAST_VERSION "\n");
    return 0;
  }
  const Command* const command = command_named(first);
  if (command == nullptr) {
    return fail_usage("", quoted(first) + (first.starts_with('-') ? " is not an option here" : " is not a command"));
  }
  const auto line = parse(*command, argc - 1, argv + 1);
  if (!line) return fail_usage(command->name, line.error());
  if (line->has(kHelp)) return help(command->name);
  return dispatch(*command, *line);
}

}  // namespace

int main(int argc, char** argv) {
  fill_standard_descriptors();
  const int status = answer(argc, argv);
  return flush_output() ? status : kExitSystem;
}
