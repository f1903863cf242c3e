// SPDX-License-Identifier: MIT
// holder.cpp - see the header.
#include "convention/holder.hpp"

#include "base/directory.hpp"
#include "base/process.hpp"
#include "base/unique_fd.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <functional>
#include <string>

namespace holdfast::convention {
namespace {

std::string read_file(const std::string& path) {
  const base::UniqueFd fd{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  std::string text;
  char buffer[4096];
  for (ssize_t got = 0; fd && (got = ::read(fd.get(), buffer, sizeof buffer)) > 0;)
    text.append(buffer, static_cast<std::size_t>(got));
  return text;
}

void for_each_line(std::string_view text, const std::function<bool(std::string_view)>& wants_more) {
  while (!text.empty()) {
    const auto end = std::min(text.find('\n'), text.size());
    if (!wants_more(text.substr(0, end))) return;
    text.remove_prefix(std::min(end + 1, text.size()));
  }
}

pid_t number(std::string_view text) {
  pid_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc{} && end == text.data() + text.size() ? value : 0;
}

// Calls `look(pid, fd directory path, fd name)` for each descriptor of each visible process until it returns true.
pid_t search_descriptors(const base::Places& places,
                         const std::function<bool(const std::string& process, const std::string& fd)>& look) {
  const base::Directory processes{::opendir(places.proc.c_str())};
  if (!processes) return 0;
  const pid_t own = ::getpid();
  while (const dirent* process = ::readdir(processes.get())) {
    const pid_t pid = number(process->d_name);
    if (pid <= 0 || pid == own) continue;
    const std::string directory = fmt::format("{}/{}", places.proc, process->d_name);
    const base::Directory descriptors{::opendir((directory + "/fd").c_str())};
    if (!descriptors) continue;
    while (const dirent* descriptor = ::readdir(descriptors.get()))
      if (descriptor->d_name[0] != '.' && look(directory, descriptor->d_name)) return pid;
  }
  return 0;
}

// The holder of a "lock:" line in fdinfo, whose format is that of /proc/locks (proc(5)).
bool has_lock(const std::string& fdinfo, LockKind kind) {
  bool found = false;
  for_each_line(read_file(fdinfo), [&](std::string_view line) {
    if (!line.starts_with("lock:")) return true;
    found = kind == LockKind::flock ? line.contains("FLOCK") : line.contains("OFDLCK") || line.contains("POSIX");
    return !found;
  });
  return found;
}

// How a file appears in proc(5)'s "1: FLOCK  ADVISORY  WRITE 4121 00:05:133 0 EOF", the device's numbers in hex.
std::string in_proc_locks(device::InodeId inode) {
  return fmt::format(" {:02x}:{:02x}:{} ", ::major(inode.dev), ::minor(inode.dev), inode.ino);
}

}  // namespace

Holder holder_of(pid_t pid) {
  Holder holder;
  holder.pid = pid;
  if (const auto facts = base::facts_of(pid)) {
    holder.start_ticks = facts->id.start_ticks;
    holder.command = facts->command;
    holder.user = base::user_name(facts->uid);
  }
  return holder;
}

bool shows_lock(device::InodeId inode, LockKind kind, Mode mode, const base::Places& places) {
  const std::string file = in_proc_locks(inode);
  bool found = false;
  for_each_line(read_file(places.proc + "/locks"), [&](std::string_view line) {
    const bool right_kind = kind == LockKind::flock ? line.contains(" FLOCK ") : !line.contains(" FLOCK ");
    const bool conflicts = mode == Mode::exclusive || line.contains(" WRITE ");
    found = right_kind && conflicts && !line.contains("->") && line.contains(file);
    return !found;
  });
  return found;
}

Holder find_lock_holder(device::InodeId inode, LockKind kind, const base::Places& places) {
  const std::string file = in_proc_locks(inode);
  pid_t taker = 0;
  for_each_line(read_file(places.proc + "/locks"), [&](std::string_view line) {
    const bool right_kind = kind == LockKind::flock ? line.contains(" FLOCK ") : line.contains(" POSIX ");
    if (!right_kind || line.contains("->") || !line.contains(file)) return true;
    std::string_view before = line.substr(0, line.find(file));
    before.remove_prefix(before.rfind(' ') + 1);
    taker = number(before);
    return false;
  });
  if (taker > 0 && base::is_alive({taker, 0})) return holder_of(taker);
  const pid_t found = search_descriptors(places, [&](const std::string& process, const std::string& fd) {
    struct stat status{};
    return ::stat(fmt::format("{}/fd/{}", process, fd).c_str(), &status) == 0 && status.st_dev == inode.dev &&
           status.st_ino == inode.ino && has_lock(fmt::format("{}/fdinfo/{}", process, fd), kind);
  });
  return found > 0 ? holder_of(found) : Holder{};
}

Holder find_opener(const device::Node& node, const base::Places& places) {
  if (node.id.kind == device::Kind::block) {
    const std::string number = fmt::format(" {}:{} ", node.id.major, node.id.minor);
    Holder kernel;
    for_each_line(read_file(places.proc + "/self/mountinfo"), [&](std::string_view line) {
      if (!line.contains(number)) return true;
      // proc(5): ID parent major:minor root MOUNTPOINT options
      for (int field = 0; field < 4; ++field) line.remove_prefix(std::min(line.find(' ') + 1, line.size()));
      kernel.command = "kernel";
      kernel.means.push_back(fmt::format("mounted on {}", line.substr(0, line.find(' '))));
      return false;
    });
    if (!kernel.means.empty()) return kernel;
  }
  const pid_t found = search_descriptors(places, [&](const std::string& process, const std::string& fd) {
    struct stat status{};
    if (::stat(fmt::format("{}/fd/{}", process, fd).c_str(), &status) != 0 || status.st_rdev != node.id.rdev())
      return false;
    const bool block = node.id.kind == device::Kind::block;
    return (block ? S_ISBLK(status.st_mode) : S_ISCHR(status.st_mode)) &&
           (node.id.devpts == 0 || status.st_dev == node.id.devpts);
  });
  return found > 0 ? holder_of(found) : Holder{};
}

bool UdevPatience::try_again(const Holder& holder) {
  constexpr std::array<std::string_view, 4> kUdev{"systemd-udevd", "(udev-worker)", "udevadm", "cdrom_id"};
  if (std::find(kUdev.begin(), kUdev.end(), holder.command) == kUdev.end()) return false;
  const auto now = std::chrono::steady_clock::now();
  if (!end_) end_ = now + std::chrono::seconds{1};
  if (now >= *end_) return false;
  constexpr int kPauseMs = 20;
  ::poll(nullptr, 0, kPauseMs);
  return true;
}

}  // namespace holdfast::convention
