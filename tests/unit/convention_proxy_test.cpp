// SPDX-License-Identifier: MIT
// Our own lock file: its name and back, and its records, true ones and lies.
#include "convention/proxy.hpp"

#include "device/device.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <string>

namespace holdfast::convention {
namespace {

using device::DeviceId;
using device::Kind;

base::Places in(std::string lock_dir) {
  base::Places places;
  places.lock_dir = std::move(lock_dir);
  return places;
}

TEST(ProxyName, says_kind_and_number) {
  EXPECT_EQ(proxy_path({Kind::character, 4, 64, 0}, {}), "/run/lock/holdfast-c4:64");
  EXPECT_EQ(proxy_path({Kind::block, 8, 0, 0}, in("/tmp/locks")), "/tmp/locks/holdfast-b8:0");
}

TEST(ProxyName, tells_pseudo_terminals_of_two_instances_apart) {
  EXPECT_NE(proxy_path({Kind::character, 136, 3, 24}, {}), proxy_path({Kind::character, 136, 3, 25}, {}));
}

TEST(ProxyName, leads_back_to_the_device) {
  for (const DeviceId& id :
       {DeviceId{Kind::character, 4, 64, 0}, DeviceId{Kind::block, 259, 1, 0}, DeviceId{Kind::character, 136, 3, 24},
        DeviceId{Kind::block, 4095, 1048575, 0}, DeviceId{Kind::character, 0, 0, 0}})
    EXPECT_EQ(proxy_device(proxy_path(id, in("")).substr(1)), id) << device::to_string(id);
}

TEST(ProxyName, anything_else_is_no_device) {
  for (const char* name :
       {"", "holdfast", "holdfast-", "holdfast-c", "holdfast-c4", "holdfast-c4:", "holdfast-d4:64", "holdfast-c4:64 ",
        "holdfast-c4:64@", "holdfast-c4:64@x", "holdfast-c136:3@24x", "holdfast-c-4:64", "holdfast-c4:64.tmp",
        "LCK..ttyS0", "xholdfast-c4:64", "holdfast-c99999999999:1"})
    EXPECT_FALSE(proxy_device(name)) << name;
}

TEST(ProxyName, two_names_never_mean_one_device) {
  // Else a listing would show a device twice, once from a file that nobody locks.
  for (const char* name : {"holdfast-c04:64", "holdfast-c4:064", "holdfast-c4:64@0", "holdfast-b8:0@24",
                           "holdfast-c136:3@024", "holdfast-c4:64@24"})
    EXPECT_FALSE(proxy_device(name)) << name;
}

TEST(ProxyRecord, holder_is_read_with_all_it_says) {
  const auto record = parse_proxy_record("1 4121 987654 1700000000123 xh 0\nflash the board\n");
  ASSERT_TRUE(record);
  EXPECT_EQ(record->who.pid, 4121);
  EXPECT_EQ(record->who.start_ticks, 987654U);
  EXPECT_EQ(record->who.since, std::chrono::system_clock::time_point{std::chrono::milliseconds{1'700'000'000'123}});
  EXPECT_EQ(record->who.purpose, "flash the board");
  EXPECT_EQ(record->who.user, "root");
  EXPECT_EQ(record->mode, Mode::exclusive);
  EXPECT_FALSE(record->waiting);
}

TEST(ProxyRecord, shared_and_waiting_are_read) {
  const auto record = parse_proxy_record("1 4121 987654 1700000000123 sw 0\n\n");
  ASSERT_TRUE(record);
  EXPECT_EQ(record->mode, Mode::shared);
  EXPECT_TRUE(record->waiting);
  EXPECT_EQ(record->who.purpose, "");
}

TEST(ProxyRecord, padding_after_the_purpose_is_not_part_of_it) {
  std::string bytes = "1 4121 987654 1700000000123 xh 0\nread it\n";
  bytes.resize(kSlotSize, '\0');
  EXPECT_EQ(parse_proxy_record(bytes)->who.purpose, "read it");
}

TEST(ProxyRecord, hostile_purpose_is_made_harmless_and_cut) {
  const auto record =
      parse_proxy_record("1 4121 987654 1700000000123 xh 0\n\x1B]0;evil\a" + std::string(300, 'x') + "\n");
  ASSERT_TRUE(record);
  EXPECT_EQ(record->who.purpose.substr(0, 9), "?]0;evil?");
  EXPECT_EQ(record->who.purpose.size(), 80U);
}

TEST(ProxyRecord, another_version_or_garbage_is_nobodys) {
  for (const char* bytes :
       {"", "1", "1 ", "2 4121 987654 1700000000123 xh 0\nx\n", "x 4121 1 1 xh 0\n\n", "1 0 1 1 xh 0\n\n",
        "1 -5 1 1 xh 0\n\n", "1 4121 -1 1 xh 0\n\n", "1 4121 987654 17000", "1 4121 987654 1700000000123 xh",
        "1 4121 987654 1700000000123 xh \n", "1 99999999999 1 1 xh 0\n\n", "1 4121 987654 1700000000123 zz 0\n\n"})
    EXPECT_FALSE(parse_proxy_record(bytes)) << bytes;
}

TEST(ProxyRecord, time_that_no_clock_can_show_is_nobodys) {
  // system_clock counts nanoseconds in 64 bits, to the year 2262.
  EXPECT_FALSE(parse_proxy_record("1 4121 1 9223372036854775807 xh 0\n\n"));
  EXPECT_FALSE(parse_proxy_record("1 4121 1 -9223372036854775808 xh 0\n\n"));
  EXPECT_TRUE(parse_proxy_record("1 4121 1 9223372036854 xh 0\n\n"));
}

}  // namespace
}  // namespace holdfast::convention
