// SPDX-License-Identifier: MIT
// From argv to words: what is accepted, what is refused, and with which line.
#include "cli/command_line.hpp"

#include <gmock/gmock.h>

#include <initializer_list>
#include <string>
#include <vector>

namespace holdfast::cli {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

std::expected<CommandLine, UsageError> parsed(std::initializer_list<std::string> words) {
  // Static: option values are views into argv.
  static std::vector<std::string> storage;
  storage = words;
  std::vector<char*> argv;
  for (std::string& word : storage) argv.push_back(word.data());
  argv.push_back(nullptr);
  return parse(*command_named(storage.front()), static_cast<int>(storage.size()), argv.data());
}

TEST(CliParse, devices_stand_before_the_dashes_and_the_command_after) {
  const auto line = parsed({"run", "-x", "/dev/a", "-n", "/dev/b", "--", "cmd", "-v", "--", "x"});
  ASSERT_TRUE(line) << line.error();
  EXPECT_THAT(line->operands, ElementsAre("/dev/a", "/dev/b"));
  EXPECT_THAT(line->command, ElementsAre("cmd", "-v", "--", "x"));
  EXPECT_TRUE(line->separated);
  EXPECT_TRUE(line->has(kExclusive));
  EXPECT_TRUE(line->has(kNonblock));
  EXPECT_FALSE(line->has(kVerbose));
}

TEST(CliParse, without_dashes_there_is_no_command) {
  const auto line = parsed({"run", "/dev/a", "cmd"});
  ASSERT_TRUE(line) << line.error();
  EXPECT_FALSE(line->separated);
  EXPECT_THAT(line->operands, ElementsAre("/dev/a", "cmd"));
  EXPECT_THAT(line->command, IsEmpty());
}

TEST(CliParse, dashes_as_an_argument_of_an_option_do_not_separate) {
  const auto line = parsed({"run", "-m", "--", "/dev/a", "--", "cmd"});
  ASSERT_TRUE(line) << line.error();
  EXPECT_THAT(line->operands, ElementsAre("/dev/a"));
  EXPECT_THAT(line->command, ElementsAre("cmd"));
}

TEST(CliParse, the_same_option_twice_is_kept_twice_in_order) {
  const auto line = parsed({"claim", "--wait=1", "-w2", "--wait", "3", "/dev/a"});
  ASSERT_TRUE(line) << line.error();
  std::vector<std::string> values;
  for (const GivenOption& given : line->options) values.emplace_back(given.value);
  EXPECT_THAT(values, ElementsAre("1", "2", "3"));
}

TEST(CliParse, an_empty_operand_is_passed_on) {
  const auto line = parsed({"claim", ""});
  ASSERT_TRUE(line) << line.error();
  EXPECT_THAT(line->operands, ElementsAre(""));
}

TEST(CliParse, usage_errors_name_the_option) {
  const auto message = [](std::initializer_list<std::string> words) {
    const auto line = parsed(words);
    return line ? std::string{"accepted"} : line.error();
  };
  EXPECT_THAT(message({"run", "-Q", "/dev/a"}), HasSubstr("'-Q' is not an option here"));
  EXPECT_THAT(message({"run", "-nQ", "/dev/a"}), HasSubstr("'-Q' is not an option here"));
  EXPECT_THAT(message({"run", "--frob", "/dev/a"}), HasSubstr("'--frob' is not an option here"));
  EXPECT_THAT(message({"run", "--con", "x"}), HasSubstr("'--con' is not an option here, or not a complete one"));
  EXPECT_THAT(message({"run", "--nonblock=3", "x"}), HasSubstr("'--nonblock=3'"));
  EXPECT_THAT(message({"run", "-w"}), HasSubstr("'-w' needs an argument"));
  EXPECT_THAT(message({"run", "--wait"}), HasSubstr("'--wait' needs an argument"));
  EXPECT_THAT(message({"run", "--no-such\x1b[31m", "x"}), HasSubstr("'--no-such?[31m'"));
}

TEST(CliNumbers, wait_takes_decimal_fractions) {
  const auto before = Wait::Clock::now();
  const auto wait = parse_wait("2.5");
  const auto after = Wait::Clock::now();
  ASSERT_TRUE(wait) << wait.error();
  EXPECT_GE(wait->deadline(), before + std::chrono::milliseconds{2500});
  EXPECT_LE(wait->deadline(), after + std::chrono::milliseconds{2500});
}

TEST(CliNumbers, wait_of_zero_does_not_wait) {
  ASSERT_TRUE(parse_wait("0"));
  EXPECT_FALSE(parse_wait("0")->waits());
  EXPECT_FALSE(parse_wait("0.0")->waits());
}

TEST(CliNumbers, wait_beyond_the_clock_has_no_end) {
  for (const char* const text : {"9223372037", "1000000000000000000000000"}) {
    ASSERT_TRUE(parse_wait(text)) << text;
    EXPECT_FALSE(parse_wait(text)->ends()) << text;
  }
  EXPECT_FALSE(parse_wait(std::string(400, '9'))->ends());
}

TEST(CliNumbers, wait_refuses_what_is_not_a_plain_number) {
  for (const char* const text : {"", " 1", "1 ", "-1", "-0", "+1", "1e3", "0x10", "inf", "nan", "1s", "1,5", ".", "--"})
    EXPECT_FALSE(parse_wait(text)) << text;
  EXPECT_FALSE(parse_wait("-" + std::string(400, '9')));
}

TEST(CliNumbers, exit_code_is_a_byte) {
  EXPECT_EQ(parse_exit_code("0"), 0);
  EXPECT_EQ(parse_exit_code("255"), 255);
  for (const char* const text : {"", "256", "-1", "+1", "1.0", "0x1", " 1", "1 ", "99999999999999999999"})
    EXPECT_FALSE(parse_exit_code(text)) << text;
}

}  // namespace
}  // namespace holdfast::cli
