// SPDX-License-Identifier: MIT
// hand_over_records.cpp - the command sets a record lock (fcntl(2)) on a file on which we hold one.
//
// Open-file-description locks pass over the bridge of bridge.hpp, range by range: what the command does not ask for
// stays ours. A POSIX lock belongs to the process that sets it, so nobody can set it for the command: our lock on the
// range is weakened as far as needed and the call goes on. That leaves a window between the two, and another when the
// command lets go; the other conventions of the claim bridge it for every program that honours one of them.
//
// The proxy file is how claims of ours exclude each other. A claim made by the command itself gets the proxy's lock
// with the value 1 instead of 0, which says: a run above you holds the rest.
#include "run/bridge.hpp"
#include "run/hand_over.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

namespace holdfast::run {
namespace {

// include/uapi/asm-generic/fcntl.h; the 64 ones exist in 32-bit callers only, where the libc's constants of ours do not
// say so.
constexpr int kGetlk64 = 12;
constexpr int kSetlk64 = 13;
constexpr int kSetlkw64 = 14;
constexpr int kCoveredByRun = 1;

// struct flock of 32-bit callers: of fcntl, and of fcntl64 on x86 (no padding) and arm (aligned).
struct Flock32 {
  std::int16_t type, whence;
  std::int32_t start, length, pid;
};
struct [[gnu::packed]] Flock64Packed {
  std::int16_t type, whence;
  std::int64_t start, length;
  std::int32_t pid;
};

struct Request {
  enum class Kind : std::uint8_t { look, set };
  Kind kind = Kind::set;
  bool by_description = false;  // F_OFD_*
  struct flock lock{};
};

template <class Theirs>
bool read_as(const Caller& caller, std::uint64_t address, struct flock& into) {
  Theirs theirs{};
  if (!caller.read(address, &theirs, sizeof theirs)) return false;
  into.l_type = theirs.type;
  into.l_whence = theirs.whence;
  into.l_start = theirs.start;
  into.l_len = theirs.length;
  return true;
}

std::optional<Request> request_of(const Question& question, const Caller& caller) {
  Request request;
  const int command = question.int_argument(1);
  const bool narrow = is_32_bit(question.architecture);
  const bool posix64 = narrow && (command == kGetlk64 || command == kSetlk64 || command == kSetlkw64);
  request.by_description = command == F_OFD_GETLK || command == F_OFD_SETLK || command == F_OFD_SETLKW;
  if (command == F_GETLK || command == F_OFD_GETLK || (posix64 && command == kGetlk64))
    request.kind = Request::Kind::look;
  const std::uint64_t address = question.arguments[2];
  bool readable = false;
  if (!narrow) {
    readable = caller.read(address, &request.lock, sizeof request.lock);
  } else if (!posix64 && !request.by_description) {
    readable = read_as<Flock32>(caller, address, request.lock);
  } else {
#if defined(__aarch64__)
    readable = caller.read(address, &request.lock, sizeof request.lock);  // the arm EABI aligns it as we do
#else
    readable = read_as<Flock64Packed>(caller, address, request.lock);
#endif
  }
  if (!readable) return std::nullopt;
  request.lock.l_pid = 0;  // F_OFD_SETLK insists
  return request;
}

Level level_of(short type) { return type == F_WRLCK ? Level::write : type == F_RDLCK ? Level::read : Level::none; }

int set_range(int fd, struct flock range, Level level) {
  range.l_type = static_cast<short>(level == Level::none ? F_UNLCK : level == Level::read ? F_RDLCK : F_WRLCK);
  range.l_pid = 0;
  return ::fcntl(fd, F_OFD_SETLK, &range) == 0 ? 0 : errno;
}

class RangePair final : public Passable {
 public:
  RangePair(int ours, int theirs, const struct flock& range) : ours_{ours}, theirs_{theirs}, range_{range} {}
  int set_ours(Level level) override { return set_range(ours_, range_, level); }
  int set_theirs(Level level) override { return set_range(theirs_, range_, level); }

 private:
  int ours_;
  int theirs_;
  struct flock range_;
};

class RecordLending final : public Lending {
 public:
  RecordLending(const convention::MarkView& mark, const Surroundings& surroundings)
      : fd_{mark.fd},
        inode_{mark.inode},
        file_{mark.files.empty() ? mark.node.path : mark.files.front()},
        proxy_{mark.convention == Convention::proxy},
        surroundings_{surroundings} {
    // A write lock needs a descriptor that may write (fcntl_locking(2)); on a disk ours may not.
    const bool writable = (::fcntl(fd_, F_GETFL) & O_ACCMODE) != O_RDONLY;
    held_ = surroundings.mode == Mode::exclusive && writable ? Level::write : Level::read;
    whole_.l_whence = SEEK_SET;
    whole_.l_len = proxy_ ? 1 : 0;  // the proxy's first byte carries the claim; slots come later in the file
  }

  std::optional<Answer> consider(const Question& question, const Caller& caller) override {
    if (question.call != Call::fcntl) return std::nullopt;
    const auto target = caller.descriptor(question.int_argument(0));
    if (!target || device::InodeId{target->st_dev, target->st_ino} != inode_) return std::nullopt;
    auto request = request_of(question, caller);
    if (!request) return Answer::carry_on();
    const base::UniqueFd theirs = caller.duplicate(question.int_argument(0));
    if (!from_start(request->lock, theirs.get()) || !meets_ours(request->lock) || !caller.still_asks())
      return Answer::carry_on();
    if (request->kind == Request::Kind::look) return look(question, caller, *request);
    if (request->by_description) return theirs ? bridge(*request, theirs.get()) : step_aside(*request);
    return step_aside(*request);
  }

  bool lent() const override { return lent_; }

  void take_back(Clock::time_point now) override {
    if (lent_ && now >= not_before_ && set_range(fd_, whole_, held_) == 0) lent_ = false;
  }

  void refresh() override { lent_ = set_range(fd_, whole_, held_) != 0; }

  std::vector<std::string> watched() const override { return {file_}; }

 private:
  // The range counted from the start of the file, whatever the command counts from.
  static bool from_start(struct flock& range, int theirs) {
    if (range.l_whence == SEEK_SET) return true;
    const off_t here = theirs >= 0 && range.l_whence == SEEK_CUR ? ::lseek(theirs, 0, SEEK_CUR) : 0;
    if (range.l_whence == SEEK_END) {
      range.l_start = 0;  // nobody locks a device from its end: all of ours steps aside
      range.l_len = 0;
    } else if (here > 0) {
      range.l_start += here;
    }
    range.l_whence = SEEK_SET;
    return true;
  }

  bool meets_ours(const struct flock& range) const {
    if (!proxy_) return true;
    const off_t first = range.l_len < 0 ? range.l_start + range.l_len : range.l_start;
    return first <= 0;
  }

  Answer look(const Question& question, const Caller& caller, const Request& request) const {
    // While all of it is ours nobody else can be in the way; but the proxy's lock is what our own tools look for.
    if (lent_ || proxy_ || (held_ == Level::read && request.lock.l_type == F_RDLCK)) return Answer::carry_on();
    const std::int16_t unlocked = F_UNLCK;
    if (!caller.write(question.arguments[2], &unlocked, sizeof unlocked)) return Answer::carry_on();
    return Answer::value(0);
  }

  Answer bridge(const Request& request, int theirs) {
    const Level wanted = level_of(request.lock.l_type);
    RangePair pair{fd_, theirs, request.lock};
    if (wanted == Level::none) {
      if (!lent_) return Answer::carry_on();
      if (pass_back(pair, held_)) note_whole_taken_back();
      return Answer::value(0);
    }
    if (held_ == Level::read && wanted == Level::read) return Answer::carry_on();
    const int error = pass_to_them(pair, held_, wanted);
    // EAGAIN: another process of the command has it, or a stranger slipped in a read lock: the kernel decides and waits
    // if asked.
    if (error == EAGAIN || error == EACCES) return step_aside(request);
    if (error != 0) return Answer::error(error);
    lent_ = true;
    surroundings_.tell("record lock on " + file_ + " handed over");
    return Answer::value(proxy_ ? kCoveredByRun : 0);
  }

  // For a lock that only the command can set.
  Answer step_aside(const Request& request) {
    const Level wanted = level_of(request.lock.l_type);
    if (wanted == Level::none) {
      // Trying too early fails and costs nothing.
      not_before_ = {};
      ends_soon_ = lent_;
      return Answer::carry_on();
    }
    if (held_ == Level::read && wanted == Level::read) return Answer::carry_on();
    // A read lock of the command's goes together with a read lock of ours, which keeps writers out without a window.
    [[maybe_unused]] const int weakened =
        set_range(fd_, request.lock, wanted == Level::read ? Level::read : Level::none);
    lent_ = true;
    not_before_ = Clock::now() + kCallUnderWay;
    surroundings_.tell("record lock on " + file_ + " handed over");
    return Answer::carry_on();
  }

  void note_whole_taken_back() {
    if (set_range(fd_, whole_, held_) != 0) return;
    lent_ = false;
    surroundings_.tell("record lock on " + file_ + " taken back");
  }

  int fd_;
  device::InodeId inode_;
  std::string file_;
  bool proxy_;
  Level held_ = Level::write;
  struct flock whole_{};
  const Surroundings& surroundings_;
  bool lent_ = false;
  Clock::time_point not_before_{};
};

}  // namespace

void add_record_hand_overs(Lendings& to, Views marks, const Surroundings& surroundings) {
  for (const convention::MarkView& mark : marks) {
    const bool record = mark.convention == Convention::posix || mark.convention == Convention::proxy ||
                        mark.convention == Convention::ddlp;
    if (record && mark.fd >= 0) to.push_back(std::make_unique<RecordLending>(mark, surroundings));
  }
}

}  // namespace holdfast::run
