// SPDX-License-Identifier: MIT
// process_fd.cpp - see the header.
#include "base/process_fd.hpp"

#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
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

  void close(int fd) {
    const std::lock_guard guard{mutex_};
    std::erase(listed_, fd);
    ::close(fd);
  }

  void forget(int fd) {
    const std::lock_guard guard{mutex_};
    std::erase(listed_, fd);
  }

 private:
  OpenList() {
    listed_.reserve(32);
    ::pthread_atfork([] { get().mutex_.lock(); }, [] { get().mutex_.unlock(); },
                     [] {
                       for (const int fd : get().listed_) ::close(fd);
                       get().listed_.clear();
                       get().mutex_.unlock();
                     });
  }

  std::mutex mutex_;
  std::vector<int> listed_;
};

}  // namespace

ProcessFd ProcessFd::open(const char* path, int flags) {
  ProcessFd fd;
  fd.fd_ = OpenList::get().open(path, flags);
  return fd;
}

void ProcessFd::reset() noexcept {
  if (fd_ >= 0) OpenList::get().close(std::exchange(fd_, -1));
}

void ProcessFd::share_with_children() noexcept {
  if (fd_ >= 0) OpenList::get().forget(fd_);
}

}  // namespace holdfast::base
