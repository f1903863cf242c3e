// SPDX-License-Identifier: MIT
// guard_here.hpp - what doctor and explain say of the guard on this machine.
#pragma once

#include "observe/doctor.hpp"
#include "observe/explain.hpp"

#include <vector>

namespace holdfast::cli {

/// What keeps claims from being guarded here, each with its remedy.
[[nodiscard]] std::vector<observe::Finding> guard_findings();

/// Whether a claim of these nodes would be guarded.
[[nodiscard]] observe::GuardOutlook guard_outlook(const std::vector<device::Covered>& nodes);

}  // namespace holdfast::cli
