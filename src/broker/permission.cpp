// SPDX-License-Identifier: MIT
// permission.cpp - see the header.
#include "broker/permission.hpp"

#include "base/error.hpp"
#include "base/process.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/capability.h>
#include <sys/fsuid.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

namespace holdfast::broker {
namespace {

constexpr std::uint64_t bit(int capability) { return std::uint64_t{1} << static_cast<unsigned>(capability); }

// What it takes to become somebody else, and oneself again.
constexpr std::uint64_t kChange = bit(CAP_SETUID) | bit(CAP_SETGID);
constexpr std::uint64_t kSeePastPermissions = bit(CAP_DAC_OVERRIDE) | bit(CAP_DAC_READ_SEARCH);

struct Sets {
  std::uint64_t effective = 0;
  std::uint64_t permitted = 0;
  std::uint64_t inheritable = 0;
};

constexpr std::uint64_t joined(std::uint32_t low, std::uint32_t high) { return std::uint64_t{high} << 32U | low; }

// The calls are made directly: glibc's act on all threads of the process (nptl(7)), the kernel's on the calling one.
std::optional<Sets> capabilities() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3> data{};
  if (::syscall(SYS_capget, &header, data.data()) != 0) return std::nullopt;
  return Sets{joined(data[0].effective, data[1].effective), joined(data[0].permitted, data[1].permitted),
              joined(data[0].inheritable, data[1].inheritable)};
}

bool set_capabilities(const Sets& sets) {
  const auto low = [](std::uint64_t set) { return static_cast<std::uint32_t>(set); };
  const auto high = [](std::uint64_t set) { return static_cast<std::uint32_t>(set >> 32U); };
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  const std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3> data{
      {{low(sets.effective), low(sets.permitted), low(sets.inheritable)},
       {high(sets.effective), high(sets.permitted), high(sets.inheritable)}}};
  return ::syscall(SYS_capset, &header, data.data()) == 0;
}

constexpr uid_t kNobody = static_cast<uid_t>(-1);  // not an id: setfsuid(2) changes nothing and tells the present one

uid_t file_uid() { return static_cast<uid_t>(::setfsuid(kNobody)); }
gid_t file_gid() { return static_cast<gid_t>(::setfsgid(kNobody)); }

bool set_groups(const std::vector<gid_t>& groups) {
  return ::syscall(SYS_setgroups, groups.size(), groups.data()) == 0;
}

// setfsuid(2) has no error: whether it worked is asked.
bool set_file_uid(uid_t uid) {
  ::setfsuid(uid);
  return file_uid() == uid;
}
bool set_file_gid(gid_t gid) {
  ::setfsgid(gid);
  return file_gid() == gid;
}

std::optional<std::vector<gid_t>> own_groups() {
  const int count = ::getgroups(0, nullptr);
  if (count < 0) return std::nullopt;
  std::vector<gid_t> groups(static_cast<std::size_t>(count));
  const int got = ::getgroups(count, groups.data());
  if (got < 0) return std::nullopt;
  groups.resize(static_cast<std::size_t>(got));
  return groups;
}

}  // namespace

std::optional<Credentials> credentials_of(int socket) {
  ucred peer{};
  socklen_t length = sizeof peer;
  if (::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0 || peer.pid == 0) return std::nullopt;
  Credentials who{peer.uid, peer.gid, {}};
  std::array<gid_t, 64> first;
  length = sizeof first;
  if (::getsockopt(socket, SOL_SOCKET, SO_PEERGROUPS, first.data(), &length) == 0) {
    who.groups.assign(first.begin(), first.begin() + length / sizeof(gid_t));
    return who;
  }
  // The length that it takes (net/core/sock.c, sk_getsockopt()).
  if (errno != ERANGE) return std::nullopt;
  who.groups.resize(length / sizeof(gid_t));
  if (::getsockopt(socket, SOL_SOCKET, SO_PEERGROUPS, who.groups.data(), &length) != 0) return std::nullopt;
  who.groups.resize(length / sizeof(gid_t));
  return who;
}

Permission::Permission(Permission&& other) noexcept
    : own_{std::move(other.own_)},
      permitted_{other.permitted_},
      effective_{other.effective_},
      inheritable_{other.inheritable_},
      stuck_{other.stuck_.load()} {}

Result<Permission> Permission::start() {
  const auto sets = capabilities();
  auto groups = own_groups();
  if (!sets || !groups) return std::unexpected(base::fault(errno, "own credentials", {}));
  Permission permission;
  permission.own_ = {file_uid(), file_gid(), std::move(*groups)};
  permission.permitted_ = sets->permitted;
  permission.effective_ = sets->effective;
  permission.inheritable_ = sets->inheritable;
  return permission;
}

bool Permission::set_effective(std::uint64_t capabilities) const {
  return set_capabilities({capabilities, permitted_, inheritable_});
}

bool Permission::become(const Credentials& who) const {
  // Last the capabilities: a change of the fsuid from or to 0 changes them by itself (capabilities(7)).
  return set_groups(who.groups) && set_file_gid(who.gid) && set_file_uid(who.uid);
}

bool Permission::is_own(const Credentials& who) const {
  return who.uid == own_.uid && who.gid == own_.gid && std::ranges::is_permutation(who.groups, own_.groups);
}

Permission::Acting::Acting(const Permission& permission, const Credentials& who)
    : permission_{&permission}, is_root_{who.uid == 0}, is_own_{permission.is_own(who)} {}

Permission::Acting::Acting(Acting&& other) noexcept
    : permission_{std::exchange(other.permission_, nullptr)}, is_root_{other.is_root_}, is_own_{other.is_own_} {}

Permission::Acting::~Acting() {
  if (permission_ == nullptr) return;
  const bool returned =
      (is_own_ || permission_->become(permission_->own_)) && permission_->set_effective(permission_->effective_);
  if (!returned) permission_->stuck_ = true;
}

bool Permission::Acting::use(Rights rights) const {
  const std::uint64_t beside = is_root_ || rights == Rights::lock_files ? kSeePastPermissions : 0;
  return permission_->set_effective(permission_->permitted_ & (kChange | beside));
}

Result<Permission::Acting> Permission::act_as(const Credentials& who) const {
  if (stuck_)
    return std::unexpected(
        base::failure(errc::system_fault, "the broker could not give a client's rights back: restart it", {}));
  Acting acting{*this, who};
  if ((!acting.is_own_ && !become(who)) || !acting.use(Rights::client))
    return std::unexpected(base::failure(
        errc::system_fault, "the broker cannot act as the client: it needs CAP_SETUID and CAP_SETGID", {}));
  return acting;
}

Result<> Permission::may_open(const Credentials& who, const device::Node& node) const {
  if (who.uid == 0) return {};
  const auto acting = act_as(who);
  if (!acting) return std::unexpected(acting.error());
  // Not by glibc's name, which without this call of the kernel would ask for the effective uid instead of the fsuid.
  const auto may = [&](int mode) {
    return ::syscall(SYS_faccessat2, AT_FDCWD, node.path.c_str(), mode, AT_EACCESS) == 0 ||
           errno == EBUSY;  // the guard's word, asked when the file's mode has said yes
  };
  if (may(R_OK) || may(W_OK)) return {};
  if (errno != EACCES && errno != EROFS) return std::unexpected(base::fault(errno, "access", node.path));
  return std::unexpected(
      base::fault(errc::not_permitted, EACCES,
                  fmt::format("open (owner {}, group {}, mode {:04o}; join its group or become root)",
                              base::user_name(node.uid), node.gid, node.mode & 07777U),
                  node.path));
}

}  // namespace holdfast::broker
