// SPDX-License-Identifier: MIT
// keeper.cpp - a forked copy that closes what it does not need and sleeps.
//
// _Fork(3), not fork(3): the claim room closes lock descriptors in forked children, and here that is not wanted. It
// leaves the session, so that neither the terminal's signals nor its hang-up reach it, and closes what our caller may
// wait for the end of (the pipe of x=$(holdfast run ...)).
#include "run/keeper.hpp"

#include "base/error.hpp"
#include "run/command.hpp"
#include "run/supervisor.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstring>
#include <vector>

namespace holdfast::run {
namespace {

struct Received {
  Keeper::Message message;
  base::UniqueFd fd;
};

// nullopt at end of file.
std::optional<Received> receive(int control) {
  Received received;
  iovec part{&received.message, sizeof received.message};
  alignas(cmsghdr) char space[CMSG_SPACE(sizeof(int))]{};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = space;
  header.msg_controllen = sizeof space;
  if (::recvmsg(control, &header, MSG_CMSG_CLOEXEC) != sizeof received.message) return std::nullopt;
  if (const cmsghdr* const attached = CMSG_FIRSTHDR(&header);
      attached != nullptr && attached->cmsg_type == SCM_RIGHTS) {
    int fd = -1;
    std::memcpy(&fd, CMSG_DATA(attached), sizeof fd);
    received.fd.reset(fd);
  }
  return received;
}

bool send(int control, const Keeper::Message& message, int attached) {
  iovec part{const_cast<Keeper::Message*>(&message), sizeof message};
  alignas(cmsghdr) char space[CMSG_SPACE(sizeof(int))]{};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  if (attached >= 0) {
    header.msg_control = space;
    header.msg_controllen = sizeof space;
    cmsghdr* const rights = CMSG_FIRSTHDR(&header);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(rights), &attached, sizeof attached);
  }
  return ::sendmsg(control, &header, MSG_NOSIGNAL) == sizeof message;
}

void close_all_but(std::vector<int> kept) {
  std::ranges::sort(kept);
  unsigned first = 0;
  for (const int fd : kept) {
    if (fd < 0) continue;
    const auto number = static_cast<unsigned>(fd);
    if (number > first) ::close_range(first, number - 1, 0);
    first = number + 1;
  }
  ::close_range(first, UINT_MAX, 0);
}

class Keeping {
 public:
  Keeping(claiming::Holding& holding, int control, int listener, int command, pid_t front, base::ProcessId command_id)
      : holding_{holding},
        control_{control},
        command_{command},
        front_{front},
        supervisor_{holding, Listener{base::UniqueFd{listener}}, surroundings(holding, command_id)} {}

  [[noreturn]] void keep() {
    while (true) {
      wait();
      if (finished_ && supervisor_.listener() < 0) ::_exit(0);
    }
  }

 private:
  static Surroundings surroundings(const claiming::Holding& holding, base::ProcessId command) {
    Surroundings known;
    known.mode = holding.mode();
    known.command = command;
    known.closed_description = [](int) {};
    known.opened_description = [](int) {};
    known.tell = [](std::string_view) {};
    return known;
  }

  void wait() {
    const bool serving = serving_ || finished_;
    std::array<pollfd, 4> wanted{{{control_.get(), POLLIN, 0},
                                  {command_.get(), POLLIN, 0},
                                  {serving ? supervisor_.listener() : -1, POLLIN, 0},
                                  {serving_ ? supervisor_.events() : -1, POLLIN, 0}}};
    if (::ppoll(wanted.data(), wanted.size(), timeout(), nullptr) < 0) return;
    const auto& [control, command, listener, events] = wanted;
    if (control.revents != 0) on_control();
    if (command.revents != 0) on_command_death();
    if ((listener.revents & POLLIN) != 0) {
      supervisor_.answer_one();
    } else if (listener.revents != 0) {
      supervisor_.stop_listening();
    }
    if (events.revents != 0) supervisor_.on_events();
    if (serving_ && supervisor_.next_look() && *supervisor_.next_look() <= Supervisor::Clock::now())
      supervisor_.look_again();
  }

  const timespec* timeout() {
    const auto next = supervisor_.next_look();
    if (!serving_ || !next) return nullptr;
    const auto left =
        std::max<Supervisor::Clock::duration>(*next - Supervisor::Clock::now(), std::chrono::nanoseconds{0});
    timeout_ = {std::chrono::duration_cast<std::chrono::seconds>(left).count(),
                (left % std::chrono::seconds{1}).count()};
    return &timeout_;
  }

  void on_control() {
    const auto received = receive(control_.get());
    if (!received) return on_front_death();
    const int fd = received->message.fd;
    switch (received->message.kind) {
      case Keeper::Message::Kind::serve:
        serving_ = true;
        supervisor_.refresh();
        break;
      case Keeper::Message::Kind::stand_by:
        serving_ = false;
        break;
      case Keeper::Message::Kind::closed: {
        const base::UniqueFd nothing{::open("/dev/null", O_RDWR | O_CLOEXEC)};
        if (nothing) ::dup3(nothing.get(), fd, O_CLOEXEC);
        break;
      }
      case Keeper::Message::Kind::opened:
        if (received->fd) ::dup3(received->fd.get(), fd, O_CLOEXEC);
        break;
      case Keeper::Message::Kind::care:
        finish();
        // Closed behind the holding's back, which is never destroyed here: unlocking is the front's to do.
        close_all_but({control_.get(), supervisor_.listener()});
        break;
    }
    send(control_.get(), received->message, -1);
  }

  void on_front_death() {
    control_.reset();
    if (finished_) return;
    front_ = -1;
    serving_ = true;
    supervisor_.refresh();
    if (!command_) give_back();  // it died while the front was stopped
  }

  void on_command_death() {
    command_.reset();
    if (front_ < 0) return give_back();
    // The front may be stopped with the command, and would not notice that there is nobody left to continue with.
    ::kill(front_, SIGCONT);
  }

  void give_back() {
    supervisor_.settle();
    holding_.give_back();
    finish();
  }

  // From now on only the descendants' calls matter.
  void finish() {
    serving_ = false;
    finished_ = true;
    command_.reset();
    supervisor_.forget_marks();
  }

  claiming::Holding& holding_;
  base::UniqueFd control_;
  base::UniqueFd command_;
  pid_t front_;
  Supervisor supervisor_;
  timespec timeout_{};
  bool serving_ = false;
  bool finished_ = false;
};

}  // namespace

Result<Keeper> Keeper::start(claiming::Holding& holding, int listener, const Command& command) {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
    return std::unexpected{base::fault(errno, "socketpair", {})};
  Keeper keeper;
  keeper.control_.reset(ends[0]);
  base::UniqueFd theirs{ends[1]};
  const pid_t front = ::getpid();
  const base::ProcessId command_id = command.id();
  keeper.pid_ = ::_Fork();
  if (keeper.pid_ < 0) return std::unexpected{base::fault(errno, "fork", {})};
  if (keeper.pid_ > 0) return keeper;

  ::setsid();
  ::prctl(PR_SET_NAME, "holdfast-keeper");
  std::vector<int> kept = holding.descriptors();
  kept.insert(kept.end(), {ends[1], listener, command.pidfd()});
  close_all_but(std::move(kept));
  [[maybe_unused]] const int elsewhere = ::chdir("/");  // keeps no file system busy
  // Never destroyed: the process ends by _exit(2), and what it shares with its parent by copy is the parent's to
  // destroy.
  auto* const keeping = new Keeping{holding, theirs.release(), listener, command.pidfd(), front, command_id};
  keeping->keep();
}

void Keeper::tell(Message::Kind kind, int fd) {
  if (!control_) return;
  const Message message{kind, fd};
  // A dead keeper has done everything that can be asked of it: its descriptors are closed.
  if (!send(control_.get(), message, kind == Message::Kind::opened ? fd : -1) || !receive(control_.get()))
    control_.reset();
}

void Keeper::kill() {
  if (pid_ > 0) ::kill(pid_, SIGKILL);
}

void Keeper::reap() {
  while (pid_ > 0 && ::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
  }
  pid_ = -1;
}

}  // namespace holdfast::run
