// SPDX-License-Identifier: MIT
// process_fd.hpp - a descriptor that belongs to this process alone: forked children do not get it.
//
// flock(2), TIOCEXCL, O_EXCL and record locks live as long as the open description, so a child's copies would keep a
// device taken after its owner's death. Close-on-exec covers children that exec; pthread_atfork(3) closes the copies in
// those that do not. Opening and listing are one step under a lock that fork holds, so no fork falls between them. The
// list is the library's one piece of global state: an atfork handler gets no argument.
//
// fork returns to the parent before the child has run, and O_EXCL ends with the last copy alone: so each fork leaves a
// pipe whose other end the child closes with the rest, and closing here waits for the children that are still to do so.
#pragma once

#include "base/unique_fd.hpp"

#include <sys/socket.h>
#include <sys/types.h>

#include <utility>
#include <vector>

namespace holdfast::base {

class ProcessFd {
 public:
  constexpr ProcessFd() noexcept = default;
  /// open(2) with O_CLOEXEC added; check the result and errno as usual.
  [[nodiscard]] static ProcessFd open(const char* path, int flags);
  /// recvmsg(2), never waiting, with close-on-exec: what came by SCM_RIGHTS is added to `received` in the same step in
  /// which it comes to be. Other ancillary data is left in `header`. \returns as recvmsg(2)
  [[nodiscard]] static ssize_t receive(int socket, msghdr& header, std::vector<ProcessFd>& received);
  /// From now on forked children do not get it; one that is born before this call has it.
  [[nodiscard]] static ProcessFd adopt(UniqueFd fd);
  ProcessFd(ProcessFd&& other) noexcept : fd_{std::exchange(other.fd_, -1)} {}
  ProcessFd& operator=(ProcessFd&& other) noexcept {
    if (this != &other) {
      reset();
      fd_ = std::exchange(other.fd_, -1);
    }
    return *this;
  }
  ProcessFd(const ProcessFd&) = delete;
  ProcessFd& operator=(const ProcessFd&) = delete;
  ~ProcessFd() { reset(); }

  [[nodiscard]] constexpr int get() const noexcept { return fd_; }
  [[nodiscard]] explicit constexpr operator bool() const noexcept { return fd_ >= 0; }
  /// Closes it, and returns when forked children have closed theirs too; a child that is kept from running is waited
  /// for 100 ms, once.
  void reset() noexcept;
  /// From now on forked children inherit it like any other descriptor.
  void share_with_children() noexcept;

 private:
  int fd_ = -1;
};

}  // namespace holdfast::base
