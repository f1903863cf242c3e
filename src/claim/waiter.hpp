// SPDX-License-Identifier: MIT
// waiter.hpp - sleeping until it is worth trying again.
//
// The kernel has no lock wait that ends at a deadline, on a signal, or on another convention's release, all at once;
// inotify tells of all of them. A close of the proxy file (the holder's release or death) and of the node (any
// convention that lives in a descriptor), a removal of the lock files (UUCP). What has no event is found by looking
// five times a second (obstacle_look.hpp).
#pragma once

#include "base/unique_fd.hpp"
#include "convention/proxy.hpp"

#include <holdfast/options.hpp>

#include <signal.h>

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

namespace holdfast::claiming {

/// Holds back the thread's signals while one is looking and trying, so that they arrive in the sleep between and end
/// it: one that came in the middle of an attempt would otherwise be handled and forgotten (ppoll(2), "race").
class SignalsHeldBack {
 public:
  explicit SignalsHeldBack(OnSignal on_signal);
  SignalsHeldBack(const SignalsHeldBack&) = delete;
  SignalsHeldBack& operator=(const SignalsHeldBack&) = delete;
  ~SignalsHeldBack();
  /// The caller's mask for the sleep; nullptr when nothing is held back.
  [[nodiscard]] const sigset_t* in_sleep() const { return held_ ? &before_ : nullptr; }

 private:
  bool held_ = false;
  sigset_t before_{};
};

class Waiter {
 public:
  Waiter(const convention::Terms& terms, const std::vector<device::Device>& devices, const SignalsHeldBack& signals);

  enum class Woken : std::uint8_t {
    try_again,
    event,  ///< inside only: wait() never returns it
    deadline,
    signal,
  };

  /// Sleeps until what stood in the way (`convention` on `node`) may have gone.
  [[nodiscard]] Woken wait(Convention convention, const device::Node& node, Wait wait, OnSignal on_signal);

  /// The descriptor that heard the events, to be closed when nobody is in a hurry: its close waits until the kernel has
  /// freed the watches, some 5 to 10 ms (fs/notify/mark.c, fsnotify_wait_marks_destroyed()).
  [[nodiscard]] base::UniqueFd take_events() { return std::move(inotify_); }

 private:
  using Clock = std::chrono::steady_clock;
  struct Limits {
    Wait wait;
    OnSignal on_signal;
  };
  enum class Events : std::uint8_t { ignore, end_it };
  // Shows us to status, and lets us look at the proxy without opening it again.
  struct Slot {
    device::DeviceId id;
    convention::WaiterSlot entry;
  };

  bool watch(Convention convention, const device::Node& node);  // whether it is new
  void drain();
  [[nodiscard]] Woken sleep(Clock::time_point until, Events events, const Limits& limits);
  [[nodiscard]] Woken wait_for_proxy(const convention::WaiterSlot& slot, const Limits& limits);
  [[nodiscard]] Woken wait_for_stranger(Convention convention, const device::Node& node, const Limits& limits);

  convention::Terms terms_;
  const std::vector<device::Device>& devices_;
  const SignalsHeldBack& signals_;
  base::UniqueFd inotify_;
  std::vector<Slot> slots_;
  std::vector<std::string> watched_;
  Clock::time_point last_try_{};
};

}  // namespace holdfast::claiming
