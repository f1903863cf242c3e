// SPDX-License-Identifier: MIT
// desk.hpp - where clients' wishes become decisions and decisions become answers.
//
// The arbiter decides who is next; but a claim is not granted before its marks are taken, and of those the arbiter
// knows nothing: a stranger may have the device, a hook may object, opening a drive may take seconds. So whoever the
// arbiter lets in is *elected* first. It keeps its place, and the others wait behind it, until its marks are taken, it
// gives up, or its time is over. Nothing here waits, and nothing here is a system call: the world is handed in.
//
// Two rules keep answers in order. What is given back is given back before what comes next is taken: keys of claims
// that are leaving hold the elected up. And Done goes to a releaser when all whom the release let in had their try.
#pragma once

#include "arbiter/arbiter.hpp"
#include "broker/agenda.hpp"
#include "broker/interfaces.hpp"
#include "broker/limits.hpp"
#include "broker/place_seal.hpp"
#include "broker/ticket.hpp"
#include "wire/codec.hpp"

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

namespace holdfast::broker {

/// All that the desk needs. It outlives the desk.
struct World {
  Clock& clock;
  Post& post;
  Devices& devices;
  Gate& gate;
  Memory& memory;
  Events& events;
  Hooks& hooks;
  Strangers& strangers;
  Deaths& deaths;
  Hands& hands;
  Enforcer& enforcer;
};

struct Rulebook {
  arbiter::Rules arbiter;
  Limits limits;
  std::optional<gid_t> administrators;  ///< may kick anybody
  wire::Epoch epoch{};
  wire::ClaimId first_claim{1};       ///< numbers are used once, over all restarts
  std::vector<arbiter::Held> tokens;  ///< the latest of each device
  std::uint64_t token_base = 0;       ///< what clients are told is so much above the arbiter's
  /// So long after the start a place from before it is honoured: later it would be a way past those who wait.
  arbiter::Duration places_count_for = std::chrono::seconds{10};
  PlaceSeal places{};
};

/// How a connection ended: whether the last that was sent was read.
enum class Farewell : std::uint8_t { read, unread };

/// What came beside a message.
struct Enclosed {
  std::optional<Process> owner;              ///< of a Claim or a Find that gives it by a pidfd
  std::vector<base::ProcessFd> descriptors;  ///< of a Resume
};

/// \thread  the loop's alone
class Desk {
 public:
  Desk(const World& world, const Rulebook& rules);
  Desk(const Desk&) = delete;
  Desk& operator=(const Desk&) = delete;
  /// Claims stay with the clients, who have copies of what carries their locks.
  ~Desk();

  /// A claim that an earlier broker granted; before anybody is heard. Of one that is to be resumed most marks are the
  /// client's until that comes with Resume. False when it cannot be any more: its device is gone, or another one's.
  enum class Marks : std::uint8_t { complete, to_be_resumed };
  bool adopt(const ClaimRecord& claim, Process owner, claiming::Holding holding, Marks marks);
  [[nodiscard]] bool is_to_be_resumed(wire::ClaimId claim) const;
  /// Whether the marks are wanted that the connection could bring.
  [[nodiscard]] bool awaits_resume(ConnectionId connection, wire::ClaimId claim);
  /// Its owner has it no longer, and told nobody. `files`: whose its lock files are by now.
  enum class LockFiles : std::uint8_t { the_claims, the_owners };
  void is_over(wire::ClaimId claim, LockFiles files);

  /// A connection that has said Hello to us and is one of ours.
  void opened(ConnectionId connection, Process who);
  /// Any message but Hello, Watch and HistoryQuery.
  void heard(ConnectionId connection, wire::Numbered<wire::FromClient>& message, Enclosed enclosed);
  /// All that was sent to it was read.
  void drained(ConnectionId connection);
  void closed(ConnectionId connection, Farewell farewell);

  void owner_died(arbiter::OwnerId id);
  void taken(wire::ClaimId claim, Hands::Taken result);
  void changed(wire::ClaimId claim, Hands::Changed result);
  void given_back(wire::ClaimId claim);
  void adopted(wire::ClaimId claim, Result<claiming::Holding> result);
  void hooks_ran(wire::ClaimId claim, Result<> answer);
  void try_again(wire::ClaimId claim);
  void denied(const Denial& denial);
  /// The device was unplugged.
  void device_gone(const device::DeviceId& device);

  /// When advance() has something to do.
  [[nodiscard]] std::optional<arbiter::Time> next_deadline() const;
  void advance();

  /// Whether claims are over whose marks are not given back yet.
  [[nodiscard]] bool gives_back() const { return !leaving_.empty(); }
  [[nodiscard]] std::size_t claim_count() const { return tickets_.size(); }

 private:
  struct Owner {
    arbiter::OwnerId id{};
    std::shared_ptr<const Peer> who;
    std::unordered_set<wire::ClaimId> tickets;  // that it owns
    std::unordered_set<ConnectionId> connections;
    bool dead = false;
  };
  struct Paging {
    std::uint32_t number = 0;
    std::vector<arbiter::DeviceKey> left;  // from the back
  };
  struct Connection {
    arbiter::OwnerId speaker{};
    std::shared_ptr<const Peer> who;
    std::unordered_set<wire::ClaimId> tickets;  // that it asked for
    std::optional<Paging> paging;
    std::optional<wire::ClaimId> last_told;  // the claim that was granted by the last message
  };
  /// What is known of a device that somebody asked for.
  struct Book {
    wire::DeviceName name;
    std::size_t tickets = 0;
    std::size_t told = 0;  // of those who wait, how many are told of their progress
    bool moved = false;    // its queue, since they were told
    std::optional<arbiter::Duration> usual_hold;
    std::optional<arbiter::Time> denial_told;  // to its holders
    std::uint64_t denials_untold = 0;
  };
  struct ProcessOrder {
    bool operator()(const base::ProcessId& a, const base::ProcessId& b) const {
      return a.pid != b.pid ? a.pid < b.pid : a.start_ticks < b.start_ticks;
    }
  };

  // Messages (desk.cpp).
  void say(ConnectionId connection, std::uint32_t number, const wire::Claim& wanted, std::optional<Process> owner);
  void say(ConnectionId connection, std::uint32_t number, const wire::Cancel& wanted);
  void say(ConnectionId connection, std::uint32_t number, const wire::Release& wanted);
  void say(ConnectionId connection, std::uint32_t number, const wire::Downgrade& wanted);
  void say(ConnectionId connection, std::uint32_t number, const wire::Upgrade& wanted);
  void say(ConnectionId connection, std::uint32_t number, const wire::Renew& wanted);
  void say(ConnectionId connection, std::uint32_t number, const wire::Resume& wanted,
           std::vector<base::ProcessFd> descriptors);
  void say(ConnectionId connection, std::uint32_t number, const wire::Find& wanted,
           const std::optional<Process>& owner);
  void say(ConnectionId connection, std::uint32_t number, const wire::StatusQuery& wanted);
  void say(ConnectionId connection, std::uint32_t number, const wire::Kick& wanted);
  bool send(ConnectionId connection, std::uint32_t number, const wire::FromBroker& message,
            std::span<const int> descriptors = {});
  void refuse(ConnectionId connection, std::uint32_t number, const Error& error);
  [[nodiscard]] Result<std::vector<std::shared_ptr<const device::Device>>> find_devices(
      const std::vector<wire::DeviceName>& names);
  [[nodiscard]] Result<> check_owner(const Connection& speaker, wire::OwnerGiven given,
                                     const std::optional<Process>& owner) const;
  void lay_out(Ticket& ticket);
  void add_to_books(Ticket& ticket);
  /// Of a claim that is held, and that the connection may change.
  [[nodiscard]] Ticket* held_by(ConnectionId connection, wire::ClaimId claim);
  [[nodiscard]] Ticket* changeable_by(ConnectionId connection, wire::ClaimId claim);

  // The course of a ticket (desk_course.cpp).
  void apply(const DoneLater& done);
  void decided(const arbiter::Granted& granted, const DoneLater& done);
  void decided(const arbiter::Queued& queued, const DoneLater& done);
  void decided(const arbiter::Refused& refused, const DoneLater& done);
  void decided(const arbiter::Withdrawn& withdrawn, const DoneLater& done);
  void decided(const arbiter::Upgraded& upgraded, const DoneLater& done);
  void decided(const arbiter::Downgraded& downgraded, const DoneLater& done);
  void decided(const arbiter::Renewed& renewed, const DoneLater& done);
  void decided(const arbiter::Ended& ended, const DoneLater& done);
  void run();
  void go_on(Ticket& ticket);
  void take(Ticket& ticket);
  void took(Ticket& ticket, Hands::Taken result);
  void hold(Ticket& ticket, claiming::Holding holding);
  void begin_to_hold(Ticket& ticket);
  void grant(Ticket& ticket);
  void tell_claimed(const Ticket& ticket);
  void block(Ticket& ticket, const claiming::Obstruction& obstruction);
  void give_up(Ticket& ticket, const Error& error);
  void leave(Ticket& ticket);
  void left(Ticket& ticket);
  void withdraw(Ticket& ticket);
  void end(Ticket& ticket, arbiter::End why);
  void change(Ticket& ticket);
  void have_changed(Ticket& ticket, Hands::Changed result);
  void refuse_change(Ticket& ticket, const Error& error);
  void answer_granted(Ticket& ticket, ConnectionId connection, std::uint32_t number);
  void start_lease(Ticket& ticket);
  void warn_before(const Ticket& ticket);
  void tell_end(const Ticket& ticket);
  void queue_moved(const Ticket& ticket);
  void forget(Ticket& ticket);
  [[nodiscard]] bool held_up(const Ticket& ticket) const;
  void due(const Agenda::Entry& entry);

  // What the kernel is told (desk_guard.cpp).
  [[nodiscard]] Result<> may_be_guarded(const wire::Claim& wanted);
  [[nodiscard]] Result<> enforce(Ticket& ticket);
  [[nodiscard]] Result<> tell_guard(Ticket& ticket, Ticket* from = nullptr);
  void enforce_until(Ticket& ticket);
  void cut(Ticket& ticket);
  void look_at_guard();
  [[nodiscard]] bool is_guarded(const Ticket& ticket) const;
  [[nodiscard]] Enforcement level_of(const Ticket& ticket) const;

  // From one holder to the next (desk_pass_on.cpp).
  [[nodiscard]] Ticket* heir_of(const Ticket& from);
  [[nodiscard]] bool marks_can_go_on(const Ticket& from, const Ticket& to) const;
  void hand_over(Ticket& from, Ticket& to, wire::Copies copies);
  void pass_on(Ticket& from, Ticket& to);

  // Who and what (desk_people.cpp).
  arbiter::OwnerId owner_for(Process who);
  void forget_if_unused(arbiter::OwnerId id);
  [[nodiscard]] Ticket* find(wire::ClaimId claim);
  [[nodiscard]] Ticket* find_arbiter(std::uint64_t id);
  [[nodiscard]] ConnectionId listener_of(const Ticket& ticket) const;
  void notify(const Ticket& ticket, wire::Ending why, arbiter::Duration grace, const std::string& by,
              const std::string& reason);

  // What is told (desk_told.cpp).
  [[nodiscard]] Holder holder_of(const Ticket& ticket) const;
  [[nodiscard]] Error refusal_by(arbiter::DeviceKey device, const Ticket* other, arbiter::Stands how) const;
  [[nodiscard]] const Ticket* ticket_of(arbiter::OwnerId id, arbiter::DeviceKey device, arbiter::Stands how) const;
  [[nodiscard]] Error busy(const arbiter::Refused& refused) const;
  [[nodiscard]] Error held_up_by_others(const Ticket& ticket, errc code) const;
  [[nodiscard]] Error circle(const arbiter::Refused& refused) const;
  [[nodiscard]] ClaimRecord record_of(const Ticket& ticket) const;
  void tell_queued(Ticket& ticket, std::size_t ahead);
  void tell_progress();
  void tell(wire::EventKind kind, const Ticket& ticket, const std::string& detail = {});
  void send_pages(ConnectionId connection);
  [[nodiscard]] std::optional<wire::DeviceStatus> status_of(arbiter::DeviceKey key) const;
  [[nodiscard]] wire::Token told(arbiter::Token token) const;
  [[nodiscard]] std::string name_of(arbiter::OwnerId owner) const;
  [[nodiscard]] const std::string& path_of(arbiter::DeviceKey key) const;
  [[nodiscard]] std::optional<arbiter::Duration> estimate(const Ticket& ticket, std::size_t ahead) const;

  World world_;
  Rulebook rules_;
  arbiter::Arbiter arbiter_;
  arbiter::Decisions decisions_;
  struct Passing {
    wire::ClaimId from{};
    wire::ClaimId to{};
  };
  std::optional<Passing> passing_;  // while a batch is noted
  Agenda agenda_;
  Count claims_;
  Count waiters_;
  arbiter::Time started_;
  std::unordered_set<wire::Place> places_used_;  // each once
  std::uint64_t next_claim_;
  std::uint64_t next_owner_ = 1;
  std::unordered_map<wire::ClaimId, std::unique_ptr<Ticket>> tickets_;
  std::unordered_map<std::uint64_t, Ticket*> by_arbiter_;  // requests, claims and upgrades
  std::unordered_map<ConnectionId, Connection> connections_;
  std::unordered_map<arbiter::OwnerId, Owner> owners_;
  std::map<base::ProcessId, arbiter::OwnerId, ProcessOrder> processes_;
  std::map<arbiter::DeviceKey, Book> books_;
  std::unordered_map<arbiter::DeviceKey, std::size_t> leaving_;
  std::deque<wire::ClaimId> to_go_on_;
  std::vector<wire::ClaimId> held_up_;
  std::deque<std::function<void()>> to_ask_;  // the arbiter, when what it decided before is noted
  std::optional<arbiter::Time> progress_at_;
  std::uint64_t guard_ = 0;  // the guard that knows of our claims
};

/// The arbiter's number for a device.
[[nodiscard]] arbiter::DeviceKey key_of(const device::DeviceId& id);
[[nodiscard]] arbiter::DeviceKey key_of(const wire::DeviceName& name);
[[nodiscard]] device::DeviceId id_of(const wire::DeviceName& name);

}  // namespace holdfast::broker
