// SPDX-License-Identifier: MIT
// shell.hpp - the command as a shell meets it. For tests that know HOLDFAST_COMMAND.
#pragma once

#include "base/unique_fd.hpp"
#include "process/support/child.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <string>
#include <string_view>

namespace holdfast::testing_support {

struct Ended {
  int status = -1;
  std::string out;
  std::string err;
};

/// A shell that runs one line, in which $H is the command and $D the device.
class Shell {
 public:
  explicit Shell(const std::string& line, const std::string& device = {}) {
    std::array<std::array<int, 2>, 3> pipes{};
    for (auto& ends : pipes) EXPECT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_adddup2(&actions, pipes[0][0], STDIN_FILENO);
    ::posix_spawn_file_actions_adddup2(&actions, pipes[1][1], STDOUT_FILENO);
    ::posix_spawn_file_actions_adddup2(&actions, pipes[2][1], STDERR_FILENO);
    const std::string text = fmt::format("H='{}' D='{}'; {}", HOLDFAST_COMMAND, device, line);
    std::array<char*, 4> argv{const_cast<char*>("sh"), const_cast<char*>("-c"), const_cast<char*>(text.c_str()),
                              nullptr};
    EXPECT_EQ(::posix_spawn(&pid_, "/bin/sh", &actions, nullptr, argv.data(), environ), 0);
    ::posix_spawn_file_actions_destroy(&actions);
    in_.reset(pipes[0][1]);
    out_.reset(pipes[1][0]);
    err_.reset(pipes[2][0]);
    for (const int theirs : {pipes[0][0], pipes[1][1], pipes[2][1]}) ::close(theirs);
  }
  Shell(const Shell&) = delete;
  Shell& operator=(const Shell&) = delete;
  ~Shell() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }

  [[nodiscard]] pid_t pid() const { return pid_; }
  void close_input() { in_.reset(); }
  void say(std::string_view words) { EXPECT_EQ(::write(in_.get(), words.data(), words.size()), std::ssize(words)); }
  /// The next line of standard output, or what came instead of one.
  std::string line() {
    std::string text;
    char letter = 0;
    while (readable(out_) && ::read(out_.get(), &letter, 1) == 1) {
      if (letter == '\n') return text;
      text += letter;
    }
    return text + "(end)";
  }
  Ended end() {
    Ended ended{.status = -1, .out = rest(out_), .err = rest(err_)};
    const base::UniqueFd pidfd = pidfd_of(pid_);
    if (!wait_for_death(pidfd.get())) return ended;
    int status = 0;
    ::waitpid(pid_, &status, 0);
    pid_ = -1;
    ended.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    return ended;
  }

 private:
  static bool readable(const base::UniqueFd& fd) {
    pollfd waiting{.fd = fd.get(), .events = POLLIN, .revents = 0};
    return ::poll(&waiting, 1, static_cast<int>(kPatience.count())) == 1;
  }
  static std::string rest(const base::UniqueFd& fd) {
    std::string text;
    std::array<char, 4096> buffer{};
    for (ssize_t got = 0; readable(fd) && (got = ::read(fd.get(), buffer.data(), buffer.size())) > 0;)
      text.append(buffer.data(), static_cast<std::size_t>(got));
    return text;
  }

  pid_t pid_ = -1;
  base::UniqueFd in_, out_, err_;
};

inline Ended ended(const std::string& line, const std::string& device = {}) { return Shell{line, device}.end(); }

}  // namespace holdfast::testing_support
