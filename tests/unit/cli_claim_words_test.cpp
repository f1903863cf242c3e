// SPDX-License-Identifier: MIT
// The options that run and claim share, together.
#include "cli/command_line.hpp"
#include "convention/convention.hpp"

#include <gmock/gmock.h>

#include <string>
#include <utility>

namespace holdfast::cli {
namespace {

using testing::AllOf;
using testing::HasSubstr;

CommandLine line_with(std::vector<GivenOption> options) {
  CommandLine line;
  line.options = std::move(options);
  line.operands = {"/dev/a"};
  return line;
}

TEST(CliClaimWords, without_options_it_is_exclusive_and_waits_for_ever) {
  const auto words = claim_words(line_with({}));
  ASSERT_TRUE(words) << words.error();
  EXPECT_EQ(words->options.mode, Mode::exclusive);
  EXPECT_TRUE(words->options.wait.waits());
  EXPECT_FALSE(words->options.wait.ends());
  EXPECT_EQ(words->options.cover, Cover::function);
  EXPECT_EQ(words->options.opening, Opening::allowed);
  EXPECT_EQ(words->options.conventions, ConventionSet::all());
  EXPECT_EQ(words->refused_status, 75);
}

TEST(CliClaimWords, the_last_of_contradicting_options_counts) {
  const auto words = claim_words(line_with({{kWait, "5"}, {kShared, {}}, {kExclusive, {}}, {kNonblock, {}}}));
  ASSERT_TRUE(words) << words.error();
  EXPECT_EQ(words->options.mode, Mode::exclusive);
  EXPECT_FALSE(words->options.wait.waits());
  const auto reversed = claim_words(line_with({{kNonblock, {}}, {kExclusive, {}}, {kShared, {}}, {kWait, "5"}}));
  ASSERT_TRUE(reversed) << reversed.error();
  EXPECT_EQ(reversed->options.mode, Mode::shared);
  EXPECT_TRUE(reversed->options.wait.waits());
  EXPECT_TRUE(reversed->options.wait.ends());
}

TEST(CliClaimWords, without_takes_away_whatever_the_order) {
  const auto words = claim_words(line_with({{kWithout, "uucp"}, {kConvention, "proxy,uucp,flock"}}));
  ASSERT_TRUE(words) << words.error();
  EXPECT_EQ(words->options.conventions, (ConventionSet{Convention::proxy, Convention::flock}));
}

TEST(CliClaimWords, leaving_nothing_to_take_is_a_usage_error) {
  const auto words = claim_words(line_with({{kConvention, "uucp"}, {kWithout, "uucp"}}));
  ASSERT_FALSE(words);
  EXPECT_THAT(words.error(), HasSubstr("no convention"));
}

TEST(CliClaimWords, an_unknown_convention_is_refused_with_the_known_ones) {
  for (const char* const list : {"", "uucp,", ",uucp", "uucp,,flock", "UUCP", "no-such"}) {
    const auto words = claim_words(line_with({{kConvention, list}}));
    ASSERT_FALSE(words) << list;
    EXPECT_THAT(words.error(), AllOf(HasSubstr("is not a convention"), HasSubstr("proxy, ddlp, uucp")));
  }
}

TEST(CliClaimWords, a_claim_of_nothing_is_a_usage_error) { EXPECT_FALSE(claim_words(CommandLine{})); }

TEST(CliClaimWords, bad_numbers_are_usage_errors) {
  EXPECT_FALSE(claim_words(line_with({{kWait, "soon"}})));
  EXPECT_FALSE(claim_words(line_with({{kConflictExitCode, "256"}})));
}

TEST(CliTable, conventions_are_named_as_the_table_of_conventions_names_them) {
  ASSERT_EQ(kConventionNames.size(), convention::table().size());
  for (std::size_t i = 0; i < kConventionNames.size(); ++i) EXPECT_EQ(kConventionNames[i], convention::table()[i].name);
}

}  // namespace
}  // namespace holdfast::cli
