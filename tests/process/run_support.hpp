// SPDX-License-Identifier: MIT
// run_support.hpp - a pseudo-terminal, a loop device and a process, each cleaned up by its destructor.
#pragma once

#include "base/unique_fd.hpp"
#include "process/support/devices.hpp"
#include "process/support/loop.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace holdfast::run_test {

using base::UniqueFd;
using std::chrono::milliseconds;
using std::chrono::seconds;

inline constexpr seconds kPatience{20};

class Pty : public testing_support::Pty {
 public:
  /// A UUCP lock file's path.
  [[nodiscard]] std::string lock_file() const { return "/run/lock/LCK..pts_" + path().substr(path().rfind('/') + 1); }
};

class Loop {
 public:
  Loop() {
    char name[] = "/tmp/holdfast-loop-XXXXXX";
    const UniqueFd file{::mkostemp(name, O_CLOEXEC)};
    if (!file) return;
    ::unlink(name);
    if (::ftruncate(file.get(), 16 << 20) == 0) path_ = testing_support::attach_loop(file.get());
  }
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;
  ~Loop() {
    if (!path_.empty()) testing_support::detach_loop(path_);
  }
  [[nodiscard]] explicit operator bool() const { return !path_.empty(); }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
};

/// A child with pipes to its stdin and from its stdout; killed and reaped by the destructor.
class Process {
 public:
  explicit Process(std::vector<std::string> arguments, const std::function<void()>& in_child = {}) {
    int input[2];
    int output[2];
    if (::pipe2(input, O_CLOEXEC) != 0 || ::pipe2(output, O_CLOEXEC) != 0) std::abort();
    ::signal(SIGPIPE, SIG_IGN);  // type() tells
    pid_ = ::fork();
    if (pid_ == 0) {
      ::signal(SIGPIPE, SIG_DFL);
      ::dup2(input[0], 0);
      ::dup2(output[1], 1);
      if (in_child) in_child();
      std::vector<char*> argv;
      for (std::string& argument : arguments) argv.push_back(argument.data());
      argv.push_back(nullptr);
      ::execvp(argv[0], argv.data());
      ::_exit(99);
    }
    ::close(input[0]);
    ::close(output[1]);
    input_.reset(input[1]);
    output_.reset(output[0]);
    pidfd_.reset(static_cast<int>(::syscall(SYS_pidfd_open, pid_, 0)));
  }
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;
  ~Process() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }

  [[nodiscard]] pid_t pid() const { return pid_; }
  void kill(int signal) const { ::kill(pid_, signal); }
  void close_input() { input_.reset(); }
  void type(const std::string& text) const {
    if (::write(input_.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()))
      ADD_FAILURE() << "its input is closed";
  }

  /// The next line of its output without the newline; fails at end of file or when patience ends.
  std::string line() {
    while (true) {
      if (const auto end = pending_.find('\n'); end != std::string::npos) {
        std::string first = pending_.substr(0, end);
        pending_.erase(0, end + 1);
        return first;
      }
      if (!more()) {
        ADD_FAILURE() << "no further line; pending: " << pending_;
        return {};
      }
    }
  }
  std::string rest() {
    while (more()) {
    }
    return std::exchange(pending_, {});
  }

  /// Shell's way: the status, or 128 + signal.
  int wait() {
    pollfd ended{pidfd_.get(), POLLIN, 0};
    if (::poll(&ended, 1, static_cast<int>(milliseconds{kPatience}.count())) != 1) {
      ADD_FAILURE() << "process " << pid_ << " does not end";
      return -1;
    }
    int status = 0;
    ::waitpid(std::exchange(pid_, -1), &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }

 private:
  bool more() {
    pollfd readable{output_.get(), POLLIN, 0};
    if (::poll(&readable, 1, static_cast<int>(milliseconds{kPatience}.count())) != 1) return false;
    char buffer[4096];
    const ssize_t got = ::read(output_.get(), buffer, sizeof buffer);
    if (got <= 0) return false;
    pending_.append(buffer, static_cast<std::size_t>(got));
    return true;
  }

  pid_t pid_ = -1;
  UniqueFd pidfd_;
  UniqueFd input_;
  UniqueFd output_;
  std::string pending_;
};

inline std::vector<std::string> run_arguments(std::vector<std::string> words, const std::vector<std::string>& command) {
  words.insert(words.begin(), RUN_DRIVER);
  words.emplace_back("--");
  words.insert(words.end(), command.begin(), command.end());
  return words;
}

/// Polls a condition that has no event of its own.
inline bool soon(const std::function<bool()>& condition, milliseconds most = kPatience) {
  const auto deadline = std::chrono::steady_clock::now() + most;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    ::usleep(1000);
  }
  return true;
}

/// Waits for the death of a process that is not our child: a zombie counts.
inline bool has_ended(const UniqueFd& pidfd) {
  pollfd ended{pidfd.get(), POLLIN, 0};
  return ::poll(&ended, 1, static_cast<int>(milliseconds{kPatience}.count())) == 1;
}

inline std::vector<pid_t> children_of(pid_t pid) {
  std::vector<pid_t> children;
  const std::string path = "/proc/" + std::to_string(pid) + "/task/" + std::to_string(pid) + "/children";
  std::FILE* const file = std::fopen(path.c_str(), "re");
  if (file == nullptr) return children;
  int child = 0;
  while (std::fscanf(file, "%d", &child) == 1) children.push_back(child);
  std::fclose(file);
  return children;
}

inline std::string name_of(pid_t pid) {
  char name[64]{};
  const UniqueFd file{::open(("/proc/" + std::to_string(pid) + "/comm").c_str(), O_RDONLY | O_CLOEXEC)};
  const ssize_t got = file ? ::read(file.get(), name, sizeof name - 1) : 0;
  return {name, got > 0 ? static_cast<std::size_t>(got) - 1 : 0};
}

/// The keeper among the children of a front; 0 when there is none yet.
inline pid_t keeper_of(pid_t front) {
  for (const pid_t child : children_of(front)) {
    if (name_of(child) == "holdfast-keeper") return child;
  }
  return 0;
}

}  // namespace holdfast::run_test
