// SPDX-License-Identifier: MIT
// raw_client.cpp - see the header.
#include "process/support/raw_client.hpp"

#include "process/support/packets.hpp"

#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

extern "C" int __clone(int (*)(void*), void* stack, int flags, void*,
                       ...) noexcept;  // clone(2) that ThreadSanitizer leaves alone

namespace holdfast::testing_support {

using base::UniqueFd;

namespace {

template <class... Bodies>
struct Overloaded : Bodies... {
  using Bodies::operator()...;
};
template <class... Bodies>
Overloaded(Bodies...) -> Overloaded<Bodies...>;

std::string ending(wire::Ending why) {
  switch (why) {
    case wire::Ending::asked_to_leave:
      return "asked to leave";
    case wire::Ending::lapses_soon:
      return "lapses soon";
    case wire::Ending::lapsed:
      return "lapsed";
    case wire::Ending::revoked:
      return "revoked";
    case wire::Ending::device_gone:
      return "device gone";
    case wire::Ending::denied:
      return "denied";
  }
  return "?";
}

std::string in_words(const wire::FromBroker& message) {
  return std::visit(Overloaded{
                        [](const wire::Welcome&) -> std::string { return "welcome"; },
                        [](const wire::Granted&) -> std::string { return "granted"; },
                        [](const wire::Queued&) -> std::string { return "queued"; },
                        [](const wire::Refused& refused) { return "refused: " + refused.message; },
                        [](const wire::Done&) -> std::string { return "done"; },
                        [](const wire::Renewed&) -> std::string { return "renewed"; },
                        [](const wire::RevokeNotice& notice) { return "notice: " + ending(notice.why); },
                        [](const wire::Event&) -> std::string { return "event"; },
                        [](const wire::StatusAnswer&) -> std::string { return "status"; },
                        [](const wire::HistoryAnswer&) -> std::string { return "history"; },
                        [](const wire::NotMine& not_mine) { return "not mine: " + not_mine.reason; },
                        [](const wire::Found&) -> std::string { return "found"; },
                    },
                    message);
}

// Room for SCM_MAX_FD descriptors (unix(7)).
union Control {
  cmsghdr header;
  std::array<char, CMSG_SPACE(253 * sizeof(int))> bytes;
};

bool readable(int fd, std::chrono::milliseconds patience) {
  const auto end = std::chrono::steady_clock::now() + patience;
  while (true) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - std::chrono::steady_clock::now());
    pollfd heard{fd, POLLIN, 0};
    const int answer = ::poll(&heard, 1, static_cast<int>(std::max<std::int64_t>(left.count(), 0)));
    if (answer > 0) return true;
    if (answer == 0 || errno != EINTR) return false;
  }
}

Answer without_body(std::string words) {
  Answer answer;
  answer.words = std::move(words);
  return answer;
}

}  // namespace

RawClient::RawClient(const std::string& socket, Greeting greeting)
    : socket_{::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)} {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (!socket_ || socket.size() >= sizeof address.sun_path) std::abort();
  socket.copy(address.sun_path, socket.size());
  int answer = 0;
  do {
    answer = ::connect(socket_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
  } while (answer != 0 && errno == EINTR);
  if (answer != 0) {
    socket_.reset();
    return;
  }
  if (greeting == Greeting::unsaid) return;
  const Answer welcome = ask(wire::Hello{wire::kVersion, wire::kVersion, "raw client"});
  if (const auto* body = welcome.as<wire::Welcome>()) epoch_ = body->epoch;
}

std::uint32_t RawClient::send(const wire::FromClient& message, std::span<const int> descriptors) {
  ++last_;
  if (!wire::encode(last_, message, packet_)) return 0;
  while (true) {
    const Sent sent = send_bytes(packet_, descriptors);
    if (sent == Sent::whole) return last_;
    pollfd room{socket_.get(), POLLOUT, 0};
    if (sent == Sent::refused || ::poll(&room, 1, static_cast<int>(kPatience.count())) <= 0) return 0;
  }
}

RawClient::Sent RawClient::send_bytes(std::span<const std::byte> bytes, std::span<const int> descriptors) {
  const ssize_t sent = send_packet(socket_.get(), bytes, descriptors, MSG_DONTWAIT);
  if (sent >= 0) return Sent::whole;
  return errno == EAGAIN ? Sent::full : Sent::refused;
}

Answer RawClient::receive(std::chrono::milliseconds patience) {
  if (!readable(socket_.get(), patience)) return without_body("(silence)");
  std::vector<std::byte> room(wire::kMostBytes);
  iovec vector{room.data(), room.size()};
  Control control{};
  msghdr message{};
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  message.msg_control = control.bytes.data();
  message.msg_controllen = sizeof control.bytes;
  const ssize_t got = ::recvmsg(socket_.get(), &message, MSG_CMSG_CLOEXEC);
  if (got <= 0) return without_body("(gone)");
  Answer answer;
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(header) + i * sizeof(int), sizeof fd);
      answer.descriptors.emplace_back(fd);
    }
  }
  auto decoded =
      wire::decode_from_broker(std::span{room}.first(static_cast<std::size_t>(got)), answer.descriptors.size());
  if (!decoded) {
    answer.words = "(garbage)";
    return answer;
  }
  answer.words = in_words(decoded->body);
  answer.number = decoded->number;
  answer.body = std::move(decoded->body);
  return answer;
}

Answer RawClient::hear(std::chrono::milliseconds patience) {
  if (kept_.empty()) return receive(patience);
  Answer first = std::move(kept_.front());
  kept_.pop_front();
  return first;
}

Answer RawClient::answer_to(std::uint32_t number, std::chrono::milliseconds patience) {
  const auto kept = std::ranges::find(kept_, number, &Answer::number);
  if (kept != kept_.end()) {
    Answer found = std::move(*kept);
    kept_.erase(kept);
    return found;
  }
  const auto end = std::chrono::steady_clock::now() + patience;
  while (true) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - std::chrono::steady_clock::now());
    Answer next = receive(std::max(left, std::chrono::milliseconds{0}));
    if (!next.body || next.number == number) return next;
    kept_.push_back(std::move(next));
  }
}

Answer RawClient::ask(const wire::FromClient& message, std::span<const int> descriptors) {
  const std::uint32_t number = send(message, descriptors);
  return number == 0 ? without_body("(gone)") : answer_to(number);
}

bool RawClient::has_heard() const { return !kept_.empty() || readable(socket_.get(), std::chrono::milliseconds{0}); }

wire::DeviceName name_of(const std::string& device) {
  struct stat node{};
  wire::DeviceName name;
  name.path = device;
  if (::stat(device.c_str(), &node) != 0) return name;
  name.kind = S_ISBLK(node.st_mode) ? wire::NodeKind::block : wire::NodeKind::character;
  name.major = major(node.st_rdev);
  name.minor = minor(node.st_rdev);
  if (device.starts_with("/dev/pts/")) name.devpts = node.st_dev;
  return name;
}

wire::Claim claim_of(const std::string& device, const wire::Patience& patience) {
  wire::Claim claim;
  claim.devices = {name_of(device)};
  claim.patience = patience;
  return claim;
}

namespace {

// System calls alone: what the C library and the sanitizers know of this thread is the parent's.
[[gnu::no_sanitize("address", "thread", "undefined")]] int be_an_owner(void*) {
  ::syscall(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
  ::syscall(SYS_close_range, 0, ~0U, 0);
  for (;;) ::syscall(SYS_pause);
}

}  // namespace

Owner::Owner()
    : stack_{std::make_unique<Stack>()},
      pid_{::__clone(&be_an_owner, stack_->bytes.end(), CLONE_VM | SIGCHLD, nullptr)} {
  if (pid_ < 0) std::abort();
  pidfd_ = pidfd_of(pid_);
}

Owner::~Owner() {
  if (pid_ < 0) return;
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
}

void Owner::kill() const {
  ::kill(pid_, SIGKILL);
  static_cast<void>(wait_for_death(pidfd_.get()));
}

std::uint32_t send_for(RawClient& client, const Owner& owner, wire::Claim claim) {
  claim.owner = wire::OwnerGiven::by_pidfd;
  const int pidfd = owner.pidfd();
  return client.send(claim, {&pidfd, 1});
}

Answer ask_for(RawClient& client, const Owner& owner, wire::Claim claim) {
  const std::uint32_t number = send_for(client, owner, std::move(claim));
  return number == 0 ? without_body("(gone)") : client.answer_to(number);
}

}  // namespace holdfast::testing_support
