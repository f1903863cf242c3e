// SPDX-License-Identifier: MIT
// peer.cpp - from a socket or a pidfd to a process. What /proc says of a number is believed only if the pidfd, which
// was there before, is of a process that lives after it was read.
#include "broker/peer.hpp"

#include "base/error.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <cerrno>
#include <charconv>
#include <optional>
#include <string_view>

namespace holdfast::broker {

namespace {

// Linux 6.5 (include/uapi/asm-generic/socket.h); Debian 12's headers are older.
constexpr int kSoPeerPidfd = 77;

bool has_died(int pidfd) {
  pollfd death{pidfd, POLLIN, 0};
  return ::poll(&death, 1, 0) != 0;
}

std::string contents(const std::string& path) {
  const base::UniqueFd fd{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  std::string text(4096, '\0');
  const ssize_t got = fd ? ::read(fd.get(), text.data(), text.size()) : 0;
  text.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
  return text;
}

// The first number of the line that begins with `name`.
std::optional<long> number_after(std::string_view text, std::string_view name) {
  const auto line = text.find(name);
  if (line == std::string_view::npos) return std::nullopt;
  text.remove_prefix(line + name.size());
  text.remove_prefix(std::min(text.find_first_not_of(" \t"), text.size()));
  long number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{}) return std::nullopt;
  return number;
}

// The last may be cut off, and then be another group's number: each is followed by a space (proc_pid_status(),
// fs/proc/array.c).
std::vector<gid_t> groups_in(std::string_view status) {
  constexpr std::string_view kName = "\nGroups:\t";
  std::vector<gid_t> groups;
  const auto line = status.find(kName);
  if (line == std::string_view::npos) return groups;
  status.remove_prefix(line + kName.size());
  status = status.substr(0, status.find('\n'));
  for (std::size_t end = 0; (end = status.find(' ')) != std::string_view::npos; status.remove_prefix(end + 1)) {
    gid_t group = 0;
    if (std::from_chars(status.data(), status.data() + end, group).ec == std::errc{}) groups.push_back(group);
  }
  return groups;
}

Error dead() { return base::failure(errc::gone, "the process is dead", {}); }

base::UniqueFd pidfd_of(int socket, pid_t pid) {
  int fd = -1;
  socklen_t length = sizeof fd;
  if (::getsockopt(socket, SOL_SOCKET, kSoPeerPidfd, &fd, &length) == 0) return base::UniqueFd{fd};
  return base::UniqueFd{static_cast<int>(::syscall(SYS_pidfd_open, pid, 0))};
}

}  // namespace

Result<Process> peer_of_socket(int socket) {
  ucred credentials{};
  socklen_t length = sizeof credentials;
  if (::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &length) != 0)
    return std::unexpected(base::fault(errno, "SO_PEERCRED", {}));
  Process process;
  process.pidfd = pidfd_of(socket, credentials.pid);
  const auto facts = base::facts_of(credentials.pid);
  if (!process.pidfd || !facts || has_died(process.pidfd.get())) return std::unexpected(dead());
  process.peer.process = facts->id;
  auto rights = credentials_of(socket);
  if (!rights) return std::unexpected(base::fault(errno, "SO_PEERGROUPS", {}));
  process.peer.rights = std::move(*rights);
  process.peer.user = base::user_name(process.peer.rights.uid);
  process.peer.command = base::printable(facts->command);
  return process;
}

Result<Process> process_of_pidfd(base::UniqueFd& pidfd) {
  const auto pid = number_after(contents(fmt::format("/proc/self/fdinfo/{}", pidfd.get())),
                                "\nPid:");  // Linux 5.3 (pidfd_show_fdinfo)
  if (!pid)
    return std::unexpected(base::failure(errc::invalid_argument, "the descriptor of the owner is no pidfd", {}));
  if (*pid <= 0) return std::unexpected(dead());  // -1: reaped; 0: in a namespace that we do not see into
  const auto facts = base::facts_of(static_cast<pid_t>(*pid));
  const std::string status = contents(fmt::format("/proc/{}/status", *pid));
  const auto uid = number_after(status, "\nUid:");
  const auto gid = number_after(status, "\nGid:");
  if (!facts || !uid || !gid || has_died(pidfd.get())) return std::unexpected(dead());
  Process process;
  process.peer.process = facts->id;
  process.peer.rights.uid = static_cast<uid_t>(*uid);
  process.peer.rights.gid = static_cast<gid_t>(*gid);
  process.peer.rights.groups = groups_in(status);
  process.peer.user = base::user_name(process.peer.rights.uid);
  process.peer.command = base::printable(facts->command);
  process.pidfd = std::move(pidfd);
  return process;
}

}  // namespace holdfast::broker
