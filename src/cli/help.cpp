// SPDX-License-Identifier: MIT
// help.cpp - the table in the layout of util-linux: one blank of indent, texts in one column, 80 columns in all.
#include "cli/texts.hpp"

#include <fmt/format.h>

namespace holdfast::cli {
namespace {

constexpr std::size_t kWidth = 79;

// Appends `text` broken at blanks, later lines indented; `column` is where the cursor stands.
void wrap(std::string& out, std::string_view text, std::size_t indent, std::size_t column) {
  while (!text.empty()) {
    const std::string_view word = text.substr(0, text.find(' '));
    if (column > indent && column + 1 + word.size() > kWidth) {
      out += '\n';
      out.append(indent, ' ');
      column = indent;
    } else if (column > indent) {
      out += ' ';
      ++column;
    }
    out += word;
    column += word.size();
    text.remove_prefix(std::min(word.size() + 1, text.size()));
  }
  out += '\n';
}

// One term and its text, the text beginning at `column`.
void entry(std::string& out, std::string_view term, std::string_view text, std::size_t column) {
  out += term;
  if (term.size() + 2 > column) {
    out += '\n';
    out.append(column, ' ');
  } else {
    out.append(column - term.size(), ' ');
  }
  wrap(out, text, column, column);
}

std::string term_of(const Option& option) {
  std::string term = option.letter() != '\0' ? fmt::format(" -{}, ", option.letter()) : std::string{"     "};
  term += fmt::format("--{}", option.name);
  if (option.may_lack_argument())
    term += fmt::format("[={}", option.argument + 1);
  else if (option.argument != nullptr)
    term += fmt::format(" {}", option.argument);
  return term;
}

void options_of(std::string& out, std::span<const Option> options) {
  out += "\nOptions:\n";
  std::size_t column = 0;
  for (const Option& option : options) column = std::max(column, term_of(option).size() + 2);
  for (const Option& option : options) entry(out, term_of(option), option.text, column);
}

void statuses(std::string& out) {
  out += "\nExit status:\n";
  for (const Entry& status : kStatuses) entry(out, fmt::format(" {}", status.term), status.text, 8);
}

std::string usage_of(const Command& command) {
  return fmt::format(" holdfast {} [options]{}{}\n", command.name, command.operands.empty() ? "" : " ",
                     command.operands);
}

}  // namespace

std::string help_text() {
  std::string out = "\nUsage:\n";
  for (const Command& command : kCommands) out += usage_of(command);
  out += fmt::format("\n{}\n\nCommands:\n", kSummary);
  for (const Command& command : kCommands) entry(out, fmt::format(" {}", command.name), command.summary, 11);
  options_of(out, kGlobalOptions);
  statuses(out);
  out += "\nEach command has its own --help. For more details see holdfast(1), holdfast(7).\n";
  return out;
}

std::string help_text(const Command& command) {
  std::string out = "\nUsage:\n" + usage_of(command) + "\n";
  wrap(out, command.summary, 0, 0);
  options_of(out, command.options);
  if (!command.examples.empty()) out += "\nExamples:\n";
  for (const Entry& example : command.examples) {
    out += fmt::format(" {}\n", example.term);
    entry(out, "   ", example.text, 5);
  }
  out += "\nFor more details, exit statuses among them, see holdfast(1).\n";
  return out;
}

}  // namespace holdfast::cli
