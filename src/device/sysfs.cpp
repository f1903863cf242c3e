// SPDX-License-Identifier: MIT
// sysfs.cpp - reading the kernel's device tree with bare system calls. libudev would do it too, but it has no static
// library, and the command must start faster than a dynamic loader works.
#include "device/sysfs.hpp"

#include "base/unique_fd.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <climits>

namespace holdfast::device {
namespace {

unsigned to_unsigned(std::string_view text) {
  unsigned value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_hex(char c) { return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }

// Whether `name` has the shape: 'd' stands for decimal digits, 'x' for hexadecimal ones, the rest for itself.
bool has_shape(std::string_view name, std::string_view shape) {
  for (const char wanted : shape) {
    if (wanted != 'd' && wanted != 'x') {
      if (name.empty() || name.front() != wanted) return false;
      name.remove_prefix(1);
      continue;
    }
    std::size_t run = 0;
    while (run < name.size() && (wanted == 'd' ? is_digit(name[run]) : is_hex(name[run]))) ++run;
    if (run == 0) return false;
    name.remove_prefix(run);
  }
  return name.empty();
}

// domain:bus:slot.function, four digits or more, two, two, one ("%04x:%02x:%02x.%d", drivers/pci/probe.c). The widths
// matter: the second port of the first PnP UART is called "00:00:0.1".
bool is_pci_function_name(std::string_view name) {
  return name.size() >= 12 && has_shape(name, "x:x:x.d") && name[name.size() - 8] == ':' &&
         name[name.size() - 5] == ':';
}

std::optional<ScsiAddress> scsi_address(std::string_view name) {
  if (!has_shape(name, "d:d:d:d")) return std::nullopt;
  ScsiAddress address;
  for (int* const part : {&address.host, &address.channel, &address.target, &address.lun}) {
    const auto [rest, error] = std::from_chars(name.data(), name.data() + name.size(), *part);
    if (error != std::errc{}) return std::nullopt;
    name.remove_prefix(std::min(static_cast<std::size_t>(rest - name.data()) + 1, name.size()));
  }
  return address;
}

}  // namespace

std::string_view parent_of(std::string_view path) {
  const auto slash = path.rfind('/');
  return slash == std::string_view::npos ? std::string_view{} : path.substr(0, slash);
}

std::string_view name_of(std::string_view path) { return path.substr(path.rfind('/') + 1); }

std::string resolved(std::string_view from, std::string_view target) {
  std::string path{target.starts_with('/') ? std::string_view{} : from};
  while (!target.empty()) {
    const std::string_view part = target.substr(0, target.find('/'));
    target.remove_prefix(std::min(part.size() + 1, target.size()));
    if (part == "..") {
      path = parent_of(path);
    } else if (!part.empty() && part != ".") {
      path.append(1, '/').append(part);
    }
  }
  return path;
}

void Reader::note(int errnum) {
  if (errnum == EMFILE || errnum == ENFILE || errnum == ENOMEM) fault_ = errnum;
}

std::string Reader::text(const std::string& path) {
  const base::UniqueFd fd{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK)};
  if (!fd) {
    note(errno);
    return {};
  }
  std::string content;
  std::array<char, 4096> buffer;
  // A sysfs attribute is at most a page; udev's files are small. The bound is for whatever else may lie there.
  while (content.size() < 64 * 1024) {
    const ssize_t count = ::read(fd.get(), buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) break;
    content.append(buffer.data(), static_cast<std::size_t>(count));
    if (static_cast<std::size_t>(count) < buffer.size()) break;
  }
  return content;
}

std::string Reader::attribute(std::string_view dir, std::string_view name) {
  std::string value = text(std::string{dir}.append(1, '/').append(name));
  value.resize(std::min(value.size(), value.find('\n')));
  value.erase(value.find_last_not_of(" \t") + 1);
  value.erase(0, std::min(value.size(), value.find_first_not_of(" \t")));
  return value;
}

std::string Reader::link(const std::string& path) {
  std::array<char, PATH_MAX> buffer;
  const ssize_t length = ::readlink(path.c_str(), buffer.data(), buffer.size());
  if (length < 0) {
    note(errno);
    return {};
  }
  return {buffer.data(), static_cast<std::size_t>(length)};
}

std::vector<Entry> Reader::entries(const std::string& dir) {
  std::vector<Entry> found;
  const base::UniqueFd fd{::open(dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
  if (!fd) {
    note(errno);
    return found;
  }
  // getdents64(2) and not readdir(3): a stream costs an fstat(2) and 32 KiB of heap for each of many small directories.
  alignas(dirent64) std::array<char, 8192> buffer;
  for (ssize_t filled; (filled = ::getdents64(fd.get(), buffer.data(), buffer.size())) > 0;) {
    for (ssize_t at = 0; at < filled;) {
      const auto* const item = reinterpret_cast<const dirent64*>(buffer.data() + at);
      at += item->d_reclen;
      if (item->d_name[0] == '.') continue;
      bool directory = item->d_type == DT_DIR;
      if (struct stat facts; item->d_type == DT_UNKNOWN)  // readdir(3): some file systems leave it open
        directory = ::fstatat(fd.get(), item->d_name, &facts, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(facts.st_mode);
      found.push_back({item->d_name, directory});
    }
  }
  std::ranges::sort(found, {}, &Entry::name);
  return found;
}

Uevent Reader::uevent(std::string_view dir) {
  const std::string content = text(std::string{dir} + "/uevent");
  Uevent event;
  for (std::string_view rest = content; !rest.empty();) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(line.size() + 1, rest.size()));
    const auto equals = line.find('=');
    if (equals == std::string_view::npos) continue;
    const std::string_view key = line.substr(0, equals);
    const std::string_view value = line.substr(equals + 1);
    if (key == "MAJOR") event.major = to_unsigned(value);
    if (key == "MINOR") event.minor = to_unsigned(value);
    if (key == "DEVNAME") event.devname = value;
    if (key == "DEVTYPE") event.devtype = value;
  }
  return event;
}

std::string Reader::subsystem(std::string_view dir) {
  return std::string{name_of(link(std::string{dir} + "/subsystem"))};
}

Binding Reader::binding(std::string_view dir) {
  if (dir.find("/devices/virtual/") != std::string_view::npos) return {};
  if (is_terminal_directory(dir)) dir = parent_of(parent_of(dir));  // neither a class device nor its class has a driver
  for (; name_of(dir) != "devices" && !dir.empty(); dir = parent_of(dir)) {
    const std::string target = link(std::string{dir} + "/driver");
    // Linux 6.5 put two layers of its own between a UART and its device; their drivers ("port", "ctrl") say nothing.
    if (!target.empty() && target.find("bus/serial-base/") == std::string::npos)
      return {dir, std::string{name_of(target)}};
  }
  return {};
}

bool is_usb_device_name(std::string_view name) {
  // bus-port.port.port (drivers/usb/core/usb.c)
  return !name.empty() && is_digit(name.front()) && std::ranges::count(name, '-') == 1 && is_digit(name.back()) &&
         std::ranges::all_of(name, [](char c) { return is_digit(c) || c == '-' || c == '.'; });
}

bool is_usb_root_hub_name(std::string_view name) { return has_shape(name, "usbd"); }

// drivers/input/input.c, input_allocate_device()
bool is_input_device_name(std::string_view name) { return has_shape(name, "inputd"); }

// bus:vendor:product.instance, each of four digits or more (drivers/hid/hid-core.c); a PCI address has the same shape
// but is shorter.
bool is_hid_device_name(std::string_view name) { return name.size() >= 19 && has_shape(name, "x:x:x.x"); }

Ancestry ancestry(std::string_view dir) {
  Ancestry found;
  const auto start = dir.find("/devices/");
  if (start == std::string_view::npos) return found;
  std::string_view before;
  bool below_usb = false;
  for (auto end = dir.find('/', start + 9);; end = dir.find('/', end + 1)) {
    const std::string_view prefix = dir.substr(0, end);
    const std::string_view name = name_of(prefix);
    const bool last = end == std::string_view::npos;
    const bool root_hub = is_usb_root_hub_name(name);
    below_usb = below_usb || root_hub;
    // Below a root hub only: an I2C chip is called "0-0050".
    if (below_usb && (is_usb_device_name(name) || (last && root_hub))) found.usb = prefix;
    if (const auto address = scsi_address(name); address && before.starts_with("target")) {
      found.scsi = prefix;
      found.address = address;
    }
    if (is_hid_device_name(name)) {
      found.hid = prefix;
    } else if (is_pci_function_name(name)) {
      found.pci = prefix;
    }
    if (last) return found;
    before = name;
  }
}

std::string directory_of(Reader& reader, const DeviceId& id, const base::Places& places) {
  const std::string base = places.sys + (id.kind == Kind::block ? "/dev/block" : "/dev/char");
  const std::string target = reader.link(base + "/" + std::to_string(id.major) + ":" + std::to_string(id.minor));
  return target.empty() ? std::string{} : resolved(base, target);
}

bool is_terminal_directory(std::string_view dir) {
  // drivers/base/core.c, get_device_parent(): devices of a class lie in a directory of the class's name. The tty class
  // keeps the device's name for the node (drivers/tty/tty_io.c, tty_devnode() sets the mode alone).
  return name_of(parent_of(dir)) == "tty" && dir.find('!') == std::string_view::npos;
}

Family family_of(const DeviceId& id) {
  if (id.kind == Kind::block) return id.major == 11 ? Family::optical : Family::disk;
  switch (id.major) {
    case 4:
      return id.minor == 0 ? Family::other : Family::terminal;  // tty0 is whichever console is in front
    case 3:                                                     // BSD pseudo-terminals' slaves
    case 166:                                                   // ttyACM
    case 188:                                                   // ttyUSB
    case 204:                                                   // ttyAMA and other small ports
    case 216:
      return Family::terminal;  // rfcomm
    case 9:
      return Family::tape;
    case 13:
      return Family::input;
    case 21:
      return Family::scsi_generic;
    case 81:
      return Family::video;
    case 189:
      return Family::usb;
    default:
      return id.major >= 136 && id.major <= 143 ? Family::pseudo_terminal : Family::other;
  }
}

Family family_of(std::string_view subsystem, const Uevent& uevent, const DeviceId& id) {
  if (subsystem == "block") return uevent.devtype == "partition" ? Family::partition : family_of(id);
  if (subsystem == "tty") {
    // 5:0 is the opener's own terminal, 5:1 the console, 5:2 makes pseudo-terminals, 2:* are masters, 4:0 see above.
    const bool stands_for_another =
        (id.major == 5 && id.minor < 64) || (id.major == 4 && id.minor == 0) || id.major == 2;
    return stands_for_another ? Family::other : Family::terminal;
  }
  struct Known {
    std::string_view subsystem;
    Family family;
  };
  static constexpr std::array kKnown{
      Known{"scsi_generic", Family::scsi_generic},
      Known{"scsi_tape", Family::tape},
      Known{"usb", Family::usb},
      Known{"hidraw", Family::hid},
      Known{"input", Family::input},
      Known{"video4linux", Family::video},
      Known{"media", Family::video},
  };
  for (const Known& known : kKnown)
    if (known.subsystem == subsystem) return known.family;
  return subsystem.empty() ? family_of(id) : Family::other;
}

}  // namespace holdfast::device
