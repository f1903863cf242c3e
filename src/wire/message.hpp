// SPDX-License-Identifier: MIT
// message.hpp - what a client and the broker say to each other, as values.
//
// One message is one packet of a SOCK_SEQPACKET socket. Each side numbers its messages; an answer carries the number of
// what it answers, a notice carries 0. Instants are durations from the moment of sending where a monotonic clock is
// meant, because a container may have another one (time_namespaces(7)).
#pragma once

#include <holdfast/error.hpp>
#include <holdfast/options.hpp>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace holdfast::wire {

using Duration = std::chrono::nanoseconds;
using WallTime = std::chrono::sys_time<std::chrono::nanoseconds>;

/// The broker's number for a claim; its number for the broker's life, by which a client sees that it was started anew.
enum class ClaimId : std::uint64_t {};
enum class Epoch : std::uint64_t {};
enum class Token : std::uint64_t {};
/// A place in the queue, to come back to after the broker was started anew.
enum class Place : std::uint64_t {};

enum class MarkState : std::uint8_t { taken, not_available };

enum class NodeKind : std::uint8_t { character, block };
/// A device as the sender sees it. The number says which; the path is for messages alone.
struct DeviceName {
  std::string path;
  NodeKind kind = NodeKind::character;
  std::uint32_t major = 0;
  std::uint32_t minor = 0;
  std::uint64_t devpts = 0;  ///< of a pseudo-terminal: st_dev of its file system, which tells instances apart
};

/// Whether the process that speaks shall own the claim, or the one whose pidfd rides with the message.
enum class OwnerGiven : std::uint8_t { speaker, by_pidfd };

/// Whether the request waits, and how long; nothing: for ever.
struct Patience {
  bool waits = false;
  std::optional<Duration> at_most;
};

using holdfast::Priority;
/// Whether Queued is sent again whenever the place in the queue changes.
enum class Progress : std::uint8_t { silent, told };

// --- From the client -------------------------------------------------------------------------------------------------

/// The first message. Understood by every version: what comes after these fields is skipped.
struct Hello {
  std::uint16_t oldest = 1;
  std::uint16_t newest = 1;
  std::string program;
};
struct Claim {
  std::vector<DeviceName> devices;
  Mode mode = Mode::exclusive;
  OwnerScope owner_scope = OwnerScope::process;
  Cover cover = Cover::function;
  Opening opening = Opening::allowed;
  ConventionSet conventions = ConventionSet::all();
  Patience patience;
  Progress progress = Progress::silent;
  Priority priority = Priority::normal;
  std::optional<Duration> lease;
  std::optional<Place> place;
  OwnerGiven owner = OwnerGiven::speaker;
  std::string purpose;
  Guarding guarding = Guarding::automatic;
};
/// Takes back a Claim or an Upgrade that waits, by the number of its message.
struct Cancel {
  std::uint32_t asked = 0;
};
/// Whether the speaker has descriptors of the claim still. Who says `closed` has none, or closes them before it looks
/// for the answer: then the locks may go on to the next holder as they are.
enum class Copies : std::uint8_t { kept, closed };
struct Release {
  ClaimId claim{};
  Copies copies = Copies::kept;
};
struct Downgrade {
  ClaimId claim{};
};
struct Upgrade {
  ClaimId claim{};
  Patience patience;
};
struct Renew {
  ClaimId claim{};
  Duration lease{};
};
/// A node whose open description rides along, or that is not open.
enum class NodeOpen : std::uint8_t { closed, read_only, writable };
struct ClaimedNode {
  DeviceName device;
  NodeOpen open = NodeOpen::closed;
};
/// One convention on one node of a claim, taken or not available.
struct ClaimedMark {
  std::uint16_t node = 0;  ///< index into the nodes
  Convention convention = Convention::proxy;
  MarkState state = MarkState::taken;
  std::string detail;              ///< the reason when not available
  std::vector<std::string> files;  ///< its lock files
  std::uint8_t descriptors = 0;    ///< how many that ride along are its own
};
/// A claim's marks, as one process hands them to another. The descriptors of SCM_RIGHTS are those of the open nodes, in
/// their order, then those of the marks.
struct Marks {
  std::vector<ClaimedNode> nodes;
  std::vector<ClaimedMark> marks;
};

/// A claim from before the broker was started anew, with its descriptors as in Granted.
struct Resume {
  ClaimId claim{};
  Epoch epoch{};
  Marks marks;
};

enum class EventKind : std::uint8_t {
  claimed,
  waiting,
  released,
  lapsed,
  revoked,
  denied,
  added,
  removed,
  refused,
  upgraded,
  downgraded,
  missed,  ///< some could not be delivered; sent whatever was asked for
};
inline constexpr int kEventKinds = 12;

/// Events from now on; of all devices when none is named.
struct Watch {
  std::vector<DeviceName> devices;
  std::uint32_t kinds = (1U << kEventKinds) - 1;  ///< one bit for each EventKind
};
struct StatusQuery {
  std::vector<DeviceName> devices;  ///< all when empty
};
struct Kick {
  DeviceName device;
  Duration grace{};
  std::string reason;
};
struct HistoryQuery {
  std::vector<DeviceName> devices;  ///< all when empty
  std::optional<WallTime> since;
  std::uint32_t most = 100;
};

/// Which claim the speaker, or the process whose pidfd rides along, has of all these devices: to release or renew it
/// from another process of the same user. Answered by Found, or Refused not_held.
struct Find {
  std::vector<DeviceName> devices;
  OwnerGiven owner = OwnerGiven::speaker;
};

// --- From the broker -------------------------------------------------------------------------------------------------

/// Understood by every version, as Hello. A version of 0: none that both know; the broker closes after it.
struct Welcome {
  std::uint16_t version = 0;
  Epoch epoch{};
};
struct GrantedDevice {
  DeviceName device;
  Token token{};
};
/// The answer to Claim, and, with all marks anew, to Downgrade, Upgrade and Resume.
struct Granted {
  ClaimId claim{};
  Mode mode = Mode::exclusive;
  Enforcement enforcement = Enforcement::advisory;
  std::optional<Duration> lapses_in;
  std::vector<GrantedDevice> devices;
  Marks marks;
};
/// The first answer to a Claim that waits.
struct Queued {
  Place place{};
  std::uint32_t ahead = 0;
  std::optional<Duration> estimate;
};
struct Refused {
  errc code = errc::refused;
  std::int32_t errnum = 0;
  std::string message;
  std::string device;
  std::optional<Holder> holder;
};
/// The answer to Cancel, Release, Watch and Kick.
struct Done {};
struct Renewed {
  ClaimId claim{};
  Duration lapses_in{};
};
/// The answer to a Claim of what the broker cannot see or may not touch: the client takes it by itself.
struct NotMine {
  std::string reason;
};

/// The answer to Find.
struct Found {
  ClaimId claim{};
  std::optional<Duration> lapses_in;
};

enum class Ending : std::uint8_t { asked_to_leave, lapses_soon, lapsed, revoked, device_gone, denied };
/// A notice to a holder: the claim ends in `grace`, or is over when that is 0. But for `denied`, which ends nothing:
/// the guard has kept `by` out, as `reason` says.
struct RevokeNotice {
  ClaimId claim{};
  Ending why = Ending::revoked;
  Duration grace{};
  std::string by;
  std::string reason;
};
struct Event {
  EventKind kind = EventKind::claimed;
  WallTime at{};
  DeviceName device;
  Mode mode = Mode::exclusive;
  Holder who;
  Duration waited{};
  Duration held{};
  std::string detail;
};
struct Waiter {
  Holder who;  ///< since it waits
  Mode mode = Mode::exclusive;
  Priority priority = Priority::normal;
};
struct DeviceStatus {
  DeviceName device;
  Mode mode = Mode::exclusive;
  Token token{};
  Enforcement enforcement = Enforcement::advisory;
  std::optional<Duration> lapses_in;
  std::vector<Holder> holders;
  std::vector<Waiter> waiters;  ///< the first of them
  std::uint32_t waiting = 0;    ///< all of them
  std::uint64_t denials = 0;    ///< what the guard has refused since somebody held it
};
/// Whether more messages of one answer follow.
enum class More : std::uint8_t { last, follows };
struct StatusAnswer {
  std::vector<DeviceStatus> devices;
  More more = More::last;
};
struct HistoryAnswer {
  std::vector<Event> events;
  More more = More::last;
};

/// The order is part of the protocol: new ones are added at the end of their side.
using FromClient = std::variant<Hello, Claim, Cancel, Release, Downgrade, Upgrade, Renew, Resume, Watch, StatusQuery,
                                Kick, HistoryQuery, Find>;
using FromBroker = std::variant<Welcome, Granted, Queued, Refused, Done, Renewed, RevokeNotice, Event, StatusAnswer,
                                HistoryAnswer, NotMine, Found>;

}  // namespace holdfast::wire
