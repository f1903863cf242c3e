// SPDX-License-Identifier: MIT
// proc_scan.cpp - who has which device node open. The cost of looking at thousands of processes is system calls, so
// each is spent once: everything is relative to a directory descriptor, a link's text is compared before anything is
// asked about the file behind it, and a path that was found to be no device is not asked about again.
#include "observe/proc_scan.hpp"

#include "base/unique_fd.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <optional>
#include <string_view>
#include <unordered_map>

namespace holdfast::observe {
namespace {

// Enough for the links of a few hundred descriptors; more cost another call.
constexpr std::size_t kDirectoryBuffer = 16384;

// Names of the entries of a directory, as getdents64(2) gives them. readdir(3) would allocate its buffer per directory.
template <class Visitor>
void for_each_entry(int directory, Visitor&& visit) {
  alignas(dirent64) std::array<char, kDirectoryBuffer> buffer;
  for (;;) {
    const ssize_t got = ::getdents64(directory, buffer.data(), buffer.size());
    if (got <= 0) return;
    for (ssize_t offset = 0; offset < got;) {
      const auto* entry = reinterpret_cast<const dirent64*>(buffer.data() + offset);
      visit(static_cast<const char*>(entry->d_name));
      offset += entry->d_reclen;
    }
  }
}

bool is_number(const char* name) { return *name >= '0' && *name <= '9'; }

// A path built without allocation: "4711/fdinfo/3" is short.
class ShortPath {
 public:
  explicit ShortPath(std::string_view a, std::string_view b = {}, std::string_view c = {}) {
    for (const std::string_view part : {a, b, c}) {
      const std::size_t fits = std::min(part.size(), sizeof text_ - 1 - size_);
      std::copy_n(part.begin(), fits, text_ + size_);
      size_ += fits;
    }
    text_[size_] = '\0';
  }
  [[nodiscard]] const char* c_str() const { return text_; }

 private:
  char text_[80];
  std::size_t size_ = 0;
};

struct FileFacts {
  bool is_node = false;
  device::DeviceId id;
  device::InodeId inode;
};

// Follows the magic link: statx(2) on it asks the open file itself, in whatever namespace its path was, and opens
// nothing. AT_STATX_DONT_SYNC: a dead network file system's server must not hang us (that is lsof's best known fault).
std::optional<FileFacts> look(int directory, const char* name) {
  struct statx facts{};
  if (::statx(directory, name, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, STATX_TYPE | STATX_INO, &facts) != 0)
    return std::nullopt;
  FileFacts found;
  const dev_t file_system = makedev(facts.stx_dev_major, facts.stx_dev_minor);
  found.inode = {file_system, facts.stx_ino};
  found.is_node = S_ISCHR(facts.stx_mode) || S_ISBLK(facts.stx_mode);
  if (found.is_node) found.id = number_of(facts.stx_mode, facts.stx_rdev_major, facts.stx_rdev_minor, file_system);
  return found;
}

class Scanner {
 public:
  Scanner(const WantedNode& wanted, const base::Places& places) : wanted_{wanted}, below_dev_{places.dev + "/"} {}

  ProcScan run(const std::string& proc) {
    const base::UniqueFd processes{::open(proc.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
    if (!processes) return {};
    proc_ = processes.get();
    // Since Linux 6.2 the size of a descriptor directory is the number of descriptors (fs/proc/fd.c); before, it is 0.
    // We have at least the one of /proc.
    struct statx own{};
    counts_descriptors_ = ::statx(proc_, "self/fd", AT_STATX_DONT_SYNC, STATX_SIZE, &own) == 0 && own.stx_size > 0;
    for_each_entry(proc_, [this](const char* name) {
      if (is_number(name)) look_at_process(name);
    });
    return std::move(result_);
  }

 private:
  // What a path text is known to lead to. Paths below /dev mean different nodes in different mount namespaces (a
  // container's /dev/ttyS0 may be our ttyUSB0), so they are asked about again for each process, except the ones that
  // are the same everywhere and fill every descriptor table.
  [[nodiscard]] bool same_everywhere(std::string_view text) const {
    if (!text.starts_with(below_dev_)) return true;
    const std::string_view name = text.substr(below_dev_.size());
    return name == "null" || name == "zero" || name == "urandom" || name == "random" || name == "full";
  }

  [[nodiscard]] bool is_wanted(const FileFacts& facts) const { return facts.is_node && wanted_(facts.id, facts.inode); }

  void look_at_process(const char* pid_text) {
    pid_t pid = 0;
    std::from_chars(pid_text, pid_text + std::strlen(pid_text), pid);
    last_text_.clear();
    int from = 0;
    if (counts_descriptors_) {
      struct statx table{};
      if (::statx(proc_, ShortPath{pid_text, "/fd"}.c_str(), AT_STATX_DONT_SYNC, STATX_SIZE, &table) != 0) return;
      if (table.stx_size == 0) return look_for_threads(pid, pid_text);
      from = try_numbers(pid, pid_text, table.stx_size);
      if (from == kAllSeen) return;
    }
    const base::UniqueFd directory{
        ::openat(proc_, ShortPath{pid_text, "/fd"}.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
    if (!directory) {
      if ((errno == EACCES || errno == EPERM) && !is_kernel_thread(pid_text)) result_.closed_to_us.insert(pid);
      return;
    }
    const ShortPath fdinfo{pid_text, "/fdinfo/"};
    if (look_at_descriptors(pid, fdinfo.c_str(), directory.get(), from) == 0) look_for_threads(pid, pid_text);
  }

  // Descriptors are mostly numbered without gaps, and a look at a number costs half of what it costs to list the table
  // first. Gives up, and says where to go on, when too many numbers are free.
  int try_numbers(pid_t pid, const char* pid_text, std::uint64_t count) {
    constexpr int kPatience = 2;
    int missing = 0;
    int number = 0;
    for (std::uint64_t found = 0; found < count && missing <= kPatience; ++number) {
      char digits[16];
      const auto end = std::to_chars(std::begin(digits), std::end(digits), number).ptr;
      const std::string_view name{digits, static_cast<std::size_t>(end - digits)};
      const ShortPath path{pid_text, "/fd/", name};
      const int wrong = look_at_link(pid, ShortPath{pid_text, "/fdinfo/", name}.c_str(), proc_, path.c_str());
      if (wrong == EACCES || wrong == EPERM) return kAllSeen;
      if (wrong == ENOENT)
        ++missing;
      else
        ++found;
    }
    return missing <= kPatience ? kAllSeen : number;
  }

  // A leader that ended before its threads shows an empty table; the threads still have it.
  void look_for_threads(pid_t pid, const char* pid_text) {
    struct stat tasks{};
    const ShortPath threads{pid_text, "/task"};
    if (::fstatat(proc_, threads.c_str(), &tasks, 0) != 0 || tasks.st_nlink <= 3) return;
    look_at_threads(pid, pid_text, threads.c_str());
  }

  void look_at_threads(pid_t pid, const char* pid_text, const char* threads) {
    const base::UniqueFd directory{::openat(proc_, threads, O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
    bool done = false;
    for_each_entry(directory.get(), [&](const char* name) {
      if (done || !is_number(name)) return;
      const std::string thread = std::string{pid_text} + "/task/" + name;
      const base::UniqueFd table{::openat(proc_, (thread + "/fd").c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
      done = table && look_at_descriptors(pid, (thread + "/fdinfo/").c_str(), table.get(), 0) > 0;
    });
  }

  // Those with numbers of at least `from`.
  std::size_t look_at_descriptors(pid_t pid, const char* fdinfo, int directory, int from) {
    std::size_t count = 0;
    bool closed = false;
    for_each_entry(directory, [&](const char* name) {
      if (closed || !is_number(name)) return;
      ++count;
      int number = 0;
      std::from_chars(name, name + std::strlen(name), number);
      if (number < from) return;
      const int wrong = look_at_link(pid, ShortPath{fdinfo, name}.c_str(), directory, name);
      closed = wrong == EACCES || wrong == EPERM;
    });
    return count;
  }

  // errno of the look, 0 when it went well.
  int look_at_link(pid_t pid, const char* fdinfo, int directory, const char* name) {
    char text[PATH_MAX];
    const ssize_t length = ::readlinkat(directory, name, text, sizeof text);
    if (length < 0) {
      const int wrong = errno;
      // Root without CAP_SYS_PTRACE may list another user's descriptors, but not follow them.
      if (wrong == EACCES || wrong == EPERM) result_.closed_to_us.insert(pid);
      return wrong;
    }
    // Sockets, pipes and anonymous inodes have texts that begin with no slash.
    if (length > 0 && text[0] == '/')
      look_at_descriptor(pid, fdinfo, directory, name, {text, static_cast<std::size_t>(length)});
    return 0;
  }

  void look_at_descriptor(pid_t pid, const char* fdinfo, int directory, const char* name, std::string_view text) {
    if (text == last_text_) {
      if (!last_wanted_) return;
    } else if (same_everywhere(text)) {
      if (uninteresting_.contains(text)) return;
    }
    const auto facts = look(directory, name);
    const bool wanted = facts && is_wanted(*facts);
    last_text_ = text;
    last_wanted_ = wanted;
    if (!facts) return;
    if (!wanted) {
      if (same_everywhere(text)) uninteresting_.emplace(text);
      return;
    }
    OpenFile file{pid, facts->id, facts->inode, std::string{text}, {}};
    read_locks(fdinfo, file);
    result_.files.push_back(std::move(file));
  }

  void read_locks(const char* path, OpenFile& file) const {
    const std::string info = read_text(proc_, path);
    for (std::string_view rest = info; !rest.empty();) {
      const auto end = std::min(rest.find('\n'), rest.size());
      const std::string_view line = rest.substr(0, end);
      rest.remove_prefix(std::min(end + 1, rest.size()));
      constexpr std::string_view kTag = "lock:";
      if (!line.starts_with(kTag)) continue;
      if (const auto lock = parse_lock_line(line.substr(kTag.size())); lock && !lock->blocked)
        file.locks.push_back(*lock);
    }
  }

  // Only asked about processes that are closed to us. PF_KTHREAD of include/linux/sched.h, in field 9 of
  // proc_pid_stat(5).
  [[nodiscard]] bool is_kernel_thread(const char* pid_text) const {
    constexpr unsigned long kKernelThread = 0x00200000;
    const std::string stat = read_text(proc_, ShortPath{pid_text, "/stat"}.c_str());
    std::string_view rest = stat;
    rest.remove_prefix(std::min(rest.rfind(')') + 1, rest.size()));
    for (int field = 2; field < 9 && !rest.empty(); ++field)
      rest.remove_prefix(
          std::min(rest.find(' ') == std::string_view::npos ? rest.size() : rest.find(' ') + 1, rest.size()));
    unsigned long flags = 0;
    std::from_chars(rest.data(), rest.data() + rest.size(), flags);
    return (flags & kKernelThread) != 0;
  }

  struct TextHash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
  };

  const WantedNode& wanted_;
  std::string below_dev_;
  static constexpr int kAllSeen = -1;
  int proc_ = -1;
  bool counts_descriptors_ = false;
  std::unordered_set<std::string, TextHash, std::equal_to<>> uninteresting_;
  std::string last_text_;
  bool last_wanted_ = false;
  ProcScan result_;
};

}  // namespace

device::DeviceId number_of(mode_t mode, unsigned major, unsigned minor, dev_t file_system) {
  // Documentation/admin-guide/devices.txt: 136-143 are the Unix98 pseudo-terminals.
  const bool pseudo_terminal = S_ISCHR(mode) && major >= 136 && major <= 143;
  return {S_ISBLK(mode) ? device::Kind::block : device::Kind::character, major, minor,
          pseudo_terminal ? file_system : 0};
}

std::string read_text(int directory, const char* path) {
  const base::UniqueFd file{::openat(directory, path, O_RDONLY | O_CLOEXEC)};
  std::string text;
  std::array<char, 8192> buffer;
  for (ssize_t got = 0; file && (got = ::read(file.get(), buffer.data(), buffer.size())) > 0;)
    text.append(buffer.data(), static_cast<std::size_t>(got));
  return text;
}

std::vector<LockLine> read_lock_table(const base::Places& places) {
  const std::string table = read_text(AT_FDCWD, (places.proc + "/locks").c_str());
  std::vector<LockLine> locks;
  for (std::string_view rest = table; !rest.empty();) {
    const auto end = std::min(rest.find('\n'), rest.size());
    if (const auto lock = parse_lock_line(rest.substr(0, end))) locks.push_back(*lock);
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  return locks;
}

ProcScan scan_processes(const WantedNode& wanted, const base::Places& places) {
  return Scanner{wanted, places}.run(places.proc);
}

}  // namespace holdfast::observe
