// SPDX-License-Identifier: MIT
// keeper.cpp - a process that shares the front's memory, closes what it does not need, and sleeps.
//
// Forking would copy the page tables, and then every page that either side writes; measured, that is a seventh of a
// whole `holdfast run DEVICE -- true`. So the keeper borrows the front's memory (CLONE_VM), on a stack of its own. The
// rule that makes it sound: only one of the two works at a time. While the front runs the keeper sleeps in ppoll(2), or
// the front waits for its answer; it allocates and builds only when the front is stopped, waiting, or dead. A front
// killed in the middle of malloc(3) can take the keeper along: that is as if both had been killed.
//
// It leaves the session, so that neither the terminal's signals nor its hang-up reach it, and closes what our caller
// may wait for the end of (the pipe of x=$(holdfast run ...)). clone(2) runs no pthread_atfork(3) handlers: the claim
// room's would close the locks.
#include "run/keeper.hpp"

#include "base/error.hpp"
#include "claim/link.hpp"
#include "run/command.hpp"
#include "run/supervisor.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
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
#include <memory>
#include <optional>
#include <span>
#include <utility>
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

// `kept` is sorted. Allocates nothing.
void close_all_but(std::span<const int> kept) {
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
  Keeping(claiming::Holding& holding, Keeper::GivesBack gives_back, InHand& in_hand, int control, int listener,
          int command, pid_t front, base::ProcessId command_id)
      : holding_{holding},
        gives_back_{gives_back},
        in_hand_{in_hand},
        control_{control},
        listener_{listener},
        command_{command},
        front_{front},
        command_id_{command_id} {}

  [[noreturn]] void keep() {
    while (!finished_) wait();
    let_everything_go_on();
  }

 private:
  // Built when it is needed first: then nobody else works in this memory.
  Supervisor& supervisor() {
    if (supervisor_) return *supervisor_;
    Surroundings known;
    known.mode = holding_.mode();
    known.command = command_id_;
    known.closed_description = [](int) {};
    known.opened_description = [](int) {};
    known.is_ours = [this](pid_t pid) { return pid == ::getpid() || pid == front_; };
    known.tell = [](std::string_view) {};
    // The standard descriptors are closed; a file of ours under one of their numbers would be asking for trouble.
    for (int fd = 0; fd >= 0 && fd <= STDERR_FILENO;) fd = ::open("/dev/null", O_RDWR);
    const int copy = listener_ < 0 ? -1 : ::fcntl(listener_, F_DUPFD_CLOEXEC, 0);
    supervisor_.emplace(holding_, Listener{base::UniqueFd{copy}, in_hand_}, std::move(known));
    return *supervisor_;
  }

  void wait() {
    const int listener = serving_ ? supervisor_->listener() : -1;
    const int events = serving_ ? supervisor_->events() : -1;
    std::array<pollfd, 4> wanted{
        {{control_.get(), POLLIN, 0}, {command_.get(), POLLIN, 0}, {listener, POLLIN, 0}, {events, POLLIN, 0}}};
    if (::ppoll(wanted.data(), wanted.size(), timeout(), nullptr) < 0) return;
    if (wanted[0].revents != 0) on_control();
    if (wanted[1].revents != 0) on_command_death();
    if (!serving_) return;
    if ((wanted[2].revents & POLLIN) != 0) {
      supervisor_->answer_one();
    } else if (wanted[2].revents != 0) {
      supervisor_->stop_listening();
    }
    if (wanted[3].revents != 0) supervisor_->on_events();
    if (supervisor_->next_look() && *supervisor_->next_look() <= Supervisor::Clock::now()) supervisor_->look_again();
  }

  const timespec* timeout() {
    if (!serving_ || !supervisor_->next_look()) return nullptr;
    const auto left = std::max<Supervisor::Clock::duration>(*supervisor_->next_look() - Supervisor::Clock::now(),
                                                            std::chrono::nanoseconds{0});
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
        serve();
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
      case Keeper::Message::Kind::care: {
        // The front waits, so its memory is whole: from here on the child has its own.
        if (::_Fork() == 0) {
          control_.reset();
          let_everything_go_on();
        }
        send(control_.get(), received->message, -1);
        ::_exit(0);
      }
    }
    send(control_.get(), received->message, -1);
  }

  void serve() {
    supervisor().refresh();
    serving_ = true;
  }

  void on_front_death() {
    control_.reset();
    front_ = -1;
    serve();
    if (!command_) give_back();  // it died while the front was stopped
  }

  void on_command_death() {
    command_.reset();
    if (front_ < 0) return give_back();
    // The front may be stopped with the command, and would not notice that there is nobody left to continue with.
    ::kill(front_, SIGCONT);
  }

  void give_back() {
    supervisor().settle();
    // What the broker has given back may be somebody else's by now, and TIOCEXCL knows no owner.
    if (gives_back_ == Keeper::GivesBack::broker && claiming::Link::open())
      holding_.let_go();
    else
      holding_.give_back();
    finished_ = true;
  }

  // The claim is over; descendants of the command may live on with its filter. Without a listener every call of theirs
  // that it picks out would fail.
  [[noreturn]] void let_everything_go_on() {
    if (listener_ < 0) ::_exit(0);
    const std::array<int, 1> kept{listener_};
    close_all_but(kept);
    InHand in_hand;
    Listener listener{base::UniqueFd{listener_}, in_hand};
    while (true) {
      pollfd wanted{listener.fd(), POLLIN, 0};
      if (::poll(&wanted, 1, -1) < 0) continue;
      if ((wanted.revents & POLLIN) == 0) ::_exit(0);
      if (const auto question = listener.receive()) listener.send(*question, Answer::carry_on());
    }
  }

  claiming::Holding& holding_;
  Keeper::GivesBack gives_back_;
  InHand& in_hand_;
  base::UniqueFd control_;
  int listener_;
  base::UniqueFd command_;
  pid_t front_;
  base::ProcessId command_id_;
  std::optional<Supervisor> supervisor_;
  timespec timeout_{};
  bool serving_ = false;
  bool finished_ = false;
};

// A sanitizer's runtime keeps one state per thread in memory and cannot be shared.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr int kMemory = 0;
#else
constexpr int kMemory = CLONE_VM;
#endif
constexpr std::size_t kStackSize = std::size_t{256} * 1024;

}  // namespace

struct Keeper::Start {
  claiming::Holding& holding;
  GivesBack gives_back;
  InHand& in_hand;
  int control;
  int listener;
  int command;
  pid_t front;
  base::ProcessId command_id;
  std::vector<int> kept{};
  std::unique_ptr<std::byte[]> stack = std::make_unique_for_overwrite<std::byte[]>(kStackSize);
};

Keeper::Keeper() = default;
Keeper::Keeper(Keeper&& other) noexcept
    : pid_{std::exchange(other.pid_, -1)}, control_{std::move(other.control_)}, start_{std::move(other.start_)} {}
Keeper& Keeper::operator=(Keeper&& other) noexcept {
  pid_ = std::exchange(other.pid_, -1);
  control_ = std::move(other.control_);
  start_ = std::move(other.start_);
  return *this;
}
Keeper::~Keeper() = default;

int Keeper::keep(void* start) {
  const Start& with = *static_cast<const Start*>(start);
  ::setsid();
  ::prctl(PR_SET_NAME, "holdfast-keeper");
  close_all_but(with.kept);
  [[maybe_unused]] const int elsewhere = ::chdir("/");  // keeps no file system busy
  Keeping keeping{with.holding,  with.gives_back, with.in_hand, with.control,
                  with.listener, with.command,    with.front,   with.command_id};
  keeping.keep();
}

Result<Keeper> Keeper::start(claiming::Holding& holding, GivesBack gives_back, int listener, InHand& in_hand,
                             const Command& command) {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
    return std::unexpected{base::fault(errno, "socketpair", {})};
  Keeper keeper;
  keeper.control_.reset(ends[0]);
  const base::UniqueFd theirs{ends[1]};
  keeper.start_ = std::make_unique<Start>(
      Start{holding, gives_back, in_hand, ends[1], listener, command.pidfd(), ::getpid(), command.id()});
  Start& with = *keeper.start_;
  with.kept = holding.descriptors();
  with.kept.insert(with.kept.end(), {ends[1], listener, command.pidfd()});
  std::ranges::sort(with.kept);
  keeper.pid_ = ::clone(&Keeper::keep, with.stack.get() + kStackSize, kMemory | SIGCHLD, &with);
  if (keeper.pid_ < 0) return std::unexpected{base::fault(errno, "clone", {})};
  return keeper;
}

void Keeper::tell(Message::Kind kind, int fd) {
  if (!control_) return;
  const Message message{kind, fd};
  // A dead keeper has done everything that can be asked of it: its descriptors are closed.
  if (!send(control_.get(), message, kind == Message::Kind::opened ? fd : -1) || !receive(control_.get()))
    control_.reset();
}

void Keeper::kill() const {
  if (pid_ > 0) ::kill(pid_, SIGKILL);
}

void Keeper::reap() {
  while (pid_ > 0 && ::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
  }
  pid_ = -1;
}

}  // namespace holdfast::run
