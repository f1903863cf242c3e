// SPDX-License-Identifier: MIT
// privileges.cpp - see the header.
#include "broker/privileges.hpp"

#include "base/error.hpp"

#include <grp.h>
#include <pwd.h>
#include <sys/capability.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <memory>
#include <optional>
#include <span>

namespace holdfast::broker {
namespace {

using Capabilities = std::span<const cap_value_t>;
// The last is the guard's.
constexpr std::array<cap_value_t, 5> kKept{CAP_SETUID, CAP_SETGID, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_BPF};

struct CapDeleter {
  void operator()(cap_t sets) const { ::cap_free(sets); }
};
using Sets = std::unique_ptr<std::remove_pointer_t<cap_t>, CapDeleter>;

std::unexpected<Error> failed(const char* what) { return std::unexpected(base::fault(errno, what, {})); }

// What of `kept` we have is permitted and effective, all else is gone; nothing is passed on by execve(2).
Result<> keep_capabilities(Capabilities kept) {
  const Sets present{::cap_get_proc()};
  const Sets wanted{::cap_init()};
  if (!present || !wanted) return failed("cap_get_proc");
  for (const cap_value_t one : kept) {
    cap_flag_value_t is_set = CAP_CLEAR;
    ::cap_get_flag(present.get(), one, CAP_PERMITTED, &is_set);
    if (is_set == CAP_CLEAR) continue;
    ::cap_set_flag(wanted.get(), CAP_PERMITTED, 1, &one, CAP_SET);
    ::cap_set_flag(wanted.get(), CAP_EFFECTIVE, 1, &one, CAP_SET);
  }
  if (::cap_set_proc(wanted.get()) != 0) return failed("cap_set_proc");
  if (::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) != 0) return failed("PR_CAP_AMBIENT");
  return {};
}

// Needs CAP_SETPCAP, which root has until keep_capabilities(); a service has its unit file's bounding set.
Result<> bound_capabilities(Capabilities kept) {
  for (cap_value_t one = 0; CAP_IS_SUPPORTED(one); ++one)
    if (std::ranges::find(kept, one) == kept.end() && ::cap_drop_bound(one) != 0) return failed("PR_CAPBSET_DROP");
  return {};
}

Result<> become(const ::passwd& user) {
  // Its other groups as well: an administrator may have given it some for a lock directory.
  if (::initgroups(user.pw_name, user.pw_gid) != 0) return failed("initgroups");
  if (::setresgid(user.pw_gid, user.pw_gid, user.pw_gid) != 0) return failed("setresgid");
  if (::prctl(PR_SET_KEEPCAPS, 1) != 0) return failed("PR_SET_KEEPCAPS");
  if (::setresuid(user.pw_uid, user.pw_uid, user.pw_uid) != 0) return failed("setresuid");
  return {};
}

Result<> give(const std::string& directory, const ::passwd& user) {
  if (directory.empty()) return {};
  if (::mkdir(directory.c_str(), 0755) == 0) {
    if (::chown(directory.c_str(), user.pw_uid, user.pw_gid) == 0) return {};
    return std::unexpected(base::fault(errno, "chown", directory));
  }
  // One that is there may be anybody's, /tmp for example.
  if (errno == EEXIST) return {};
  return std::unexpected(base::fault(errno, "mkdir", directory));
}

}  // namespace

Result<> make_directories(const std::string& user, const std::vector<std::string>& directories) {
  const ::passwd* const entry = ::geteuid() == 0 ? ::getpwnam(user.c_str()) : nullptr;
  if (entry == nullptr) return {};
  for (const std::string& directory : directories)
    if (auto given = give(directory, *entry); !given) return given;
  return {};
}

Result<Standing> drop_privileges(const std::string& user, GuardRight guard) {
  const Capabilities kept{kKept.data(), kKept.size() - (guard == GuardRight::kept ? 0 : 1)};
  if (::geteuid() == 0) {
    const ::passwd* const entry = ::getpwnam(user.c_str());
    if (auto bound = bound_capabilities(kept); !bound) return std::unexpected(std::move(bound.error()));
    if (entry != nullptr)
      if (auto became = become(*entry); !became) return std::unexpected(std::move(became.error()));
  }
  if (auto done = keep_capabilities(kept); !done) return std::unexpected(std::move(done.error()));
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return failed("PR_SET_NO_NEW_PRIVS");
  return Standing{::geteuid(), ::getegid()};
}

}  // namespace holdfast::broker
