// SPDX-License-Identifier: MIT
// broker_hotplug_test.cpp - the kernel's uevents are heard, and nobody else's.
#include "broker/hotplug.hpp"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/netlink.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>

namespace holdfast::broker {
namespace {

using namespace std::string_view_literals;

constexpr auto kTerminal =
    "add@/devices/platform/serial8250/tty/ttyS1\0ACTION=add\0DEVPATH=/devices/platform/serial8250/tty/ttyS1\0"
    "SUBSYSTEM=tty\0MAJOR=4\0MINOR=65\0DEVNAME=ttyS1\0SEQNUM=1234\0"sv;

TEST(HotplugTest, a_uevent_names_the_device_that_came_or_went) {
  const auto terminal = event_of_uevent(kTerminal, wire::WallTime{std::chrono::seconds{3}});
  ASSERT_TRUE(terminal);
  EXPECT_EQ(terminal->kind, wire::EventKind::added);
  EXPECT_EQ(terminal->at, wire::WallTime{std::chrono::seconds{3}});
  EXPECT_EQ(terminal->device.path, "/dev/ttyS1");
  EXPECT_EQ(terminal->device.kind, wire::NodeKind::character);
  EXPECT_EQ(terminal->device.major, 4U);
  EXPECT_EQ(terminal->device.minor, 65U);
  EXPECT_EQ(terminal->detail, "/devices/platform/serial8250/tty/ttyS1");

  const auto disk =
      event_of_uevent("remove@/x\0SUBSYSTEM=block\0MINOR=7\0MAJOR=7\0DEVNAME=loop7\0ACTION=remove\0"sv, {});
  ASSERT_TRUE(disk);
  EXPECT_EQ(disk->kind, wire::EventKind::removed);
  EXPECT_EQ(disk->device.kind, wire::NodeKind::block);
}

TEST(HotplugTest, uevents_without_a_node_of_a_number_and_a_name_below_dev_say_nothing) {
  for (const auto uevent :
       {""sv, "add@/x\0ACTION=add\0"sv, "add@/x\0ACTION=change\0MAJOR=1\0MINOR=3\0DEVNAME=null\0"sv,
        "add@/x\0ACTION=add\0MAJOR=1\0MINOR=3\0DEVNAME=null"sv, "add@/x\0ACTION=add\0MAJOR=1\0MINOR=3\0DEVNAME=\0"sv,
        "add@/x\0ACTION=add\0MAJOR=1\0MINOR=3\0DEVNAME=../x\0"sv,
        "add@/x\0ACTION=add\0MAJOR=1\0MINOR=3\0DEVNAME=/x\0"sv,
        "add@/x\0ACTION=add\0MAJOR=1\0MINOR=3\0DEVNAME=a/../b\0"sv,
        "add@/x\0ACTION=add\0MAJOR=4096\0MINOR=3\0DEVNAME=x\0"sv,
        "add@/x\0ACTION=add\0MAJOR=1\0MINOR=-3\0DEVNAME=x\0"sv, "add@/x\0ACTION=add\0MAJOR=1\0MINOR=\0DEVNAME=x\0"sv,
        "libudev\0ACTION=add\0MAJOR=1\0MINOR=3\0DEVNAME=x\0"sv}) {
    EXPECT_FALSE(event_of_uevent(uevent, {})) << std::string{uevent};
  }
}

// The kernel announces a device again when it is asked to (Documentation/ABI/testing/sysfs-uevent).
TEST(HotplugTest, the_kernels_word_is_heard_and_that_of_a_process_is_not) {
  const int uevent = ::open("/sys/class/mem/zero/uevent", O_WRONLY | O_CLOEXEC);
  if (uevent < 0) GTEST_SKIP() << "needs a writable sysfs";
  auto hotplug = Hotplug::open();
  ASSERT_TRUE(hotplug) << hotplug.error().message;

  const int forger = ::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT);
  ASSERT_GE(forger, 0);
  sockaddr_nl group{};
  group.nl_family = AF_NETLINK;
  group.nl_groups = 1;
  const auto sent =
      ::sendto(forger, kTerminal.data(), kTerminal.size(), 0, reinterpret_cast<const sockaddr*>(&group), sizeof group);
  ::close(forger);
  ASSERT_EQ(sent, static_cast<ssize_t>(kTerminal.size())) << "the forger needs CAP_NET_ADMIN";
  ASSERT_EQ(::write(uevent, "add", 3), 3);
  ::close(uevent);

  // Other tests' devices come and go meanwhile.
  bool heard = false;
  while (!heard) {
    pollfd waits{hotplug->fd(), POLLIN, 0};
    ASSERT_EQ(::poll(&waits, 1, 10'000), 1) << "the kernel said nothing";
    for (const wire::Event& event : hotplug->take()) {
      EXPECT_NE(event.device.path, "/dev/ttyS1");
      heard = heard || (event.device.path == "/dev/zero" && event.kind == wire::EventKind::added);
    }
  }
}

TEST(HotplugTest, what_the_kernel_dropped_is_said) {
  const int uevent = ::open("/sys/class/mem/zero/uevent", O_WRONLY | O_CLOEXEC);
  if (uevent < 0) GTEST_SKIP() << "needs a writable sysfs";
  auto hotplug = Hotplug::open();
  ASSERT_TRUE(hotplug) << hotplug.error().message;
  constexpr int kSmallest = 1;
  ASSERT_EQ(::setsockopt(hotplug->fd(), SOL_SOCKET, SO_RCVBUF, &kSmallest, sizeof kSmallest), 0);
  for (int i = 0; i < 50; ++i) ASSERT_EQ(::write(uevent, "add", 3), 3);
  ::close(uevent);
  const auto events = hotplug->take();
  const auto dropped = [](const wire::Event& event) { return event.kind == wire::EventKind::missed; };
  EXPECT_EQ(std::count_if(events.begin(), events.end(), dropped), 1);
}

}  // namespace
}  // namespace holdfast::broker
