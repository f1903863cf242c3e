// SPDX-License-Identifier: MIT
// process.hpp - which process is that. A pid alone is reused; with its start time it is not (proc(5), field 22).
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

namespace holdfast::base {

struct ProcessId {
  pid_t pid = 0;
  std::uint64_t start_ticks = 0;  // 0: unknown
  bool operator==(const ProcessId&) const = default;
};

struct ProcessFacts {
  ProcessId id;
  std::string command;  // /proc/PID/comm
  uid_t uid = 0;
  std::chrono::system_clock::time_point started;
  bool dead = false;  // a zombie or a dying process: runs no user code any more
};

/// Reads /proc/PID/stat and the directory's owner; nullopt when there is no such process (or it is hidden from us).
[[nodiscard]] std::optional<ProcessFacts> facts_of(pid_t pid);

/// Whether the process runs user code: exists (EPERM counts as existing), is no zombie, and, when
/// `id.start_ticks` is set, is still the same process.
[[nodiscard]] bool is_alive(const ProcessId& id);

/// This process. Cached per process: reads /proc once.
[[nodiscard]] ProcessId self();

/// basename of /proc/PID/exe; the comm when the link cannot be read.
[[nodiscard]] std::string executable_name(pid_t pid);

/// The user's name from the password file, else the number.
[[nodiscard]] std::string user_name(uid_t uid);

}  // namespace holdfast::base
