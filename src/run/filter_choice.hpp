// SPDX-License-Identifier: MIT
// filter_choice.hpp - whether the command must be asked about paths, told from the device number alone.
#pragma once

#include "device/device.hpp"

namespace holdfast::run {

/// Terminals have lock files; SCSI devices have sg nodes, whose O_EXCL shuts out every open(2). Pure.
[[nodiscard]] bool needs_paths(const device::DeviceId& id);

}  // namespace holdfast::run
