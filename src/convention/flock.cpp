// SPDX-License-Identifier: MIT
// flock.cpp - flock(2) on a node, and on the whole disk's node for a partition (systemd's block device locking:
// udevd leaves a disk alone whose whole-disk node is locked; a lock on a partition's node does nothing).
#include "base/error.hpp"
#include "convention/conventions.hpp"
#include "convention/holder.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/file.h>

#include <algorithm>
#include <cerrno>

namespace holdfast::convention {
namespace {

int operation(Mode mode) { return (mode == Mode::exclusive ? LOCK_EX : LOCK_SH) | LOCK_NB; }

// Takes the lock; an Obstacle names whoever has it.
std::optional<Obstacle> lock(int fd, const device::Node& node, const Subject& subject, Mode mode,
                             const base::Places& places) {
  constexpr int kUnseenTries = 10;
  constexpr int kUnseenPauseMs = 20;
  int unseen_for = 0;
  UdevPatience patience;
  while (true) {
    if (::flock(fd, operation(mode)) == 0) return std::nullopt;
    if (errno == EINTR) continue;
    if (errno != EWOULDBLOCK) return faulted(base::fault(errno, "flock", node.path));
    Holder holder = find_lock_holder(node.inode, LockKind::flock, places);
    // Whoever is not to be found has let go meanwhile, as udevd's workers do, or lives in another pid namespace.
    const bool unseen = holder.command.empty() && ++unseen_for <= kUnseenTries;
    if (node.id.kind != device::Kind::block || (!unseen && !patience.try_again(holder)))
      return busy(subject, std::move(holder), "flock");
    if (unseen) ::poll(nullptr, 0, kUnseenPauseMs);
  }
}

class FlockMark final : public Mark {
 public:
  FlockMark(Convention convention, device::Node node, int fd, base::ProcessFd own, const Terms& terms)
      : convention_{convention}, node_{std::move(node)}, fd_{fd}, own_{std::move(own)}, places_{terms.places} {}

  void give_back() noexcept override {
    // By name, not by closing: a forked child may still hold the description.
    if (fd_ >= 0) ::flock(fd_, LOCK_UN);
    fd_ = -1;
    own_.reset();
  }

  std::expected<void, Obstacle> change_mode(Mode mode) override {
    // flock(2) says that conversion is not atomic. It is for the only holder (fs/locks.c, flock_lock_inode: the old
    // lock goes and the new one comes under one hold of flc_lock); with others present a refused upgrade loses the
    // shared lock, so it is taken again.
    Subject subject;
    subject.node = node_;
    auto obstacle = lock(fd_, node_, subject, mode, places_);
    if (!obstacle) return {};
    if (mode == Mode::exclusive) ::flock(fd_, LOCK_SH | LOCK_NB);
    return std::unexpected(std::move(*obstacle));
  }

  // No file and no process is named by it.
  [[nodiscard]] bool can_be_passed_on() const override { return fd_ >= 0; }

  void set_asked(const device::DeviceId& partition) { asked_ = partition; }

  [[nodiscard]] Convention convention() const override { return convention_; }

  [[nodiscard]] MarkView view() const override {
    MarkView view;
    view.asked = asked_;
    view.convention = convention();
    view.node = node_;
    view.fd = fd_;
    view.inode = node_.inode;
    return view;
  }

  void share_with_children() noexcept override { own_.share_with_children(); }

  [[nodiscard]] std::vector<int> own_descriptors() const override {
    return own_ ? std::vector<int>{own_.get()} : std::vector<int>{};
  }

 private:
  Convention convention_;
  device::Node node_;
  int fd_;
  base::ProcessFd own_;  // whole_disk alone; flock uses the claim's description
  base::Places places_;
  std::optional<device::DeviceId> asked_;
};

Taken proven(std::unique_ptr<FlockMark> mark, const Terms& terms, Locks locks) {
  if (locks == Locks::proven)
    if (auto held = mark->change_mode(terms.mode); !held) return std::unexpected(std::move(held.error()));
  return mark;
}

std::optional<device::Node> whole_disk_of(const device::Device& device) {
  const auto disk = std::ranges::find(device.siblings, device::Relation::whole_disk, &device::Sibling::relation);
  return disk == device.siblings.end() ? std::nullopt : std::optional{disk->node};
}

}  // namespace

Taken adopt_flock(const Subject& subject, const Terms& terms, HandedOver& given) {
  if (subject.fd < 0 || !given.descriptors.empty()) return std::unexpected(not_believed(subject, "open description"));
  return proven(std::make_unique<FlockMark>(Convention::flock, subject.node, subject.fd, base::ProcessFd{}, terms),
                terms, given.locks);
}

Taken adopt_whole_disk(const Subject& subject, const Terms& terms, HandedOver& given) {
  const auto disk = whole_disk_of(*subject.device);
  if (!disk || given.descriptors.size() != 1 || !device::recheck(given.descriptors.front().get(), *disk))
    return std::unexpected(not_believed(subject, "whole disk"));
  const int raw = given.descriptors.front().get();
  auto mark =
      std::make_unique<FlockMark>(Convention::whole_disk, *disk, raw, std::move(given.descriptors.front()), terms);
  mark->set_asked(subject.node.id);
  return proven(std::move(mark), terms, given.locks);
}

Taken take_flock(const Subject& subject, const Terms& terms) {
  if (auto obstacle = lock(subject.fd, subject.node, subject, terms.mode, terms.places))
    return std::unexpected(std::move(*obstacle));
  return std::make_unique<FlockMark>(Convention::flock, subject.node, subject.fd, base::ProcessFd{}, terms);
}

Taken take_whole_disk(const Subject& subject, const Terms& terms) {
  const auto disk = whole_disk_of(*subject.device);
  if (!disk) return std::unexpected(unavailable(subject, "the whole disk has no node"));
  // Read-only: closing a writable descriptor makes udev probe the disk again (inotify IN_CLOSE_WRITE).
  base::ProcessFd fd = base::ProcessFd::open(disk->path.c_str(), O_RDONLY | O_NONBLOCK | O_NOCTTY);
  if (!fd) return std::unexpected(unavailable(subject, fmt::format("{}: {}", disk->path, base::errno_text(errno))));
  if (auto same = device::recheck(fd.get(), *disk); !same) return std::unexpected(faulted(std::move(same.error())));
  Subject named = subject;
  named.node.path = fmt::format("{} (whole disk of {})", disk->path, subject.node.path);
  if (auto obstacle = lock(fd.get(), *disk, named, terms.mode, terms.places))
    return std::unexpected(std::move(*obstacle));
  const int raw = fd.get();
  auto mark = std::make_unique<FlockMark>(Convention::whole_disk, *disk, raw, std::move(fd), terms);
  mark->set_asked(subject.node.id);
  return mark;
}

}  // namespace holdfast::convention
