// SPDX-License-Identifier: MIT
// interfaces.hpp - what the desk asks of the world, so that a test can be the world. Nothing here waits: what cannot be
// said at once is said later, by calling the desk.
#pragma once

#include "arbiter/values.hpp"
#include "base/process_fd.hpp"
#include "base/unique_fd.hpp"
#include "broker/peer.hpp"
#include "claim/holding.hpp"
#include "device/device.hpp"
#include "guard/guard.hpp"
#include "wire/message.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace holdfast::broker {

/// The broker's number for a connection. Never used twice.
enum class ConnectionId : std::uint64_t { none = 0 };

class Clock {
 public:
  virtual ~Clock() = default;
  [[nodiscard]] virtual arbiter::Time now() const = 0;  ///< CLOCK_MONOTONIC
  [[nodiscard]] virtual wire::WallTime wall() const = 0;
};

/// Messages out. A connection that is gone swallows them. None of it calls the desk.
class Post {
 public:
  virtual ~Post() = default;
  /// Sent at once or queued; the descriptors are duplicated as far as they have to outlive the call. False when it
  /// cannot be delivered any more: the connection is gone or was dropped for reading too slowly.
  virtual bool send(ConnectionId to, std::uint32_t number, const wire::FromBroker& message,
                    std::span<const int> descriptors) = 0;
  bool send(ConnectionId to, std::uint32_t number, const wire::FromBroker& message) {
    return send(to, number, message, {});
  }
  /// How many bytes wait for it to read: who sends much looks here first.
  [[nodiscard]] virtual std::size_t queued_bytes(ConnectionId to) const = 0;
  /// Closes it, later: the desk is called from the loop alone.
  virtual void close(ConnectionId which) = 0;
};

/// Who is a device, by number. Opens nothing.
class Devices {
 public:
  virtual ~Devices() = default;
  /// \returns no_such_device for what this broker cannot see (another devpts instance, a number without a node here)
  [[nodiscard]] virtual Result<std::shared_ptr<const device::Device>> find(const wire::DeviceName& name) = 0;
};

/// Who may claim (Permission answers).
class Gate {
 public:
  virtual ~Gate() = default;
  /// Whether `peer` could open the device's node itself, for reading or for writing.
  /// \returns not_permitted, with the way out in the message
  [[nodiscard]] virtual Result<> may_claim(const device::Device& device, const Peer& peer) = 0;
};

/// A claim, as the journal keeps it and hooks hear of it.
struct ClaimRecord {
  struct Device {
    device::DeviceId id;
    std::string path;
    arbiter::Token token{};
    bool named = false;  ///< asked for by name; the others are covered
  };
  wire::ClaimId id{};
  base::ProcessId owner;
  uid_t uid = 0;
  OwnerScope scope = OwnerScope::process;
  wire::OwnerGiven given = wire::OwnerGiven::speaker;
  /// Of a claim by_pidfd: who has the descriptors beside the broker, and what was taken for him.
  struct Asked {
    base::ProcessId by;
    ConventionSet conventions = ConventionSet::all();
    Opening opening = Opening::allowed;
    bool operator==(const Asked&) const = default;
  };
  Asked asked{};
  Mode mode = Mode::exclusive;
  std::optional<arbiter::Time> until;  ///< CLOCK_MONOTONIC
  wire::WallTime since{};
  std::vector<Device> devices;
  std::vector<std::string> lock_files;  ///< what outlives a process
  std::string purpose;
  std::optional<guard::Enforced> enforced;  ///< what the guard was told
};

/// What a broker that is started anew must know (Journal and the descriptor store keep it).
class Memory {
 public:
  virtual ~Memory() = default;
  /// Before the client is told. Again with the same id when its mode, tokens or end changed. `holding` is what keeps
  /// its locks; valid during the call.
  virtual void granted(const ClaimRecord& claim, const claiming::Holding& holding) = 0;
  virtual void ended(wire::ClaimId claim) = 0;
  /// Whoever else had its descriptors has hung up.
  virtual void is_ours_alone(wire::ClaimId /*claim*/) {}
  /// Both at once: whoever reads it finds one of the two claims, never both, never none.
  virtual void passed_on(wire::ClaimId from, const ClaimRecord& to, const claiming::Holding& holding) = 0;
};

/// What happened, to those who watch and into the history (Chronicle tells).
class Events {
 public:
  virtual ~Events() = default;
  virtual void happened(const wire::Event& event) = 0;
};

/// Programs of the administrator, before a grant and after the end.
class Hooks {
 public:
  virtual ~Hooks() = default;
  /// The answer, or nothing: then Desk::hooks_ran() is called with it.
  virtual std::optional<Result<>> before_grant(const ClaimRecord& claim) = 0;
  virtual void after_end(const ClaimRecord& claim, arbiter::End why) = 0;
  /// Whether either would run anything.
  [[nodiscard]] virtual bool are_there() = 0;
  /// The answer to before_grant() is not wanted any more.
  virtual void forget(wire::ClaimId claim) = 0;
};

/// Tells of deaths by Desk::owner_died().
class Deaths {
 public:
  virtual ~Deaths() = default;
  virtual void watch(arbiter::OwnerId owner, base::UniqueFd pidfd) = 0;
  virtual void forget(arbiter::OwnerId owner) = 0;
};

/// What is to be done to a claim's marks.
struct Taking {
  std::vector<std::shared_ptr<const device::Device>> devices;
  Options options;
  base::ProcessId owner;
  std::shared_ptr<const Peer> speaker;  ///< with whose rights the nodes are opened
};
/// What stands in an elected claim's way without the arbiter knowing: looked at until it may have gone.
class Strangers {
 public:
  virtual ~Strangers() = default;
  /// Desk::try_again() is called when it is worth trying again, once. False: it cannot be watched, and the desk tries
  /// again five times a second.
  virtual bool watch(wire::ClaimId claim, const claiming::Obstruction& obstruction, const Taking& taking) = 0;
  virtual void forget(wire::ClaimId claim) = 0;
};

/// Takes marks and gives them back. Each answers at once, or nothing and calls the desk later.
class Hands {
 public:
  using Taken = std::expected<claiming::Holding, claiming::Obstruction>;
  struct Changed {
    claiming::Holding holding;
    Result<> result;
  };
  virtual ~Hands() = default;
  virtual std::optional<Taken> take(wire::ClaimId claim, const Taking& taking) = 0;  ///< Desk::taken()
  virtual std::optional<Changed> change(wire::ClaimId claim, claiming::Holding holding, Mode mode) = 0;  ///< changed()
  /// The marks of a claim from before the broker was started anew, as its client has kept them. Desk::adopted()
  virtual std::optional<Result<claiming::Holding>> adopt(wire::ClaimId claim, const Taking& taking, wire::Marks marks,
                                                         std::vector<base::ProcessFd> descriptors) = 0;
  /// Whether the holding can go on to the next claim of the same devices as it is.
  [[nodiscard]] virtual bool can_pass_on(const claiming::Holding& holding) = 0;
  virtual void pass_on(claiming::Holding& holding, const Taking& to, const std::string& lock_file,
                       wire::WallTime since) = 0;
  /// What its lock files will say, asked for while it waits: to see who a process is takes as long as all the rest.
  [[nodiscard]] virtual std::string lock_file_of(const Taking& waiting) = 0;
  /// True when it was given back at once, else Desk::given_back().
  virtual bool give_back(wire::ClaimId claim, claiming::Holding holding) = 0;
};

/// Somebody whom the guard has refused.
struct Denial {
  device::DeviceId device;
  Holder who;  ///< pid, command and user
  std::string operation;
  std::uint64_t before = 0;  ///< of the same device that were not reported
};

/// The guard (guard/guard.hpp): who may use a device, said to the kernel. Each answers at once.
class Enforcer {
 public:
  struct Wish {
    std::span<const device::Node> nodes;
    base::ProcessId owner;
    OwnerScope scope = OwnerScope::process;
    guard::Owner::Ends ends = guard::Owner::Ends::with_root;  ///< of scope tree
    std::optional<base::ProcessId> helper;                    ///< who asked for the owner, and is let through
    Mode mode = Mode::exclusive;
    std::optional<arbiter::Time> until;
  };
  virtual ~Enforcer() = default;
  /// Which guard there is: 0 when none, another number each time that it was installed anew. Costs a look at a name.
  [[nodiscard]] virtual std::uint64_t installed() = 0;
  /// What is missing, with the remedy; said when none is there.
  [[nodiscard]] virtual std::string lack() = 0;
  /// \returns as Guard::enforce()
  [[nodiscard]] virtual Result<guard::Enforced> enforce(const Wish& wish) = 0;
  /// \returns as Guard::hand_over()
  [[nodiscard]] virtual Result<guard::Enforced> hand_over(const guard::Enforced& from, const Wish& wish) = 0;
  [[nodiscard]] virtual Result<> renew(guard::Enforced& claim, std::optional<arbiter::Time> until) = 0;
  virtual void release(const guard::Enforced& claim) = 0;
  /// How often somebody was refused the device since it is guarded.
  [[nodiscard]] virtual std::uint64_t denials(const device::DeviceId& device) = 0;
};

}  // namespace holdfast::broker
