// SPDX-License-Identifier: MIT
// semaphore: the counting protocol. owned_semaphore: a lock word for each unit, and a gate in front of them.
//
// Whoever finds no free unit takes the gate, a robust lock as any, and sleeps on all units at once. So there is one
// sleeper on the units: the kernel's single wake for a dead holder's unit reaches it, and if it is killed itself, its
// successor at the gate looks at all units afresh. The units are mutex words with the mutex's sticky waiters bit.
#include <holdfast/sync/semaphore.hpp>

#include <bit>
#include <span>

#include "sync/answers.hpp"
#include "sync/host.hpp"
#include "sync/mutex_protocol.hpp"
#include "sync/semaphore_protocol.hpp"

namespace holdfast::sync {
namespace {

static_assert(std::endian::native == std::endian::little, "the word is the first half of the cell");

/// The layout as the protocol wants it: the cell, and its half that the kernel sees.
struct View {
  detail::SemaphoreLayout& layout;
  std::atomic<std::uint64_t>& cell = layout.cell;
  void*& next = layout.next;
  [[nodiscard]] std::atomic<std::uint32_t>& word() const { return layout.word; }
};

Result<> down_in(detail::SemaphoreLayout& layout, const Wait& wait) {
  Thread* const thread = self();
  if (thread == nullptr) return done(Outcome::unsupported);
  Host host(*thread);
  View view{layout};
  return done(semaphore_protocol::down(host, view, wait));
}

}  // namespace

Result<> semaphore::down() { return down_in(layout_, {}); }
Result<> semaphore::down_trylock() { return down_in(layout_, {Wait::How::never}); }
Result<> semaphore::down_interruptible() { return down_in(layout_, {Wait::How::interruptible}); }
Result<> semaphore::down_killable() { return down_in(layout_, {Wait::How::killable}); }
Result<> semaphore::down_until(Deadline deadline) { return down_in(layout_, until(deadline)); }

Result<> semaphore::up() {
  Thread* const thread = self();
  if (thread == nullptr) return done(Outcome::unsupported);
  Host host(*thread);
  View view{layout_};
  return done(semaphore_protocol::up(host, view, layout_.most));
}

std::uint32_t semaphore::value() const noexcept {
  return semaphore_protocol::count_of(layout_.cell.load(std::memory_order_relaxed));
}

namespace detail {

/// The units of a semaphore: they follow the base in the derived class's memory.
struct Units {
  static std::span<RobustNode> of(OwnedSemaphore& semaphore) {
    return {reinterpret_cast<RobustNode*>(reinterpret_cast<char*>(&semaphore) + sizeof(OwnedSemaphore)),
            semaphore.units_};
  }
  static RobustNode& gate(OwnedSemaphore& semaphore) { return semaphore.gate_; }
  static std::atomic<std::uint32_t>& given(OwnedSemaphore& semaphore) { return semaphore.given_; }
};
static_assert(sizeof(OwnedSemaphore) == 48 && sizeof(owned_semaphore<3>) == 48 + 3 * sizeof(RobustNode));

namespace {

constexpr std::uint64_t kLook = 10'000'000;  // how often an interruptible wait looks for dead holders

/// A free unit, if there is one. A unit has nothing to repair: its death is told once and forgotten.
Outcome take_free(Host& host, std::span<RobustNode> units, std::uint32_t home) {
  for (std::size_t k = 0; k < units.size(); ++k) {
    RobustNode& unit = units[(home + k) % units.size()];
    if (words::owner(unit.word.load(std::memory_order_relaxed)) != 0) continue;
    host.pend(unit);
    std::uint32_t seen = unit.word.load(std::memory_order_relaxed);
    if (words::owner(seen) == 0 &&
        Host::cas(unit.word, seen, words::taken(seen, host.me(), false), std::memory_order_acquire)) {
      const Outcome outcome = mutex_protocol::own(host, unit, seen);
      unit.dirty.store(0, std::memory_order_relaxed);
      return outcome == Outcome::inconsistent ? Outcome::owner_died : outcome;
    }
    host.unpend();
  }
  return Outcome::again;
}

/// Sleeps until some unit may be free. We hold the gate, so we are the only one.
futex::Woke sleep_on_all(std::span<RobustNode> units, const std::atomic<std::uint32_t>& given, const Wait& wait) {
  const std::uint32_t given_so_far = given.load(std::memory_order_acquire);
  std::array<futex::Watched, 122> watched{};
  std::size_t count = 0;
  for (RobustNode& unit : units) {
    std::uint32_t seen = unit.word.load(std::memory_order_relaxed);
    if (words::owner(seen) == 0) return futex::Woke::look_again;
    if (!words::has_waiters(seen)) {
      if (!Host::cas(unit.word, seen, words::awaited(seen), std::memory_order_relaxed)) return futex::Woke::look_again;
      seen = words::awaited(seen);
    }
    watched[count++] = {&unit.word, seen};
  }
  if (wait.how == Wait::How::killable) watched[count++] = {&termination, 0};
  if (wait.how != Wait::How::interruptible) return futex::wait_any({watched.data(), count}, wait.deadline);
  // Handlers with SA_RESTART do not end futex_waitv(2), so this one sleeps on the count of units given while somebody
  // holds the gate, and looks for dead holders now and then. (It is up()'s look at the gate that is not ordered with
  // our look at the units: a unit that slips through is found at the next look, too.)
  const futex::Woke why = sleep_interruptibly(given, given_so_far, futex::Class::any, futex::now() + kLook);
  return why == futex::Woke::timed_out ? futex::Woke::look_again : why;
}

Outcome take(OwnedSemaphore& semaphore, const Wait& wait) {
  Thread* const thread = self();
  if (thread == nullptr) return Outcome::unsupported;
  Host host(*thread);
  const std::span<RobustNode> units = Units::of(semaphore);
  RobustNode& gate = Units::gate(semaphore);
  Outcome outcome = take_free(host, units, thread->home);
  if (outcome == Outcome::again && wait.how == Wait::How::never) outcome = Outcome::busy;
  if (outcome == Outcome::again) {
    const Outcome first = mutex_protocol::lock(host, gate, wait);
    if (!holds(first)) return first;
    gate.dirty.store(0, std::memory_order_relaxed);  // it protects nothing that a death could damage
    for (;;) {
      outcome = take_free(host, units, thread->home);
      if (outcome != Outcome::again) break;
      if (Host::told_to_end(wait)) outcome = Outcome::interrupted;
      if (Host::past(wait)) outcome = Outcome::timed_out;
      if (outcome != Outcome::again) break;
      if (sleep_on_all(units, Units::given(semaphore), wait) == futex::Woke::interrupted &&
          wait.how == Wait::How::interruptible) {
        outcome = Outcome::interrupted;
        break;
      }
    }
    mutex_protocol::unlock(host, gate);
  }
  return outcome;
}

}  // namespace

Result<Acquired> OwnedSemaphore::down() { return acquired(take(*this, {})); }
Result<Acquired> OwnedSemaphore::down_trylock() { return acquired(take(*this, {Wait::How::never})); }
Result<Acquired> OwnedSemaphore::down_interruptible() { return acquired(take(*this, {Wait::How::interruptible})); }
Result<Acquired> OwnedSemaphore::down_killable() { return acquired(take(*this, {Wait::How::killable})); }
Result<Acquired> OwnedSemaphore::down_until(Deadline deadline) { return acquired(take(*this, sync::until(deadline))); }

Result<> OwnedSemaphore::up() {
  Thread* const thread = self();
  if (thread == nullptr) return done(Outcome::unsupported);
  const std::span<RobustNode> units = Units::of(*this);
  Node* const unit = held_within(*thread, units.data(), units.size_bytes());
  if (unit == nullptr) return done(Outcome::not_owner);
  Host host(*thread);
  const bool waited_for = gate_.word.load(std::memory_order_relaxed) != 0;
  if (waited_for) given_.fetch_add(1, std::memory_order_release);  // before the unit: afterwards we may be gone
  const Outcome outcome = mutex_protocol::unlock(host, *unit);
  if (waited_for) Host::wake_one(given_, futex::Class::any);
  return done(outcome);
}

std::uint32_t OwnedSemaphore::value() const noexcept {
  std::uint32_t free = 0;
  for (const RobustNode& unit : Units::of(const_cast<OwnedSemaphore&>(*this)))
    if (words::owner(unit.word.load(std::memory_order_relaxed)) == 0) ++free;
  return free;
}

}  // namespace detail
}  // namespace holdfast::sync
