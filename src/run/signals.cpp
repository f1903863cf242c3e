// SPDX-License-Identifier: MIT
// signals.cpp - signalfd(2) instead of handlers: nothing runs at a moment that we did not choose.
#include "run/signals.hpp"

#include <unistd.h>

#include <cerrno>

namespace holdfast::run {
namespace {

sigset_t every_signal() {
  sigset_t all;
  ::sigfillset(&all);
  return all;
}

}  // namespace

Care care_for(const signalfd_siginfo& signal) {
  switch (signal.ssi_signo) {
    case SIGCHLD:
      return Care::children;
    case SIGCONT:
      return Care::go_on;
    default:
      // A write of ours beyond RLIMIT_FSIZE: SIGXFSZ looks as if we had sent it (fs/read_write.c, send_sig()).
      if (static_cast<pid_t>(signal.ssi_pid) == ::getpid()) return Care::ignore;
      // siginfo_t's si_code: greater than zero when the kernel sent it (sigaction(2)).
      return signal.ssi_code > 0 ? Care::ignore : Care::pass_on;
  }
}

Signals::Signals() {
  const sigset_t all = every_signal();
  ::sigprocmask(SIG_SETMASK, &all, &inherited_.mask);
  struct sigaction children{};
  ::sigaction(SIGCHLD, nullptr, &children);
  if (children.sa_handler == SIG_IGN) {
    // nohup-like callers ignore it, and then the kernel would reap the command before we can ask how it ended
    // (wait(2)).
    inherited_.ignores_children = true;
    ::signal(SIGCHLD, SIG_DFL);
  }
  fd_.reset(::signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK));
}

Signals::~Signals() {
  // What came after the command's end was meant for it, and must not act on our caller.
  while (next()) {
  }
  if (inherited_.ignores_children) ::signal(SIGCHLD, SIG_IGN);
  ::sigprocmask(SIG_SETMASK, &inherited_.mask, nullptr);
}

std::optional<signalfd_siginfo> Signals::next() {
  signalfd_siginfo signal{};
  if (::read(fd_.get(), &signal, sizeof signal) != sizeof signal) return std::nullopt;
  return signal;
}

Signals::AsInherited::AsInherited(const Signals& signals) {
  ::sigprocmask(SIG_SETMASK, &signals.inherited().mask, nullptr);
}

Signals::AsInherited::~AsInherited() {
  const sigset_t all = every_signal();
  ::sigprocmask(SIG_SETMASK, &all, nullptr);
}

void Signals::stop_by(int signal) {
  struct sigaction action{};
  ::sigaction(signal, nullptr, &action);
  // The same signal tells our own parent the same story; but one that we ignore would not stop us.
  if (signal == SIGSTOP || action.sa_handler != SIG_DFL) {
    ::raise(SIGSTOP);
    return;
  }
  sigset_t only;
  ::sigemptyset(&only);
  ::sigaddset(&only, signal);
  ::raise(signal);
  ::sigprocmask(SIG_UNBLOCK, &only, nullptr);  // stops here
  ::sigprocmask(SIG_BLOCK, &only, nullptr);
}

}  // namespace holdfast::run
