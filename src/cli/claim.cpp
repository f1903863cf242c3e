// SPDX-License-Identifier: MIT
// claim.cpp - `holdfast claim`: holds until a signal, the end of input, or the device's.
//
// Standard input is a trap: a shell gives a background job /dev/null or a terminal that it may not read. So an input
// that is closed or /dev/null counts as none, and a terminal is read only while we are in its foreground.
#include <holdfast/claim.hpp>
#include <holdfast/enforcement.hpp>

#include "base/error.hpp"
#include "cli/claim_for.hpp"
#include "cli/command.hpp"
#include "observe/events.hpp"

#include <fmt/format.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>

namespace holdfast::cli {
namespace {

constexpr std::array kEnding{SIGINT, SIGTERM, SIGHUP};
constexpr timespec kLookAgain{.tv_sec = 1, .tv_nsec = 0};

volatile std::sig_atomic_t ended_by = 0;  // the only thing a signal handler may touch

void remember(int number) { ended_by = number; }

// Signals that the caller has set to be ignored (nohup, background jobs) stay ignored.
void catch_ending_signals() {
  for (const int number : kEnding) {
    struct sigaction action{};
    if (::sigaction(number, nullptr, &action) == 0 && action.sa_handler == SIG_IGN) continue;
    action = {};
    action.sa_handler = remember;
    ::sigaction(number, &action, nullptr);
  }
}

bool input_can_end() {
  struct stat file{};
  if (::fstat(STDIN_FILENO, &file) != 0) return false;
  return !(S_ISCHR(file.st_mode) && file.st_rdev == makedev(1, 3));
}

bool may_read_input() { return ::isatty(STDIN_FILENO) != 1 || ::tcgetpgrp(STDIN_FILENO) == ::getpgrp(); }

// Whether nothing more will come: end of input, or an input that cannot be read.
bool input_has_ended() {
  char ignored[4096];
  const ssize_t got = ::read(STDIN_FILENO, ignored, sizeof ignored);
  return got == 0 || (got < 0 && errno != EINTR && errno != EAGAIN);
}

// What is over is told by the claim's own error.
void warn(Claim& claim) {
  for (const Notice& notice : claim.notices()) {
    if (notice.kind == Notice::Kind::denied) complain(notice.reason);
    if (notice.kind != Notice::Kind::asked_to_leave && notice.kind != Notice::Kind::lapses_soon) continue;
    std::string text = notice.kind == Notice::Kind::lapses_soon ? "its time is nearly over" : "somebody asks for it";
    if (!notice.by.empty()) text += ", " + notice.by;
    if (!notice.reason.empty()) text += ": " + notice.reason;
    text += "; it is taken back in " + observe::duration_text(notice.grace);
    complain(claim.nodes().front() + ": " + text);
  }
}

// Until we are told to end, or a device is gone.
Result<> hold(Claim& claim) {
  sigset_t ending;
  sigset_t before;
  ::sigemptyset(&ending);
  for (const int number : kEnding) ::sigaddset(&ending, number);
  ::sigprocmask(SIG_BLOCK, &ending, &before);  // they are delivered inside ppoll(2) alone, or seen before it
  const int notice = claim.notice_fd().value_or(-1);
  const bool reads_input = input_can_end();
  Result<> there;
  while (ended_by == 0 && there) {
    const bool watched = reads_input && may_read_input();
    std::array<pollfd, 2> wanted{{{notice, POLLIN, 0}, {watched ? STDIN_FILENO : -1, POLLIN, 0}}};
    // A terminal has no event for "you are in the foreground now", and we may have got no notice_fd(): look once a
    // second.
    const bool look = notice < 0 || (reads_input && ::isatty(STDIN_FILENO) == 1 && !watched);
    ::ppoll(wanted.data(), wanted.size(), look ? &kLookAgain : nullptr, &before);
    const auto& [noticed, input] = wanted;
    if (noticed.revents != 0 || notice < 0) there = claim.check();
    if (there) warn(claim);
    if (input.revents != 0 && may_read_input() && input_has_ended()) break;
  }
  ::sigprocmask(SIG_SETMASK, &before, nullptr);
  return there;
}

void tell(const Claim& claim) {
  for (const MarkReport& mark : claim.report()) complain(to_string(mark));
  complain(fmt::format("enforcement: {}", to_string(claim.enforcement())));
}

}  // namespace

int claim_command(const CommandLine& line) {
  if (!line.command.empty()) return fail_usage("claim", "takes no command; holdfast run does");
  auto words = claim_words(line);
  if (!words) return fail_usage("claim", words.error());

  if (words->owner != 0) return claim_for(*words, line.operands);
  words->options.on_signal = OnSignal::give_up;  // the library then lets signals in only while nothing is held
  Result<Claim> claimed =
      attempt_and_tell(*words, [&line](const Options& options) { return holdfast::claim(line.operands, options); });
  if (!claimed) return fail(claimed.error(), words->refused_status);
  // Not before: until here a signal simply kills us. A handler that ran just before the wait began would be forgotten.
  catch_ending_signals();
  if (words->verbose) tell(*claimed);
  print("claimed");
  for (const std::string& device : line.operands) print(" " + base::printable(device));
  print("\n");
  if (!flush_output()) return kExitSystem;  // whoever waits for the line would wait for ever
  const Result<> there = hold(*claimed);
  claimed->release();
  return there ? 0 : fail(there.error(), words->refused_status);
}

}  // namespace holdfast::cli
