// SPDX-License-Identifier: MIT
// UUCP lock files as programs have written them for forty years: bytes, names, and what is none of them.
#include "convention/uucp.hpp"

#include "base/process.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sys/sysmacros.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>

namespace holdfast::convention {
namespace {

using ::testing::Contains;
using ::testing::Each;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;
using Kind = UucpContent::Kind;

template <class Integer>
std::string native(Integer value) {
  std::string bytes(sizeof value, '\0');
  std::memcpy(bytes.data(), &value, sizeof value);
  return bytes;
}

struct Row {
  const char* writer;
  std::string bytes;
};

std::string writer_of(const ::testing::TestParamInfo<Row>& row) { return row.param.writer; }

class Written : public ::testing::TestWithParam<Row> {};

TEST_P(Written, is_understood_as_process_4121) {
  const UucpContent content = parse_uucp(GetParam().bytes);
  EXPECT_EQ(content.kind, Kind::pid);
  EXPECT_EQ(content.pid, 4121);
}

INSTANTIATE_TEST_SUITE_P(
    UucpBytes, Written,
    ::testing::Values(Row{"fhs_and_hdb", "      4121\n"}, Row{"fsstnd_with_zeros", "0000004121\n"},
                      Row{"unpadded", "4121\n"}, Row{"without_line_end", "      4121"},
                      Row{"with_a_nul", std::string{"      4121\0", 11}}, Row{"dos_line_end", "      4121\r\n"},
                      Row{"tab", "\t4121\n"}, Row{"v2_and_bsd_native_int", native<std::int32_t>(4121)},
                      Row{"microcom_native_long", native<std::int64_t>(4121)},
                      Row{"gammu_with_its_name", "      4121 gammu\n"},
                      Row{"minicom_with_name_and_user", "      4121 minicom root\n"},
                      Row{"qlockfile",
                          "4121\nqtterm\nhost\n0123456789abcdef0123456789abcdef\n01234567-89ab-cdef-0123-"
                          "456789abcdef\n"},
                      Row{"three_lines", "      4121\nholdfast\nhost\n"}, Row{"four_bytes_of_text", "4121"},
                      Row{"eight_bytes_of_two_lines", "4121\nab\n"}),
    writer_of);

TEST(UucpBytes, four_bytes_are_text_when_they_are_digits_and_a_native_int_else) {
  EXPECT_EQ(parse_uucp("  12").pid, 12);
  EXPECT_EQ(parse_uucp("123\n").pid, 123);
  EXPECT_EQ(parse_uucp("12\nx").pid, 12) << "no process can have the number that these bytes make as an int";
  EXPECT_EQ(parse_uucp("12 x").pid, 12);
  EXPECT_EQ(parse_uucp(native<std::int32_t>(0x00323130)).pid, 0x00323130) << "the bytes \"012\" and a NUL: an int";
}

TEST(UucpBytes, empty_file_is_being_written) { EXPECT_EQ(parse_uucp("").kind, Kind::empty); }

class Garbage : public ::testing::TestWithParam<Row> {};

TEST_P(Garbage, names_nobody) {
  const UucpContent content = parse_uucp(GetParam().bytes);
  EXPECT_EQ(content.kind, Kind::garbage);
  EXPECT_EQ(content.pid, 0);
}

INSTANTIATE_TEST_SUITE_P(
    UucpBytes, Garbage,
    ::testing::Values(Row{"words", "garbage\n"}, Row{"four_letters", "LOCK"}, Row{"eight_letters", "NOT A PID"},
                      Row{"zero", "         0\n"}, Row{"negative", "        -1\n"},
                      Row{"negative_4121", "     -4121\n"}, Row{"blanks", "          \n"}, Row{"line_end", "\n"},
                      Row{"beyond_an_int", "4294967296\n"}, Row{"beyond_a_long", "99999999999999999999999999\n"},
                      Row{"hexadecimal", "0x1019\n"}, Row{"digits_and_letters", "4121gammu\n"},
                      Row{"native_zero", native<std::int32_t>(0)}, Row{"native_minus_one", native<std::int32_t>(-1)},
                      Row{"native_long_minus_one", native<std::int64_t>(-1)},
                      Row{"native_int_that_no_process_can_have", native<std::int32_t>(4'194'305)},
                      Row{"native_long_that_no_process_can_have", native<std::int64_t>(1'000'000'000'000)},
                      Row{"three_bytes", std::string{"\x01\x02\x03", 3}}, Row{"nuls", std::string(11, '\0')}),
    writer_of);

TEST(UucpBytes, large_number_that_an_int_holds_is_a_process_that_is_dead) {
  EXPECT_EQ(parse_uucp("2147483647\n").kind, Kind::pid);
  EXPECT_EQ(parse_uucp("2147483647\n").pid, 2147483647);
}

device::Device terminal(std::string path, unsigned major, unsigned minor) {
  device::Device device;
  device.node.id = {device::Kind::character, major, minor, 0};
  device.node.path = path;
  device.node.inode = {::makedev(0, 6), 99};
  device.given = std::move(path);
  device.family = device::Family::terminal;
  return device;
}

TEST(UucpNames, plain_port_has_its_name_and_its_numbers) {
  const device::Device device = terminal("/dev/ttyUSB0", 188, 0);
  const UucpNames names = uucp_names(device, device.node);
  EXPECT_THAT(names.create, UnorderedElementsAre("LCK..ttyUSB0", "LK.000.188.000", "LCK.C.188.000", "LCK.188.000"));
  EXPECT_THAT(names.watch, IsEmpty());
}

TEST(UucpNames, link_is_derived_in_every_way_that_programs_do) {
  device::Device device = terminal("/dev/ttyUSB0", 188, 0);
  device.links = {"/dev/serial/by-id/usb-FTDI_A5-if00-port0"};
  const UucpNames names = uucp_names(device, device.node);
  EXPECT_THAT(names.create, Contains("LCK..ttyUSB0")) << "C-Kermit resolves the link";
  EXPECT_THAT(names.create, Contains("LCK..usb-FTDI_A5-if00-port0")) << "cu, mgetty, gammu, wvdial";
  EXPECT_THAT(names.create, Contains("LCK..serial_by-id_usb-FTDI_A5-if00-port0")) << "pppd, minicom, gensio, Qt";
  EXPECT_THAT(names.watch, UnorderedElementsAre("LCK..serial:by-id:usb-FTDI_A5-if00-port0")) << "lockdev";
}

TEST(UucpNames, path_as_given_counts_like_a_link_and_nothing_is_named_twice) {
  device::Device device = terminal("/dev/ttyUSB0", 188, 0);
  device.given = "/dev/serial/by-id/NAME";
  device.links = {"/dev/serial/by-id/NAME"};
  const UucpNames names = uucp_names(device, device.node);
  EXPECT_THAT(names.create, UnorderedElementsAre("LCK..ttyUSB0", "LCK..NAME", "LCK..serial_by-id_NAME",
                                                 "LK.000.188.000", "LCK.C.188.000", "LCK.188.000"));
  EXPECT_THAT(names.watch, UnorderedElementsAre("LCK..serial:by-id:NAME"));
}

TEST(UucpNames, link_outside_dev_is_known_by_its_last_part) {
  device::Device device = terminal("/dev/ttyS4", 4, 68);
  device.given = "/home/me/modem";
  const UucpNames names = uucp_names(device, device.node);
  EXPECT_THAT(names.create, Contains("LCK..modem"));
  EXPECT_THAT(names.watch, IsEmpty());
}

TEST(UucpNames, number_and_relative_path_as_given_add_nothing) {
  device::Device device = terminal("/dev/ttyS0", 4, 64);
  const UucpNames plain = uucp_names(device, device.node);
  for (const char* given : {"c4:64", "ttyS0", "./ttyS0", ""}) {
    device.given = given;
    EXPECT_EQ(uucp_names(device, device.node).create, plain.create) << given;
  }
}

TEST(UucpNames, pseudo_terminal_has_both_forms) {
  device::Device device = terminal("/dev/pts/0", 136, 0);
  device.node.id.devpts = 24;
  device.node.inode.dev = ::makedev(0, 24);
  const UucpNames names = uucp_names(device, device.node);
  EXPECT_THAT(names.create,
              UnorderedElementsAre("LCK..0", "LCK..pts_0", "LK.000.136.000", "LCK.C.136.000", "LCK.136.000"));
  EXPECT_THAT(names.watch, UnorderedElementsAre("LCK..pts:0"));
}

TEST(UucpNames, file_system_of_the_node_is_in_the_number_based_name) {
  device::Device device = terminal("/dev/ttyS1", 4, 65);
  device.node.inode.dev = ::makedev(8, 1);
  EXPECT_THAT(uucp_names(device, device.node).create, Contains("LK.008.004.065"));
}

TEST(UucpNames, neighbour_is_named_by_its_own_path_alone) {
  device::Device device = terminal("/dev/ttyUSB0", 188, 0);
  device.links = {"/dev/serial/by-id/NAME"};
  device::Node neighbour = terminal("/dev/ttyUSB1", 188, 1).node;
  const UucpNames names = uucp_names(device, neighbour);
  EXPECT_THAT(names.create, UnorderedElementsAre("LCK..ttyUSB1", "LK.000.188.001", "LCK.C.188.001", "LCK.188.001"));
}

TEST(UucpNames, name_that_no_file_can_have_is_left_out) {
  device::Device device = terminal("/dev/ttyUSB0", 188, 0);
  device.links = {"/dev/serial/by-id/" + std::string(250, 'x')};
  const UucpNames names = uucp_names(device, device.node);
  EXPECT_THAT(names.create,
              Each(::testing::ResultOf([](const auto& name) { return name.size(); }, ::testing::Le(255U))));
  EXPECT_THAT(names.create, Contains("LCK.." + std::string(250, 'x')));
  EXPECT_THAT(names.watch, IsEmpty());
}

TEST(UucpNames, every_name_of_a_port_is_recognised_as_a_lock_file) {
  device::Device device = terminal("/dev/ttyUSB0", 188, 0);
  device.links = {"/dev/serial/by-id/NAME", "/dev/serial/by-path/pci-0000:00:14.0-usb-0:2:1.0-port0", "/dev/gps"};
  const UucpNames names = uucp_names(device, device.node);
  for (const auto& list : {names.create, names.watch})
    for (const std::string& name : list) EXPECT_TRUE(is_uucp_name(name)) << name;
}

TEST(IsUucpName, device_locks_are) {
  for (const char* name : {"LCK..ttyS0", "LCK..serial_by-id_NAME", "LCK..serial:by-id:NAME", "LCK..0", "LK.000.004.064",
                           "LK.b.000.008.000", "LCK.C.004.065", "LCK.B.008.000", "LCK.004.065"})
    EXPECT_TRUE(is_uucp_name(name)) << name;
}

TEST(IsUucpName, other_things_in_the_directory_are_not) {
  for (const char* name : {"asound.state.lock",
                           "card0.lock",
                           "subsys",
                           "lvm",
                           "lockdev",
                           "LCK...4121",
                           "LCK..",
                           "LCK.",
                           "LCK",
                           "LK.",
                           "LK..",
                           "LK.b.",
                           "LCK.C.",
                           "LCKttyS0",
                           "xLCK..ttyS0",
                           "LTMP.04121",
                           "TMP0000001019",
                           "LCK..TM.abc123",
                           "",
                           "holdfast-c4:64",
                           ".holdfast.LCK..ttyS0",
                           "LK.log",
                           "LCK.log",
                           "LK.000.004.064.tmp"})
    EXPECT_FALSE(is_uucp_name(name)) << name;
}

TEST(UucpContentText, is_three_lines_that_every_reader_respects) {
  const std::string content = uucp_content(::getpid());
  char padded[16];
  std::snprintf(padded, sizeof padded, "%10d\n", ::getpid());
  utsname host{};
  ASSERT_EQ(::uname(&host), 0);
  EXPECT_EQ(content, std::string{padded} + base::executable_name(::getpid()) + "\n" + host.nodename + "\n");
  EXPECT_EQ(content.find('\n'), 10U) << "readers of eleven bytes find the whole number";
}

TEST(UucpContentText, is_read_back_as_the_process) {
  EXPECT_EQ(parse_uucp(uucp_content(::getpid())).pid, ::getpid());
  EXPECT_EQ(parse_uucp(uucp_content(4'194'304)).pid, 4'194'304);
}

}  // namespace
}  // namespace holdfast::convention
