// SPDX-License-Identifier: MIT
// queue.cpp - see the header.
#include "observe/queue.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace holdfast::observe {
namespace {

device::DeviceId id_of(const wire::DeviceName& name) {
  return {name.kind == wire::NodeKind::block ? device::Kind::block : device::Kind::character, name.major, name.minor,
          name.devpts};
}

void add_holder(DeviceUse& device, const wire::DeviceStatus& status, const Holder& holder) {
  auto use = std::ranges::find_if(device.uses, [&holder](const Use& each) {
    return each.ours && each.standing == Standing::holds && each.who.pid == holder.pid;
  });
  if (use == device.uses.end()) {
    Use added;
    added.who = holder;
    added.mode = status.mode;
    added.ours = true;
    if (added.who.means.empty()) added.who.means = {"holdfast"};
    use = device.uses.insert(device.uses.begin(), std::move(added));
  }
  use->lapses_in = status.lapses_in;
  use->level = status.enforcement;
}

void add_waiters(DeviceUse& device, const wire::DeviceStatus& status) {
  // Behind the holders, before those who only have it open.
  auto behind = std::ranges::find_if(device.uses, [](const Use& each) { return each.standing > Standing::waits; });
  std::uint32_t place = 0;
  for (const wire::Waiter& waiter : status.waiters) {
    Use added;
    added.who = waiter.who;
    added.standing = Standing::waits;
    added.mode = waiter.mode;
    added.ours = true;
    added.place = ++place;
    if (added.who.means.empty()) added.who.means = {"holdfast"};
    behind = std::next(device.uses.insert(behind, std::move(added)));
  }
}

}  // namespace

void add_queues(Survey& survey, std::span<const wire::DeviceStatus> statuses, Devices devices) {
  for (const wire::DeviceStatus& status : statuses) {
    if (status.holders.empty() && status.waiters.empty()) continue;
    const device::DeviceId id = id_of(status.device);
    auto device = std::ranges::find_if(survey.devices, [&id](const DeviceUse& each) { return each.node.id == id; });
    if (device == survey.devices.end()) {
      if (devices == Devices::those_there) continue;
      DeviceUse added;
      added.node.id = id;
      added.node.path = status.device.path;
      const auto before = [&id](const DeviceUse& each) { return each.node.id > id; };
      device = survey.devices.insert(std::ranges::find_if(survey.devices, before), std::move(added));
    }
    device->denials = status.denials;
    for (const Holder& holder : status.holders) add_holder(*device, status, holder);
    add_waiters(*device, status);
    if (status.waiting > status.waiters.size()) {
      survey.blind.push_back(fmt::format("{} more that wait for {}: the broker names the first",
                                         status.waiting - status.waiters.size(), status.device.path));
    }
  }
}

}  // namespace holdfast::observe
