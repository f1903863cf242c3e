// SPDX-License-Identifier: MIT
// What the table says, and what is made from it, hangs together.
#include "cli/table.hpp"
#include "cli/texts.hpp"

#include <gmock/gmock.h>

#include <algorithm>
#include <set>
#include <string>
#include <tuple>
#include <vector>

namespace holdfast::cli {
namespace {

using testing::HasSubstr;

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::size_t start = 0;
  for (std::size_t end = 0; (end = text.find('\n', start)) != std::string::npos; start = end + 1)
    lines.push_back(text.substr(start, end - start));
  EXPECT_EQ(start, text.size()) << "the last line has no line feed";
  return lines;
}

std::vector<std::string> all_helps() {
  std::vector<std::string> texts{help_text()};
  for (const Command& command : kCommands) texts.push_back(help_text(command));
  return texts;
}

TEST(CliTable, options_are_sorted_by_letter_then_by_long_name) {
  // As in flock(1) and util-linux: letters without regard to case, the lower one first; help stands last.
  const auto rank = [](const Option& option) {
    const char letter = option.letter();
    const int folded = letter == '\0' ? 256 : (letter | 0x20);
    return std::tuple{option.key == kHelp, folded, letter < 'a', std::string_view{option.name}};
  };
  for (const Command& command : kCommands)
    EXPECT_TRUE(std::ranges::is_sorted(command.options, {}, rank)) << command.name;
}

TEST(CliTable, no_option_of_a_command_comes_twice) {
  for (const Command& command : kCommands) {
    std::set<int> keys;
    std::set<std::string_view> names;
    for (const Option& option : command.options) {
      EXPECT_TRUE(keys.insert(option.key).second) << command.name << " --" << option.name;
      EXPECT_TRUE(names.insert(option.name).second) << command.name << " --" << option.name;
    }
  }
}

TEST(CliTable, one_option_means_the_same_in_every_command) {
  for (const Command& one : kCommands)
    for (const Command& other : kCommands)
      for (const Option& a : one.options)
        for (const Option& b : other.options)
          EXPECT_EQ(a.key == b.key, std::string_view{a.name} == b.name) << one.name << ", " << other.name;
}

TEST(CliTable, texts_begin_small_and_have_no_full_stop) {
  for (const Command& command : kCommands) {
    for (const Option& option : command.options) {
      EXPECT_FALSE(option.text.empty()) << option.name;
      EXPECT_FALSE(option.text.ends_with('.')) << option.text;
      EXPECT_TRUE(option.text.front() < 'A' || option.text.front() > 'Z') << option.text;
    }
    for (const std::string_view paragraph : command.details) EXPECT_TRUE(paragraph.ends_with('.')) << paragraph;
  }
}

TEST(CliTable, every_command_has_help) {
  for (const Command& command : kCommands) {
    EXPECT_TRUE(std::ranges::any_of(command.options, [](const Option& o) { return o.key == kHelp; })) << command.name;
    EXPECT_EQ(command_named(command.name), &command);
  }
  EXPECT_EQ(command_named(""), nullptr);
  EXPECT_EQ(command_named("ru"), nullptr);
}

TEST(CliHelp, fits_80_columns) {
  for (const std::string& text : all_helps())
    for (const std::string& line : lines_of(text)) EXPECT_LT(line.size(), 80U) << line;
}

TEST(CliHelp, has_no_blanks_at_line_ends) {
  for (const std::string& text : all_helps())
    for (const std::string& line : lines_of(text)) EXPECT_FALSE(line.ends_with(' ')) << line;
}

TEST(CliHelp, of_a_command_names_each_of_its_options) {
  for (const Command& command : kCommands) {
    const std::string text = help_text(command);
    for (const Option& option : command.options) {
      EXPECT_THAT(text, HasSubstr(std::string{"--"} + option.name));
      if (option.letter() == '\0') continue;
      EXPECT_THAT(text, HasSubstr(std::string{" -"} + option.letter() + ", "));
    }
  }
}

TEST(CliHelp, of_the_whole_names_commands_and_exit_statuses) {
  const std::string text = help_text();
  for (const Command& command : kCommands) EXPECT_THAT(text, HasSubstr("holdfast " + std::string{command.name}));
  for (const char* const status : {"64", "66", "71", "75", "77", "126", "127", "128+N"})
    EXPECT_THAT(text, HasSubstr(std::string{"\n "} + status + ' '));
}

TEST(CliManPage, documents_every_option_of_every_command) {
  const std::string text = man_page();
  for (const Command& command : kCommands) {
    const auto from = text.find(".Ss holdfast " + std::string{command.name} + '\n');
    ASSERT_NE(from, std::string::npos) << command.name;
    const std::string section = text.substr(from, text.find("\n.El\n", from) - from);
    for (const Option& option : command.options) {
      std::string name{option.name};
      for (std::size_t at = 0; (at = name.find('-', at)) != std::string::npos; at += 2) name.insert(at, "\\");
      EXPECT_THAT(section, HasSubstr(" Fl Fl " + name)) << command.name;
    }
  }
}

TEST(CliManPage, text_never_looks_like_a_request) {
  for (const std::string& line : lines_of(man_page())) {
    if (!line.starts_with('.')) continue;
    EXPECT_TRUE(line[1] == '\\' || (line[1] >= 'A' && line[1] <= 'Z')) << line;
  }
}

TEST(CliCompletion, knows_every_option) {
  const std::string text = bash_completion();
  for (const Command& command : kCommands) {
    const auto from = text.find("    " + std::string{command.name} + ") options='");
    ASSERT_NE(from, std::string::npos) << command.name;
    const std::string words = text.substr(from, text.find('\n', from) - from);
    for (const Option& option : command.options) EXPECT_THAT(words, HasSubstr(std::string{"--"} + option.name));
  }
}

}  // namespace
}  // namespace holdfast::cli
