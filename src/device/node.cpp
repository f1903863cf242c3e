// SPDX-License-Identifier: MIT
// node.cpp - what makes two nodes the same device, and how that is written down.
#include "device/node.hpp"

#include <sys/sysmacros.h>

#include <array>
#include <charconv>

namespace holdfast::device {

dev_t DeviceId::rdev() const { return ::makedev(major, minor); }

bool is_pseudo_terminal(const DeviceId& id) {
  // UNIX98_PTY_SLAVE_MAJOR and its count, include/uapi/linux/major.h
  return id.kind == Kind::character && id.major >= 136 && id.major <= 143;
}

std::optional<Node> node_from(const struct stat& facts, std::string path) {
  if (!S_ISCHR(facts.st_mode) && !S_ISBLK(facts.st_mode)) return std::nullopt;
  Node node;
  node.id.kind = S_ISBLK(facts.st_mode) ? Kind::block : Kind::character;
  node.id.major = major(facts.st_rdev);
  node.id.minor = minor(facts.st_rdev);
  if (is_pseudo_terminal(node.id)) node.id.devpts = facts.st_dev;
  node.path = std::move(path);
  node.inode = {facts.st_dev, facts.st_ino};
  node.uid = facts.st_uid;
  node.gid = facts.st_gid;
  node.mode = facts.st_mode;
  return node;
}

std::optional<Node> node_at(const std::string& path) {
  struct stat facts;
  if (path.empty() || ::lstat(path.c_str(), &facts) != 0) return std::nullopt;
  return node_from(facts, path);
}

std::string to_string(const DeviceId& id) {
  std::string text{id.kind == Kind::block ? 'b' : 'c'};
  text.append(std::to_string(id.major)).append(1, ':').append(std::to_string(id.minor));
  if (id.devpts != 0) text.append(1, '@').append(std::to_string(id.devpts));
  return text;
}

std::optional<DeviceId> parse_number(std::string_view text) {
  if (text.empty() || (text.front() != 'b' && text.front() != 'c')) return std::nullopt;
  DeviceId id;
  id.kind = text.front() == 'b' ? Kind::block : Kind::character;
  const char* const end = text.data() + text.size();
  const auto [colon, bad_major] = std::from_chars(text.data() + 1, end, id.major);
  if (bad_major != std::errc{} || colon == end || *colon != ':') return std::nullopt;
  const auto [rest, bad_minor] = std::from_chars(colon + 1, end, id.minor);
  if (bad_minor != std::errc{} || rest != end) return std::nullopt;
  // include/linux/kdev_t.h: 12 bits of major, 20 of minor; a larger number would be another device's after the cut.
  if (id.major >= 1U << 12U || id.minor >= 1U << 20U) return std::nullopt;
  return id;
}

std::string_view to_string(Family family) {
  static constexpr std::array<std::string_view, 12> kNames{"terminal", "pseudo-terminal", "disk",  "partition",
                                                           "optical",  "scsi-generic",    "tape",  "usb",
                                                           "hid",      "input",           "video", "other"};
  return kNames.at(static_cast<std::size_t>(family));
}

std::string_view to_string(Relation relation) {
  static constexpr std::array<std::string_view, 6> kNames{"same function", "partition",   "whole disk",
                                                          "layer above",   "layer below", "same unit"};
  return kNames.at(static_cast<std::size_t>(relation));
}

}  // namespace holdfast::device
