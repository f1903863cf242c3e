// SPDX-License-Identifier: MIT
// observe_events_test.cpp - events as lines, and stays as bars.
#include "observe/events.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace holdfast::observe {
namespace {

using namespace std::chrono_literals;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using Instant = std::chrono::system_clock::time_point;

const Instant kNoon{std::chrono::seconds{1'795'348'800}};  // 2026-11-22 12:00:00 UTC

Event event(EventKind kind, std::chrono::seconds after, pid_t pid, const std::string& command = "picocom") {
  Event made;
  made.kind = kind;
  made.at = kNoon + after;
  made.device = "/dev/ttyUSB0";
  made.number = "c188:0";
  made.who.pid = pid;
  made.who.start_ticks = 7;
  made.who.command = command;
  made.who.user = "joe";
  return made;
}

std::size_t count(const std::string& text, const std::string& what) {
  std::size_t found = 0;
  for (std::size_t at = 0; (at = text.find(what, at)) != std::string::npos; ++at) ++found;
  return found;
}

TEST(EventsTest, durations_are_as_fine_as_they_are_long) {
  EXPECT_EQ(duration_text(0ns), "0 ms");
  EXPECT_EQ(duration_text(999'999us), "999 ms");
  EXPECT_EQ(duration_text(3250ms), "3.2 s");
  EXPECT_EQ(duration_text(89s), "1 min 29 s");
  EXPECT_EQ(duration_text(2h + 5min), "2 h 05 min");
  EXPECT_EQ(duration_text(76h), "3 d 4 h");
}

TEST(EventsTest, a_line_leaves_out_what_an_event_does_not_have) {
  EXPECT_EQ(to_line(event(EventKind::waiting, 1s, 12), Zone::utc),
            "12:00:01.000 waiting    /dev/ttyUSB0  picocom[12] (joe), exclusive\n");
  Event removed;
  removed.kind = EventKind::removed;
  removed.at = kNoon - 1ms;
  removed.device = "/dev/sdb";
  EXPECT_EQ(to_line(removed, Zone::utc), "11:59:59.999 removed    /dev/sdb\n");
}

TEST(EventsTest, no_word_of_a_stranger_moves_the_cursor) {
  Event hostile = event(EventKind::revoked, 1s, 12, "\033[2J");
  hostile.device = "/dev/\n";
  hostile.who.user = "\r";
  hostile.who.purpose = "a\nb";
  hostile.detail = "\xC2\x9B";
  const std::string line = to_line(hostile, Zone::utc);
  EXPECT_EQ(std::ranges::count(line, '\n'), 1);
  EXPECT_THAT(line, AllOf(Not(HasSubstr("\033")), Not(HasSubstr("\r")), Not(HasSubstr("\xC2\x9B"))));
  EXPECT_EQ(std::ranges::count(to_json_line(hostile), '\n'), 1);
}

TEST(EventsTest, a_drawing_has_a_row_per_device_and_a_bar_per_stay) {
  Event waited = event(EventKind::claimed, 20s, 2, "minicom");
  waited.waited = 15s;
  Event other = event(EventKind::claimed, 30s, 3);
  other.device = "/dev/sdb";
  const std::vector<Event> events{event(EventKind::claimed, 0s, 1),   event(EventKind::waiting, 5s, 2),
                                  event(EventKind::released, 20s, 1), waited,
                                  event(EventKind::refused, 25s, 4),  other};
  const std::string svg = to_svg(events, kNoon + 60s, Zone::utc);
  EXPECT_EQ(count(svg, "<rect x="), 3U);
  EXPECT_EQ(count(svg, "<circle"), 1U);
  EXPECT_EQ(count(svg, ">/dev/ttyUSB0</text>"), 1U);
  EXPECT_EQ(count(svg, ">/dev/sdb</text>"), 1U);
  EXPECT_THAT(svg,
              AllOf(HasSubstr("picocom[1] (joe), exclusive, held 20.0 s"), HasSubstr("minicom[2] (joe) waited 15.0 s"),
                    HasSubstr("minicom[2] (joe), exclusive, has it for 40.0 s")));
  // From the left edge (170) to the right one (980) it is a minute.
  EXPECT_THAT(svg, HasSubstr("<rect x=\"170.0\" y=\"34.0\" width=\"270.0\""));
}

TEST(EventsTest, an_end_without_its_beginning_began_as_long_before_as_it_says) {
  Event lapsed = event(EventKind::lapsed, 60s, 1);
  lapsed.held = 60s;
  const std::string svg = to_svg(std::vector{lapsed}, kNoon + 60s, Zone::utc);
  EXPECT_THAT(svg, AllOf(HasSubstr("width=\"810.0\""), HasSubstr("lapsed after 1 min 00 s")));
}

TEST(EventsTest, a_drawing_of_nothing_is_one_too) {
  EXPECT_THAT(to_svg({}, kNoon, Zone::utc), AllOf(HasSubstr("nothing happened"), HasSubstr("</svg>")));
  EXPECT_EQ(to_table(std::span<const Event>{}, Zone::utc), "nothing happened\n");
}

}  // namespace
}  // namespace holdfast::observe
