// SPDX-License-Identifier: MIT
// table.cpp - the conventions in the order of taking, and where each applies.
//
// The order: ours first, so that two holdfast claimers meet before either touches what strangers see; then the lock
// files, which need no open(2); then what needs the node; TIOCEXCL last, because it shuts out whoever comes after.
#include "base/error.hpp"
#include "base/unique_fd.hpp"
#include "convention/conventions.hpp"
#include "convention/holder.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cerrno>

namespace holdfast::convention {
namespace {

using device::Family;
using device::Relation;

bool is_terminal(const Subject& subject) {
  return subject.family == Family::terminal || subject.family == Family::pseudo_terminal;
}

bool is_block(const Subject& subject) { return subject.node.id.kind == device::Kind::block; }

// A node that is not kept open can lose its number to another device while the claim lasts (the minor of a bsg node is
// free as soon as its drive is pulled out), and our proxy would then keep that one from its users. A claim of such a
// node covers the neighbour that was asked for here, so the two meet there: of disks and drives. What else lies in a
// HID device (an i2c adapter, a GPIO chip, a sensor) covers nothing but itself (device/siblings.cpp).
std::optional<std::string> if_neighbours_suffice(const Subject& subject) {
  const Family asked = subject.device->family;
  if (subject.relation != Relation::same_function || asked == Family::hid || asked == Family::input ||
      harmless_to_open(subject.family) || !harmless_to_open(asked))
    return std::nullopt;
  return "held through the node that was asked for";
}

std::optional<std::string> unless_optical(const Subject& subject) {
  if (is_optical(subject)) return std::nullopt;
  return "not an optical drive";
}

std::optional<std::string> unless_terminal(const Subject& subject) {
  if (is_terminal(subject)) return std::nullopt;
  return "not a terminal";
}

std::optional<std::string> unless_partition(const Subject& subject) {
  if (subject.family == Family::partition && subject.relation != Relation::partition) return std::nullopt;
  return subject.family == Family::partition ? "its whole disk is part of the claim" : "not a partition";
}

std::optional<std::string> unless_harmless(const Subject& subject) {
  if (harmless_to_open(subject.family)) return std::nullopt;
  return "opening this device may act on it";
}

std::optional<std::string> unless_exclusively_openable(const Subject& subject) {
  if (subject.family == Family::scsi_generic) return std::nullopt;
  if (!is_block(subject)) return "not a block or sg device";
  // The kernel claims the whole disk for the first of them and refuses it to the other (block/bdev.c, bd_may_claim).
  if (subject.relation == Relation::partition) return "its whole disk is part of the claim";
  return std::nullopt;
}

std::optional<std::string> unless_its_driver_knows_owners(const Subject& subject) {
  if (!subject.relation && subject.device->knows_owners) return std::nullopt;
  return "its driver has no lock";
}

constexpr std::array<Entry, kConventionCount> kTable{{
    {Convention::proxy, "proxy", "holdfast", "locks LOCK_DIR/holdfast-NUMBER, a record lock held open",
     "binds holdfast's users only", Phase::before_open, false, if_neighbours_suffice, take_proxy, adopt_proxy},
    {Convention::ddlp, "ddlp", "DDLP lock file",
     "locks /tmp/ddlpb-lock-* for every permissible path of the drive and its number",
     "needs sr and sg nodes of the drive", Phase::before_open, false, unless_optical, take_ddlp, adopt_ddlp},
    {Convention::uucp, "uucp", "UUCP lock file", "makes LCK.. and LK. files under every name that programs derive",
     "stays behind when the holder is killed: others must notice that the process is dead", Phase::before_open, false,
     unless_terminal, take_uucp, adopt_uucp},
    {Convention::whole_disk, "whole_disk", "flock on the whole disk",
     "flock(2) on the whole disk's node, so that udevd keeps off", "excludes claims of other partitions of the disk",
     Phase::opened, false, unless_partition, take_whole_disk, adopt_whole_disk},
    {Convention::flock, "flock", "flock", "flock(2) on the node",
     "follows the inode: another node of the device is not locked", Phase::opened, false, unless_harmless, take_flock,
     adopt_flock},
    {Convention::posix, "posix", "record lock", "fcntl(2) record lock on the node, of the open description",
     "follows the inode; a read lock where the node is opened read-only", Phase::opened, false, unless_harmless,
     take_posix, adopt_posix},
    {Convention::o_excl, "o_excl", "O_EXCL", "open(2) with O_EXCL",
     "on block devices binds only others that ask for O_EXCL, and mounts", Phase::opened, true,
     unless_exclusively_openable, take_o_excl, adopt_o_excl},
    {Convention::driver, "driver", "the driver's lock", "LOCK, as the driver understands it",
     "the owner is one process: its children may not use the device", Phase::opened, true,
     unless_its_driver_knows_owners, take_driver_lock, adopt_driver_lock},
    {Convention::tiocexcl, "tiocexcl", "TIOCEXCL", "TIOCEXCL: later opens fail with EBUSY",
     "does not bind CAP_SYS_ADMIN; not set on pseudo-terminals", Phase::opened, true, unless_terminal, take_tiocexcl,
     adopt_tiocexcl},
}};

std::string group_name(gid_t gid) {
  // Not getgrgid(3): a statically linked command has no NSS.
  const base::UniqueFd fd{::open("/etc/group", O_RDONLY | O_CLOEXEC)};
  std::string text;
  char buffer[4096];
  for (ssize_t got = 0; fd && (got = ::read(fd.get(), buffer, sizeof buffer)) > 0;)
    text.append(buffer, static_cast<std::size_t>(got));
  const std::string wanted = fmt::format(":x:{}:", gid);
  const auto found = text.find(wanted);
  if (found == std::string::npos) return fmt::format("{}", gid);
  const auto start = text.rfind('\n', found);
  return text.substr(start == std::string::npos ? 0 : start + 1, found - (start == std::string::npos ? 0 : start + 1));
}

}  // namespace

std::span<const Entry> table() { return kTable; }

const Entry& entry(Convention convention) { return kTable[static_cast<std::size_t>(convention)]; }

std::optional<Convention> convention_named(std::string_view name) {
  const auto found = std::find_if(kTable.begin(), kTable.end(), [&](const Entry& one) { return one.name == name; });
  if (found == kTable.end()) return std::nullopt;
  return found->id;
}

bool harmless_to_open(device::Family family) {
  switch (family) {
    case Family::terminal:  // raises DTR and RTS, once: the price of every lock on the node
    case Family::pseudo_terminal:
    case Family::disk:
    case Family::partition:
    case Family::optical:
    case Family::scsi_generic:
    case Family::usb:
    case Family::hid:
    case Family::input:
    case Family::video:
      return true;
    case Family::tape:   // st rewinds at close
    case Family::other:  // a watchdog starts at open
      return false;
  }
  return false;
}

std::expected<OpenNode, Obstacle> open_node(const Subject& subject, const base::Places& places, SgExcl excl) {
  const std::string& path = subject.node.path;
  const int common = O_NONBLOCK | O_NOCTTY | (excl == SgExcl::yes ? O_EXCL : 0);
  // sg refuses O_RDONLY|O_EXCL with EPERM (drivers/scsi/sg.c), and a record write lock wants a writable descriptor.
  const bool writable = !is_block(subject);
  OpenNode node;
  node.writable = writable;
  node.fd = base::ProcessFd::open(path.c_str(), (writable ? O_RDWR : O_RDONLY) | common);
  if (!node.fd && writable && (errno == EACCES || errno == EROFS)) {
    node.writable = false;
    node.fd = base::ProcessFd::open(path.c_str(), O_RDONLY | common);
    if (!node.fd && errno == EACCES) {
      node.writable = true;
      node.fd = base::ProcessFd::open(path.c_str(), O_WRONLY | common);
    }
  }
  if (!node.fd) {
    const int errnum = errno;
    if (errnum == EBUSY) {
      const std::string_view means = is_terminal(subject) ? "TIOCEXCL" : "opened for itself alone";
      return std::unexpected(busy(subject, find_opener(subject.node, places), means));
    }
    if (errnum == EACCES || errnum == EPERM) {
      Error error = base::fault(errnum, "open", path);
      error.message =
          fmt::format("{}: not permitted to open it: needs the group {} or root", path, group_name(subject.node.gid));
      // A neighbour that we may not open is reported; the device itself is what was asked for.
      if (subject.relation) return std::unexpected(unavailable(subject, "not permitted to open it"));
      return std::unexpected(faulted(std::move(error)));
    }
    if (subject.relation && (errnum == ENXIO || errnum == ENODEV || errnum == ENOMEDIUM || errnum == EIO))
      return std::unexpected(unavailable(subject, base::errno_text(errnum)));
    return std::unexpected(
        faulted(base::fault(errnum == ENOENT ? errc::gone : base::errc_from_errno(errnum), errnum, "open", path)));
  }
  if (auto same = device::recheck(node.fd.get(), subject.node); !same)
    return std::unexpected(faulted(std::move(same.error())));
  return node;
}

Obstacle busy(const Subject& subject, Holder holder, std::string_view means, std::string_view way_out) {
  Obstacle obstacle;
  obstacle.kind = Obstacle::Kind::busy;
  obstacle.error.code = errc::refused;
  obstacle.error.device = subject.node.path;
  holder.means.emplace_back(means);
  const bool known = holder.pid > 0 || !holder.command.empty();
  obstacle.error.message = fmt::format(
      "{} is held by {}", base::printable(subject.node.path),
      known ? to_string(holder) : fmt::format("a process that cannot be seen ({})", base::printable(means)));
  if (holder.pid == 0 && !holder.command.empty())
    obstacle.error.message = fmt::format("{} is held by the {} ({})", base::printable(subject.node.path),
                                         holder.command, fmt::join(holder.means, ", "));
  if (!way_out.empty()) obstacle.error.message += fmt::format(": {}", way_out);
  obstacle.error.holder = std::move(holder);
  return obstacle;
}

Obstacle unavailable(const Subject& subject, std::string reason) {
  Obstacle obstacle;
  obstacle.kind = Obstacle::Kind::unavailable;
  obstacle.error = base::failure(errc::not_permitted, std::move(reason), subject.node.path);
  return obstacle;
}

Obstacle not_believed(const Subject& subject, std::string_view means) {
  return faulted(base::failure(errc::system_fault,
                               fmt::format("{}: what was handed over is not its {}", subject.node.path, means),
                               subject.node.path));
}

Obstacle faulted(Error error) { return {Obstacle::Kind::fault, std::move(error)}; }

Obstacle lock_file_obstacle(const Subject& subject, const std::string& path, LockFileError error) {
  const std::string& device = subject.node.path;
  // Nobody locks through a read-only mount, existing files or not.
  if (error.errnum == EROFS)
    return unavailable(subject, fmt::format("{} cannot be locked: {}", path, base::errno_text(error.errnum)));
  if (!error.existed &&
      (error.errnum == EACCES || error.errnum == EPERM || error.errnum == ENOENT || error.errnum == ENOTDIR))
    return unavailable(subject, fmt::format("{} cannot be made: {}", path, base::errno_text(error.errnum)));
  if (error.errnum == EINVAL || error.errnum == ELOOP || error.errnum == EISDIR || error.errnum == ENXIO)
    return faulted(
        base::failure(errc::not_permitted, fmt::format("{}: {} is no regular file: remove it", device, path), device));
  if (error.errnum == EMLINK)
    return faulted(
        base::failure(errc::not_permitted, fmt::format("{}: {} has a second name: remove it", device, path), device));
  return faulted(base::fault(error.errnum, path, device));
}

}  // namespace holdfast::convention
