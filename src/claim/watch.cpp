// SPDX-License-Identifier: MIT
// watch.cpp - see the header.
#include "claim/watch.hpp"

#include "base/error.hpp"

#include <sys/epoll.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <array>
#include <cerrno>

namespace holdfast::claiming {
namespace {

bool listen_to(int epoll, int fd, std::uint32_t events) {
  epoll_event wanted{.events = events, .data = {.fd = fd}};
  return ::epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &wanted) == 0;
}

}  // namespace

Result<Watch> Watch::start() {
  Watch watch;
  watch.inotify_ = base::UniqueFd{::inotify_init1(IN_CLOEXEC | IN_NONBLOCK)};
  if (!watch.inotify_) return std::unexpected(base::fault(errno, "inotify_init1", {}));
  watch.epoll_ = base::UniqueFd{::epoll_create1(EPOLL_CLOEXEC)};
  if (!watch.epoll_ || !listen_to(watch.epoll_.get(), watch.inotify_.get(), EPOLLIN))
    return std::unexpected(base::fault(errno, "epoll", {}));
  return watch;
}

Result<> Watch::add(const device::Node& node, int terminal) {
  // The removal of a node that somebody has open changes its count of links: IN_ATTRIB.
  if (::inotify_add_watch(inotify_.get(), node.path.c_str(), IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF) < 0 &&
      errno != ENOENT)
    return std::unexpected(base::fault(errno, "inotify_add_watch", node.path));
  // Edge-triggered: a line that hung up stays so for ever, and need not be a device that went.
  if (terminal >= 0 && !listen_to(epoll_.get(), terminal, EPOLLET) && errno != EEXIST)
    return std::unexpected(base::fault(errno, "epoll_ctl", node.path));
  return {};
}

void Watch::also(int fd) const {
  // Without memory for it, it is looked at when somebody asks.
  static_cast<void>(listen_to(epoll_.get(), fd, EPOLLIN));
}

void Watch::forget() {
  std::array<char, 4096> events;
  while (::read(inotify_.get(), events.data(), events.size()) > 0) {
  }
  std::array<epoll_event, 16> heard;
  while (::epoll_wait(epoll_.get(), heard.data(), static_cast<int>(heard.size()), 0) > 0) {
  }
}

}  // namespace holdfast::claiming
