// SPDX-License-Identifier: MIT
// permission.hpp - acting on files with a client's rights, and no others.
//
// The broker opens nodes and hands the descriptors to clients, so it may open no more than they could by themselves:
// while it checks, opens and makes lock files for a client, the thread has the client's file system uid, gid and
// groups, and none of the capabilities that see past permissions. The kernel then decides, ACLs included. It is the
// fsuid and not the effective uid because the client may not get at the broker meanwhile: who may send signals and
// trace goes by the other ids (credentials(7)).
#pragma once

#include "device/device.hpp"

#include <holdfast/error.hpp>

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <optional>
#include <vector>

namespace holdfast::broker {

/// A client's rights, as the kernel noted them when it connected (unix(7): SO_PEERCRED, SO_PEERGROUPS): its effective
/// ids, so that a set-uid program may what it may without us.
struct Credentials {
  uid_t uid = 0;
  gid_t gid = 0;
  std::vector<gid_t> groups;
  bool operator==(const Credentials&) const = default;
};
/// nullopt when `socket` is not a connected socket of this machine.
[[nodiscard]] std::optional<Credentials> credentials_of(int socket);

/// One per process, made when it has the rights that it keeps.
class Permission {
 public:
  /// system_fault when the kernel does not say who we are.
  [[nodiscard]] static Result<Permission> start();
  Permission(Permission&& other) noexcept;
  Permission& operator=(Permission&&) = delete;

  /// What the thread may do beside what the client may.
  enum class Rights : std::uint8_t {
    client,      ///< nothing
    lock_files,  ///< write in directories that are closed to the client; a file that it makes is still the client's
  };

  /// While it lives, the calling thread, and it alone, acts as the client. To be destroyed by the same thread.
  class Acting {
   public:
    Acting(Acting&& other) noexcept;
    Acting& operator=(Acting&&) = delete;
    ~Acting();
    /// False when it could not be done; the thread then may no more than before.
    [[nodiscard]] bool use(Rights rights) const;

   private:
    friend class Permission;
    Acting(const Permission& permission, const Credentials& who);
    const Permission* permission_;
    bool is_root_;
    bool is_own_;  // nothing but capabilities changes, which takes none
  };

  /// \returns system_fault when the thread cannot become the client, or could not become itself again before
  /// \cost  ten system calls together with the return; two for a client with the broker's own ids
  [[nodiscard]] Result<Acting> act_as(const Credentials& who) const;

  /// Whether the client may open the node for reading or for writing; uid 0 always may.
  /// \returns not_permitted, which says who may
  [[nodiscard]] Result<> may_open(const Credentials& who, const device::Node& node) const;

  /// Whether a thread is left with a client's rights, because the kernel did not let it return. No more is done for
  /// clients then: the process should end.
  [[nodiscard]] bool is_stuck() const { return stuck_; }

 private:
  Permission() = default;
  [[nodiscard]] bool become(const Credentials& who) const;
  [[nodiscard]] bool set_effective(std::uint64_t capabilities) const;
  [[nodiscard]] bool is_own(const Credentials& who) const;

  Credentials own_;
  std::uint64_t permitted_ = 0;  // one bit for each capability
  std::uint64_t effective_ = 0;
  std::uint64_t inheritable_ = 0;
  mutable std::atomic<bool> stuck_ = false;
};

}  // namespace holdfast::broker
