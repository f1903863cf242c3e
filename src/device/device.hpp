// SPDX-License-Identifier: MIT
// device.hpp - who is this. A path is a hint; the identity is what the node itself says.
//
// Nothing here opens a device: nodes are looked at through O_PATH descriptors (open(2): "the file itself is not
// opened"), neighbours are found in sysfs, link names in udev's database. All of it works without a running udevd.
#pragma once

#include "base/places.hpp"

#include <holdfast/error.hpp>
#include <holdfast/options.hpp>

#include <sys/types.h>

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace holdfast::device {

enum class Kind : std::uint8_t { block, character };

/// What a device is to the kernel: kind and number. The order is the one global order of claiming: block before
/// character, then ascending major, then minor (systemd's rule for block devices).
///
/// Every devpts instance numbers its terminals from 0, so for a pseudo-terminal the file system's st_dev belongs to the
/// identity; it is 0 for every other device.
struct DeviceId {
  Kind kind = Kind::character;
  unsigned major = 0;
  unsigned minor = 0;
  dev_t devpts = 0;
  auto operator<=>(const DeviceId&) const = default;
  [[nodiscard]] dev_t rdev() const;
};

/// "c4:64", "b8:0"; a pseudo-terminal's is "c136:3@24" (devpts number in decimal minor:... as one integer).
[[nodiscard]] std::string to_string(const DeviceId& id);
/// "c4:64" or "b8:0" (decimal, no sign, no blanks); nullopt for everything else.
[[nodiscard]] std::optional<DeviceId> parse_number(std::string_view text);

/// A file's own identity: flock and record locks follow it.
struct InodeId {
  dev_t dev = 0;
  ino_t ino = 0;
  auto operator<=>(const InodeId&) const = default;
};

struct Node {
  DeviceId id;
  std::string path;  ///< canonical: /dev/NAME of the kernel where it exists with this number, else the resolved path
  InodeId inode;     ///< of the node at `path`
  uid_t uid = 0;
  gid_t gid = 0;
  mode_t mode = 0;
};

/// What kind of thing it is, as far as claiming differs.
enum class Family : std::uint8_t {
  terminal,         // ttyS, ttyUSB, ttyACM, rfcomm...
  pseudo_terminal,  // /dev/pts/N
  disk,             // a whole disk: sd, vd, nvme, mmcblk, loop, dm, md...
  partition,
  optical,       // sr
  scsi_generic,  // sg
  tape,          // st, nst: closing st rewinds the tape, so it is not opened
  usb,           // usbfs node
  hid,           // hidraw
  input,         // event*, js*, mouse*
  video,         // video4linux and media nodes
  other,         // opening may act (a watchdog starts): never opened for marking alone
};
[[nodiscard]] std::string_view to_string(Family family);

/// How another node belongs to the device.
enum class Relation : std::uint8_t {
  same_function,  // another driver's node for the same function: sg2 of sr0, nst0 of st0, event5 of hidraw1
  partition,      // a partition of this whole disk
  whole_disk,     // the disk that this partition is on
  layer_above,    // dm, md or loop that is built on this
  layer_below,    // what this dm, md or loop is built on
  same_unit,      // shares only the physical unit: another port, the usbfs node
};
[[nodiscard]] std::string_view to_string(Relation relation);

struct Sibling {
  Node node;
  Family family = Family::other;
  Relation relation = Relation::same_unit;
};

/// SCSI host:channel:target:lun.
struct ScsiAddress {
  int host = 0, channel = 0, target = 0, lun = 0;
  auto operator<=>(const ScsiAddress&) const = default;
};

struct Device {
  Node node;
  std::string given;  ///< as the caller named it
  Family family = Family::other;
  std::string subsystem;           ///< "tty", "block", "scsi_generic"; empty without sysfs
  std::string driver;              ///< of the nearest parent that has one
  std::string unit;                ///< sysfs directory of the physical unit (USB device, SCSI device, PCI function)
  std::string label;               ///< "FTDI FT232R (A50285BI)": vendor, model and serial as far as known
  std::vector<std::string> links;  ///< every symbolic link udev keeps for the node, absolute, sorted
  std::string stable_name;         ///< a by-id link, else by-path, else empty
  std::optional<ScsiAddress> scsi;
  std::string scsi_type;          ///< of an sg or bsg node: peripheral device type in decimal, "5" for an optical drive
  bool knows_owners = false;      ///< its driver has a struct hf_exclusive (uapi/holdfast_exclusive.h)
  std::vector<Sibling> siblings;  ///< sorted by DeviceId, without the node itself
};

/// Finds out who `argument` is: a path (absolute, relative, through links) or "c4:64" / "b8:0" for a number.
///
/// \returns no_such_device for a missing path, a dangling link, a number without a node; not_a_device for a file,
///          directory, FIFO or socket; not_permitted when a directory on the way is closed to us; invalid_argument for
///          an empty argument, one with a NUL, or one longer than PATH_MAX
/// \cost  two system calls for the node, then one readlink per sysfs fact
[[nodiscard]] Result<Device> identify(std::string_view argument, const base::Places& places = {});

/// The same for an open descriptor (O_PATH or not). `given` becomes the descriptor's path.
[[nodiscard]] Result<Device> identify(int fd, const base::Places& places = {});

/// The node alone, without sysfs: for re-checks and for speed.
[[nodiscard]] Result<Node> look_at(std::string_view path, const base::Places& places = {});

/// Whether the open descriptor is still the node that was identified: gone when not.
[[nodiscard]] Result<> recheck(int fd, const Node& node);

/// Whether the node's path still leads to it: gone when the device was unplugged, or another one has its name or its
/// number by now. \cost  one lstat(2)
[[nodiscard]] Result<> still_there(const Node& node);

/// A node that a claim covers, and why.
struct Covered {
  Node node;
  Family family = Family::other;
  std::optional<Relation> relation;  ///< nullopt for the device itself
};

/// The nodes that a claim covers, the device itself included, sorted by DeviceId.
/// function: same_function and partition. unit: all but whole_disk and layer_below, plus the same for the whole
/// physical unit.
[[nodiscard]] std::vector<Covered> covered_nodes(const Device& device, Cover cover);

}  // namespace holdfast::device
