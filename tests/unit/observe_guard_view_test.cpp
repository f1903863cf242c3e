// SPDX-License-Identifier: MIT
// What `holdfast guard status` prints.
#include "observe/guard_view.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace holdfast::observe {
namespace {

using namespace std::chrono_literals;
using nlohmann::json;
using testing::HasSubstr;

GuardView busy() {
  GuardView view;
  view.state = GuardView::State::on;
  view.devices.push_back({"/dev/ttyUSB0", "c188:0", 1, 12, 90s});
  view.devices.push_back({"/dev/sr0", "b11:0", 2, 0, std::nullopt});
  view.mappings.push_back({"/dev/sr0", 77, "dd"});
  return view;
}

TEST(GuardViewText, shows_what_is_guarded_and_who_has_it_mapped) {
  EXPECT_EQ(to_text(busy()),
            "the guard is on\n"
            "DEVICE        NUMBER  OWNERS  DENIED  LEFT\n"
            "/dev/ttyUSB0  c188:0  1       12      1 min 30 s\n"
            "/dev/sr0      b11:0   2       0       -\n"
            "mapped: /dev/sr0 by dd[77]; unless it is the holder, end it: a mapping cannot be taken back\n");
}

TEST(GuardViewText, says_that_it_is_off_and_what_lacks) {
  GuardView view;
  view.lacks.push_back({"the kernel does not ask BPF programs (BPF LSM)", "boot with lsm=capability,bpf"});
  EXPECT_EQ(to_text(view),
            "the guard is off\n"
            "lacks: the kernel does not ask BPF programs (BPF LSM)\n"
            "       remedy: boot with lsm=capability,bpf\n");
  EXPECT_EQ(to_text(GuardView{}), "the guard is off\n");
}

TEST(GuardViewText, on_without_a_device_says_so) {
  GuardView view;
  view.state = GuardView::State::on;
  EXPECT_EQ(to_text(view), "the guard is on\nno device is guarded\n");
}

TEST(GuardViewText, hostile_names_reach_no_terminal) {
  GuardView view;
  view.mappings.push_back({"/dev/x\033[2J", 1, "\033[31m\n"});
  const std::string text = to_text(view);
  EXPECT_EQ(text.find('\033'), std::string::npos);
  EXPECT_EQ(std::ranges::count(text, '\n'), 2);
}

TEST(GuardViewJson, has_stable_keys) {
  const json out = json::parse(to_json(busy()));
  EXPECT_EQ(out["guard"], "on");
  EXPECT_EQ(out["devices"][0], json::parse(R"({"device": "/dev/ttyUSB0", "number": "c188:0", "owners": 1,
                                               "denials": 12, "lapses_in_seconds": 90.0})"));
  EXPECT_TRUE(out["devices"][1]["lapses_in_seconds"].is_null());
  EXPECT_EQ(out["mappings"][0], json::parse(R"({"device": "/dev/sr0", "pid": 77, "command": "dd"})"));
  EXPECT_TRUE(out["lacks"].empty());
}

}  // namespace
}  // namespace holdfast::observe
