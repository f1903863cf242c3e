// SPDX-License-Identifier: MIT
// command.hpp - what the subcommands have in common: their entry points, exit statuses, and the two ways out of the
// program (a line on standard error, text on standard output whose loss is noticed).
#pragma once

#include "cli/command_line.hpp"
#include "cli/progress_line.hpp"

#include <holdfast/error.hpp>

#include <unistd.h>

#include <string>
#include <string_view>

namespace holdfast::cli {

// sysexits.h, as far as DESIGN promises them.
inline constexpr int kExitUsage = 64;
inline constexpr int kExitNoDevice = 66;
inline constexpr int kExitSystem = 71;
inline constexpr int kExitRefused = 75;
inline constexpr int kExitNotPermitted = 77;
inline constexpr int kExitNotExecutable = 126;
inline constexpr int kExitNotFound = 127;
inline constexpr int kExitSignalled = 128;

// One file each. They return the exit status; the caller finishes standard output.
int run_command(const CommandLine& line);
int claim_command(const CommandLine& line);
int release_command(const CommandLine& line);
int status_command(const CommandLine& line);
int watch_command(const CommandLine& line);
int top_command(const CommandLine& line);
int history_command(const CommandLine& line);
int kick_command(const CommandLine& line);
int explain_command(const CommandLine& line);
int doctor_command(const CommandLine& line);
int guard_command(const CommandLine& line);

[[nodiscard]] int exit_status(const Error& error, int refused_status = kExitRefused);

/// "holdfast: MESSAGE" and a line feed to standard error, in one write(2).
void complain(std::string_view message);
/// Complains and returns the exit status.
int fail(const Error& error, int refused_status = kExitRefused);
/// "holdfast run: MESSAGE; see holdfast run --help", status 64.
int fail_usage(std::string_view command, std::string_view message);

/// Adds to standard output's buffer.
void print(std::string_view text);
/// Writes what was printed so far; false, after a complaint, when it could not be written (full disk, closed).
[[nodiscard]] bool flush_output();

/// Forgets what was printed and not written.
void discard_output();

/// Opens /dev/null in place of descriptors 0 to 2 that are closed, so that no device or lock file becomes somebody's
/// standard output. In the opposite direction, so that use still fails as on a closed one, and close-on-exec, so that
/// a command still finds it closed.
void fill_standard_descriptors();

/// "waiting" or "waiting until 12:09:11".
[[nodiscard]] std::string waiting_text(const Wait& wait);

/// Makes `attempt(Options)` with the wait that `words` ask for. When somebody looks on (-v, or a terminal on standard
/// error) it first tries without waiting, to be able to say who is in the way.
template <class Attempt>
[[nodiscard]] auto attempt_and_tell(const ClaimWords& words, const Attempt& attempt) {
  const Wait wait = words.options.wait;
  if (wait.waits() && (words.verbose || ::isatty(STDERR_FILENO) == 1)) {
    Options at_once = words.options;
    at_once.wait = Wait::none();
    auto result = attempt(at_once);
    if (result || result.error().code != errc::refused) return result;
    complain(result.error().message + "; " + waiting_text(wait));
    ProgressLine progress;
    Options told = words.options;
    if (progress.can_be_seen()) told.on_progress = [&progress](const Progress& now) { progress.show(now); };
    return attempt(told);
  }
  return attempt(words.options);
}

}  // namespace holdfast::cli
