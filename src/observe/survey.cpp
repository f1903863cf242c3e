// SPDX-License-Identifier: MIT
// survey.cpp - one picture out of many partial ones. Each source adds what it knows to the Use of a process on a
// device; what no process can be found for stays in the picture as unknown, because a device that looks free and is not
// is the worst answer.
#include "base/directory.hpp"
#include "base/error.hpp"
#include "base/process.hpp"
#include "convention/driver_lock.hpp"
#include "convention/proxy.hpp"
#include "convention/uucp.hpp"
#include "observe/kernel_use.hpp"
#include "observe/observe.hpp"
#include "observe/proc_scan.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <future>
#include <map>
#include <set>
#include <system_error>
#include <tuple>

namespace holdfast::observe {
namespace {

using device::DeviceId;
using device::InodeId;

std::string_view means_of(LockLine::Kind kind) {
  switch (kind) {
    case LockLine::Kind::flock:
      return "flock";
    case LockLine::Kind::posix:
    case LockLine::Kind::ofd:
      return "record lock";
    case LockLine::Kind::lease:
      return "lease";
    case LockLine::Kind::other:
      break;
  }
  return "kernel lock";
}

Mode mode_of(const LockLine& lock) { return lock.write ? Mode::exclusive : Mode::shared; }

// One device while the picture of it grows.
struct Slot {
  device::Node node;
  std::optional<device::Relation> relation;
  std::set<InodeId> inodes;                          // every node of this number that was met, in any namespace
  std::map<std::pair<pid_t, bool>, Use> by_process;  // second: waits
  std::vector<Use> others;                           // of no process that we can name
  std::set<pid_t> openers;

  Use& use_of(pid_t pid, bool waits) {
    Use& use = by_process[{pid, waits}];
    use.who.pid = pid;
    if (waits) use.standing = Standing::waits;
    return use;
  }
};

void add_means(Use& use, std::string means) {
  if (std::ranges::find(use.who.means, means) == use.who.means.end()) use.who.means.push_back(std::move(means));
}

void add_lock(Use& use, const LockLine& lock) {
  add_means(use, std::string{means_of(lock.kind)});
  if (!use.ours && use.mode != Mode::exclusive) use.mode = mode_of(lock);
}

// Ours, lock files, kernel locks: the order of the sources is an accident of where the survey began.
void sort_means(std::vector<std::string>& means) {
  const auto rank = [](const std::string& one) {
    return one == convention::entry(Convention::proxy).means ? 0 : one.starts_with("UUCP lock file ") ? 1 : 2;
  };
  std::ranges::sort(
      means, [&](const std::string& a, const std::string& b) { return std::pair{rank(a), a} < std::pair{rank(b), b}; });
}

// Kinds of device that plain openers are listed of when everything is surveyed: see survey() in observe.hpp.
bool is_fought_over(const DeviceId& id, const base::Places& places) {
  if (id.kind == device::Kind::block) return true;
  // Documentation/admin-guide/devices.txt: 4:0-63 virtual consoles, 5 tty, console and ptmx.
  if ((id.major == 4 && id.minor < 64) || id.major == 5 || id.devpts != 0) return false;
  const std::string link = fmt::format("{}/dev/char/{}:{}/subsystem", places.sys, id.major, id.minor);
  char target[512];
  const ssize_t length = ::readlink(link.c_str(), target, sizeof target);
  std::string_view subsystem{target, length > 0 ? static_cast<std::size_t>(length) : 0};
  subsystem.remove_prefix(std::min(subsystem.rfind('/') + 1, subsystem.size()));
  for (const std::string_view listed : {"tty", "scsi_generic", "scsi_tape", "bsg", "video4linux", "media", "dvb",
                                        "hidraw", "usb", "usbmisc", "printer", "ppdev"})
    if (subsystem == listed) return true;
  return false;
}

// Whether the terminal is the controlling terminal of the process's session, and whether the process leads that
// session. proc_pid_stat(5): fields 6 (session) and 7 (tty_nr, in the kernel's own encoding of a device number).
enum class LoginPart : std::uint8_t { none, leader, member };
LoginPart login_part(pid_t pid, const DeviceId& id, const base::Places& places) {
  const std::string stat = read_text(AT_FDCWD, fmt::format("{}/{}/stat", places.proc, pid).c_str());
  std::string_view rest = stat;
  rest.remove_prefix(std::min(rest.rfind(')') + 1, rest.size()));
  long session = 0;
  long terminal = 0;
  for (int field = 2; field < 8 && !rest.empty(); ++field) {
    const auto end = std::min(rest.find(' '), rest.size());
    const std::string_view word = rest.substr(0, end);
    if (field == 6) std::from_chars(word.data(), word.data() + word.size(), session);
    if (field == 7) std::from_chars(word.data(), word.data() + word.size(), terminal);
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  const auto number = static_cast<unsigned>(terminal);
  const bool same =
      ((number >> 8) & 0xFFFU) == id.major && ((number & 0xFFU) | ((number >> 12) & 0xFFF00U)) == id.minor;
  if (!same || terminal == 0) return LoginPart::none;
  return session == pid ? LoginPart::leader : LoginPart::member;
}

class Surveyor {
 public:
  explicit Surveyor(const base::Places& places) : places_{places} {}

  Result<> add_named(const std::string& argument) {
    auto found = device::identify(argument, places_);
    if (!found) return std::unexpected{std::move(found.error())};
    add_slot(found->node, std::nullopt);
    for (const device::Sibling& sibling : found->siblings) add_slot(sibling.node, sibling.relation);
    add_proxy_and_lock_files(*found, found->node);
    for (const device::Sibling& sibling : found->siblings) add_proxy_and_lock_files(*found, sibling.node);
    return {};
  }

  void add_everything() {
    everything_ = true;
    read_lock_directory();
  }

  Survey finish() {
    std::vector<LockLine> table;
    auto pending = start_reading_lock_table();
    if (everything_) table = pending.get();  // says what to look for
    for (const LockLine& lock : table) locked_.insert(lock.inode);
    add_kernel_uses();
    add_driver_owners();
    const ProcScan scan =
        scan_processes([this](const DeviceId& id, const InodeId& inode) { return wanted(id, inode); }, places_);
    if (pending.valid()) table = pending.get();
    for (const OpenFile& file : scan.files) add_open_file(file);
    if (everything_) find_unopened_nodes(table);
    add_lock_table(table, scan);
    Survey survey;
    for (auto& [id, slot] : slots_) finish_slot(slot, survey);
    tell_blindness(scan, survey);
    return survey;
  }

 private:
  // A read of /proc/locks sleeps some 10 ms for a grace period (fs/locks.c, locks_start(): percpu_down_write()), a
  // third of the time that a survey among 2,000 processes takes: it passes beside the scan.
  std::future<std::vector<LockLine>> start_reading_lock_table() const {
    const auto read = [this] { return read_lock_table(places_); };
    try {
      return std::async(std::launch::async, read);
    } catch (const std::system_error&) {  // no thread to be had
      return std::async(std::launch::deferred, read);
    }
  }

  Slot& add_slot(const device::Node& node, std::optional<device::Relation> relation) {
    const auto [place, fresh] = slots_.try_emplace(node.id);
    Slot& slot = place->second;
    if (fresh) {
      slot.node = node;
      slot.relation = relation;
    } else if (!relation) {
      slot.relation.reset();  // asked for by name after it was met as a sibling
    }
    slot.inodes.insert(node.inode);
    return slot;
  }

  void add_proxy_and_lock_files(const device::Device& device, const device::Node& node) {
    Slot& slot = slots_.at(node.id);
    add_proxy(slot, convention::proxy_path(node.id, places_));
    if (node.id.kind != device::Kind::character) return;
    const auto names = convention::uucp_names(device, node);
    for (const auto* list : {&names.create, &names.watch})
      for (const std::string& name : *list) add_lock_file(slot, places_.lock_dir + "/" + name);
    // Where the lock directory is closed to it, QtSerialPort locks in /tmp (its search list in qserialport_unix.cpp).
    for (const std::string& name : names.create) add_lock_file(slot, places_.tmp + "/" + name);
  }

  void add_proxy(Slot& slot, const std::string& path) {
    const auto records = convention::read_proxy(path);
    if (!records) {
      if (records.error().errnum != ENOENT) unreadable_.push_back(path);
      return;
    }
    for (const convention::ProxyRecord& record : *records) {
      const auto* facts = facts_of(record.who.pid);
      // The record's pid is one of the writer's pid namespace: another start time means it is not this process.
      const bool here = facts && (record.who.start_ticks == 0 || record.who.start_ticks == facts->id.start_ticks);
      Use& use = here ? slot.use_of(record.who.pid, record.waiting) : slot.others.emplace_back();
      Holder who = record.who;
      who.means = std::move(use.who.means);
      if (!use.ours) use.mode = record.mode;
      use.ours = true;
      use.who = std::move(who);
      use.standing = record.waiting ? Standing::waits : Standing::holds;
      add_means(use, std::string{convention::entry(Convention::proxy).means});
    }
  }

  void add_lock_file(Slot& slot, const std::string& path) {
    const auto file = convention::read_uucp(path);
    if (!file) return;
    if (!seen_lock_files_.insert({slot.node.id, path}).second) return;
    if (everything_ && file->stale) return;  // doctor lists those
    const bool named = file->content.kind == convention::UucpContent::Kind::pid;
    Use& use = named && !file->stale ? slot.use_of(file->content.pid, false) : slot.others.emplace_back();
    if (named) use.who.pid = file->content.pid;
    if (!named) use.kind = UserKind::unknown;
    if (file->stale) {
      use.standing = Standing::stale;
      use.who.user = user_of(file->uid);
    }
    struct stat status{};
    if (!use.who.since && ::lstat(path.c_str(), &status) == 0)
      use.who.since = std::chrono::system_clock::from_time_t(status.st_mtime);
    add_means(use, "UUCP lock file " + path);
  }

  void read_lock_directory() {
    const base::Directory directory{::opendir(places_.lock_dir.c_str())};
    if (!directory) {
      if (errno != ENOENT) unreadable_.push_back(places_.lock_dir);
      return;
    }
    while (const dirent* entry = ::readdir(directory.get())) {
      const std::string_view name{entry->d_name};
      const std::string path = places_.lock_dir + "/" + entry->d_name;
      if (const auto id = convention::proxy_device(name)) {
        if (auto node = node_of(*id)) add_proxy(add_slot(*node, std::nullopt), path);
      } else if (convention::is_uucp_name(name)) {
        if (auto node = node_named_by(name)) add_lock_file(add_slot(*node, std::nullopt), path);
      }
    }
  }

  std::optional<device::Node> node_at(const std::string& path) const {
    auto node = device::look_at(path, places_);
    return node ? std::optional{std::move(*node)} : std::nullopt;
  }

  std::optional<device::Node> node_of(const DeviceId& id) const {
    if (id.devpts != 0) {
      auto node = node_at(fmt::format("{}/pts/{}", places_.dev, (id.major - 136) * 256 + id.minor));
      if (node && node->id == id) return node;
      return device::Node{.id = id, .path = device::to_string(id), .inode = {}};
    }
    if (auto found = device::identify(device::to_string(id), places_)) return found->node;
    return device::Node{.id = id, .path = device::to_string(id), .inode = {}};
  }

  // The reverse of the naming rules of docs: the text after LCK.. is a base name, or a path below /dev with '/' turned
  // into '_' or ':', or numbers.
  std::optional<device::Node> node_named_by(std::string_view name) const {
    if (name.starts_with("LCK..")) return node_spelt(std::string{name.substr(5)});
    // LK.000.004.064, LK.b.000.008.000, LCK.004.064, LCK.C.004.064
    const bool block = name.find(".b.") != std::string::npos || name.find(".B.") != std::string::npos;
    const auto last = name.rfind('.');
    const auto middle = last == 0 || last == std::string::npos ? std::string::npos : name.rfind('.', last - 1);
    if (middle == std::string::npos) return std::nullopt;
    unsigned numbers[2] = {};
    const std::string_view words[2] = {name.substr(middle + 1, last - middle - 1), name.substr(last + 1)};
    for (int i = 0; i < 2; ++i) {
      const auto [end, wrong] = std::from_chars(words[i].data(), words[i].data() + words[i].size(), numbers[i]);
      if (wrong != std::errc{} || end != words[i].data() + words[i].size()) return std::nullopt;
    }
    auto found = device::identify(fmt::format("{}{}:{}", block ? 'b' : 'c', numbers[0], numbers[1]), places_);
    return found ? std::optional{found->node} : std::nullopt;
  }

  std::optional<device::Node> node_spelt(std::string name) const {
    for (const std::string_view where : {"/", "/serial/by-id/", "/serial/by-path/"})
      if (auto node = node_at(places_.dev + std::string{where} + name)) return node;
    std::string colons = name;
    std::ranges::replace(colons, ':', '/');
    if (colons != name)
      if (auto node = node_at(places_.dev + "/" + colons)) return node;
    // Device names may themselves hold '_', so the slashes are put back one by one from the left.
    for (auto at = name.find('_'); at != std::string::npos; at = name.find('_', at)) {
      name[at] = '/';
      if (auto node = node_at(places_.dev + "/" + name)) return node;
    }
    return std::nullopt;
  }

  void add_kernel_uses() {
    for (const KernelUse& kernel : kernel_uses(places_)) {
      const auto place = slots_.find(kernel.id);
      if (place == slots_.end() && !everything_) continue;
      Slot& slot = place != slots_.end() ? place->second : add_slot(*node_of(kernel.id), std::nullopt);
      const auto known = std::ranges::find(slot.others, UserKind::kernel, &Use::kind);
      Use& use = known != slot.others.end() ? *known : slot.others.emplace_back();
      use.kind = UserKind::kernel;
      use.who.command = "kernel";
      add_means(use, kernel.means);
    }
  }

  // Devices whose driver knows an owner; /sys/dev/char names them all.
  void add_driver_owners() {
    if (everything_ && ::access((places_.sys + "/module/holdfast_exclusive").c_str(), F_OK) == 0) {
      const std::string numbers = places_.sys + "/dev/char";
      const base::Directory directory{::opendir(numbers.c_str())};
      while (const dirent* entry = directory ? ::readdir(directory.get()) : nullptr) {
        const auto id = device::parse_number("c" + std::string{entry->d_name});
        if (id &&
            ::faccessat(::dirfd(directory.get()), (std::string{entry->d_name} + "/hf_exclusive").c_str(), F_OK, 0) == 0)
          if (auto node = node_of(*id)) add_slot(*node, std::nullopt);
      }
    }
    for (auto& [id, slot] : slots_) {
      auto owner = convention::driver_owner(slot.node, places_);
      if (!owner) continue;
      Use& use = owner->pid > 0 ? slot.use_of(owner->pid, false) : slot.others.emplace_back();
      if (owner->pid <= 0) {
        use.kind = owner->command.empty() ? UserKind::unknown : UserKind::kernel;
        use.who.command = owner->command;
        use.who.purpose = owner->purpose;
      }
      if (!use.who.since) use.who.since = owner->since;
      if (!use.ours) use.mode = Mode::exclusive;
      add_means(use, std::string{convention::entry(Convention::driver).means});
    }
  }

  bool wanted(const DeviceId& id, const InodeId& inode) {
    if (slots_.contains(id)) return true;
    if (!everything_) return false;
    if (locked_.contains(inode)) return true;
    const auto [place, fresh] = fought_over_.try_emplace(id, false);
    if (fresh) place->second = is_fought_over(id, places_);
    return place->second;
  }

  void add_open_file(const OpenFile& file) {
    auto place = slots_.find(file.id);
    if (place == slots_.end()) {
      auto node = node_at(file.text);
      if (!node || node->id != file.id) node = node_of(file.id);
      add_slot(*node, std::nullopt);
      place = slots_.find(file.id);
    }
    Slot& slot = place->second;
    slot.inodes.insert(file.inode);
    slot.openers.insert(file.pid);
    for (const LockLine& lock : file.locks) {
      add_lock(slot.use_of(file.pid, false), lock);
      attributed_.insert(lock);
      if (lock.kind == LockLine::Kind::ofd) ++attributed_ofd_[lock.inode];
    }
  }

  // Locks on nodes that no process visible to us has open: found by their inode among the nodes of /dev.
  void find_unopened_nodes(const std::vector<LockLine>& table) {
    std::set<InodeId> missing;
    for (const LockLine& lock : table) missing.insert(lock.inode);
    for (const auto& [id, slot] : slots_)
      for (const InodeId& inode : slot.inodes) missing.erase(inode);
    std::set<dev_t> file_systems;
    for (const std::string& where : {places_.dev, places_.dev + "/pts"})
      if (struct stat status{}; ::stat(where.c_str(), &status) == 0) file_systems.insert(status.st_dev);
    std::erase_if(missing, [&](const InodeId& inode) { return !file_systems.contains(inode.dev); });
    if (!missing.empty()) find_below(places_.dev, missing, 0);
  }

  void find_below(const std::string& path, const std::set<InodeId>& missing, int depth) {
    constexpr int kDeepest = 6;
    const base::Directory directory{::opendir(path.c_str())};
    while (const dirent* entry = directory && depth < kDeepest ? ::readdir(directory.get()) : nullptr) {
      if (entry->d_name[0] == '.') continue;
      const std::string below = path + "/" + entry->d_name;
      if (entry->d_type == DT_DIR) find_below(below, missing, depth + 1);
      if (entry->d_type != DT_CHR && entry->d_type != DT_BLK) continue;
      if (std::ranges::find(missing, entry->d_ino, &InodeId::ino) == missing.end()) continue;
      if (auto node = node_at(below); node && missing.contains(node->inode)) add_slot(*node, std::nullopt);
    }
  }

  void add_lock_table(const std::vector<LockLine>& table, const ProcScan& scan) {
    std::vector<LockLine> orphans;
    std::map<InodeId, std::size_t> ofd_lines;
    std::map<InodeId, Slot*> by_inode;
    for (auto& [id, slot] : slots_)
      for (const InodeId& inode : slot.inodes) by_inode[inode] = &slot;
    for (const LockLine& lock : table) {
      const auto slot = by_inode.find(lock.inode);
      if (slot == by_inode.end()) continue;
      if (lock.blocked) {
        Use& use = lock.pid > 0 ? slot->second->use_of(lock.pid, true) : slot->second->others.emplace_back();
        use.standing = Standing::waits;
        if (lock.pid <= 0) use.kind = UserKind::unknown;
        add_lock(use, lock);
      } else if (lock.kind == LockLine::Kind::ofd) {
        if (++ofd_lines[lock.inode] > attributed_ofd_[lock.inode]) orphans.push_back(lock);
      } else if (!attributed_.contains(lock)) {
        orphans.push_back(lock);
      }
    }
    if (orphans.empty()) return;
    // Between the table and the descriptors time passed: what is no longer there was given back meanwhile.
    const auto now = read_lock_table(places_);
    for (const LockLine& lock : orphans)
      if (std::ranges::find(now, lock) != now.end()) add_orphan(*by_inode.at(lock.inode), lock, scan);
  }

  void add_orphan(Slot& slot, const LockLine& lock, const ProcScan& scan) {
    if (lock.pid > 0) {
      if (const auto* facts = facts_of(lock.pid); facts && !facts->dead) {
        add_lock(slot.use_of(lock.pid, false), lock);
        return;
      }
    }
    // A record lock of nobody, on a device that one of ours holds whose descriptors are closed to us: it is part of the
    // claim.
    for (auto& [key, use] : slot.by_process) {
      if (!use.ours || key.second || !scan.closed_to_us.contains(key.first)) continue;
      add_lock(use, lock);
      return;
    }
    Use& use = slot.others.emplace_back();
    use.kind = UserKind::unknown;
    add_lock(use, lock);
  }

  // `holdfast run` holds a command's claim with two helpers of the command, which have its lock file open. They are
  // part of the claim, not three holders.
  void fold_helpers(Slot& slot) const {
    Use* owner = nullptr;
    for (auto& [key, use] : slot.by_process) {
      if (!use.ours || key.second) continue;
      if (owner != nullptr) return;  // shared: whose helper it is cannot be told
      owner = &use;
    }
    struct stat proxy{};
    if (owner == nullptr || ::stat(convention::proxy_path(slot.node.id, places_).c_str(), &proxy) != 0) return;
    for (auto entry = slot.by_process.begin(); entry != slot.by_process.end();) {
      auto& [key, use] = *entry;
      if (use.ours || key.second || !has_open(key.first, proxy)) {
        ++entry;
        continue;
      }
      for (std::string& means : use.who.means) add_means(*owner, std::move(means));
      slot.openers.erase(key.first);
      entry = slot.by_process.erase(entry);
    }
    std::erase_if(slot.openers, [&](pid_t pid) {
      return pid != owner->who.pid && !slot.by_process.contains({pid, true}) && has_open(pid, proxy);
    });
  }

  bool has_open(pid_t pid, const struct stat& file) const {
    const std::string path = fmt::format("{}/{}/fd", places_.proc, pid);
    const base::Directory directory{::opendir(path.c_str())};
    while (const dirent* entry = directory ? ::readdir(directory.get()) : nullptr) {
      struct stat open{};
      if (::fstatat(::dirfd(directory.get()), entry->d_name, &open, 0) == 0 && open.st_dev == file.st_dev &&
          open.st_ino == file.st_ino)
        return true;
    }
    return false;
  }

  void finish_slot(Slot& slot, Survey& survey) {
    fold_helpers(slot);
    for (const pid_t pid : slot.openers) {
      if (slot.by_process.contains({pid, false}) || slot.by_process.contains({pid, true})) continue;
      if (everything_ && !is_fought_over_cached(slot.node.id)) continue;
      const bool character = slot.node.id.kind == device::Kind::character;
      if (everything_ && character && login_part(pid, slot.node.id, places_) == LoginPart::member) continue;
      Use& use = slot.use_of(pid, false);
      use.standing = Standing::opened;
      add_means(use, "open");
    }
    DeviceUse found{slot.node, slot.relation, std::move(slot.others)};
    for (auto& [key, use] : slot.by_process) {
      const auto* facts = facts_of(key.first);
      const bool by_name = use.ours || use.who.since.has_value();
      if (!facts && !by_name && use.standing == Standing::opened) continue;  // ended since it was seen
      if (facts) {
        use.who.start_ticks = facts->id.start_ticks;
        use.who.command = facts->command;
        use.who.user = user_of(facts->uid);
      }
      found.uses.push_back(std::move(use));
    }
    for (Use& use : found.uses) sort_means(use.who.means);
    std::ranges::sort(found.uses, {}, [](const Use& use) {
      return std::tie(use.standing, use.who.pid, use.who.start_ticks, use.who.means);
    });
    if (!everything_ || !found.uses.empty()) survey.devices.push_back(std::move(found));
  }

  bool is_fought_over_cached(const DeviceId& id) {
    const auto [place, fresh] = fought_over_.try_emplace(id, false);
    if (fresh) place->second = is_fought_over(id, places_);
    return place->second;
  }

  void tell_blindness(const ProcScan& scan, Survey& survey) const {
    const bool root = ::geteuid() == 0;
    if (const std::size_t count = scan.closed_to_us.size(); count > 0)
      survey.blind.push_back(fmt::format("descriptors of {} {}{}: run {} to see them", count,
                                         count == 1 ? "process" : "processes", root ? "" : " of other users",
                                         root ? "with CAP_SYS_PTRACE" : "as root"));
    const std::string mounts = read_text(AT_FDCWD, (places_.proc + "/self/mountinfo").c_str());
    const auto hiding = mounts.find("hidepid=");
    if (!root && hiding != std::string::npos && mounts.compare(hiding, 9, "hidepid=0") != 0 &&
        mounts.compare(hiding, 11, "hidepid=off") != 0)
      survey.blind.emplace_back(
          "processes of other users, hidden by the proc mount option hidepid: run as root to see them");
    char name[64];
    const ssize_t length = ::readlink((places_.proc + "/self/ns/pid").c_str(), name, sizeof name);
    // PROC_PID_INIT_INO of include/linux/proc_ns.h
    if (length > 0 && std::string_view{name, static_cast<std::size_t>(length)} != "pid:[4026531836]")
      survey.blind.emplace_back("processes outside this pid namespace: run on the host to see them");
    for (const std::string& path : unreadable_)
      survey.blind.push_back(fmt::format("{}, which cannot be read: run as root to see it", base::printable(path)));
  }

  const base::ProcessFacts* facts_of(pid_t pid) {
    const auto [place, fresh] = facts_.try_emplace(pid);
    if (fresh) place->second = base::facts_of(pid);
    return place->second ? &*place->second : nullptr;
  }

  const std::string& user_of(uid_t uid) {
    const auto [place, fresh] = users_.try_emplace(uid);
    if (fresh) place->second = base::user_name(uid);
    return place->second;
  }

  const base::Places& places_;
  bool everything_ = false;
  std::map<DeviceId, Slot> slots_;
  std::set<std::pair<DeviceId, std::string>> seen_lock_files_;
  std::set<InodeId> locked_;
  std::set<LockLine> attributed_;
  std::map<InodeId, std::size_t> attributed_ofd_;
  std::map<DeviceId, bool> fought_over_;
  std::map<pid_t, std::optional<base::ProcessFacts>> facts_;
  std::map<uid_t, std::string> users_;
  std::vector<std::string> unreadable_;
};

}  // namespace

std::string_view to_string(UserKind kind) {
  switch (kind) {
    case UserKind::process:
      return "process";
    case UserKind::kernel:
      return "kernel";
    case UserKind::unknown:
      break;
  }
  return "unknown";
}

std::string_view to_string(Standing standing) {
  switch (standing) {
    case Standing::holds:
      return "holds";
    case Standing::waits:
      return "waits";
    case Standing::opened:
      return "opened";
    case Standing::stale:
      break;
  }
  return "stale";
}

Result<Survey> survey(const std::vector<std::string>& devices, const base::Places& places) {
  Surveyor surveyor{places};
  for (const std::string& device : devices)
    if (auto added = surveyor.add_named(device); !added) return std::unexpected{std::move(added.error())};
  if (devices.empty()) surveyor.add_everything();
  return surveyor.finish();
}

}  // namespace holdfast::observe
