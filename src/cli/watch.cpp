// SPDX-License-Identifier: MIT
// watch.cpp - `holdfast watch`: a line per event, until a signal or until nobody reads. Standard output is looked at as
// well, because a reader that went would else be noticed at the next event only, which may be tomorrow's.
#include <holdfast/watch.hpp>

#include "base/error.hpp"
#include "cli/command.hpp"
#include "observe/events.hpp"

#include <poll.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>

namespace holdfast::cli {
namespace {

volatile std::sig_atomic_t ended = 0;

void end(int) { ended = 1; }

// Signals come inside ppoll(2) alone; ignored ones stay ignored.
sigset_t catch_the_end() {
  sigset_t ending;
  sigset_t before;
  ::sigemptyset(&ending);
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction action{};
    if (::sigaction(number, nullptr, &action) == 0 && action.sa_handler == SIG_IGN) continue;
    action = {};
    action.sa_handler = end;
    ::sigaction(number, &action, nullptr);
    ::sigaddset(&ending, number);
  }
  // The write to a pipe that nobody reads shall fail instead.
  ::signal(SIGPIPE, SIG_IGN);
  ::sigprocmask(SIG_BLOCK, &ending, &before);
  return before;
}

bool somebody_reads(short output) { return (output & (POLLERR | POLLHUP | POLLNVAL)) == 0; }

}  // namespace

int watch_command(const CommandLine& line) {
  const bool json = line.has(kJson);
  auto watch = Watch::open(line.operands);
  if (!watch) return fail(watch.error());
  const sigset_t before = catch_the_end();
  while (ended == 0) {
    std::array<pollfd, 2> waits{{{watch->fd(), POLLIN, 0}, {STDOUT_FILENO, 0, 0}}};
    if (::ppoll(waits.data(), waits.size(), nullptr, &before) < 0) continue;
    if (!somebody_reads(waits[1].revents)) return 0;
    while (true) {
      const auto event = watch->try_next();
      if (!event) return fail(event.error());
      if (!*event) break;
      print(json ? observe::to_json_line(**event) : observe::to_line(**event));
      pollfd output{STDOUT_FILENO, 0, 0};
      if (::poll(&output, 1, 0) > 0 && !somebody_reads(output.revents)) {
        discard_output();
        return 0;
      }
      if (!flush_output()) return kExitSystem;
    }
  }
  return 0;
}

}  // namespace holdfast::cli
