// SPDX-License-Identifier: MIT
// driver_lock.cpp - LOCK and UNLOCK of drivers with a struct hf_exclusive (uapi/holdfast_exclusive.h): the driver
// itself refuses everybody but the owner. The owner is our process, not the descriptor: no child keeps it, and our
// death frees it.
#include "convention/driver_lock.hpp"

#include "base/error.hpp"
#include "convention/conventions.hpp"
#include "convention/holder.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <holdfast_exclusive.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <ctime>

namespace holdfast::convention {
namespace {

class DriverMark final : public Mark {
 public:
  DriverMark(const Subject& subject, const base::Places& places) : subject_{subject}, places_{places} {}

  /// Where nobody has opened the node for another convention.
  std::expected<void, Obstacle> open() {
    auto opened = open_node(subject_, places_, SgExcl::no);
    if (!opened) return std::unexpected(std::move(opened.error()));
    own_ = std::move(opened->fd);
    subject_.fd = own_.get();
    return {};
  }

  void give_back() noexcept override {
    lend();
    own_.reset();
    subject_.fd = -1;
  }

  std::expected<void, Obstacle> change_mode(Mode mode) override {
    if (mode == Mode::shared) {
      lend();
      return {};
    }
    return take();
  }

  void lend() noexcept override {
    if (held_) ::ioctl(subject_.fd, HF_IOC_UNLOCK, 0);
    held_ = false;
  }
  bool take_back() noexcept override {
    if (!held_) held_ = ::ioctl(subject_.fd, HF_IOC_TRYLOCK, 0) == 0;
    return held_;
  }

  std::expected<void, Obstacle> take() {
    if (take_back()) return {};
    const int error = errno;
    if (error == EAGAIN || error == EDEADLK)
      return std::unexpected(
          busy(subject_, driver_owner(subject_.node, places_).value_or(Holder{}), entry(Convention::driver).means));
    return std::unexpected(faulted(base::fault(error, "LOCK", subject_.node.path)));
  }

  [[nodiscard]] Convention convention() const override { return Convention::driver; }

  [[nodiscard]] MarkView view() const override {
    MarkView view;
    view.convention = convention();
    view.node = subject_.node;
    view.fd = subject_.fd;
    return view;
  }

  [[nodiscard]] std::vector<int> own_descriptors() const override {
    return own_ ? std::vector<int>{own_.get()} : std::vector<int>{};
  }

 private:
  Subject subject_;
  base::Places places_;
  base::ProcessFd own_;
  bool held_ = false;
};

std::string attribute(const device::Node& node, const base::Places& places) {
  const std::string path =
      fmt::format("{}/dev/char/{}:{}/hf_exclusive/owner", places.sys, node.id.major, node.id.minor);
  const base::UniqueFd file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  char text[128];
  const ssize_t got = file ? ::read(file.get(), text, sizeof text) : -1;
  return {text, static_cast<std::size_t>(std::max<ssize_t>(got, 0))};
}

// A time on CLOCK_BOOTTIME by the clock on the wall.
std::chrono::system_clock::time_point by_the_wall(std::uint64_t boot_ns) {
  timespec now{};
  ::clock_gettime(CLOCK_BOOTTIME, &now);
  const std::chrono::nanoseconds ago{now.tv_sec * std::int64_t{1'000'000'000} + now.tv_nsec -
                                     static_cast<std::int64_t>(boot_ns)};
  return std::chrono::system_clock::now() - std::chrono::duration_cast<std::chrono::system_clock::duration>(ago);
}

}  // namespace

Taken adopt_driver_lock(const Subject& subject, const Terms&, HandedOver&) {
  return std::unexpected(unavailable(subject, "the driver's owner is a process, which cannot hand it over"));
}

Taken take_driver_lock(const Subject& subject, const Terms& terms) {
  auto mark = std::make_unique<DriverMark>(subject, terms.places);
  if (subject.fd < 0)
    if (auto opened = mark->open(); !opened) return std::unexpected(std::move(opened.error()));
  // There is one owner or none. Shared claims begin when there is none, and keep strangers off by the other
  // conventions. They only look: two who took it for a moment would meet each other.
  if (terms.mode == Mode::shared) {
    if (auto owner = driver_owner(subject.node, terms.places))
      return std::unexpected(busy(subject, std::move(*owner), entry(Convention::driver).means));
    return mark;
  }
  if (auto taken = mark->take(); !taken) return std::unexpected(std::move(taken.error()));
  return mark;
}

// "none", or "process PID SINCE NAME", "kernel 0 SINCE NAME".
std::optional<Holder> driver_owner(const device::Node& node, const base::Places& places) {
  if (node.id.kind != device::Kind::character) return std::nullopt;
  const std::string text = attribute(node, places);
  std::string_view rest{text};
  const auto word = [&rest] {
    const std::string_view first = rest.substr(0, rest.find_first_of(" \n"));
    rest.remove_prefix(std::min(first.size() + 1, rest.size()));
    return first;
  };
  const std::string_view kind = word();
  if (kind != "process" && kind != "kernel") return std::nullopt;
  const std::string_view pid_text = word();
  const std::string_view since_text = word();
  pid_t pid = 0;
  std::uint64_t since = 0;
  std::from_chars(pid_text.data(), pid_text.data() + pid_text.size(), pid);
  std::from_chars(since_text.data(), since_text.data() + since_text.size(), since);
  Holder holder;
  if (kind == "kernel") {
    holder.command = "kernel";
    holder.purpose = rest.substr(0, rest.find('\n'));
  } else if (pid > 0) {
    holder = holder_of(pid);
  }
  if (since > 0) holder.since = by_the_wall(since);
  return holder;
}

}  // namespace holdfast::convention
