// SPDX-License-Identifier: MIT
// options.hpp - the words in which a claim is asked for.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <optional>
#include <string>

namespace holdfast {

/// How many may hold at once. Exclusive is compatible with nothing, shared with other shared claims.
enum class Mode : std::uint8_t { exclusive, shared };

/// Which nodes a claim of one node covers.
enum class Cover : std::uint8_t {
  function,  ///< every node that reaches the same physical function: sr0 with sg2, a disk with its partitions
  unit,      ///< every node of the whole physical unit: all ports of a USB adapter and its usbfs node
};

/// Who may use the device under the claim.
enum class OwnerScope : std::uint8_t {
  process,  ///< this process with all its threads; forked children hold nothing
  tree,     ///< descendants inherit the descriptors too, and the claim ends with the last of them
};

/// Who stops a program that does not ask.
enum class Enforcement : std::uint8_t {
  advisory,  ///< nobody
  native,    ///< the kernel, for the programs that TIOCEXCL or O_EXCL binds (not for CAP_SYS_ADMIN on a terminal), or
             ///< the driver, for everybody
  guarded,   ///< the kernel, for everybody
};

/// Whether the kernel shall keep out everybody else, root and programs that ask nobody included: the guard
/// (`holdfast guard`), which the broker tells.
enum class Guarding : std::uint8_t {
  automatic,  ///< where the guard is installed and may guard the device; else as without it
  required,   ///< refused where it cannot be had
  off,
};

/// Markings that other programs honour, in the order in which a claim takes them.
enum class Convention : std::uint8_t {
  proxy,       ///< ours: a record lock on a lock file per device number
  ddlp,        ///< DDLP level B: record locks on /tmp/ddlpb-lock-* for every permissible path of an optical drive
  uucp,        ///< LCK.. and LK. files in /run/lock
  whole_disk,  ///< flock on the whole disk's node for a claim of a partition (systemd block device locking)
  flock,       ///< flock(2) on the node
  posix,       ///< open-file-description record lock on the node; conflicts with everybody's fcntl locks
  o_excl,      ///< open(2) with O_EXCL on block and sg nodes
  driver,      ///< the LOCK ioctl of drivers that know an owner (uapi/holdfast_exclusive.h)
  tiocexcl,    ///< TIOCEXCL on terminals
};
inline constexpr int kConventionCount = 9;

/// A set of conventions.
class ConventionSet {
 public:
  constexpr ConventionSet() = default;
  constexpr ConventionSet(std::initializer_list<Convention> members) {
    for (const Convention member : members) bits_ |= bit(member);
  }
  [[nodiscard]] static constexpr ConventionSet all() {
    ConventionSet set;
    set.bits_ = (1U << kConventionCount) - 1U;
    return set;
  }
  [[nodiscard]] constexpr ConventionSet with(Convention member) const {
    ConventionSet set = *this;
    set.bits_ |= bit(member);
    return set;
  }
  [[nodiscard]] constexpr ConventionSet without(Convention member) const {
    ConventionSet set = *this;
    set.bits_ &= ~bit(member);
    return set;
  }
  [[nodiscard]] constexpr bool contains(Convention member) const { return (bits_ & bit(member)) != 0; }
  [[nodiscard]] constexpr bool empty() const { return bits_ == 0; }
  constexpr bool operator==(const ConventionSet&) const = default;

 private:
  static constexpr std::uint32_t bit(Convention member) { return 1U << static_cast<unsigned>(member); }
  std::uint32_t bits_ = 0;
};

/// How long to wait for a device that somebody else holds.
class Wait {
 public:
  using Clock = std::chrono::steady_clock;  // CLOCK_MONOTONIC: time spent suspended does not count

  /// Refuse at once. The default.
  [[nodiscard]] static constexpr Wait none() { return Wait{Clock::time_point::min()}; }
  [[nodiscard]] static constexpr Wait for_ever() { return Wait{Clock::time_point::max()}; }
  [[nodiscard]] static constexpr Wait until(Clock::time_point deadline) { return Wait{deadline}; }
  /// A duration too long for the clock waits for ever.
  [[nodiscard]] static Wait at_most(Clock::duration duration) {
    const auto now = Clock::now();
    return duration >= Clock::time_point::max() - now ? for_ever() : Wait{now + duration};
  }
  [[nodiscard]] constexpr bool waits() const { return deadline_ != Clock::time_point::min(); }
  [[nodiscard]] constexpr bool ends() const { return deadline_ != Clock::time_point::max(); }
  [[nodiscard]] constexpr Clock::time_point deadline() const { return deadline_; }

 private:
  explicit constexpr Wait(Clock::time_point deadline) : deadline_{deadline} {}
  Clock::time_point deadline_;
};

/// Whether a signal handler that runs during the wait ends it.
enum class OnSignal : std::uint8_t {
  keep_waiting,
  give_up,  ///< claim() returns errc::interrupted and holds nothing
};

/// Whether the claim may open(2) the nodes.
enum class Opening : std::uint8_t {
  allowed,  ///< each node once, non-blocking, never as controlling terminal, for the length of the claim
  never,    ///< only the conventions that need no open: proxy, ddlp, uucp
};

/// Whether the broker (holdfastd) arbitrates. Without it waiters are woken all at once and the fastest gets the device;
/// with it they have an order, and what needs somebody who watches works: priorities, time limits, notices. Both
/// exclude each other and everybody else by the same marks.
enum class Way : std::uint8_t {
  broker_if_there,  ///< where its socket answers and it sees the device, else without it
  never_broker,
};

/// Who comes first among waiters at the broker; without it all are equal.
enum class Priority : std::uint8_t { idle, low, normal, high, urgent };

/// Where a waiting claim stands in the broker's queue.
struct Progress {
  std::uint32_t ahead = 0;                             ///< requests that come before this one
  std::optional<std::chrono::nanoseconds> estimate{};  ///< until its turn, as far as earlier claims let one guess
};

/// Everything one can say about a claim. The defaults ask for one function, exclusively, at once.
struct Options {
  Mode mode = Mode::exclusive;
  Wait wait = Wait::none();
  OnSignal on_signal = OnSignal::keep_waiting;
  OwnerScope owner_scope = OwnerScope::process;
  Cover cover = Cover::function;
  Opening opening = Opening::allowed;
  ConventionSet conventions = ConventionSet::all();
  Way way = Way::broker_if_there;
  Priority priority = Priority::normal;
  /// The claim's time: it lapses so long after it was granted, or was renewed. Needs the broker.
  std::optional<std::chrono::nanoseconds> lease{};
  Guarding guarding = Guarding::automatic;
  /// Called by the waiting thread, inside claim(), when the place in the queue becomes known and whenever it changes.
  /// Must not throw; a claim may not be taken from inside it. Where on_signal is give_up, signals are blocked
  /// meanwhile.
  std::function<void(const Progress& progress)> on_progress{};
  std::string purpose{};  ///< shown to others in `holdfast status`; control characters are replaced, cut at 80 bytes
};

}  // namespace holdfast
