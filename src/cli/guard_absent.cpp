// SPDX-License-Identifier: MIT
// guard_absent.cpp - in the place of guard.cpp and guard_here.cpp where the command was built without the guard's room.
#include "cli/command.hpp"
#include "cli/guard_here.hpp"

namespace holdfast::cli {
namespace {

constexpr const char* kAbsent = "this holdfast was built without the guard";
constexpr const char* kRemedy = "build it with clang and the development files of libbpf";

}  // namespace

int guard_command(const CommandLine&) {
  complain(std::string{kAbsent} + ": " + kRemedy);
  return kExitSystem;
}

std::vector<observe::Finding> guard_findings() { return {{"guard", observe::Weight::note, kAbsent, kRemedy}}; }

observe::GuardOutlook guard_outlook(const std::vector<device::Covered>&) {
  return {observe::GuardOutlook::Kind::would_not, kAbsent};
}

}  // namespace holdfast::cli
