// SPDX-License-Identifier: MIT
// watch.hpp - hearing what happens to devices, from the broker (holdfastd(8)).
//
// A descriptor tells that there is something to read: by poll(2), or by a signal, as a device with a fasync method
// would:
//
//   auto watch = holdfast::Watch::open({{"/dev/ttyUSB0"}});
//   fcntl(watch->fd(), F_SETOWN, getpid());
//   fcntl(watch->fd(), F_SETFL, O_ASYNC | O_NONBLOCK);  // SIGIO from now on
#pragma once

#include <holdfast/export.h>
#include <holdfast/error.hpp>
#include <holdfast/options.hpp>

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace holdfast {

enum class EventKind : std::uint8_t {
  claimed,     ///< somebody holds the device now
  waiting,     ///< somebody asked for it and waits
  released,    ///< given back by its holder
  lapsed,      ///< the holder died, or its time was over
  revoked,     ///< an administrator took it back
  denied,      ///< somebody who may not open the device asked for it
  added,       ///< the device came: its node is there, its owner and links may still follow
  removed,     ///< the device went
  refused,     ///< somebody asked for it, without success
  upgraded,    ///< shared became exclusive
  downgraded,  ///< exclusive became shared
  missed,      ///< some events were lost, as `detail` says; delivered whatever was asked for
};
inline constexpr int kEventKindCount = 12;

/// "claimed", "waiting"...
[[nodiscard]] constexpr std::string_view to_string(EventKind kind) noexcept {
  constexpr std::array<std::string_view, kEventKindCount> kNames{"claimed", "waiting",  "released",   "lapsed",
                                                                 "revoked", "denied",   "added",      "removed",
                                                                 "refused", "upgraded", "downgraded", "missed"};
  const auto index = static_cast<std::size_t>(kind);
  return index < kNames.size() ? kNames[index] : "unknown";
}

/// A set of kinds.
class EventKinds {
 public:
  constexpr EventKinds() = default;
  constexpr EventKinds(std::initializer_list<EventKind> members) {
    for (const EventKind member : members) bits_ |= bit(member);
  }
  [[nodiscard]] static constexpr EventKinds all() {
    EventKinds set;
    set.bits_ = (1U << kEventKindCount) - 1U;
    return set;
  }
  [[nodiscard]] constexpr EventKinds with(EventKind member) const {
    EventKinds set = *this;
    set.bits_ |= bit(member);
    return set;
  }
  [[nodiscard]] constexpr bool contains(EventKind member) const { return (bits_ & bit(member)) != 0; }
  [[nodiscard]] constexpr bool empty() const { return bits_ == 0; }
  constexpr bool operator==(const EventKinds&) const = default;

 private:
  static constexpr std::uint32_t bit(EventKind member) { return 1U << static_cast<unsigned>(member); }
  std::uint32_t bits_ = 0;
};

/// What happened to a device. What an event does not have is empty or zero.
struct Event {
  EventKind kind = EventKind::missed;
  std::chrono::system_clock::time_point at;  ///< CLOCK_REALTIME; jumps when the clock is set
  std::string device;                        ///< "/dev/ttyUSB0", the kernel's name
  std::string number;                        ///< "c188:0", "b8:0"
  Mode mode = Mode::exclusive;
  Holder who;                         ///< who claimed, waits, gave back...
  std::chrono::nanoseconds waited{};  ///< before it held
  std::chrono::nanoseconds held{};    ///< when it ended
  std::string detail;                 ///< for people
};

/// Events from the moment of opening on.
///
/// When the broker ends, the descriptor becomes readable as soon as there is one again; an event of kind `missed` then
/// stands for what happened meanwhile. The descriptor's number, its owner and its O_ASYNC stay; the description behind
/// it does not, so that epoll(7) must be told of it again after each event of kind `missed`.
///
/// \thread  one at a time; not async-signal-safe: a handler of SIGIO sets a flag, as with any I/O
/// \limit   In a forked child every call but the destructor answers not_held. A watched device is one of today's
///          numbers: what is plugged in anew may have another; to hear of it, watch all devices.
class HF_API Watch {
 public:
  /// Subscribes at the broker.
  ///
  /// \param devices  named as for claim(); all devices when empty
  /// \returns system_fault when no broker answers, with errno of connect(2); no_such_device, not_a_device;
  ///          invalid_argument for more than 64 devices; no_resources
  /// \cost    a connection
  [[nodiscard]] static Result<Watch> open(std::span<const std::string> devices = {},
                                          EventKinds kinds = EventKinds::all());

  Watch(Watch&& other) noexcept;
  Watch& operator=(Watch&& other) noexcept;
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;
  ~Watch();

  /// Readable when try_next() may have something. Borrowed: not to be read or closed; non-blocking.
  [[nodiscard]] int fd() const noexcept;

  /// The next event, if there is one. A signal or readiness may stand for several events, or for none: ask until there
  /// is none.
  /// \returns not_held after a move or in a forked child; no_resources, system_fault
  [[nodiscard]] Result<std::optional<Event>> try_next();

  /// Waits for the next event. Events that are there are given even when `wait` is over.
  /// \returns timed_out; interrupted when a signal handler ran; and as try_next()
  [[nodiscard]] Result<Event> next(const Wait& wait = Wait::for_ever());

  struct State;  // opaque

 private:
  explicit Watch(std::unique_ptr<State> state) noexcept;
  std::unique_ptr<State> state_;
};

}  // namespace holdfast
