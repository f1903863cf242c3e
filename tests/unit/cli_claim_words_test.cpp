// SPDX-License-Identifier: MIT
// The options that run and claim share, together.
#include "cli/command_line.hpp"
#include "cli/progress_line.hpp"
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

TEST(CliClaimWords, what_the_broker_offers_is_said_in_words) {
  const auto words = claim_words(line_with({{kPriority, "urgent"}, {kFor, "1.5h"}, {kPid, "4121"}}));
  ASSERT_TRUE(words) << words.error();
  EXPECT_EQ(words->options.priority, Priority::urgent);
  EXPECT_EQ(words->options.lease, std::chrono::minutes{90});
  EXPECT_EQ(words->owner, 4121);
}

TEST(CliClaimWords, the_guard_is_required_by_the_bare_option) {
  EXPECT_EQ(claim_words(line_with({}))->options.guarding, Guarding::automatic);
  EXPECT_EQ(claim_words(line_with({{kGuard, {}}}))->options.guarding, Guarding::required);
  EXPECT_EQ(claim_words(line_with({{kGuard, "require"}}))->options.guarding, Guarding::required);
  EXPECT_EQ(claim_words(line_with({{kGuard, {}}, {kGuard, "auto"}}))->options.guarding, Guarding::automatic);
  EXPECT_EQ(claim_words(line_with({{kGuard, "off"}}))->options.guarding, Guarding::off);
  EXPECT_FALSE(claim_words(line_with({{kGuard, "on"}})));
}

TEST(CliClaimWords, a_time_has_a_number_and_perhaps_a_unit) {
  using namespace std::chrono_literals;
  EXPECT_EQ(parse_span("90"), std::chrono::nanoseconds{90s});
  EXPECT_EQ(parse_span("0.5s"), std::chrono::nanoseconds{500ms});
  EXPECT_EQ(parse_span("15m"), std::chrono::nanoseconds{15min});
  EXPECT_EQ(parse_span("2h"), std::chrono::nanoseconds{2h});
  EXPECT_EQ(parse_span("3d"), std::chrono::nanoseconds{72h});
  for (const char* const text : {"", "h", "-1", "0", "2 h", "2x", "1e3", "inf", "nan", "999999999d", "1h2m"})
    EXPECT_FALSE(parse_span(text)) << text;
}

TEST(CliClaimWords, unknown_priorities_and_processes_are_usage_errors) {
  for (const char* const text : {"", "Urgent", "5"}) EXPECT_FALSE(parse_priority(text)) << text;
  for (const char* const text : {"", "0", "-1", "x", "1x", "99999999999"}) EXPECT_FALSE(parse_pid(text)) << text;
}

TEST(CliProgressLine, counts_as_people_do) {
  using namespace std::chrono_literals;
  EXPECT_EQ(progress_text({0, std::nullopt}), "holdfast: waiting, 1st in the queue");
  EXPECT_EQ(progress_text({1, 12s}), "holdfast: waiting, 2nd in the queue, about 12 s");
  EXPECT_EQ(progress_text({2, std::nullopt}), "holdfast: waiting, 3rd in the queue");
  EXPECT_EQ(progress_text({10, std::nullopt}), "holdfast: waiting, 11th in the queue");
  EXPECT_EQ(progress_text({21, std::nullopt}), "holdfast: waiting, 22nd in the queue");
  EXPECT_EQ(progress_text({111, std::nullopt}), "holdfast: waiting, 112th in the queue");
}

}  // namespace
}  // namespace holdfast::cli
