// SPDX-License-Identifier: MIT
// guard.cpp - see the header. What the kernel's side counts too is counted by atomic operations on shared memory.
#include "guard/guard.hpp"

#include "base/error.hpp"
#include "guard/never.hpp"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/bpf.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <utility>

namespace holdfast::guard {
namespace {

bool same(const hf_guard_device& a, const hf_guard_device& b) { return std::memcmp(&a, &b, sizeof a) == 0; }
bool same(const hf_guard_process& a, const hf_guard_process& b) { return a.tgid == b.tgid && a.start == b.start; }

Error map_fault(std::string_view what) {
  const int errnum = errno;
  const auto code = errnum == E2BIG || errnum == ENOMEM || errnum == ENOSPC ? errc::no_resources : errc::system_fault;
  return base::fault(code, errnum, fmt::format("the guard: {}", what), {});
}

/// Memory shared with the programs.
template <class T>
class Shared {
 public:
  Shared() = default;
  Shared(int fd, std::size_t count) : bytes_{count * sizeof(T)} {
    void* const memory = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory != MAP_FAILED) first_ = static_cast<T*>(memory);
  }
  Shared(Shared&& other) noexcept : first_{std::exchange(other.first_, nullptr)}, bytes_{other.bytes_} {}
  Shared& operator=(Shared&& other) noexcept {
    std::swap(first_, other.first_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~Shared() {
    if (first_ != nullptr) ::munmap(first_, bytes_);
  }
  [[nodiscard]] explicit operator bool() const { return first_ != nullptr; }
  T& operator[](std::size_t at) const { return first_[at]; }

 private:
  T* first_ = nullptr;
  std::size_t bytes_ = 0;
};

void add(__s64& number, int value) { std::atomic_ref{number}.fetch_add(value, std::memory_order_seq_cst); }

// New owners: helpers of those before are strangers to them, and what was refused before is not their story.
void begin_generation(hf_guard_slot& slot) {
  slot.denials = slot.unreported = slot.reported = slot.until = 0;
  std::atomic_ref{slot.generation}.fetch_add(1);
}

bool is_dead(int pidfd) {
  pollfd wanted{pidfd, POLLIN, 0};
  return ::poll(&wanted, 1, 0) == 1;
}

std::uint64_t count_of(std::optional<BootClock::time_point> until) {
  return until ? static_cast<std::uint64_t>(std::max<std::int64_t>(1, until->time_since_epoch().count())) : 0;
}

std::optional<BootClock::time_point> time_of(std::uint64_t count) {
  if (count == 0) return std::nullopt;
  return BootClock::time_point{BootClock::duration{static_cast<std::int64_t>(count)}};
}

}  // namespace

BootClock::time_point BootClock::now() noexcept {
  timespec now{};
  ::clock_gettime(CLOCK_BOOTTIME, &now);
  return time_point{std::chrono::seconds{now.tv_sec} + std::chrono::nanoseconds{now.tv_nsec}};
}

std::string_view to_string(hf_guard_operation operation) {
  switch (operation) {
    case HF_GUARD_OPEN:
      return "open";
    case HF_GUARD_READ_WRITE:
      return "read or write";
    case HF_GUARD_IOCTL:
      return "ioctl";
    case HF_GUARD_MMAP:
      return "mmap";
    case HF_GUARD_LOCK:
      return "lock";
    case HF_GUARD_FCNTL:
      return "fcntl";
    case HF_GUARD_RECEIVE:
      return "receive a descriptor";
    case HF_GUARD_URING_CMD:
      return "io_uring command";
    case HF_GUARD_KERNEL_OPEN:
      return "mount or open by the kernel";
  }
  return "use";
}

struct Guard::State {
  base::UniqueFd turn;  // the folder of pins: feeders lock it
  base::UniqueFd guarded;
  base::UniqueFd owners;
  base::UniqueFd processes;
  base::UniqueFd trees;
  base::UniqueFd denials;
  base::UniqueFd who;
  base::UniqueFd iterate_mappings;
  Shared<hf_guard_slot> slots;
  Shared<hf_guard_switches> switches;
  Places places;
  base::Places system;
  struct RingDeleter {
    void operator()(ring_buffer* buffer) const { ring_buffer__free(buffer); }
  };
  std::unique_ptr<ring_buffer, RingDeleter> ring;
  const std::function<void(const Denial&)>* each = nullptr;

  /// Holds back other feeders.
  class Turn {
   public:
    explicit Turn(int folder) : folder_{folder} {
      while (::flock(folder_, LOCK_EX) != 0 && errno == EINTR) {
      }
    }
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;
    ~Turn() { ::flock(folder_, LOCK_UN); }

   private:
    int folder_;
  };

  [[nodiscard]] Result<hf_guard_process> identify(int pidfd) const;
  [[nodiscard]] Result<std::uint32_t> slot_for(const hf_guard_device& device);
  [[nodiscard]] Result<> check_free(const device::Node& node, Mode mode) const;
  [[nodiscard]] Result<> enter(std::uint32_t number, const hf_guard_process& owner, std::uint64_t until, bool helper);
  [[nodiscard]] std::optional<std::uint32_t> owned_alone(const hf_guard_device& device,
                                                         const hf_guard_process& owner) const;
  [[nodiscard]] Result<> exchange(std::uint32_t number, const hf_guard_process& next, std::uint64_t until) const;
  void go_back_to(const hf_guard_owner_key& key, hf_guard_owner entry) const;
  [[nodiscard]] Result<Enforced> begin(const Owner& owner, std::optional<BootClock::time_point> until);
  void end(const Enforced& claim) noexcept;
  [[nodiscard]] bool put(const hf_guard_owner_key& key, const hf_guard_owner& entry) const;
  [[nodiscard]] std::vector<hf_guard_owner_key> all_owners() const;
  void sweep() const;
  [[nodiscard]] std::vector<std::int64_t> counted_too_often() const;
  void recount() const;
  void leave(const hf_guard_device& device, const hf_guard_process& owner) noexcept;
  [[nodiscard]] Result<> enlist(const hf_guard_process& process, std::uint32_t tree) const;
  void discharge(const hf_guard_process& process, std::uint32_t tree) const noexcept;
  void filter(const hf_guard_device& device, int more) const noexcept;
  void extend(std::uint32_t number, std::uint64_t until) const noexcept;
};

Guard::Guard(std::unique_ptr<State> state) noexcept : state_{std::move(state)} {}
Guard::Guard(Guard&&) noexcept = default;
Guard& Guard::operator=(Guard&&) noexcept = default;
Guard::~Guard() = default;

Result<Guard> Guard::open(const Places& places, const base::Places& system) {
  auto state = std::make_unique<State>();
  state->places = places;
  state->system = system;
  const auto get = [&](base::UniqueFd& fd, const char* name) -> Result<> {
    auto pinned = guard::pinned(places, name);
    if (!pinned) return std::unexpected(std::move(pinned.error()));
    fd = std::move(*pinned);
    return {};
  };
  base::UniqueFd slots;
  base::UniqueFd switches;
  const std::array<std::pair<base::UniqueFd*, const char*>, 9> wanted{
      {{&state->guarded, "map_guarded"},
       {&state->owners, "map_owners"},
       {&state->processes, "map_processes"},
       {&state->trees, "map_trees"},
       {&state->denials, "map_denials"},
       {&state->who, "program_hf_who"},
       {&state->iterate_mappings, "program_hf_mappings"},
       {&slots, "map_slots"},
       {&switches, "map_switches"}}};
  for (const auto& [fd, name] : wanted)
    if (auto got = get(*fd, name); !got) return std::unexpected(std::move(got.error()));
  auto turn = open_pins(places);
  if (!turn) return std::unexpected(std::move(turn.error()));
  state->turn = std::move(*turn);
  state->slots = Shared<hf_guard_slot>{slots.get(), HF_GUARD_SLOTS};
  state->switches = Shared<hf_guard_switches>{switches.get(), 1};
  if (!state->slots || !state->switches) return std::unexpected(map_fault("map its counters"));
  return Guard{std::move(state)};
}

Result<hf_guard_process> Guard::State::identify(int pidfd) const {
  union bpf_iter_link_info which{};
  which.task.pid_fd = static_cast<std::uint32_t>(pidfd);
  bpf_link_create_opts options{};
  options.sz = sizeof options;
  options.iter_info = &which;
  options.iter_info_len = sizeof which;
  const base::UniqueFd link{bpf_link_create(who.get(), 0, BPF_TRACE_ITER, &options)};
  if (!link && errno == ESRCH) return std::unexpected(base::failure(errc::not_held, "the owner is dead", {}));
  if (!link) return std::unexpected(map_fault("look for the owner"));
  const base::UniqueFd iterator{bpf_iter_create(link.get())};
  hf_guard_process found{};
  if (!iterator || ::read(iterator.get(), &found, sizeof found) != static_cast<ssize_t>(sizeof found))
    return std::unexpected(base::failure(errc::not_held, "the owner is dead", {}));
  return found;
}

Result<std::uint32_t> Guard::State::slot_for(const hf_guard_device& device) {
  std::uint32_t number = 0;
  if (bpf_map_lookup_elem(guarded.get(), &device, &number) == 0) return number;
  for (number = 0; number < HF_GUARD_SLOTS; ++number) {
    hf_guard_slot& slot = slots[number];
    if (std::atomic_ref{slot.owners}.load() > 0) continue;
    static constexpr hf_guard_device kNone{};
    if (!same(slot.device, kNone)) {
      bpf_map_delete_elem(guarded.get(), &slot.device);
      filter(slot.device, -1);
    }
    slot.device = device;
    filter(device, +1);
    if (bpf_map_update_elem(guarded.get(), &device, &number, BPF_ANY) != 0)
      return std::unexpected(map_fault("a device more"));
    return number;
  }
  return std::unexpected(
      base::failure(errc::no_resources, fmt::format("the guard: more than {} devices", HF_GUARD_SLOTS), {}));
}

void Guard::State::filter(const hf_guard_device& device, int more) const noexcept {
  std::atomic_ref{switches[0].filter[hf_guard_hash(&device)]}.fetch_add(static_cast<__u16>(more));
}

Result<> Guard::State::check_free(const device::Node& node, Mode mode) const {
  const hf_guard_device key = key_of(node.id);
  std::uint32_t number = 0;
  if (mode == Mode::shared || bpf_map_lookup_elem(guarded.get(), &key, &number) != 0) return {};
  hf_guard_slot& slot = slots[number];
  const std::uint64_t until = slot.until;
  if (std::atomic_ref{slot.owners}.load() <= 0 || (until != 0 && until <= count_of(BootClock::now()))) return {};
  return std::unexpected(
      base::failure(errc::refused, fmt::format("{} is guarded for another claim", node.path), node.path));
}

// The entry first, then the count: when the owner dies between the two, the kernel counts it off before we count it.
Result<> Guard::State::enter(std::uint32_t number, const hf_guard_process& owner, std::uint64_t until, bool helper) {
  hf_guard_slot& slot = slots[number];
  hf_guard_owner_key key{};
  key.device = slot.device;
  key.owner = owner;
  hf_guard_owner entry{};
  if (bpf_map_lookup_elem(owners.get(), &key, &entry) == 0 && entry.generation == slot.generation) {
    if (helper) return {};
    if (entry.helper == 0) {
      ++entry.claims;
      entry.until = entry.until == 0 || until == 0 ? 0 : std::max<std::uint64_t>(entry.until, until);
      extend(number, until);
      if (bpf_map_update_elem(owners.get(), &key, &entry, BPF_EXIST) != 0)
        return std::unexpected(map_fault("an owner more"));
      return {};
    }
  }
  if (!helper && std::atomic_ref{slot.owners}.load() <= 0) begin_generation(slot);
  entry = {};
  entry.until = until;
  entry.slot = number;
  entry.generation = slot.generation;
  entry.helper = helper ? 1 : 0;
  entry.claims = 1;
  if (!put(key, entry)) return std::unexpected(map_fault("an owner more"));
  if (helper) return {};
  extend(number, until);
  add(slot.owners, 1);
  add(switches[0].active, 1);
  return {};
}

// The slot's number.
std::optional<std::uint32_t> Guard::State::owned_alone(const hf_guard_device& device,
                                                       const hf_guard_process& owner) const {
  hf_guard_owner_key key{};
  key.device = device;
  key.owner = owner;
  hf_guard_owner entry{};
  if (bpf_map_lookup_elem(owners.get(), &key, &entry) != 0 || entry.helper != 0 || entry.claims != 1)
    return std::nullopt;
  hf_guard_slot& slot = slots[entry.slot];
  const bool alone = std::atomic_ref{slot.owners}.load() == 1 && entry.generation == slot.generation;
  return alone ? std::optional{entry.slot} : std::nullopt;
}

// Entries count when they are of the slot's generation. The next one's is made for the generation to come, and the step
// to that takes the device from the one and gives it to the other. Both are in the slot's number of owners meanwhile,
// so that, whoever of them dies when, and wherever the feeder is killed, nobody else is let in.
Result<> Guard::State::exchange(std::uint32_t number, const hf_guard_process& next, std::uint64_t until) const {
  hf_guard_slot& slot = slots[number];
  hf_guard_owner_key key{};
  key.device = slot.device;
  key.owner = next;
  hf_guard_owner entry{};
  entry.until = until;
  entry.slot = number;
  entry.generation = slot.generation + 1;
  entry.claims = 1;
  if (!put(key, entry)) return std::unexpected(map_fault("the next owner"));
  add(slot.owners, 1);
  add(switches[0].active, 1);
  extend(number, until);
  slot.denials = slot.unreported = slot.reported = 0;
  std::atomic_ref{slot.generation}.fetch_add(1);
  std::atomic_ref{slot.until}.store(until);
  return {};
}

// Of an owner whose device was on its way to the next one when the feeder was killed.
void Guard::State::go_back_to(const hf_guard_owner_key& key, hf_guard_owner entry) const {
  hf_guard_slot& slot = slots[entry.slot];
  if (entry.generation == slot.generation) return;
  entry.generation = slot.generation;
  if (bpf_map_update_elem(owners.get(), &key, &entry, BPF_EXIST) == 0) std::atomic_ref{slot.until}.store(entry.until);
}

bool Guard::State::put(const hf_guard_owner_key& key, const hf_guard_owner& entry) const {
  if (bpf_map_update_elem(owners.get(), &key, &entry, BPF_ANY) == 0) return true;
  if (errno != E2BIG) return false;
  sweep();
  return bpf_map_update_elem(owners.get(), &key, &entry, BPF_ANY) == 0;
}

std::vector<hf_guard_owner_key> Guard::State::all_owners() const {
  std::vector<hf_guard_owner_key> keys;
  hf_guard_owner_key key{};
  // The kernel may take entries away meanwhile, and then the walk begins anew: so it has an end of its own.
  bool more = bpf_map_get_next_key(owners.get(), nullptr, &key) == 0;
  while (more && keys.size() < std::size_t{2} * HF_GUARD_OWNERS) {
    keys.push_back(key);
    more = bpf_map_get_next_key(owners.get(), &keys.back(), &key) == 0;
  }
  return keys;
}

// Helpers of devices that nobody owns any more are of no use, and a feeder leaves one behind for each device.
void Guard::State::sweep() const {
  for (const hf_guard_owner_key& key : all_owners()) {
    hf_guard_owner entry{};
    if (bpf_map_lookup_elem(owners.get(), &key, &entry) != 0 || entry.helper == 0) continue;
    hf_guard_slot& slot = slots[entry.slot];
    const bool is_used =
        same(slot.device, key.device) && slot.generation == entry.generation && std::atomic_ref{slot.owners}.load() > 0;
    if (!is_used) bpf_map_delete_elem(owners.get(), &key);
  }
}

// How many owners each slot counts beyond its entries, and, last, how many all of them do.
std::vector<std::int64_t> Guard::State::counted_too_often() const {
  std::vector<std::int64_t> more(HF_GUARD_SLOTS + 1);
  for (std::uint32_t number = 0; number < HF_GUARD_SLOTS; ++number)
    more[number] = std::atomic_ref{slots[number].owners}.load();
  more.back() = std::atomic_ref{switches[0].active}.load();
  for (const hf_guard_owner_key& key : all_owners()) {
    hf_guard_owner entry{};
    if (bpf_map_lookup_elem(owners.get(), &key, &entry) != 0 || entry.helper != 0) continue;
    --more[entry.slot];
    --more.back();
  }
  return more;
}

// A feeder that is killed between an entry and its count leaves the two unequal. They are so for a moment, too, when
// the kernel takes away an owner that dies: so only what stays unequal is mended.
void Guard::State::recount() const {
  constexpr int kLongerThanADeathMs = 20;
  const auto is_right = [](std::int64_t more) { return more == 0; };
  const auto before = counted_too_often();
  if (std::ranges::all_of(before, is_right)) return;
  ::poll(nullptr, 0, kLongerThanADeathMs);
  const auto still = counted_too_often();
  for (std::uint32_t number = 0; number < HF_GUARD_SLOTS; ++number)
    if (before[number] == still[number]) add(slots[number].owners, static_cast<int>(-still[number]));
  if (before.back() == still.back()) add(switches[0].active, static_cast<int>(-still.back()));
}

void Guard::State::extend(std::uint32_t number, std::uint64_t until) const noexcept {
  hf_guard_slot& slot = slots[number];
  const bool alone = std::atomic_ref{slot.owners}.load() <= 0;
  const std::uint64_t now = slot.until;
  const bool endless = until == 0 || (!alone && now == 0);
  std::atomic_ref{slot.until}.store(endless ? 0 : alone ? until : std::max(now, until));
}

void Guard::State::leave(const hf_guard_device& device, const hf_guard_process& owner) noexcept {
  hf_guard_owner_key key{};
  key.device = device;
  key.owner = owner;
  hf_guard_owner entry{};
  if (bpf_map_lookup_elem(owners.get(), &key, &entry) != 0) return;
  if (entry.helper == 0 && entry.claims > 1 && entry.generation == slots[entry.slot].generation) {
    --entry.claims;
    bpf_map_update_elem(owners.get(), &key, &entry, BPF_EXIST);
    return;
  }
  if (bpf_map_delete_elem(owners.get(), &key) != 0 || entry.helper != 0) return;
  add(slots[entry.slot].owners, -1);
  add(switches[0].active, -1);
}

Result<> Guard::State::enlist(const hf_guard_process& process, std::uint32_t tree) const {
  hf_guard_member member{};
  bpf_map_lookup_elem(processes.get(), &process, &member);
  ++member.claims;
  if (tree != 0) {
    const auto free = std::ranges::find(member.trees, 0U);
    if (free == std::end(member.trees))
      return std::unexpected(base::failure(
          errc::no_resources, fmt::format("the guard: a process is in more than {} trees", HF_GUARD_TREES), {}));
    *free = tree;
  }
  if (bpf_map_update_elem(processes.get(), &process, &member, BPF_ANY) != 0)
    return std::unexpected(map_fault("a process more"));
  return {};
}

void Guard::State::discharge(const hf_guard_process& process, std::uint32_t tree) const noexcept {
  hf_guard_member member{};
  if (bpf_map_lookup_elem(processes.get(), &process, &member) != 0) return;
  if (member.claims > 0) --member.claims;
  if (tree != 0) std::ranges::replace(member.trees, tree, 0U);
  const bool idle = member.claims == 0 && std::ranges::all_of(member.trees, [](std::uint32_t one) { return one == 0; });
  if (idle)
    bpf_map_delete_elem(processes.get(), &process);
  else
    bpf_map_update_elem(processes.get(), &process, &member, BPF_EXIST);
}

// The process, and the tree if it is to own as one.
Result<Enforced> Guard::State::begin(const Owner& owner, std::optional<BootClock::time_point> until) {
  const auto process = identify(owner.pidfd);
  if (!process) return std::unexpected(process.error());
  Enforced claim;
  claim.root = claim.owner = *process;
  claim.until = until;
  std::uint32_t tree = 0;
  if (owner.scope == OwnerScope::tree) {
    tree = ++switches[0].latest_tree;
    hf_guard_tree value{};
    value.members = 1;
    value.until_last = owner.ends == Owner::Ends::with_last_member ? 1 : 0;
    value.root = *process;
    if (bpf_map_update_elem(trees.get(), &tree, &value, BPF_ANY) != 0) return std::unexpected(map_fault("a tree more"));
    claim.owner = {};
    claim.owner.start = tree;
  }
  if (auto enlisted = enlist(*process, tree); !enlisted) {
    if (tree != 0) bpf_map_delete_elem(trees.get(), &tree);
    return std::unexpected(std::move(enlisted.error()));
  }
  return claim;
}

Result<Enforced> Guard::enforce(std::span<const device::Node> nodes, const Owner& owner, Mode mode,
                                std::optional<BootClock::time_point> until) {
  const Vital machine = vital(state_->system);
  for (const device::Node& node : nodes)
    if (const auto why = never_guarded(node.id, machine))
      return std::unexpected(
          base::failure(errc::not_permitted, fmt::format("{} is never guarded: {}", node.path, *why), node.path));
  const State::Turn turn{state_->turn.get()};
  for (const device::Node& node : nodes)
    if (auto free = state_->check_free(node, mode); !free) return std::unexpected(std::move(free.error()));
  // Before the first entry is made: what is told must be true from then on.
  if (auto watching = watch(state_->places); !watching) return std::unexpected(std::move(watching.error()));
  auto begun = state_->begin(owner, until);
  if (!begun) return begun;
  Enforced& claim = *begun;
  const base::UniqueFd self{static_cast<int>(::syscall(SYS_pidfd_open, ::getpid(), 0))};
  const auto feeder = state_->identify(self.get());
  const auto undone = [&](Error error) {
    state_->end(claim);
    return std::unexpected(std::move(error));
  };
  if (!feeder) return undone(feeder.error());
  for (const device::Node& node : nodes) {
    const hf_guard_device key = key_of(node.id);
    const auto slot = state_->slot_for(key);
    if (!slot) return undone(slot.error());
    if (auto entered = state_->enter(*slot, claim.owner, count_of(until), false); !entered)
      return undone(entered.error());
    claim.devices.push_back(key);
    if (same(*feeder, claim.owner)) continue;
    if (auto entered = state_->enter(*slot, *feeder, 0, true); !entered) return undone(entered.error());
  }
  if (auto enlisted = state_->enlist(*feeder, 0); !enlisted) return undone(enlisted.error());
  // One that died before its entries were made has no death to come that would take them away.
  if (is_dead(owner.pidfd)) return undone(base::failure(errc::not_held, "the owner is dead", {}));
  return claim;
}

Result<Enforced> Guard::hand_over(const Enforced& from, std::span<const device::Node> nodes, const Owner& owner,
                                  std::optional<BootClock::time_point> until) {
  const Vital machine = vital(state_->system);
  const State::Turn turn{state_->turn.get()};
  std::vector<std::uint32_t> slots;
  for (const device::Node& node : nodes) {
    const auto slot = state_->owned_alone(key_of(node.id), from.owner);
    if (!slot || nodes.size() != from.devices.size() || never_guarded(node.id, machine))
      return std::unexpected(
          base::failure(errc::refused, fmt::format("{} cannot be handed over", node.path), node.path));
    slots.push_back(*slot);
  }
  auto claim = state_->begin(owner, until);
  if (!claim) return claim;
  claim->devices = from.devices;
  const base::UniqueFd self{static_cast<int>(::syscall(SYS_pidfd_open, ::getpid(), 0))};
  const auto feeder = state_->identify(self.get());
  auto done = feeder ? state_->enlist(*feeder, 0) : Result<>{std::unexpected(feeder.error())};
  if (done && same(claim->owner, from.owner))  // two claims of one process are one entry
    done = std::unexpected(base::failure(errc::refused, "the guard: the next owner is the same", {}));
  for (const std::uint32_t slot : slots)
    if (done) done = state_->exchange(slot, claim->owner, count_of(until));
  if (done) state_->end(from);
  for (const std::uint32_t slot : slots)
    if (done && !same(*feeder, claim->owner)) done = state_->enter(slot, *feeder, 0, true);
  if (done && is_dead(owner.pidfd)) done = std::unexpected(base::failure(errc::not_held, "the owner is dead", {}));
  if (done) return claim;
  state_->end(*claim);
  return std::unexpected(std::move(done.error()));
}

Result<> Guard::admit(const Enforced& claim, int pidfd) {
  const State::Turn turn{state_->turn.get()};
  const auto process = state_->identify(pidfd);
  if (!process) return std::unexpected(process.error());
  if (auto enlisted = state_->enlist(*process, 0); !enlisted) return enlisted;
  for (const hf_guard_device& device : claim.devices) {
    std::uint32_t number = 0;
    if (bpf_map_lookup_elem(state_->guarded.get(), &device, &number) != 0) continue;
    if (auto entered = state_->enter(number, *process, 0, true); !entered) return entered;
  }
  if (!is_dead(pidfd)) return {};
  state_->discharge(*process, 0);
  return std::unexpected(base::failure(errc::not_held, "the helper is dead", {}));
}

Result<> Guard::renew(Enforced& claim, std::optional<BootClock::time_point> until) {
  const State::Turn turn{state_->turn.get()};
  for (const hf_guard_device& device : claim.devices) {
    hf_guard_owner_key key{};
    key.device = device;
    key.owner = claim.owner;
    hf_guard_owner entry{};
    if (bpf_map_lookup_elem(state_->owners.get(), &key, &entry) != 0)
      return std::unexpected(base::failure(errc::not_held, "the claim is not guarded any more", {}));
    // The slot first: between the two the owner may be refused, but nobody else is let in.
    state_->extend(entry.slot, count_of(until));
    entry.until = count_of(until);
    if (bpf_map_update_elem(state_->owners.get(), &key, &entry, BPF_EXIST) != 0)
      return std::unexpected(base::failure(errc::not_held, "the claim is not guarded any more", {}));
  }
  claim.until = until;
  return {};
}

void Guard::State::end(const Enforced& claim) noexcept {
  for (const hf_guard_device& device : claim.devices) leave(device, claim.owner);
  const std::uint32_t tree = claim.owner.tgid == 0 ? static_cast<std::uint32_t>(claim.owner.start) : 0;
  discharge(claim.root, tree);
  if (tree != 0) bpf_map_delete_elem(trees.get(), &tree);
}

void Guard::release(const Enforced& claim) noexcept {
  const State::Turn turn{state_->turn.get()};
  state_->end(claim);
}

std::size_t Guard::settle(std::span<const Enforced> known) {
  const State::Turn turn{state_->turn.get()};
  state_->recount();
  std::size_t ended = 0;
  for (const hf_guard_owner_key& key : state_->all_owners()) {
    hf_guard_owner entry{};
    if (bpf_map_lookup_elem(state_->owners.get(), &key, &entry) != 0 || entry.helper != 0) continue;
    const auto stands_for = std::ranges::count_if(known, [&](const Enforced& claim) {
      return same(claim.owner, key.owner) &&
             std::ranges::any_of(claim.devices, [&](const hf_guard_device& one) { return same(one, key.device); });
    });
    if (stands_for > 0) state_->go_back_to(key, entry);
    if (stands_for >= entry.claims) continue;
    entry.claims = static_cast<std::uint32_t>(std::max<std::ptrdiff_t>(stands_for, 1));
    bpf_map_update_elem(state_->owners.get(), &key, &entry, BPF_EXIST);
    if (stands_for != 0) continue;
    state_->leave(key.device, key.owner);
    const auto tree = static_cast<std::uint32_t>(key.owner.start);
    if (key.owner.tgid == 0) bpf_map_delete_elem(state_->trees.get(), &tree);
    ++ended;
  }
  return ended;
}

void Guard::rest() noexcept {
  const State::Turn turn{state_->turn.get()};
  if (std::atomic_ref{state_->switches[0].active}.load() <= 0) guard::rest(state_->places);
}

bool Guard::is_watching() const noexcept { return guard::is_watching(state_->places); }

Result<int> Guard::denials_fd() {
  if (!state_->ring) {
    const auto take = [](void* raw, void* data, std::size_t size) -> int {
      const auto& state = *static_cast<State*>(raw);
      hf_guard_denial seen{};
      if (size < sizeof seen || state.each == nullptr) return 0;
      std::memcpy(&seen, data, sizeof seen);
      Denial denial;
      denial.device = id_of(seen.device);
      denial.pid = static_cast<pid_t>(seen.who.tgid);
      denial.uid = seen.uid;
      denial.command = base::printable({seen.command, ::strnlen(seen.command, sizeof seen.command)}, 32);
      denial.operation = static_cast<hf_guard_operation>(seen.operation);
      denial.before = seen.before;
      (*state.each)(denial);
      return 0;
    };
    state_->ring.reset(ring_buffer__new(state_->denials.get(), take, state_.get(), nullptr));
    if (!state_->ring) return std::unexpected(map_fault("listen to denials"));
  }
  return ring_buffer__epoll_fd(state_->ring.get());
}

void Guard::drain(const std::function<void(const Denial&)>& each) {
  if (!denials_fd()) return;
  state_->each = &each;
  ring_buffer__consume(state_->ring.get());
  state_->each = nullptr;
}

std::vector<Guarded> Guard::status() const {
  std::vector<Guarded> found;
  for (std::uint32_t number = 0; number < HF_GUARD_SLOTS; ++number) {
    hf_guard_slot& slot = state_->slots[number];
    const std::int64_t owners = std::atomic_ref{slot.owners}.load();
    if (owners > 0) found.push_back({id_of(slot.device), owners, slot.denials, time_of(slot.until)});
  }
  return found;
}

std::vector<Mapping> Guard::mappings() const {
  const base::UniqueFd link{bpf_link_create(state_->iterate_mappings.get(), 0, BPF_TRACE_ITER, nullptr)};
  const base::UniqueFd iterator{link ? bpf_iter_create(link.get()) : -1};
  std::vector<Mapping> found;
  struct {
    hf_guard_device device;
    hf_guard_process who;
    std::uint32_t fd;
    std::uint32_t zero;
  } one{};
  while (iterator && ::read(iterator.get(), &one, sizeof one) == static_cast<ssize_t>(sizeof one)) {
    const Mapping mapping{id_of(one.device), static_cast<pid_t>(one.who.tgid)};
    const bool known = std::ranges::any_of(
        found, [&](const Mapping& other) { return other.pid == mapping.pid && other.device == mapping.device; });
    if (!known) found.push_back(mapping);
  }
  return found;
}

void Guard::set_memory(Memory memory) noexcept {
  std::atomic_ref{state_->switches[0].protect_memory}.store(memory == Memory::guarded ? 1 : 0);
}

hf_guard_switches Guard::switches() const noexcept { return state_->switches[0]; }

}  // namespace holdfast::guard
