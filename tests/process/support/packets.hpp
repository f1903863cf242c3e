// SPDX-License-Identifier: MIT
// packets.hpp - what every test that speaks over a Unix socket by itself needs: packets with descriptors, and a socket
// to be found at.
#pragma once

#include "base/unique_fd.hpp"

#include <sys/socket.h>
#include <sys/types.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <span>
#include <string>
#include <vector>

namespace holdfast::testing_support {

/// sendmsg(2) with the descriptors riding along (SCM_RIGHTS), again after a signal. \returns as sendmsg(2)
inline ssize_t send_packet(int socket, std::span<const std::byte> bytes, std::span<const int> descriptors = {},
                           int flags = 0) {
  iovec part{const_cast<std::byte*>(bytes.data()), bytes.size()};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  std::vector<std::max_align_t> control;
  if (!descriptors.empty()) {
    control.resize(CMSG_SPACE(descriptors.size_bytes()) / sizeof(std::max_align_t) + 1);
    message.msg_control = control.data();
    message.msg_controllen = CMSG_SPACE(descriptors.size_bytes());
    cmsghdr* const rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(descriptors.size_bytes());
    std::memcpy(CMSG_DATA(rights), descriptors.data(), descriptors.size_bytes());
  }
  ssize_t sent = 0;
  do {
    sent = ::sendmsg(socket, &message, flags | MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  return sent;
}

/// One byte with one descriptor. False when it was not sent.
inline bool send_descriptor(int socket, int fd) {
  const std::array byte{std::byte{'x'}};
  return send_packet(socket, byte, {&fd, 1}) == 1;
}

/// A listening SEQPACKET socket; empty, with errno, when there can be none.
inline base::UniqueFd listener_at(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), std::min(path.size(), sizeof address.sun_path - 1));
  base::UniqueFd listener{::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)};
  if (::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      ::listen(listener.get(), 16) != 0)
    listener.reset();
  return listener;
}

}  // namespace holdfast::testing_support
