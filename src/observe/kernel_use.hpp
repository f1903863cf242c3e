// SPDX-License-Identifier: MIT
// kernel_use.hpp - block devices that the kernel itself uses: mounts, swap, stacked devices. Private to the room.
#pragma once

#include "base/places.hpp"
#include "device/device.hpp"

#include <string>
#include <vector>

namespace holdfast::observe {

struct KernelUse {
  device::DeviceId id;
  std::string means;  ///< "mounted on /boot", "swap", "used by dm-0"
};

/// Everything that the kernel uses, by device.
[[nodiscard]] std::vector<KernelUse> kernel_uses(const base::Places& places);

}  // namespace holdfast::observe
