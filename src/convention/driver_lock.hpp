// SPDX-License-Identifier: MIT
// driver_lock.hpp - who owns a device whose driver knows an owner, seen without opening it.
#pragma once

#include "base/places.hpp"
#include "device/device.hpp"

#include <holdfast/error.hpp>

#include <optional>

namespace holdfast::convention {

/// The owner, as the driver's attribute in sysfs tells it; nullopt when nobody owns it, or it knows no owners. A caller
/// inside the kernel has no pid; "kernel" is its command.
[[nodiscard]] std::optional<Holder> driver_owner(const device::Node& node, const base::Places& places);

}  // namespace holdfast::convention
