// SPDX-License-Identifier: MIT
// take.cpp - all marks of all devices, or none; and waiting for what somebody else has.
//
// Taking goes convention by convention over all nodes in one global order, never waits while it holds something, and
// gives everything back on the first refusal. A waiter therefore holds nothing: it sleeps on the kernel's close and
// modify events of what stood in its way and tries again.
#include "claim/holding.hpp"
#include "claim/waiter.hpp"

#include "base/error.hpp"
#include "convention/ddlp.hpp"

#include <fcntl.h>
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace holdfast::claiming {

using convention::Entry;
using convention::Obstacle;
using convention::Phase;
using convention::Terms;
using device::Device;
using device::Family;

class Taking {
 public:
  Taking(const Options& options, Terms terms) : options_{options}, terms_{std::move(terms)} {}

  Result<> identify(std::span<const std::string> arguments) {
    for (const std::string& argument : arguments) {
      auto device = device::identify(argument, terms_.places);
      if (!device) return std::unexpected(std::move(device.error()));
      const bool known =
          std::ranges::any_of(devices_, [&](const Device& one) { return one.node.id == device->node.id; });
      if (known) continue;
      if (auto allowed = check_permission(*device); !allowed) return allowed;
      devices_.push_back(std::move(*device));
    }
    return {};
  }

  void use(std::span<const Device> devices) {
    for (const Device& device : devices)
      if (std::ranges::none_of(devices_, [&](const Device& one) { return one.node.id == device.node.id; }))
        devices_.push_back(device);
  }

  // One attempt. On refusal nothing is held.
  std::expected<Holding, Obstacle> attempt() {
    Holding holding;
    holding.mode_ = options_.mode;
    holding.devices_ = devices_;
    holding.lay_out(options_.cover);
    if (auto obstacle = take_all(holding)) {
      const convention::WithRights rights{terms_.rights};
      holding.give_back();
      return std::unexpected(std::move(*obstacle));
    }
    return holding;
  }

  static void close_later(Holding& holding, base::UniqueFd events) { holding.waited_with_ = std::move(events); }

  // Whether the devices are still those that were identified: between attempts a cable may have been pulled.
  Result<> still_there() const {
    for (const Device& device : devices_)
      if (auto there = device::still_there(device.node); !there) return there;
    return {};
  }

  [[nodiscard]] const Terms& terms() const { return terms_; }
  [[nodiscard]] const std::vector<Device>& devices() const { return devices_; }

 private:
  std::optional<Obstacle> take_all(Holding& holding) {
    for (const Entry& entry : convention::table())
      if (entry.phase == Phase::before_open)
        if (auto obstacle = take_everywhere(entry, holding)) return obstacle;
    if (options_.opening != Opening::allowed) return std::nullopt;
    if (auto obstacle = knock_at_drives(holding)) return obstacle;
    for (HeldNode& node : holding.nodes_)
      if (auto obstacle = open(node, holding)) return obstacle;
    for (const Entry& entry : convention::table())
      if (entry.phase == Phase::opened)
        if (auto obstacle = take_everywhere(entry, holding)) return obstacle;
    return std::nullopt;
  }

  // Before anything is locked: who may not open the device may not keep others from it either.
  static Result<> check_permission(const Device& device) {
    const char* path = device.node.path.c_str();
    // EBUSY is the guard's word on a disk, asked when the file's mode has said yes (fs/namei.c, inode_permission()).
    const auto may = [&](int mode) { return ::faccessat(AT_FDCWD, path, mode, AT_EACCESS) == 0 || errno == EBUSY; };
    if (may(R_OK) || may(W_OK)) return {};
    if (errno != EACCES && errno != EROFS) return std::unexpected(base::fault(errno, "access", device.given));
    return std::unexpected(
        base::fault(errc::not_permitted, EACCES,
                    fmt::format("open (owner {}, group {}, mode {:04o}; join its group or become root)",
                                base::user_name(device.node.uid), device.node.gid, device.node.mode & 07777U),
                    device.given));
  }

  // An optical drive that another program has with O_EXCL alone must not hear of us: a command sent to it may spoil
  // what it burns. Opening sg sends none, and O_EXCL on sr is refused before the driver is asked (block/bdev.c,
  // bd_prepare_to_claim()), but a plain open of sr asks the drive for its medium (drivers/scsi/sr.c, sr_block_open()).
  std::optional<Obstacle> knock_at_drives(Holding& holding) {
    for (HeldNode& node : holding.nodes_)
      if (node.subject.family == Family::scsi_generic)
        if (auto obstacle = open(node, holding)) return obstacle;
    const Entry& o_excl = convention::entry(Convention::o_excl);
    for (HeldNode& node : holding.nodes_)
      if (node.subject.family == Family::optical)
        if (auto obstacle = take_one(o_excl, node, holding)) return obstacle;
    return std::nullopt;
  }

  // nullopt: taken, not applicable or not available. Otherwise why the claim fails.
  std::optional<Obstacle> take_everywhere(const Entry& entry, Holding& holding) {
    for (HeldNode& node : holding.nodes_) {
      const bool taken_before = entry.id == Convention::o_excl && node.subject.family == Family::optical;
      if (taken_before) continue;
      if (auto obstacle = take_one(entry, node, holding)) return obstacle;
    }
    return std::nullopt;
  }

  std::optional<Obstacle> take_one(const Entry& entry, HeldNode& node, Holding& holding) {
    if (!options_.conventions.contains(entry.id)) return std::nullopt;
    if (node.covered || entry.inapplicable(node.subject)) return std::nullopt;
    const bool needs_fd = entry.phase == Phase::opened && !opens_by_itself(entry.id, node.subject.family);
    if (needs_fd && node.subject.fd < 0) return std::nullopt;
    auto taken = entry.take(node.subject, terms_);
    if (taken) {
      node.covered = (*taken)->view().covered;
      holding.marks_.push_back(std::move(*taken));
      return std::nullopt;
    }
    if (taken.error().kind != Obstacle::Kind::unavailable) {
      blocked_by_ = entry.id;
      blocked_node_ = node.subject.node;
      return std::move(taken.error());
    }
    holding.unavailable_.push_back(
        {node.subject.node.path, entry.id, MarkReport::State::not_available, taken.error().error.message});
    return std::nullopt;
  }

  static bool opens_by_itself(Convention convention, Family family) {
    return convention == Convention::whole_disk || (convention == Convention::o_excl && family != Family::scsi_generic);
  }

  std::optional<Obstacle> open(HeldNode& node, Holding& holding) {
    const auto wants = [&](Convention convention) {
      return options_.conventions.contains(convention) && !convention::entry(convention).inapplicable(node.subject);
    };
    const bool sg_excl =
        node.subject.family == Family::scsi_generic && options_.mode == Mode::exclusive && wants(Convention::o_excl);
    if (node.covered || node.file ||
        !(wants(Convention::flock) || wants(Convention::posix) || wants(Convention::driver) ||
          wants(Convention::tiocexcl) || sg_excl))
      return std::nullopt;
    auto opened =
        convention::open_node(node.subject, terms_.places, sg_excl ? convention::SgExcl::yes : convention::SgExcl::no);
    if (!opened) {
      if (opened.error().kind != Obstacle::Kind::unavailable) {
        blocked_by_ = node.subject.family == Family::terminal ? Convention::tiocexcl : Convention::o_excl;
        blocked_node_ = node.subject.node;
        return std::move(opened.error());
      }
      holding.unavailable_.push_back(
          {node.subject.node.path, Convention::flock, MarkReport::State::not_available, opened.error().error.message});
      return std::nullopt;
    }
    node.file = std::move(opened->fd);
    node.subject.fd = node.file.get();
    node.subject.writable = opened->writable;
    if (struct stat status{}; node.subject.family == Family::pseudo_terminal && ::fstat(node.subject.fd, &status) == 0)
      node.changed = status.st_ctim;
    if (node.subject.family == Family::optical || node.subject.family == Family::scsi_generic)
      if (auto same = convention::verify_scsi_address(node.subject.fd, *node.subject.device); !same)
        return convention::faulted(std::move(same.error()));
    return std::nullopt;
  }

 public:
  // Where the last attempt met somebody.
  [[nodiscard]] Convention blocked_by() const { return blocked_by_; }
  [[nodiscard]] const device::Node& blocked_node() const { return blocked_node_; }

 private:
  const Options& options_;
  Terms terms_;
  std::vector<Device> devices_;
  Convention blocked_by_ = Convention::proxy;
  device::Node blocked_node_;
};

namespace {

Error timed_out(Error error) {
  error.code = errc::timed_out;
  error.message += "; the time to wait is over";
  return error;
}

Result<Holding> take_or_wait(Taking& taking, const Options& options) {
  auto first = taking.attempt();
  if (first) return std::move(*first);
  if (first.error().kind != Obstacle::Kind::busy || !options.wait.waits())
    return std::unexpected(std::move(first.error().error));
  Error last = std::move(first.error().error);
  const SignalsHeldBack signals{options.on_signal};
  Waiter waiter{taking.terms(), taking.devices(), signals};
  while (true) {
    switch (waiter.wait(taking.blocked_by(), taking.blocked_node(), options.wait, options.on_signal)) {
      case Waiter::Woken::event:
      case Waiter::Woken::try_again:
        break;
      case Waiter::Woken::deadline:
        return std::unexpected(timed_out(std::move(last)));
      case Waiter::Woken::signal: {
        last.code = errc::interrupted;
        last.message += "; interrupted by a signal";
        return std::unexpected(std::move(last));
      }
    }
    if (auto there = taking.still_there(); !there) return std::unexpected(std::move(there.error()));
    auto again = taking.attempt();
    if (again) {
      Taking::close_later(*again, waiter.take_events());
      return std::move(*again);
    }
    if (again.error().kind != Obstacle::Kind::busy) return std::unexpected(std::move(again.error().error));
    last = std::move(again.error().error);
  }
}

}  // namespace

std::expected<Holding, Obstruction> attempt(std::span<const Device> devices, const Options& options,
                                            base::ProcessId owner, const base::Places& places,
                                            const convention::LockDirectoryRights* rights) {
  Taking taking{options, Terms{options.mode, owner, options.purpose, places, rights}};
  taking.use(devices);
  if (auto there = taking.still_there(); !there)
    return std::unexpected(Obstruction{convention::faulted(std::move(there.error())), {}, {}});
  auto holding = taking.attempt();
  if (holding) return std::move(*holding);
  return std::unexpected(Obstruction{std::move(holding.error()), taking.blocked_by(), taking.blocked_node()});
}

Result<std::vector<Device>> identify(std::span<const std::string> devices, const base::Places& places) {
  const Options none;
  Taking taking{none, Terms{none.mode, {}, {}, places}};
  if (auto identified = taking.identify(devices); !identified) return std::unexpected(std::move(identified.error()));
  return taking.devices();
}

Result<Holding> take(std::span<const std::string> devices, const Options& options, base::ProcessId owner,
                     const base::Places& places) {
  if (devices.empty()) return std::unexpected(base::failure(errc::invalid_argument, "no device was named", {}));
  if (options.conventions.empty())
    return std::unexpected(base::failure(errc::invalid_argument, "no convention was chosen", {}));
  Taking taking{options, Terms{options.mode, owner, options.purpose, places}};
  if (auto identified = taking.identify(devices); !identified) return std::unexpected(std::move(identified.error()));
  return take_or_wait(taking, options);
}

}  // namespace holdfast::claiming
