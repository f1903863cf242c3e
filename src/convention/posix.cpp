// SPDX-License-Identifier: MIT
// posix.cpp - a record lock on the node itself, for the programs that use fcntl(2) or lockf(3) there (cdrskin,
// stm32flash, QEMU). Ours belongs to the open description, so no other close in the process can lose it; theirs
// conflict with it.
#include "base/error.hpp"
#include "convention/conventions.hpp"
#include "convention/holder.hpp"
#include "convention/record_lock.hpp"

#include <cerrno>

namespace holdfast::convention {
namespace {

class PosixMark final : public Mark {
 public:
  PosixMark(const Subject& subject, const Terms& terms) : subject_{subject}, places_{terms.places} {}

  // Exclusive needs a writable descriptor (fcntl_locking(2): EBADF); a read lock still keeps write-lockers out.
  [[nodiscard]] RecordLock wanted(Mode mode) const {
    return mode == Mode::exclusive && subject_.writable ? RecordLock::write : RecordLock::read;
  }

  std::optional<Obstacle> set(Mode mode) {
    const LockAnswer answer = set_record_lock(subject_.fd, wanted(mode), {});
    if (answer == LockAnswer::taken || answer == LockAnswer::covered) return std::nullopt;
    if (answer == LockAnswer::failed) return faulted(base::fault(errno, "fcntl", subject_.node.path));
    const auto pid = who_blocks(subject_.fd, wanted(mode), {});
    Holder holder =
        pid && *pid > 0 ? holder_of(*pid) : find_lock_holder(subject_.node.inode, LockKind::record, places_);
    return busy(subject_, std::move(holder), "record lock");
  }

  void give_back() noexcept override {
    if (subject_.fd >= 0) drop_record_lock(subject_.fd, {});
    subject_.fd = -1;
  }

  std::expected<void, Obstacle> change_mode(Mode mode) override {
    if (auto obstacle = set(mode)) return std::unexpected(std::move(*obstacle));
    return {};
  }

  [[nodiscard]] bool can_be_passed_on() const override { return subject_.fd >= 0; }

  [[nodiscard]] Convention convention() const override { return Convention::posix; }

  [[nodiscard]] MarkView view() const override {
    MarkView view;
    view.convention = convention();
    view.node = subject_.node;
    view.fd = subject_.fd;
    view.inode = subject_.node.inode;
    return view;
  }

  [[nodiscard]] std::vector<int> own_descriptors() const override { return {}; }

 private:
  Subject subject_;
  base::Places places_;
};

}  // namespace

Taken adopt_posix(const Subject& subject, const Terms& terms, HandedOver& given) {
  if (subject.fd < 0 || !given.descriptors.empty()) return std::unexpected(not_believed(subject, "open description"));
  auto mark = std::make_unique<PosixMark>(subject, terms);
  if (given.locks == Locks::proven)
    if (auto obstacle = mark->set(terms.mode)) return std::unexpected(std::move(*obstacle));
  return mark;
}

Taken take_posix(const Subject& subject, const Terms& terms) {
  auto mark = std::make_unique<PosixMark>(subject, terms);
  if (auto obstacle = mark->set(terms.mode)) return std::unexpected(std::move(*obstacle));
  return mark;
}

}  // namespace holdfast::convention
