// SPDX-License-Identifier: MIT
// hand_over_flock.cpp - the command calls flock(2) on a node that we hold by flock(2).
//
// We duplicate its descriptor, and a duplicate shares its lock (flock(2)): so we can do to its description what it asks
// for, in the order of bridge.hpp, and answer that it is done.
#include "run/bridge.hpp"
#include "run/hand_over.hpp"

#include <sys/file.h>

#include <cerrno>

namespace holdfast::run {
namespace {

int set_flock(int fd, Level level) {
  const int operation = level == Level::none ? LOCK_UN : level == Level::read ? LOCK_SH : LOCK_EX;
  return ::flock(fd, operation | LOCK_NB) == 0 ? 0 : errno;
}

class FlockPair final : public Passable {
 public:
  FlockPair(int ours, int theirs) : ours_{ours}, theirs_{theirs} {}
  int set_ours(Level level) override { return set_flock(ours_, level); }
  int set_theirs(Level level) override { return set_flock(theirs_, level); }

 private:
  int ours_;
  int theirs_;
};

class FlockLending final : public Lending {
 public:
  FlockLending(const convention::MarkView& mark, const Surroundings& surroundings)
      : fd_{mark.fd},
        inode_{mark.inode},
        node_{mark.node.path},
        held_{surroundings.mode == Mode::exclusive ? Level::write : Level::read},
        surroundings_{surroundings} {}

  std::optional<Answer> consider(const Question& question, const Caller& caller) override {
    if (question.call != Call::flock) return std::nullopt;
    const auto target = caller.descriptor(question.int_argument(0));
    if (!target || device::InodeId{target->st_dev, target->st_ino} != inode_) return std::nullopt;
    switch (question.int_argument(1) & ~LOCK_NB) {
      case LOCK_EX:
        return lend(question, caller, Level::write);
      case LOCK_SH:
        return lend(question, caller, Level::read);
      case LOCK_UN:
        return give_up(question, caller);
      default:
        return Answer::carry_on();
    }
  }

  bool lent() const override { return lent_; }

  void take_back(Clock::time_point now) override {
    if (lent_ && now >= not_before_ && set_flock(fd_, held_) == 0) lent_ = false;
  }

  void refresh() override { lent_ = set_flock(fd_, held_) != 0; }

  std::vector<std::string> watched() const override { return {node_}; }

 private:
  Answer lend(const Question& question, const Caller& caller, Level wanted) {
    // The command may have closed what it had: then it is ours again, and goes over the bridge once more.
    if (lent_) take_back(Clock::now());
    // Otherwise ours is out of the way, and what the command's own processes do to each other is theirs. But it must
    // not be taken back before they have done it.
    if (lent_) return let_go_on();
    // A shared lock beside our shared lock.
    if (held_ == Level::read && wanted == Level::read) return Answer::carry_on();
    const base::UniqueFd theirs = caller.duplicate(question.int_argument(0));
    if (!caller.still_asks()) return Answer::carry_on();
    if (theirs) {
      FlockPair pair{fd_, theirs.get()};
      if (pass_to_them(pair, held_, wanted) == 0) {
        lent_ = true;
        surroundings_.tell("flock on " + node_ + " handed over");
        return Answer::value(0);
      }
    }
    // Without its descriptor, or with a stranger's shared lock beside ours: the kernel decides, and makes a blocking
    // call wait.
    [[maybe_unused]] const int let_go = set_flock(fd_, Level::none);
    lent_ = true;
    return let_go_on();
  }

  Answer let_go_on() {
    not_before_ = Clock::now() + kCallUnderWay;
    return Answer::carry_on();
  }

  Answer give_up(const Question& question, const Caller& caller) {
    if (!lent_) return Answer::carry_on();
    const base::UniqueFd theirs = caller.duplicate(question.int_argument(0));
    if (!theirs || !caller.still_asks()) return Answer::carry_on();
    FlockPair pair{fd_, theirs.get()};
    if (pass_back(pair, held_)) {
      lent_ = false;
      surroundings_.tell("flock on " + node_ + " taken back");
    }
    return Answer::value(0);
  }

  int fd_;
  device::InodeId inode_;
  std::string node_;
  Level held_;
  const Surroundings& surroundings_;
  bool lent_ = false;
  Clock::time_point not_before_{};
};

}  // namespace

void add_flock_hand_overs(Lendings& to, Views marks, const Surroundings& surroundings) {
  for (const convention::MarkView& mark : marks) {
    if (mark.convention != Convention::flock && mark.convention != Convention::whole_disk) continue;
    if (mark.fd >= 0) to.push_back(std::make_unique<FlockLending>(mark, surroundings));
  }
}

}  // namespace holdfast::run
