// SPDX-License-Identifier: MIT
// plug_test.cpp - a device that is pulled out while it is claimed.
#include "vm/support/monitor.hpp"

#include "device/device.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace holdfast::vm {
namespace {

TEST(Plug, a_serial_adapter_that_is_pulled_out_has_no_node_any_more) {
  const std::string name = "/dev/serial/by-id/usb-QEMU_QEMU_USB_SERIAL_LAB-ADAPTER-0-if00-port0";
  const auto before = device::identify(name);
  ASSERT_TRUE(before) << before.error().message;
  EXPECT_EQ(before->driver, "ftdi_sio");
  Monitor monitor;
  monitor.unplug("adapter0");
  const auto after = device::identify(before->node.path);
  ASSERT_FALSE(after);
  EXPECT_EQ(after.error().code, errc::no_such_device);
}

}  // namespace
}  // namespace holdfast::vm
