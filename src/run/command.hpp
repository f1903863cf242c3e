// SPDX-License-Identifier: MIT
// command.hpp - the command's process, from its birth to its exec.
//
// It is started before the claim is taken, so that it inherits no descriptor that carries a lock, and waits for the
// word to go. Meanwhile it installs the filter, on another processor than the one that claims.
#pragma once

#include "base/process.hpp"
#include "base/unique_fd.hpp"
#include "run/calls.hpp"

#include <holdfast/error.hpp>

#include <signal.h>

#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace holdfast::run {

/// The signal state that our own caller gave us, which the command is to start with.
struct Inherited {
  sigset_t mask{};
  bool ignores_children = false;  ///< SIGCHLD was ignored: the kernel would reap the command for us
};

class Command {
 public:
  /// \param filter  nullopt: the command is not asked about anything
  [[nodiscard]] static Result<Command> start(std::span<const std::string> arguments, std::optional<Filter> filter,
                                             const Inherited& inherited);
  Command(Command&&) noexcept;
  Command& operator=(Command&&) noexcept;
  /// A command that was never told to go ends by itself when the channel closes, and is reaped here.
  ~Command();

  [[nodiscard]] const base::ProcessId& id() const { return id_; }
  [[nodiscard]] pid_t pid() const { return id_.pid; }
  [[nodiscard]] int pidfd() const { return pidfd_.get(); }
  /// Readable when exec has succeeded or failed.
  [[nodiscard]] int channel() const { return channel_.get(); }

  struct Installed {
    base::UniqueFd listener;  ///< empty when the filter could not be installed
    int errnum = 0;           ///< why not: EBUSY when we run under a supervisor of this kind ourselves
  };
  /// Waits until the command has installed its filter.
  [[nodiscard]] Result<Installed> installed();

  void go();
  /// To be called when the channel is readable: errno of a failed exec, 0 after a successful one.
  [[nodiscard]] int exec_result();
  /// The command has been reaped by somebody else.
  void forget() { to_reap_ = false; }

 private:
  struct Launch;
  Command();
  static int launch(void* raw) noexcept;

  std::unique_ptr<Launch> launch_;
  base::ProcessId id_;
  bool to_reap_ = false;
  base::UniqueFd pidfd_;
  base::UniqueFd channel_;
};

/// The files that execvp(3) would try, in its order. Pure.
[[nodiscard]] std::vector<std::string> exec_candidates(const std::string& name, const char* search_path);

}  // namespace holdfast::run
