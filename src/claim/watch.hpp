// SPDX-License-Identifier: MIT
// watch.hpp - hearing that a claimed device was pulled out.
//
// A node that goes is an inotify event of the node; a terminal whose other side goes hangs up first, and a
// pseudo-terminal's node goes without an event while we have it open (fs/devpts/inode.c, devpts_pty_kill()). One epoll
// descriptor hears both. What it hears is a hint: whether the device is there is looked at.
#pragma once

#include "base/unique_fd.hpp"
#include "device/device.hpp"

#include <span>

namespace holdfast::claiming {

class Watch {
 public:
  /// no_resources or system_fault when there are no more instances or watches (inotify(7), /proc/sys/fs/inotify).
  [[nodiscard]] static Result<Watch> start();
  /// `terminal`: an open descriptor of the node when it is a terminal, else -1.
  [[nodiscard]] Result<> add(const device::Node& node, int terminal);
  /// Hears `fd` while it has something to read.
  void also(int fd) const;
  /// Readable once something was heard that forget() has not taken.
  [[nodiscard]] int fd() const { return epoll_.get(); }
  void forget();

 private:
  base::UniqueFd epoll_;
  base::UniqueFd inotify_;
};

}  // namespace holdfast::claiming
