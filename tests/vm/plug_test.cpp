// SPDX-License-Identifier: MIT
// plug_test.cpp - devices that are pulled out while they are claimed: the holder is told, waiters end, nothing is left,
// and what is plugged in again is found by its stable name.
#include "vm/support/monitor.hpp"

#include "device/device.hpp"
#include "interop/support/bench.hpp"
#include "process/support/child.hpp"
#include "process/support/devices.hpp"

#include <holdfast/claim.hpp>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <filesystem>

namespace holdfast::vm {
namespace {

using interop::eventually;
using interop::Program;
using interop::run_to_the_end;
using interop::Stdio;
using testing::HasSubstr;
using testing::IsEmpty;
using testing_support::Child;
using testing_support::kPatience;
using testing_support::Peer;

struct Pluggable {
  const char* name;    // of the test
  const char* id;      // QEMU's
  const char* stable;  // the link by which a user names it
  const char* again;   // device_add's arguments
};

void PrintTo(const Pluggable& device, std::ostream* out) {
  *out << device.name;
}  // NOLINT(readability-identifier-naming)

constexpr Pluggable kSerial{
    .name = "usb_serial",
    .id = "adapter1",
    .stable = "/dev/serial/by-id/usb-QEMU_QEMU_USB_SERIAL_LAB-ADAPTER-1-if00-port0",
    .again = R"({"driver": "usb-serial", "id": "adapter1", "bus": "usb.0", "port": "2", "chardev": "adapter1_far",
                 "serial": "LAB-ADAPTER-1", "always-plugged": true})"};
constexpr Pluggable kStick{
    .name = "usb_storage",
    .id = "stick",
    .stable = "/dev/disk/by-id/usb-QEMU_QEMU_HARDDISK_LAB-STICK-0:0",
    .again = R"({"driver": "usb-storage", "id": "stick", "bus": "usb.0", "port": "3", "drive": "stick_image",
                 "serial": "LAB-STICK", "removable": true})"};
constexpr Pluggable kDrive{
    .name = "optical",
    .id = "drive1",
    .stable = "/dev/disk/by-id/scsi-0QEMU_QEMU_CD-ROM_LAB-DRIVE-1",
    .again =
        R"({"driver": "scsi-cd", "id": "drive1", "bus": "scsi.0", "channel": 0, "scsi-id": 1, "lun": 0, "serial": "LAB-DRIVE-1"})"};

// Waits until the link is there and leads to a node, or until it is not.
bool link_comes(const std::string& link) {
  return eventually([&] { return std::filesystem::exists(link); }, {}, {}, kPatience);
}
bool link_goes(const std::string& link) {
  return eventually([&] { return !std::filesystem::exists(link); }, {}, {}, kPatience);
}

class Plug : public testing::TestWithParam<Pluggable> {
 protected:
  void SetUp() override {
    ASSERT_TRUE(link_comes(stable())) << "the test before left it unplugged";
    node_ = std::filesystem::canonical(stable());
  }
  // Whatever the test did, the next finds the device.
  void TearDown() override {
    if (!unplugged_) return;
    monitor_.plug(GetParam().again);
    ASSERT_TRUE(link_comes(stable()));
  }

  static std::string stable() { return GetParam().stable; }
  const std::string& node() const { return node_; }
  void unplug() {
    unplugged_ = true;
    monitor_.unplug(GetParam().id);
  }
  void plug_again() {
    monitor_.plug(GetParam().again);
    unplugged_ = false;
  }

 private:
  Monitor monitor_;
  std::string node_;
  bool unplugged_ = false;
};

TEST_P(Plug, the_library_tells_the_holder) {
  auto mine = claim(stable());
  ASSERT_TRUE(mine) << mine.error().message;
  const auto notice = mine->notice_fd();
  ASSERT_TRUE(notice) << notice.error().message;
  ASSERT_TRUE(mine->check());
  pollfd readable{*notice, POLLIN, 0};
  ASSERT_EQ(::poll(&readable, 1, 0), 0) << "a notice of nothing";
  unplug();
  Result<> there;
  while (there && ::poll(&readable, 1, static_cast<int>(kPatience.count())) == 1) there = mine->check();
  ASSERT_FALSE(there);
  EXPECT_EQ(there.error().code, errc::gone);
  EXPECT_THAT(there.error().message, HasSubstr(node()));
  EXPECT_TRUE(mine->held());
}

TEST_P(Plug, the_command_tells_the_holder_and_ends) {
  Program holder{interop::holdfast({"claim", "-n", stable()}), Stdio::pipes};
  ASSERT_TRUE(eventually([&] { return holder.has_said("claimed"); }, {&holder}, {}, kPatience)) << holder.output();
  unplug();
  ASSERT_TRUE(eventually([&] { return holder.ended().has_value(); }, {&holder}, {}, kPatience));
  holder.listen();
  EXPECT_EQ(*holder.ended(), 66);
  EXPECT_THAT(holder.output(), HasSubstr("holdfast: " + node() + ": is gone: it was unplugged"));
}

TEST_P(Plug, a_waiter_gets_gone_although_the_holder_holds_on) {
  const auto mine = claim(stable());
  ASSERT_TRUE(mine) << mine.error().message;
  Child waiter{[](Peer& test) {
    test.tell("waiting");
    const auto none = claim(stable(), {.wait = Wait::for_ever()});
    test.tell(none ? "claimed" : none.error().code == errc::gone ? "gone" : none.error().message);
    return 0;
  }};
  ASSERT_EQ(waiter.hear(), "waiting");
  ASSERT_TRUE(testing_support::waited_for(node()));
  unplug();
  EXPECT_EQ(waiter.hear(), "gone");
  EXPECT_TRUE(mine->held());
}

TEST_P(Plug, nothing_is_left_of_a_claim_of_a_device_that_went) {
  const auto open_before = std::distance(std::filesystem::directory_iterator{"/proc/self/fd"}, {});
  {
    auto mine = claim(stable());
    ASSERT_TRUE(mine) << mine.error().message;
    unplug();
    ASSERT_TRUE(link_goes(node()));
    mine->release();
    EXPECT_FALSE(mine->held());
  }
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator{"/proc/self/fd"}, {}), open_before);
  EXPECT_THAT(testing_support::lock_files_of(node()), IsEmpty());
  const auto status = run_to_the_end(interop::holdfast({"status"}));
  EXPECT_THAT(status.output, testing::Not(HasSubstr(node()))) << status.output;
}

TEST_P(Plug, it_is_claimed_by_its_stable_name_under_another_number) {
  const auto before = device::identify(stable());
  ASSERT_TRUE(before) << before.error().message;
  EXPECT_EQ(before->stable_name, stable());
  auto old = claim(stable());
  ASSERT_TRUE(old) << old.error().message;
  unplug();
  ASSERT_TRUE(link_goes(stable()));
  plug_again();
  // udev makes the link a moment before it writes down that it did.
  Result<device::Device> after;
  ASSERT_TRUE(eventually(
      [&] {
        after = device::identify(stable());
        return after && after->stable_name == stable();
      },
      {}, {}, kPatience));
  EXPECT_NE(after->node.id, before->node.id) << "the holder keeps the old number";
  const auto anew = claim(stable());
  EXPECT_TRUE(anew) << anew.error().message;
  EXPECT_EQ(old->check().error().code, errc::gone);
}

using PlugOfPort = Plug;
TEST_P(PlugOfPort, a_command_under_run_is_told_why_it_failed) {
  Program one{interop::run_with(stable(), {"sh", "-c", "echo begun; cat " + node()}), Stdio::pipes};
  ASSERT_TRUE(eventually([&] { return one.has_said("begun") && !interop::openers(node(), "cat").empty(); }, {&one}, {},
                         kPatience))
      << one.output();
  unplug();
  ASSERT_TRUE(eventually([&] { return one.ended().has_value(); }, {&one}, {}, kPatience));
  one.listen();
  EXPECT_THAT(one.output(), HasSubstr("holdfast: " + node() + ": is gone: it was unplugged"));
}

INSTANTIATE_TEST_SUITE_P(, PlugOfPort, testing::Values(kSerial), [](const auto& device) { return device.param.name; });
INSTANTIATE_TEST_SUITE_P(, Plug, testing::Values(kSerial, kStick, kDrive),
                         [](const auto& device) { return device.param.name; });

}  // namespace
}  // namespace holdfast::vm
