// SPDX-License-Identifier: MIT
// device_recorded_test.cpp - devices that this machine does not have, on recorded trees: who they are, which other
// nodes reach them, and what a claim of each covers.
#include "device/device.hpp"

#include "unit/recorded_tree.hpp"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace holdfast::device {
namespace {

using test::RecordedTree;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::UnorderedElementsAre;

class Recorded : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "needs root: mknod(2) for the recorded nodes";
  }
};
using RecordedSerial = Recorded;
using RecordedDisk = Recorded;
using RecordedScsi = Recorded;
using RecordedHuman = Recorded;
using RecordedVideo = Recorded;

Device found(const RecordedTree& tree, std::string_view name) {
  auto device =
      identify(name.find(':') == std::string_view::npos || name.find('/') != std::string_view::npos ? tree.dev(name)
                                                                                                    : std::string{name},
               tree.places());
  EXPECT_TRUE(device) << device.error().message;
  return device ? *std::move(device) : Device{};
}

std::string below_dev(const RecordedTree& tree, std::string_view path) {
  const std::string dev = tree.dev("");
  return std::string{path.starts_with(dev) ? path.substr(dev.size()) : path};
}

// "sg0 scsi-generic: same function"
std::vector<std::string> siblings(const RecordedTree& tree, const Device& device) {
  std::vector<std::string> lines;
  for (const Sibling& sibling : device.siblings)
    lines.push_back(fmt::format("{} {}: {}", below_dev(tree, sibling.node.path), to_string(sibling.family),
                                to_string(sibling.relation)));
  return lines;
}

std::vector<std::string> covered(const RecordedTree& tree, const Device& device, Cover cover) {
  std::vector<std::string> names;
  for (const Covered& one : covered_nodes(device, cover)) names.push_back(below_dev(tree, one.node.path));
  return names;
}

TEST_F(RecordedSerial, a_usb_adapter_has_its_own_driver_and_shares_the_unit_with_its_usbfs_node) {
  const RecordedTree tree{"usb-serial-ftdi"};
  const Device device = found(tree, "ttyUSB0");
  EXPECT_EQ(device.node.id, (DeviceId{Kind::character, 188, 0}));
  EXPECT_EQ(device.family, Family::terminal);
  EXPECT_EQ(device.subsystem, "tty");
  EXPECT_EQ(device.driver, "ftdi_sio");
  EXPECT_EQ(device.unit, tree.sys("/devices/pci0000:00/0000:00:14.0/usb1/1-2"));
  EXPECT_EQ(device.label, "FTDI FT232R USB UART (A50285BI)");
  EXPECT_EQ(device.stable_name, tree.dev("serial/by-id/usb-FTDI_FT232R_USB_UART_A50285BI-if00-port0"));
  EXPECT_THAT(device.links,
              ElementsAre(device.stable_name, tree.dev("serial/by-path/pci-0000:00:14.0-usb-0:2:1.0-port0")));
  EXPECT_THAT(siblings(tree, device),
              UnorderedElementsAre("bus/usb/001/005 usb: same unit", "gpiochip1 other: same unit"));
  EXPECT_THAT(covered(tree, device, Cover::function), ElementsAre("ttyUSB0"));
  EXPECT_THAT(covered(tree, device, Cover::unit), ElementsAre("ttyUSB0", "bus/usb/001/005", "gpiochip1"));
}

TEST_F(RecordedSerial, every_name_of_an_adapter_leads_to_the_same_node) {
  const RecordedTree tree{"usb-serial-ftdi"};
  for (const std::string_view name : {"ttyUSB0", "serial/by-id/usb-FTDI_FT232R_USB_UART_A50285BI-if00-port0",
                                      "serial/../serial/by-path/pci-0000:00:14.0-usb-0:2:1.0-port0", "c188:0"}) {
    const Device device = found(tree, name);
    EXPECT_EQ(device.node.path, tree.dev("ttyUSB0")) << name;
    EXPECT_EQ(device.node.id, (DeviceId{Kind::character, 188, 0})) << name;
  }
}

TEST_F(RecordedSerial, a_second_node_of_the_same_number_is_the_same_device_under_its_canonical_name) {
  const RecordedTree tree{"usb-serial-ftdi"};
  ASSERT_EQ(::mknod(tree.dev("modem").c_str(), S_IFCHR | 0600, makedev(188, 0)), 0);
  const Device device = found(tree, "modem");
  EXPECT_EQ(device.given, tree.dev("modem"));
  EXPECT_EQ(device.node.path, tree.dev("ttyUSB0"));
  EXPECT_EQ(device.node.inode, found(tree, "ttyUSB0").node.inode);
}

TEST_F(RecordedSerial, the_callers_path_stays_when_the_canonical_name_is_another_device) {
  const RecordedTree tree{"usb-serial-ftdi"};
  ASSERT_EQ(::rename(tree.dev("ttyUSB0").c_str(), tree.dev("modem").c_str()), 0);
  ASSERT_EQ(::rename(tree.dev("ttyUSB1").c_str(), tree.dev("ttyUSB0").c_str()), 0);
  ASSERT_EQ(::symlink("modem", tree.dev("link").c_str()), 0);
  const Device device = found(tree, "link");
  EXPECT_EQ(device.node.path, tree.dev("modem"));
  EXPECT_EQ(device.node.id, (DeviceId{Kind::character, 188, 0}));
  const auto number = identify("c188:0", tree.places());
  ASSERT_FALSE(number);
  EXPECT_EQ(number.error().code, errc::no_such_device);
}

TEST_F(RecordedSerial, links_are_found_without_udevs_database) {
  const RecordedTree tree{"usb-serial-ftdi", RecordedTree::Udev::absent};
  const Device device = found(tree, "ttyUSB0");
  EXPECT_EQ(device.stable_name, tree.dev("serial/by-id/usb-FTDI_FT232R_USB_UART_A50285BI-if00-port0"));
  EXPECT_EQ(device.links.size(), 2U);
  EXPECT_EQ(device.label, "FTDI FT232R USB UART (A50285BI)") << "from sysfs";
  EXPECT_TRUE(found(tree, "ttyUSB1").links.empty());
}

TEST_F(RecordedSerial, a_link_that_udev_gave_to_another_device_is_not_ours) {
  const RecordedTree tree{"usb-serial-ftdi"};
  const std::string link = tree.dev("serial/by-id/usb-FTDI_FT232R_USB_UART_A50285BI-if00-port0");
  ASSERT_EQ(::unlink(link.c_str()), 0);
  ASSERT_EQ(::symlink("../../ttyUSB1", link.c_str()), 0);
  const Device device = found(tree, "ttyUSB0");
  EXPECT_THAT(device.links, ElementsAre(tree.dev("serial/by-path/pci-0000:00:14.0-usb-0:2:1.0-port0")));
  EXPECT_EQ(device.stable_name, device.links.front());
}

TEST_F(RecordedSerial, an_adapter_without_serial_number_is_labelled_and_not_named_for_ever) {
  const RecordedTree tree{"usb-serial-ftdi"};
  const Device device = found(tree, "ttyUSB1");
  EXPECT_EQ(device.label, "Prolific Technology Inc. USB-Serial Controller");
  EXPECT_EQ(device.driver, "pl2303");
  EXPECT_TRUE(device.stable_name.empty());
}

TEST_F(RecordedSerial, four_ports_of_one_adapter_share_the_unit_but_not_the_function) {
  const RecordedTree tree{"usb-serial-four-ports"};
  const Device device = found(tree, "ttyUSB2");
  EXPECT_EQ(device.unit, tree.sys("/devices/pci0000:00/0000:00:14.0/usb1/1-4/1-4.2"));
  EXPECT_THAT(siblings(tree, device), ElementsAre("ttyUSB0 terminal: same unit", "ttyUSB1 terminal: same unit",
                                                  "ttyUSB3 terminal: same unit", "bus/usb/001/007 usb: same unit"));
  EXPECT_THAT(covered(tree, device, Cover::function), ElementsAre("ttyUSB2"));
  EXPECT_THAT(covered(tree, device, Cover::unit),
              ElementsAre("ttyUSB0", "ttyUSB1", "ttyUSB2", "ttyUSB3", "bus/usb/001/007"));
}

TEST_F(RecordedSerial, a_hub_is_no_unit_with_the_adapters_behind_it) {
  const RecordedTree tree{"usb-serial-four-ports"};
  EXPECT_THAT(siblings(tree, found(tree, "bus/usb/001/003")), IsEmpty());
  EXPECT_THAT(siblings(tree, found(tree, "bus/usb/001/001")), IsEmpty());
  EXPECT_THAT(siblings(tree, found(tree, "ttyUSB4")), ElementsAre("bus/usb/001/008 usb: same unit"));
}

TEST_F(RecordedSerial, a_usbfs_node_reaches_every_port_of_its_device) {
  const RecordedTree tree{"usb-serial-four-ports"};
  const Device device = found(tree, "bus/usb/001/007");
  EXPECT_EQ(device.family, Family::usb);
  EXPECT_EQ(device.driver, "usb");
  EXPECT_THAT(covered(tree, device, Cover::function), ElementsAre("bus/usb/001/007"));
  EXPECT_THAT(covered(tree, device, Cover::unit),
              ElementsAre("ttyUSB0", "ttyUSB1", "ttyUSB2", "ttyUSB3", "bus/usb/001/007"));
}

TEST_F(RecordedSerial, a_modem_class_device_is_a_terminal) {
  const RecordedTree tree{"usb-cdc-acm"};
  const Device device = found(tree, "ttyACM0");
  EXPECT_EQ(device.family, Family::terminal);
  EXPECT_EQ(device.driver, "cdc_acm");
  EXPECT_THAT(siblings(tree, device), ElementsAre("bus/usb/001/009 usb: same unit"));
}

TEST_F(RecordedSerial, a_uart_of_the_board_is_a_unit_of_its_own_on_old_and_new_kernels) {
  const RecordedTree tree{"platform-uart"};
  const Device pnp = found(tree, "ttyS0");
  EXPECT_EQ(pnp.family, Family::terminal);
  EXPECT_EQ(pnp.driver, "serial");
  EXPECT_EQ(pnp.unit, tree.sys("/devices/pnp0/00:01/00:01:0/00:01:0.0/tty/ttyS0")) << "00:01:0.0 is no PCI address";
  EXPECT_THAT(pnp.siblings, IsEmpty());
  EXPECT_EQ(found(tree, "ttyS1").driver, "serial8250");
  EXPECT_EQ(found(tree, "ttyAMA0").driver, "uart-pl011");
}

TEST_F(RecordedSerial, two_ports_of_one_card_share_the_pci_function) {
  const RecordedTree tree{"pci-two-uarts"};
  const Device device = found(tree, "ttyS5");
  EXPECT_EQ(device.unit, tree.sys("/devices/pci0000:00/0000:00:1c.0/0000:03:00.0"));
  EXPECT_EQ(device.driver, "serial");
  EXPECT_THAT(siblings(tree, device), ElementsAre("ttyS4 terminal: same unit"));
}

TEST_F(RecordedDisk, a_disk_covers_its_partitions_and_its_scsi_nodes) {
  const RecordedTree tree{"sata-disk"};
  const Device device = found(tree, "sda");
  EXPECT_EQ(device.family, Family::disk);
  EXPECT_EQ(device.driver, "sd");
  EXPECT_EQ(device.scsi, (ScsiAddress{0, 0, 0, 0}));
  EXPECT_EQ(device.label, "Samsung SSD 870 EVO 1TB (S6PUNX0RB12345)");
  EXPECT_EQ(device.stable_name, tree.dev("disk/by-id/ata-Samsung_SSD_870_EVO_1TB_S6PUNX0RB12345"));
  EXPECT_EQ(device.links.size(), 3U);
  EXPECT_THAT(siblings(tree, device),
              ElementsAre("sda1 partition: partition", "sda2 partition: partition", "sg0 scsi-generic: same function",
                          "bsg/0:0:0:0 other: same function"));
  EXPECT_THAT(covered(tree, device, Cover::function), ElementsAre("sda", "sda1", "sda2", "sg0", "bsg/0:0:0:0"));
}

TEST_F(RecordedDisk, a_partition_covers_neither_its_disk_nor_its_neighbour) {
  const RecordedTree tree{"sata-disk"};
  const Device device = found(tree, "sda2");
  EXPECT_EQ(device.family, Family::partition);
  EXPECT_THAT(siblings(tree, device), Contains("sda disk: whole disk"));
  EXPECT_THAT(siblings(tree, device), Contains("sda1 partition: same unit"));
  EXPECT_THAT(covered(tree, device, Cover::function), ElementsAre("sda2"));
  EXPECT_THAT(covered(tree, device, Cover::unit), Not(Contains("sda")));
}

TEST_F(RecordedDisk, without_sysfs_and_udev_a_disk_is_still_a_disk) {
  const RecordedTree tree{"sata-disk", RecordedTree::Udev::absent};
  base::Places places = tree.places();
  places.sys = tree.sys("/nothing");
  const auto device = identify(tree.dev("sda"), places);
  ASSERT_TRUE(device) << device.error().message;
  EXPECT_EQ(device->family, Family::disk);
  EXPECT_EQ(device->node.path, tree.dev("sda"));
  EXPECT_THAT(device->siblings, IsEmpty());
  EXPECT_EQ(device->links.size(), 3U);
}

TEST_F(RecordedDisk, a_sibling_whose_name_is_missing_or_stands_for_something_else_is_left_out) {
  const RecordedTree tree{"sata-disk"};
  ASSERT_EQ(::unlink(tree.dev("sg0").c_str()), 0);
  ASSERT_EQ(::unlink(tree.dev("sda1").c_str()), 0);
  ASSERT_EQ(::symlink("/dev/null", tree.dev("sda1").c_str()), 0);
  ASSERT_EQ(::unlink(tree.dev("bsg/0:0:0:0").c_str()), 0);
  ASSERT_EQ(::mknod(tree.dev("bsg/0:0:0:0").c_str(), S_IFCHR | 0600, makedev(1, 3)), 0);
  EXPECT_THAT(siblings(tree, found(tree, "sda")), ElementsAre("sda2 partition: partition"));
}

TEST_F(RecordedDisk, an_nvme_name_space_has_a_character_twin_and_shares_the_controller) {
  const RecordedTree tree{"nvme"};
  const Device device = found(tree, "nvme0n1");
  EXPECT_EQ(device.driver, "nvme");
  EXPECT_EQ(device.label, "Samsung SSD 980 PRO 1TB (S5GXNX0T123456)");
  EXPECT_EQ(device.unit, tree.sys("/devices/pci0000:00/0000:00:1d.0/0000:01:00.0"));
  EXPECT_THAT(siblings(tree, device),
              ElementsAre("nvme0n1p1 partition: partition", "nvme0n1p2 partition: partition", "nvme0n2 disk: same unit",
                          "ng0n1 other: same function", "ng0n2 other: same unit", "nvme0 other: same unit"));
  const Device twin = found(tree, "ng0n1");
  EXPECT_THAT(covered(tree, twin, Cover::function), ElementsAre("nvme0n1", "nvme0n1p1", "nvme0n1p2", "ng0n1"));
}

TEST_F(RecordedDisk, layers_are_found_upwards_and_downwards_through_every_storey) {
  const RecordedTree tree{"lvm-on-md"};
  EXPECT_THAT(siblings(tree, found(tree, "sda")),
              ElementsAre("sda1 partition: partition", "sda2 partition: partition", "md0 disk: layer above",
                          "dm-0 disk: layer above", "dm-1 disk: layer above", "sg0 scsi-generic: same function",
                          "bsg/0:0:0:0 other: same function"));
  const Device part = found(tree, "sdb1");
  EXPECT_THAT(covered(tree, part, Cover::function), ElementsAre("sdb1"));
  EXPECT_THAT(covered(tree, part, Cover::unit),
              ElementsAre("sdb1", "sdb2", "md0", "dm-0", "dm-1", "sg1", "bsg/1:0:0:0"));
  EXPECT_THAT(siblings(tree, found(tree, "md0")),
              ElementsAre("sda disk: layer below", "sda1 partition: layer below", "sdb disk: layer below",
                          "sdb1 partition: layer below", "dm-0 disk: layer above", "dm-1 disk: layer above"));
  const Device volume = found(tree, "mapper/vg-home");
  EXPECT_EQ(volume.node.path, tree.dev("dm-1"));
  EXPECT_EQ(volume.stable_name, tree.dev("disk/by-id/dm-name-vg-home"));
  EXPECT_EQ(volume.unit, tree.sys("/devices/virtual/block/dm-1"));
  EXPECT_THAT(siblings(tree, volume),
              ElementsAre("sda disk: layer below", "sda1 partition: layer below", "sdb disk: layer below",
                          "sdb1 partition: layer below", "md0 disk: layer below"));
  EXPECT_THAT(covered(tree, volume, Cover::unit), ElementsAre("dm-1"));
}

TEST_F(RecordedDisk, a_loop_is_a_layer_above_the_partition_that_it_is_backed_by) {
  const RecordedTree tree{"loop-on-partition"};
  const Device loop = found(tree, "loop0");
  EXPECT_EQ(loop.family, Family::disk);
  EXPECT_THAT(siblings(tree, loop),
              ElementsAre("sda disk: layer below", "sda2 partition: layer below", "loop0p1 partition: partition"));
  EXPECT_THAT(siblings(tree, found(tree, "sda2")), Contains("loop0 disk: layer above"));
  EXPECT_THAT(siblings(tree, found(tree, "sda2")), Contains("loop0p1 partition: layer above"));
  EXPECT_THAT(siblings(tree, found(tree, "sda")), Contains("loop0 disk: layer above"));
  EXPECT_THAT(siblings(tree, found(tree, "sda1")), Not(Contains("loop0 disk: layer above")));
  EXPECT_THAT(siblings(tree, found(tree, "loop0p1")),
              ElementsAre("loop0 disk: whole disk", "sda disk: layer below", "sda2 partition: layer below"));
  EXPECT_THAT(found(tree, "loop1").siblings, IsEmpty());
  EXPECT_THAT(found(tree, "loop2").siblings, IsEmpty());
}

TEST_F(RecordedDisk, the_boot_area_of_an_emmc_is_a_disk_of_its_own) {
  const RecordedTree tree{"emmc"};
  const Device device = found(tree, "mmcblk0");
  EXPECT_EQ(device.driver, "mmcblk");
  EXPECT_EQ(device.label, "DG4016 (0x1234abcd)");
  EXPECT_THAT(siblings(tree, device), ElementsAre("mmcblk0p1 partition: partition", "mmcblk0p2 partition: partition",
                                                  "mmcblk0boot0 disk: same unit"));
  EXPECT_EQ(found(tree, "mmcblk0boot0").family, Family::disk);
  EXPECT_THAT(siblings(tree, found(tree, "mmcblk0p2")), ElementsAre("mmcblk0 disk: whole disk"));
}

TEST_F(RecordedDisk, two_cards_in_one_reader_share_the_usb_device) {
  const RecordedTree tree{"usb-card-reader"};
  const Device device = found(tree, "sdb");
  EXPECT_EQ(device.unit, tree.sys("/devices/pci0000:00/0000:00:14.0/usb1/1-7"));
  EXPECT_EQ(device.scsi, (ScsiAddress{6, 0, 0, 0}));
  EXPECT_THAT(covered(tree, device, Cover::function), ElementsAre("sdb", "sdb1", "sg1", "bsg/6:0:0:0"));
  EXPECT_THAT(covered(tree, device, Cover::unit),
              ElementsAre("sdb", "sdb1", "sdc", "sg1", "sg2", "bus/usb/001/012", "bsg/6:0:0:0", "bsg/6:0:0:1"));
}

TEST_F(RecordedScsi, two_optical_drives_each_have_their_own_generic_nodes) {
  const RecordedTree tree{"two-optical-drives"};
  const Device first = found(tree, "cdrom");
  EXPECT_EQ(first.node.path, tree.dev("sr0"));
  EXPECT_EQ(first.family, Family::optical);
  EXPECT_EQ(first.scsi, (ScsiAddress{1, 0, 0, 0}));
  EXPECT_EQ(first.driver, "sr");
  EXPECT_EQ(first.label, "HL-DT-ST DVDRAM GH24NSD1 (K90E8AF0123)");
  EXPECT_THAT(siblings(tree, first),
              ElementsAre("sg1 scsi-generic: same function", "bsg/1:0:0:0 other: same function"));
  const Device second = found(tree, "sg2");
  EXPECT_EQ(second.family, Family::scsi_generic);
  EXPECT_EQ(second.scsi, (ScsiAddress{2, 0, 0, 0}));
  EXPECT_EQ(second.scsi_type, "5");
  EXPECT_EQ(second.label, "PLDS DVD+-RW DU-8A5LH") << "udev keeps nothing of an sg node";
  EXPECT_THAT(covered(tree, second, Cover::function), ElementsAre("sr1", "sg2", "bsg/2:0:0:0"));
  EXPECT_EQ(covered(tree, found(tree, "sr1"), Cover::function), covered(tree, second, Cover::function));
  EXPECT_EQ(covered(tree, found(tree, "bsg/2:0:0:0"), Cover::function), covered(tree, second, Cover::function));
}

TEST_F(RecordedScsi, the_eight_nodes_of_a_tape_drive_are_one_function_and_the_changer_is_not) {
  const RecordedTree tree{"sas-tape"};
  const Device device = found(tree, "nst0");
  EXPECT_EQ(device.family, Family::tape);
  EXPECT_EQ(device.scsi, (ScsiAddress{4, 0, 2, 0}));
  EXPECT_EQ(device.stable_name, tree.dev("tape/by-id/scsi-HU1234ABCD-nst"));
  EXPECT_THAT(covered(tree, device, Cover::function),
              ElementsAre("st0", "st0l", "st0m", "st0a", "nst0", "nst0l", "nst0m", "nst0a", "sg3", "bsg/4:0:2:0"));
  EXPECT_EQ(covered(tree, found(tree, "sg3"), Cover::function), covered(tree, device, Cover::function));
  EXPECT_THAT(covered(tree, found(tree, "sch0"), Cover::function), ElementsAre("sg4", "sch0", "bsg/4:0:2:1"));
}

TEST_F(RecordedHuman, a_hidraw_node_and_the_events_of_the_same_hid_device_are_one_function) {
  const RecordedTree tree{"hid-receiver"};
  const Device device = found(tree, "hidraw0");
  EXPECT_EQ(device.family, Family::hid);
  EXPECT_EQ(device.driver, "logitech-djreceiver");
  EXPECT_THAT(covered(tree, device, Cover::function), ElementsAre("input/event4", "hidraw0"));
  const Device event = found(tree, "input/event4");
  EXPECT_EQ(event.family, Family::input);
  EXPECT_EQ(event.stable_name, tree.dev("input/by-id/usb-Logitech_USB_Receiver-event-kbd"));
  EXPECT_THAT(covered(tree, event, Cover::function), ElementsAre("input/event4", "hidraw0"));
}

TEST_F(RecordedHuman, a_mouse_paired_with_a_receiver_is_a_function_of_its_own) {
  const RecordedTree tree{"hid-receiver"};
  EXPECT_THAT(covered(tree, found(tree, "hidraw2"), Cover::function),
              ElementsAre("input/mouse1", "input/event6", "hidraw2"));
  const Device receiver = found(tree, "hidraw1");
  EXPECT_THAT(covered(tree, receiver, Cover::function), ElementsAre("hidraw1"));
  EXPECT_THAT(covered(tree, receiver, Cover::unit),
              ElementsAre("input/mouse1", "input/event4", "input/event6", "usb/hiddev0", "bus/usb/001/004", "hidraw0",
                          "hidraw1", "hidraw2"));
}

TEST_F(RecordedHuman, an_input_device_without_hid_covers_all_its_handlers) {
  const RecordedTree tree{"hid-receiver"};
  EXPECT_THAT(covered(tree, found(tree, "input/event1"), Cover::function), ElementsAre("input/js0", "input/event1"));
}

TEST_F(RecordedHuman, the_node_that_hears_all_mice_is_no_part_of_an_input_device) {
  const RecordedTree tree{"hid-receiver"};
  EXPECT_THAT(covered(tree, found(tree, "input/mice"), Cover::unit), ElementsAre("input/mice"));
  EXPECT_THAT(covered(tree, found(tree, "input/event7"), Cover::unit), ElementsAre("input/event7"));
}

TEST_F(RecordedVideo, a_camera_on_no_bus_is_the_unit_of_all_that_its_driver_makes) {
  const RecordedTree tree{"platform-camera"};
  const Device device = found(tree, "video0");
  EXPECT_EQ(device.unit, tree.sys("/devices/platform/vivid.0"));
  EXPECT_EQ(found(tree, "media0").unit, device.unit);
  EXPECT_THAT(covered(tree, device, Cover::function), ElementsAre("video0", "vbi0", "media0"));
  for (const char* const node : {"video0", "media0", "cec0", "input/event5"})
    EXPECT_THAT(covered(tree, found(tree, node), Cover::unit),
                ElementsAre("input/event5", "video0", "vbi0", "media0", "cec0"))
        << node;
}

TEST_F(RecordedVideo, both_video_nodes_of_a_camera_and_its_media_node_are_one_function) {
  const RecordedTree tree{"uvc-camera"};
  const Device device = found(tree, "video0");
  EXPECT_EQ(device.family, Family::video);
  EXPECT_EQ(device.driver, "uvcvideo");
  EXPECT_THAT(covered(tree, device, Cover::function), ElementsAre("video0", "video1", "media0"));
  EXPECT_EQ(covered(tree, found(tree, "media0"), Cover::function), covered(tree, device, Cover::function));
  EXPECT_THAT(covered(tree, found(tree, "video3"), Cover::function), ElementsAre("video2", "video3", "media1"));
  EXPECT_THAT(covered(tree, device, Cover::unit), ElementsAre("input/event9", "video0", "video1", "video2", "video3",
                                                              "bus/usb/001/011", "media0", "media1"));
}

}  // namespace
}  // namespace holdfast::device
