// SPDX-License-Identifier: MIT
// doctor.cpp - one small examination per thing that a claim leans on. A kernel feature is asked for by using it,
// because a version number says nothing about a container's filter.
#include "observe/doctor.hpp"

#include "base/directory.hpp"
#include "base/error.hpp"
#include "base/process.hpp"
#include "base/unique_fd.hpp"
#include "convention/proxy.hpp"
#include "convention/uucp.hpp"
#include "device/device.hpp"
#include "observe/groups.hpp"
#include "observe/proc_scan.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/seccomp.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <map>
#include <optional>

#include <nlohmann/json.hpp>

namespace holdfast::observe {
namespace {

using Findings = std::vector<Finding>;

template <class Visitor>
void for_each_name(const std::string& path, Visitor&& visit) {
  const base::Directory directory{::opendir(path.c_str())};
  while (const dirent* entry = directory ? ::readdir(directory.get()) : nullptr)
    if (entry->d_name[0] != '.') visit(std::string{entry->d_name}, entry->d_type);
}

std::optional<long> number_in(const std::string& path) {
  const std::string text = read_text(AT_FDCWD, path.c_str());
  long value = 0;
  const auto [end, wrong] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (wrong != std::errc{}) return std::nullopt;
  return value;
}

bool is_permitted(const std::string& path, int mode) {
  return ::faccessat(AT_FDCWD, path.c_str(), mode, AT_EACCESS) == 0;
}

void add(Findings& findings, std::string_view topic, Weight weight, std::string what, std::string remedy = {}) {
  findings.push_back({std::string{topic}, weight, std::move(what), std::move(remedy)});
}

// FHS 3.0 section 5.9 and systemd's tmpfiles.d/legacy.conf: Debian has it 1777; upstream systemd made it root's own.
void examine_lock_directory(const base::Places& places, Findings& findings) {
  constexpr std::string_view kTopic = "lock_directory";
  const std::string& path = places.lock_dir;
  const std::string remedy = fmt::format(
      "install -d -m 1777 {0}, and for the next boot a line \"d {0} 1777 root root -\" in /etc/tmpfiles.d", path);
  struct stat facts{};
  if (::stat(path.c_str(), &facts) != 0 || !S_ISDIR(facts.st_mode))
    return add(findings, kTopic, Weight::problem,
               fmt::format("{} is {}: no UUCP lock files, and holdfast's own claims are not seen by each other", path,
                           S_ISDIR(facts.st_mode) || facts.st_mode == 0 ? "missing" : "not a directory"),
               remedy);
  if (!is_permitted(path, W_OK | X_OK))
    return add(findings, kTopic, Weight::problem,
               fmt::format("{} cannot be written to (mode {:04o}, owner {}): claims go on without lock files", path,
                           facts.st_mode & 07777U, base::user_name(facts.st_uid)),
               remedy);
  struct statvfs space{};
  if (::statvfs(path.c_str(), &space) == 0 && (space.f_bavail == 0 || (space.f_files > 0 && space.f_favail == 0)))
    return add(findings, kTopic, Weight::problem, fmt::format("the file system of {} is full", path),
               fmt::format("remove what fills it: df {0}; df -i {0}", path));
  if ((facts.st_mode & S_IWOTH) != 0 && (facts.st_mode & S_ISVTX) == 0)
    return add(findings, kTopic, Weight::problem, fmt::format("in {} anybody may remove anybody's lock files", path),
               fmt::format("chmod +t {}", path));
  if ((facts.st_mode & S_IWOTH) == 0)
    return add(
        findings, kTopic, Weight::note,
        fmt::format(
            "{} can be written to by you, but not by all users (mode {:04o}): their claims go on without lock files",
            path, facts.st_mode & 07777U),
        remedy);
  add(findings, kTopic, Weight::fine,
      fmt::format("{} can be written to by all (mode {:04o})", path, facts.st_mode & 07777U));
}

void examine_ddlp_directory(const base::Places& places, Findings& findings) {
  if (is_permitted(places.tmp, W_OK | X_OK))
    add(findings, "ddlp_directory", Weight::fine, fmt::format("{} takes the lock files of optical drives", places.tmp));
  else
    add(findings, "ddlp_directory", Weight::note,
        fmt::format("{} cannot be written to: claims of optical drives go on without DDLP", places.tmp),
        fmt::format("chmod 1777 {}", places.tmp));
}

// Whether we could replace a file of somebody's in a sticky directory.
bool is_removable(const base::Places& places, uid_t owner) {
  struct stat directory{};
  if (::stat(places.lock_dir.c_str(), &directory) != 0) return false;
  const bool sticky = (directory.st_mode & S_ISVTX) != 0;
  return is_permitted(places.lock_dir, W_OK | X_OK) &&
         (!sticky || ::geteuid() == 0 || ::geteuid() == owner || ::geteuid() == directory.st_uid);
}

void examine_uucp_file(const base::Places& places, const std::string& path, Findings& findings) {
  const auto file = convention::read_uucp(path);
  if (!file) return;
  const std::string remedy = fmt::format("rm {}", base::printable(path));
  if (file->stale) {
    const bool removable = is_removable(places, file->uid);
    add(findings, "stale_lock_file", removable ? Weight::note : Weight::problem,
        fmt::format("{} names process {}, which is dead{}", base::printable(path), file->content.pid,
                    removable ? "; the next claim takes it over, programs that only look for the file are refused"
                              : fmt::format("; only {} or root may remove it", base::user_name(file->uid))),
        remedy);
  } else if (file->errnum != 0 && file->errnum != ELOOP && file->errnum != ENXIO) {  // no link and no socket
    add(findings, "unread_lock_file", Weight::note,
        fmt::format("{} of user {} cannot be read: {}; it counts as taken", base::printable(path),
                    base::user_name(file->uid), base::errno_text(file->errnum)),
        "run as root to see whether its process lives");
  } else if (file->content.kind == convention::UucpContent::Kind::garbage) {
    add(findings, "garbled_lock_file", Weight::problem,
        fmt::format("{} of user {} names no process, so it counts as taken for ever", base::printable(path),
                    base::user_name(file->uid)),
        fmt::format("find out who made it, then {}", remedy));
  }
}

void examine_proxy(const std::string& path, Findings& findings, std::size_t& good) {
  struct stat facts{};
  if (::lstat(path.c_str(), &facts) != 0) return;
  const bool sound = S_ISREG(facts.st_mode) && facts.st_nlink == 1;
  if (sound && is_permitted(path, R_OK | W_OK)) {
    ++good;  // whoever made it first owns it, which means nothing
    return;
  }
  add(findings, "own_lock_file", Weight::problem,
      fmt::format("{} {}: claims of its device fail", base::printable(path),
                  sound ? fmt::format("of user {} cannot be opened by you (mode {:04o})", base::user_name(facts.st_uid),
                                      facts.st_mode & 07777U)
                        : "is not a plain file with one name"),
      sound ? fmt::format("chmod 0666 {}", base::printable(path)) : fmt::format("rm {}", base::printable(path)));
}

void examine_lock_files(const base::Places& places, Findings& findings) {
  const std::size_t before = findings.size();
  std::size_t proxies = 0;
  for_each_name(places.lock_dir, [&](const std::string& name, unsigned char) {
    const std::string path = places.lock_dir + "/" + name;
    if (convention::proxy_device(name)) examine_proxy(path, findings, proxies);
    if (convention::is_uucp_name(name)) examine_uucp_file(places, path, findings);
  });
  if (findings.size() == before)
    add(findings, "lock_files", Weight::fine,
        fmt::format("no stale or garbled lock file; {} of holdfast's own, which stay", proxies));
}

void examine_sysctls(const base::Places& places, Findings& findings) {
  std::string weak;
  for (const std::string_view name :
       {"protected_symlinks", "protected_hardlinks", "protected_regular", "protected_fifos"})
    if (const auto value = number_in(fmt::format("{}/sys/fs/{}", places.proc, name)); value && *value == 0)
      weak += fmt::format("{}fs.{}", weak.empty() ? "" : " ", name);
  if (weak.empty())
    return add(findings, "protected_files", Weight::fine, "fs.protected_* guard world-writable directories");
  add(findings, "protected_files", Weight::note,
      fmt::format("off: {}; holdfast does not need them, programs that write lock files carelessly do", weak),
      "sysctl -w fs.protected_symlinks=1 fs.protected_hardlinks=1 fs.protected_regular=2 fs.protected_fifos=1");
}

// Device nodes that are closed to us, by group.
struct Closed {
  std::string example;
  std::size_t count = 0;
  bool pluggable = false;  // something that people claim, not the system's disks
};

bool is_claimable_name(std::string_view name) {
  for (const std::string_view prefix : {"ttyS", "ttyUSB", "ttyACM", "ttyAMA", "rfcomm", "sr", "sg", "sd", "vd", "nvme",
                                        "mmcblk", "st", "hidraw", "video", "media", "lp"})
    if (name.starts_with(prefix) && name.size() > prefix.size() && name[prefix.size()] >= '0' &&
        name[prefix.size()] <= 'z')
      return true;
  return false;
}

void examine_groups(const base::Places& places, Findings& findings) {
  std::map<gid_t, Closed> closed;
  for_each_name(places.dev, [&](const std::string& name, unsigned char type) {
    if ((type != DT_CHR && type != DT_BLK) || !is_claimable_name(name)) return;
    const std::string path = places.dev + "/" + name;
    struct stat facts{};
    if (::lstat(path.c_str(), &facts) != 0 || is_permitted(path, R_OK | W_OK) || (facts.st_mode & S_IRGRP) == 0) return;
    Closed& group = closed[facts.st_gid];
    if (group.count++ == 0) group.example = path;
    group.pluggable = group.pluggable || type == DT_CHR || name.starts_with("sr");
  });
  const std::string user = base::user_name(::geteuid());
  for (const auto& [gid, group] : closed) {
    const std::string name = group_name(gid);
    const bool listed = is_listed_in_group(gid, user);
    std::string remedy = listed     ? "log out and in again: you are in the group since, but this session is not"
                         : gid == 0 ? std::string{"run as root"}
                                    : fmt::format("usermod -aG {} {}, then log in again", name, user);
    if (!group.pluggable) remedy += "; not advised: it gives the whole disk away";
    add(findings, "groups", group.pluggable ? Weight::problem : Weight::note,
        fmt::format("{} {} of group {} closed to {}: {}", group.count, group.count == 1 ? "device is" : "devices are",
                    name, user, base::printable(group.example)),
        std::move(remedy));
  }
  if (closed.empty()) add(findings, "groups", Weight::fine, fmt::format("no device is closed to {}", user));
}

void examine_limits(Findings& findings) {
  constexpr rlim_t kComfortable = 256;  // a claim of a disk with many partitions holds some six descriptors per node
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  if (limit.rlim_cur < kComfortable)
    add(findings, "descriptors", Weight::problem,
        fmt::format("only {} descriptors per process: large claims fail", limit.rlim_cur),
        "ulimit -n 1024, or LimitNOFILE= in the service");
  else
    add(findings, "descriptors", Weight::fine, fmt::format("{} descriptors per process", limit.rlim_cur));
}

void examine_seccomp(Findings& findings) {
  struct seccomp_notif_sizes sizes{};
  std::uint32_t action = SECCOMP_RET_USER_NOTIF;
  const bool there = ::syscall(SYS_seccomp, SECCOMP_GET_NOTIF_SIZES, 0, &sizes) == 0 &&
                     ::syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) == 0;
  if (there)
    add(findings, "seccomp", Weight::fine, "seccomp user notification: run hands conventions over to its command");
  else
    add(findings, "seccomp", Weight::problem,
        fmt::format("no seccomp user notification ({}): run cannot hand conventions over", base::errno_text(errno)),
        "Linux 5.5 with CONFIG_SECCOMP_FILTER, or a container profile that permits seccomp(2); until then run "
        "--no-hand-over");
}

void examine_inotify(const base::Places& places, Findings& findings) {
  constexpr long kFew = 64;
  const base::UniqueFd queue{::inotify_init1(IN_CLOEXEC)};
  const std::string remedy = "sysctl -w fs.inotify.max_user_instances=512 fs.inotify.max_user_watches=65536";
  const auto instances = number_in(places.proc + "/sys/fs/inotify/max_user_instances");
  if (!queue)
    add(findings, "inotify", Weight::problem,
        fmt::format("inotify: {}: waiting wakes up late", base::errno_text(errno)), remedy);
  else if (instances && *instances < kFew)
    add(findings, "inotify", Weight::note,
        fmt::format("only {} inotify instances per user: more waiters than that wake up late", *instances), remedy);
  else
    add(findings, "inotify", Weight::fine, "inotify wakes waiters");
}

void examine_pidfd(Findings& findings) {
  const base::UniqueFd process{static_cast<int>(::syscall(SYS_pidfd_open, ::getpid(), 0))};
  if (process)
    add(findings, "pidfd", Weight::fine, "pidfd tells a process from one that got its number");
  else
    add(findings, "pidfd", Weight::problem, fmt::format("no pidfd_open(2): {}", base::errno_text(errno)),
        "Linux 5.3 or later");
}

void examine_record_locks(Findings& findings) {
  const base::UniqueFd file{::memfd_create("holdfast-doctor", MFD_CLOEXEC)};
  struct flock whole{};
  whole.l_type = F_WRLCK;
  if (file && ::fcntl(file.get(), F_OFD_SETLK, &whole) == 0)
    add(findings, "record_locks", Weight::fine, "open-file-description locks");
  else
    add(findings, "record_locks", Weight::problem,
        fmt::format("no open-file-description locks: {}", base::errno_text(errno)), "Linux 3.15 or later");
}

// Programs that open serial ports by themselves (ModemManager: system-wide probing; brltty: takes CH340 adapters).
void examine_grabbers(const base::Places& places, Findings& findings) {
  for_each_name(places.proc, [&](const std::string& name, unsigned char) {
    if (name.front() < '0' || name.front() > '9') return;
    std::string command = read_text(AT_FDCWD, fmt::format("{}/{}/comm", places.proc, name).c_str());
    command.erase(std::min(command.find('\n'), command.size()));
    if (command == "ModemManager")
      add(findings, "port_grabber", Weight::note,
          fmt::format("ModemManager[{}] probes serial ports when they appear", name),
          "mmcli --inhibit-device, the udev property ID_MM_DEVICE_IGNORE=1 for the adapter, or systemctl disable --now "
          "ModemManager");
    else if (command == "brltty")
      add(findings, "port_grabber", Weight::note, fmt::format("brltty[{}] may take USB serial adapters", name),
          "systemctl disable --now brltty brltty-udev, or apt remove brltty, when no braille display is used");
  });
}

}  // namespace

std::string_view to_string(Weight weight) {
  switch (weight) {
    case Weight::fine:
      return "fine";
    case Weight::note:
      return "note";
    case Weight::problem:
      break;
  }
  return "problem";
}

std::vector<Finding> examine(const base::Places& places) {
  Findings findings;
  examine_lock_directory(places, findings);
  examine_ddlp_directory(places, findings);
  examine_lock_files(places, findings);
  examine_sysctls(places, findings);
  examine_groups(places, findings);
  examine_limits(findings);
  examine_seccomp(findings);
  examine_inotify(places, findings);
  examine_pidfd(findings);
  examine_record_locks(findings);
  examine_grabbers(places, findings);
  return findings;
}

bool is_healthy(const std::vector<Finding>& findings) {
  return std::ranges::none_of(findings, [](const Finding& one) { return one.weight == Weight::problem; });
}

std::string to_text(const std::vector<Finding>& findings) {
  std::string text;
  for (const Finding& one : findings) {
    text += fmt::format("{:<8} {}\n", to_string(one.weight), base::printable(one.what, 1024));
    if (!one.remedy.empty()) text += fmt::format("{:<8} remedy: {}\n", "", base::printable(one.remedy, 1024));
  }
  return text;
}

std::string to_json(const std::vector<Finding>& findings) {
  using nlohmann::ordered_json;
  ordered_json out;
  out["healthy"] = is_healthy(findings);
  out["findings"] = ordered_json::array();
  for (const Finding& one : findings)
    out["findings"].push_back({{"topic", one.topic},
                               {"weight", to_string(one.weight)},
                               {"finding", one.what},
                               {"remedy", one.remedy.empty() ? ordered_json{} : ordered_json(one.remedy)}});
  return out.dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace holdfast::observe
