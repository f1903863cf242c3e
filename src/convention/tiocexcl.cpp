// SPDX-License-Identifier: MIT
// tiocexcl.cpp - TIOCEXCL on terminals (ioctl_tty(2)): later opens fail with EBUSY for everybody without CAP_SYS_ADMIN.
// A flag without owner: it ends with TIOCNXCL or the last close by anybody.
#include "base/error.hpp"
#include "convention/conventions.hpp"
#include "convention/holder.hpp"

#include <sys/ioctl.h>

#include <cerrno>

namespace holdfast::convention {
namespace {

class TiocexclMark final : public Mark {
 public:
  explicit TiocexclMark(const Subject& subject) : subject_{subject} {}

  void give_back() noexcept override {
    // Explicitly: it would outlive us as long as anybody else has the terminal open.
    if (set_) ::ioctl(subject_.fd, TIOCNXCL);
    set_ = false;
    subject_.fd = -1;
  }

  std::expected<void, Obstacle> change_mode(Mode mode) override {
    const bool wanted = mode == Mode::exclusive && keeps_no_ghost(subject_.family);
    if (wanted != set_ && ::ioctl(subject_.fd, wanted ? TIOCEXCL : TIOCNXCL) != 0)
      return std::unexpected(faulted(base::fault(errno, "TIOCEXCL", subject_.node.path)));
    set_ = wanted;
    return {};
  }

  void adopt(Mode mode) { set_ = mode == Mode::exclusive && keeps_no_ghost(subject_.family); }
  // Setting what is set does nothing.
  std::expected<void, Obstacle> set() {
    if (!set_ || ::ioctl(subject_.fd, TIOCEXCL) == 0) return {};
    return std::unexpected(faulted(base::fault(errno, "TIOCEXCL", subject_.node.path)));
  }

  // A pseudo-terminal lives as long as its master: a killed holder's flag would shut out its successors. There others'
  // flags are respected but ours is not set.
  static bool keeps_no_ghost(device::Family family) { return family != device::Family::pseudo_terminal; }

  // A flag that is not ours was set by a stranger meanwhile: whether one that counts, a taking anew finds out.
  [[nodiscard]] bool can_be_passed_on() const override {
    int set = 0;
    return set_ || ::ioctl(subject_.fd, TIOCGEXCL, &set) != 0 || set == 0;
  }

  [[nodiscard]] Convention convention() const override { return Convention::tiocexcl; }

  [[nodiscard]] MarkView view() const override {
    MarkView view;
    view.convention = convention();
    view.node = subject_.node;
    view.fd = subject_.fd;
    if (!set_) view.notes.emplace_back("respected, not set");
    return view;
  }

  [[nodiscard]] std::vector<int> own_descriptors() const override { return {}; }

 private:
  Subject subject_;
  bool set_ = false;
};

}  // namespace

Taken adopt_tiocexcl(const Subject& subject, const Terms& terms, HandedOver& given) {
  if (subject.fd < 0 || !given.descriptors.empty()) return std::unexpected(not_believed(subject, "open description"));
  auto mark = std::make_unique<TiocexclMark>(subject);
  mark->adopt(terms.mode);
  if (given.locks == Locks::proven)
    if (auto set = mark->set(); !set) return std::unexpected(std::move(set.error()));
  return mark;
}

Taken take_tiocexcl(const Subject& subject, const Terms& terms) {
  int set = 0;
  // Only a caller with CAP_SYS_ADMIN gets here while the flag is set: for others open(2) has failed. TIOCGEXCL:
  // Linux 3.8.
  if (::ioctl(subject.fd, TIOCGEXCL, &set) == 0 && set != 0) {
    Holder holder = find_opener(subject.node, terms.places);
    // A flag that nobody is left behind: its setter was killed while a pseudo-terminal's master kept the terminal
    // alive.
    if (holder.pid > 0) return std::unexpected(busy(subject, std::move(holder), "TIOCEXCL"));
  }
  auto mark = std::make_unique<TiocexclMark>(subject);
  if (auto changed = mark->change_mode(terms.mode); !changed) return std::unexpected(std::move(changed.error()));
  return mark;
}

}  // namespace holdfast::convention
