// SPDX-License-Identifier: MIT
// sync/termination.hpp - what ends a killable wait, and how a handler makes sure that it ends an interruptible one.
//
// In the kernel a killable wait is one that only a fatal signal ends. In user space a fatal signal ends the process
// anyway, and the locks are made for that. What is left to say is "we were asked to end, stop waiting": a handler of
// SIGTERM, or any thread, calls note_termination(), and every killable wait of the process answers errc::interrupted.
#pragma once

#include <holdfast/export.h>

namespace holdfast::sync {

/// Ends every killable wait of this process, those that begin later included. \thread async-signal-safe
HF_API void note_termination() noexcept;

/// Killable waits wait again. \thread async-signal-safe
HF_API void clear_termination() noexcept;

[[nodiscard]] HF_API bool termination_noted() noexcept;

/// Ends the interruptible wait of this thread: the one it is in or, when it is in none, the next that would sleep.
///
/// A handler that runs while the thread sleeps ends the wait anyhow. One that runs just before is seen by nobody: the
/// kernel has no call that restores a signal mask and sleeps on a lock word in one step, and keeps no count of handlers
/// that ran. So a handler whose signal may be the only one calls this. What was noted is kept for one answer; a wait
/// that ends for a handler that ran before it began is told early, not wrongly: look at what the handler said, and wait
/// again. It concerns no other form of waiting.
/// \thread  async-signal-safe
HF_API void note_interruption() noexcept;

/// Forgets what was noted in this thread. \thread async-signal-safe
HF_API void clear_interruption() noexcept;

}  // namespace holdfast::sync
