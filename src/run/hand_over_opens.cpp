// SPDX-License-Identifier: MIT
// hand_over_opens.cpp - the command opens a node that our O_EXCL or TIOCEXCL closes to it.
//
// O_EXCL belongs to an open description and ends with its last close, so the command gets a descriptor of our own
// description: nobody can get between. When it wants another way of access than ours, we open anew, once, with a moment
// between two system calls. Where an open of ours would not be the command's own (another user's, one that may take
// long, one of the disk around our partition), lending means closing our description, and taking back opening anew:
// between the two there is a window, bridged by the claim's other conventions. The descriptor's number stays (it then
// leads to /dev/null), so that nobody who remembers it meets a stranger's file.
//
// TIOCEXCL has no owner. What the command sets and clears is remembered for it, ours stays set; only for the instant of
// an open by a command without CAP_SYS_ADMIN it is cleared.
#include "run/hand_over.hpp"
#include "run/paths.hpp"

#include <fcntl.h>
#include <linux/kcmp.h>
#include <scsi/sg.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#include "base/directory.hpp"

#include <cerrno>
#include <cstdio>
#include <cstdlib>

namespace holdfast::run {
namespace {

// Opened without O_CREAT: what could be an open of a device.
std::optional<PathCall> open_call(const Question& question, const Caller& caller) {
  const auto shape = path_call_of(question);
  if (!shape || shape->verb != PathCall::Verb::open) return std::nullopt;
  return read_path_call(question, caller);
}

std::optional<struct stat> target_of(const PathCall& call, const Caller& caller) {
  const auto path = caller.path_at(call.path.address);
  struct stat status{};
  if (!path || ::stat(caller.our_path(call.path.directory, *path).c_str(), &status) != 0 || !caller.still_asks())
    return std::nullopt;
  return status;
}

// Whether an open of an existing node by its own path differs from this one in nothing: what else the kernel may say to
// it (ELOOP, EXDEV of openat2(2)), an open of ours would not hear.
bool just_opens(const PathCall& call) { return call.how == 0 && (call.flags & O_NOFOLLOW) == 0; }

// Of a device node: EEXIST, ENOTDIR.
bool is_always_refused(const PathCall& call) {
  constexpr int kNew = O_CREAT | O_EXCL;
  return (call.flags & kNew) == kNew || (call.flags & O_DIRECTORY) != 0;
}

// The disk that a block device's partition is on, or the device itself.
dev_t disk_of(dev_t device) {
  char path[64];
  std::snprintf(path, sizeof path, "/sys/dev/block/%u:%u/partition", major(device), minor(device));
  if (::access(path, F_OK) != 0) return device;
  std::snprintf(path, sizeof path, "/sys/dev/block/%u:%u/../dev", major(device), minor(device));
  std::FILE* const file = std::fopen(path, "re");
  if (file == nullptr) return device;
  unsigned disk_major = 0;
  unsigned disk_minor = 0;
  const int found = std::fscanf(file, "%u:%u", &disk_major, &disk_minor);
  std::fclose(file);
  return found == 2 ? makedev(disk_major, disk_minor) : device;
}

// Whether an sg node is an optical drive's (SPC-4 table 139). read(2) and write(2) of sg want the very credentials that
// opened it, which end with exec(2) (drivers/scsi/sg.c, sg_check_file_access()): a description of ours serves those who
// use the ioctl SG_IO alone, as burn programs do. Programs for scanners and disks read and write.
bool is_drive(dev_t sg) {
  char path[64];
  std::snprintf(path, sizeof path, "/sys/dev/char/%u:%u/device/type", major(sg), minor(sg));
  const base::UniqueFd file{::open(path, O_RDONLY | O_CLOEXEC)};
  char type[2]{};
  return file && ::read(file.get(), type, sizeof type) == 2 && type[0] == '5' && type[1] == '\n';
}

// What is asked for besides the way of access, and can be changed afterwards (fcntl(2) F_SETFL).
constexpr int kChangeable = O_APPEND | O_NONBLOCK | O_DIRECT | O_NOATIME;

class ExclusiveLending final : public Lending {
 public:
  ExclusiveLending(const convention::MarkView& mark, const Surroundings& surroundings)
      : fd_{mark.fd},
        node_{mark.node},
        sg_{mark.node.id.kind == device::Kind::character},
        optical_{!sg_ && mark.node.id.major == kOpticalMajor},
        may_be_shared_{!sg_ || is_drive(mark.node.id.rdev())},
        disk_{sg_ ? mark.node.id.rdev() : disk_of(mark.node.id.rdev())},
        access_{sg_ || optical_ ? O_RDWR : O_RDONLY},
        surroundings_{surroundings} {
    if (leads_to_node()) access_ = ::fcntl(fd_, F_GETFL) & O_ACCMODE;
  }

  std::optional<Answer> consider(const Question& question, const Caller& caller) override {
    if (question.call == Call::flock || question.call == Call::fcntl) {
      drop_what_was_left(question, caller);
      return std::nullopt;
    }
    const auto call = open_call(question, caller);
    if (!call || (call->flags & O_PATH) != 0 || is_always_refused(*call)) return std::nullopt;
    if (!sg_ && (call->flags & O_EXCL) == 0) return std::nullopt;
    const auto target = target_of(*call, caller);
    if (!target || (sg_ ? !S_ISCHR(target->st_mode) : !S_ISBLK(target->st_mode)) || !meets_ours(target->st_rdev))
      return std::nullopt;
    if (!lent_ && is_node(*target) && can_share(*call, caller)) return share(*call);
    // While a process of the command has our description, the kernel refuses the disk to the next one as it would
    // without us. (To sg it may make it wait: not for us.)
    const bool is_refused = !sg_ && shared_ && is_elsewhere();
    if (!lent_ && !is_refused) lend();
    not_before_ = Clock::now() + kCallUnderWay;
    // Other marks of the claim may be on the same disk: all of them are asked.
    return std::nullopt;
  }

  bool lent() const override { return lent_; }

  void take_back(Clock::time_point now) override {
    if (lent_ && now >= not_before_) open_ours();
  }

  void refresh() override {
    lent_ = !leads_to_node();
    if (!lent_) access_ = ::fcntl(fd_, F_GETFL) & O_ACCMODE;
    // The other one of us may have shared it.
    shared_ = true;
    shared_exclusively_ = true;
  }

  std::vector<std::string> watched() const override { return {node_.path}; }

 private:
  static constexpr unsigned kOpticalMajor = 11;

  // Lent, it leads to /dev/null.
  bool leads_to_node() const {
    struct stat status{};
    return ::fstat(fd_, &status) == 0 && status.st_rdev == node_.id.rdev();
  }

  bool meets_ours(dev_t target) const {
    const dev_t ours = node_.id.rdev();
    if (target == ours) return true;
    // The kernel refuses a whole disk while a partition is held, and the reverse; not one partition for another.
    return !sg_ && (disk_of(target) == ours || disk_ == target);
  }

  // The very node, not another one of the device: that may have other permissions, or lie where no device is opened.
  bool is_node(const struct stat& target) const {
    return target.st_rdev == node_.id.rdev() && device::InodeId{target.st_dev, target.st_ino} == node_.inode;
  }

  // Whether an open(2) of ours is as good as the command's.
  bool can_share(const PathCall& call, const Caller& caller) const {
    // A drive may take its time to close the tray and look at the disc, and we have others to answer. An sg node makes
    // us wait for nobody: we have it.
    if (!just_opens(call) || !may_be_shared_ || (optical_ && (call.flags & O_NONBLOCK) == 0)) return false;
    const auto credentials = caller.credentials();
    return credentials && credentials->uid == ::geteuid() && caller.still_asks();
  }

  Answer share(const PathCall& call) {
    const bool exclusive = (call.flags & O_EXCL) != 0;
    const bool in_use = shared_ && is_elsewhere();
    // As the kernel would answer one process of the command while another has it.
    if (in_use && (exclusive || shared_exclusively_)) return Answer::error(EBUSY);
    if (!in_use) {
      const int wanted = call.flags & O_ACCMODE;
      const bool serves = access_ == O_RDWR || access_ == wanted;
      if (const int error = serves && (call.flags & O_SYNC) == 0 ? reset(call.flags) : open_anew(call.flags);
          error != 0)
        return Answer::error(error);
    }
    Answer answer;
    answer.kind = Answer::Kind::descriptor;
    answer.fd.reset(::fcntl(fd_, F_DUPFD_CLOEXEC, 0));
    if (!answer.fd) return Answer::error(errno);
    answer.close_on_exec = (call.flags & O_CLOEXEC) != 0;
    shared_ = true;
    shared_exclusively_ = exclusive;
    surroundings_.tell("O_EXCL on " + node_.path + " handed over");
    return answer;
  }

  // Our description as if it had just been opened.
  [[nodiscard]] int reset(int flags) const {
    if (sg_) {
      reset_sg();
    } else {
      ::lseek(fd_, 0, SEEK_SET);
    }
    return ::fcntl(fd_, F_SETFL, flags & kChangeable) == 0 ? 0 : errno;
  }

  // What a program can set of an sg description, as after open(2) (drivers/scsi/sg.c, sg_add_sfp()). The reserved
  // buffer stays: programs that care for its size ask for one.
  void reset_sg() const {
    struct Setting {
      unsigned long request;
      int value;
    };
    constexpr int kMinute = 60 * 100;  // in ticks of USER_HZ
    for (const Setting& setting :
         {Setting{SG_SET_TIMEOUT, kMinute}, Setting{SG_SET_FORCE_PACK_ID, 0}, Setting{SG_SET_KEEP_ORPHAN, 0},
          Setting{SG_SET_COMMAND_Q, 0}, Setting{SG_NEXT_CMD_LEN, 0}})
      ::ioctl(fd_, setting.request, &setting.value);
  }

  // The way of access cannot be changed: for once there is a moment between two system calls of ours.
  [[nodiscard]] int open_anew(int flags) {
    lend();
    const base::UniqueFd opened{::open(
        node_.path.c_str(), (flags & (kChangeable | O_ACCMODE | O_SYNC | O_DSYNC)) | O_EXCL | O_NOCTTY | O_CLOEXEC)};
    const int error = errno;
    if (!opened || !device::recheck(opened.get(), node_) || !adopt(opened.get())) {
      open_ours();
      return opened ? ENODEV : error;
    }
    access_ = flags & O_ACCMODE;
    return 0;
  }

  // The same flags as the claim's (convention/o_excl.cpp, open_node()).
  void open_ours() {
    const bool shared = surroundings_.mode == Mode::shared;
    const int flags = (sg_ ? O_RDWR : access_) | (shared ? 0 : O_EXCL) | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
    base::UniqueFd opened{::open(node_.path.c_str(), flags)};
    if (!opened && optical_ && (errno == EACCES || errno == EROFS))
      opened.reset(::open(node_.path.c_str(), (flags & ~O_ACCMODE) | O_RDONLY));
    if (!opened || !device::recheck(opened.get(), node_)) return;
    if (sg_ && (::flock(opened.get(), (shared ? LOCK_SH : LOCK_EX) | LOCK_NB) != 0 ||
                !lock_whole(opened.get(), shared ? F_RDLCK : F_WRLCK)))
      return;
    if (adopt(opened.get())) surroundings_.tell("O_EXCL on " + node_.path + " taken back");
  }

  bool adopt(int opened) {
    if (::dup3(opened, fd_, O_CLOEXEC) < 0) return false;
    surroundings_.opened_description(fd_);
    lent_ = false;
    return true;
  }

  static bool lock_whole(int fd, short type) {
    struct flock whole{};
    whole.l_type = type;
    whole.l_whence = SEEK_SET;
    return ::fcntl(fd, F_OFD_SETLK, &whole) == 0;
  }

  void lend() {
    const base::UniqueFd nothing{::open("/dev/null", O_RDWR | O_CLOEXEC)};
    if (!nothing) return;
    // The keeper first: the description ends with our own close.
    surroundings_.closed_description(fd_);
    if (::dup3(nothing.get(), fd_, O_CLOEXEC) < 0) return;
    lent_ = true;
    shared_ = false;
    surroundings_.tell("O_EXCL on " + node_.path + " handed over");
  }

  // What the command locked through a description that it shared, and then closed, would have ended with the close had
  // it been its own. (That of an sg node carries our own locks, which the other hand-overs care for.)
  void drop_what_was_left(const Question& question, const Caller& caller) {
    if (!shared_ || lent_ || sg_) return;
    const auto target = caller.descriptor(question.int_argument(0));
    if (!target || !S_ISBLK(target->st_mode) || target->st_rdev != node_.id.rdev() || is_elsewhere()) return;
    ::flock(fd_, LOCK_UN);
    lock_whole(fd_, F_UNLCK);
    shared_ = false;
  }

  // Whether a process that is none of us has our description.
  bool is_elsewhere() const {
    const base::Directory processes{::opendir("/proc")};
    while (const dirent* const process = processes ? ::readdir(processes.get()) : nullptr) {
      const auto pid = static_cast<pid_t>(std::strtol(process->d_name, nullptr, 10));
      if (pid > 0 && !surroundings_.is_ours(pid) && is_in(pid)) return true;
    }
    return false;
  }

  bool is_in(pid_t pid) const {
    const std::string directory = "/proc/" + std::to_string(pid) + "/fd";
    const base::Directory files{::opendir(directory.c_str())};
    while (const dirent* const file = files ? ::readdir(files.get()) : nullptr) {
      struct stat status{};
      if (::fstatat(::dirfd(files.get()), file->d_name, &status, 0) != 0 || status.st_rdev != node_.id.rdev()) continue;
      const auto fd = static_cast<unsigned long>(std::strtoul(file->d_name, nullptr, 10));
      if (::syscall(SYS_kcmp, ::getpid(), pid, KCMP_FILE, static_cast<unsigned long>(fd_), fd) == 0) return true;
    }
    return false;
  }

  int fd_;
  device::Node node_;
  bool sg_;
  bool optical_;
  bool may_be_shared_;
  dev_t disk_;
  int access_;
  const Surroundings& surroundings_;
  bool lent_ = false;
  bool shared_ = false;  // the command has, or had, a descriptor of our description
  bool shared_exclusively_ = false;
  Clock::time_point not_before_{};
};

class TerminalLending final : public Lending {
 public:
  TerminalLending(const convention::MarkView& mark, const Surroundings& surroundings)
      : fd_{mark.fd}, node_{mark.node}, set_by_us_{mark.notes.empty()}, surroundings_{surroundings} {}

  std::optional<Answer> consider(const Question& question, const Caller& caller) override {
    if (!set_by_us_) return std::nullopt;
    if (question.call == Call::ioctl) return control(question, caller);
    const auto call = open_call(question, caller);
    if (!call || (call->flags & O_PATH) != 0) return std::nullopt;
    const auto target = target_of(*call, caller);
    if (!target || !S_ISCHR(target->st_mode) || target->st_rdev != node_.id.rdev()) return std::nullopt;
    const auto credentials = caller.credentials();
    // tty_reopen() lets it in all the same (drivers/tty/tty_io.c).
    if (!credentials || credentials->system_administrator) return Answer::carry_on();
    return open(*call, *credentials);
  }

  bool lent() const override { return opening_; }

  void take_back(Clock::time_point) override {
    // Called at the open's own event, or when it has failed.
    if (opening_ && ::ioctl(fd_, TIOCEXCL) == 0) opening_ = false;
  }

  void settle() override {
    // A pseudo-terminal lives as long as its master: a flag that the command set and did not live to clear would shut
    // out everybody without CAP_SYS_ADMIN for all that time.
    if (!set_by_us_ && surroundings_.mode == Mode::exclusive) ::ioctl(fd_, TIOCNXCL);
  }

  void refresh() override {
    opening_ = false;
    if (set_by_us_) ::ioctl(fd_, TIOCEXCL);
  }

  std::vector<std::string> watched() const override { return {node_.path}; }

 private:
  Answer open(const PathCall& call, const Caller::Credentials& credentials) {
    ::ioctl(fd_, TIOCNXCL);
    const bool cannot_block = (call.flags & O_NONBLOCK) != 0 && (call.flags & O_NOCTTY) != 0;
    if (!cannot_block || credentials.uid != ::geteuid()) {
      opening_ = true;
      return Answer::carry_on();
    }
    // Opened here, the flag is off for the length of our own open(2) only.
    constexpr int kKept = O_ACCMODE | O_APPEND | O_NONBLOCK | O_NOCTTY | O_SYNC | O_DSYNC;
    base::UniqueFd opened{::open(node_.path.c_str(), (call.flags & kKept) | O_CLOEXEC)};
    const int error = errno;
    ::ioctl(fd_, TIOCEXCL);
    if (!opened) return Answer::error(error);
    Answer answer;
    answer.kind = Answer::Kind::descriptor;
    answer.fd = std::move(opened);
    answer.close_on_exec = (call.flags & O_CLOEXEC) != 0;
    return answer;
  }

  std::optional<Answer> control(const Question& question, const Caller& caller) {
    const auto target = caller.descriptor(question.int_argument(0));
    if (!target || !caller.still_asks() || !S_ISCHR(target->st_mode) || target->st_rdev != node_.id.rdev())
      return std::nullopt;
    switch (static_cast<std::uint32_t>(question.arguments[1])) {
      case TIOCEXCL:
        command_set_it_ = true;
        surroundings_.tell("TIOCEXCL on " + node_.path + " handed over");
        return Answer::value(0);  // it is set
      case TIOCNXCL:
        command_set_it_ = false;
        return Answer::value(0);
      case TIOCGEXCL: {
        const int set = command_set_it_ ? 1 : 0;
        return caller.write(question.arguments[2], &set, sizeof set) ? Answer::value(0) : Answer::error(EFAULT);
      }
      default:
        return Answer::carry_on();
    }
  }

  int fd_;
  device::Node node_;
  bool set_by_us_;
  const Surroundings& surroundings_;
  bool opening_ = false;
  bool command_set_it_ = false;
};

}  // namespace

void add_open_hand_overs(Lendings& to, Views marks, const Surroundings& surroundings) {
  for (const convention::MarkView& mark : marks) {
    if (mark.fd < 0) continue;
    // A shared claim has no O_EXCL; of an sg node every other opener is in the way of it.
    const bool in_the_way = surroundings.mode == Mode::exclusive || mark.node.id.kind == device::Kind::character;
    if (mark.convention == Convention::o_excl && in_the_way)
      to.push_back(std::make_unique<ExclusiveLending>(mark, surroundings));
    if (mark.convention == Convention::tiocexcl) to.push_back(std::make_unique<TerminalLending>(mark, surroundings));
  }
}

}  // namespace holdfast::run
