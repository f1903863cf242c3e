// SPDX-License-Identifier: MIT
// semaphore and owned_semaphore: their protocols with threads as those who take units.
#include <holdfast/sync/semaphore.hpp>

#include <sched.h>

#include <bit>
#include <span>

#include "sync/answers.hpp"
#include "sync/host.hpp"
#include "sync/order_hook.hpp"
#include "sync/owned_protocol.hpp"
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

Outcome down_unwatched(detail::SemaphoreLayout& layout, const Wait& wait) {
  Thread* const thread = self();
  if (thread == nullptr) return Outcome::unsupported;
  Host host(*thread);
  View view{layout};
  return semaphore_protocol::down(host, view, wait);
}

[[gnu::noinline]] Outcome down_watched(detail::SemaphoreLayout& layout, const Wait& wait, const void* where) {
  order::wanted(layout.order_class, &layout, order::How::exclusive, wait.how, where);
  const Outcome outcome = down_unwatched(layout, wait);
  if (wait.how != Wait::How::never) order::released(&layout);  // who had a unit does not hold it: anybody may give it
  return outcome;
}

// Inlined, so that the return address is the program's.
[[gnu::always_inline]] inline Result<> down_in(detail::SemaphoreLayout& layout, const Wait& wait) {
  return done(order::watched() ? down_watched(layout, wait, __builtin_return_address(0))
                               : down_unwatched(layout, wait));
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
  struct View {
    std::span<RobustNode> units;
    RobustNode& gate;
    std::atomic<std::uint32_t>& given;
  };
  static const LockClass& order_class(const OwnedSemaphore& semaphore) { return semaphore.gate_.order_class; }
  static View view(OwnedSemaphore& semaphore) { return {of(semaphore), semaphore.gate_, semaphore.given_}; }
  static std::span<RobustNode> of(OwnedSemaphore& semaphore) {
    return {reinterpret_cast<RobustNode*>(reinterpret_cast<char*>(&semaphore) + sizeof(OwnedSemaphore)),
            semaphore.units_};
  }
};
static_assert(sizeof(OwnedSemaphore) == 48 && sizeof(owned_semaphore<3>) == 48 + 3 * sizeof(RobustNode));

namespace {

constexpr std::uint64_t kLook = 10'000'000;  // how often an interruptible wait looks for dead holders

class UnitsHost : public Host {
 public:
  using Host::Host;

  /// The words of all units, and the values to sleep on.
  class Watching {
   public:
    void add(const Cell& word, std::uint32_t value) { all_[count_++] = {&word, value}; }
    [[nodiscard]] std::span<const futex::Watched> all() const { return {all_.data(), count_}; }

   private:
    std::array<futex::Watched, 122> all_{};
    std::size_t count_ = 0;
  };

  static void give_way() { ::sched_yield(); }

  static futex::Woke sleep_on(Watching& units, const Cell& given, std::uint32_t so_far, const Wait& wait) {
    if (wait.how == Wait::How::interruptible) {
      const futex::Woke why = sleep_interruptibly(given, so_far, futex::Class::any, futex::now() + kLook);
      return why == futex::Woke::timed_out ? futex::Woke::look_again : why;
    }
    if (wait.how == Wait::How::killable) units.add(termination, 0);
    return futex::wait_any(units.all(), wait.deadline);
  }
};

[[gnu::noinline]] Outcome take_slowly(OwnedSemaphore& semaphore, const Wait& wait) {
  Thread* const thread = self();
  if (thread == nullptr) return Outcome::unsupported;
  UnitsHost host(*thread);
  Units::View view = Units::view(semaphore);
  return owned_protocol::down(host, view, thread->home, wait);
}

[[gnu::always_inline]] inline Outcome take_unwatched(OwnedSemaphore& semaphore, const Wait& wait) {
  Thread& thread = this_thread;
  if (thread.tid != 0) [[likely]] {
    Host host(thread);
    Units::View view = Units::view(semaphore);
    const Outcome outcome = owned_protocol::take_free(host, view, thread.home);
    if (outcome != Outcome::again) [[likely]]
      return outcome;
  }
  return take_slowly(semaphore, wait);
}

[[gnu::noinline]] Outcome take_watched(OwnedSemaphore& semaphore, const Wait& wait, const void* where) {
  const LockClass& order_class = Units::order_class(semaphore);
  order::wanted(order_class, &semaphore, order::How::counted, wait.how, where);
  const Outcome outcome = take_unwatched(semaphore, wait);
  order::had(order_class, &semaphore, order::How::counted, wait.how, outcome, where);
  return outcome;
}

[[gnu::always_inline]] inline Outcome take(OwnedSemaphore& semaphore, const Wait& wait) {
  return order::watched() ? take_watched(semaphore, wait, __builtin_return_address(0))
                          : take_unwatched(semaphore, wait);
}

}  // namespace

[[gnu::flatten]] Result<Acquired> OwnedSemaphore::down() { return acquired(take(*this, {})); }
Result<Acquired> OwnedSemaphore::down_trylock() { return acquired(take(*this, {Wait::How::never})); }
Result<Acquired> OwnedSemaphore::down_interruptible() { return acquired(take(*this, {Wait::How::interruptible})); }
Result<Acquired> OwnedSemaphore::down_killable() { return acquired(take(*this, {Wait::How::killable})); }
Result<Acquired> OwnedSemaphore::down_until(Deadline deadline) { return acquired(take(*this, sync::until(deadline))); }

[[gnu::flatten]] Result<> OwnedSemaphore::up() {
  Thread* const thread = self();
  if (thread == nullptr) return done(Outcome::unsupported);
  const std::span<RobustNode> units = Units::of(*this);
  Node* unit = held_last(*thread, units.data(), units.size_bytes());
  if (unit == nullptr) [[unlikely]]
    unit = held_within(*thread, units.data(), units.size_bytes());
  if (unit == nullptr) [[unlikely]]
    return done(Outcome::not_owner);
  if (order::watched()) [[unlikely]]
    order::released(this);
  Host host(*thread);
  Units::View view = Units::view(*this);
  return done(owned_protocol::up(host, view, *unit));
}

std::uint32_t OwnedSemaphore::value() const noexcept {
  std::uint32_t free = 0;
  for (const RobustNode& unit : Units::of(const_cast<OwnedSemaphore&>(*this)))
    if (words::owner(unit.word.load(std::memory_order_relaxed)) == 0) ++free;
  return free;
}

}  // namespace detail
}  // namespace holdfast::sync
