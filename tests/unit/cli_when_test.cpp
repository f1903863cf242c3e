// SPDX-License-Identifier: MIT
// cli_when_test.cpp - times, spans and counts on the command line.
#include "cli/command_line.hpp"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <time.h>

namespace holdfast::cli {
namespace {

using namespace std::chrono_literals;
using Instant = std::chrono::system_clock::time_point;

class WhenTest : public testing::Test {
 protected:
  void SetUp() override {
    ::setenv("TZ", "Europe/Berlin", 1);  // an hour ahead of UTC in winter
    ::tzset();
  }
  void TearDown() override {
    ::unsetenv("TZ");
    ::tzset();
  }
  const Instant now{std::chrono::seconds{1'795'349'051}};  // 2026-11-22 12:04:11 UTC
  const Instant midnight = now - 12h - 4min - 11s - 1h;    // in Berlin
};

TEST_F(WhenTest, clock_times_are_local) {
  EXPECT_EQ(parse_when("today", now), midnight);
  EXPECT_EQ(parse_when("yesterday", now), midnight - 24h);
  EXPECT_EQ(parse_when("2026-11-22", now), midnight);
  EXPECT_EQ(parse_when("09:30", now), midnight + 9h + 30min);
  EXPECT_EQ(parse_when("09:30:05", now), midnight + 9h + 30min + 5s);
  EXPECT_EQ(parse_when("2026-11-21 23:00", now), midnight - 1h);
  EXPECT_EQ(parse_when("2026-07-01T00:00:00", now).value(),
            Instant{std::chrono::seconds{1'782'856'800}});  // in summer two hours ahead
}

TEST_F(WhenTest, what_json_writes_is_read) {
  EXPECT_EQ(parse_when("2026-11-22T12:04:11.250Z", now), now);
  EXPECT_EQ(parse_when("2026-11-22T12:04:11Z", now), now);
}

TEST_F(WhenTest, spans_are_before_now) {
  EXPECT_EQ(parse_when("90s", now), now - 90s);
  EXPECT_EQ(parse_when("15min", now), now - 15min);
  EXPECT_EQ(parse_when("2h", now), now - 2h);
  EXPECT_EQ(parse_when("3d", now), now - 72h);
}

TEST_F(WhenTest, what_is_no_time_is_refused) {
  for (const char* const text : {"", "never", "2", "-2h", "2 h", "25:00", "12:60", "2026-13-01", "2026-11-22 12:04x",
                                 "2026-11-22T12:04:11.Z0", "99999999999d", "40000d", "Z"}) {
    EXPECT_FALSE(parse_when(text, now)) << text;
  }
}

TEST(CountTest, counts_and_seconds_are_whole_texts) {
  EXPECT_EQ(parse_count("1"), 1U);
  EXPECT_EQ(parse_count("4294967295"), 4294967295U);
  for (const char* const text : {"", "0", "-1", "1x", "4294967296"}) EXPECT_FALSE(parse_count(text)) << text;
  EXPECT_EQ(parse_seconds("0"), 0ns);
  EXPECT_EQ(parse_seconds("1.5"), 1500ms);
  for (const char* const text : {"", "-1", "1s", "inf", "nan", "1e9", "99999999999"})
    EXPECT_FALSE(parse_seconds(text)) << text;
}

}  // namespace
}  // namespace holdfast::cli
