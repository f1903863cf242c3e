// SPDX-License-Identifier: MIT
// kernel_guard.cpp - see the header.
#include "broker/kernel_guard.hpp"

#include "base/error.hpp"
#include "broker/path_watch.hpp"

#include <utility>

#ifdef HOLDFAST_HAS_GUARD

#include <fmt/format.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <fstream>
#include <sstream>

namespace holdfast::broker {

using namespace std::chrono_literals;

struct KernelGuard::State {
  guard::Places pins;
  std::string name = pins.pins + "/map_switches";
  PathWatch nothing_there{name};
  std::optional<guard::Guard> guard;
  std::uint64_t number = 0;  // of the pin behind `guard`
  std::string complaint;     // the last
};

namespace {

// Attaching the hooks anew delays a grant by some milliseconds.
constexpr arbiter::Duration kRestAfter = 30s;

// The very process, though its number may be another's soon.
Result<base::UniqueFd> pidfd_of(const base::ProcessId& process) {
  base::UniqueFd pidfd{static_cast<int>(::syscall(SYS_pidfd_open, process.pid, 0))};
  const auto facts = pidfd ? base::facts_of(process.pid) : std::nullopt;
  if (facts && facts->id == process) return pidfd;
  return std::unexpected(base::failure(errc::not_held, fmt::format("process {} is dead", process.pid), {}));
}

// Its shell would be shut out of the terminal at which the claim was asked for.
bool is_terminal_of(const device::DeviceId& id, pid_t pid, const base::Places& places) {
  std::ifstream file{fmt::format("{}/{}/stat", places.proc, pid)};
  std::string text;
  std::getline(file, text);
  std::istringstream fields{text.substr(std::min(text.rfind(')') + 1, text.size()))};
  std::string ignored;
  unsigned number = 0;  // proc_pid_stat(5), field 7: minor 0-7 and 20-31, major 8-19
  fields >> ignored >> ignored >> ignored >> ignored >> number;
  const unsigned major = number >> 8U & 0xfffU;
  const unsigned minor = (number & 0xffU) | (number >> 12U & 0xfff00U);
  return number != 0 && id.kind == device::Kind::character && id.major == major && id.minor == minor;
}

}  // namespace

KernelGuard::KernelGuard(GuardUse use, const Log& log, const Clock& clock, base::Places places)
    : use_{use}, log_{log}, clock_{clock}, places_{std::move(places)}, state_{std::make_unique<State>()} {
  if (use != GuardUse::off) ready_.reset(::epoll_create1(EPOLL_CLOEXEC));
}

KernelGuard::~KernelGuard() = default;

Result<> KernelGuard::install() {
  if (const auto missing = guard::lacks(); !missing.empty())
    return std::unexpected(
        base::failure(errc::system_fault, fmt::format("{}: {}", missing.front().what, missing.front().remedy), {}));
  return guard::install();
}

std::uint64_t KernelGuard::installed() {
  if (use_ == GuardUse::off) return 0;
  const auto pinned = [&]() -> std::uint64_t {
    struct stat pin{};
    return ::stat(state_->name.c_str(), &pin) == 0 ? pin.st_ino : 0;
  };
  if (state_->number == 0 && state_->nothing_there.is_quiet()) return 0;
  std::uint64_t now = pinned();
  if (now == 0 && state_->nothing_there.start()) {
    now = pinned();
    if (now != 0) state_->nothing_there.stop();
  }
  if (now == state_->number) return now;
  state_->guard.reset();
  state_->number = 0;
  if (now == 0) {
    log_.say(Level::notice, "the guard was switched off");
    return 0;
  }
  if (!open()) return 0;
  return state_->number = now;
}

bool KernelGuard::open() {
  auto opened = guard::Guard::open(state_->pins, places_);
  const auto ring = opened ? opened->denials_fd() : Result<int>{std::unexpected(opened.error())};
  if (!ring) {
    if (std::exchange(state_->complaint, ring.error().message) != ring.error().message)
      log_.say(Level::warning, fmt::format("the guard cannot be used: {}", ring.error().message));
    return false;
  }
  epoll_event wanted{};
  wanted.events = EPOLLIN;
  ::epoll_ctl(ready_.get(), EPOLL_CTL_ADD, *ring, &wanted);
  state_->guard.emplace(std::move(*opened));
  state_->complaint.clear();
  log_.say(Level::notice, "the guard is installed: claims are guarded");
  return true;
}

std::string KernelGuard::lack() {
  if (use_ == GuardUse::off) return "the broker does without the guard: start holdfastd without --guard=off";
  if (!state_->complaint.empty()) return state_->complaint;
  if (const auto missing = guard::lacks(state_->pins); !missing.empty())
    return fmt::format("{}: {}", missing.front().what, missing.front().remedy);
  return "the guard is not installed: `holdfast guard on`";
}

void KernelGuard::take_over(std::span<const guard::Enforced> known) {
  if (installed() == 0) return;
  const auto self = pidfd_of(base::self());
  for (const guard::Enforced& claim : known)
    if (const auto admitted = self ? state_->guard->admit(claim, self->get()) : Result<>{}; !admitted)
      log_.say(Level::warning, admitted.error().message);
  // Our predecessor may have been killed between telling the guard and writing it down.
  if (const std::size_t ended = state_->guard->settle(known); ended > 0)
    log_.say(Level::notice, fmt::format("devices that were guarded for nobody's claim: {}", ended));
  rest_at_ = clock_.now() + kRestAfter;
}

void KernelGuard::advance() {
  if (!rest_at_ || clock_.now() < *rest_at_) return;
  rest_at_.reset();
  if (state_->guard) state_->guard->rest();
}

Result<guard::Enforced> KernelGuard::enforce(const Wish& wish) { return tell(wish, nullptr); }

Result<guard::Enforced> KernelGuard::hand_over(const guard::Enforced& from, const Wish& wish) {
  return tell(wish, &from);
}

Result<guard::Enforced> KernelGuard::tell(const Wish& wish, const guard::Enforced* from) {
  if (installed() == 0) return std::unexpected(base::failure(errc::system_fault, lack(), {}));
  const auto owner = pidfd_of(wish.owner);
  if (!owner) return std::unexpected(owner.error());
  for (const device::Node& node : wish.nodes)
    for (const base::ProcessId& process : {wish.owner, wish.helper.value_or(wish.owner)})
      if (is_terminal_of(node.id, process.pid, places_))
        return std::unexpected(base::failure(
            errc::not_permitted,
            fmt::format("{} is not guarded: it is the controlling terminal of process {}", node.path, process.pid),
            node.path));
  const guard::Owner who{.pidfd = owner->get(), .scope = wish.scope, .ends = wish.ends};
  const auto until = boot_time(wish.until);
  auto enforced = from != nullptr ? state_->guard->hand_over(*from, wish.nodes, who, until)
                                  : state_->guard->enforce(wish.nodes, who, wish.mode, until);
  if (!enforced || !wish.helper) return enforced;
  const auto helper = pidfd_of(*wish.helper);
  if (!helper) return enforced;  // it is dead and needs nothing
  if (auto admitted = state_->guard->admit(*enforced, helper->get()); !admitted) {
    state_->guard->release(*enforced);
    return std::unexpected(std::move(admitted.error()));
  }
  return enforced;
}

Result<> KernelGuard::renew(guard::Enforced& claim, std::optional<arbiter::Time> until) {
  if (!state_->guard) return std::unexpected(base::failure(errc::not_held, "the guard is gone", {}));
  return state_->guard->renew(claim, boot_time(until));
}

void KernelGuard::release(const guard::Enforced& claim) {
  if (!state_->guard) return;
  state_->guard->release(claim);
  rest_at_ = clock_.now() + kRestAfter;
}

std::uint64_t KernelGuard::denials(const device::DeviceId& device) {
  if (!state_->guard) return 0;
  const auto all = state_->guard->status();
  const auto found = std::ranges::find(all, device, &guard::Guarded::device);
  return found == all.end() ? 0 : found->denials;
}

void KernelGuard::drain(const std::function<void(const Denial&)>& each) {
  if (!state_->guard) return;
  state_->guard->drain([&](const guard::Denial& seen) {
    Denial denial;
    denial.device = seen.device;
    denial.who.pid = seen.pid;
    denial.who.command = seen.command;
    denial.who.user = base::user_name(seen.uid);
    denial.operation = guard::to_string(seen.operation);
    denial.before = seen.before;
    each(denial);
  });
}

// The same instant on the clock that the kernel's side reads.
std::optional<guard::BootClock::time_point> KernelGuard::boot_time(std::optional<arbiter::Time> until) const {
  if (!until || *until == arbiter::Time::max()) return std::nullopt;
  const auto now = guard::BootClock::now();
  const arbiter::Duration left = *until - clock_.now();
  if (left > guard::BootClock::time_point::max() - now) return std::nullopt;
  return now + left;
}

}  // namespace holdfast::broker

#else

namespace holdfast::broker {

struct KernelGuard::State {};

KernelGuard::KernelGuard(GuardUse use, const Log& log, const Clock& clock, base::Places places)
    : use_{use}, log_{log}, clock_{clock}, places_{std::move(places)} {}
KernelGuard::~KernelGuard() = default;
Result<> KernelGuard::install() {
  return std::unexpected(base::failure(errc::system_fault, "this broker was built without the guard", {}));
}
void KernelGuard::take_over(std::span<const guard::Enforced> /*known*/) {}
std::uint64_t KernelGuard::installed() { return 0; }
std::string KernelGuard::lack() { return "this broker was built without the guard: build it with clang and libbpf"; }
Result<guard::Enforced> KernelGuard::enforce(const Wish& /*wish*/) {
  return std::unexpected(base::failure(errc::system_fault, lack(), {}));
}
Result<guard::Enforced> KernelGuard::hand_over(const guard::Enforced& /*from*/, const Wish& wish) {
  return enforce(wish);
}
Result<> KernelGuard::renew(guard::Enforced& /*claim*/, std::optional<arbiter::Time> /*until*/) { return {}; }
void KernelGuard::release(const guard::Enforced& /*claim*/) {}
std::uint64_t KernelGuard::denials(const device::DeviceId& /*device*/) { return 0; }
void KernelGuard::drain(const std::function<void(const Denial&)>& /*each*/) {}
void KernelGuard::advance() {}

}  // namespace holdfast::broker

#endif
