// SPDX-License-Identifier: MIT
// devices_test.cpp - every device of the lab: what `explain` says of it, letter by letter, and that a claim by one of
// its nodes shuts out the others and nobody else.
//
// A device is one row of the table below. Its golden text is in golden/NAME.txt; after a change that is meant,
//   HOLDFAST_GOLDEN=write tests/vm/vm --machine devices run -- PROGRAM --gtest_filter='*explain*' |
//   tests/vm/write_golden
// writes it anew.
#include "vm/support/lab.hpp"

#include "interop/support/program.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/uinput.h>
#include <sys/ioctl.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <regex>
#include <sstream>
#include <string>
#include <vector>

namespace holdfast::vm {
namespace {

using Nodes = std::vector<std::string>;  // as node_of() takes them
using testing_support::Child;

struct Row {
  const char* name;
  std::string device;  // what `explain` is asked for
  Nodes together;      // a claim by any of them refuses all of them
  Nodes unit;          // what belongs to the same unit: free beside it, but taken by a claim of the unit
  Nodes strangers;     // free in both cases
};

std::ostream& operator<<(std::ostream& out, const Row& row) { return out << row.name; }

const Row kDevices[] = {
    {.name = "optical_with_disc",
     .device = "/dev/sr0",
     .together = {"/dev/sr0", "/dev/sg0", "/dev/bsg/0:0:0:0", "/dev/cdrom", "/dev/disk/by-label/LAB_DISC"},
     .unit = {},
     .strangers = {"/dev/sr1", "/dev/sg1", "/dev/sda"}},
    {.name = "optical_by_its_other_driver",
     .device = "/dev/sg0",
     .together = {"/dev/sg0", "/dev/disk/by-id/scsi-0QEMU_QEMU_CD-ROM_LAB-DRIVE-0"},
     .unit = {},
     .strangers = {"/dev/sg1"}},
    {.name = "optical_empty",
     .device = "/dev/sr1",
     .together = {"/dev/sr1", "/dev/sg1", "/dev/bsg/0:0:1:0"},
     .unit = {},
     .strangers = {"/dev/sr0", "/dev/bsg/0:0:0:0"}},
    {.name = "virtio_disk",
     .device = "/dev/vda",
     .together = {"/dev/vda", "/dev/vda1", "/dev/vda2", "/dev/disk/by-partlabel/second"},
     .unit = {},
     .strangers = {"/dev/sda"}},
    // Another partition of the disk is refused too: the lock on the whole disk is what udevd looks at.
    {.name = "partition",
     .device = "/dev/vda1",
     .together = {"/dev/vda1", "/dev/vda", "/dev/vda2"},
     .unit = {},
     .strangers = {"/dev/sda"}},
    {.name = "scsi_disk",
     .device = "/dev/sda",
     .together = {"/dev/sda", "/dev/sg2", "/dev/bsg/0:0:2:0"},
     .unit = {},
     .strangers = {"/dev/sr0", "/dev/vda"}},
    {.name = "debug_disk",
     .device = "/dev/disk/by-id/scsi-33333333000002710",
     .together = {"/dev/sdc", "*/target4:0:0/4:0:0:0/scsi_generic/sg*", "/dev/bsg/4:0:0:0"},
     .unit = {},
     .strangers = {"/dev/sda"}},
    {.name = "tape",
     .device = "/dev/st0",
     .together = {"/dev/st0", "/dev/st0l", "/dev/st0m", "/dev/st0a", "/dev/nst0", "/dev/nst0l", "/dev/nst0m",
                  "/dev/nst0a", "*/5:0:0:0/scsi_generic/sg*", "/dev/bsg/5:0:0:0", "/dev/tape/by-id/scsi-12000-nst"},
     .unit = {},
     .strangers = {"/dev/sdc"}},
    {.name = "usb_serial_adapter",
     .device = "/dev/ttyUSB0",
     .together = {"/dev/ttyUSB0", "/dev/serial/by-id/usb-QEMU_QEMU_USB_SERIAL_LAB-ADAPTER-0-if00-port0"},
     .unit = {"*/usb1/1-1"},
     .strangers = {"/dev/ttyUSB1", "*/usb1/1-2"}},
    {.name = "usb_unit_with_two_ports",
     .device = "/dev/ttyACM0",
     .together = {"/dev/ttyACM0"},
     .unit = {"/dev/ttyACM1", "*/dummy_hcd.0/usb3/3-1"},
     .strangers = {"/dev/ttyGS0", "/dev/ttyUSB0"}},
    {.name = "usb_unit_by_its_usbfs_node",
     .device = "*/dummy_hcd.0/usb3/3-1",
     .together = {"*/dummy_hcd.0/usb3/3-1"},
     .unit = {"/dev/ttyACM0", "/dev/ttyACM1"},
     .strangers = {"*/usb1/1-1"}},
    {.name = "pci_serial_port",
     .device = "*/0000:00:07.0/*tty/ttyS*",
     .together = {"*/0000:00:07.0/*tty/ttyS*"},
     .unit = {},
     .strangers = {"/dev/ttyS1"}},
    {.name = "usb_stick",
     .device = "/dev/disk/by-id/usb-QEMU_QEMU_HARDDISK_LAB-STICK-0:0",
     .together = {"/dev/sdb", "*/usb2/2-3/*/scsi_generic/sg*", "*/usb2/2-3/*/bsg/*"},
     .unit = {"*/usb2/2-3"},
     .strangers = {"*/usb1/1-1", "/dev/sda"}},
    {.name = "tablet",
     .device = "*/usb1/1-4/*/hidraw/hidraw*",
     .together = {"*/usb1/1-4/*/hidraw/hidraw*", "*/usb1/1-4/*/input/*/event*", "*/usb1/1-4/*/input/*/mouse*"},
     .unit = {"*/usb1/1-4"},
     .strangers = {"*/serio1/input/*/mouse*", "/dev/input/mice"}},
    {.name = "mouse_on_ps2",
     .device = "*/serio1/input/*/event*",
     .together = {"*/serio1/input/*/event*", "*/serio1/input/*/mouse*"},
     .unit = {},
     .strangers = {"*/serio0/input/*/event*", "*/usb1/1-4/*/input/*/mouse*"}},
    {.name = "game_pad_of_a_program",
     .device = "*/virtual/input/*/event*",
     .together = {"*/virtual/input/*/event*", "*/virtual/input/*/js*"},
     .unit = {},
     .strangers = {"/dev/input/mice", "/dev/uinput"}},
    {.name = "camera",
     .device = "/dev/video0",
     .together = {"/dev/video0", "/dev/vbi0", "/dev/swradio0", "/dev/media0",
                  "/dev/v4l/by-path/platform-vivid.0-video-index1"},
     .unit = {"/dev/cec0", "*/vivid.0/rc/*/event*"},
     .strangers = {}},
};

// A game pad that lives as long as the object.
class GamePad {
 public:
  GamePad() : fd_{::open("/dev/uinput", O_RDWR | O_CLOEXEC)} {
    ::ioctl(fd_.get(), UI_SET_EVBIT, EV_KEY);
    ::ioctl(fd_.get(), UI_SET_KEYBIT, BTN_GAMEPAD);
    ::ioctl(fd_.get(), UI_SET_EVBIT, EV_ABS);
    uinput_abs_setup axis{.code = ABS_X,
                          .absinfo = {.value = 0, .minimum = 0, .maximum = 255, .fuzz = 0, .flat = 0, .resolution = 0}};
    ::ioctl(fd_.get(), UI_ABS_SETUP, &axis);
    axis.code = ABS_Y;
    ::ioctl(fd_.get(), UI_ABS_SETUP, &axis);
    uinput_setup setup{};
    setup.id.bustype = BUS_VIRTUAL;
    std::strcpy(setup.name, "game pad of the lab");
    EXPECT_EQ(::ioctl(fd_.get(), UI_DEV_SETUP, &setup), 0);
    EXPECT_EQ(::ioctl(fd_.get(), UI_DEV_CREATE), 0);
    settle();
  }

 private:
  base::UniqueFd fd_;
};

// Major numbers that the kernel hands out as drivers ask for them (Documentation/admin-guide/devices.txt: 234-254 and
// 384-511), by the driver that got them.
std::string with_drivers_for_dynamic_majors(std::string text) {
  std::ifstream majors{"/proc/devices"};
  char kind = 'c';
  for (std::string line; std::getline(majors, line);) {
    if (line.starts_with("Block")) kind = 'b';
    std::istringstream words{line};
    unsigned major = 0;
    std::string driver;
    if (!(words >> major >> driver) || major < 234 || (major > 254 && major < 384)) continue;
    text = std::regex_replace(text, std::regex{fmt::format("\\b{}{}:", kind, major)},
                              fmt::format("{}<{}>:", kind, driver));
  }
  return text;
}

// The text without what another kernel, or another boot, counts differently.
std::string normalised(std::string text) {
  utsname kernel{};
  ::uname(&kernel);
  const std::string release{kernel.release};
  for (std::size_t at = 0; (at = text.find(release, at)) != std::string::npos;)
    text.replace(at, release.size(), "KERNEL");
  text = std::regex_replace(text, std::regex{"by-diskseq/[0-9]+"}, "by-diskseq/COUNT");
  text = std::regex_replace(text, std::regex{"/virtual/input/input[0-9]+/"}, "/virtual/input/inputCOUNT/");
  // Since Linux 6.5 a port of a UART has two layers of its own below its device (drivers/tty/serial/serial_base_bus.c).
  text = std::regex_replace(text, std::regex{"/([0-9a-f:.]+)/\\1:[0-9]+/\\1:[0-9]+\\.[0-9]+/tty/"}, "/$1/tty/");
  return with_drivers_for_dynamic_majors(std::move(text));
}

std::string file_content(const std::string& path) {
  std::ifstream file{path};
  return {std::istreambuf_iterator<char>{file}, {}};
}

class LabDevice : public testing::TestWithParam<Row> {
 protected:
  LabDevice() {
    if (std::string{GetParam().name} == "game_pad_of_a_program") pad_ = std::make_unique<GamePad>();
    device_ = node_of(GetParam().device);
    for (const std::string& node : GetParam().together) together_.push_back(node_of(node));
    for (const std::string& node : GetParam().unit) unit_.push_back(node_of(node));
    for (const std::string& node : GetParam().strangers) strangers_.push_back(node_of(node));
  }

  std::unique_ptr<GamePad> pad_;
  std::string device_;
  Nodes together_, unit_, strangers_;
};

TEST_P(LabDevice, explain_says_what_is_written_down) {
  const std::string name = fmt::format("{}.txt", GetParam().name);
  const std::string written = file_content(VM_SOURCE "/golden/" + name);
  std::string text;
  // A drive's event may have udevd look at it, and for that moment have it open or its links away.
  for (int attempt = 0; attempt < 5 && text != written; ++attempt) {
    settle();
    const auto said = interop::run_to_the_end({HOLDFAST_COMMAND, "explain", device_});
    ASSERT_EQ(said.status, 0) << said.output;
    text = normalised(said.output);
  }
  const char* const wish = std::getenv("HOLDFAST_GOLDEN");
  if (wish != nullptr && std::string{wish} == "write") {
    std::printf("golden %s\n%sgolden end\n", name.c_str(), text.c_str());
    return;
  }
  EXPECT_EQ(text, written);
}

TEST_P(LabDevice, a_claim_by_one_of_its_nodes_refuses_all_of_them_and_nobody_else) {
  for (const std::string& held : together_) {
    Child holder = holder_of(held);
    ASSERT_EQ(holder.hear(), "claimed") << held;
    const std::string by_holder = fmt::format("held by {}", holder.pid());
    for (const std::string& asked : together_) EXPECT_EQ(who_holds(asked), by_holder) << asked << " beside " << held;
    for (const std::string& asked : unit_) EXPECT_EQ(try_claim(asked), "taken") << "beside " << held;
    for (const std::string& asked : strangers_) EXPECT_EQ(try_claim(asked), "taken") << "beside " << held;
    holder.kill();
    EXPECT_EQ(try_claim(together_.back()), "taken") << "after the death of who held " << held;
  }
}

class LabUnit : public LabDevice {};

TEST_P(LabUnit, a_claim_of_it_refuses_its_other_nodes_too) {
  const Options whole{.cover = Cover::unit};
  Nodes all = together_;
  all.insert(all.end(), unit_.begin(), unit_.end());
  Child holder = holder_of(device_, whole);
  ASSERT_EQ(holder.hear(), "claimed");
  for (const std::string& asked : all) EXPECT_EQ(who_holds(asked), fmt::format("held by {}", holder.pid())) << asked;
  for (const std::string& asked : strangers_) EXPECT_EQ(try_claim(asked), "taken");
  holder.tell("release");
  ASSERT_EQ(holder.hear(), "released");
  for (const std::string& held : unit_) {
    Child neighbour = holder_of(held);
    ASSERT_EQ(neighbour.hear(), "claimed") << held;
    EXPECT_EQ(who_holds(device_, whole), fmt::format("held by {}", neighbour.pid())) << held;
    EXPECT_EQ(try_claim(device_), "taken") << "what was taken of the unit was not given back";
  }
}

std::vector<Row> units_of_several_nodes() {
  std::vector<Row> rows;
  std::ranges::copy_if(kDevices, std::back_inserter(rows), [](const Row& row) { return !row.unit.empty(); });
  return rows;
}

std::string name_of(const testing::TestParamInfo<Row>& row) { return row.param.name; }

INSTANTIATE_TEST_SUITE_P(Lab, LabDevice, testing::ValuesIn(kDevices), name_of);
INSTANTIATE_TEST_SUITE_P(Lab, LabUnit, testing::ValuesIn(units_of_several_nodes()), name_of);

}  // namespace
}  // namespace holdfast::vm
