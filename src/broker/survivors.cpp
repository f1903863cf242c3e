// SPDX-License-Identifier: MIT
// survivors.cpp - see the header.
#include "broker/survivors.hpp"

#include "claim/holding.hpp"
#include "claim/parcel.hpp"
#include "convention/proxy.hpp"
#include "convention/uucp.hpp"

#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <string>
#include <vector>

namespace holdfast::broker {

std::optional<Process> living_owner(const ClaimRecord& claim) {
  base::UniqueFd pidfd{static_cast<int>(::syscall(SYS_pidfd_open, claim.owner.pid, 0))};
  if (!pidfd) return std::nullopt;
  auto process = process_of_pidfd(pidfd);
  if (!process || process->peer.process != claim.owner) return std::nullopt;
  return std::move(*process);
}

Left what_is_left(const JournalClaim& entry, const base::Places& places) {
  Left left = Left::held;
  for (const ClaimRecord::Device& device : entry.claim.devices) {
    if (!device.named) continue;
    const auto records = convention::read_proxy(convention::proxy_path(device.id, places));
    if (!records) continue;
    const auto holders = std::ranges::count(*records, false, &convention::ProxyRecord::waiting);
    // With all places taken it may be there without one.
    if (holders >= convention::kHolderSlots) continue;
    const auto is_owners = [&](const convention::ProxyRecord& record) {
      return !record.waiting && record.who.pid == entry.claim.owner.pid &&
             record.who.start_ticks == entry.claim.owner.start_ticks;
    };
    if (std::ranges::any_of(*records,
                            [&](const auto& record) { return is_owners(record) && record.who.since <= entry.written; }))
      continue;
    if (std::ranges::any_of(*records, is_owners)) return Left::taken_anew;
    left = Left::given_back;
  }
  return left;
}

Cover cover_of(const std::vector<std::shared_ptr<const device::Device>>& devices, const ClaimRecord& claim) {
  for (const auto& device : devices) {
    const auto covered = device::covered_nodes(*device, Cover::unit);
    const auto function = device::covered_nodes(*device, Cover::function);
    const auto is_claimed = [&](const device::DeviceId& id) {
      return std::ranges::find(claim.devices, id, &ClaimRecord::Device::id) != claim.devices.end();
    };
    for (const device::Covered& one : covered)
      if (std::ranges::none_of(function, [&](const auto& other) { return other.node.id == one.node.id; }) &&
          is_claimed(one.node.id))
        return Cover::unit;
  }
  return Cover::function;
}

namespace {

// Those that can have lock files.
std::vector<device::Device> terminals_of(const ClaimRecord& claim, const base::Places& places) {
  std::vector<device::Device> devices;
  if (claim.lock_files.empty()) return devices;
  for (const ClaimRecord::Device& one : claim.devices) {
    if (!one.named) continue;  // covered by those that are
    auto device = device::identify(one.path, places);
    if (device && device->node.id == one.id &&
        (device->family == device::Family::terminal || device->family == device::Family::pseudo_terminal))
      devices.push_back(std::move(*device));
  }
  return devices;
}

}  // namespace

claiming::Holding lock_files_of(const ClaimRecord& claim, const base::Places& places) {
  std::vector<device::Device> devices = terminals_of(claim, places);
  Options options;
  options.mode = claim.mode;
  options.cover = Cover::function;
  std::map<device::DeviceId, wire::ClaimedNode> nodes;
  for (const device::Device& device : devices)
    for (const device::Covered& covered : device::covered_nodes(device, options.cover))
      nodes[covered.node.id] = {claiming::name_of(covered.node), wire::NodeOpen::closed};
  wire::Marks marks;
  for (auto& [id, node] : nodes) {
    const auto device = std::ranges::find(devices, id, [](const device::Device& one) { return one.node.id; });
    if (device != devices.end()) {
      wire::ClaimedMark mark;
      mark.node = static_cast<std::uint16_t>(marks.nodes.size());
      mark.convention = Convention::uucp;
      const convention::UucpNames names = convention::uucp_names(*device, device->node);
      for (const std::string& name : names.create)
        if (const std::string path = places.lock_dir + "/" + name;
            std::ranges::find(claim.lock_files, path) != claim.lock_files.end())
          mark.files.push_back(path);
      marks.marks.push_back(std::move(mark));
    }
    marks.nodes.push_back(std::move(node));
  }
  auto holding =
      claiming::unpack(std::move(devices), marks, {}, {options, claim.owner, convention::Locks::as_said, places});
  return holding ? std::move(*holding) : claiming::Holding{};
}

namespace {

// Made for the claim, and not by whoever has its owner's number by now: that one was born later. A file that was passed
// on is written a moment after the journal; it is the claim's as long as no living process can have made it.
bool was_made_for(const JournalClaim& entry, const std::string& path) {
  const auto file = convention::read_uucp(path);
  struct stat status{};
  if (!file || file->content.kind != convention::UucpContent::Kind::pid || file->content.pid != entry.claim.owner.pid ||
      ::lstat(path.c_str(), &status) != 0)
    return false;
  const wire::WallTime made{std::chrono::seconds{status.st_mtim.tv_sec} +
                            std::chrono::nanoseconds{status.st_mtim.tv_nsec}};
  return made <= entry.written || file->stale;
}

}  // namespace

void clean_up(const JournalClaim& entry, const base::Places& places) {
  const std::vector<device::Device> devices = terminals_of(entry.claim, places);
  if (devices.empty()) return;
  // Nobody else takes them over meanwhile; to programs that know nothing of us the number is a living process's.
  Options options;
  options.opening = Opening::never;
  options.conventions = {Convention::proxy};
  const auto holding = claiming::attempt(devices, options, base::self(), places);
  if (!holding) return;
  for (const std::string& path : entry.claim.lock_files)
    if (was_made_for(entry, path)) ::unlink(path.c_str());
}

}  // namespace holdfast::broker
