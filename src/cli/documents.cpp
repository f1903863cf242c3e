// SPDX-License-Identifier: MIT
// documents.cpp - the table as holdfast(1) and as a bash completion, written at build time by packaging/documents.
// mandoc(1) -Tlint asks for a line per sentence and lines of at most 80 bytes.
#include "cli/texts.hpp"

#include <fmt/format.h>

namespace holdfast::cli {
namespace {

constexpr std::size_t kWidth = 78;

// roff(7): a backslash starts an escape, "-" is typeset as a hyphen, and a dot or an apostrophe at the start of a line
// starts a request.
std::string roff(std::string_view word) {
  std::string out;
  for (const char letter : word) {
    if (letter == '\\')
      out += "\\e";
    else if (letter == '-')
      out += "\\-";
    else
      out += letter;
  }
  return out.starts_with('.') || out.starts_with('\'') ? "\\&" + out : out;
}

bool ends_sentence(std::string_view word) { return word.ends_with('.') || word.ends_with("..."); }

// " Ar SECS", or " Ns Op = Ns Ar WHEN" for one that may be left out.
std::string argument_macros(const Option& option) {
  if (option.argument == nullptr) return {};
  if (!option.may_lack_argument()) return fmt::format(" Ar {}", option.argument);
  const std::string_view bracketed{option.argument};
  return fmt::format(" Ns Op = Ns Ar {}", bracketed.substr(1, bracketed.size() - 2));
}

void option_list(std::string& out, std::span<const Option> options) {
  out += ".Bl -tag -width Ds\n";
  for (const Option& option : options) {
    out += ".It";
    if (option.letter() != '\0') out += fmt::format(" Fl {} ,", option.letter());
    out += fmt::format(" Fl Fl {}{}\n", roff(option.name), argument_macros(option));
    out += mdoc_text(option.text);
  }
  out += ".El\n";
}

// "status|on|off" with something else between.
std::string with_blanks(std::string_view alternatives, std::string_view between) {
  std::string out;
  for (const char letter : alternatives)
    if (letter == '|')
      out += between;
    else
      out += letter;
  return out;
}

// "DEVICE... -- COMMAND [ARG...]", "status|on|off" as mdoc(7) macros.
std::string operands_macros(std::string_view operands) {
  std::string out;
  while (!operands.empty()) {
    std::string_view word = operands.substr(0, operands.find(' '));
    operands.remove_prefix(std::min(word.size() + 1, operands.size()));
    const bool optional = word.starts_with('[');
    if (optional) word = word.substr(1, word.size() - 2);
    const bool many = word.ends_with("...");
    if (many) word.remove_suffix(3);
    if (word == "--")
      out += ".Fl Fl\n";
    else if (word.find('|') != std::string_view::npos)
      out += fmt::format(".Cm {}\n", with_blanks(word, " | "));
    else
      out += fmt::format(".{}Ar {}{}\n", optional ? "Op " : "", word, many ? " ..." : "");
  }
  return out;
}

void synopsis(std::string& out) {
  for (const Command& command : kCommands) {
    out += fmt::format(".Nm\n.Cm {}\n", command.name);
    for (const Option& option : command.options) {
      out += option.letter() != '\0' ? fmt::format(".Op Fl {}", option.letter())
                                     : fmt::format(".Op Fl Fl {}", roff(option.name));
      out += argument_macros(option) + '\n';
    }
    out += operands_macros(command.operands);
  }
  out += ".Nm\n.Fl h | Fl V\n";
}

std::string words_of(std::span<const Option> options) {
  std::string words;
  for (const Option& option : options) {
    if (option.letter() != '\0') words += fmt::format("-{} ", option.letter());
    words += fmt::format("--{} ", option.name);
    if (option.may_lack_argument()) words += fmt::format("--{}= ", option.name);
  }
  words.pop_back();
  return words;
}

// Options after which the next word is an argument: "-w|--wait".
std::string with_argument(std::span<const Option> options, bool conventions) {
  std::string words;
  for (const Option& option : options) {
    const bool takes_conventions = option.argument != nullptr && std::string_view{option.argument} == "LIST";
    if (option.argument == nullptr || option.may_lack_argument() || takes_conventions != conventions) continue;
    if (option.letter() != '\0') words += fmt::format("-{}|", option.letter());
    words += fmt::format("--{}|", option.name);
  }
  if (!words.empty()) words.pop_back();
  return words;
}

}  // namespace

std::string mdoc_text(std::string_view text) {
  std::string out;
  std::string line;
  const auto flush = [&] {
    if (!line.empty()) out += line + "\n";
    line.clear();
  };
  while (!text.empty()) {
    const std::string_view word = text.substr(0, text.find(' '));
    const std::string typeset = roff(word);
    if (line.size() + 1 + typeset.size() > kWidth) flush();
    line += (line.empty() ? "" : " ") + typeset;
    if (ends_sentence(word)) flush();
    text.remove_prefix(std::min(word.size() + 1, text.size()));
  }
  flush();
  return out;
}

std::string man_page() {
  std::string out = ".\\\" SPDX-License-Identifier: MIT\n.\\\" Made from src/cli/table.hpp; do not edit.\n";
  out += fmt::format(".Dd {}\n.Dt HOLDFAST 1\n.Os\n", kDate);
  out += fmt::format(".Sh NAME\n.Nm holdfast\n.Nd {}\n.Sh SYNOPSIS\n", kSummary);
  synopsis(out);
  out += ".Sh DESCRIPTION\n";
  for (const std::string_view text : kDescription) {
    if (text != kDescription.front()) out += ".Pp\n";
    out += mdoc_text(text);
  }
  for (const Command& command : kCommands) {
    out += fmt::format(".Ss holdfast {}\n", command.name);
    for (const std::string_view text : command.details) {
      if (text != command.details.front()) out += ".Pp\n";
      out += mdoc_text(text);
    }
    option_list(out, command.options);
  }
  out += ".Ss Options of holdfast itself\n";
  option_list(out, kGlobalOptions);
  out += ".Sh FILES\n.Bl -tag -width Ds\n";
  for (const Entry& file : kFiles) {
    out += fmt::format(".It Pa {}\n", roff(file.term));
    out += mdoc_text(file.text);
  }
  out += ".El\n.Sh EXIT STATUS\n.Bl -tag -width Ds\n";
  for (const Entry& status : kStatuses) {
    out += fmt::format(".It {}\n", roff(status.term));
    out += mdoc_text(status.text);
  }
  out += ".El\n.Sh EXAMPLES\n.Bl -tag -width Ds\n";
  for (const Command& command : kCommands) {
    for (const Entry& example : command.examples) {
      out += fmt::format(".It Li \"{}\"\n", roff(example.term));
      out += mdoc_text(example.text);
    }
  }
  out += ".El\n.Sh SEE ALSO\n.Xr flock 1 ,\n.Xr flock 2 ,\n.Xr ioctl_tty 2 ,\n.Xr holdfast 7 ,\n.Xr lsof 8\n";
  return out;
}

std::string bash_completion() {
  std::string out =
      "# SPDX-License-Identifier: MIT\n"
      "# bash completion for holdfast; made from src/cli/table.hpp, do not edit.\n"
      "_holdfast() {\n"
      "  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} command=${COMP_WORDS[1]} i\n"
      "  COMPREPLY=()\n"
      "  if ((COMP_CWORD == 1)); then\n";
  std::string names = "help";
  for (const Command& command : kCommands) names += fmt::format(" {}", command.name);
  out += fmt::format("    COMPREPLY=($(compgen -W '{} {}' -- \"$cur\"))\n    return\n  fi\n", names,
                     words_of(kGlobalOptions));
  out +=
      "  for ((i = 2; i < COMP_CWORD; i++)); do\n"
      "    [[ ${COMP_WORDS[i]} == -- ]] || continue\n"
      "    # A command and its own completion, when bash-completion is loaded.\n"
      "    if declare -F _command_offset >/dev/null; then _command_offset $((i + 1)); "
      "else COMPREPLY=($(compgen -c -- \"$cur\")); fi\n"
      "    return\n"
      "  done\n"
      "  local options= conventions= arguments= operands=\n"
      "  case $command in\n";
  for (const Command& command : kCommands) {
    out += fmt::format("    {}) options='{}'", command.name, words_of(command.options));
    const std::string lists = with_argument(command.options, true);
    const std::string others = with_argument(command.options, false);
    if (!lists.empty()) out += fmt::format("\n      conventions='{}'", lists);
    if (!others.empty()) out += fmt::format(" arguments='{}'", others);
    if (command.operands.find('|') != std::string_view::npos)
      out += fmt::format(" operands='{}'", with_blanks(command.operands, " "));
    out += " ;;\n";
  }
  out += fmt::format("    help) COMPREPLY=($(compgen -W '{}' -- \"$cur\")); return ;;\n", names);
  out +=
      "    *) return ;;\n"
      "  esac\n"
      "  if [[ -n $conventions && $prev =~ ^($conventions)$ ]]; then\n"
      "    local before=\n"
      "    [[ $cur == *,* ]] && before=${cur%,*},\n"
      "    compopt -o nospace 2>/dev/null\n";
  std::string conventions;
  for (const std::string_view name : kConventionNames)
    conventions += fmt::format("{}{}", conventions.empty() ? "" : " ", name);
  out += fmt::format("    COMPREPLY=($(compgen -P \"$before\" -W '{}' -- \"${{cur##*,}}\"))\n", conventions);
  out +=
      "  elif [[ -n $arguments && $prev =~ ^($arguments)$ ]]; then\n"
      "    return\n"
      "  elif [[ $prev == --guard && $cur == = || $prev == = && ${COMP_WORDS[COMP_CWORD-2]} == --guard ]]; then\n"
      "    COMPREPLY=($(compgen -W 'require auto off' -- \"${cur#=}\"))\n"
      "  elif [[ $cur == -* ]]; then\n"
      "    COMPREPLY=($(compgen -W \"$options\" -- \"$cur\"))\n"
      "  elif [[ -n $operands ]]; then\n"
      "    COMPREPLY=($(compgen -W \"$operands\" -- \"$cur\"))\n"
      "  else\n"
      "    [[ -n $cur ]] || cur=/dev/\n"
      "    compopt -o filenames 2>/dev/null\n"
      "    COMPREPLY=($(compgen -f -- \"$cur\"))\n"
      "  fi\n"
      "}\n"
      "complete -F _holdfast holdfast\n";
  return out;
}

}  // namespace holdfast::cli
