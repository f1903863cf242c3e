// SPDX-License-Identifier: MIT
// sysfs.hpp - the kernel's device tree, read one fact at a time.
//
// A device is named here by its canonical directory, /sys/devices/..., without symbolic links on the way. Its parents
// are then its path's prefixes, and most of what one wants to know of them (is this a USB device? a SCSI address?) is
// in their names: no system call is needed to find the physical unit. sysfs(5),
// Documentation/admin-guide/sysfs-rules.rst.
#pragma once

#include "base/places.hpp"
#include "device/device.hpp"

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace holdfast::device {

std::string_view parent_of(std::string_view path);
std::string_view name_of(std::string_view path);
/// `target` as seen from the directory `from`, ".." resolved by text.
std::string resolved(std::string_view from, std::string_view target);

/// What the kernel announces for a device: the lines of its uevent file that matter here.
struct Uevent {
  std::string devname;  // below /dev, "bus/usb/001/002"; empty when it has no node
  std::string devtype;  // "disk", "partition", "usb_device"
  unsigned major = 0;
  unsigned minor = 0;
};

struct Entry {
  std::string name;
  bool directory = false;
};

/// A device and the driver that the kernel bound to it.
struct Binding {
  std::string_view device;  // its directory
  std::string driver;
};

/// Reads files, links and directories. What is missing is empty; running out of descriptors or memory is kept in
/// fault(), because an identity without the siblings that could not be read would be a lie.
class Reader {
 public:
  [[nodiscard]] std::string text(const std::string& path);                           // a whole small file
  [[nodiscard]] std::string attribute(std::string_view dir, std::string_view name);  // one line, trimmed
  [[nodiscard]] std::string link(const std::string& path);                           // readlink(2)
  [[nodiscard]] std::vector<Entry> entries(const std::string& dir);                  // without dot files, sorted
  [[nodiscard]] Uevent uevent(std::string_view dir);
  [[nodiscard]] std::string subsystem(std::string_view dir);
  [[nodiscard]] Binding binding(std::string_view dir);  // of the nearest parent that has a driver; a view into `dir`
  [[nodiscard]] std::string driver(std::string_view dir) { return binding(dir).driver; }
  void note(int errnum);  // remembers it when it means that we ran out of something
  [[nodiscard]] int fault() const { return fault_; }

 private:
  int fault_ = 0;
};

/// What the names on the way to a device say. Views into the path given.
struct Ancestry {
  std::string_view usb;   // directory of the innermost USB device
  std::string_view scsi;  // of the SCSI device
  std::string_view pci;   // of the innermost PCI function
  std::string_view hid;   // of the innermost HID device
  std::optional<ScsiAddress> address;
};
[[nodiscard]] Ancestry ancestry(std::string_view dir);

[[nodiscard]] bool is_usb_device_name(std::string_view name);
[[nodiscard]] bool is_usb_root_hub_name(std::string_view name);
[[nodiscard]] bool is_input_device_name(std::string_view name);
[[nodiscard]] bool is_hid_device_name(std::string_view name);

/// The canonical directory of a device number; empty when sysfs does not know it.
[[nodiscard]] std::string directory_of(Reader& reader, const DeviceId& id, const base::Places& places);

/// Whether the directory is a terminal's: then its name is the node's and there is nothing more to read.
[[nodiscard]] bool is_terminal_directory(std::string_view dir);

[[nodiscard]] Family family_of(std::string_view subsystem, const Uevent& uevent, const DeviceId& id);
/// From the number alone, where there is no sysfs (Documentation/admin-guide/devices.txt).
[[nodiscard]] Family family_of(const DeviceId& id);

}  // namespace holdfast::device
