// SPDX-License-Identifier: MIT
// child.hpp - a forked process that goes step by step: parent and child exchange words over a socket pair, so that a
// test decides what happens when, and deaths are awaited on a pidfd instead of slept for.
//
//   Child owner{[&](Peer& test) {
//     auto mine = claim(pty.path());
//     test.tell(mine ? "claimed" : mine.error().message);
//     test.hear();  // until told to go on
//     return 0;
//   }};
//   ASSERT_EQ(owner.hear(), "claimed");
//   owner.kill();
#pragma once

#include "base/unique_fd.hpp"

#include <sys/types.h>

#include <chrono>
#include <functional>
#include <string>
#include <string_view>

namespace holdfast::testing_support {

/// The most that anything in a test is waited for: an answer that takes longer is none.
inline constexpr std::chrono::milliseconds kPatience{20'000};

/// One end of the conversation.
class Peer {
 public:
  explicit Peer(base::UniqueFd socket) : socket_{std::move(socket)} {}
  void tell(std::string_view words);
  /// The other's next words; "(silence)" after `patience`, "(gone)" when nobody has the other end open any more.
  [[nodiscard]] std::string hear(std::chrono::milliseconds patience);
  std::string hear() { return hear(kPatience); }
  [[nodiscard]] int socket() const { return socket_.get(); }

 private:
  base::UniqueFd socket_;
};

/// Waits until the process behind `pidfd` is dead (not: reaped). False after `patience`.
[[nodiscard]] bool wait_for_death(int pidfd, std::chrono::milliseconds patience = kPatience);
/// pidfd_open(2).
[[nodiscard]] base::UniqueFd pidfd_of(pid_t pid);

/// A forked child that runs `body` and exits with what it returns; it dies with the test.
class Child {
 public:
  explicit Child(const std::function<int(Peer& test)>& body);
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child();  ///< kills and reaps

  [[nodiscard]] pid_t pid() const { return pid_; }
  [[nodiscard]] int pidfd() const { return pidfd_.get(); }
  void tell(std::string_view words) { peer_.tell(words); }
  std::string hear(std::chrono::milliseconds patience = kPatience) { return peer_.hear(patience); }

  /// kill -9, and waits until it is dead. It stays a zombie until reap() or the destructor.
  void kill();
  void signal(int number) const;
  /// Waits for the end: the exit status, or 128 + the signal; -1 after kPatience.
  int reap();

 private:
  Peer peer_{base::UniqueFd{}};
  base::UniqueFd pidfd_;
  pid_t pid_ = -1;
};

/// Runs `body` in a child of its own (its own namespaces, limits, user) and gives its last words.
[[nodiscard]] std::string in_a_child(const std::function<std::string()>& body);

class Stopwatch {
 public:
  [[nodiscard]] double ms() const {
    return std::chrono::duration<double, std::milli>{std::chrono::steady_clock::now() - start_}.count();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace holdfast::testing_support
