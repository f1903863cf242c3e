// SPDX-License-Identifier: MIT
// connection.cpp - see the header.
#include "broker/connection.hpp"

#include <fcntl.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace holdfast::broker {

namespace {

constexpr std::size_t kMostQueued = 1 << 20;      // bytes for one client
constexpr std::size_t kMostQueuedPackets = 4096;  // and their bookkeeping
constexpr std::size_t kMostPassed = 253;          // SCM_MAX_FD, include/net/scm.h
constexpr std::size_t kOverhead = 64;             // of a short packet, about

struct alignas(cmsghdr) Control {
  std::byte bytes[CMSG_SPACE(kMostPassed * sizeof(int)) + CMSG_SPACE(sizeof(ucred))];
};

// Everything is looked at, so that no descriptor is left open.
void read_control(msghdr& header, Packet& packet) {
  for (cmsghdr* part = CMSG_FIRSTHDR(&header); part != nullptr; part = CMSG_NXTHDR(&header, part)) {
    if (part->cmsg_level != SOL_SOCKET) continue;
    const std::size_t length = part->cmsg_len - CMSG_LEN(0);
    if (part->cmsg_type == SCM_RIGHTS) {
      for (std::size_t i = 0; i < length / sizeof(int); ++i) {
        int fd = -1;
        std::memcpy(&fd, CMSG_DATA(part) + i * sizeof(int), sizeof fd);
        packet.descriptors.emplace_back(fd);
      }
    } else if (part->cmsg_type == SCM_CREDENTIALS && length >= sizeof(ucred)) {
      ucred credentials{};
      std::memcpy(&credentials, CMSG_DATA(part), sizeof credentials);
      packet.sender = credentials.pid;
    }
  }
}

ssize_t send_now(int socket, std::span<const std::byte> bytes, std::span<const int> descriptors) {
  iovec part{const_cast<std::byte*>(bytes.data()), bytes.size()};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  Control control;
  if (!descriptors.empty()) {
    header.msg_control = &control;
    header.msg_controllen = CMSG_SPACE(descriptors.size_bytes());
    cmsghdr* const rights = CMSG_FIRSTHDR(&header);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(descriptors.size_bytes());
    std::memcpy(CMSG_DATA(rights), descriptors.data(), descriptors.size_bytes());
  }
  ssize_t sent = 0;
  do sent = ::sendmsg(socket, &header, MSG_NOSIGNAL | MSG_DONTWAIT);
  while (sent < 0 && errno == EINTR);
  return sent;
}

bool is_full(int errnum) { return errnum == EAGAIN || errnum == ENOBUFS || errnum == ENOMEM; }

Connection::Sent failure_of(int errnum) {
  return errnum == ETOOMANYREFS || errnum == EMSGSIZE || errnum == EBADF ? Connection::Sent::failed
                                                                         : Connection::Sent::end;
}

}  // namespace

Connection::Heard Connection::receive(std::span<std::byte> buffer, Packet& packet) {
  packet.descriptors.clear();
  packet.sender = 0;
  iovec part{buffer.data(), buffer.size()};
  Control control;
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = &control;
  header.msg_controllen = sizeof control;
  const ssize_t got = ::recvmsg(socket_.get(), &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  // Closing with something unread is what makes it a reset (net/unix/af_unix.c, unix_release_sock()).
  if (got < 0 && errno == ECONNRESET) return Heard::end_unread;
  if (got < 0) return errno == EAGAIN || errno == EINTR ? Heard::nothing : Heard::end;
  // An empty packet has its sender's credentials, the end has nothing.
  is_drained_ = got == 0 && header.msg_controllen == 0;
  read_control(header, packet);
  packet.bytes = buffer.first(static_cast<std::size_t>(got));
  return got == 0 || (header.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0 ? Heard::end : Heard::packet;
}

Connection::Sent Connection::send(std::span<const std::byte> bytes, std::span<const int> descriptors) {
  if (descriptors.size() > kMostPassed) return Sent::failed;
  if (!waiting_.empty()) return keep(bytes, descriptors);
  if (send_now(socket_.get(), bytes, descriptors) >= 0) return Sent::sent;
  return is_full(errno) ? keep(bytes, descriptors) : failure_of(errno);
}

Connection::Sent Connection::keep(std::span<const std::byte> bytes, std::span<const int> descriptors) {
  if (queued_bytes_ + bytes.size() + kOverhead > kMostQueued || waiting_.size() >= kMostQueuedPackets)
    return Sent::full;
  Waiting waiting{{bytes.begin(), bytes.end()}, {}};
  for (const int fd : descriptors) {
    waiting.descriptors.emplace_back(::fcntl(fd, F_DUPFD_CLOEXEC, 0));
    if (!waiting.descriptors.back()) return Sent::failed;
  }
  queued_bytes_ += bytes.size() + kOverhead;
  waiting_.push_back(std::move(waiting));
  return Sent::queued;
}

bool Connection::is_read() const {
  int unread = 0;  // the packets' memory (net/unix/af_unix.c, unix_outq_len())
  return waiting_.empty() && (::ioctl(socket_.get(), SIOCOUTQ, &unread) != 0 || unread == 0);
}

void Connection::hang_up() const { ::shutdown(socket_.get(), SHUT_RDWR); }

std::vector<base::UniqueFd> Connection::end() {
  hang_up();  // the other side does not wait for the close
  std::vector<base::UniqueFd> left;
  left.push_back(std::move(socket_));
  for (Waiting& waiting : waiting_)
    for (base::UniqueFd& fd : waiting.descriptors) left.push_back(std::move(fd));
  waiting_.clear();
  queued_bytes_ = 0;
  return left;
}

Connection::Sent Connection::flush() {
  while (!waiting_.empty()) {
    const Waiting& next = waiting_.front();
    std::vector<int> descriptors;
    for (const base::UniqueFd& fd : next.descriptors) descriptors.push_back(fd.get());
    if (send_now(socket_.get(), next.bytes, descriptors) < 0) return is_full(errno) ? Sent::queued : Sent::end;
    queued_bytes_ -= next.bytes.size() + kOverhead;
    waiting_.pop_front();
  }
  return Sent::sent;
}

}  // namespace holdfast::broker
