// SPDX-License-Identifier: MIT
// never.hpp - what is never guarded: a guard in the wrong hands or with a fault in it must not shut a machine out of
// its console, its root disk, or the devices that every program opens.
#pragma once

#include "device/device.hpp"

#include <optional>
#include <string>
#include <vector>

namespace holdfast::guard {

/// What this machine lives on.
struct Vital {
  std::vector<device::DeviceId> consoles;  ///< that the kernel writes to (/sys/class/tty/console/active)
  std::vector<device::DeviceId> disks;     ///< that hold mounted file systems or swap, with what they lie on
};
[[nodiscard]] Vital vital(const base::Places& places = {});

/// Why the device must not be guarded; nullopt when it may. Pure.
[[nodiscard]] std::optional<std::string> never_guarded(const device::DeviceId& id, const Vital& vital);

}  // namespace holdfast::guard
