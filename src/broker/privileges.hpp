// SPDX-License-Identifier: MIT
// privileges.hpp - a broker that is asked by everybody keeps no right that it does not need.
//
// What it keeps, and why:
//   CAP_SETUID, CAP_SETGID  to open nodes with the rights of the client that asks (permission.hpp)
//   CAP_DAC_OVERRIDE        to make lock files where the client may not write, and to open for root what is not root's
//   CAP_FOWNER              to remove a client's lock file from a sticky directory
//   CAP_BPF                 to feed the guard; not to load its programs. Not kept where the guard is not used
// What it does without, on purpose: CAP_SYS_ADMIN, so that TIOCEXCL binds it as it binds others; CAP_SYS_PTRACE, though
// some strangers then have no name; CAP_KILL, because a kick asks and then takes the locks back, not the process.
#pragma once

#include <holdfast/error.hpp>

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

namespace holdfast::broker {

/// Who the broker is from now on.
struct Standing {
  uid_t uid = 0;
  gid_t gid = 0;
};

/// Of root, when there is such a user: makes those that are missing, for the user.
[[nodiscard]] Result<> make_directories(const std::string& user, const std::vector<std::string>& directories);

enum class GuardRight : std::uint8_t { dropped, kept };

/// Of root: becomes `user`, if there is such a user, with the capabilities above. Of others: keeps of its capabilities
/// those above. Nothing it starts gets any. To be called before there are threads: capabilities are a thread's.
/// \returns system_fault when a right could not be dropped: then nothing may go on
[[nodiscard]] Result<Standing> drop_privileges(const std::string& user, GuardRight guard);

}  // namespace holdfast::broker
