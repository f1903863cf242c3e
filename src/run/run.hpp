// SPDX-License-Identifier: MIT
// run.hpp - a command under a claim.
#pragma once

#include <holdfast/error.hpp>
#include <holdfast/options.hpp>

#include <span>
#include <string>
#include <vector>

namespace holdfast::run {

/// Whether the command's own locking is met by handing the convention over.
enum class HandOver : std::uint8_t {
  when_asked,  ///< through seccomp user notification; sets no_new_privs unless CAP_SYS_ADMIN is held
  never,       ///< set-uid commands keep their privilege; the command meets our locks like a stranger's
};

struct Request {
  std::vector<std::string> devices;
  std::vector<std::string> command;  ///< argv, at least one
  Options options;
  HandOver hand_over = HandOver::when_asked;
  bool verbose = false;  ///< report to stderr what is taken, handed over and given back
};

/// How the command ended.
struct Outcome {
  enum class Kind : std::uint8_t { exited, killed, not_executable, not_found };
  Kind kind = Kind::exited;
  int value = 0;  ///< exit status, signal number, or errno of exec(2)
};

/// Claims, runs the command, gives back, and says how it ended. Must be called while the process has one thread.
[[nodiscard]] Result<Outcome> run(const Request& request);

}  // namespace holdfast::run
