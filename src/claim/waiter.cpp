// SPDX-License-Identifier: MIT
// waiter.cpp - see the header.
#include "claim/waiter.hpp"

#include "convention/driver_lock.hpp"
#include "convention/holder.hpp"
#include "convention/uucp.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/inotify.h>
#include <time.h>

#include <algorithm>
#include <array>
#include <cerrno>

namespace holdfast::claiming {

using namespace std::chrono_literals;

namespace {

// The kernel tells of a close just before it drops the locks (fs/file_table.c, __fput: fsnotify_close() stands above
// locks_remove_file()), and a holder clears its record just before it unlocks. After an event we therefore look again
// for a moment, at first often: what is left to be done takes the other side microseconds.
constexpr std::array kAfterEvent{0us, 50us, 100us, 200us, 500us, 1000us, 2000us, 4000us, 8000us, 16000us};
constexpr auto kLook = 200ms;
// Each of our own attempts at a node closes it, which wakes other waiters, whose attempts wake us: this far apart.
constexpr auto kApart = 100ms;

}  // namespace

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
  std::string path = node.path;
  std::uint32_t events = IN_CLOSE | IN_DELETE_SELF | IN_ATTRIB;
  if (convention == Convention::proxy) {
    path = convention::proxy_path(node.id, terms_.places);
    events = IN_CLOSE_WRITE | IN_MODIFY | IN_DELETE_SELF;
  } else if (convention == Convention::uucp) {
    return watch_lock_files(node);
  } else if (convention == Convention::ddlp) {
    path = terms_.places.tmp;
    events = IN_CLOSE_WRITE;
  }
  if (std::ranges::find(watched_, path) != watched_.end()) return false;
  // Without a watch (inotify limits are per user) looking five times a second is left.
  if (inotify_) static_cast<void>(::inotify_add_watch(inotify_.get(), path.c_str(), events));
  watched_.push_back(std::move(path));
  return true;
}

// The files themselves: in their directory something happens all the time. They may be others than last time.
bool Waiter::watch_lock_files(const device::Node& node) {
  const auto device = std::ranges::find(devices_, node.id, [](const device::Device& one) { return one.node.id; });
  if (device == devices_.end()) return false;
  convention::UucpNames names = convention::uucp_names(*device, node);
  names.create.insert(names.create.end(), names.watch.begin(), names.watch.end());
  bool is_new = false;
  for (const std::string& name : names.create) {
    // A removal of one of its names changes a file's count of links: IN_ATTRIB (inotify(7)).
    std::string path = terms_.places.lock_dir + "/" + name;
    if (inotify_)
      static_cast<void>(::inotify_add_watch(inotify_.get(), path.c_str(),
                                            IN_ATTRIB | IN_MODIFY | IN_MOVE_SELF | IN_DELETE_SELF | IN_DONT_FOLLOW));
    if (std::ranges::find(watched_, path) != watched_.end()) continue;
    watched_.push_back(std::move(path));
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
    if (!all_there()) return Woken::try_again;  // the attempt says what is missing
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

// A holder keeps its locks on a device that was pulled out, so they say nothing of that.
bool Waiter::all_there() const {
  return std::ranges::all_of(devices_,
                             [](const device::Device& one) { return device::still_there(one.node).has_value(); });
}

// A process's lock file under any of the names. Sharers' files, which are no obstacle to sharers, are left to an
// attempt.
bool Waiter::lock_file_stands(const device::Node& node) const {
  const auto device = std::ranges::find(devices_, node.id, [](const device::Device& one) { return one.node.id; });
  if (device == devices_.end() || terms_.mode == Mode::shared) return false;
  const auto stands = [&](const std::string& name) {
    const auto file = convention::read_uucp(terms_.places.lock_dir + "/" + name);
    return file && !file->stale && file->content.pid != terms_.owner.pid;
  };
  const convention::UucpNames names = convention::uucp_names(*device, node);
  return std::ranges::any_of(names.create, stands) || std::ranges::any_of(names.watch, stands);
}

// Whether what stood in the way can be seen to stand there still. False when it cannot be seen: then an attempt tells.
bool Waiter::seen_to_stand(Convention convention, const device::Node& node) const {
  switch (convention) {
    case Convention::uucp:
      return lock_file_stands(node);
    case Convention::flock:
      return convention::shows_lock(node.inode, convention::LockKind::flock, terms_.mode, terms_.places);
    case Convention::posix:
      return convention::shows_lock(node.inode, convention::LockKind::record, terms_.mode, terms_.places);
    case Convention::o_excl: {
      if (node.id.kind != device::Kind::block) return false;
      const base::UniqueFd probe{::open(node.path.c_str(), O_RDONLY | O_EXCL | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)};
      return !probe && errno == EBUSY;
    }
    case Convention::driver:
      return convention::driver_owner(node, terms_.places).has_value();
    case Convention::proxy:
    case Convention::ddlp:
    case Convention::whole_disk:
    case Convention::tiocexcl:
      return false;
  }
  return false;
}

Waiter::Woken Waiter::wait_for_stranger(Convention convention, const device::Node& node, const Limits& limits) {
  do {
    drain();  // the last attempt's own closes; a stranger's among them is found by looking
    const Woken woken = sleep(Clock::now() + kLook, Events::end_it, limits);
    if (woken == Woken::deadline || woken == Woken::signal) return woken;
    if (const Woken apart = sleep(last_try_ + kApart, Events::ignore, limits); apart != Woken::try_again) return apart;
    last_try_ = Clock::now();
    if (!all_there()) return Woken::try_again;
    // Only of a close does the kernel tell too early; a lock file is gone when its event comes.
    if (woken != Woken::event || convention == Convention::uucp) continue;
    for (const auto pause : kAfterEvent) {
      if (!seen_to_stand(convention, node)) return Woken::try_again;
      if (const Woken paused = sleep(Clock::now() + pause, Events::ignore, limits); paused != Woken::try_again)
        return paused;
    }
  } while (all_there() && seen_to_stand(convention, node));
  return Woken::try_again;
}

Waiter::Woken Waiter::wait(Convention convention, const device::Node& node, Wait wait, OnSignal on_signal) {
  const Limits limits{wait, on_signal};
  if (convention != Convention::proxy) {
    // What happened before there was a watch was not heard: look once more first.
    if (watch(convention, node) && !seen_to_stand(convention, node)) return Woken::try_again;
    return wait_for_stranger(convention, node, limits);
  }
  watch(convention, node);
  const auto slot = std::ranges::find(slots_, node.id, &Slot::id);
  return slot == slots_.end() || !slot->entry ? wait_for_stranger(convention, node, limits)
                                              : wait_for_proxy(slot->entry, limits);
}

}  // namespace holdfast::claiming
