// SPDX-License-Identifier: MIT
// closer.hpp - closing what clients have sent. The last close of a descriptor can wait: of a TCP socket for what its
// other end does not take (SO_LINGER, socket(7)), of a terminal for what it has not sent. A client may send any, with
// or without our leave, and close its own copies, so that no such close is the loop's: not of what it sent, and not of
// a connection in which something may be unread.
//
// Waits of that kind end with a signal (sk_stream_wait_close(), tty_wait_until_sent()), so the threads that close get
// one again and again: nobody can keep them for longer than that.
#pragma once

#include "base/unique_fd.hpp"

#include <sys/types.h>

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <vector>

namespace holdfast::broker {

class Closer {
 public:
  Closer() = default;
  Closer(const Closer&) = delete;
  Closer& operator=(const Closer&) = delete;
  ~Closer();  ///< returns when all is closed

  /// \param whose  the user who sent it
  void close(uid_t whose, base::UniqueFd fd);
  /// Whether so much of the user's waits to be closed that no more should be received from it.
  [[nodiscard]] bool is_behind(uid_t whose) const;

 private:
  struct Entry {
    uid_t whose;
    base::UniqueFd fd;
  };
  void start_one();  // with the mutex
  void work();

  mutable std::mutex mutex_;
  std::condition_variable wanted_;
  std::deque<Entry> entries_;
  std::unordered_map<uid_t, std::size_t> waiting_;  // those being closed among them
  std::size_t idle_ = 0;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace holdfast::broker
