// SPDX-License-Identifier: MIT
// never.cpp - see the header.
#include "guard/never.hpp"

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

namespace holdfast::guard {
namespace {

using device::DeviceId;
using device::Kind;

std::optional<DeviceId> number_in(const std::string& path, Kind kind) {
  std::ifstream file{path};
  std::string text;
  std::getline(file, text);
  return device::parse_number((kind == Kind::block ? "b" : "c") + text);
}

std::vector<DeviceId> consoles(const base::Places& places) {
  std::vector<DeviceId> found;
  std::ifstream file{places.sys + "/class/tty/console/active"};
  for (std::string name; file >> name;)
    if (const auto id = number_in(places.sys + "/class/tty/" + name + "/dev", Kind::character)) found.push_back(*id);
  return found;
}

// A disk under a disk: partition -> whole disk, dm and md -> their members.
void add_with_those_below(const DeviceId& id, const base::Places& places, std::set<DeviceId>& found) {
  if (!found.insert(id).second) return;
  const std::string folder = places.sys + "/dev/block/" + std::to_string(id.major) + ":" + std::to_string(id.minor);
  std::error_code error;
  if (std::filesystem::exists(folder + "/partition", error))
    if (const auto whole = number_in(folder + "/../dev", Kind::block)) add_with_those_below(*whole, places, found);
  for (const auto& below : std::filesystem::directory_iterator{folder + "/slaves", error})
    if (const auto member = number_in(below.path().string() + "/dev", Kind::block))
      add_with_those_below(*member, places, found);
}

std::vector<DeviceId> disks(const base::Places& places) {
  std::set<DeviceId> found;
  // proc_pid_mountinfo(5): the third field is the device's number.
  std::ifstream mounts{places.proc + "/self/mountinfo"};
  for (std::string line; std::getline(mounts, line);) {
    std::istringstream fields{line};
    std::string number;
    fields >> number >> number >> number;
    const auto id = device::parse_number("b" + number);
    if (id && id->major != 0) add_with_those_below(*id, places, found);
  }
  std::ifstream swaps{places.proc + "/swaps"};
  std::string line;
  std::getline(swaps, line);
  while (std::getline(swaps, line)) {
    const auto node = device::look_at(line.substr(0, line.find_first_of(" \t")), places);
    if (node && node->id.kind == Kind::block) add_with_those_below(node->id, places, found);
  }
  return {found.begin(), found.end()};
}

}  // namespace

Vital vital(const base::Places& places) { return {consoles(places), disks(places)}; }

std::optional<std::string> never_guarded(const DeviceId& id, const Vital& vital) {
  if (id.kind == Kind::character) {
    // Documentation/admin-guide/devices.txt
    if (id.major == 1) return "it is a memory device, which every program needs";
    if (id.major == 4 && id.minor < 64) return "it is a virtual console";
    if (id.major == 5 && id.minor <= 2) return "it stands for other terminals";
    if (id.major == 10 && id.minor == 130) return "it is the watchdog, which must be fed";
    if (std::ranges::find(vital.consoles, id) != vital.consoles.end()) return "it is the machine's console";
    return std::nullopt;
  }
  if (std::ranges::find(vital.disks, id) != vital.disks.end()) return "a mounted file system or swap space lies on it";
  return std::nullopt;
}

}  // namespace holdfast::guard
