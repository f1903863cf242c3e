// SPDX-License-Identifier: MIT
#include "sync/process.hpp"

#include <dirent.h>
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

namespace holdfast::sync {
namespace {

/// Field `wanted` of a stat file below /proc, 0 when it cannot be read: another user's process behind hidepid, no
/// /proc, or nothing of that id.
std::uint64_t field_of(const char* path, int wanted) {
  const int fd = ::open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  std::array<char, 1024> line{};
  const ssize_t length = ::read(fd, line.data(), line.size() - 1);
  ::close(fd);
  if (length <= 0) return 0;
  const char* at = ::strrchr(line.data(), ')');  // the name before may contain anything
  for (int field = 2; at != nullptr && field < wanted; ++field) at = ::strchr(at + 1, ' ');
  return at != nullptr ? ::strtoull(at, nullptr, 10) : 0;
}

std::uint32_t start_of(std::uint32_t pid) {
  std::array<char, 32> path{};
  ::snprintf(path.data(), path.size(), "/proc/%u/stat", pid);
  return static_cast<std::uint32_t>(field_of(path.data(), 22));
}

/// How many threads the process has, when each of them is on its way out of the kernel's do_exit() and so in no program
/// any more (PF_EXITING, include/linux/sched.h); 0 when one is not, or it cannot be seen.
std::size_t threads_if_all_exit(std::uint32_t pid) {
  constexpr std::uint64_t kExiting = 4;
  std::array<char, 64> path{};
  ::snprintf(path.data(), path.size(), "/proc/%u/task", pid);
  DIR* const threads = ::opendir(path.data());
  if (threads == nullptr) return 0;
  std::size_t count = 0;
  bool all = true;
  while (const dirent* const entry = all ? ::readdir(threads) : nullptr) {
    if (entry->d_name[0] == '.') continue;
    ::snprintf(path.data(), path.size(), "/proc/%u/task/%.20s/stat", pid, entry->d_name);
    all = (field_of(path.data(), 9) & kExiting) != 0;
    ++count;
  }
  ::closedir(threads);
  return all ? count : 0;
}

/// A thread that was not on its way out may have started another behind our back: so the same ones must be all, twice.
bool all_exit(std::uint32_t pid) {
  const std::size_t first = threads_if_all_exit(pid);
  return first != 0 && threads_if_all_exit(pid) == first;
}

void forget() { process::known.store(0, std::memory_order_relaxed); }

}  // namespace

namespace process {

constinit std::atomic<std::uint64_t> known{0};
constinit std::atomic<std::uint32_t> known_namespace{0};

Process ask() {
  static const bool watched = ::pthread_atfork(nullptr, nullptr, forget) == 0;
  const auto pid = static_cast<std::uint32_t>(::getpid());
  const std::uint32_t start = start_of(pid);
  struct stat name_space{};
  if (!watched || start == 0 || ::stat("/proc/self/ns/pid", &name_space) != 0) return {};
  const auto number = static_cast<std::uint32_t>(name_space.st_ino);
  known_namespace.store(number, std::memory_order_relaxed);
  known.store(static_cast<std::uint64_t>(start) << 32 | pid, std::memory_order_release);
  return {pid, start, number};
}

}  // namespace process

bool is_gone(std::uint32_t pid, std::uint32_t start) {
  const int fd = static_cast<int>(::syscall(SYS_pidfd_open, pid, 0));
  if (fd < 0) return errno == ESRCH;
  // Readable when the last thread has ended (pidfd_open(2)); a leader that ended before its threads is not enough.
  pollfd ended{fd, POLLIN, 0};
  const bool gone = ::poll(&ended, 1, 0) == 1;
  ::close(fd);
  if (gone) return true;
  const std::uint32_t now = start_of(pid);
  if (now == 0) return false;
  if (now != start) return true;  // the id is another's by now
  // The above comes after the kernel has freed the process's memory.
  return all_exit(pid);
}

}  // namespace holdfast::sync
