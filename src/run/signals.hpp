// SPDX-License-Identifier: MIT
// signals.hpp - the front's signals: read like messages, passed on to the command where it has not got them itself.
#pragma once

#include "base/unique_fd.hpp"
#include "run/command.hpp"

#include <signal.h>
#include <sys/signalfd.h>

namespace holdfast::run {

/// What to do with a signal that the front got.
enum class Care : std::uint8_t {
  ignore,    ///< the command has got it as well: the terminal sends to the whole foreground group
  pass_on,   ///< somebody sent it to us alone, meaning the command
  children,  ///< one of ours died, stopped or went on
  go_on,     ///< we were continued: so must the command be
};
[[nodiscard]] Care care_for(const signalfd_siginfo& signal);

/// Blocks every signal and restores what was when destroyed.
class Signals {
 public:
  Signals();
  Signals(const Signals&) = delete;
  Signals& operator=(const Signals&) = delete;
  ~Signals();

  [[nodiscard]] int fd() const { return fd_.get(); }
  [[nodiscard]] const Inherited& inherited() const { return inherited_; }
  /// The next one, when fd() is readable.
  [[nodiscard]] std::optional<signalfd_siginfo> next();

  /// Signals act on us as our caller set them, for as long as the object lives.
  class AsInherited {
   public:
    explicit AsInherited(const Signals& signals);
    AsInherited(const AsInherited&) = delete;
    AsInherited& operator=(const AsInherited&) = delete;
    ~AsInherited();
  };

  /// Stops this process as `signal` stopped the command; returns when it is continued.
  static void stop_by(int signal);

 private:
  Inherited inherited_;
  base::UniqueFd fd_;
};

}  // namespace holdfast::run
