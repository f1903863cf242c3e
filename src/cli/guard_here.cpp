// SPDX-License-Identifier: MIT
// guard_here.cpp - see the header. What only root may see is said to be unknown to others, and not to be missing.
#include "cli/guard_here.hpp"

#include "base/error.hpp"
#include "claim/inquiry.hpp"
#include "guard/never.hpp"
#include "guard/programs.hpp"

#include <fmt/format.h>
#include <unistd.h>

namespace holdfast::cli {
namespace {

using observe::Finding;
using observe::GuardOutlook;
using observe::Weight;

constexpr std::string_view kTopic = "guard";
constexpr std::string_view kLevels = "claims are advisory, or native where TIOCEXCL or O_EXCL applies";

Finding finding(Weight weight, std::string what, std::string remedy = {}) {
  return {std::string{kTopic}, weight, std::move(what), std::move(remedy)};
}

bool broker_answers() { return claiming::broker_status().has_value(); }

}  // namespace

std::vector<Finding> guard_findings() {
  std::vector<Finding> findings;
  for (guard::Lack& lack : guard::lacks()) {
    std::string what = "no guard: " + lack.what;
    if (findings.empty()) what += fmt::format("; {}", kLevels);
    findings.push_back(finding(Weight::note, std::move(what), std::move(lack.remedy)));
  }
  if (!findings.empty()) return findings;
  if (guard::installed()) {
    findings.push_back(broker_answers()
                           ? finding(Weight::fine, "the guard is on: the kernel enforces claims, against root too")
                           : finding(Weight::note, fmt::format("the guard is on, but no broker feeds it: {}", kLevels),
                                     "systemctl start holdfastd.socket"));
  } else if (::geteuid() != 0) {
    findings.push_back(finding(Weight::fine, "the kernel can guard devices; whether the guard is on, root alone sees"));
  } else {
    findings.push_back(
        finding(Weight::note, fmt::format("the guard is off: {}", kLevels),
                "holdfast guard on; at each boot: systemctl enable --now holdfast-guard.service holdfastd.socket"));
  }
  return findings;
}

GuardOutlook guard_outlook(const std::vector<device::Covered>& nodes) {
  using Kind = GuardOutlook::Kind;
  const auto machine = guard::vital();
  for (const device::Covered& one : nodes)
    if (const auto why = guard::never_guarded(one.node.id, machine))
      return {Kind::would_not, fmt::format("{} never is: {}", one.node.path, *why)};
  if (!guard::installed()) {
    if (const auto lacks = guard::lacks(); !lacks.empty()) return {Kind::would_not, lacks.front().what};
    if (::geteuid() != 0) return {Kind::unknown, "root alone sees whether the guard is on"};
    return {Kind::would_not, "the guard is off: holdfast guard on"};
  }
  if (!broker_answers()) return {Kind::would_not, "no broker answers: start holdfastd"};
  return {Kind::would, {}};
}

}  // namespace holdfast::cli
