// SPDX-License-Identifier: MIT
// event_watch.cpp - the descriptor is the connection itself, because only a socket's own description sends SIGIO. While
// no broker is there its place is taken by an inotify instance, which sends SIGIO as well, and which hears the socket
// come back: nobody who waits on the descriptor has to know.
#include "base/error.hpp"
#include "base/unique_fd.hpp"
#include "claim/inquiry.hpp"
#include "claim/link.hpp"
#include "device/device.hpp"
#include "wire/codec.hpp"

#include <holdfast/watch.hpp>

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

namespace holdfast {
namespace {

using Clock = Wait::Clock;

constexpr std::chrono::seconds kAnswer{5};
// Between the looks of next() for a broker of which nothing was heard: a socket can be there and not listen yet.
constexpr std::chrono::seconds kLook{1};

static_assert(kEventKindCount == wire::kEventKinds);
static_assert(static_cast<int>(EventKind::denied) == static_cast<int>(wire::EventKind::denied));
static_assert(static_cast<int>(EventKind::missed) == static_cast<int>(wire::EventKind::missed));

Event missed(std::string detail) {
  Event event;
  event.kind = EventKind::missed;
  event.at = std::chrono::system_clock::now();
  event.detail = std::move(detail);
  return event;
}

// Errno when it is negative.
base::UniqueFd connected(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path) {
    errno = path.empty() ? ENOENT : ENAMETOOLONG;
    return {};
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  base::UniqueFd socket{::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
  if (socket && ::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    const int errnum = errno;
    socket.reset();
    errno = errnum;
  }
  return socket;
}

Error nothing_happened() { return base::failure(errc::timed_out, "nothing happened", ""); }

}  // namespace

// live: connected and asked; the answers come like events. away: `fd` waits for the socket to appear.
struct Watch::State {
  enum class Phase : std::uint8_t { live, away };

  pid_t owner = ::getpid();
  std::string path = claiming::broker_socket();
  wire::Watch wanted;
  base::UniqueFd fd;
  Phase phase = Phase::live;
  bool answered = false;  // the broker has said Done to `wanted`
  bool was_away = false;
  std::vector<std::byte> packet = std::vector<std::byte>(wire::kMostBytes);

  [[nodiscard]] bool ours() const { return fd && owner == ::getpid(); }
  [[nodiscard]] Error not_answering(int errnum) const { return claiming::nobody_answers(path, errnum); }

  // Both at once: a broker that does not know our version does not read the second.
  [[nodiscard]] static bool ask(int socket, const wire::Watch& watch) {
    std::vector<std::byte> bytes;
    const wire::FromClient first = wire::Hello{wire::kVersion, wire::kVersion, program_invocation_short_name};
    const wire::FromClient second = watch;
    for (const auto& [number, message] : {std::pair{1U, &first}, {2U, &second}}) {
      if (!wire::encode(number, *message, bytes)) return false;
      // A fresh connection has room for both.
      if (::send(socket, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT) < 0) return false;
    }
    return true;
  }

  // Who takes SIGIO takes it from the new one. O_ASYNC comes last, because the kernel tells the number that it was set
  // through (si_fd); what came before is read without a signal, for every caller reads until nothing is left.
  void replace(const base::UniqueFd& with) {
    f_owner_ex receiver{};
    if (::fcntl(fd.get(), F_GETOWN_EX, &receiver) == 0 && receiver.pid != 0)
      ::fcntl(with.get(), F_SETOWN_EX, &receiver);
    if (const int signal = ::fcntl(fd.get(), F_GETSIG); signal > 0) ::fcntl(with.get(), F_SETSIG, signal);
    const int flags = ::fcntl(fd.get(), F_GETFL);
    ::dup3(with.get(), fd.get(), O_CLOEXEC);
    if (flags >= 0 && (flags & O_ASYNC) != 0) ::fcntl(fd.get(), F_SETFL, O_ASYNC | O_NONBLOCK);
  }

  // Hears when something appears on the way to the socket, or goes: what is there of its directories is looked at.
  [[nodiscard]] static base::UniqueFd waiting_for(const std::string& path) {
    base::UniqueFd inotify{::inotify_init1(IN_CLOEXEC | IN_NONBLOCK)};
    if (inotify) listen_for(inotify.get(), path);
    return inotify;
  }
  static void listen_for(int inotify, const std::string& path) {
    constexpr std::uint32_t kChanges = IN_CREATE | IN_MOVED_TO | IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR;
    for (std::string directory = path; directory.size() > 1;) {
      const auto slash = directory.rfind('/');
      if (slash == std::string::npos) return;
      directory.resize(std::max<std::size_t>(slash, 1));
      if (::inotify_add_watch(inotify, directory.c_str(), kChanges) >= 0) return;
    }
  }

  // Tries to come back; a moment later when the socket appears.
  [[nodiscard]] Result<> reconnect() {
    if (phase == Phase::live) {
      const base::UniqueFd inotify = waiting_for(path);
      if (!inotify) return std::unexpected{base::fault(errno, "inotify_init1", "")};
      replace(inotify);
      phase = Phase::away;
      was_away = true;
      answered = false;
    } else {
      while (::read(fd.get(), packet.data(), packet.size()) > 0) {
      }
      listen_for(fd.get(), path);
    }
    const base::UniqueFd socket = connected(path);
    if (!socket || !ask(socket.get(), wanted)) return {};
    replace(socket);
    phase = Phase::live;
    return {};
  }

  [[nodiscard]] Result<std::optional<Event>> take(wire::FromBroker&& message) {
    if (const auto* const welcome = std::get_if<wire::Welcome>(&message); welcome != nullptr && welcome->version == 0)
      return std::unexpected{base::failure(errc::system_fault, "the broker speaks another version", "")};
    if (auto* const refused = std::get_if<wire::Refused>(&message))
      return std::unexpected{claiming::error_from(std::move(*refused))};
    if (auto* const event = std::get_if<wire::Event>(&message)) return claiming::event_from(std::move(*event));
    if (std::holds_alternative<wire::Done>(message)) {
      answered = true;
      if (was_away) return missed("the broker was started anew: what happened before is not known");
    }
    return std::nullopt;
  }

  [[nodiscard]] Result<std::optional<Event>> try_next() {
    while (true) {
      if (phase == Phase::away) {
        if (auto tried = reconnect(); !tried) return std::unexpected{tried.error()};
        if (phase == Phase::away) return std::nullopt;
      }
      const ssize_t got = ::recv(fd.get(), packet.data(), packet.size(), MSG_TRUNC | MSG_DONTWAIT);
      if (got < 0 && errno == EINTR) continue;
      if (got < 0 && errno == EAGAIN) return std::nullopt;
      const auto size = static_cast<std::size_t>(got);
      auto message = got > 0 && size <= packet.size() ? wire::decode_from_broker({packet.data(), size}, 0)
                                                      : std::unexpected{wire::Fault::not_ours};
      if (!message) {  // gone, or something else than a broker: both may be another one soon
        if (auto tried = reconnect(); !tried) return std::unexpected{tried.error()};
        if (phase == Phase::away) return std::nullopt;
        continue;
      }
      auto event = take(std::move(message->body));
      if (!event || *event) return event;
    }
  }
};

Watch::Watch(std::unique_ptr<State> state) noexcept : state_{std::move(state)} {}
Watch::Watch(Watch&& other) noexcept = default;
Watch& Watch::operator=(Watch&& other) noexcept = default;
Watch::~Watch() = default;

int Watch::fd() const noexcept { return state_ ? state_->fd.get() : -1; }

Result<Watch> Watch::open(std::span<const std::string> devices, EventKinds kinds) {
  auto state = std::make_unique<State>();
  if (devices.size() > wire::kMostDevices)
    return std::unexpected{
        base::failure(errc::invalid_argument, "more than 64 devices to watch; name none for all", "")};
  for (const std::string& each : devices) {
    const auto device = device::identify(each);
    if (!device) return std::unexpected{device.error()};
    state->wanted.devices.push_back(claiming::wire_name(device->node));
  }
  state->wanted.kinds = 0;
  for (unsigned i = 0; i < kEventKindCount; ++i)
    if (kinds.contains(static_cast<EventKind>(i))) state->wanted.kinds |= 1U << i;

  state->fd = connected(state->path);
  if (!state->fd) return std::unexpected{state->not_answering(errno)};
  if (!State::ask(state->fd.get(), state->wanted)) return std::unexpected{state->not_answering(errno)};
  const auto end = Clock::now() + kAnswer;
  while (!state->answered) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(end - Clock::now()).count();
    pollfd heard{state->fd.get(), POLLIN, 0};
    if (left <= 0 || ::poll(&heard, 1, static_cast<int>(left)) == 0)
      return std::unexpected{state->not_answering(ETIMEDOUT)};
    const ssize_t got = ::recv(state->fd.get(), state->packet.data(), state->packet.size(), MSG_TRUNC | MSG_DONTWAIT);
    if (got < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    const auto size = static_cast<std::size_t>(got);
    if (got <= 0 || size > state->packet.size()) return std::unexpected{state->not_answering(ECONNRESET)};
    auto message = wire::decode_from_broker({state->packet.data(), size}, 0);
    if (!message) return std::unexpected{state->not_answering(EPROTO)};
    // Events follow the answer.
    if (auto event = state->take(std::move(message->body)); !event) return std::unexpected{event.error()};
  }
  return Watch{std::move(state)};
}

Result<std::optional<Event>> Watch::try_next() {
  if (!state_ || !state_->ours())
    return std::unexpected{base::failure(errc::not_held, "this process does not watch through it", "")};
  return state_->try_next();
}

Result<Event> Watch::next(const Wait& wait) {
  while (true) {
    auto event = try_next();
    if (!event) return std::unexpected{event.error()};
    if (*event) return std::move(**event);
    const bool looks = state_->phase == State::Phase::away;
    if (!wait.waits()) return std::unexpected{nothing_happened()};  // its deadline is not to be counted with
    auto left =
        wait.ends() ? std::chrono::nanoseconds{wait.deadline() - Clock::now()} : std::chrono::nanoseconds::max();
    if (left <= std::chrono::nanoseconds{0}) return std::unexpected{nothing_happened()};
    if (looks) left = std::min(left, std::chrono::nanoseconds{kLook});
    const timespec timeout{static_cast<time_t>(left.count() / 1'000'000'000),
                           static_cast<long>(left.count() % 1'000'000'000)};
    pollfd heard{state_->fd.get(), POLLIN, 0};
    const bool forever = !wait.ends() && !looks;
    if (::ppoll(&heard, 1, forever ? nullptr : &timeout, nullptr) < 0 && errno == EINTR)
      return std::unexpected{base::failure(errc::interrupted, "a signal came", "")};
  }
}

}  // namespace holdfast
