// SPDX-License-Identifier: MIT
// lab.hpp - what a test in the lab asks the machine: where the kernel put a device, and for a process that holds one.
#pragma once

#include "process/support/child.hpp"

#include <holdfast/claim.hpp>

#include <string>
#include <string_view>

namespace holdfast::vm {

/// The node of a device of the lab. A path of /dev is that; anything else is a pattern (fnmatch(3), '*' crosses
/// slashes) of the device's directory in sysfs, as seen from its number: "*/usb1/1-4/*/hidraw*". Fails the test, and is
/// empty, when it is not exactly one. On purpose not by device::identify, which is what is tested.
[[nodiscard]] std::string node_of(const std::string& device);

/// A process that holds `device` until it is told anything: it says "claimed", or why not, and after the release
/// "released".
[[nodiscard]] testing_support::Child holder_of(const std::string& device, const Options& options = {});

/// "taken" (and given back), or the refusal.
[[nodiscard]] std::string try_claim(const std::string& device, const Options& options = {});

/// "held by PID" when the claim is refused and names a holder, else what came instead.
[[nodiscard]] std::string who_holds(const std::string& device, const Options& options = {});

/// Waits until udevd has nothing to do.
void settle();

}  // namespace holdfast::vm
