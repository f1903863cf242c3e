// SPDX-License-Identifier: MIT
// link.cpp - see the header.
#include "claim/link.hpp"

#include "base/unique_fd.hpp"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <thread>
#include <utility>

namespace holdfast::claiming {
namespace {

using namespace std::chrono_literals;
using Clock = Link::Clock;

constexpr std::string_view kDefaultSocket = "/run/holdfast/socket";

// Whom a kept connection speaks for: the broker asks the socket who connected, once.
struct Speaker {
  pid_t pid = ::getpid();
  uid_t user = ::geteuid();
  uid_t real_user = ::getuid();
  gid_t group = ::getegid();
  bool operator==(const Speaker&) const = default;
};

struct Kept {
  Link link;
  std::string path;
  Speaker speaker;
};

// Without a lock, which a forked child could find held by a thread that it does not have.
constinit std::array<std::atomic<Kept*>, 4> kept{};

// Claims given back while no broker was there. One that started meanwhile may have taken them over from its journal.
struct Untold {
  wire::ClaimId claim{};
  std::string path;
  pid_t pid = ::getpid();
};
constinit std::array<std::atomic<Untold*>, 16> untold{};

Clock::duration left_until(Clock::time_point deadline) {
  return deadline == Clock::time_point::max() ? Clock::duration::max() : deadline - Clock::now();
}

// poll(2) for `events` on `fd`.
std::expected<void, Silence> await(int fd, short events, const Link::Until& until) {
  while (true) {
    const auto left = left_until(until.deadline);
    const auto nanoseconds = std::max<std::int64_t>(std::chrono::nanoseconds{left}.count(), 0);
    const timespec timeout{static_cast<time_t>(nanoseconds / 1'000'000'000),
                           static_cast<long>(nanoseconds % 1'000'000'000)};
    std::array<pollfd, 2> heard{{{fd, events, 0}, {until.life, POLLIN, 0}}};
    const int answer = ::ppoll(heard.data(), heard.size(),
                               until.deadline == Clock::time_point::max() ? nullptr : &timeout, until.in_sleep);
    if (answer > 0 && heard[0].revents == 0) return std::unexpected{Silence::forlorn};
    if (answer > 0) return {};
    if (answer == 0) return std::unexpected{Silence::deadline};
    if (errno != EINTR) return std::unexpected{Silence::gone};
    if (until.on_signal == OnSignal::give_up) return std::unexpected{Silence::signal};
  }
}

base::ProcessFd connected(const std::string& path, Clock::duration patience) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path) return {};
  std::memcpy(address.sun_path, path.data(), path.size());
  base::UniqueFd socket{::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
  if (!socket) return {};
  const auto end = Clock::now() + patience;
  while (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    // EAGAIN: so many connect at once that the broker's backlog is full (unix(7)).
    if (errno == EINTR) continue;
    if (errno != EAGAIN || Clock::now() >= end) return {};
    std::this_thread::sleep_for(1ms);
  }
  return base::ProcessFd::adopt(std::move(socket));
}

}  // namespace

std::string broker_socket() {
  const char* const given = ::secure_getenv("HOLDFAST_SOCKET");
  return std::string{given != nullptr ? std::string_view{given} : kDefaultSocket};
}

std::expected<Link, Silence> Link::open(const std::string& path, Clock::duration patience) {
  for (std::atomic<Kept*>& place : kept) {
    if (place.load(std::memory_order_relaxed) == nullptr) continue;
    Kept* const found = place.exchange(nullptr, std::memory_order_acquire);
    if (found == nullptr) continue;
    // A child's copy is left alone for ever: its descriptor's number may be somebody else's by now.
    if (found->speaker.pid != ::getpid()) continue;
    const std::unique_ptr<Kept> ours{found};
    if (ours->speaker != Speaker{} || ours->path != path) continue;
    Link link = std::move(ours->link);
    link.was_kept_ = true;
    return link;
  }
  Link link;
  link.path_ = path;
  link.socket_ = connected(path, patience);
  if (!link.socket_) return std::unexpected{Silence::gone};
  if (auto known = link.greet(patience); !known) return std::unexpected{Silence::gone};
  for (std::atomic<Untold*>& place : untold) {
    if (place.load(std::memory_order_relaxed) == nullptr) continue;
    const std::unique_ptr<Untold> found{place.exchange(nullptr, std::memory_order_acquire)};
    if (!found || found->pid != ::getpid() || found->path != path) continue;
    std::vector<Packet> aside;
    if (link.ask(wire::Release{found->claim}, aside, {}, patience)) continue;
    release_later(found->claim, path);
    return std::unexpected{Silence::gone};
  }
  return link;
}

void Link::release_later(wire::ClaimId claim, const std::string& path) noexcept {
  std::unique_ptr<Untold> mine{new (std::nothrow) Untold{claim, path}};
  for (std::atomic<Untold*>& place : untold) {
    Untold* nothing = nullptr;
    if (!mine || !place.compare_exchange_strong(nothing, mine.get(), std::memory_order_release)) continue;
    static_cast<void>(mine.release());
    return;
  }
}

void Link::keep(Link link) noexcept {
  if (!link.socket_ || link.is_shared_) return;
  std::string path = link.path_;
  std::unique_ptr<Kept> mine{new (std::nothrow) Kept{std::move(link), std::move(path), {}}};
  for (std::atomic<Kept*>& place : kept) {
    Kept* nothing = nullptr;
    if (!mine || !place.compare_exchange_strong(nothing, mine.get(), std::memory_order_release)) continue;
    static_cast<void>(mine.release());
    return;
  }
}

std::expected<void, Silence> Link::greet(Clock::duration patience) {
  std::vector<Packet> aside;
  auto answer = ask(wire::Hello{wire::kVersion, wire::kVersion, program_invocation_short_name}, aside, {}, patience);
  if (!answer) return std::unexpected{answer.error()};
  const auto* const welcome = std::get_if<wire::Welcome>(&answer->body);
  if (welcome == nullptr || welcome->version != wire::kVersion) return std::unexpected{Silence::gone};
  epoch_ = welcome->epoch;
  return {};
}

std::expected<std::uint32_t, Silence> Link::send(const wire::FromClient& message, std::span<const int> descriptors,
                                                 Clock::duration patience) {
  if (!socket_) return std::unexpected{Silence::gone};
  const std::uint32_t number = next_;
  next_ = next_ == UINT32_MAX ? 1 : next_ + 1;
  std::vector<std::byte> packet;
  if (!wire::encode(number, message, packet)) return std::unexpected{Silence::gone};
  iovec part{packet.data(), packet.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(wire::kMostDescriptors * sizeof(int))> space;
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  if (!descriptors.empty()) {
    header.msg_control = space.data();
    header.msg_controllen = CMSG_SPACE(descriptors.size_bytes());
    cmsghdr* const rights = CMSG_FIRSTHDR(&header);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(descriptors.size_bytes());
    std::memcpy(CMSG_DATA(rights), descriptors.data(), descriptors.size_bytes());
  }
  const Until until{.deadline = Clock::now() + patience};
  while (::sendmsg(socket_.get(), &header, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
    if (errno == EINTR) continue;
    if (errno != EAGAIN || !await(socket_.get(), POLLOUT, until)) return std::unexpected{Silence::gone};
  }
  return number;
}

std::expected<Packet, Silence> Link::receive_now() {
  if (!socket_) return std::unexpected{Silence::gone};
  const auto bytes = std::make_unique_for_overwrite<std::byte[]>(wire::kMostBytes);
  alignas(cmsghdr) std::array<char, CMSG_SPACE((wire::kMostDescriptors + 3) * sizeof(int))> space;
  iovec part{bytes.get(), wire::kMostBytes};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = space.data();
  header.msg_controllen = space.size();
  Packet packet;
  const ssize_t got = base::ProcessFd::receive(socket_.get(), header, packet.descriptors);
  // What a dead broker had not read is told once, by ECONNRESET, before what it has sent (unix_release_sock(),
  // net/unix/af_unix.c): a grant may be among that.
  if (got < 0 && (errno == EAGAIN || errno == EINTR || errno == ECONNRESET)) return std::unexpected{Silence::deadline};
  if (got > 0 && (header.msg_flags & MSG_CTRUNC) != 0) return std::unexpected{Silence::no_room};
  if (got <= 0 || (header.msg_flags & MSG_TRUNC) != 0) return std::unexpected{Silence::gone};
  auto message = wire::decode_from_broker({bytes.get(), static_cast<std::size_t>(got)}, packet.descriptors.size());
  if (!message) return std::unexpected{Silence::gone};
  packet.number = message->number;
  packet.body = std::move(message->body);
  return packet;
}

std::expected<Packet, Silence> Link::receive(const Until& until) {
  if (!socket_) return std::unexpected{Silence::gone};
  while (true) {
    if (auto ready = await(socket_.get(), POLLIN, until); !ready) return std::unexpected{ready.error()};
    auto packet = receive_now();
    if (packet || packet.error() != Silence::deadline) return packet;
  }
}

std::expected<Packet, Silence> Link::ask(const wire::FromClient& message, std::vector<Packet>& aside,
                                         std::span<const int> descriptors, Clock::duration patience) {
  const auto number = send(message, descriptors, patience);
  if (!number) return std::unexpected{number.error()};
  return answer_to(*number, aside, patience);
}

std::expected<Packet, Silence> Link::answer_to(std::uint32_t number, std::vector<Packet>& aside,
                                               Clock::duration patience) {
  const Until until{.deadline = Clock::now() + patience};
  while (true) {
    auto packet = receive(until);
    if (!packet || packet->number == number) return packet;
    aside.push_back(std::move(*packet));
  }
}

}  // namespace holdfast::claiming
