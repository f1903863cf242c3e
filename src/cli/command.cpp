// SPDX-License-Identifier: MIT
// command.cpp - the ways out of the program. Text goes through our own buffer and write(2): stdio and iostream would
// add their set-up to every start, and a lost write must become an exit status.
#include "cli/command.hpp"

#include "base/error.hpp"
#include "cli/texts.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <ctime>

namespace holdfast::cli {
namespace {

std::string& output() {
  static std::string buffer;
  return buffer;
}

// Errno of the write that failed, else 0.
int write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t wrote = ::write(fd, text.data(), text.size());
    if (wrote < 0 && errno != EINTR) return errno;
    if (wrote > 0) text.remove_prefix(static_cast<std::size_t>(wrote));
  }
  return 0;
}

}  // namespace

int exit_status(const Error& error, int refused_status) {
  if (error.code.category() != error_category()) return kExitSystem;
  switch (static_cast<errc>(error.code.value())) {
    case errc::refused:
    case errc::timed_out:
    case errc::deadlock:
    case errc::revoked:
    case errc::lapsed:
      return refused_status;
    case errc::no_such_device:
    case errc::not_a_device:
    case errc::ambiguous:
    case errc::gone:
      return kExitNoDevice;
    case errc::not_permitted:
      return kExitNotPermitted;
    case errc::invalid_argument:
      return kExitUsage;
    case errc::interrupted:
    case errc::not_held:
    case errc::no_resources:
    case errc::system_fault:
      break;
  }
  return kExitSystem;
}

void complain(std::string_view message) {
  std::string line = "holdfast: ";
  line += message;
  line += '\n';
  (void)write_all(STDERR_FILENO, line);  // nobody is left to tell
}

int fail(const Error& error, int refused_status) {
  complain(error.message);
  return exit_status(error, refused_status);
}

int fail_usage(std::string_view command, std::string_view message) {
  const std::string_view gap = command.empty() ? "" : " ";
  complain(fmt::format("{}{}{}; see holdfast{}{} --help", command, command.empty() ? "" : ": ", message, gap, command));
  return kExitUsage;
}

void print(std::string_view text) { output() += text; }

bool flush_output() {
  const int errnum = write_all(STDOUT_FILENO, output());
  output().clear();
  if (errnum == 0) return true;
  complain("standard output: " + base::errno_text(errnum));
  return false;
}

void discard_output() { output().clear(); }

void fill_standard_descriptors() {
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (::fcntl(fd, F_GETFD) >= 0 || errno != EBADF) continue;
    // The lowest free number is `fd`: those below are open by now. Without /dev/null there is nothing better to do.
    (void)::open("/dev/null", (fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) | O_CLOEXEC);
  }
}

std::string waiting_text(const Wait& wait) {
  if (!wait.ends()) return "waiting";
  const auto left = std::chrono::ceil<std::chrono::seconds>(wait.deadline() - Wait::Clock::now());
  const std::time_t end = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now()) + left.count();
  std::tm local{};
  char text[40];
  if (::localtime_r(&end, &local) == nullptr || std::strftime(text, sizeof text, "%H:%M:%S", &local) == 0)
    return "waiting";
  return std::string{"waiting until "} + text;
}

}  // namespace holdfast::cli
