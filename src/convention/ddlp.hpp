// SPDX-License-Identifier: MIT
// ddlp.hpp - the pure parts of DDLP: file names and the check of an opened drive's SCSI address.
#pragma once

#include "device/device.hpp"

#include <string>
#include <vector>

namespace holdfast::convention {

/// Suffixes of /tmp/ddlpb-lock-*: each permissible path ("_-dev_-sr0") and the number in capital hex ("0B00").
[[nodiscard]] std::vector<std::string> ddlp_suffixes(const device::Node& node);

/// Whether an open sr or sg node answers with the SCSI address that sysfs gave: ambiguous when not.
[[nodiscard]] Result<> verify_scsi_address(int fd, const device::Device& device);

}  // namespace holdfast::convention
