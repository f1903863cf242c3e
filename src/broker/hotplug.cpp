// SPDX-License-Identifier: MIT
// hotplug.cpp - lib/kobject_uevent.c writes "ACTION@DEVPATH", then KEY=VALUE, each ended by a 0. Root may send to the
// same group, so the sender's port is looked at: the kernel's is 0, and no process can have it (netlink(7)).
#include "broker/hotplug.hpp"

#include "base/error.hpp"
#include "wire/codec.hpp"

#include <linux/netlink.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>

namespace holdfast::broker {
namespace {

constexpr unsigned kKernelGroup = 1;         // 2 is udevd's
constexpr std::size_t kMostUevent = 8192;    // UEVENT_BUFFER_SIZE is 2048 (linux/kobject.h), before it the header
constexpr int kReceiveBuffer = 1024 * 1024;  // a hub with all its devices at once
constexpr int kAtOnce = 100;

// Bits of a number: include/linux/kdev_t.h.
constexpr std::uint32_t kMostMajor = (1U << 12) - 1;
constexpr std::uint32_t kMostMinor = (1U << 20) - 1;

std::optional<std::uint32_t> number(std::string_view text, std::uint32_t most) {
  std::uint32_t value = 0;
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc{} || rest != end || value > most) return std::nullopt;
  return value;
}

// A name below /dev that stays there.
bool is_name(std::string_view name) {
  if (name.empty() || name.size() > 200 || name.front() == '/' || name.back() == '/') return false;
  const auto harmless = [](char letter) { return letter > ' ' && letter < 0x7F; };
  return std::ranges::all_of(name, harmless) && !name.starts_with("../") && !name.ends_with("/..") && name != ".." &&
         name.find("/../") == std::string_view::npos;
}

wire::Event dropped() {
  wire::Event event;
  event.kind = wire::EventKind::missed;
  event.at = std::chrono::system_clock::now();
  event.detail = "devices came or went faster than the kernel keeps";
  return event;
}

}  // namespace

std::optional<wire::Event> event_of_uevent(std::string_view uevent, wire::WallTime at) {
  const auto header = uevent.find('\0');
  if (header == std::string_view::npos || uevent.substr(0, header).find('@') == std::string_view::npos)
    return std::nullopt;
  uevent.remove_prefix(header + 1);
  std::string_view action;
  std::string_view name;
  std::string_view subsystem;
  std::string_view path;
  std::optional<std::uint32_t> major;
  std::optional<std::uint32_t> minor;
  while (!uevent.empty()) {
    const auto end = uevent.find('\0');
    if (end == std::string_view::npos) return std::nullopt;
    const std::string_view line = uevent.substr(0, end);
    uevent.remove_prefix(end + 1);
    const auto equals = line.find('=');
    const std::string_view key = line.substr(0, equals);
    const std::string_view value = equals == std::string_view::npos ? "" : line.substr(equals + 1);
    if (key == "ACTION") action = value;
    if (key == "DEVNAME") name = value;
    if (key == "SUBSYSTEM") subsystem = value;
    if (key == "DEVPATH") path = value;
    if (key == "MAJOR") major = number(value, kMostMajor);
    if (key == "MINOR") minor = number(value, kMostMinor);
  }
  if ((action != "add" && action != "remove") || !major || !minor || !is_name(name)) return std::nullopt;
  wire::Event event;
  event.kind = action == "add" ? wire::EventKind::added : wire::EventKind::removed;
  event.at = at;
  event.device.path = "/dev/" + std::string{name};
  event.device.kind = subsystem == "block" ? wire::NodeKind::block : wire::NodeKind::character;
  event.device.major = *major;
  event.device.minor = *minor;
  event.detail = base::printable(path, wire::kMostText);
  return event;
}

Result<Hotplug> Hotplug::open() {
  const auto fault = [](const char* what) { return std::unexpected{base::fault(errno, what, "kernel uevents")}; };
  base::UniqueFd socket{::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_KOBJECT_UEVENT)};
  if (!socket) return fault("socket");
  // Without CAP_NET_ADMIN the limit of the system stays, and the kernel says when it dropped some.
  if (::setsockopt(socket.get(), SOL_SOCKET, SO_RCVBUFFORCE, &kReceiveBuffer, sizeof kReceiveBuffer) != 0)
    (void)::setsockopt(socket.get(), SOL_SOCKET, SO_RCVBUF, &kReceiveBuffer, sizeof kReceiveBuffer);
  sockaddr_nl address{};
  address.nl_family = AF_NETLINK;
  address.nl_groups = kKernelGroup;
  if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) return fault("bind");
  return Hotplug{std::move(socket)};
}

std::vector<wire::Event> Hotplug::take() {
  std::vector<wire::Event> events;
  std::array<char, kMostUevent> buffer;
  for (int i = 0; i < kAtOnce; ++i) {
    sockaddr_nl from{};
    socklen_t size = sizeof from;
    const ssize_t got =
        ::recvfrom(socket_.get(), buffer.data(), buffer.size(), MSG_TRUNC, reinterpret_cast<sockaddr*>(&from), &size);
    if (got < 0 && errno == ENOBUFS) {
      events.push_back(dropped());
      continue;
    }
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) break;
    const auto length = static_cast<std::size_t>(got);
    if (from.nl_pid != 0 || size != sizeof from || length > buffer.size()) continue;
    if (auto event = event_of_uevent({buffer.data(), length}, std::chrono::system_clock::now()))
      events.push_back(std::move(*event));
  }
  return events;
}

}  // namespace holdfast::broker
