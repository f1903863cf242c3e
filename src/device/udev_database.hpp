// SPDX-License-Identifier: MIT
// udev_database.hpp - the names that udev gave a node, and what it learnt of the device.
#pragma once

#include "base/places.hpp"
#include "device/sysfs.hpp"

#include <string>
#include <vector>

namespace holdfast::device {

struct UdevRecord {
  std::vector<std::string> links;  // absolute, sorted; each was seen to lead to the node
  std::string vendor;              // for people: blanks, not underscores
  std::string model;
  std::string serial;
};

/// Reads udev's record of the node; where udev does not run, looks through the link directories of the node's family.
[[nodiscard]] UdevRecord udev_record(Reader& reader, const Node& node, Family family, const base::Places& places);

/// The link that names the device itself (by-id), else its place (by-path), else nothing.
[[nodiscard]] std::string stable_name(const std::vector<std::string>& links);

}  // namespace holdfast::device
