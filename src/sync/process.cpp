// SPDX-License-Identifier: MIT
#include "sync/process.hpp"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <atomic>

namespace holdfast::sync {
namespace {

/// 0 when it cannot be read: another user's process behind hidepid, no /proc, or no such process.
std::uint32_t start_of(std::uint32_t pid) {
  std::array<char, 32> path{};
  ::snprintf(path.data(), path.size(), "/proc/%u/stat", pid);
  const int fd = ::open(path.data(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  std::array<char, 1024> line{};
  const ssize_t length = ::read(fd, line.data(), line.size() - 1);
  ::close(fd);
  if (length <= 0) return 0;
  const char* at = ::strrchr(line.data(), ')');  // the name before may contain anything
  for (int field = 2; at != nullptr && field < 22; ++field) at = ::strchr(at + 1, ' ');
  return at != nullptr ? static_cast<std::uint32_t>(::strtoull(at, nullptr, 10)) : 0;
}

// Packed, so that threads that ask at once write the same: pid and start in one, the namespace in the other.
constinit std::atomic<std::uint64_t> known{0};
constinit std::atomic<std::uint32_t> known_namespace{0};

void forget() { known.store(0, std::memory_order_relaxed); }

Process ask() {
  static const bool watched = ::pthread_atfork(nullptr, nullptr, forget) == 0;
  const auto pid = static_cast<std::uint32_t>(::getpid());
  const std::uint32_t start = start_of(pid);
  struct stat name_space{};
  if (!watched || start == 0 || ::stat("/proc/self/ns/pid", &name_space) != 0) return {};
  const auto number = static_cast<std::uint32_t>(name_space.st_ino);
  known_namespace.store(number, std::memory_order_relaxed);
  known.store(static_cast<std::uint64_t>(start) << 32 | pid, std::memory_order_release);  // pairs with this_process
  return {pid, start, number};
}

}  // namespace

Process this_process() {
  const std::uint64_t both = known.load(std::memory_order_acquire);
  if (both == 0) [[unlikely]]
    return ask();
  return {static_cast<std::uint32_t>(both), static_cast<std::uint32_t>(both >> 32),
          known_namespace.load(std::memory_order_relaxed)};
}

bool is_gone(std::uint32_t pid, std::uint32_t start) {
  const int fd = static_cast<int>(::syscall(SYS_pidfd_open, pid, 0));
  if (fd < 0) return errno == ESRCH;
  // Readable when the last thread has ended (pidfd_open(2)); a leader that ended before its threads is not enough.
  pollfd ended{fd, POLLIN, 0};
  const bool gone = ::poll(&ended, 1, 0) == 1;
  ::close(fd);
  if (gone) return true;
  const std::uint32_t now = start_of(pid);
  return now != 0 && now != start;  // the id is another's by now
}

}  // namespace holdfast::sync
