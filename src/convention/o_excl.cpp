// SPDX-License-Identifier: MIT
// o_excl.cpp - open(2) with O_EXCL. On block devices it excludes other O_EXCL openers and the kernel's own users
// (mount, swap, md); on sg nodes it excludes everybody (drivers/scsi/sg.c, sg_open). It ends only with the last close.
#include "base/error.hpp"
#include "convention/conventions.hpp"
#include "convention/holder.hpp"

#include <fcntl.h>

#include <cerrno>

namespace holdfast::convention {
namespace {

class ExclMark final : public Mark {
 public:
  ExclMark(const Subject& subject, base::ProcessFd own) : subject_{subject}, own_{std::move(own)} {}

  void give_back() noexcept override { own_.reset(); }

  std::expected<void, Obstacle> change_mode(Mode mode) override {
    if (mode == Mode::shared) {
      own_.reset();
      return {};
    }
    auto opened = open_exclusively(subject_);
    if (!opened) return std::unexpected(std::move(opened.error()));
    own_ = std::move(*opened);
    return {};
  }

  void lend() noexcept override { own_.reset(); }
  bool take_back() noexcept override {
    if (own_) return true;
    if (auto opened = open_exclusively(subject_)) own_ = std::move(*opened);
    return static_cast<bool>(own_);
  }

  [[nodiscard]] Convention convention() const override { return Convention::o_excl; }

  [[nodiscard]] MarkView view() const override {
    MarkView view;
    view.convention = convention();
    view.node = subject_.node;
    view.fd = own_ ? own_.get() : subject_.fd;
    return view;
  }

  void share_with_children() noexcept override { own_.share_with_children(); }

  [[nodiscard]] std::vector<int> own_descriptors() const override {
    return own_ ? std::vector<int>{own_.get()} : std::vector<int>{};
  }

  static base::ProcessFd open_as(const Subject& subject, int access) {
    return base::ProcessFd::open(subject.node.path.c_str(), access | O_EXCL | O_NONBLOCK | O_NOCTTY);
  }

  static std::expected<base::ProcessFd, Obstacle> open_exclusively(const Subject& subject) {
    // Its own description: a hand-over must be able to close it without losing the flock beside it. On a disk O_RDONLY
    // is enough, and closing a writable one would make udev probe it. On an optical drive a writable one makes the
    // kernel leave the drive alone, too, which otherwise asks it for events every two seconds (block/bdev.c,
    // DISK_EVENT_FLAG_BLOCK_ON_EXCL_WRITE).
    const bool optical = subject.family == device::Family::optical;
    base::ProcessFd fd;
    UdevPatience patience;
    while (true) {
      fd = open_as(subject, optical ? O_RDWR : O_RDONLY);
      if (!fd && optical && (errno == EACCES || errno == EROFS)) fd = open_as(subject, O_RDONLY);
      if (fd || errno != EBUSY) break;
      Holder holder = find_opener(subject.node, {});
      if (!patience.try_again(holder)) return std::unexpected(busy(subject, std::move(holder), "O_EXCL"));
    }
    if (!fd) {
      if (errno == ENOMEDIUM || errno == EACCES || errno == EPERM)
        return std::unexpected(unavailable(subject, base::errno_text(errno)));
      return std::unexpected(faulted(base::fault(errno, "open", subject.node.path)));
    }
    if (auto same = device::recheck(fd.get(), subject.node); !same)
      return std::unexpected(faulted(std::move(same.error())));
    return fd;
  }

 private:
  Subject subject_;
  base::ProcessFd own_;  // empty for sg, whose node description carries it
};

}  // namespace

// That a description is exclusive cannot be seen from outside (fs/open.c, do_dentry_open() clears O_EXCL): of one that
// is not, the other marks keep holdfast out, and strangers' O_EXCL gets in.
Taken adopt_o_excl(const Subject& subject, const Terms&, HandedOver& given) {
  const bool shared_description = subject.family == device::Family::scsi_generic;
  if (given.descriptors.size() > (shared_description ? 0U : 1U) || (shared_description && subject.fd < 0))
    return std::unexpected(not_believed(subject, "O_EXCL"));
  if (given.descriptors.empty()) return std::make_unique<ExclMark>(subject, base::ProcessFd{});
  if (auto same = device::recheck(given.descriptors.front().get(), subject.node); !same)
    return std::unexpected(faulted(std::move(same.error())));
  return std::make_unique<ExclMark>(subject, std::move(given.descriptors.front()));
}

Taken take_o_excl(const Subject& subject, const Terms& terms) {
  if (subject.family == device::Family::scsi_generic) return std::make_unique<ExclMark>(subject, base::ProcessFd{});
  auto opened = ExclMark::open_exclusively(subject);
  if (!opened) return std::unexpected(std::move(opened.error()));
  // Shared claims cannot keep it, but they must not begin while somebody has the disk for himself.
  if (terms.mode == Mode::shared) opened->reset();
  return std::make_unique<ExclMark>(subject, std::move(*opened));
}

}  // namespace holdfast::convention
