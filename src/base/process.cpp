// SPDX-License-Identifier: MIT
// process.cpp - what /proc says about a process, read with one descriptor per look.
#include "base/process.hpp"

#include "base/unique_fd.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>
#include <time.h>

#include <atomic>
#include <cerrno>
#include <charconv>
#include <string_view>

namespace holdfast::base {
namespace {

// PF_EXITING of include/linux/sched.h, shown in field 9: set before a dying process drops its memory and files, which
// takes tens of milliseconds per GiB.
constexpr unsigned long kExiting = 0x4;

struct Stat {
  std::string command;
  char state = '?';
  unsigned long flags = 0;
  std::uint64_t start_ticks = 0;
};

std::optional<Stat> parse_stat(std::string_view text) {
  // The name is in parentheses and may itself contain them and blanks: the last ')' ends it.
  const auto open = text.find('(');
  const auto close = text.rfind(')');
  if (open == std::string_view::npos || close == std::string_view::npos || close + 2 >= text.size())
    return std::nullopt;
  Stat stat;
  stat.command = std::string{text.substr(open + 1, close - open - 1)};
  text.remove_prefix(close + 2);
  stat.state = text.front();
  int field = 3;
  while (!text.empty()) {
    const auto end = std::min(text.find(' '), text.size());
    const std::string_view word = text.substr(0, end);
    if (field == 9) std::from_chars(word.data(), word.data() + word.size(), stat.flags);
    if (field == 22) {
      std::from_chars(word.data(), word.data() + word.size(), stat.start_ticks);
      return stat;
    }
    text.remove_prefix(std::min(end + 1, text.size()));
    ++field;
  }
  return std::nullopt;
}

// CLOCK_REALTIME of the boot: start ticks count from it on CLOCK_BOOTTIME (proc(5)).
std::chrono::system_clock::time_point boot_time() {
  timespec since_boot{};
  ::clock_gettime(CLOCK_BOOTTIME, &since_boot);
  return std::chrono::system_clock::now() - std::chrono::seconds{since_boot.tv_sec} -
         std::chrono::duration_cast<std::chrono::system_clock::duration>(std::chrono::nanoseconds{since_boot.tv_nsec});
}

}  // namespace

std::optional<ProcessFacts> facts_of(pid_t pid) {
  if (pid <= 0) return std::nullopt;
  const UniqueFd fd{::open(fmt::format("/proc/{}/stat", pid).c_str(), O_RDONLY | O_CLOEXEC)};
  if (!fd) return std::nullopt;
  char buffer[1024];
  const ssize_t got = ::read(fd.get(), buffer, sizeof buffer);
  if (got <= 0) return std::nullopt;
  const auto stat = parse_stat({buffer, static_cast<std::size_t>(got)});
  if (!stat) return std::nullopt;
  ProcessFacts facts;
  facts.id = {pid, stat->start_ticks};
  facts.command = stat->command;
  // The flags are the leader's. A leader that ended before its threads looks dead but the process is not: only 'Z'
  // together with no thread left means that, and then the directory of threads holds nothing but the leader.
  facts.dead = stat->state == 'X' || stat->state == 'x';
  if (stat->state == 'Z' || (stat->flags & kExiting) != 0) {
    struct stat tasks{};
    facts.dead = ::stat(fmt::format("/proc/{}/task", pid).c_str(), &tasks) != 0 || tasks.st_nlink <= 3;
  }
  struct stat owner{};
  if (::fstat(fd.get(), &owner) == 0) facts.uid = owner.st_uid;
  static const long ticks_per_second = ::sysconf(_SC_CLK_TCK);
  facts.started =
      boot_time() + std::chrono::milliseconds{stat->start_ticks * 1000 / static_cast<std::uint64_t>(ticks_per_second)};
  return facts;
}

bool is_alive(const ProcessId& id) {
  if (id.pid <= 0) return false;
  const auto facts = facts_of(id.pid);
  // hidepid mounts hide the directory of a living process; kill(2) still tells.
  if (!facts) return ::kill(id.pid, 0) == 0 || errno == EPERM;
  if (facts->dead) return false;
  return id.start_ticks == 0 || id.start_ticks == facts->id.start_ticks;
}

namespace {

// This process, once read: the start time above the pid, which needs 22 bits (PID_MAX_LIMIT, include/linux/threads.h).
// The pid tells a child that it inherited its parent's, the fork handler also where the number came round again or is
// the same in another namespace.
std::atomic<std::uint64_t> known_self{0};
constexpr unsigned kPidBits = 24;

}  // namespace

ProcessId self() {
  const pid_t pid = ::getpid();
  const std::uint64_t known = known_self.load(std::memory_order_relaxed);
  if ((known & ((1U << kPidBits) - 1U)) == static_cast<std::uint64_t>(pid)) return {pid, known >> kPidBits};
  static const int handler = ::pthread_atfork(nullptr, nullptr, [] { known_self.store(0, std::memory_order_relaxed); });
  const auto facts = facts_of(pid);
  if (!facts) return {pid, 0};
  if (handler == 0)
    known_self.store(facts->id.start_ticks << kPidBits | static_cast<std::uint64_t>(pid), std::memory_order_relaxed);
  return facts->id;
}

std::string executable_name(pid_t pid) {
  char target[4096];
  const ssize_t length = ::readlink(fmt::format("/proc/{}/exe", pid).c_str(), target, sizeof target);
  if (length > 0) {
    std::string_view path{target, static_cast<std::size_t>(length)};
    // A file that was replaced while it runs (proc_pid_exe(5)); readers of our lock files drop this as well.
    static constexpr std::string_view kDeleted = " (deleted)";
    if (path.ends_with(kDeleted)) path.remove_suffix(kDeleted.size());
    if (const auto slash = path.rfind('/'); slash != std::string_view::npos) path.remove_prefix(slash + 1);
    return std::string{path};
  }
  // Of another's process, as the broker sees it. Its whole stat would be among the dearest of /proc to make.
  char command[64];
  const UniqueFd fd{::open(fmt::format("/proc/{}/comm", pid).c_str(), O_RDONLY | O_CLOEXEC)};
  const ssize_t got = fd ? ::read(fd.get(), command, sizeof command) : -1;
  const std::string_view name{command, static_cast<std::size_t>(std::max<ssize_t>(got, 0))};
  return std::string{name.substr(0, name.rfind('\n'))};
}

std::string user_name(uid_t uid) {
  // getpwuid_r(3) would need the dynamic loader for NSS, which a static command does not have; the local file names the
  // users of a device machine, and a number is still right for the rest.
  const UniqueFd fd{::open("/etc/passwd", O_RDONLY | O_CLOEXEC)};
  std::string text;
  char buffer[4096];
  for (ssize_t got = 0; fd && (got = ::read(fd.get(), buffer, sizeof buffer)) > 0;)
    text.append(buffer, static_cast<std::size_t>(got));
  const std::string wanted = fmt::format(":{}:", uid);
  for (std::string_view rest = text; !rest.empty();) {
    const auto end = std::min(rest.find('\n'), rest.size());
    const std::string_view line = rest.substr(0, end);
    const auto name_end = line.find(':');
    const auto id_start = name_end == std::string_view::npos ? name_end : line.find(':', name_end + 1);
    if (id_start != std::string_view::npos && line.substr(id_start).starts_with(wanted))
      return std::string{line.substr(0, name_end)};
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  return fmt::format("{}", uid);
}

}  // namespace holdfast::base
