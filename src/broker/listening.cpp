// SPDX-License-Identifier: MIT
// listening.cpp - see the header.
#include "broker/listening.hpp"

#include "base/error.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <grp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <optional>

namespace holdfast::broker {

namespace {

constexpr int kBacklog = 4096;

Result<base::UniqueFd> bound_to(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path)
    return std::unexpected(base::fault(errc::invalid_argument, ENAMETOOLONG, path, {}));
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  base::UniqueFd socket{::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
  if (!socket) return std::unexpected(base::fault(errno, "socket", {}));
  // Connections inherit it: what a client sends before the accepted one could be given it would carry no credentials
  // (net/unix/af_unix.c, unix_maybe_add_creds()).
  const int on = 1;
  if (::setsockopt(socket.get(), SOL_SOCKET, SO_PASSCRED, &on, sizeof on) != 0)
    return std::unexpected(base::fault(errno, "SO_PASSCRED", {}));
  ::unlink(path.c_str());
  if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    return std::unexpected(base::fault(errno, path, {}));
  return socket;
}

Result<> open_to(const std::string& path, const std::string& group) {
  const ::group* const entry = group.empty() ? nullptr : ::getgrnam(group.c_str());
  if (!group.empty() && entry == nullptr)
    return std::unexpected(base::failure(errc::invalid_argument, fmt::format("there is no group {}", group), {}));
  if (entry != nullptr && ::chown(path.c_str(), static_cast<uid_t>(-1), entry->gr_gid) != 0)
    return std::unexpected(base::fault(errno, path, {}));
  if (::chmod(path.c_str(), entry == nullptr ? 0666 : 0660) != 0) return std::unexpected(base::fault(errno, path, {}));
  return {};
}

}  // namespace

Result<base::UniqueFd> listen_at(const std::string& path, const std::string& group) {
  const int handed = ::sd_listen_fds(0);
  for (int fd = SD_LISTEN_FDS_START; fd < SD_LISTEN_FDS_START + handed; ++fd) {
    if (::sd_is_socket(fd, AF_UNIX, SOCK_SEQPACKET, 1) <= 0) continue;
    ::fcntl(fd, F_SETFD, FD_CLOEXEC);
    ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK);
    return base::UniqueFd{fd};
  }
  const std::string temporary = fmt::format("{}.{}", path, ::getpid());
  auto socket = bound_to(temporary);
  if (!socket) return socket;
  auto opened = open_to(temporary, group);
  if (opened && ::listen(socket->get(), kBacklog) != 0) opened = std::unexpected(base::fault(errno, "listen", {}));
  if (opened && ::rename(temporary.c_str(), path.c_str()) != 0) opened = std::unexpected(base::fault(errno, path, {}));
  if (opened) return socket;
  ::unlink(temporary.c_str());
  return std::unexpected(std::move(opened.error()));
}

}  // namespace holdfast::broker
