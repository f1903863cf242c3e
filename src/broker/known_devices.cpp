// SPDX-License-Identifier: MIT
// known_devices.cpp - see the header.
#include "broker/known_devices.hpp"

#include "base/error.hpp"

#include <fmt/format.h>

#include <chrono>
#include <utility>

namespace holdfast::broker {

using namespace std::chrono_literals;

namespace {

// The node tells when it is another device; udev's links to it may change without that.
constexpr arbiter::Duration kGoodFor = 1s;
constexpr std::size_t kMost = 4096;

// Other devices' neighbours (partitions, a drive's sg node) change without their node changing.
bool stays_as_it_is(const device::Device& device) {
  return device.family == device::Family::terminal || device.family == device::Family::pseudo_terminal;
}

}  // namespace

Result<std::shared_ptr<const device::Device>> KnownDevices::find(const wire::DeviceName& name) {
  const device::DeviceId id{name.kind == wire::NodeKind::block ? device::Kind::block : device::Kind::character,
                            name.major, name.minor, name.devpts};
  const arbiter::Time now = clock_.now();
  if (const auto known = known_.find(id); known != known_.end()) {
    if (now < known->second.looked_up + kGoodFor && device::still_there(known->second.device->node))
      return known->second.device;
    known_.erase(known);
  }
  auto device =
      device::identify(fmt::format("{}{}:{}", id.kind == device::Kind::block ? 'b' : 'c', id.major, id.minor), places_);
  if (!device) return std::unexpected(std::move(device.error()));
  if (device->node.id != id)
    return std::unexpected(
        base::failure(errc::no_such_device, "the broker sees another instance of devpts", device->node.path));
  device->given = device->node.path;  // in messages a name says more than a number
  auto found = std::make_shared<const device::Device>(std::move(*device));
  if (known_.size() >= kMost) known_.clear();
  if (stays_as_it_is(*found)) known_[id] = {found, now};
  return found;
}

}  // namespace holdfast::broker
