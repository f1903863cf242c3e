// SPDX-License-Identifier: MIT
// device_argument_fuzz.cpp - the name of a device as somebody types it, looked up in a small tree of our own, and what
// the kernel and udev say of a device, which comes from the device: a USB stick chooses its own serial number.
//
// Input: the argument, a line; what the uevent file says up to an empty line; what udev's record says.
#include "fuzz.hpp"

#include "device/device.hpp"

#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <optional>
#include <string>

using namespace holdfast;
using fuzz::require;

namespace {

namespace fs = std::filesystem;

constexpr unsigned kMajor = 188;
constexpr unsigned kMinor = 0xFFFFE;  // no driver gives so many

// A tree with one terminal on a USB port. The node needs root to be made; without it nothing answers to its name.
class Tree {
 public:
  Tree() {
    std::string name = "/tmp/holdfast-fuzz-XXXXXX";
    if (::mkdtemp(name.data()) == nullptr) std::abort();
    root_ = name;
    fs::create_directories(root_ / "dev/serial/by-id");
    fs::create_directories(root_ / "sys/dev/char");
    fs::create_directories(root_ / "sys/class/tty");
    fs::create_directories(root_ / "udev");
    fs::create_directories(directory());
    ::mknod((root_ / "dev/ttyUSB9").c_str(), S_IFCHR | 0600, ::makedev(kMajor, kMinor));
    fs::create_symlink("../../ttyUSB9", root_ / "dev/serial/by-id/usb-port");
    fs::create_symlink("nowhere", root_ / "dev/dangling");
    std::ofstream{root_ / "dev/file"} << "x";
    ::mkfifo((root_ / "dev/fifo").c_str(), 0600);
    const std::string number = std::to_string(kMajor) + ":" + std::to_string(kMinor);
    fs::create_directory_symlink("../.." + directory().string().substr((root_ / "sys").string().size()),
                                 root_ / "sys/dev/char" / number);
    fs::create_directory_symlink("../../../../../../../../../class/tty", directory() / "subsystem");
    udev_record_ = root_ / "udev" / ("c" + number);
    fs::current_path(root_ / "dev");  // where a relative name leads
  }
  ~Tree() {
    fs::current_path("/");
    fs::remove_all(root_);
  }
  Tree(const Tree&) = delete;
  Tree& operator=(const Tree&) = delete;

  [[nodiscard]] base::Places places() const {
    base::Places places;
    places.dev = root_ / "dev";
    places.sys = root_ / "sys";
    places.udev_data = root_ / "udev";
    return places;
  }

  void say(std::string_view uevent, std::string_view record) {
    write_if_new(directory() / "uevent", uevent, uevent_);
    write_if_new(udev_record_, record, record_);
  }

 private:
  [[nodiscard]] fs::path directory() const {
    return root_ / "sys/devices/pci0000:00/0000:00:14.0/usb1/1-2/1-2:1.0/ttyUSB9/tty/ttyUSB9";
  }

  // Most inputs change the argument alone, and files are slow.
  static void write_if_new(const fs::path& path, std::string_view content, std::optional<std::string>& written) {
    if (written == content) return;
    std::ofstream{path, std::ios::binary} << content;
    written = content;
  }

  fs::path root_;
  fs::path udev_record_;
  std::optional<std::string> uevent_;
  std::optional<std::string> record_;
};

void look_up(std::string_view argument, const base::Places& places) {
  const auto device = device::identify(argument, places);
  if (!device) {
    require(!device.error().message.empty() && fuzz::is_harmless(device.error().message), "a refusal can be shown");
    return;
  }
  require(device->given == argument, "a device is called as it was given");
  require(!device->node.path.empty() && device->node.path.front() == '/', "a device has a path");
  require(fuzz::is_harmless(device->label), "a label can be shown");
  require(!device::covered_nodes(*device, Cover::unit).empty(), "a claim of it covers at least itself");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static Tree tree;
  const base::Places places = tree.places();
  std::string_view rest = fuzz::text_of(data, size);
  const std::string_view argument = fuzz::take_line(rest);
  if (const auto number = device::parse_number(argument)) {
    require(device::parse_number(device::to_string(*number)) == number, "a number is read as it is written");
    require(::major(number->rdev()) == number->major && ::minor(number->rdev()) == number->minor, "a number fits");
  }
  // Not an absolute path: it would lead out of the tree, to devices of this machine.
  if (!argument.starts_with('/') && argument.find("..") == std::string_view::npos) look_up(argument, places);
  const auto end = rest.find("\n\n");
  tree.say(rest.substr(0, end), end == std::string_view::npos ? std::string_view{} : rest.substr(end + 2));
  look_up("ttyUSB9", places);
  look_up("c188:1048574", places);
  return 0;
}
