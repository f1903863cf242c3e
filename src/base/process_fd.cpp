// SPDX-License-Identifier: MIT
// process_fd.cpp - see the header.
#include "base/process_fd.hpp"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <mutex>
#include <vector>

namespace holdfast::base {
namespace {

class OpenList {
 public:
  static OpenList& get() {
    static OpenList& list = *new OpenList;  // never destroyed: a claim with static storage may outlive it
    return list;
  }

  int open(const char* path, int flags) {
    const std::lock_guard guard{mutex_};
    const int fd = ::open(path, flags | O_CLOEXEC);
    if (fd >= 0) listed_.push_back(fd);
    return fd;
  }

  ssize_t receive(int socket, msghdr& header, std::vector<int>& received) {
    const std::lock_guard guard{mutex_};
    const ssize_t got = ::recvmsg(socket, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (got < 0) return got;
    for (cmsghdr* part = CMSG_FIRSTHDR(&header); part != nullptr; part = CMSG_NXTHDR(&header, part)) {
      if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
      const std::size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
      const std::size_t before = received.size();
      received.resize(before + count);
      std::memcpy(received.data() + before, CMSG_DATA(part), count * sizeof(int));
    }
    listed_.insert(listed_.end(), received.begin(), received.end());
    return got;
  }

  void add(int fd) {
    const std::lock_guard guard{mutex_};
    listed_.push_back(fd);
  }

  void close(int fd) {
    const std::lock_guard guard{mutex_};
    std::erase(listed_, fd);
    ::close(fd);
    await_births();
  }

  void forget(int fd) {
    const std::lock_guard guard{mutex_};
    std::erase(listed_, fd);
  }

 private:
  OpenList() {
    listed_.reserve(32);
    births_.reserve(8);
    ::pthread_atfork([] { get().before_fork(); }, [] { get().in_parent(); }, [] { get().in_child(); });
  }

  void before_fork() {
    mutex_.lock();
    // Without a descriptor left for the pipe, nobody waits for this child.
    if (listed_.empty() || ::pipe2(birth_.data(), O_CLOEXEC) != 0) birth_ = kNoPipe;
  }

  void in_parent() {
    if (birth_ != kNoPipe) {
      ::close(birth_[1]);
      forget_births(0);
      births_.push_back({.fd = birth_[0], .events = 0, .revents = 0});
    }
    mutex_.unlock();
  }

  void in_child() {
    for (const int fd : listed_) ::close(fd);
    for (const pollfd& birth : births_) ::close(birth.fd);
    listed_.clear();
    births_.clear();
    // Last: with it the parent hears that all others are closed.
    if (birth_ != kNoPipe) {
      ::close(birth_[0]);
      ::close(birth_[1]);
    }
    mutex_.unlock();
  }

  // Closes the pipes of children that have closed their end, waiting for the first of them as long as is said.
  void forget_births(int patience_ms) {
    while (::poll(births_.data(), births_.size(), patience_ms) < 0 && errno == EINTR) {
    }
    std::erase_if(births_, [](const pollfd& birth) {
      if (birth.revents != 0) ::close(birth.fd);
      return birth.revents != 0;
    });
  }

  void await_births() {
    constexpr int kPatienceMs = 100;  // a debugger may have stopped the child
    for (std::size_t before = 0; !births_.empty() && before != births_.size();) {
      before = births_.size();
      forget_births(kPatienceMs);
    }
    for (const pollfd& birth : births_) ::close(birth.fd);
    births_.clear();
  }

  static constexpr std::array<int, 2> kNoPipe{-1, -1};

  std::mutex mutex_;
  std::vector<int> listed_;
  std::vector<pollfd> births_;          // the reading ends: a hang-up says that the child is through
  std::array<int, 2> birth_ = kNoPipe;  // of the fork that is under way
};

}  // namespace

ProcessFd ProcessFd::open(const char* path, int flags) {
  ProcessFd fd;
  fd.fd_ = OpenList::get().open(path, flags);
  return fd;
}

ssize_t ProcessFd::receive(int socket, msghdr& header, std::vector<ProcessFd>& received) {
  std::vector<int> fds;
  const ssize_t got = OpenList::get().receive(socket, header, fds);
  for (const int fd : fds) received.emplace_back().fd_ = fd;
  return got;
}

ProcessFd ProcessFd::adopt(UniqueFd fd) {
  ProcessFd listed;
  if (!fd) return listed;
  OpenList::get().add(fd.get());
  listed.fd_ = fd.release();
  return listed;
}

void ProcessFd::reset() noexcept {
  if (fd_ >= 0) OpenList::get().close(std::exchange(fd_, -1));
}

void ProcessFd::share_with_children() noexcept {
  if (fd_ >= 0) OpenList::get().forget(fd_);
}

}  // namespace holdfast::base
