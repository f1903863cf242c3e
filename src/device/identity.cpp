// SPDX-License-Identifier: MIT
// identity.cpp - from a name to a device. The name is resolved once, by the kernel, into an O_PATH descriptor;
// everything else follows from what that descriptor is, so a link that moves meanwhile cannot mix two devices up.
#include "base/error.hpp"
#include "base/unique_fd.hpp"
#include "device/node.hpp"
#include "device/siblings.hpp"
#include "device/sysfs.hpp"
#include "device/udev_database.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <climits>

namespace holdfast::device {
namespace {

using base::printable;

std::unexpected<Error> no(errc code, std::string_view device, std::string_view reason, int errnum = 0) {
  Error error = base::failure(code, printable(device).append(": ").append(reason), printable(device));
  error.errnum = errnum;
  return std::unexpected{std::move(error)};
}

std::string_view description(mode_t mode) {
  switch (mode & S_IFMT) {
    case S_IFREG:
      return "is a regular file, not a device";
    case S_IFDIR:
      return "is a directory, not a device";
    case S_IFIFO:
      return "is a FIFO, not a device";
    case S_IFSOCK:
      return "is a socket, not a device";
    case S_IFLNK:
      return "is a symbolic link, not a device";
    default:
      return "is not a device";
  }
}

std::unexpected<Error> not_opened(int errnum, std::string_view argument) {
  const auto refuse = [&](errc code, std::string_view reason) { return no(code, argument, reason, errnum); };
  switch (errnum) {
    case ENOENT: {
      Reader reader;
      const std::string target = reader.link(std::string{argument});
      return refuse(errc::no_such_device,
                    target.empty() ? "no such device" : "is a link to " + printable(target) + ", which does not exist");
    }
    case ENOTDIR:
      return refuse(errc::no_such_device, "no such device: a file stands where a directory should be");
    case ELOOP:
      return refuse(errc::no_such_device, "no such device: its symbolic links lead in a circle");
    case ENAMETOOLONG:
      return refuse(errc::invalid_argument, "no device has so long a name");
    case EACCES:
      return refuse(errc::not_permitted, "a directory on the way to it is closed to us");
    default:
      return std::unexpected{base::fault(errnum, "cannot be looked at", printable(argument))};
  }
}

std::string descriptor_path(int fd, const base::Places& places) {
  Reader reader;
  return reader.link(places.proc + "/self/fd/" + std::to_string(fd));
}

struct Sighting {
  base::UniqueFd fd;  // O_PATH
  Node node;          // its path still empty
};

Result<Node> node_of(int fd, std::string_view named) {
  struct stat facts;
  if (::fstat(fd, &facts) != 0) return std::unexpected{base::fault(errno, "cannot be looked at", printable(named))};
  if (auto node = node_from(facts, {})) return *std::move(node);
  return no(errc::not_a_device, named, description(facts.st_mode));
}

Result<Sighting> sight(std::string_view argument) {
  if (argument.empty())
    return std::unexpected{base::failure(errc::invalid_argument, "no device named: empty name", {})};
  if (argument.find('\0') != std::string_view::npos)
    return no(errc::invalid_argument, argument, "a name with a NUL byte in it leads nowhere");
  if (argument.size() >= PATH_MAX) return not_opened(ENAMETOOLONG, argument);
  Sighting sighting;
  // open(2): with O_PATH "the file itself is not opened", so no driver hears of it.
  sighting.fd.reset(::open(std::string{argument}.c_str(), O_PATH | O_CLOEXEC));
  if (!sighting.fd) return not_opened(errno, argument);
  auto node = node_of(sighting.fd.get(), argument);
  if (!node) return std::unexpected{std::move(node).error()};
  sighting.node = *std::move(node);
  return sighting;
}

// Where a number's node is, by the kernel's own name for it.
std::string path_of_number(Reader& reader, const DeviceId& id, const base::Places& places) {
  if (is_pseudo_terminal(id)) return places.dev + "/pts/" + std::to_string((id.major - 136) * 256 + id.minor);
  const std::string dir = directory_of(reader, id, places);
  const std::string name = dir.empty() ? std::string{} : reader.uevent(dir).devname;
  return name.empty() ? std::string{} : places.dev + "/" + name;
}

// Moves `node` to the canonical path when that is the same device, else to where the caller's name led.
void settle_path(Node& node, int fd, std::string_view given, const std::string& canonical, const base::Places& places) {
  if (!canonical.empty() && canonical == given) {
    node.path = canonical;
  } else if (auto there = node_at(canonical); there && there->id == node.id) {
    node = *std::move(there);
  } else {
    node.path = descriptor_path(fd, places);
    if (node.path.empty()) node.path = given;  // without /proc
  }
}

std::string label_of(Reader& reader, const UdevRecord& record, std::string_view dir) {
  std::string vendor = record.vendor;
  std::string model = record.model;
  std::string serial = record.serial;
  const Ancestry names = ancestry(dir);
  if (model.empty() && !names.usb.empty()) {
    vendor = reader.attribute(names.usb, "manufacturer");
    model = reader.attribute(names.usb, "product");
    serial = reader.attribute(names.usb, "serial");
  } else if (model.empty() && !names.scsi.empty()) {
    vendor = reader.attribute(names.scsi, "vendor");
    model = reader.attribute(names.scsi, "model");
  } else if (model.empty() && dir.find("/nvme/") != std::string_view::npos) {
    model = reader.attribute(parent_of(dir), "model");
    serial = reader.attribute(parent_of(dir), "serial");
  } else if (model.empty() && dir.find("/mmc_host/") != std::string_view::npos) {
    model = reader.attribute(dir, "device/name");
    serial = reader.attribute(dir, "device/serial");
  } else if (model.empty() && dir.find("/virtio") != std::string_view::npos &&
             dir.find("/block/") != std::string_view::npos) {
    // A partition lies in its disk's directory (drivers/block/virtio_blk.c, serial_show()).
    serial = reader.attribute(dir, "serial");
    if (serial.empty()) serial = reader.attribute(parent_of(dir), "serial");
  }
  std::string label = std::move(vendor);
  if (!model.empty()) label.append(label.empty() ? "" : " ").append(model);
  if (!serial.empty()) label.append(label.empty() ? "(" : " (").append(serial).append(")");
  return printable(label);
}

Result<Device> describe(int fd, Node node, std::string_view given, const base::Places& places) {
  Device device;
  device.given = given;
  device.node = std::move(node);
  const DeviceId& id = device.node.id;
  Reader reader;
  if (is_pseudo_terminal(id)) {  // has no directory in sysfs, no driver, no neighbours
    device.family = Family::pseudo_terminal;
    device.subsystem = "tty";
    settle_path(device.node, fd, given, path_of_number(reader, id, places), places);
    return device;
  }
  const std::string dir = directory_of(reader, id, places);
  Uevent event;
  if (is_terminal_directory(dir)) {
    event.devname = name_of(dir);
    device.subsystem = "tty";
  } else if (!dir.empty()) {
    event = reader.uevent(dir);
    device.subsystem = reader.subsystem(dir);
  }
  device.driver = reader.driver(dir);
  device.family = family_of(device.subsystem, event, id);
  settle_path(device.node, fd, given, event.devname.empty() ? std::string{} : places.dev + "/" + event.devname, places);
  UdevRecord record = udev_record(reader, device.node, device.family, places);
  if (!dir.empty()) {
    device.unit = unit_of(reader, dir, device.family);
    const Ancestry names = ancestry(dir);
    device.scsi = names.address;
    // What it is shows in a neighbour's name too, but a neighbour can be missing.
    if (device.family == Family::scsi_generic || device.subsystem == "bsg")
      device.scsi_type = reader.attribute(names.scsi, "type");
    device.label = label_of(reader, record, dir);
    // Of no driver that is known by its subsystem: they are not asked, it would cost each of them a call.
    if (device.family == Family::other) device.knows_owners = !reader.attribute(dir, "hf_exclusive/abi").empty();
    device.siblings = siblings_of(reader, dir, device.unit, device.family, places);
  }
  device.links = std::move(record.links);
  device.stable_name = stable_name(device.links);
  // Half a picture would be claimed as if it were the whole.
  if (reader.fault() != 0)
    return std::unexpected{base::fault(reader.fault(), "its neighbours cannot be read", printable(given))};
  return device;
}

}  // namespace

Result<Device> identify(std::string_view argument, const base::Places& places) {
  const auto number = parse_number(argument);
  if (!number) {
    auto sighting = sight(argument);
    if (!sighting) return std::unexpected{std::move(sighting).error()};
    return describe(sighting->fd.get(), std::move(sighting->node), argument, places);
  }
  Reader reader;
  const std::string path = path_of_number(reader, *number, places);
  if (reader.fault() != 0) return not_opened(reader.fault(), argument);
  if (path.empty()) return no(errc::no_such_device, argument, "the kernel knows no device of this number");
  auto sighting = sight(path);
  if (!sighting) return std::unexpected{std::move(sighting).error()};
  const DeviceId& found = sighting->node.id;
  if (found.rdev() != number->rdev() || found.kind != number->kind)
    return no(errc::no_such_device, argument, "its node " + printable(path) + " belongs to another device");
  auto device = describe(sighting->fd.get(), std::move(sighting->node), path, places);
  if (device) device->given = argument;
  return device;
}

Result<Device> identify(int fd, const base::Places& places) {
  const std::string path = descriptor_path(fd, places);
  const std::string name = path.empty() ? "descriptor " + std::to_string(fd) : path;
  auto node = node_of(fd, name);
  if (!node) return std::unexpected{std::move(node).error()};
  return describe(fd, *std::move(node), name, places);
}

Result<Node> look_at(std::string_view path, const base::Places& places) {
  auto sighting = sight(path);
  if (!sighting) return std::unexpected{std::move(sighting).error()};
  Node node = std::move(sighting->node);
  Reader reader;
  settle_path(node, sighting->fd.get(), path,
              is_pseudo_terminal(node.id) ? path_of_number(reader, node.id, places) : std::string{}, places);
  return node;
}

Result<> recheck(int fd, const Node& node) {
  const auto seen = node_of(fd, node.path);
  // The number alone is not enough: a device that was unplugged and came back has a new node with the old number.
  if (seen && seen->id == node.id && seen->inode == node.inode) return {};
  if (!seen && seen.error().code != errc::not_a_device) return std::unexpected{seen.error()};
  return no(errc::gone, node.path, "is not the device any more that it was a moment ago");
}

Result<> still_there(const Node& node) {
  const auto now = node_at(node.path);
  if (!now) return no(errc::gone, node.path, "is gone: it was unplugged, or its driver let go of it");
  if (now->id == node.id && now->inode == node.inode) return {};
  return no(errc::gone, node.path, "is gone: another device has its name now");
}

}  // namespace holdfast::device
