// SPDX-License-Identifier: MIT
// command_events_test.cpp - watch, history and kick against a broker that says what the test wants.
#include "process/support/child.hpp"
#include "process/support/devices.hpp"
#include "process/support/fake_broker.hpp"
#include "process/support/shell.hpp"

#include <gmock/gmock.h>

#include <cstdlib>
#include <fstream>
#include <optional>

namespace holdfast {
namespace {

using namespace testing_support;
using namespace std::chrono_literals;
using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;
using wire::EventKind;

class CommandEventsTest : public testing::Test {
 protected:
  void SetUp() override {
    path = directory.path() + "/socket";
    ::setenv("HOLDFAST_SOCKET", path.c_str(), 1);
    ::setenv("TZ", "UTC", 1);
  }
  void TearDown() override {
    ::unsetenv("HOLDFAST_SOCKET");
    ::unsetenv("TZ");
  }

  TemporaryDirectory directory;
  std::string path;
};

TEST_F(CommandEventsTest, watch_prints_a_line_for_each_event_at_once) {
  FakeBroker broker{path};
  Shell watch{"exec $H watch"};
  broker.watched_by(1);
  wire::Event event = told_event(EventKind::claimed, "/dev/ttyUSB3");
  event.waited = 3200ms;
  broker.tell(event);
  EXPECT_EQ(watch.line(), "12:04:11.000 claimed    /dev/ttyUSB3  picocom[4121] (joe), exclusive, waited 3.2 s: flash");
  broker.tell(told_event(EventKind::missed, "", "7 events lost"));
  EXPECT_THAT(watch.line(), AllOf(HasSubstr("missed"), HasSubstr("7 events lost")));
  ::kill(watch.pid(), SIGTERM);
  const Ended ended = watch.end();
  EXPECT_EQ(ended.status, 0);
  EXPECT_EQ(ended.err, "");
}

TEST_F(CommandEventsTest, watch_in_json_is_an_object_a_line) {
  FakeBroker broker{path};
  Shell watch{"exec $H watch --json $D", "/dev/null"};
  EXPECT_EQ(broker.watched_by(1).devices.at(0).path, "/dev/null");
  broker.tell(told_event(EventKind::released, "/dev/ttyUSB3"));
  EXPECT_EQ(watch.line(),
            R"({"event":"released","at":"2026-11-22T12:04:11.000Z","device":"/dev/ttyUSB3","number":"c188:3",)"
            R"("mode":"exclusive","pid":4121,"start_ticks":99123,"command":"picocom","user":"joe",)"
            R"("since":"2026-11-22T12:03:20.000Z","purpose":"flash","waited_seconds":null,"held_seconds":null,)"
            R"("detail":null})");
}

TEST_F(CommandEventsTest, watch_ends_when_nobody_reads_it_any_more) {
  FakeBroker broker{path};
  Shell watch{"exec 3>&1; { $H watch; echo ended with $? >&3; } | { read first; echo \"$first\" >&3; }"};
  broker.watched_by(1);
  broker.tell(told_event(EventKind::removed, "/dev/ttyUSB3"));
  EXPECT_THAT(watch.line(), HasSubstr("removed"));
  EXPECT_EQ(watch.line(), "ended with 0") << "without another event";
}

TEST_F(CommandEventsTest, watch_goes_on_with_a_broker_that_is_started_anew) {
  std::optional<FakeBroker> broker{path};
  Shell watch{"exec $H watch"};
  broker->watched_by(1);
  broker.reset();
  broker.emplace(path);
  EXPECT_THAT(watch.line(), AllOf(HasSubstr("missed"), HasSubstr("started anew")));
  broker->tell(told_event(EventKind::added, "/dev/ttyUSB3"));
  EXPECT_THAT(watch.line(), HasSubstr("added      /dev/ttyUSB3"));
}

TEST_F(CommandEventsTest, without_a_broker_they_say_so_in_one_line) {
  for (const char* const line : {"$H watch", "$H history", "$H kick /dev/null"}) {
    const Ended now = ended(line);
    EXPECT_EQ(now.status, 71) << line;
    EXPECT_THAT(now.err, AllOf(StartsWith("holdfast: no broker answers at " + path), HasSubstr("holdfastd"))) << line;
    EXPECT_EQ(std::ranges::count(now.err, '\n'), 1) << line;
  }
}

// A broker with two pages of history; what was asked goes to `asked`.
std::vector<wire::FromBroker> two_pages(const wire::FromClient& message, wire::HistoryQuery& asked) {
  asked = std::get<wire::HistoryQuery>(message);
  wire::Event claimed = told_event(EventKind::claimed, "/dev/ttyUSB3");
  claimed.waited = 3s;
  wire::Event released = told_event(EventKind::released, "/dev/ttyUSB3");
  released.at += 89s;
  released.held = 89s;
  wire::Event hostile = told_event(EventKind::denied, "/dev/tty<USB4");
  hostile.who.purpose = "\033[2J\"&<x>\xEF\xBF\xBF";
  return {wire::HistoryAnswer{{claimed, hostile}, wire::More::follows},
          wire::HistoryAnswer{{released}, wire::More::last}};
}

TEST_F(CommandEventsTest, history_shows_who_had_what_and_how_long) {
  wire::HistoryQuery asked;
  FakeBroker broker{path, [&asked](const wire::FromClient& message) { return two_pages(message, asked); }};
  const Ended table = ended("$H history -l 7 --since 12:00 c188:3");
  EXPECT_EQ(table.status, 0) << table.err;
  EXPECT_EQ(
      table.out,
      "TIME                 EVENT     DEVICE         HOLDER   PID   USER  MODE       WAITED  HELD        PURPOSE\n"
      "2026-11-22 12:04:11  claimed   /dev/ttyUSB3   picocom  4121  joe   exclusive  3.0 s   -           flash\n"
      "2026-11-22 12:04:11  denied    /dev/tty<USB4  picocom  4121  joe   -          -       -           "
      "?[2J\"&<x>\xEF\xBF\xBF\n"
      "2026-11-22 12:05:40  released  /dev/ttyUSB3   picocom  4121  joe   exclusive  -       1 min 29 s  flash\n");
  EXPECT_EQ(asked.most, 7U);
  EXPECT_TRUE(asked.since);
  ASSERT_EQ(asked.devices.size(), 1U);
  EXPECT_EQ(asked.devices[0].minor, 3U);

  const Ended json = ended("$H history --json");
  EXPECT_EQ(json.status, 0);
  EXPECT_EQ(std::ranges::count(json.out, '\n'), 3);
  EXPECT_THAT(json.out, HasSubstr("\"held_seconds\":89.0"));
  EXPECT_EQ(asked.most, 100U);
}

TEST_F(CommandEventsTest, history_of_a_device_that_went_is_found_by_its_path) {
  wire::HistoryQuery asked;
  FakeBroker broker{path, [&asked](const wire::FromClient& message) { return two_pages(message, asked); }};
  const Ended json = ended("$H history --json -l 1 /dev/ttyUSB3");
  EXPECT_EQ(json.status, 0) << json.err;
  EXPECT_EQ(std::ranges::count(json.out, '\n'), 1);
  EXPECT_THAT(json.out, HasSubstr("\"released\""));
}

TEST_F(CommandEventsTest, history_as_svg_is_well_formed_whatever_names_are) {
  wire::HistoryQuery asked;
  FakeBroker broker{path, [&asked](const wire::FromClient& message) { return two_pages(message, asked); }};
  const Ended shape = ended(
      "$H history --svg | python3 -c 'import sys, xml.dom.minidom as m; d = m.parseString(sys.stdin.buffer.read()); "
      "print(d.documentElement.tagName, len(d.getElementsByTagName(\"rect\")), "
      "len(d.getElementsByTagName(\"circle\")))'");
  EXPECT_EQ(shape.out, "svg 2 1\n") << shape.err;  // the ground, one stay; one mark
}

TEST_F(CommandEventsTest, kick_asks_with_a_grace_and_a_reason_and_says_what_came_of_it) {
  wire::Kick asked;
  wire::FromBroker answer = wire::Done{};
  FakeBroker broker{path, [&](const wire::FromClient& message) {
                      asked = std::get<wire::Kick>(message);
                      return std::vector{answer};
                    }};
  EXPECT_EQ(ended("$H kick --grace 1.5 -m 'the board is needed' /dev/null").status, 0);
  EXPECT_EQ(asked.device.path, "/dev/null");
  EXPECT_EQ(asked.grace, 1500ms);
  EXPECT_EQ(asked.reason, "the board is needed");

  answer = wire::Refused{errc::not_permitted, 0, "/dev/null: only root may kick joe", "/dev/null", std::nullopt};
  const Ended refused = ended("$H kick /dev/null");
  EXPECT_EQ(refused.status, 77);
  EXPECT_EQ(refused.err, "holdfast: /dev/null: only root may kick joe\n");
  EXPECT_EQ(asked.grace, 10s);

  answer = wire::Refused{errc::not_held, 0, "/dev/null: nobody holds it", "/dev/null", std::nullopt};
  EXPECT_EQ(ended("$H kick /dev/null").status, 75);
}

TEST_F(CommandEventsTest, status_shows_the_brokers_queue_and_time_limits) {
  wire::StatusQuery asked;
  FakeBroker broker{path, [&asked](const wire::FromClient& message) {
                      asked = std::get<wire::StatusQuery>(message);
                      wire::DeviceStatus device;
                      device.device = {"/dev/null", wire::NodeKind::character, 1, 3, 0};
                      device.holders = {told_event(EventKind::claimed, "").who};
                      device.lapses_in = 2h + 5min;
                      device.enforcement = Enforcement::guarded;
                      device.denials = 3;
                      wire::Waiter waiter;
                      waiter.who.pid = 12;
                      waiter.who.command = "minicom";
                      waiter.mode = Mode::shared;
                      device.waiters = {waiter, waiter};
                      device.waiting = 7;
                      return std::vector<wire::FromBroker>{wire::StatusAnswer{{device}, wire::More::last}};
                    }};
  const Ended table = ended("$H status /dev/null");
  EXPECT_EQ(table.status, 0) << table.err;
  ASSERT_EQ(asked.devices.size(), 1U);
  EXPECT_EQ(asked.devices[0].minor, 3U);
  EXPECT_THAT(table.out,
              AllOf(HasSubstr("holdfast, 2 h 05 min left, guarded, 3 denied"), HasSubstr("waits shared"),
                    HasSubstr("holdfast, number 2 in the queue"), HasSubstr("5 more that wait for /dev/null")));
  const Ended json = ended("$H status --json /dev/null");
  EXPECT_THAT(json.out, AllOf(HasSubstr("\"place\": 1"), HasSubstr("\"lapses_in_seconds\": 7500.0"),
                              HasSubstr("\"enforcement\": \"guarded\""), HasSubstr("\"denials\": 3")));
  EXPECT_THAT(ended("$H status").out, HasSubstr("number 1 in the queue"));
  EXPECT_TRUE(asked.devices.empty());
}

TEST_F(CommandEventsTest, wrong_words_are_usage_errors) {
  for (const char* const line : {"$H kick", "$H kick /dev/null /dev/zero", "$H kick --grace -1 /dev/null",
                                 "$H history -l 0", "$H history --since never", "$H history --json --svg"}) {
    EXPECT_EQ(ended(line).status, 64) << line;
  }
}

}  // namespace
}  // namespace holdfast
