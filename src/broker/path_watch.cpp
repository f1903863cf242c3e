// SPDX-License-Identifier: MIT
// path_watch.cpp - see the header.
#include "broker/path_watch.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

namespace holdfast::broker {

namespace {

// Of a link inotify(7) would watch where it leads, and not the links on the way there.
constexpr std::uint32_t kOfFolders = IN_CREATE | IN_DELETE | IN_MOVED_TO | IN_MOVED_FROM | IN_ATTRIB | IN_DELETE_SELF |
                                     IN_MOVE_SELF | IN_ONLYDIR | IN_DONT_FOLLOW;
constexpr std::uint32_t kOfTheFolderItself = IN_DELETE_SELF | IN_MOVE_SELF | IN_UNMOUNT | IN_IGNORED | IN_Q_OVERFLOW;

constexpr int kMostReads = 256;  // as much as can wait by default (inotify(7), max_queued_events)

}  // namespace

// What it needs it has from the beginning, as long as there are descriptors.
PathWatch::PathWatch(std::string path) : path_{std::move(path)} {
  if (!path_.starts_with('/') || (path_ + '/').contains("/.")) return;
  // One for good: closing it waits for a grace period of the kernel (fsnotify_destroy_group(), fs/notify/group.c).
  inotify_.reset(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
  mounts_.reset(::open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC));
  can_be_watched_ = inotify_ && mounts_;
}

bool PathWatch::start() {
  is_watching_ = false;
  if (!can_be_watched_ || ++asked_ < kPays) return false;
  asked_ = 0;
  can_be_watched_ = false;
  // What happened before does not count.
  pollfd mounts{mounts_.get(), POLLPRI, 0};
  ::poll(&mounts, 1, 0);
  std::array<char, 4096> room;
  for (int i = 0; i < kMostReads && ::read(inotify_.get(), room.data(), room.size()) > 0; ++i) {
  }
  steps_.clear();
  for (std::size_t end = 0;;) {
    const std::string folder = end == 0 ? "/" : path_.substr(0, end);
    const std::size_t begin = std::min(path_.find_first_not_of('/', end), path_.size());
    end = std::min(path_.find('/', begin), path_.size());
    const int watch = ::inotify_add_watch(inotify_.get(), folder.c_str(), kOfFolders);
    if (watch < 0 && errno != ENOENT) return false;
    if (watch < 0) break;
    steps_.push_back({watch, std::string_view{path_}.substr(begin, end - begin)});
    if (begin == path_.size()) break;
  }
  return is_watching_ = can_be_watched_ = true;
}

bool PathWatch::is_quiet() {
  if (!is_watching_) return false;
  std::array<pollfd, 2> heard{{{inotify_.get(), POLLIN, 0}, {mounts_.get(), POLLPRI, 0}}};
  const int count = ::poll(heard.data(), heard.size(), 0);
  if (count == 0) return true;
  is_watching_ = count > 0 && heard[1].revents == 0 && !has_changed();
  return is_watching_;
}

// Other names in the same folders come and go. One look at a time: who makes more of them than we read in one has us
// look at the path again.
bool PathWatch::has_changed() {
  alignas(inotify_event) std::array<char, 4096> room;
  const ssize_t got = ::read(inotify_.get(), room.data(), room.size());
  if (got <= 0) return true;
  inotify_event event{};
  for (std::size_t at = 0; at < static_cast<std::size_t>(got); at += sizeof event + event.len) {
    std::memcpy(&event, room.data() + at, sizeof event);
    if ((event.mask & kOfTheFolderItself) != 0 || event.len == 0) return true;
    const std::string_view name{room.data() + at + sizeof event};
    if (std::ranges::any_of(steps_, [name, watch = event.wd](const Step& step) {
          return step.watch == watch && (step.next.empty() || step.next == name);
        }))
      return true;
  }
  pollfd more{inotify_.get(), POLLIN, 0};
  return ::poll(&more, 1, 0) != 0;
}

}  // namespace holdfast::broker
