// SPDX-License-Identifier: MIT
// brokered.cpp - see the header.
#include "claim/brokered.hpp"

#include "base/error.hpp"
#include "claim/parcel.hpp"
#include "claim/waiter.hpp"

#include <fmt/format.h>
#include <poll.h>
#include <sys/prctl.h>
#include <time.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace holdfast::claiming {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

// What cannot be shared through a descriptor.
constexpr ConventionSet kNeverTheBrokers{Convention::driver};
// A drive that takes its time to open keeps the answer to a request that does not wait.
constexpr auto kFirstAnswer = 30s;
// The broker watches the deadline; it is late by no more than it takes to say so.
constexpr auto kAfterDeadline = 2s;
constexpr auto kCancelPatience = 1s;
constexpr auto kReconnectPause = 20ms;
// For a broker that is busy; longer than that nobody would wait for a destructor.
constexpr auto kReleasePatience = 1s;

// Numbers of the public words go over the wire as they are.
static_assert(static_cast<int>(wire::Ending::denied) == static_cast<int>(Notice::Kind::denied));

Error error_of(wire::Refused&& refused) {
  Error error;
  error.code = refused.code;
  error.message = base::printable(refused.message, wire::kMostText);
  error.device = base::printable(refused.device, wire::kMostPath);
  error.holder = std::move(refused.holder);
  error.errnum = refused.errnum;
  return error;
}

Error no_broker(std::string_view what, std::string_view why) {
  return base::failure(errc::system_fault, fmt::format("{} needs the broker: {}", what, why), {});
}

// What of the claim cannot be had without it.
std::optional<std::string_view> needs_the_broker(const Options& options, const Owner& owner) {
  if (options.lease) return "a time limit";
  if (options.guarding == Guarding::required) return "the guard";
  if (owner.afterwards == Afterwards::stays) return "a claim for another process";
  return std::nullopt;
}

std::vector<wire::DeviceName> names_of(std::span<const device::Device> devices) {
  std::vector<wire::DeviceName> names;
  for (const device::Device& device : devices) names.push_back(name_of(device.node));
  return names;
}

std::span<const int> riding_along(const Owner& owner) {
  return owner.pidfd < 0 ? std::span<const int>{} : std::span{&owner.pidfd, 1};
}

wire::OwnerGiven given(const Owner& owner) {
  return owner.pidfd < 0 ? wire::OwnerGiven::speaker : wire::OwnerGiven::by_pidfd;
}

// Whether a `holdfast run` above us keeps one of the devices for us. Its filter then answers the lock on the proxy,
// also while nobody has it; that is asked only where there is a filter.
bool covered_by_run_above(std::span<const device::Device> devices, const Options& options, const Owner& owner) {
  if (::prctl(PR_GET_SECCOMP) <= 0 || !options.conventions.contains(Convention::proxy)) return false;
  Options probe = options;
  probe.conventions = ConventionSet{Convention::proxy};
  probe.wait = Wait::none();
  return std::ranges::any_of(devices, [&](const device::Device& device) {
    const auto tried = attempt(std::span{&device, 1}, probe, owner.id);
    return tried && tried->covered_by_run();
  });
}

// One claim from asking to the answer, over as many connections as it takes.
class Asking {
 public:
  Asking(Link link, std::string socket, std::vector<device::Device> devices, const Options& options, const Owner& owner)
      : link_{std::move(link)},
        socket_{std::move(socket)},
        devices_{std::move(devices)},
        options_{options},
        owner_{owner},
        signals_{options.wait.waits() ? options.on_signal : OnSignal::keep_waiting} {}

  struct No {
    enum class Kind : std::uint8_t {
      final,      ///< the answer to whoever asked for the claim
      try_alone,  ///< the broker cannot help: its error says why
    };
    Kind kind = Kind::final;
    Error error;
  };
  using Answer = std::expected<Claimed, No>;

  Answer ask() {
    Answer answer = ask_until_answered();
    // From here on nobody holds signals back for us, and one that came meanwhile would be forgotten.
    const bool goes_on_waiting = !answer && answer.error().kind == No::Kind::try_alone && options_.wait.waits();
    if (goes_on_waiting && sleep(0ns) == Silence::signal) return interrupted();
    return answer;
  }

 private:
  Answer ask_until_answered() {
    while (true) {
      auto answer = ask_once();
      if (answer) return std::move(*answer);
      if (answer.error() == Silence::signal) return interrupted();
      if (answer.error() == Silence::deadline) return overdue();
      if (answer.error() == Silence::forlorn) return forlorn();
      if (auto again = reconnect(); !again) return again.error() == Silence::signal ? interrupted() : alone("is gone");
    }
  }

  static Answer alone(std::string_view why) {
    return std::unexpected{No{No::Kind::try_alone, base::failure(errc::system_fault, std::string{why}, {})}};
  }
  static Answer refused(Error error) { return std::unexpected{No{No::Kind::final, std::move(error)}}; }

  [[nodiscard]] wire::Claim words() const {
    wire::Claim claim;
    claim.devices = names_of(devices_);
    claim.mode = options_.mode;
    claim.owner_scope = options_.owner_scope;
    claim.cover = options_.cover;
    claim.opening = options_.opening;
    claim.conventions = brokers_conventions();
    claim.patience.waits = options_.wait.waits();
    if (options_.wait.waits() && options_.wait.ends())
      claim.patience.at_most = std::max<Clock::duration>(options_.wait.deadline() - Clock::now(), 0ns);
    claim.progress = options_.on_progress ? wire::Progress::told : wire::Progress::silent;
    claim.priority = options_.priority;
    claim.lease = options_.lease;
    claim.place = place_;
    claim.owner = given(owner_);
    claim.purpose = base::printable(options_.purpose, wire::kMostPurpose);
    claim.guarding = options_.guarding;
    return claim;
  }

  [[nodiscard]] ConventionSet ours() const {
    ConventionSet ours = owner_.by_us;
    if (owner_.afterwards == Afterwards::stays) return ours;  // another process's, and we are about to go
    for (int i = 0; i < kConventionCount; ++i)
      if (kNeverTheBrokers.contains(static_cast<Convention>(i))) ours = ours.with(static_cast<Convention>(i));
    return ours;
  }
  [[nodiscard]] ConventionSet brokers_conventions() const {
    ConventionSet theirs = options_.conventions;
    for (int i = 0; i < kConventionCount; ++i)
      if (ours().contains(static_cast<Convention>(i))) theirs = theirs.without(static_cast<Convention>(i));
    return theirs;
  }

  [[nodiscard]] Link::Until until() const {
    Link::Until until{.on_signal = options_.on_signal, .in_sleep = signals_.in_sleep(), .life = owner_.pidfd};
    if (!options_.wait.waits()) until.on_signal = OnSignal::keep_waiting;
    if (!place_) until.deadline = asked_ + kFirstAnswer;
    if (options_.wait.waits() && options_.wait.ends())
      until.deadline = std::min(until.deadline, options_.wait.deadline() + kAfterDeadline);
    return until;
  }

  std::expected<Answer, Silence> ask_once() {
    asked_ = Clock::now();
    const auto number = link_.send(words(), riding_along(owner_));
    if (!number) return std::unexpected{number.error()};
    while (true) {
      auto packet = link_.receive(until());
      if (!packet) {
        if (packet.error() == Silence::no_room) return no_room();
        if (packet.error() != Silence::gone) cancel(*number);
        return std::unexpected{packet.error()};
      }
      if (packet->number != *number) continue;
      if (const auto* const queued = std::get_if<wire::Queued>(&packet->body)) {
        place_ = queued->place;
        if (options_.on_progress) options_.on_progress({queued->ahead, queued->estimate});
      } else {
        return take_answer(std::move(*packet));
      }
    }
  }

  Answer take_answer(Packet packet) {
    if (auto* const no = std::get_if<wire::Refused>(&packet.body)) {
      Link::keep(std::move(link_));
      // Two threads of one process may wait for each other; to the broker that is an owner who waits for himself.
      const Holder holder = no->holder.value_or(Holder{});
      const bool by_ourselves = holder.pid == owner_.id.pid && holder.start_ticks == owner_.id.start_ticks;
      if (by_ourselves && options_.wait.waits() && no->code == errc::deadlock && !options_.lease)
        return alone("this process holds it");
      return refused(error_of(std::move(*no)));
    }
    if (const auto* const not_mine = std::get_if<wire::NotMine>(&packet.body)) {
      Link::keep(std::move(link_));
      return alone("it leaves the device to others: " + base::printable(not_mine->reason));
    }
    const auto* const granted = std::get_if<wire::Granted>(&packet.body);
    return granted != nullptr ? take_over(*granted, std::move(packet.descriptors)) : alone("its answer makes no sense");
  }

  Answer take_over(const wire::Granted& granted, std::vector<base::ProcessFd> descriptors) {
    auto holding = unpack(devices_, granted.marks, std::move(descriptors), {.options = options_, .owner = owner_.id});
    if (!holding) {  // we see other nodes under these numbers than the broker does
      give_up(granted.claim);
      return alone(holding.error().message);
    }
    if (auto taken = holding->take_also(ours(), options_, owner_.id); !taken) {
      holding->close_what_only_closing_ends();
      give_up(granted.claim);
      holding->let_go();
      const bool waits = options_.wait.waits() && taken.error().code == errc::refused;
      const bool can_do_without = !needs_the_broker(options_, owner_);
      return waits && can_do_without ? alone(taken.error().message) : refused(std::move(taken.error()));
    }
    auto ticket = std::make_unique<Ticket>(std::move(link_), granted.claim, options_, owner_);
    ticket->set_lapse(granted.lapses_in);
    ticket->set_enforcement(granted.enforcement);
    return Claimed{std::move(*holding), std::move(ticket)};
  }

  void give_up(wire::ClaimId claim) {
    std::vector<Packet> aside;
    if (link_.ask(wire::Release{claim}, aside)) Link::keep(std::move(link_));
    link_.close();
  }

  // A grant may have been sent before the broker heard of it.
  void cancel(std::uint32_t asked) {
    const auto number = link_.send(wire::Cancel{asked});
    std::optional<wire::ClaimId> crossed;
    const Link::Until soon{.deadline = Clock::now() + kCancelPatience};
    while (number) {
      const auto packet = link_.receive(soon);
      if (!packet) break;
      if (const auto* const granted = std::get_if<wire::Granted>(&packet->body)) crossed = granted->claim;
      if (packet->number != *number) continue;
      if (crossed) return give_up(*crossed);
      return Link::keep(std::move(link_));
    }
    link_.close();
  }

  // Until a new broker is there, or it is time to do without. Whoever does not wait tries once: a connection that was
  // kept may be an old one.
  std::expected<void, Silence> reconnect() {
    const bool was_kept = link_.was_kept();
    link_.close();
    const auto end = !options_.wait.waits()               ? Clock::now()
                     : needs_the_broker(options_, owner_) ? Clock::time_point::max()
                                                          : Clock::now() + Link::kPatience;
    if (!options_.wait.waits() && !was_kept) return std::unexpected{Silence::gone};
    while (true) {
      if (auto link = Link::open(socket_)) {
        link_ = std::move(*link);
        return {};
      }
      if (sleep(kReconnectPause) == Silence::signal) return std::unexpected{Silence::signal};
      const bool too_late = options_.wait.waits() && options_.wait.ends() && Clock::now() >= options_.wait.deadline();
      if (Clock::now() >= end || too_late) return std::unexpected{Silence::gone};
    }
  }

  [[nodiscard]] Silence sleep(std::chrono::nanoseconds pause) const {
    const timespec time{.tv_sec = 0, .tv_nsec = pause.count()};
    const bool ends = ::ppoll(nullptr, 0, &time, signals_.in_sleep()) < 0 && options_.on_signal == OnSignal::give_up;
    return ends ? Silence::signal : Silence::deadline;
  }

  [[nodiscard]] Answer interrupted() const {
    return refused(base::failure(errc::interrupted,
                                 fmt::format("{}: the wait for it was interrupted by a signal", devices_.front().given),
                                 devices_.front().given));
  }

  [[nodiscard]] Answer forlorn() const {
    return refused(base::failure(errc::not_held,
                                 fmt::format("{}: the process that was to have it is dead", devices_.front().given),
                                 devices_.front().given));
  }

  [[nodiscard]] Answer overdue() const {
    if (!place_) return alone("does not answer");
    return refused(base::failure(errc::timed_out,
                                 fmt::format("{}: the time to wait for it is over", devices_.front().given),
                                 devices_.front().given));
  }

  // The grant came without its descriptors, so nothing of it can be held here.
  [[nodiscard]] Answer no_room() {
    const int errnum = EMFILE;
    link_.close();
    std::vector<std::string> names;
    for (const device::Device& device : devices_) names.push_back(device.given);
    if (owner_.pidfd >= 0) static_cast<void>(release_for(owner_, names));
    return refused(base::fault(errnum, "receive the descriptors of the claim", devices_.front().given));
  }

  Link link_;
  std::string socket_;
  std::vector<device::Device> devices_;
  const Options& options_;
  const Owner& owner_;
  SignalsHeldBack signals_;
  Clock::time_point asked_{};
  std::optional<wire::Place> place_;
};

Result<Claimed> without_broker(std::span<const std::string> devices, const Options& options, const Owner& owner,
                               std::string_view why) {
  if (const auto what = needs_the_broker(options, owner)) return std::unexpected(no_broker(*what, why));
  auto taken = take(devices, options, owner.id);
  if (!taken) return std::unexpected(std::move(taken.error()));
  return Claimed{std::move(*taken), nullptr};
}

std::string nobody_at(const std::string& socket) {
  if (socket.empty()) return "HOLDFAST_SOCKET says that there is none";
  return fmt::format("none answers at {}; start holdfastd", base::printable(socket));
}

}  // namespace

bool covers_sg(std::span<const device::Device> devices, Cover cover) {
  return std::ranges::any_of(devices, [&](const device::Device& device) {
    return std::ranges::any_of(device::covered_nodes(device, cover), [](const device::Covered& covered) {
      return covered.family == device::Family::scsi_generic;
    });
  });
}

Result<Claimed> claim_either_way(std::span<const std::string> devices, const Options& options, const Owner& owner) {
  if (options.way == Way::never_broker) return without_broker(devices, options, owner, "it was not to be asked");
  const bool makes_sense = !devices.empty() && !options.conventions.empty();
  const std::string socket = broker_socket();
  auto link = Link::open(socket);
  if (!link || !makes_sense) return without_broker(devices, options, owner, nobody_at(socket));
  auto identified = identify(devices);
  if (!identified) return std::unexpected(std::move(identified.error()));
  if (identified->size() > wire::kMostDevices)
    return without_broker(devices, options, owner, fmt::format("it takes {} devices at most", wire::kMostDevices));
  // Nor may the broker look at the drive (sr) without O_EXCL on sg, which would spoil what another program burns
  // (take.cpp, knock_at_drives()).
  const bool one_for_all = covers_sg(*identified, options.cover);
  if (one_for_all && owner.by_us.contains(Convention::o_excl) && options.conventions.contains(Convention::o_excl))
    return without_broker(devices, options, owner,
                          "O_EXCL on a drive's sg node is one process's; --without o_excl does without");
  if (covered_by_run_above(*identified, options, owner))
    return without_broker(devices, options, owner, "the holdfast run above keeps the device");
  auto answer = Asking{std::move(*link), socket, std::move(*identified), options, owner}.ask();
  if (answer) return std::move(*answer);
  if (answer.error().kind == Asking::No::Kind::final) return std::unexpected(std::move(answer.error().error));
  return without_broker(devices, options, owner, answer.error().error.message);
}

// --- A claim that the broker knows of --------------------------------------------------------------------------------

Ticket::Ticket(Link link, wire::ClaimId claim, const Options& options, Owner owner)
    : link_{std::move(link)}, epoch_{link_.epoch()}, claim_{claim}, options_{options}, owner_{owner} {
  owner_.pidfd = -1;  // borrowed for the asking alone
  options_.on_progress = nullptr;
}

void Ticket::set_lapse(std::optional<wire::Duration> lapses_in) {
  lapse_ = lapses_in ? std::optional{Clock::now() + *lapses_in} : std::nullopt;
}

std::optional<std::chrono::nanoseconds> Ticket::time_left() const {
  if (!lapse_) return std::nullopt;
  return std::max<std::chrono::nanoseconds>(*lapse_ - Clock::now(), 0ns);
}

void Ticket::take_in(const Packet& packet, const Holding& holding) {
  const auto* const said = std::get_if<wire::RevokeNotice>(&packet.body);
  if (said == nullptr || said->claim != claim_) return;
  Notice notice;
  notice.kind = static_cast<Notice::Kind>(said->why);
  notice.grace = said->grace;
  notice.by = base::printable(said->by);
  notice.reason = base::printable(said->reason);
  if (said->grace == 0ns && (said->why == wire::Ending::lapsed || said->why == wire::Ending::revoked))
    end(holding, said->why == wire::Ending::lapsed ? errc::lapsed : errc::revoked, notice);
  notices_.push_back(std::move(notice));
}

void Ticket::end(const Holding& holding, errc why, const Notice& notice) {
  const std::string device = holding.devices().empty() ? std::string{} : holding.devices().front().given;
  std::string text = why == errc::lapsed ? "the time of the claim is over" : "the claim was taken back";
  if (!notice.by.empty()) text += " by " + notice.by;
  if (!notice.reason.empty()) text += ": " + notice.reason;
  ended_ = base::failure(why, fmt::format("{}: {}", device, text), device);
}

Result<> Ticket::heed(Holding& holding) {
  while (!ended_ && link_) {
    auto packet = link_.receive_now();
    if (packet) {
      take_in(*packet, holding);
    } else if (packet.error() == Silence::deadline) {
      break;
    } else {
      link_.close();
    }
  }
  if (!ended_ && !link_) static_cast<void>(resume(holding));
  // Nobody is there who would say so.
  if (!ended_ && !link_ && lapse_ && Clock::now() >= *lapse_) end(holding, errc::lapsed, {});
  return ended_ ? Result<>{std::unexpected(*ended_)} : Result<>{};
}

// To a broker that was started anew: the claim as this side has it. Asked for once a call; a broker that does not want
// it leaves the claim to us.
bool Ticket::resume(Holding& holding) {
  if (forgotten_) return false;
  auto link = Link::open();
  if (!link) return false;
  Parcel parcel = pack(holding);
  std::vector<Packet> aside;
  auto answer = link->ask(wire::Resume{claim_, epoch_, std::move(parcel.marks)}, aside, parcel.descriptors);
  if (!answer) return false;
  const auto* const granted = std::get_if<wire::Granted>(&answer->body);
  if (granted == nullptr) {
    forgotten_ = std::holds_alternative<wire::Refused>(answer->body);
    Link::keep(std::move(*link));
    return false;
  }
  link_ = std::move(*link);
  epoch_ = link_.epoch();
  claim_ = granted->claim;
  if (granted->lapses_in) set_lapse(granted->lapses_in);
  enforcement_ = granted->enforcement;
  if (options_.owner_scope == OwnerScope::tree) link_.share_with_children();
  for (const Packet& packet : aside) take_in(packet, holding);
  holding.notice_also(link_.fd());
  return true;
}

std::expected<Packet, Silence> Ticket::ask(Holding& holding, const wire::FromClient& message) {
  for (int attempt = 0; attempt < 2; ++attempt) {
    if (!link_ && !resume(holding)) break;
    std::vector<Packet> aside;
    auto answer = link_.ask(message, aside);
    for (const Packet& packet : aside) take_in(packet, holding);
    if (answer) return answer;
    link_.close();
  }
  return std::unexpected{Silence::gone};
}

Result<> Ticket::change(Holding& holding, Mode mode, const wire::FromClient& message) {
  if (auto there = heed(holding); !there) return there;
  auto answer = ask(holding, message);
  if (ended_) return std::unexpected(*ended_);
  if (!answer) return mode == Mode::shared ? holding.downgrade() : holding.upgrade();
  if (auto* const no = std::get_if<wire::Refused>(&answer->body)) return std::unexpected(error_of(std::move(*no)));
  const auto* const granted = std::get_if<wire::Granted>(&answer->body);
  if (granted == nullptr) return std::unexpected(base::failure(errc::system_fault, "the broker makes no sense", {}));
  options_.mode = mode;
  enforcement_ = granted->enforcement;
  if (mode == Mode::exclusive)
    if (auto adopted = adopt_exclusive(holding, granted->marks, std::move(answer->descriptors),
                                       {.options = options_, .owner = owner_.id});
        !adopted)
      return adopted;
  return holding.follow(mode);
}

Result<> Ticket::downgrade(Holding& holding) {
  if (holding.mode() == Mode::shared) return {};
  holding.drop_exclusive();
  return change(holding, Mode::shared, wire::Downgrade{claim_});
}

Result<> Ticket::upgrade(Holding& holding) {
  if (holding.mode() == Mode::exclusive) return {};
  auto changed = change(holding, Mode::exclusive, wire::Upgrade{claim_, {}});
  // A stranger has what only this process can take: the rest goes back to what it was.
  if (!changed && options_.mode == Mode::exclusive && holding.mode() == Mode::shared) {
    holding.drop_exclusive();
    static_cast<void>(change(holding, Mode::shared, wire::Downgrade{claim_}));
  }
  return changed;
}

Result<std::chrono::nanoseconds> Ticket::renew(Holding& holding, std::chrono::nanoseconds lease) {
  if (auto there = heed(holding); !there) return std::unexpected(std::move(there.error()));
  auto answer = ask(holding, wire::Renew{claim_, std::max(lease, 0ns)});
  if (ended_) return std::unexpected(*ended_);
  if (!answer) return std::unexpected(no_broker("renewing", nobody_at(broker_socket())));
  if (auto* const no = std::get_if<wire::Refused>(&answer->body)) return std::unexpected(error_of(std::move(*no)));
  const auto* const renewed = std::get_if<wire::Renewed>(&answer->body);
  if (renewed == nullptr) return std::unexpected(base::failure(errc::system_fault, "the broker makes no sense", {}));
  set_lapse(renewed->lapses_in);
  return renewed->lapses_in;
}

void Ticket::release(Holding& holding) noexcept {
  holding.close_what_only_closing_ends();
  if (!ended_) tell_release(holding);
  holding.let_go();
  Link::keep(std::move(link_));
}

// What nobody else can have a copy of may go on to the next holder as it is, over the same descriptions: from the
// moment in which the broker may read this, nothing here has power over them.
void Ticket::tell_release(Holding& holding) noexcept {
  const bool is_ours_alone = holding.mode() == Mode::exclusive && options_.owner_scope == OwnerScope::process &&
                             !has_copies_elsewhere_ && !holding.is_handed_out();
  std::vector<Packet> aside;
  const auto number = link_.send(wire::Release{claim_, is_ours_alone ? wire::Copies::closed : wire::Copies::kept}, {},
                                 kReleasePatience);
  if (number && is_ours_alone) holding.let_go_but_lock_files();
  const auto answer = number ? link_.answer_to(*number, aside, kReleasePatience)
                             : std::expected<Packet, Silence>{std::unexpected{number.error()}};
  if (answer) return;
  link_.close();
  // A broker that lives hears of it when it reads on, and gives back what we have no power over any more.
  const bool is_silent = answer.error() == Silence::deadline;
  if (is_silent && is_ours_alone) return;
  holding.give_back();
  if (is_silent) return;
  // A broker that was started anew knows of the claim from its journal.
  Link::release_later(claim_);
  if (auto link = Link::open(broker_socket(), kReleasePatience)) link_ = std::move(*link);
}

namespace {

struct Lookup {
  Link link;
  wire::ClaimId claim{};
};

Result<Lookup> look_up(const Owner& owner, std::span<const std::string> devices) {
  auto identified = identify(devices);
  if (!identified) return std::unexpected(std::move(identified.error()));
  const std::string socket = broker_socket();
  auto link = Link::open(socket);
  if (!link) return std::unexpected(no_broker("a claim of another process", nobody_at(socket)));
  std::vector<Packet> aside;
  auto answer = link->ask(wire::Find{names_of(*identified), given(owner)}, aside, riding_along(owner));
  if (!answer) return std::unexpected(no_broker("a claim of another process", nobody_at(socket)));
  if (auto* const no = std::get_if<wire::Refused>(&answer->body)) return std::unexpected(error_of(std::move(*no)));
  const auto* const found = std::get_if<wire::Found>(&answer->body);
  if (found == nullptr) return std::unexpected(base::failure(errc::system_fault, "the broker makes no sense", {}));
  return Lookup{std::move(*link), found->claim};
}

Result<Packet> ask_about(Lookup& about, const wire::FromClient& message) {
  std::vector<Packet> aside;
  auto answer = about.link.ask(message, aside);
  if (!answer) return std::unexpected(no_broker("a claim of another process", nobody_at(broker_socket())));
  if (auto* const no = std::get_if<wire::Refused>(&answer->body)) return std::unexpected(error_of(std::move(*no)));
  return std::move(*answer);
}

}  // namespace

Result<> release_for(const Owner& owner, std::span<const std::string> devices) {
  auto about = look_up(owner, devices);
  if (!about) return std::unexpected(std::move(about.error()));
  auto answer = ask_about(*about, wire::Release{about->claim});
  if (!answer) return std::unexpected(std::move(answer.error()));
  return {};
}

Result<std::chrono::nanoseconds> renew_for(const Owner& owner, std::span<const std::string> devices,
                                           std::chrono::nanoseconds lease) {
  auto about = look_up(owner, devices);
  if (!about) return std::unexpected(std::move(about.error()));
  auto answer = ask_about(*about, wire::Renew{about->claim, lease});
  if (!answer) return std::unexpected(std::move(answer.error()));
  const auto* const renewed = std::get_if<wire::Renewed>(&answer->body);
  if (renewed == nullptr) return std::unexpected(base::failure(errc::system_fault, "the broker makes no sense", {}));
  return renewed->lapses_in;
}

}  // namespace holdfast::claiming
