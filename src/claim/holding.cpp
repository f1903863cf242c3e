// SPDX-License-Identifier: MIT
// holding.cpp - what is held, and every way to let go of it.
#include "claim/holding.hpp"

#include "base/error.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <termios.h>

#include <algorithm>
#include <cerrno>
#include <ranges>
#include <utility>

namespace holdfast {

std::string to_string(const MarkReport& report) {
  std::string text = fmt::format("{}: {}: {}", base::printable(report.node), convention::entry(report.convention).name,
                                 report.state == MarkReport::State::taken ? "taken" : "not available");
  if (!report.detail.empty()) text += ": " + base::printable(report.detail, 1024);
  return text;
}

}  // namespace holdfast

namespace holdfast::claiming {

using convention::Mark;
using convention::MarkView;
using convention::Obstacle;
using device::Family;

Holding::Holding(Holding&& other) noexcept { *this = std::move(other); }

Holding& Holding::operator=(Holding&& other) noexcept {
  if (this == &other) return *this;
  give_back();
  // Moving a vector keeps its elements in place, so Subject::device stays right.
  devices_ = std::move(other.devices_);
  nodes_ = std::exchange(other.nodes_, {});
  marks_ = std::exchange(other.marks_, {});
  unavailable_ = std::exchange(other.unavailable_, {});
  use_ = std::exchange(other.use_, {});
  waited_with_ = std::move(other.waited_with_);
  watch_ = std::exchange(other.watch_, std::nullopt);
  mode_ = other.mode_;
  handed_out_ = other.handed_out_;
  return *this;
}

Holding::~Holding() { give_back(); }

void Holding::give_back() noexcept {
  use_.clear();
  // What needs the node open goes first, then the nodes are closed, then the lock files and the proxies: nobody opens
  // the device while its last close still moves modem lines.
  while (!marks_.empty() && convention::entry(marks_.back()->convention()).phase == convention::Phase::opened) {
    marks_.back()->give_back();
    marks_.pop_back();
  }
  for (HeldNode& node : std::views::reverse(nodes_)) node.file.reset();
  while (!marks_.empty()) {
    if (Mark* const proxy = mode_ == Mode::shared ? proxy_beside(*marks_.back()) : nullptr; proxy != nullptr)
      marks_.back()->leave_to_sharers(*proxy);
    marks_.back()->give_back();
    marks_.pop_back();
  }
  nodes_.clear();
  waited_with_.reset();
  watch_.reset();
}

Mark* Holding::proxy_beside(const Mark& mark) const {
  if (mark.convention() != Convention::uucp) return nullptr;
  const device::DeviceId node = mark.view().node.id;
  const auto proxy = std::ranges::find_if(marks_, [&](const auto& other) {
    return other->convention() == Convention::proxy && other->view().node.id == node;
  });
  return proxy == marks_.end() ? nullptr : proxy->get();
}

void Holding::let_go() noexcept {
  for (const auto& mark : marks_)
    if (mark->convention() == Convention::driver) mark->give_back();
  use_.clear();
  marks_.clear();
  nodes_.clear();
  waited_with_.reset();
  watch_.reset();
}

void Holding::let_go_but_lock_files() noexcept {
  use_.clear();
  std::erase_if(marks_, [](const auto& mark) { return mark->convention() != Convention::uucp; });
  nodes_.clear();
  waited_with_.reset();
  watch_.reset();
}

void Holding::close_what_only_closing_ends() noexcept {
  use_.clear();
  // The description of an sg node carries O_EXCL together with the other locks.
  const auto carried_by_node = [&](const MarkView& view) {
    return view.fd >= 0 && mode_ == Mode::exclusive && std::ranges::any_of(nodes_, [&](const HeldNode& node) {
             return node.subject.family == Family::scsi_generic && node.subject.fd == view.fd;
           });
  };
  std::erase_if(marks_, [&](const auto& mark) {
    const MarkView view = mark->view();
    if (view.convention == Convention::driver) mark->give_back();
    return view.convention == Convention::o_excl || view.convention == Convention::driver || carried_by_node(view);
  });
  for (HeldNode& node : nodes_) {
    if (node.subject.family != Family::scsi_generic || mode_ != Mode::exclusive) continue;
    node.file.reset();
    node.subject.fd = -1;
  }
}

Result<> Holding::take_also(ConventionSet conventions, const Options& options, base::ProcessId owner,
                            const base::Places& places) {
  if (options.opening == Opening::never) return {};
  const convention::Terms terms{mode_, owner, options.purpose, places};
  for (const convention::Entry& entry : convention::table()) {
    if (!conventions.contains(entry.id) || !options.conventions.contains(entry.id)) continue;
    for (const HeldNode& node : nodes_) {
      if (entry.inapplicable(node.subject)) continue;
      auto taken = entry.take(node.subject, terms);
      if (taken) {
        marks_.push_back(std::move(*taken));
      } else if (taken.error().kind != Obstacle::Kind::unavailable) {
        return std::unexpected(std::move(taken.error().error));
      } else {
        unavailable_.push_back(
            {node.subject.node.path, entry.id, MarkReport::State::not_available, taken.error().error.message});
      }
    }
  }
  return {};
}

Result<> Holding::follow(Mode mode) {
  for (const auto& mark : marks_) {
    if (mark->convention() == Convention::o_excl) continue;
    auto changed = mark->change_mode(mode);
    if (!changed && changed.error().kind != Obstacle::Kind::unavailable)
      return std::unexpected(std::move(changed.error().error));
  }
  mode_ = mode;
  return {};
}

void Holding::drop_exclusive() noexcept {
  for (const auto& mark : marks_)
    if (mark->convention() == Convention::o_excl || mark->convention() == Convention::driver) mark->lend();
}

namespace {

// The very node, with the rights with which it was opened.
bool is_as_opened(const HeldNode& node) {
  struct stat now{};
  return ::lstat(node.subject.node.path.c_str(), &now) == 0 && S_ISCHR(now.st_mode) &&
         now.st_dev == node.subject.node.inode.dev && now.st_ino == node.subject.node.inode.ino &&
         now.st_ctim.tv_sec == node.changed.tv_sec && now.st_ctim.tv_nsec == node.changed.tv_nsec;
}

bool outlives_its_closes(const HeldNode& node) {
  termios state{};
  return node.subject.family == Family::pseudo_terminal && ::tcgetattr(node.file.get(), &state) == 0 &&
         (state.c_cflag & HUPCL) == 0 && (::fcntl(node.file.get(), F_GETFL) & (O_NONBLOCK | O_ASYNC)) == O_NONBLOCK;
}

}  // namespace

bool Holding::can_be_passed_on() const {
  return mode_ == Mode::exclusive && !nodes_.empty() && unavailable_.empty() && use_.empty() &&
         std::ranges::all_of(nodes_,
                             [](const HeldNode& node) {
                               return node.file ? outlives_its_closes(node) && is_as_opened(node)
                                                : device::still_there(node.subject.node).has_value();
                             }) &&
         std::ranges::all_of(marks_, [](const auto& mark) { return mark->can_be_passed_on(); });
}

void Holding::passed_to(const convention::Terms& terms, std::chrono::system_clock::time_point since) noexcept {
  for (const auto& mark : marks_) mark->passed_to(terms, since);
}

void Holding::lay_out(Cover cover) {
  for (const device::Device& device : devices_) {
    for (device::Covered& covered : device::covered_nodes(device, cover)) {
      const auto same =
          std::ranges::find_if(nodes_, [&](const HeldNode& node) { return node.subject.node.id == covered.node.id; });
      if (same != nodes_.end()) {
        // Asked for twice: as itself, or as part of another. What it is part of says what applies to it.
        if (covered.relation) same->subject.relation = covered.relation;
        continue;
      }
      HeldNode node;
      node.subject.device = &device;
      node.subject.node = std::move(covered.node);
      node.subject.family = covered.family;
      node.subject.relation = covered.relation;
      nodes_.push_back(std::move(node));
    }
  }
  std::ranges::sort(nodes_, {}, [](const HeldNode& node) { return node.subject.node.id; });
}

void Holding::share_with_children() noexcept {
  for (HeldNode& node : nodes_) node.file.share_with_children();
  for (const auto& mark : marks_) mark->share_with_children();
  for (base::ProcessFd& fd : use_) fd.share_with_children();
}

std::vector<int> Holding::descriptors() const {
  std::vector<int> all;
  for (const HeldNode& node : nodes_)
    if (node.file) all.push_back(node.file.get());
  for (const auto& mark : marks_)
    for (const int fd : mark->own_descriptors())
      if (fd >= 0) all.push_back(fd);
  for (const base::ProcessFd& fd : use_)
    if (fd) all.push_back(fd.get());
  return all;
}

std::vector<MarkReport> Holding::report() const {
  std::vector<MarkReport> reports;
  for (const auto& mark : marks_) {
    const MarkView view = mark->view();
    MarkReport report{view.node.path, view.convention, MarkReport::State::taken, {}};
    for (const std::string& file : view.files) report.detail += (report.detail.empty() ? "" : " ") + file;
    for (const std::string& note : view.notes) report.detail += (report.detail.empty() ? "" : "; ") + note;
    if (view.covered) report.detail += " (covered by the holdfast run above)";
    reports.push_back(std::move(report));
  }
  reports.insert(reports.end(), unavailable_.begin(), unavailable_.end());
  return reports;
}

Enforcement Holding::enforcement() const {
  const bool all_native = std::ranges::all_of(devices_, [&](const device::Device& device) {
    return std::ranges::any_of(marks_, [&](const auto& mark) {
      if (!convention::entry(mark->convention()).native) return false;
      const MarkView view = mark->view();
      return view.node.id == device.node.id && view.notes.empty();
    });
  });
  return all_native && !devices_.empty() && mode_ == Mode::exclusive ? Enforcement::native : Enforcement::advisory;
}

bool Holding::covered_by_run() const {
  return !nodes_.empty() && std::ranges::all_of(nodes_, [](const HeldNode& node) { return node.covered; });
}

Result<> Holding::change_mode(Mode mode) {
  // Downwards the outermost mark goes last and upwards first, so that at no moment a stranger meets less than the
  // weaker mode.
  std::vector<Mark*> order;
  for (const auto& mark : marks_) order.push_back(mark.get());
  if (mode == Mode::shared) std::ranges::reverse(order);
  for (std::size_t i = 0; i < order.size(); ++i) {
    auto changed = order[i]->change_mode(mode);
    if (changed || changed.error().kind == Obstacle::Kind::unavailable) continue;
    const Mode before = mode == Mode::shared ? Mode::exclusive : Mode::shared;
    while (i-- > 0) static_cast<void>(order[i]->change_mode(before));
    return std::unexpected(std::move(changed.error().error));
  }
  mode_ = mode;
  return {};
}

Result<> Holding::downgrade() { return mode_ == Mode::shared ? Result<>{} : change_mode(Mode::shared); }

Result<> Holding::upgrade() { return mode_ == Mode::exclusive ? Result<>{} : change_mode(Mode::exclusive); }

Result<> Holding::check() {
  if (watch_) watch_->forget();
  for (const device::Device& device : devices_)
    if (auto there = device::still_there(device.node); !there) return there;
  return {};
}

Result<int> Holding::notice_fd() {
  if (watch_) return watch_->fd();
  auto watch = Watch::start();
  if (!watch) return std::unexpected(std::move(watch.error()));
  for (const device::Device& device : devices_) {
    const auto held =
        std::ranges::find(nodes_, device.node.id, [](const HeldNode& node) { return node.subject.node.id; });
    const bool terminal = device.family == Family::terminal || device.family == Family::pseudo_terminal;
    if (auto added = watch->add(device.node, terminal && held != nodes_.end() ? held->subject.fd : -1); !added)
      return std::unexpected(std::move(added.error()));
  }
  // What went before it was watched has no event.
  if (auto there = check(); !there) return std::unexpected(std::move(there.error()));
  watch_ = std::move(*watch);
  return watch_->fd();
}

void Holding::notice_also(int fd) {
  if (watch_) watch_->also(fd);
}

Result<int> Holding::use_fd(std::size_t index) {
  if (index >= devices_.size())
    return std::unexpected(base::failure(
        errc::invalid_argument, fmt::format("the claim has {} devices, not {}", devices_.size(), index + 1), {}));
  const device::Device& device = devices_[index];
  const auto held =
      std::ranges::find_if(nodes_, [&](const HeldNode& node) { return node.subject.node.id == device.node.id; });
  const bool one_description = device.family == Family::terminal || device.family == Family::pseudo_terminal ||
                               device.family == Family::scsi_generic;
  if (one_description && held != nodes_.end() && held->file) {
    handed_out_ = true;
    return held->file.get();
  }
  use_.resize(devices_.size());
  if (use_[index]) return use_[index].get();
  const int common = O_NOCTTY | O_NONBLOCK;
  base::ProcessFd fd = base::ProcessFd::open(device.node.path.c_str(), O_RDWR | common);
  if (!fd && (errno == EACCES || errno == EROFS))
    fd = base::ProcessFd::open(device.node.path.c_str(), O_RDONLY | common);
  if (!fd) return std::unexpected(base::fault(errno, "open", device.node.path));
  if (auto same = device::recheck(fd.get(), device.node); !same) return std::unexpected(std::move(same.error()));
  use_[index] = std::move(fd);
  return use_[index].get();
}

}  // namespace holdfast::claiming
