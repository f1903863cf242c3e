// SPDX-License-Identifier: MIT
// ticket.hpp - one asking, from the moment it is heard until the claim that it became is over.
#pragma once

#include "arbiter/values.hpp"
#include "broker/interfaces.hpp"
#include "broker/peer.hpp"
#include "claim/holding.hpp"
#include "wire/message.hpp"

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace holdfast::broker {

/// An answer that is sent when the last who has to do with it is through: Done, to the one who released or kicked.
class DoneLater {
 public:
  DoneLater() = default;
  DoneLater(Post& post, ConnectionId to, std::uint32_t number)
      : shared_{std::make_shared<Answer>(Answer{post, to, number})} {}
  void reset() { shared_.reset(); }

 private:
  struct Answer {
    Answer(Post& the_post, ConnectionId whom, std::uint32_t what) : post{&the_post}, to{whom}, number{what} {}
    Answer(Answer&& other) noexcept : post{std::exchange(other.post, nullptr)}, to{other.to}, number{other.number} {}
    Answer& operator=(Answer&&) = delete;
    ~Answer() {
      if (post != nullptr) post->send(to, number, wire::Done{});
    }
    Post* post;
    ConnectionId to;
    std::uint32_t number;
  };
  std::shared_ptr<Answer> shared_;
};

/// How far it has come. From `elected` on the arbiter takes it for a claim.
enum class Stage : std::uint8_t {
  queued,    ///< others stand before it
  elected,   ///< its turn: the marks are to be taken
  hooks,     ///< the administrator's programs are asked
  taking,    ///< the hands are at it
  blocked,   ///< a stranger is in the way
  held,      ///< granted
  changing,  ///< the hands change the marks' mode
  leaving,   ///< over, but its marks are still to be given back
};

struct Node {
  arbiter::DeviceKey key{};
  device::DeviceId id;
  std::string path;
  bool named = false;
  bool locked_only = false;  ///< a partition's disk: the claim takes a lock of it, not the device
};

/// A wish to change the mode of what is held.
struct ModeChange {
  ConnectionId connection{};
  std::uint32_t number = 0;
  Mode to = Mode::shared;
  arbiter::RequestId request{};                            ///< of an upgrade
  arbiter::Patience patience = arbiter::Patience::none();  ///< of an upgrade
  bool elected = false;                                    ///< the arbiter has agreed
};

struct Kicking {
  std::string by;
  std::string reason;
  std::vector<DoneLater> waiting;
};

/// Why a claim is over, as its holder and the others are told.
struct Over {
  arbiter::End why = arbiter::End::released;
  arbiter::Revocation revocation = arbiter::Revocation::none;
};

struct Ticket {
  wire::ClaimId id{};
  std::uint64_t arbiter_id = 0;  ///< of the request, and of the claim
  Stage stage = Stage::queued;

  ConnectionId connection{};  ///< that asked; none when it is gone
  std::uint32_t number = 0;
  arbiter::OwnerId asker{};
  arbiter::OwnerId owner{};
  wire::OwnerGiven given = wire::OwnerGiven::speaker;

  std::shared_ptr<const Taking> taking;  ///< shared with the hands
  std::vector<Node> nodes;               ///< what the arbiter was asked for
  Mode mode = Mode::exclusive;
  wire::Priority priority = wire::Priority::normal;
  wire::Progress progress = wire::Progress::silent;
  arbiter::Patience patience = arbiter::Patience::none();
  std::optional<arbiter::Duration> lease;
  arbiter::Time asked;
  wire::WallTime asked_at{};

  std::optional<std::uint32_t> told_ahead;  ///< what the last Queued said
  wire::Place place{};
  std::string lock_file;  ///< what it will say, should another's be passed on to it
  bool hooks_ran = false;
  std::optional<Error> in_the_way;  ///< the stranger
  DoneLater before;                 ///< who must not hear of his release before we had our try

  claiming::Holding holding;
  Guarding guarding = Guarding::automatic;
  std::optional<guard::Enforced> enforced;
  std::uint64_t enforced_by = 0;       ///< which guard knows of it (Enforcer::installed())
  std::vector<arbiter::Token> tokens;  ///< of `nodes`
  std::optional<arbiter::Time> until;
  arbiter::Time granted;
  wire::WallTime since{};
  std::optional<ModeChange> change;
  std::optional<Kicking> kicking;
  bool was_held = false;
  bool to_be_resumed = false;           ///< from before a restart, and its marks are the client's alone
  std::optional<arbiter::End> because;  ///< why we end it
  Over over;

  [[nodiscard]] bool hands_are_at_it() const { return stage == Stage::taking || stage == Stage::changing; }
  [[nodiscard]] bool is_held() const { return stage == Stage::held || stage == Stage::changing; }
  [[nodiscard]] bool is_elected() const {
    return stage == Stage::elected || stage == Stage::hooks || stage == Stage::taking || stage == Stage::blocked;
  }
  /// Whether it ends with the owner, and whether with the connection.
  [[nodiscard]] bool ends_with_owner() const {
    return given == wire::OwnerGiven::by_pidfd || taking->options.owner_scope == OwnerScope::process;
  }
  [[nodiscard]] bool ends_with_connection() const { return given == wire::OwnerGiven::speaker; }
};

}  // namespace holdfast::broker
