// SPDX-License-Identifier: MIT
// waiter.cpp - see the header.
#include "claim/waiter.hpp"

#include "claim/obstacle_look.hpp"

#include <poll.h>
#include <sys/inotify.h>
#include <time.h>

#include <algorithm>
#include <array>
#include <cerrno>

namespace holdfast::claiming {

SignalsHeldBack::SignalsHeldBack(OnSignal on_signal) : held_{on_signal == OnSignal::give_up} {
  if (!held_) return;
  sigset_t all;
  ::sigfillset(&all);
  // Faults of our own making are not to be put off (signal(7): blocking them ends the process without a handler).
  for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT}) ::sigdelset(&all, fault);
  ::pthread_sigmask(SIG_BLOCK, &all, &before_);
}

SignalsHeldBack::~SignalsHeldBack() {
  if (held_) ::pthread_sigmask(SIG_SETMASK, &before_, nullptr);
}

Waiter::Waiter(const convention::Terms& terms, const std::vector<device::Device>& devices,
               const SignalsHeldBack& signals)
    : terms_{terms},
      devices_{devices},
      signals_{signals},
      inotify_{::inotify_init1(IN_CLOEXEC | IN_NONBLOCK)},
      last_try_{Clock::now()} {
  for (const device::Device& device : devices) {
    slots_.push_back(
        {device.node.id, convention::WaiterSlot::enter(convention::proxy_path(device.node.id, terms.places), terms)});
  }
}

bool Waiter::watch(Convention convention, const device::Node& node) {
  bool is_new = false;
  for (Telling& telling : what_tells(convention, node, devices_, terms_.places)) {
    const bool known = std::ranges::find(watched_, telling.path) != watched_.end();
    if (known && convention != Convention::uucp) continue;  // its file may be another one than last time
    // Without a watch (inotify limits are per user) looking five times a second is left.
    if (inotify_) static_cast<void>(::inotify_add_watch(inotify_.get(), telling.path.c_str(), telling.events));
    if (known) continue;
    watched_.push_back(std::move(telling.path));
    is_new = true;
  }
  return is_new;
}

void Waiter::drain() {
  char events[4096];
  while (inotify_ && ::read(inotify_.get(), events, sizeof events) > 0) {
  }
}

Waiter::Woken Waiter::sleep(Clock::time_point until, Events events, const Limits& limits) {
  while (true) {
    const auto now = Clock::now();
    if (limits.wait.ends() && now >= limits.wait.deadline()) return Woken::deadline;
    if (now >= until) return Woken::try_again;
    const auto left = (limits.wait.ends() ? std::min(until, limits.wait.deadline()) : until) - now;
    const auto nanoseconds = std::chrono::duration_cast<std::chrono::nanoseconds>(left).count();
    const timespec timeout{static_cast<time_t>(nanoseconds / 1'000'000'000),
                           static_cast<long>(nanoseconds % 1'000'000'000)};
    pollfd heard{inotify_.get(), POLLIN, 0};
    const int answer = ::ppoll(&heard, events == Events::end_it && inotify_ ? 1 : 0, &timeout, signals_.in_sleep());
    if (answer < 0 && errno == EINTR && limits.on_signal == OnSignal::give_up) return Woken::signal;
    if (answer > 0) return Woken::event;
  }
}

// The claim byte of a proxy can be looked at without opening anything, so waiters do not wake each other.
Waiter::Woken Waiter::wait_for_proxy(const convention::WaiterSlot& slot, const Limits& limits) {
  while (!slot.claim_is_free(terms_.mode)) {
    const Woken woken = sleep(Clock::now() + kLook, Events::end_it, limits);
    if (woken == Woken::deadline || woken == Woken::signal) return woken;
    if (!all_there(devices_)) return Woken::try_again;  // the attempt says what is missing
    if (woken == Woken::try_again) continue;
    drain();
    for (const auto pause : kAfterEvent) {
      if (slot.claim_is_free(terms_.mode)) break;
      const Woken paused = sleep(Clock::now() + pause, Events::ignore, limits);
      if (paused != Woken::try_again) return paused;
    }
  }
  return Woken::try_again;
}

Waiter::Woken Waiter::wait_for_stranger(Convention convention, const device::Node& node, const Limits& limits) {
  do {
    drain();  // the last attempt's own closes; a stranger's among them is found by looking
    const Woken woken = sleep(Clock::now() + kLook, Events::end_it, limits);
    if (woken == Woken::deadline || woken == Woken::signal) return woken;
    if (const Woken apart = sleep(last_try_ + kApart, Events::ignore, limits); apart != Woken::try_again) return apart;
    last_try_ = Clock::now();
    if (!all_there(devices_)) return Woken::try_again;
    // Only of a close does the kernel tell too early; a lock file is gone when its event comes.
    if (woken != Woken::event || convention == Convention::uucp) continue;
    for (const auto pause : kAfterEvent) {
      if (!seen_to_stand(convention, node, devices_, terms_)) return Woken::try_again;
      if (const Woken paused = sleep(Clock::now() + pause, Events::ignore, limits); paused != Woken::try_again)
        return paused;
    }
  } while (all_there(devices_) && seen_to_stand(convention, node, devices_, terms_));
  return Woken::try_again;
}

Waiter::Woken Waiter::wait(Convention convention, const device::Node& node, Wait wait, OnSignal on_signal) {
  const Limits limits{wait, on_signal};
  if (convention != Convention::proxy) {
    // What happened before there was a watch was not heard: look once more first.
    if (watch(convention, node) && !seen_to_stand(convention, node, devices_, terms_)) return Woken::try_again;
    return wait_for_stranger(convention, node, limits);
  }
  watch(convention, node);
  const auto slot = std::ranges::find(slots_, node.id, &Slot::id);
  return slot == slots_.end() || !slot->entry ? wait_for_stranger(convention, node, limits)
                                              : wait_for_proxy(slot->entry, limits);
}

}  // namespace holdfast::claiming
