// SPDX-License-Identifier: MIT
// claim.cpp - the front door's Claim: a Holding that belongs to one process, whichever thread uses it, and that a
// forked child can neither use, keep open, nor give back.
#include <holdfast/claim.hpp>

#include "base/error.hpp"
#include "claim/holding.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <mutex>
#include <utility>

namespace holdfast {

struct Claim::State {
  explicit State(claiming::Holding taken) : holding{std::move(taken)} {}

  // In a forked child the descriptors are closed already (base/process_fd.hpp), and `mutex` may be held for ever by a
  // thread that is not there: a child touches nothing of this.
  [[nodiscard]] bool is_ours() const noexcept { return ::getpid() == owner; }

  std::mutex mutex;
  claiming::Holding holding;
  const pid_t owner = ::getpid();
  bool released = false;
};

namespace {

Error not_held() {
  return base::failure(errc::not_held,
                       "the claim is not held by this process: it was released, moved away, or inherited by fork", {});
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
  return !state_->released;
}

void Claim::release() noexcept {
  if (!state_ || !state_->is_ours()) return;
  const std::lock_guard guard{state_->mutex};
  if (std::exchange(state_->released, true)) return;
  state_->holding.give_back();
}

Result<int> Claim::fd(std::size_t index) {
  if (!held()) return std::unexpected(not_held());
  const std::lock_guard guard{state_->mutex};
  if (state_->released) return std::unexpected(not_held());
  return state_->holding.use_fd(index);
}

Result<> Claim::check() {
  if (!held()) return std::unexpected(not_held());
  const std::lock_guard guard{state_->mutex};
  if (state_->released) return std::unexpected(not_held());
  return state_->holding.check();
}

Result<int> Claim::notice_fd() {
  if (!held()) return std::unexpected(not_held());
  const std::lock_guard guard{state_->mutex};
  if (state_->released) return std::unexpected(not_held());
  return state_->holding.notice_fd();
}

Result<> Claim::downgrade() {
  if (!held()) return std::unexpected(not_held());
  const std::lock_guard guard{state_->mutex};
  if (state_->released) return std::unexpected(not_held());
  return state_->holding.downgrade();
}

Result<> Claim::upgrade() {
  if (!held()) return std::unexpected(not_held());
  const std::lock_guard guard{state_->mutex};
  if (state_->released) return std::unexpected(not_held());
  return state_->holding.upgrade();
}

namespace {

Result<> set_close_on_exec(const claiming::Holding& holding, int flag) {
  for (const int fd : holding.descriptors())
    if (::fcntl(fd, F_SETFD, flag) != 0) return std::unexpected(base::fault(errno, "F_SETFD", {}));
  return {};
}

}  // namespace

Result<> Claim::leave_to_exec() {
  if (!held()) return std::unexpected(not_held());
  const std::lock_guard guard{state_->mutex};
  if (state_->released) return std::unexpected(not_held());
  return set_close_on_exec(state_->holding, 0);
}

Result<> Claim::keep_from_exec() {
  if (!held()) return std::unexpected(not_held());
  const std::lock_guard guard{state_->mutex};
  if (state_->released) return std::unexpected(not_held());
  return set_close_on_exec(state_->holding, FD_CLOEXEC);
}

Mode Claim::mode() const noexcept {
  if (!held()) return Mode::exclusive;
  const std::lock_guard guard{state_->mutex};
  return state_->holding.mode();
}

Enforcement Claim::enforcement() const noexcept {
  if (!held()) return Enforcement::advisory;
  const std::lock_guard guard{state_->mutex};
  return state_->holding.enforcement();
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
  auto holding = claiming::take(devices, options, base::self());
  if (!holding) return std::unexpected(std::move(holding.error()));
  if (options.owner_scope == OwnerScope::tree) holding->share_with_children();
  return Claim{std::make_unique<Claim::State>(std::move(*holding))};
}

Result<Claim> claim(std::string_view device, const Options& options) {
  const std::string one{device};
  return claim(std::span{&one, 1}, options);
}

}  // namespace holdfast
