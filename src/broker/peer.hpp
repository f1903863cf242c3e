// SPDX-License-Identifier: MIT
// peer.hpp - who speaks, as the kernel says it. A pid alone is reused: the start time and a pidfd tell it apart, and
// the pidfd is what tells of the death.
#pragma once

#include "base/process.hpp"
#include "base/unique_fd.hpp"
#include "broker/permission.hpp"

#include <holdfast/error.hpp>

#include <string>

namespace holdfast::broker {

struct Peer {
  base::ProcessId process;  ///< in the broker's pid namespace
  Credentials rights;
  std::string command;  ///< /proc/PID/comm
  std::string user;
};

/// A process and the descriptor that is readable once it is dead.
struct Process {
  Peer peer;
  base::UniqueFd pidfd;
};

/// Whoever connected the socket. The error says that it is dead, or in a pid namespace that we cannot see into.
[[nodiscard]] Result<Process> peer_of_socket(int socket);

/// The process of a pidfd that a client sent along; whose `rights` are its real user and group, and its groups.
/// Taken out of `pidfd` when it is one: what closing another kind of descriptor does, nobody knows (closer.hpp).
/// \returns invalid_argument for another kind of descriptor; gone when it is dead
[[nodiscard]] Result<Process> process_of_pidfd(base::UniqueFd& pidfd);

}  // namespace holdfast::broker
