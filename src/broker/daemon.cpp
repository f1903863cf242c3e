// SPDX-License-Identifier: MIT
// daemon.cpp - see the header.
#include "broker/daemon.hpp"

#include "base/error.hpp"
#include "broker/chronicle.hpp"
#include "broker/closer.hpp"
#include "broker/connection.hpp"
#include "broker/desk.hpp"
#include "broker/hands.hpp"
#include "broker/hooks.hpp"
#include "broker/hotplug.hpp"
#include "broker/journal.hpp"
#include "broker/known_devices.hpp"
#include "broker/listening.hpp"
#include "broker/peer.hpp"
#include "broker/permission.hpp"
#include "broker/privileges.hpp"
#include "broker/store.hpp"
#include "broker/stranger_watch.hpp"
#include "broker/survivors.hpp"
#include "claim/parcel.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>
#include <systemd/sd-event.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <functional>
#include <unordered_map>
#include <utility>

namespace holdfast::broker {

using namespace std::chrono_literals;

namespace {

constexpr arbiter::Duration kLookAtAdopted = 1s;
// So many waiters a broker can have had, for the next one to begin after them.
constexpr std::uint64_t kPlacesOfOne = std::uint64_t{1} << 20U;
// So long what was given up before SIGTERM may take to be given back.
constexpr arbiter::Duration kStopAtMost = 3s;
constexpr arbiter::Duration kAcceptAgain = 100ms;  // when we are out of descriptors
constexpr arbiter::Duration kLookAtUnread = 100ms;
constexpr arbiter::Duration kListenAgain = 10ms;  // to whose descriptors are to be closed first
// Deaths before messages, so that a pid that is used again meets no connection of the one before.
constexpr std::int64_t kFirst = SD_EVENT_PRIORITY_IMPORTANT;

class SystemClock final : public Clock {
 public:
  arbiter::Time now() const override {
    return arbiter::Time{std::chrono::steady_clock::now().time_since_epoch()};  // CLOCK_MONOTONIC
  }
  wire::WallTime wall() const override { return std::chrono::system_clock::now(); }
};

struct EventDeleter {
  void operator()(sd_event* loop) const { sd_event_unref(loop); }
};
struct SourceDeleter {
  void operator()(sd_event_source* source) const { sd_event_source_disable_unref(source); }
};
using Loop = std::unique_ptr<sd_event, EventDeleter>;
using Source = std::unique_ptr<sd_event_source, SourceDeleter>;

/// What happens when a descriptor is ready. It stays where it is: the loop points to it.
class Ready {
 public:
  using Action = std::function<void(std::uint32_t)>;
  Ready() = default;
  Ready(const Ready&) = delete;
  Ready& operator=(const Ready&) = delete;

  Result<> start(sd_event* loop, int fd, std::uint32_t events, std::int64_t priority, Action action) {
    action_ = std::move(action);
    sd_event_source* source = nullptr;
    const int answer = sd_event_add_io(
        loop, &source, fd, events,
        [](sd_event_source*, int, std::uint32_t happened, void* self) {
          static_cast<Ready*>(self)->action_(happened);
          return 0;
        },
        this);
    if (answer < 0) return std::unexpected(base::fault(-answer, "sd_event_add_io", {}));
    source_.reset(source);
    sd_event_source_set_priority(source, priority);
    return {};
  }
  void stop() { source_.reset(); }
  void listen_for(std::uint32_t events) const { sd_event_source_set_io_events(source_.get(), events); }

 private:
  Action action_;
  Source source_;
};

// What the next broker will know: the journal who holds, systemd by what.
class Remembrance final : public Memory {
 public:
  Remembrance(Journal& journal, DescriptorStore& store, const Log& log) : journal_{journal}, store_{store}, log_{log} {}
  void granted(const ClaimRecord& claim, const claiming::Holding& holding) override {
    journal_.record(claim);
    complain();
    store_.keep(claim.id, holding, DescriptorStore::Clock::now());
  }
  void ended(wire::ClaimId claim) override {
    store_.drop(claim);
    journal_.ended(claim);
    complain();
  }
  void is_ours_alone(wire::ClaimId claim) override { store_.hurry(claim, DescriptorStore::Clock::now()); }
  void passed_on(wire::ClaimId from, const ClaimRecord& to, const claiming::Holding& holding) override {
    journal_.passed_on(from, to, holding);
    complain();
    store_.drop(from);
    store_.keep(to.id, holding, DescriptorStore::Clock::now());
  }

 private:
  // Once: clients keep their claims' locks even so, and the next line brings the file up to date.
  void complain() {
    const int errnum = journal_.errnum();
    if (errnum != 0 && errnum_ == 0)
      log_.say(Level::error, fmt::format("cannot write the journal: {}", base::errno_text(errnum)));
    errnum_ = errnum;
  }

  Journal& journal_;
  DescriptorStore& store_;
  const Log& log_;
  int errnum_ = 0;
};

class NodeGate final : public Gate {
 public:
  explicit NodeGate(const Permission& permission) : permission_{permission} {}
  Result<> may_claim(const device::Device& device, const Peer& peer) override {
    return permission_.may_open(peer.rights, device.node);
  }

 private:
  const Permission& permission_;
};

class Told final : public Events {
 public:
  explicit Told(Chronicle& chronicle) : chronicle_{chronicle} {}
  void happened(const wire::Event& event) override { chronicle_.happened(event); }

 private:
  Chronicle& chronicle_;
};

constexpr const char* kUser = "holdfast";

std::string directory_of(const std::string& file) {
  const auto slash = file.rfind('/');
  return slash == std::string::npos ? std::string{} : file.substr(0, slash);
}

std::optional<gid_t> group_of(const std::string& name) {
  const ::group* const entry = name.empty() ? nullptr : ::getgrnam(name.c_str());
  return entry == nullptr ? std::nullopt : std::optional{entry->gr_gid};
}

// A connection and a pidfd for each client, and the locks.
void raise_descriptor_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

}  // namespace

/// Everything, in the order of its making: what is used outlives what uses it.
struct Daemon::Inside final : Post, Deaths {
  struct Client final : Listener {
    Client(Inside& the_daemon, ConnectionId its_id, base::UniqueFd socket)
        : daemon{the_daemon}, id{its_id}, connection{std::move(socket)} {}
    bool send(std::span<const std::byte> encoded) override;

    Inside& daemon;
    ConnectionId id;
    Connection connection;
    Process process;  // its pidfd goes to the desk with Hello
    pid_t pid = 0;
    uid_t uid = 0;
    std::size_t counted_bytes = 0;
    std::size_t passed = 0;  // descriptors that it may not have read
    bool greeted = false;
    bool ending = false;
    Farewell farewell = Farewell::read;
    bool paused = false;
    std::uint32_t listens_for = EPOLLIN;
    Ready ready;
  };

  Inside(const Settings& wanted, Permission may, Journal kept, std::span<const JournalToken> tokens)
      : settings{wanted},
        log{wanted.verbosity},
        permission{std::move(may)},
        journal{std::move(kept)},
        memory{journal, store, log},
        chronicle{[this](std::string_view line) { log.say(Level::warning, line); }},
        events{chronicle},
        devices{clock, wanted.places},
        gate{permission},
        hooks{HookRunner::Settings{.directory = wanted.hooks}},
        strangers{wanted.places},
        hands{permission, clock, wanted.places},
        guard{wanted.guard, log, clock, wanted.places},
        connections{wanted.limits.connections},
        bytes{wanted.limits.queued_bytes},
        passed{wanted.limits.descriptors},
        rate{wanted.limits.messages},
        desk{World{clock, *this, devices, gate, memory, events, hooks, strangers, *this, hands, guard},
             rulebook(tokens)} {}

  [[nodiscard]] Rulebook rulebook(std::span<const JournalToken> tokens) const {
    Rulebook rules;
    rules.arbiter = settings.rules;
    rules.limits = settings.limits;
    rules.administrators = group_of(settings.group);
    rules.epoch = journal.epoch();
    rules.first_claim = wire::ClaimId{journal.next_claim()};
    for (const JournalToken& token : tokens) rules.tokens.push_back({key_of(token.device), token.token});
    rules.token_base = journal.token_base();
    rules.places = PlaceSeal{journal.place_key()};
    rules.arbiter.first_place = journal.restarts() * kPlacesOfOne;
    return rules;
  }

  ~Inside() override {
    for (auto& [id, client] : clients) close_all_of(*client);
    for (const auto& client : unread) close_all_of(*client);
  }
  Result<> start(const Journal::Found& found);
  [[nodiscard]] Result<> listen_for_the_end();
  void stop();
  void adopt(const std::vector<JournalClaim>& claims);
  void look_at_adopted(std::optional<pid_t> of_owner);
  [[nodiscard]] std::optional<claiming::Holding> holding_of(const ClaimRecord& claim,
                                                            std::vector<DescriptorStore::Kept>& kept);
  [[nodiscard]] std::optional<claiming::Holding> taken_again(const JournalClaim& entry, const Process& owner);
  Result<> listen_to(Ready& ready, int fd, std::function<void()> action);

  // Post.
  bool send(ConnectionId to, std::uint32_t number, const wire::FromBroker& message,
            std::span<const int> descriptors) override;
  [[nodiscard]] std::size_t queued_bytes(ConnectionId to) const override;
  void close(ConnectionId which) override;
  // Deaths.
  void watch(arbiter::OwnerId owner, base::UniqueFd pidfd) override;
  void forget(arbiter::OwnerId owner) override { deaths.erase(owner); }

  void accept();
  void admit(base::UniqueFd socket);
  void happened(Client& client, std::uint32_t what);
  void hear(Client& client);
  void understand(Client& client, Packet& from);
  void forget_heard(const Client& client);
  void pause(Client& client, arbiter::Time until);
  void close_all_of(Client& client);
  [[nodiscard]] std::vector<base::ProcessFd> marks_in(const Client& client, const wire::Resume& resume, Packet& from);
  void greet(Client& client, std::uint32_t number, const wire::Hello& hello);
  [[nodiscard]] std::optional<Process> owner_in(Client& client, const wire::Numbered<wire::FromClient>& message,
                                                Packet& from, bool& refused);
  void refuse(const Client& client, std::uint32_t number, errc code, std::string message);
  void drain(Client& client);
  bool account(Client& client, Connection::Sent sent);
  [[nodiscard]] bool may_pass(Client& client, std::size_t descriptors);
  void note_what_is_read(Client& client);
  void look_at_unread();
  void listen(Client& client) const;
  void end(Client& client);
  void settle();
  void unplugged();
  void look_at_strangers();
  void look_at_hooks();
  void look_at_denials() {
    guard.drain([this](const Denial& denial) { desk.denied(denial); });
  }
  void tick();

  Settings settings;
  Log log;
  SystemClock clock;
  Permission permission;
  Journal journal;
  DescriptorStore store;
  Closer closer;
  Remembrance memory;
  Chronicle chronicle;
  Told events;
  KnownDevices devices;
  NodeGate gate;
  HookRunner hooks;
  StrangerWatch strangers;
  MarkHands hands;
  KernelGuard guard;
  Count connections;
  Count bytes;
  Count passed;
  Rate rate;
  std::vector<std::byte> packet;  // being sent
  std::vector<std::byte> buffer = std::vector<std::byte>(wire::kMostBytes);
  Packet heard;
  std::uint64_t next_connection = 1;

  Loop loop;
  struct Death {
    base::UniqueFd pidfd;
    Ready ready;
  };
  std::unordered_map<arbiter::OwnerId, std::unique_ptr<Death>> deaths;
  std::unordered_map<ConnectionId, std::unique_ptr<Client>> clients;
  std::vector<std::unique_ptr<Client>> unread;  // whose connection is over, but not for the descriptors in it
  std::optional<arbiter::Time> look_at_unread_at;
  std::vector<ConnectionId> ending;
  std::vector<ConnectionId> paused;
  std::optional<arbiter::Time> listen_again;  // to those who are paused, and to those who want to connect
  std::vector<JournalClaim> to_be_resumed;    // claims of before whose marks the clients have
  std::optional<arbiter::Time> look_at_adopted_at;
  std::optional<arbiter::Time> stop_by;
  bool accepting = true;
  base::UniqueFd listener;
  std::optional<Hotplug> hotplug;
  Ready listener_ready;
  Ready hands_ready;
  Ready chronicle_ready;
  Ready hotplug_ready;
  Ready strangers_ready;
  Ready hooks_ready;
  Ready guard_ready;
  Source timer;
  std::optional<arbiter::Time> timer_at;

  Desk desk;
};

// --- The loop
// ---------------------------------------------------------------------------------------------------------

Result<> Daemon::Inside::listen_to(Ready& ready, int fd, std::function<void()> action) {
  return ready.start(loop.get(), fd, EPOLLIN, SD_EVENT_PRIORITY_NORMAL,
                     [this, action = std::move(action)](std::uint32_t) {
                       action();
                       settle();
                     });
}

Result<> Daemon::Inside::start(const Journal::Found& found) {
  sd_event* made = nullptr;
  if (const int answer = sd_event_new(&made); answer < 0)
    return std::unexpected(base::fault(-answer, "sd_event_new", {}));
  loop.reset(made);
  if (auto heard_of = listen_for_the_end(); !heard_of) return heard_of;
  if (found.refused_lines > 0)
    log.say(Level::warning, fmt::format("{} lines of the journal are not understood", found.refused_lines));
  adopt(found.claims);  // while nobody is heard, and there are no threads yet
  if (!settings.history.empty()) chronicle.start_history(settings.history);
  if (auto plugged = Hotplug::open())
    hotplug = std::move(*plugged);
  else
    log.say(Level::warning, fmt::format("unplugged devices go unnoticed: {}", plugged.error().message));
  if (auto heard_of = listen_to(listener_ready, listener.get(), [this] { accept(); }); !heard_of) return heard_of;
  if (auto heard_of = listen_to(hands_ready, hands.fd(), [this] { hands.deliver(desk); }); !heard_of) return heard_of;
  if (chronicle.fd() >= 0)
    if (auto heard_of = listen_to(chronicle_ready, chronicle.fd(), [this] { chronicle.deliver(); }); !heard_of)
      return heard_of;
  if (strangers.fd() >= 0)
    if (auto heard_of = listen_to(strangers_ready, strangers.fd(), [this] { look_at_strangers(); }); !heard_of)
      return heard_of;
  if (auto heard_of = listen_to(hooks_ready, hooks.fd(), [this] { look_at_hooks(); }); !heard_of) return heard_of;
  if (guard.fd() >= 0)
    if (auto heard_of = listen_to(guard_ready, guard.fd(), [this] { look_at_denials(); }); !heard_of) return heard_of;
  if (hotplug)
    if (auto heard_of = listen_to(hotplug_ready, hotplug->fd(), [this] { unplugged(); }); !heard_of) return heard_of;
  sd_event_source* source = nullptr;
  const int answer = sd_event_add_time(
      made, &source, CLOCK_MONOTONIC, UINT64_MAX, 1,
      [](sd_event_source*, std::uint64_t, void* self) {
        static_cast<Inside*>(self)->tick();
        return 0;
      },
      this);
  if (answer < 0) return std::unexpected(base::fault(-answer, "sd_event_add_time", {}));
  timer.reset(source);
  sd_event_source_set_enabled(source, SD_EVENT_OFF);
  // Where the unit asks for it.
  if (const int watched = sd_event_set_watchdog(made, 1); watched < 0)
    return std::unexpected(base::fault(-watched, "sd_event_set_watchdog", {}));
  return {};
}

Result<> Daemon::Inside::listen_for_the_end() {
  sigset_t ends;
  ::sigemptyset(&ends);
  ::sigaddset(&ends, SIGTERM);
  ::sigaddset(&ends, SIGINT);
  ::sigprocmask(SIG_BLOCK, &ends, nullptr);
  const auto asked = [](sd_event_source*, const signalfd_siginfo*, void* self) {
    static_cast<Inside*>(self)->stop();
    return 0;
  };
  for (const int signal : {SIGTERM, SIGINT})
    if (const int answer = sd_event_add_signal(loop.get(), nullptr, signal, asked, this); answer < 0)
      return std::unexpected(base::fault(-answer, "sd_event_add_signal", {}));
  return {};
}

// Claims stay with their clients; but what a client has given up already, by hanging up, nobody else would give back.
void Daemon::Inside::stop() {
  if (stop_by) return;
  stop_by = clock.now() + kStopAtMost;
  listener_ready.listen_for(0);
  std::vector<ConnectionId> all;
  for (const auto& [id, client] : clients) all.push_back(id);
  for (const ConnectionId id : all) {
    const auto found = clients.find(id);
    if (found == clients.end()) continue;
    Client& client = *found->second;
    pollfd hung_up{client.connection.fd(), 0, 0};
    constexpr int kMostUnheard = 1024;  // more than a socket's queue has
    if (::poll(&hung_up, 1, 0) > 0)
      for (int i = 0; i < kMostUnheard && !client.ending; ++i) hear(client);
  }
  store.advance(DescriptorStore::Clock::now() + 1s);  // what was to be kept in a second at most
  settle();
}

// Claims of before: those whose owners live go on, with what the store kept of them, or with what their clients bring.
void Daemon::Inside::adopt(const std::vector<JournalClaim>& claims) {
  std::vector<guard::Enforced> enforced;
  for (const JournalClaim& entry : claims)
    if (entry.claim.enforced) enforced.push_back(*entry.claim.enforced);
  guard.take_over(enforced);
  std::vector<DescriptorStore::Kept> kept = store.take_over();
  std::size_t adopted = 0;
  for (const JournalClaim& entry : claims) {
    const ClaimRecord& claim = entry.claim;
    auto complete = holding_of(claim, kept);
    auto owner = living_owner(claim);
    if (owner && !complete && (complete = taken_again(entry, *owner))) {
      memory.granted(claim, *complete);
      memory.is_ours_alone(claim.id);
    }
    if (!owner) {
      if (claim.enforced) guard.release(*claim.enforced);
      if (complete) complete->give_back();
      clean_up(entry, settings.places);
      memory.ended(claim.id);
      continue;
    }
    claiming::Holding holding = complete ? std::move(*complete) : lock_files_of(claim, settings.places);
    const Left left = complete ? Left::held : what_is_left(entry, settings.places);
    const auto marks = complete ? Desk::Marks::complete : Desk::Marks::to_be_resumed;
    // What the desk does not adopt is given back when the call ends.
    if (left == Left::taken_anew) holding.let_go();
    if (left != Left::held) {
      if (claim.enforced) guard.release(*claim.enforced);
      holding.give_back();
    } else if (desk.adopt(claim, std::move(*owner), std::move(holding), marks)) {
      ++adopted;
      if (marks == Desk::Marks::to_be_resumed) to_be_resumed.push_back(entry);
      continue;
    }
    memory.ended(claim.id);
  }
  for (const DescriptorStore::Kept& unknown : kept) store.drop(unknown.claim);
  if (!to_be_resumed.empty()) look_at_adopted_at = clock.now() + kLookAtAdopted;
  if (adopted > 0) log.say(Level::notice, fmt::format("claims taken over from the broker before: {}", adopted));
}

// Clients give back by themselves while there is no broker, and may be at it when we look first.
void Daemon::Inside::look_at_adopted(std::optional<pid_t> of_owner) {
  std::vector<std::pair<wire::ClaimId, Desk::LockFiles>> over;
  std::erase_if(to_be_resumed, [&](const JournalClaim& entry) {
    if (!desk.is_to_be_resumed(entry.claim.id)) return true;
    if (of_owner && *of_owner != entry.claim.owner.pid) return false;
    const Left left = what_is_left(entry, settings.places);
    if (left == Left::held) return false;
    over.emplace_back(entry.claim.id,
                      left == Left::taken_anew ? Desk::LockFiles::the_owners : Desk::LockFiles::the_claims);
    return true;
  });
  for (const auto& [claim, files] : over) desk.is_over(claim, files);
}

// Of a claim for another process, whose asker is gone, nobody but the broker before us had the descriptors; without a
// store the locks died with it. They are its owner's even so, unless somebody was quicker.
std::optional<claiming::Holding> Daemon::Inside::taken_again(const JournalClaim& entry, const Process& owner) {
  const ClaimRecord& claim = entry.claim;
  if (claim.given != wire::OwnerGiven::by_pidfd || base::is_alive(claim.asked.by) ||
      what_is_left(entry, settings.places) != Left::given_back)
    return std::nullopt;
  Taking taking;
  for (const ClaimRecord::Device& one : claim.devices) {
    if (!one.named) continue;
    auto device = device::identify(one.path, settings.places);
    if (!device || device->node.id != one.id) return std::nullopt;
    taking.devices.push_back(std::make_shared<const device::Device>(std::move(*device)));
  }
  taking.options.mode = claim.mode;
  taking.options.cover = cover_of(taking.devices, claim);
  taking.options.purpose = claim.purpose;
  taking.options.conventions = claim.asked.conventions;
  taking.options.opening = claim.asked.opening;
  taking.owner = claim.owner;
  taking.speaker = std::make_shared<const Peer>(owner.peer);
  auto taken = hands.take_now(taking);
  if (taken) return std::move(*taken);
  log.say(Level::warning,
          fmt::format("the claim of process {} is lost: {}", claim.owner.pid, taken.error().obstacle.error.message));
  return std::nullopt;
}

std::optional<claiming::Holding> Daemon::Inside::holding_of(const ClaimRecord& claim,
                                                            std::vector<DescriptorStore::Kept>& kept) {
  const auto found = std::ranges::find(kept, claim.id, &DescriptorStore::Kept::claim);
  if (found == kept.end()) return std::nullopt;
  DescriptorStore::Kept marks = std::move(*found);
  kept.erase(found);
  std::vector<std::shared_ptr<const device::Device>> named;
  std::vector<device::Device> list;
  for (const ClaimRecord::Device& one : claim.devices) {
    if (!one.named) continue;
    auto device = device::identify(one.path, settings.places);
    if (!device || device->node.id != one.id) return std::nullopt;
    list.push_back(*device);
    named.push_back(std::make_shared<const device::Device>(std::move(*device)));
  }
  Options options;
  options.mode = claim.mode;
  options.cover = cover_of(named, claim);
  options.purpose = claim.purpose;
  auto holding = claiming::unpack(std::move(list), marks.marks, std::move(marks.descriptors),
                                  {options, claim.owner, convention::Locks::proven, settings.places});
  if (holding) return std::move(*holding);
  log.say(Level::notice, fmt::format("a claim's locks are not those that were kept: {}", holding.error().message));
  return std::nullopt;
}

// After everything that happened: who is to go goes, and the timer is set.
void Daemon::Inside::settle() {
  while (!ending.empty()) {
    const ConnectionId id = ending.back();
    ending.pop_back();
    const auto found = clients.find(id);
    if (found == clients.end()) continue;
    std::unique_ptr<Client> gone = std::move(found->second);
    clients.erase(found);
    chronicle.forget(*gone);
    connections.remove(gone->uid);
    bytes.remove(gone->uid, gone->counted_bytes);
    desk.closed(id, gone->farewell);
    note_what_is_read(*gone);
    if (gone->passed == 0) {
      close_all_of(*gone);
      continue;
    }
    gone->ready.stop();
    gone->connection.hang_up();
    unread.push_back(std::move(gone));
    if (!look_at_unread_at) look_at_unread_at = clock.now() + kLookAtUnread;
  }
  if (permission.is_stuck()) {
    log.say(Level::error, "a thread could not give back a client's rights: the broker ends, claims stay");
    sd_event_exit(loop.get(), -EPERM);
  }
  if (stop_by && (!desk.gives_back() || *stop_by <= clock.now())) sd_event_exit(loop.get(), 0);
  std::optional<arbiter::Time> next = desk.next_deadline();
  const auto sooner = [&](std::optional<arbiter::Time> other) {
    if (other && (!next || *other < *next)) next = other;
  };
  sooner(listen_again);
  sooner(stop_by);
  sooner(look_at_adopted_at);
  sooner(look_at_unread_at);
  sooner(guard.next_due());
  for (const auto& instant : {strangers.next_look(), hooks.next_deadline(), store.next_due()})
    if (instant) sooner(arbiter::Time{instant->time_since_epoch()});
  if (next == timer_at) return;
  timer_at = next;
  if (next) {
    const auto since_boot = std::max(next->time_since_epoch(), arbiter::Duration{});
    const auto microseconds = std::chrono::ceil<std::chrono::microseconds>(since_boot).count();
    sd_event_source_set_time(timer.get(), static_cast<std::uint64_t>(microseconds));
  }
  sd_event_source_set_enabled(timer.get(), next ? SD_EVENT_ONESHOT : SD_EVENT_OFF);
}

void Daemon::Inside::tick() {
  timer_at.reset();
  if (listen_again && *listen_again <= clock.now()) {
    listen_again.reset();
    for (const ConnectionId id : std::exchange(paused, {}))
      if (const auto found = clients.find(id); found != clients.end()) {
        found->second->paused = false;
        listen(*found->second);
      }
    if (!std::exchange(accepting, true)) listener_ready.listen_for(EPOLLIN);
    rate.sweep(clock.now());
  }
  if (look_at_adopted_at && *look_at_adopted_at <= clock.now()) {
    look_at_adopted({});
    look_at_adopted_at.reset();
    if (!to_be_resumed.empty()) look_at_adopted_at = clock.now() + kLookAtAdopted;
  }
  if (look_at_unread_at && *look_at_unread_at <= clock.now()) look_at_unread();
  look_at_strangers();
  look_at_hooks();
  store.advance(DescriptorStore::Clock::now());
  guard.advance();
  desk.advance();
  settle();
}

void Daemon::Inside::look_at_strangers() {
  for (const wire::ClaimId claim : strangers.worth_trying(StrangerWatch::Clock::now())) desk.try_again(claim);
}

void Daemon::Inside::look_at_hooks() {
  for (HookRunner::Answer& answer : hooks.advance(HookRunner::Clock::now()))
    desk.hooks_ran(answer.claim, std::move(answer.result));
}

void Daemon::Inside::unplugged() {
  devices.forget();
  for (const wire::Event& event : hotplug->take()) {
    chronicle.happened(event);
    if (event.kind != wire::EventKind::removed) continue;
    desk.device_gone(id_of(event.device));
  }
}

void Daemon::Inside::watch(arbiter::OwnerId owner, base::UniqueFd pidfd) {
  auto death = std::make_unique<Death>();
  death->pidfd = std::move(pidfd);
  const auto started =
      death->ready.start(loop.get(), death->pidfd.get(), EPOLLIN, kFirst, [this, owner](std::uint32_t) {
        const std::unique_ptr<Death> gone = std::move(deaths.at(owner));  // readable for ever
        deaths.erase(owner);
        desk.owner_died(owner);
        settle();
      });
  if (!started) log.say(Level::error, started.error().message);
  deaths[owner] = std::move(death);
}

// --- Clients
// ----------------------------------------------------------------------------------------------------------

void Daemon::Inside::accept() {
  constexpr int kAtOnce = 16;
  for (int i = 0; i < kAtOnce; ++i) {
    base::UniqueFd socket{::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK)};
    if (socket) {
      admit(std::move(socket));
      continue;
    }
    if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
      log.say(Level::warning, fmt::format("cannot accept a connection: {}", base::errno_text(errno)));
      accepting = false;
      listener_ready.listen_for(0);
      listen_again = clock.now() + kAcceptAgain;
    }
    return;
  }
}

void Daemon::Inside::admit(base::UniqueFd socket) {
  const int on = 1;
  constexpr uid_t kUnknown = static_cast<uid_t>(-1);
  if (::setsockopt(socket.get(), SOL_SOCKET, SO_PASSCRED, &on, sizeof on) != 0)
    return closer.close(kUnknown, std::move(socket));
  auto process = peer_of_socket(socket.get());
  if (!process) {
    log.say(Level::debug, fmt::format("a client is not let in: {}", process.error().message));
    return closer.close(kUnknown, std::move(socket));
  }
  const uid_t uid = process->peer.rights.uid;
  if (!connections.add(uid)) {
    log.say(Level::info, fmt::format("user {} has {} connections, which is the limit", uid, connections.of(uid)));
    return closer.close(uid, std::move(socket));
  }
  const ConnectionId id{next_connection++};
  auto made = std::make_unique<Client>(*this, id, std::move(socket));
  Client& client = *made;
  client.pid = process->peer.process.pid;
  client.uid = uid;
  client.process = std::move(*process);
  const auto started = client.ready.start(loop.get(), client.connection.fd(), EPOLLIN, SD_EVENT_PRIORITY_NORMAL,
                                          [this, &client](std::uint32_t what) {
                                            happened(client, what);
                                            settle();
                                          });
  clients.emplace(id, std::move(made));
  if (!started) {
    log.say(Level::error, started.error().message);
    end(client);
  }
}

void Daemon::Inside::happened(Client& client, std::uint32_t what) {
  if (client.ending) return;
  if ((what & EPOLLOUT) != 0) drain(client);
  if ((what & (EPOLLIN | EPOLLERR)) != 0 && !client.ending) return hear(client);
  if ((what & (EPOLLHUP | EPOLLERR)) != 0) end(client);
}

void Daemon::Inside::hear(Client& client) {
  if (closer.is_behind(client.uid)) return pause(client, clock.now() + kListenAgain);
  switch (client.connection.receive(buffer, heard)) {
    case Connection::Heard::nothing:
      return;
    case Connection::Heard::end_unread:
      client.farewell = Farewell::unread;
      return end(client);
    case Connection::Heard::end:
      forget_heard(client);
      return end(client);
    case Connection::Heard::packet:
      break;
  }
  understand(client, heard);
  forget_heard(client);
  if (const auto again = rate.count(client.uid, clock.now()); again && !client.ending) pause(client, *again);
}

void Daemon::Inside::forget_heard(const Client& client) {
  for (base::UniqueFd& fd : heard.descriptors) closer.close(client.uid, std::move(fd));
  heard.descriptors.clear();
}

void Daemon::Inside::pause(Client& client, arbiter::Time until) {
  if (!std::exchange(client.paused, true)) paused.push_back(client.id);
  listen(client);
  listen_again = listen_again ? std::min(*listen_again, until) : until;
}

// What was read to its end has nothing in it whose close could take long.
void Daemon::Inside::close_all_of(Client& client) {
  client.ready.stop();
  if (client.connection.is_drained() && client.connection.queued_bytes() == 0) return;
  for (base::UniqueFd& fd : client.connection.end()) closer.close(client.uid, std::move(fd));
}

void Daemon::Inside::understand(Client& client, Packet& from) {
  auto message = wire::decode_from_client(from.bytes, from.descriptors.size());
  if (!message) {
    log.say(Level::info, fmt::format("process {} sent {}", client.pid, wire::to_string(message.error())));
    return end(client);
  }
  // Where the listening socket is a unit's without PassCredentials=, what was sent before SO_PASSCRED carries none: a
  // greeting, which does nothing.
  const bool greets = from.sender == 0 && std::holds_alternative<wire::Hello>(message->body);
  if (from.sender != client.pid && !greets)
    return refuse(client, message->number, errc::not_held,
                  fmt::format("process {} speaks through a connection of process {}", from.sender, client.pid));
  const auto* const hello = std::get_if<wire::Hello>(&message->body);
  if ((hello != nullptr) == client.greeted) return end(client);
  if (hello != nullptr) return greet(client, message->number, *hello);
  if (const auto* const watch = std::get_if<wire::Watch>(&message->body)) {
    send(client.id, message->number, wire::Done{}, {});
    return chronicle.subscribe(client, *watch);
  }
  if (const auto* const question = std::get_if<wire::HistoryQuery>(&message->body))
    return chronicle.ask(client, message->number, *question);
  bool refused = false;
  Enclosed enclosed{owner_in(client, *message, from, refused), {}};
  if (const auto* const resume = std::get_if<wire::Resume>(&message->body))
    enclosed.descriptors = marks_in(client, *resume, from);
  if (!to_be_resumed.empty() && std::holds_alternative<wire::Claim>(message->body))
    look_at_adopted(enclosed.owner ? enclosed.owner->peer.process.pid : client.pid);
  if (!refused) desk.heard(client.id, *message, std::move(enclosed));
}

// What can carry marks, of a claim that waits for them; all else stays in the packet.
std::vector<base::ProcessFd> Daemon::Inside::marks_in(const Client& client, const wire::Resume& resume, Packet& from) {
  std::vector<base::ProcessFd> marks;
  const bool are_carriers = std::ranges::all_of(from.descriptors, [](const base::UniqueFd& fd) {
    // Nobody is asked but the kernel: a file system in user space would answer in its own time.
    struct statx kind{};
    return ::statx(fd.get(), "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE, &kind) == 0 &&
           (S_ISCHR(kind.stx_mode) || S_ISBLK(kind.stx_mode) || S_ISREG(kind.stx_mode));
  });
  if (!are_carriers || !desk.awaits_resume(client.id, resume.claim)) return marks;
  for (base::UniqueFd& fd : from.descriptors) marks.push_back(base::ProcessFd::adopt(std::move(fd)));
  return marks;
}

std::optional<Process> Daemon::Inside::owner_in(Client& client, const wire::Numbered<wire::FromClient>& message,
                                                Packet& from, bool& refused) {
  const auto* const claim = std::get_if<wire::Claim>(&message.body);
  const auto* const find = std::get_if<wire::Find>(&message.body);
  const bool given = (claim != nullptr && claim->owner == wire::OwnerGiven::by_pidfd) ||
                     (find != nullptr && find->owner == wire::OwnerGiven::by_pidfd);
  if (!given || from.descriptors.empty()) return std::nullopt;
  auto owner = process_of_pidfd(from.descriptors.front());
  if (owner) return std::move(*owner);
  refuse(client, message.number, static_cast<errc>(owner.error().code.value()), owner.error().message);
  refused = true;
  return std::nullopt;
}

void Daemon::Inside::greet(Client& client, std::uint32_t number, const wire::Hello& hello) {
  const bool both_know = hello.oldest <= wire::kVersion && hello.newest >= wire::kVersion;
  send(client.id, number, wire::Welcome{static_cast<std::uint16_t>(both_know ? wire::kVersion : 0), journal.epoch()},
       {});
  if (!both_know) return end(client);
  client.greeted = true;
  desk.opened(client.id, std::move(client.process));
}

void Daemon::Inside::refuse(const Client& client, std::uint32_t number, errc code, std::string message) {
  wire::Refused refused;
  refused.code = code;
  refused.message = std::move(message);
  send(client.id, number, refused, {});
}

bool Daemon::Inside::send(ConnectionId to, std::uint32_t number, const wire::FromBroker& message,
                          std::span<const int> descriptors) {
  const auto found = clients.find(to);
  if (found == clients.end() || found->second->ending) return false;
  if (const auto encoded = wire::encode(number, message, packet); !encoded) {
    log.say(Level::error, fmt::format("cannot say it: {}", wire::to_string(encoded.error())));
    return false;
  }
  if (!descriptors.empty() && !may_pass(*found->second, descriptors.size())) return false;
  return account(*found->second, found->second->connection.send(packet, descriptors));
}

// What is sent and not read is under way in our name, and nobody gets more when it is too much.
bool Daemon::Inside::may_pass(Client& client, std::size_t descriptors) {
  note_what_is_read(client);
  if (!passed.add(client.uid, descriptors)) {
    if (!look_at_unread_at) look_at_unread_at = clock.now() + kLookAtUnread;
    return false;
  }
  client.passed += descriptors;
  return true;
}

void Daemon::Inside::note_what_is_read(Client& client) {
  if (client.passed == 0 || !client.connection.is_read()) return;
  passed.remove(client.uid, std::exchange(client.passed, 0));
}

void Daemon::Inside::look_at_unread() {
  look_at_unread_at.reset();
  for (auto& [id, client] : clients) note_what_is_read(*client);
  std::erase_if(unread, [&](const std::unique_ptr<Client>& client) {
    note_what_is_read(*client);
    if (client->passed == 0) close_all_of(*client);
    return client->passed == 0;
  });
  if (!unread.empty()) look_at_unread_at = clock.now() + kLookAtUnread;
}

/// Events and history come encoded.
bool Daemon::Inside::Client::send(std::span<const std::byte> encoded) {
  if (ending) return true;
  if (connection.queued_bytes() > 0) return false;
  daemon.account(*this, connection.send(encoded, {}));
  return true;
}

// Whether it is on its way.
bool Daemon::Inside::account(Client& client, Connection::Sent sent) {
  const std::size_t now = client.connection.queued_bytes();
  if (now < client.counted_bytes) bytes.remove(client.uid, client.counted_bytes - now);
  const bool too_much = now > client.counted_bytes && !bytes.add(client.uid, now - client.counted_bytes);
  client.counted_bytes = too_much ? client.counted_bytes : now;
  if (too_much || sent == Connection::Sent::full)
    log.say(Level::notice, fmt::format("process {} does not read what it is sent: it is dropped", client.pid));
  if (too_much || sent == Connection::Sent::full || sent == Connection::Sent::end) {
    end(client);
    return false;
  }
  listen(client);
  return sent != Connection::Sent::failed;
}

void Daemon::Inside::listen(Client& client) const {
  const bool to_write = client.connection.queued_bytes() > 0 || chronicle.wants_ready(client);
  const std::uint32_t wanted = (client.paused ? 0U : EPOLLIN) | (to_write ? EPOLLOUT : 0U);
  if (std::exchange(client.listens_for, wanted) != wanted) client.ready.listen_for(wanted);
}

void Daemon::Inside::drain(Client& client) {
  account(client, client.connection.flush());
  if (client.ending || client.connection.queued_bytes() > 0) return;
  desk.drained(client.id);
  if (!client.ending && client.connection.queued_bytes() == 0) chronicle.ready(client);
  listen(client);
}

std::size_t Daemon::Inside::queued_bytes(ConnectionId to) const {
  const auto found = clients.find(to);
  return found == clients.end() ? 0 : found->second->connection.queued_bytes();
}

void Daemon::Inside::close(ConnectionId which) {
  if (const auto found = clients.find(which); found != clients.end()) end(*found->second);
}

void Daemon::Inside::end(Client& client) {
  if (!std::exchange(client.ending, true)) ending.push_back(client.id);
}

// --- The whole
// --------------------------------------------------------------------------------------------------------

Daemon::Daemon(std::unique_ptr<Inside> inside) : inside_{std::move(inside)} {}
Daemon::Daemon(Daemon&&) noexcept = default;
Daemon::~Daemon() = default;

// The state directory first: it says whether there is a broker already, whose socket is not to be replaced. Threads and
// what needs few rights come last.
Result<Daemon> Daemon::start(const Settings& settings) {
  raise_descriptor_limit();
  const std::string lasting = directory_of(settings.history);
  if (settings.privileges == Privileges::dropped)
    if (auto made = make_directories(kUser, {settings.state, lasting, directory_of(settings.socket)}); !made)
      return std::unexpected(std::move(made.error()));
  Journal::Found found;
  auto journal = Journal::open({settings.state, lasting}, found);
  if (!journal) return std::unexpected(std::move(journal.error()));
  auto listener = listen_at(settings.socket, settings.group);
  if (!listener) return std::unexpected(std::move(listener.error()));
  const Result<> guarded = settings.guard == GuardUse::on ? KernelGuard::install() : Result<>{};
  if (settings.privileges == Privileges::dropped) {
    auto standing = drop_privileges(kUser, settings.guard == GuardUse::off ? GuardRight::dropped : GuardRight::kept);
    if (!standing) return std::unexpected(std::move(standing.error()));
  }
  auto permission = Permission::start();
  if (!permission) return std::unexpected(std::move(permission.error()));
  auto inside = std::make_unique<Inside>(settings, std::move(*permission), std::move(*journal), found.tokens);
  inside->listener = std::move(*listener);
  if (!guarded) inside->log.say(Level::error, fmt::format("the guard is not installed: {}", guarded.error().message));
  if (auto started = inside->start(found); !started) return std::unexpected(std::move(started.error()));
  return Daemon{std::move(inside)};
}

Result<> Daemon::run() {
  inside_->log.say(Level::notice, fmt::format("ready on {}", inside_->settings.socket));
  ::sd_notify(0, "READY=1");
  const int answer = sd_event_loop(inside_->loop.get());
  ::sd_notify(0, "STOPPING=1");
  if (answer < 0) return std::unexpected(base::fault(-answer, "sd_event_loop", {}));
  return {};
}

}  // namespace holdfast::broker
