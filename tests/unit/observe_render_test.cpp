// SPDX-License-Identifier: MIT
// A survey's two faces, byte by byte where somebody may depend on the bytes, and against hostile names.
#include "observe/render.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <sstream>

namespace holdfast::observe {
namespace {

using std::chrono::system_clock;
using testing::HasSubstr;
using testing::Not;

constexpr system_clock::time_point at(long seconds) { return system_clock::time_point{std::chrono::seconds{seconds}}; }
constexpr auto kNow = at(1795348800);  // 2026-11-22 12:00:00 UTC

Use use(pid_t pid, std::string command, std::vector<std::string> means) {
  Use made;
  made.who.pid = pid;
  made.who.command = std::move(command);
  made.who.user = "joe";
  made.who.means = std::move(means);
  return made;
}

DeviceUse terminal(std::vector<Use> uses) {
  DeviceUse device;
  device.node.id = {device::Kind::character, 4, 64};
  device.node.path = "/dev/ttyS0";
  device.uses = std::move(uses);
  return device;
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream{text};
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

TEST(Table, shows_who_holds_since_when_and_how) {
  Use ours =
      use(4121, "picocom",
          {"holdfast", "UUCP lock file /run/lock/LCK..ttyS0", "UUCP lock file /run/lock/LK.000.004.064", "flock"});
  ours.ours = true;
  ours.mode = Mode::exclusive;
  ours.who.since = at(1795348800 - 3600);
  ours.who.purpose = "flash";
  const auto lines = lines_of(to_table({{terminal({ours})}, {}}, kNow, Zone::utc));
  ASSERT_EQ(lines.size(), 2U);
  EXPECT_EQ(
      lines[0],
      "DEVICE      HOLDER   PID   USER  SINCE     MODE       MEANS                                            PURPOSE");
  EXPECT_EQ(
      lines[1],
      "/dev/ttyS0  picocom  4121  joe   11:00:00  exclusive  holdfast, UUCP lock file LCK..ttyS0 (+1), flock  flash");
}

TEST(Table, the_level_and_what_was_denied_stand_behind_the_means) {
  Use ours = use(1, "a", {"holdfast"});
  ours.level = Enforcement::guarded;
  DeviceUse device = terminal({ours});
  EXPECT_THAT(to_table({{device}, {}}, kNow, Zone::utc), HasSubstr("holdfast, guarded\n"));
  device.denials = 12;
  EXPECT_THAT(to_table({{device}, {}}, kNow, Zone::utc), HasSubstr("holdfast, guarded, 12 denied\n"));
}

TEST(Table, old_times_carry_their_date) {
  Use old = use(1, "a", {"open"});
  old.who.since = at(1795348800 - 7 * 86400);
  EXPECT_THAT(to_table({{terminal({old})}, {}}, kNow, Zone::utc), HasSubstr(" 2026-11-15 12:00 "));
}

TEST(Table, waiters_the_stale_the_kernel_and_the_unknown_are_told_apart) {
  Use waiter = use(7, "minicom", {"flock"});
  waiter.standing = Standing::waits;
  waiter.mode = Mode::shared;
  Use stale = use(8, "", {"UUCP lock file /run/lock/LCK..ttyS0"});
  stale.standing = Standing::stale;
  Use kernel = use(0, "kernel", {"mounted on /boot"});
  kernel.kind = UserKind::kernel;
  Use unknown;
  unknown.kind = UserKind::unknown;
  unknown.who.means = {"record lock"};
  const auto lines = lines_of(to_table({{terminal({kernel, unknown, waiter, stale})}, {}}, kNow, Zone::utc));
  ASSERT_EQ(lines.size(), 5U);
  EXPECT_THAT(lines[1], testing::ContainsRegex("kernel +- +joe +- +- +mounted on /boot"));
  EXPECT_THAT(lines[2], testing::ContainsRegex("\\? +- +- +- +- +record lock"));
  EXPECT_THAT(lines[3], testing::ContainsRegex("minicom +7 +joe +- +waits shared +flock"));
  EXPECT_THAT(lines[4], testing::ContainsRegex("\\? +8 +joe +- +stale +UUCP lock file LCK..ttyS0"));
}

TEST(Table, free_device_is_said_to_be_free_and_a_free_sibling_is_left_out) {
  DeviceUse sibling = terminal({});
  sibling.node.path = "/dev/sibling";
  sibling.relation = device::Relation::same_unit;
  const std::string text = to_table({{terminal({}), sibling}, {}}, kNow);
  EXPECT_THAT(text, testing::ContainsRegex("/dev/ttyS0 +free"));
  EXPECT_THAT(text, Not(HasSubstr("/dev/sibling")));
}

TEST(Table, nothing_at_all_is_said_in_words) {
  EXPECT_EQ(to_table({{}, {"descriptors of 2 processes"}}, kNow),
            "no device is in use\nnot seen: descriptors of 2 processes\n");
}

TEST(Table, hostile_names_reach_no_terminal) {
  Use hostile = use(66, "\x1b]0;owned\x07\n\r\x9b", {"UUCP lock file /run/lock/LCK..\x1b[2J", "\x1b[31m"});
  hostile.who.user = "\x1b[1m";
  hostile.who.purpose = "a\nDEVICE  root  1\x1b[A\xff\xfe\xc2\x9b";
  DeviceUse device = terminal({hostile});
  device.node.path = "/dev/\x1b[2J\n";
  const std::string text = to_table({{device}, {"\x1b[5m"}}, kNow);
  EXPECT_TRUE(std::ranges::all_of(text, [](char c) { return c == '\n' || (c >= ' ' && c <= '~'); })) << text;
  EXPECT_EQ(lines_of(text).size(), 3U);
}

TEST(Table, columns_stay_aligned_when_names_are_wide) {
  Use wide = use(1, "端末", {"open"});
  Use narrow = use(2, "abcd", {"open"});
  const auto lines = lines_of(to_table({{terminal({wide, narrow})}, {}}, kNow));
  ASSERT_EQ(lines.size(), 3U);
  EXPECT_EQ(display_width(lines[1].substr(0, lines[1].find("open"))),
            display_width(lines[2].substr(0, lines[2].find("open"))));
}

TEST(Table, endless_purpose_is_cut) {
  Use chatty = use(1, "a", {"holdfast"});
  chatty.who.purpose = std::string(100000, 'x');
  EXPECT_LT(to_table({{terminal({chatty})}, {}}, kNow).size(), 500U);
}

TEST(DisplayWidth, counts_columns_not_bytes) {
  EXPECT_EQ(display_width("abc"), 3U);
  EXPECT_EQ(display_width("ä"), 1U);
  EXPECT_EQ(display_width("e\xcc\x81"), 1U);  // e and a combining acute accent
  EXPECT_EQ(display_width("端末"), 4U);
  EXPECT_EQ(display_width("\xf0"), 1U);  // cut short
}

TEST(Json, keys_are_stable_and_the_unknown_is_null) {
  Use ours = use(4121, "picocom", {"holdfast", "flock"});
  ours.ours = true;
  ours.mode = Mode::shared;
  ours.who.since = at(1795348800) + std::chrono::milliseconds{7};
  ours.who.start_ticks = 99;
  ours.level = Enforcement::guarded;
  Use unknown;
  unknown.kind = UserKind::unknown;
  unknown.standing = Standing::waits;
  DeviceUse sibling = terminal({});
  sibling.relation = device::Relation::same_function;
  DeviceUse attacked = terminal({ours, unknown});
  attacked.denials = 3;
  const auto json = nlohmann::json::parse(to_json({{attacked, sibling}, {"something"}}));
  EXPECT_EQ(json["devices"][0]["denials"], 3);
  EXPECT_EQ(json["devices"][0]["device"], "/dev/ttyS0");
  EXPECT_EQ(json["devices"][0]["number"], "c4:64");
  EXPECT_TRUE(json["devices"][0]["relation"].is_null());
  EXPECT_EQ(json["devices"][1]["relation"], device::to_string(device::Relation::same_function));
  EXPECT_EQ(
      json["devices"][0]["uses"][0].dump(),
      R"({"command":"picocom","enforcement":"guarded","holdfast":true,"lapses_in_seconds":null,"means":["holdfast","flock"],"mode":"shared",)"
      R"("pid":4121,"place":null,"purpose":null,)"
      R"("since":"2026-11-22T12:00:00.007Z","standing":"holds","start_ticks":99,"user":"joe","who":"process"})");
  EXPECT_EQ(
      json["devices"][0]["uses"][1].dump(),
      R"({"command":null,"enforcement":null,"holdfast":false,"lapses_in_seconds":null,"means":[],"mode":null,"pid":null,"place":null,)"
      R"("purpose":null,"since":null,)"
      R"("standing":"waits","start_ticks":null,"user":null,"who":"unknown"})");
  EXPECT_EQ(json["blind"], nlohmann::json::array({"something"}));
}

TEST(Json, hostile_bytes_stay_inside_their_string) {
  Use hostile = use(1, "\",\"pid\":1,\x1b\xff", {"open"});
  const std::string text = to_json({{terminal({hostile})}, {}});
  EXPECT_EQ(text.find('\x1b'), std::string::npos);
  const auto json = nlohmann::json::parse(text);
  EXPECT_EQ(json["devices"][0]["uses"][0]["command"], "\",\"pid\":1,\x1b\xef\xbf\xbd");
}

}  // namespace
}  // namespace holdfast::observe
