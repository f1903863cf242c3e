// SPDX-License-Identifier: MIT
// child.cpp - see the header.
#include "process/support/child.hpp"

#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <utility>

namespace holdfast::testing_support {

using base::UniqueFd;

namespace {

// poll(2) for reading until `patience` is over, signals notwithstanding.
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

}  // namespace

void Peer::tell(std::string_view words) {
  // A peer that died does not hear; the test then notices that nothing is said any more.
  static_cast<void>(::send(socket_.get(), words.data(), words.size(), MSG_NOSIGNAL));
}

std::string Peer::hear(std::chrono::milliseconds patience) {
  if (!readable(socket_.get(), patience)) return "(silence)";
  std::string words(64 * 1024, '\0');
  const ssize_t got = ::recv(socket_.get(), words.data(), words.size(), 0);
  if (got <= 0) return "(gone)";
  words.resize(static_cast<std::size_t>(got));
  return words;
}

UniqueFd pidfd_of(pid_t pid) { return UniqueFd{static_cast<int>(::syscall(SYS_pidfd_open, pid, 0))}; }

bool wait_for_death(int pidfd, std::chrono::milliseconds patience) { return readable(pidfd, patience); }

Child::Child(const std::function<int(Peer& test)>& body) {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) std::abort();
  UniqueFd ours{ends[0]};
  UniqueFd theirs{ends[1]};
  std::fflush(nullptr);
  const pid_t parent = ::getpid();
  pid_ = ::fork();
  if (pid_ < 0) std::abort();
  if (pid_ == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    // 0: the parent is outside a pid namespace of this child.
    if (const pid_t above = ::getppid(); above != parent && above != 0) ::_exit(1);
    ours.reset();
    Peer test{std::move(theirs)};
    ::_exit(body(test));
  }
  peer_ = Peer{std::move(ours)};
  pidfd_ = pidfd_of(pid_);
}

Child::~Child() {
  if (pid_ < 0) return;
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
}

void Child::kill() {
  signal(SIGKILL);
  static_cast<void>(wait_for_death(pidfd_.get()));
}

void Child::signal(int number) const {
  if (pid_ > 0) ::kill(pid_, number);
}

int Child::reap() {
  int status = 0;
  if (pid_ < 0 || !wait_for_death(pidfd_.get()) || ::waitpid(pid_, &status, 0) != pid_) return -1;
  pid_ = -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

std::string in_a_child(const std::function<std::string()>& body) {
  Child child{[&](Peer& test) {
    test.tell(body());
    return 0;
  }};
  std::string words = child.hear();
  child.reap();
  return words;
}

}  // namespace holdfast::testing_support
