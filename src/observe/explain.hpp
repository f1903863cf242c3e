// SPDX-License-Identifier: MIT
// explain.hpp - who a device is and what a claim of it would do, step by step. Takes nothing, opens no device.
#pragma once

#include "observe/observe.hpp"
#include "observe/render.hpp"

#include <holdfast/options.hpp>

#include <string>
#include <string_view>
#include <vector>

namespace holdfast::observe {

/// One convention on one node of a claim.
struct Step {
  enum class State : std::uint8_t {
    would_take,
    not_available,   ///< applies, and the claim would go on without it (or fail, for the device itself)
    not_applicable,  ///< nothing to do on this node
  };
  Convention convention = Convention::proxy;
  std::string node;
  State state = State::would_take;
  std::string reason;              ///< why not, for the last two
  std::vector<std::string> files;  ///< lock files that it would lock or make; for whole_disk the disk's node
};
[[nodiscard]] std::string_view to_string(Step::State state);

/// Whether the guard would enforce a claim. Who may ask the guard says so: this room does not use it.
struct GuardOutlook {
  enum class Kind : std::uint8_t { not_asked, would, would_not, unknown };
  Kind kind = Kind::not_asked;
  std::string reason;  ///< why not, or why nobody knows
};

struct Explanation {
  device::Device device;
  Cover cover = Cover::function;
  std::vector<device::Covered> covered;  ///< what a claim takes, the device itself included
  std::vector<device::Sibling> left;     ///< siblings that it leaves alone
  std::vector<device::Sibling> wider;    ///< of those, what Cover::unit would take as well
  std::vector<Step> steps;               ///< in the order of taking: convention by convention, over all nodes
  GuardOutlook guard;
  Survey now;  ///< of the device and its siblings
};

/// \returns what device::identify() says of the argument
[[nodiscard]] Result<Explanation> explain(const std::string& device, Cover cover, const base::Places& places = {});

/// For people. \param now, zone  as in to_table(Survey)
[[nodiscard]] std::string to_text(const Explanation& explanation, std::chrono::system_clock::time_point now,
                                  Zone zone = Zone::local);

/// One JSON object. The keys are stable:
///   {"device", "given", "number", "family", "subsystem", "driver", "unit", "label", "stable_name", "links": [],
///    "owner", "group", "mode": "0660",
///    "siblings": [{"device", "number", "family", "relation", "covered": bool, "covered_by_unit": bool}],
///    "steps": [{"convention", "means", "device", "state": "would_take" | "not_available" | "not_applicable", "reason"
///    | null,
///               "files": [], "takes", "limit", "native": bool}],
///    "enforcement": "advisory" | "native" | "guarded", "not_guarded": "the guard is off..." | null,
///    "now": as to_json(Survey)}
/// Several explanations are joined to one array by the caller.
[[nodiscard]] std::string to_json(const Explanation& explanation);

}  // namespace holdfast::observe
