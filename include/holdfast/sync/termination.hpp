// SPDX-License-Identifier: MIT
// sync/termination.hpp - what ends a killable wait.
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

}  // namespace holdfast::sync
