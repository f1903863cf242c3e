// SPDX-License-Identifier: MIT
// udev_database.cpp - udev keeps one text file per device number, read here directly: lines "S:link" and "E:KEY=value"
// (systemd, src/libsystemd/sd-device/device-private.c). Several devices may claim one link, and only one gets it, so
// every link is checked against the node.
#include "device/udev_database.hpp"

#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <span>

namespace holdfast::device {
namespace {

bool leads_to(const std::string& link, const DeviceId& id) {
  struct stat facts;
  return ::stat(link.c_str(), &facts) == 0 &&
         (id.kind == Kind::block ? S_ISBLK(facts.st_mode) : S_ISCHR(facts.st_mode)) && facts.st_rdev == id.rdev();
}

std::span<const std::string_view> link_directories(Family family) {
  static constexpr std::string_view kSerial[] = {"/serial/by-id", "/serial/by-path"};
  static constexpr std::string_view kDisk[] = {"/disk/by-id", "/disk/by-path"};
  static constexpr std::string_view kInput[] = {"/input/by-id", "/input/by-path"};
  static constexpr std::string_view kVideo[] = {"/v4l/by-id", "/v4l/by-path"};
  static constexpr std::string_view kTape[] = {"/tape/by-id", "/tape/by-path"};
  switch (family) {
    case Family::terminal:
      return kSerial;
    case Family::disk:
    case Family::partition:
    case Family::optical:
      return kDisk;
    case Family::input:
      return kInput;
    case Family::video:
      return kVideo;
    case Family::tape:
      return kTape;
    default:
      return {};
  }
}

std::string with_blanks(std::string_view text) {
  std::string words{text};
  std::ranges::replace(words, '_', ' ');
  return words;
}

void take_line(std::string_view line, const base::Places& places, UdevRecord& record) {
  const auto value_of = [line](std::string_view key) -> std::string_view {
    return line.starts_with(key) ? line.substr(key.size()) : std::string_view{};
  };
  if (line.starts_with("S:")) record.links.push_back(places.dev + "/" + std::string{line.substr(2)});
  if (const auto value = value_of("E:ID_VENDOR="); !value.empty()) record.vendor = with_blanks(value);
  if (const auto value = value_of("E:ID_MODEL="); !value.empty()) record.model = with_blanks(value);
  if (const auto value = value_of("E:ID_SERIAL_SHORT="); !value.empty()) record.serial = value;
}

}  // namespace

UdevRecord udev_record(Reader& reader, const Node& node, Family family, const base::Places& places) {
  UdevRecord record;
  const std::string content = reader.text(places.udev_data + (node.id.kind == Kind::block ? "/b" : "/c") +
                                          std::to_string(node.id.major) + ":" + std::to_string(node.id.minor));
  for (std::string_view rest = content; !rest.empty();) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(line.size() + 1, rest.size()));
    take_line(line, places, record);
  }
  if (content.empty() && ::access(places.udev_data.c_str(), F_OK) != 0) {
    for (const std::string_view sub : link_directories(family)) {
      const std::string dir = places.dev + std::string{sub};
      for (const Entry& entry : reader.entries(dir)) record.links.push_back(dir + "/" + entry.name);
    }
  }
  std::erase_if(record.links, [&node](const std::string& link) { return !leads_to(link, node.id); });
  std::ranges::sort(record.links);
  return record;
}

std::string stable_name(const std::vector<std::string>& links) {
  for (const std::string_view where : {"/by-id/", "/by-path/"})
    for (const std::string& link : links)
      if (link.find(where) != std::string::npos) return link;
  return {};
}

}  // namespace holdfast::device
