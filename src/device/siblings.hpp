// SPDX-License-Identifier: MIT
// siblings.hpp - which other nodes reach the same device.
#pragma once

#include "base/places.hpp"
#include "device/sysfs.hpp"

#include <string>
#include <string_view>
#include <vector>

namespace holdfast::device {

/// The sysfs directory of the physical unit that the device at `dir` belongs to.
[[nodiscard]] std::string unit_of(Reader& reader, const std::string& dir, Family family);

/// The siblings of the device at `dir` of the unit `unit`, sorted by number. A node that /dev does not have is left
/// out: nobody here can open it.
[[nodiscard]] std::vector<Sibling> siblings_of(Reader& reader, const std::string& dir, const std::string& unit,
                                               Family family, const base::Places& places);

}  // namespace holdfast::device
