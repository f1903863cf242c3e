// SPDX-License-Identifier: MIT
// doctor.hpp - what on this machine keeps a claim from being all it can be, each with its remedy. Changes nothing.
#pragma once

#include "base/places.hpp"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace holdfast::observe {

enum class Weight : std::uint8_t {
  fine,
  note,     ///< worth knowing; a claim works all the same
  problem,  ///< keeps a claim, or a convention of it, from working
};
[[nodiscard]] std::string_view to_string(Weight weight);

struct Finding {
  std::string topic;  ///< a stable word: "lock_directory", "groups", "seccomp"...
  Weight weight = Weight::fine;
  std::string what;
  std::string remedy;  ///< empty when there is nothing to do
};

/// Looks at lock directories, stale lock files, sysctls, groups, limits, kernel features and programs that grab ports,
/// as the calling process finds them: run it as the user who will claim.
[[nodiscard]] std::vector<Finding> examine(const base::Places& places = {});

/// Whether no finding is a problem.
[[nodiscard]] bool is_healthy(const std::vector<Finding>& findings);

/// A line per finding, its remedy below it.
[[nodiscard]] std::string to_text(const std::vector<Finding>& findings);

/// {"healthy": bool, "findings": [{"topic", "weight": "fine" | "note" | "problem", "finding", "remedy" | null}]}
[[nodiscard]] std::string to_json(const std::vector<Finding>& findings);

}  // namespace holdfast::observe
