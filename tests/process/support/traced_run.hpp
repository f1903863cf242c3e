// SPDX-License-Identifier: MIT
// traced_run.hpp - death at every system call: a child that is stopped by ptrace(2) at the entry and at the exit of
// each of its calls, and killed at a chosen one.
#pragma once

#include "process/support/child.hpp"

#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>

namespace holdfast::testing_support {

/// What runs calls it before and after what is to be interrupted; nothing else may make this call.
inline void marker() { ::syscall(SYS_getpgid, 0); }

/// A child that is stopped before `body`, and will be at each system call for which it is let go on with
/// PTRACE_SYSCALL.
inline pid_t traced_child(const std::function<void()>& body) {
  const pid_t pid = ::fork();
  if (pid == 0) {
    ::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
    ::raise(SIGSTOP);
    body();
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(pid, &status, 0);
  ::ptrace(PTRACE_SETOPTIONS, pid, nullptr, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL);
  return pid;
}

/// Runs `body` in a traced child and kills it at its stop number `last`, counted from the first marker. Calls
/// `before_call(nr)` at each entry. Returns how many stops it made; fewer than `last` when it came to the second
/// marker.
class TracedRun {
 public:
  TracedRun(const std::function<void()>& body, const std::function<void(long)>& before_call, int last) {
    pid_ = traced_child(body);
    int status = 0;
    int markers = 0;
    while (true) {
      ::ptrace(PTRACE_SYSCALL, pid_, nullptr, nullptr);
      if (::waitpid(pid_, &status, 0) != pid_ || !WIFSTOPPED(status)) {
        reaped_ = true;
        return;
      }
      if (WSTOPSIG(status) != (SIGTRAP | 0x80)) continue;
      __ptrace_syscall_info info{};
      ::ptrace(PTRACE_GET_SYSCALL_INFO, pid_, sizeof info, &info);
      const bool entry = info.op == PTRACE_SYSCALL_INFO_ENTRY;
      if (entry && info.entry.nr == SYS_getpgid && ++markers == 2) break;
      if (markers == 0) continue;
      if (++stops_ == last) break;
      if (entry) before_call(static_cast<long>(info.entry.nr));
    }
    const base::UniqueFd pidfd = pidfd_of(pid_);
    ::kill(pid_, SIGKILL);
    dead_ = wait_for_death(pidfd.get());
  }
  TracedRun(const TracedRun&) = delete;
  TracedRun& operator=(const TracedRun&) = delete;
  ~TracedRun() {
    if (!reaped_) ::waitpid(pid_, nullptr, 0);
  }

  [[nodiscard]] int stops() const { return stops_; }
  [[nodiscard]] bool dead() const { return dead_; }

 private:
  pid_t pid_ = -1;
  int stops_ = 0;
  bool dead_ = false;
  bool reaped_ = false;
};

}  // namespace holdfast::testing_support
