// SPDX-License-Identifier: MIT
// filter_choice.cpp - asking about paths costs the command some microseconds for each, so it is done where it is
// needed. Numbers: the kernel's Documentation/admin-guide/devices.txt.
#include "run/filter_choice.hpp"

namespace holdfast::run {

bool needs_paths(const device::DeviceId& id) {
  const auto within = [&](unsigned first, unsigned last) { return id.major >= first && id.major <= last; };
  if (id.kind == device::Kind::block) {
    const bool scsi = id.major == 8 || id.major == 11 || within(65, 71) || within(128, 135);
    return scsi;
  }
  // Terminal drivers' majors are too many to list, and some are dynamic: everything else that may be claimed is listed.
  const bool input = id.major == 13;
  const bool video = id.major == 81;
  const bool usb = id.major == 189;
  return !input && !video && !usb;
}

}  // namespace holdfast::run
