// SPDX-License-Identifier: MIT
// known_devices.hpp - devices by number, looked up once. A terminal is claimed and released thousands of times by those
// who share it, and asking sysfs for its neighbours each time would cost as much as its locks.
#pragma once

#include "base/places.hpp"
#include "broker/interfaces.hpp"

#include <map>

namespace holdfast::broker {

class KnownDevices final : public Devices {
 public:
  KnownDevices(const Clock& clock, base::Places places) : clock_{clock}, places_{std::move(places)} {}
  Result<std::shared_ptr<const device::Device>> find(const wire::DeviceName& name) override;
  /// Devices came or went.
  void forget() { known_.clear(); }

 private:
  struct Known {
    std::shared_ptr<const device::Device> device;
    arbiter::Time looked_up;
  };
  const Clock& clock_;
  base::Places places_;
  std::map<device::DeviceId, Known> known_;
};

}  // namespace holdfast::broker
