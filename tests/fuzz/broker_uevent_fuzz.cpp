// SPDX-License-Identifier: MIT
// broker_uevent_fuzz.cpp - a uevent. Only the kernel's are read, but names of devices in it come from devices.
#include "broker/hotplug.hpp"
#include "fuzz.hpp"
#include "wire/codec.hpp"

using namespace holdfast;
using fuzz::require;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto event = broker::event_of_uevent(fuzz::text_of(data, size), wire::WallTime{});
  if (!event) return 0;
  require(event->kind == wire::EventKind::added || event->kind == wire::EventKind::removed, "it came or went");
  require(event->device.path.starts_with("/dev/") && event->device.path.size() > 5, "it has a name below /dev");
  require((event->device.path + "/").find("/../") == std::string::npos, "the name stays below /dev");
  require(fuzz::is_harmless(event->device.path) && fuzz::is_harmless(event->detail), "it may be shown");
  std::vector<std::byte> packet;
  require(wire::encode(0, wire::FromBroker{*event}, packet).has_value(), "a message can carry it");
  return 0;
}
