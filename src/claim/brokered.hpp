// SPDX-License-Identifier: MIT
// brokered.hpp - the second way to a claim: the broker keeps the queue and takes the marks, this process gets copies of
// the descriptors. Whatever the broker cannot do, and whenever it is not there, the first way (take()) is gone.
//
// Both sides hold the same open descriptions, so neither's death admits anybody; the broker gives back by name
// (LOCK_UN, F_UNLCK, TIOCNXCL, unlink), which ends a lock whoever has copies. Only O_EXCL ends by closing alone: this
// side closes its copies before it says that it releases.
#pragma once

#include "claim/holding.hpp"
#include "claim/link.hpp"

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace holdfast::claiming {

/// What becomes of the claim when this process ends and its owner goes on.
enum class Afterwards : std::uint8_t {
  ends,   ///< the broker may be missing
  stays,  ///< only the broker can hold it then
};

/// For whom a claim is taken.
struct Owner {
  base::ProcessId id;
  int pidfd = -1;         ///< of another process than this one; else -1
  ConventionSet by_us{};  ///< what this process takes by itself after the grant, though a descriptor could carry it
  Afterwards afterwards = Afterwards::ends;

  [[nodiscard]] static Owner this_process() { return {base::self()}; }
};

/// What the broker knows of a claim, and the connection over which it is spoken of. The holding is handed in: what is
/// held locally belongs to whoever holds the ticket.
class Ticket {
 public:
  Ticket(Link link, wire::ClaimId claim, const Options& options, Owner owner);

  [[nodiscard]] int fd() const { return link_.fd(); }
  /// Whether the broker is not there, but may come back.
  [[nodiscard]] bool is_cut_off() const { return !link_ && !forgotten_ && !ended_; }
  /// Whether the claim is over, as far as was taken in.
  [[nodiscard]] const std::optional<Error>& ended() const { return ended_; }
  /// Takes in what the broker has said. \returns revoked or lapsed once the claim is over: Holding::drop_exclusive() is
  /// then due, which the broker cannot do for us
  [[nodiscard]] Result<> heed(Holding& holding);
  /// What was taken in since the last call.
  [[nodiscard]] std::vector<Notice> notices() { return std::exchange(notices_, {}); }
  [[nodiscard]] Result<> downgrade(Holding& holding);
  [[nodiscard]] Result<> upgrade(Holding& holding);
  [[nodiscard]] Result<std::chrono::nanoseconds> renew(Holding& holding, std::chrono::nanoseconds lease);
  [[nodiscard]] std::optional<std::chrono::nanoseconds> time_left() const;
  void set_lapse(std::optional<wire::Duration> lapses_in);
  /// As the broker has said, which marks alone do not show.
  [[nodiscard]] Enforcement enforcement() const { return enforcement_; }
  void set_enforcement(Enforcement enforcement) { enforcement_ = enforcement; }
  /// Gives back through the broker, and by ourselves when there is none any more.
  void release(Holding& holding) noexcept;
  void share_with_children() noexcept { link_.share_with_children(); }
  /// Other processes may have copies of the descriptors from now on.
  void has_copies_elsewhere() noexcept { has_copies_elsewhere_ = true; }

 private:
  using Clock = std::chrono::steady_clock;
  [[nodiscard]] std::expected<Packet, Silence> ask(Holding& holding, const wire::FromClient& message);
  [[nodiscard]] bool resume(Holding& holding);
  [[nodiscard]] Result<> change(Holding& holding, Mode mode, const wire::FromClient& message);
  void tell_release(Holding& holding) noexcept;
  void take_in(const Packet& packet, const Holding& holding);
  void end(const Holding& holding, errc why, const Notice& notice);

  Link link_;
  wire::Epoch epoch_;
  wire::ClaimId claim_;
  Options options_;
  Owner owner_;
  std::vector<Notice> notices_;
  std::optional<Clock::time_point> lapse_;
  std::optional<Error> ended_;
  Enforcement enforcement_ = Enforcement::advisory;
  bool has_copies_elsewhere_ = false;
  bool forgotten_ = false;  // by the broker: the claim goes on without it
};

struct Claimed {
  Holding holding;
  std::unique_ptr<Ticket> ticket;  ///< nullptr: the broker knows nothing of it

  [[nodiscard]] Enforcement enforcement() const {
    const Enforcement marks = holding.enforcement();
    return ticket ? std::max(marks, ticket->enforcement()) : marks;
  }
};
/// Whether a claim covers an sg node: its description carries O_EXCL together with all other locks, and keeps
/// everybody else from opening it, so that what the broker had of it could not be handed over to a command.
[[nodiscard]] bool covers_sg(std::span<const device::Device> devices, Cover cover);

/// As take(), through the broker where it is there.
[[nodiscard]] Result<Claimed> claim_either_way(std::span<const std::string> devices, const Options& options,
                                               const Owner& owner);

/// Release and renewal of a claim by another process than the one that took it: of what `owner` has of all `devices`.
/// \returns not_held when it has none there; system_fault when no broker answers
[[nodiscard]] Result<> release_for(const Owner& owner, std::span<const std::string> devices);
[[nodiscard]] Result<std::chrono::nanoseconds> renew_for(const Owner& owner, std::span<const std::string> devices,
                                                         std::chrono::nanoseconds lease);

}  // namespace holdfast::claiming
