// SPDX-License-Identifier: MIT
// kernel_use.cpp - the holders that have no process. The kernel takes block devices as firmly as O_EXCL does, and no
// descriptor table shows it; mountinfo, swaps and sysfs' holders directories do.
#include "observe/kernel_use.hpp"

#include "base/directory.hpp"
#include "observe/proc_scan.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <string_view>

namespace holdfast::observe {
namespace {

std::vector<std::string> entries(const std::string& path) {
  std::vector<std::string> names;
  const base::Directory directory{::opendir(path.c_str())};
  while (const dirent* entry = directory ? ::readdir(directory.get()) : nullptr)
    if (entry->d_name[0] != '.') names.emplace_back(entry->d_name);
  return names;
}

std::vector<std::string_view> words(std::string_view line) {
  std::vector<std::string_view> found;
  for (;;) {
    const auto start = line.find_first_not_of(" \t");
    if (start == std::string_view::npos) return found;
    const auto end = std::min(line.find_first_of(" \t", start), line.size());
    found.push_back(line.substr(start, end - start));
    line.remove_prefix(end);
  }
}

template <class Visitor>
void for_each_line(const std::string& text, Visitor&& visit) {
  for (std::string_view rest = text; !rest.empty();) {
    const auto end = std::min(rest.find('\n'), rest.size());
    visit(rest.substr(0, end));
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
}

// mountinfo and swaps write blank, tab, newline and backslash as three octal digits (seq_path in the kernel).
std::string unescape(std::string_view text) {
  const auto octal = [](char c) { return c >= '0' && c <= '7'; };
  std::string plain;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size() && octal(text[i + 1]) && octal(text[i + 2]) && octal(text[i + 3])) {
      plain += static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 + (text[i + 3] - '0'));
      i += 3;
    } else {
      plain += text[i];
    }
  }
  return plain;
}

std::optional<device::DeviceId> block_device_at(const std::string& path) {
  struct stat facts{};
  if (!path.starts_with('/') || ::stat(path.c_str(), &facts) != 0 || !S_ISBLK(facts.st_mode)) return std::nullopt;
  return device::DeviceId{device::Kind::block, major(facts.st_rdev), minor(facts.st_rdev)};
}

// "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue" (proc_pid_mountinfo(5)).
void add_mounts(const base::Places& places, std::vector<KernelUse>& uses) {
  for_each_line(read_text(AT_FDCWD, (places.proc + "/self/mountinfo").c_str()), [&](std::string_view line) {
    const auto field = words(line);
    if (field.size() < 10) return;
    std::size_t dash = 6;
    while (dash < field.size() && field[dash] != "-") ++dash;
    auto id = device::parse_number("b" + std::string{field[2]});
    // File systems of several devices (btrfs) and of none have an anonymous number, major 0; their source may still be
    // one.
    if (id && id->major == 0) id = dash + 2 < field.size() ? block_device_at(unescape(field[dash + 2])) : std::nullopt;
    if (id) uses.push_back({*id, "mounted on " + unescape(field[4])});
  });
}

void add_swap(const base::Places& places, std::vector<KernelUse>& uses) {
  for_each_line(read_text(AT_FDCWD, (places.proc + "/swaps").c_str()), [&](std::string_view line) {
    const auto field = words(line);
    if (field.size() < 2 || field[1] != "partition") return;
    if (const auto id = block_device_at(unescape(field[0]))) uses.push_back({*id, "swap"});
  });
}

void add_stacked(const base::Places& places, std::vector<KernelUse>& uses) {
  const std::string all = places.sys + "/class/block/";
  for (const std::string& name : entries(all)) {
    const auto holders = entries(all + name + "/holders");
    if (holders.empty()) continue;
    std::string number = read_text(AT_FDCWD, (all + name + "/dev").c_str());
    number.erase(std::min(number.find('\n'), number.size()));
    const auto id = device::parse_number("b" + number);
    for (const std::string& holder : holders)
      if (id) uses.push_back({*id, "used by " + holder});
  }
}

}  // namespace

std::vector<KernelUse> kernel_uses(const base::Places& places) {
  std::vector<KernelUse> uses;
  add_mounts(places, uses);
  add_swap(places, uses);
  add_stacked(places, uses);
  return uses;
}

}  // namespace holdfast::observe
