// SPDX-License-Identifier: MIT
// hands.cpp - see the header.
#include "broker/hands.hpp"

#include "base/error.hpp"
#include "broker/desk.hpp"
#include "claim/parcel.hpp"
#include "convention/uucp.hpp"

#include <sys/eventfd.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <utility>

namespace holdfast::broker {

using namespace std::chrono_literals;

namespace {

constexpr std::size_t kMostThreads = 8;
// So long after a stranger was met on a terminal, others are expected there.
constexpr arbiter::Duration kStrangersStay = 10s;

bool is_terminal(device::Family family) {
  return family == device::Family::terminal || family == device::Family::pseudo_terminal;
}

// Closing a serial port waits up to 30 s for what was not sent yet (drivers/tty/tty_port.c, tty_port_close_start()).
bool closes_at_once(const claiming::HeldNode& node) {
  if (!node.file || node.subject.family == device::Family::pseudo_terminal) return true;
  if (node.subject.family != device::Family::terminal) return false;
  int unsent = 0;
  return ::ioctl(node.file.get(), TIOCOUTQ, &unsent) == 0 && unsent == 0;
}

// Where clients may not write, the broker makes their lock files for them; the names are its own.
class InLockDirectory final : public convention::LockDirectoryRights {
 public:
  explicit InLockDirectory(const Permission::Acting& acting) : acting_{acting} {}
  void raise() const override { static_cast<void>(acting_.use(Permission::Rights::lock_files)); }
  void lower() const override {
    // Nodes would be opened for a client with rights that it does not have.
    if (!acting_.use(Permission::Rights::client)) std::abort();
  }

 private:
  const Permission::Acting& acting_;
};

}  // namespace

MarkHands::MarkHands(const Permission& permission, const Clock& clock, base::Places places)
    : permission_{permission},
      clock_{clock},
      places_{std::move(places)},
      ready_{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)} {}

MarkHands::~MarkHands() {
  {
    const std::lock_guard guard{mutex_};
    stopping_ = true;
  }
  wanted_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

MarkHands::Taken MarkHands::take_now(const Taking& taking) const {
  std::vector<device::Device> devices;
  devices.reserve(taking.devices.size());
  for (const auto& device : taking.devices) devices.push_back(*device);
  auto acting = permission_.act_as(taking.speaker->rights);
  if (!acting) return std::unexpected(claiming::Obstruction{convention::faulted(std::move(acting.error())), {}, {}});
  const InLockDirectory rights{*acting};
  return claiming::attempt(devices, taking.options, taking.owner, places_, &rights);
}

bool MarkHands::may_take_long(const Taking& taking) {
  return std::ranges::any_of(taking.devices, [&](const auto& device) {
    if (!is_terminal(device->family)) return true;
    const auto seen = stranger_seen_.find(device->node.id);
    if (seen == stranger_seen_.end()) return false;
    if (clock_.now() < seen->second + kStrangersStay) return true;
    stranger_seen_.erase(seen);
    return false;
  });
}

std::optional<MarkHands::Taken> MarkHands::take(wire::ClaimId claim, const Taking& taking) {
  if (!may_take_long(taking)) {
    Taken result = take_now(taking);
    if (!result && result.error().obstacle.kind == convention::Obstacle::Kind::busy)
      for (const auto& device : taking.devices) stranger_seen_[device->node.id] = clock_.now();
    return result;
  }
  hand_over([this, claim, taking]() -> Answer {
    return [claim, result = take_now(taking)](Desk& desk) mutable { desk.taken(claim, std::move(result)); };
  });
  return std::nullopt;
}

std::optional<MarkHands::Changed> MarkHands::change(wire::ClaimId claim, claiming::Holding holding, Mode mode) {
  const auto change = [mode](claiming::Holding& held) {
    return mode == Mode::shared ? held.downgrade() : held.upgrade();
  };
  const bool quick =
      std::ranges::all_of(holding.devices(), [](const device::Device& one) { return is_terminal(one.family); });
  if (quick) {
    auto result = change(holding);
    return Changed{std::move(holding), std::move(result)};
  }
  hand_over([claim, change, held = std::move(holding)]() mutable -> Answer {
    auto result = change(held);
    return [claim, changed = Changed{std::move(held), std::move(result)}](Desk& desk) mutable {
      desk.changed(claim, std::move(changed));
    };
  });
  return std::nullopt;
}

std::optional<Result<claiming::Holding>> MarkHands::adopt(wire::ClaimId claim, const Taking& taking, wire::Marks marks,
                                                          std::vector<base::ProcessFd> descriptors) {
  hand_over([this, claim, taking, said = std::move(marks), kept = std::move(descriptors)]() mutable -> Answer {
    std::vector<device::Device> devices;
    for (const auto& device : taking.devices) devices.push_back(*device);
    auto holding = claiming::unpack(std::move(devices), said, std::move(kept),
                                    {taking.options, taking.owner, convention::Locks::proven, places_});
    return [claim, result = std::move(holding)](Desk& desk) mutable { desk.adopted(claim, std::move(result)); };
  });
  return std::nullopt;
}

void MarkHands::pass_on(claiming::Holding& holding, const Taking& to, const std::string& lock_file,
                        wire::WallTime since) {
  holding.passed_to({to.options.mode, to.owner, to.options.purpose, places_, nullptr, lock_file}, since);
}

std::string MarkHands::lock_file_of(const Taking& waiting) {
  const bool has_one = waiting.options.conventions.contains(Convention::uucp) &&
                       waiting.options.mode == Mode::exclusive &&
                       std::ranges::any_of(waiting.devices, [](const auto& one) { return is_terminal(one->family); });
  return has_one ? convention::uucp_content(waiting.owner.pid) : std::string{};
}

bool MarkHands::give_back(wire::ClaimId claim, claiming::Holding holding) {
  if (std::ranges::all_of(holding.nodes(), closes_at_once)) {
    holding.give_back();
    return true;
  }
  hand_over([claim, held = std::move(holding)]() mutable -> Answer {
    held.give_back();
    return [claim](Desk& desk) { desk.given_back(claim); };
  });
  return false;
}

void MarkHands::hand_over(Job job) {
  {
    const std::lock_guard guard{mutex_};
    jobs_.push_back(std::move(job));
    if (jobs_.size() > idle_ && threads_.size() < kMostThreads) threads_.emplace_back([this] { work(); });
  }
  wanted_.notify_one();
}

void MarkHands::work() {
  std::unique_lock lock{mutex_};
  while (true) {
    ++idle_;
    wanted_.wait(lock, [&] { return stopping_ || !jobs_.empty(); });
    --idle_;
    if (jobs_.empty()) return;  // what was asked for is done even when we stop
    Job job = std::move(jobs_.front());
    jobs_.pop_front();
    lock.unlock();
    Answer answer = job();
    lock.lock();
    answers_.push_back(std::move(answer));
    ::eventfd_write(ready_.get(), 1);
  }
}

void MarkHands::deliver(Desk& desk) {
  eventfd_t count = 0;
  ::eventfd_read(ready_.get(), &count);
  std::vector<Answer> answers;
  {
    const std::lock_guard guard{mutex_};
    answers.swap(answers_);
  }
  for (Answer& answer : answers) answer(desk);
}

}  // namespace holdfast::broker
