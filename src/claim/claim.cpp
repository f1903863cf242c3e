// SPDX-License-Identifier: MIT
// claim.cpp - the front door's Claim: a Holding that belongs to one process, whichever thread uses it, and that a
// forked child can neither use, keep open, nor give back.
#include <holdfast/claim.hpp>

#include "base/error.hpp"
#include "claim/brokered.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <mutex>
#include <utility>

namespace holdfast {

struct Claim::State {
  explicit State(claiming::Claimed taken) : holding{std::move(taken.holding)}, ticket{std::move(taken.ticket)} {}

  // In a forked child the descriptors are closed already (base/process_fd.hpp), and `mutex` may be held for ever by a
  // thread that is not there: a child touches nothing of this.
  [[nodiscard]] bool is_ours() const noexcept { return ::getpid() == owner; }

  // What the broker says of it.
  Result<> heed() {
    if (!ticket) return {};
    auto there = ticket->heed(holding);
    if (!there) holding.drop_exclusive();
    return there;
  }

  std::mutex mutex;
  claiming::Holding holding;
  std::unique_ptr<claiming::Ticket> ticket;  // nullptr: the broker knows nothing of the claim
  const pid_t owner = ::getpid();
  bool released = false;
};

namespace {

Error not_held() {
  return base::failure(errc::not_held,
                       "the claim is not held by this process: it was released, moved away, or inherited by fork", {});
}

// `use` of the claim by its owner while it is held; else why it is not.
template <class State, class Use>
auto while_held(State* state, Use use) -> decltype(use(*state)) {
  if (state == nullptr || !state->is_ours()) return std::unexpected(not_held());
  const std::lock_guard guard{state->mutex};
  if (state->released) return std::unexpected(not_held());
  if (state->ticket && state->ticket->ended()) return std::unexpected(*state->ticket->ended());
  return use(*state);
}

Result<> set_close_on_exec(int fd, int flag) {
  if (fd >= 0 && ::fcntl(fd, F_SETFD, flag) != 0) return std::unexpected(base::fault(errno, "F_SETFD", {}));
  return {};
}

// The connection, too: the broker takes its end for the claim's.
template <class State>
Result<> set_close_on_exec(const State& state, int flag) {
  for (const int fd : state.holding.descriptors())
    if (auto set = set_close_on_exec(fd, flag); !set) return set;
  return set_close_on_exec(state.ticket ? state.ticket->fd() : -1, flag);
}

}  // namespace

Claim::Claim() noexcept = default;
Claim::Claim(std::unique_ptr<State> state) noexcept : state_{std::move(state)} {}
Claim::Claim(Claim&& other) noexcept = default;

Claim& Claim::operator=(Claim&& other) noexcept {
  if (this != &other) {
    Claim before{std::exchange(state_, std::move(other.state_))};
  }
  return *this;
}

Claim::~Claim() {
  if (!state_) return;
  // A child's copy is left to the process's end: its descriptors' numbers may be somebody else's by now.
  if (state_->is_ours())
    release();
  else
    static_cast<void>(state_.release());
}

bool Claim::held() const noexcept {
  if (!state_ || !state_->is_ours()) return false;
  const std::lock_guard guard{state_->mutex};
  return !state_->released && !(state_->ticket && state_->ticket->ended());
}

void Claim::release() noexcept {
  if (!state_ || !state_->is_ours()) return;
  const std::lock_guard guard{state_->mutex};
  if (std::exchange(state_->released, true)) return;
  if (state_->ticket)
    state_->ticket->release(state_->holding);
  else
    state_->holding.give_back();
}

Result<int> Claim::fd(std::size_t index) {
  return while_held(state_.get(), [&](State& state) { return state.holding.use_fd(index); });
}

Result<> Claim::check() {
  return while_held(state_.get(), [](State& state) {
    if (auto there = state.heed(); !there) return there;
    return state.holding.check();
  });
}

Result<int> Claim::notice_fd() {
  return while_held(state_.get(), [](State& state) {
    auto fd = state.holding.notice_fd();
    if (fd && state.ticket) state.holding.notice_also(state.ticket->fd());
    return fd;
  });
}

std::vector<Notice> Claim::notices() {
  if (!state_ || !state_->is_ours()) return {};
  const std::lock_guard guard{state_->mutex};
  if (!state_->ticket) return {};
  if (!state_->released) static_cast<void>(state_->heed());
  return state_->ticket->notices();
}

Result<std::chrono::nanoseconds> Claim::renew(std::chrono::nanoseconds lease) {
  return while_held(state_.get(), [&](State& state) -> Result<std::chrono::nanoseconds> {
    if (state.ticket) return state.ticket->renew(state.holding, lease);
    return std::unexpected(base::failure(errc::not_held, "the claim has no time limit: no broker knows of it", {}));
  });
}

std::optional<std::chrono::nanoseconds> Claim::time_left() const {
  if (!held()) return std::nullopt;
  const std::lock_guard guard{state_->mutex};
  return state_->ticket ? state_->ticket->time_left() : std::nullopt;
}

bool Claim::is_brokered() const noexcept { return held() && state_->ticket != nullptr; }

Result<> Claim::downgrade() {
  return while_held(state_.get(), [](State& state) {
    return state.ticket ? state.ticket->downgrade(state.holding) : state.holding.downgrade();
  });
}

Result<> Claim::upgrade() {
  return while_held(state_.get(), [](State& state) {
    return state.ticket ? state.ticket->upgrade(state.holding) : state.holding.upgrade();
  });
}

Result<> Claim::leave_to_exec() {
  return while_held(state_.get(), [](State& state) {
    if (state.ticket) state.ticket->has_copies_elsewhere();
    return set_close_on_exec(state, 0);
  });
}

Result<> Claim::keep_from_exec() {
  return while_held(state_.get(), [](State& state) { return set_close_on_exec(state, FD_CLOEXEC); });
}

Mode Claim::mode() const noexcept {
  if (!held()) return Mode::exclusive;
  const std::lock_guard guard{state_->mutex};
  return state_->holding.mode();
}

Enforcement Claim::enforcement() const noexcept {
  if (!held()) return Enforcement::advisory;
  const std::lock_guard guard{state_->mutex};
  const Enforcement marks = state_->holding.enforcement();
  return state_->ticket ? std::max(marks, state_->ticket->enforcement()) : marks;
}

std::vector<std::string> Claim::nodes() const {
  std::vector<std::string> paths;
  if (!held()) return paths;
  const std::lock_guard guard{state_->mutex};
  for (const claiming::HeldNode& node : state_->holding.nodes()) paths.push_back(node.subject.node.path);
  return paths;
}

std::vector<MarkReport> Claim::report() const {
  if (!held()) return {};
  const std::lock_guard guard{state_->mutex};
  return state_->holding.report();
}

Result<Claim> claim(std::span<const std::string> devices, const Options& options) {
  auto taken = claiming::claim_either_way(devices, options, claiming::Owner::this_process());
  if (!taken) return std::unexpected(std::move(taken.error()));
  if (options.owner_scope == OwnerScope::tree) {
    taken->holding.share_with_children();
    if (taken->ticket) taken->ticket->share_with_children();
  }
  return Claim{std::make_unique<Claim::State>(std::move(*taken))};
}

Result<Claim> claim(std::string_view device, const Options& options) {
  const std::string one{device};
  return claim(std::span{&one, 1}, options);
}

}  // namespace holdfast
