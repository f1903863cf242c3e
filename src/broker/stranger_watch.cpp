// SPDX-License-Identifier: MIT
// stranger_watch.cpp - see the header.
#include "broker/stranger_watch.hpp"

#include "claim/obstacle_look.hpp"

#include <sys/inotify.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>

namespace holdfast::broker {

using claiming::kAfterEvent;

StrangerWatch::StrangerWatch(base::Places places)
    : places_{std::move(places)}, inotify_{::inotify_init1(IN_CLOEXEC | IN_NONBLOCK)} {}

bool StrangerWatch::watch(wire::ClaimId claim, const claiming::Obstruction& obstruction, const Taking& taking) {
  const auto now = Clock::now();
  // The closes of the attempt that met the obstacle are no news to its own claim.
  hear(now);
  const auto [entry, is_first] = watched_.try_emplace(claim);
  Watched& watched = entry->second;
  if (is_first) {
    watched.terms = {taking.options.mode, taking.owner, taking.options.purpose, places_};
    for (const auto& device : taking.devices) {
      watched.devices.push_back(*device);
      const std::string proxy = convention::proxy_path(device->node.id, places_);
      watched.slots.push_back({device->node.id, convention::WaiterSlot::enter(proxy, watched.terms)});
    }
  }
  watched.convention = obstruction.convention;
  watched.node = obstruction.node;
  watched.pauses = 0;
  watched.not_before = now + (watched.convention == Convention::proxy ? Clock::duration{} : claiming::kApart);
  // What happened before there was a watch was not heard.
  const bool is_new = listen(claim, watched);
  watched.next_look = is_new ? now : now + claiming::kLook;
  return true;
}

void StrangerWatch::forget(wire::ClaimId claim) {
  const auto entry = watched_.find(claim);
  if (entry == watched_.end()) return;
  for (const int watch : entry->second.watches) {
    const auto listeners = listeners_.find(watch);
    if (listeners == listeners_.end()) continue;
    std::erase(listeners->second, claim);
    if (!listeners->second.empty()) continue;
    ::inotify_rm_watch(inotify_.get(), watch);
    listeners_.erase(listeners);
  }
  watched_.erase(entry);
}

bool StrangerWatch::listen(wire::ClaimId claim, Watched& watched) {
  bool is_new = false;
  for (const claiming::Telling& telling :
       claiming::what_tells(watched.convention, watched.node, watched.devices, places_)) {
    const int watch =
        inotify_ ? ::inotify_add_watch(inotify_.get(), telling.path.c_str(), telling.events | IN_MASK_ADD) : -1;
    if (watch < 0 || std::ranges::find(watched.watches, watch) != watched.watches.end()) continue;
    watched.watches.push_back(watch);
    listeners_[watch].push_back(claim);
    is_new = true;
  }
  return is_new;
}

void StrangerWatch::hear(Clock::time_point now) {
  alignas(inotify_event) std::array<char, 4096> buffer;
  for (ssize_t got = 0; inotify_ && (got = ::read(inotify_.get(), buffer.data(), buffer.size())) > 0;) {
    for (std::size_t at = 0; at < static_cast<std::size_t>(got);) {
      inotify_event event{};
      std::memcpy(&event, buffer.data() + at, sizeof event);
      at += sizeof event + event.len;
      const auto listeners = listeners_.find(event.wd);
      if (listeners == listeners_.end()) continue;
      for (const wire::ClaimId claim : listeners->second) {
        Watched& watched = watched_.at(claim);
        if ((event.mask & IN_IGNORED) != 0) std::erase(watched.watches, event.wd);
        if (!watched.next_look) continue;
        // Only of a close does the kernel tell too early; a lock file is gone when its event comes.
        watched.pauses = watched.convention == Convention::uucp ? 0 : kAfterEvent.size() - 1;
        watched.next_look = std::max(now, watched.not_before);
      }
      if ((event.mask & IN_IGNORED) != 0) listeners_.erase(listeners);
    }
  }
}

std::optional<StrangerWatch::Clock::time_point> StrangerWatch::next_look() const {
  std::optional<Clock::time_point> first;
  for (const auto& [claim, watched] : watched_)
    if (watched.next_look && (!first || *watched.next_look < *first)) first = watched.next_look;
  return first;
}

bool StrangerWatch::stands(const Watched& watched) const {
  if (watched.convention == Convention::proxy) {
    const auto slot = std::ranges::find(watched.slots, watched.node.id, &Slot::id);
    if (slot != watched.slots.end() && slot->entry) return !slot->entry.claim_is_free(watched.terms.mode);
  }
  return claiming::seen_to_stand(watched.convention, watched.node, watched.devices, watched.terms);
}

bool StrangerWatch::is_worth_trying(Watched& watched, Clock::time_point now) const {
  if (!claiming::all_there(watched.devices) || !stands(watched)) return true;  // the attempt says what is missing
  if (watched.pauses == 0) {
    watched.next_look = now + claiming::kLook;
  } else {
    watched.next_look = now + kAfterEvent.at(kAfterEvent.size() - watched.pauses);
    --watched.pauses;
  }
  return false;
}

std::vector<wire::ClaimId> StrangerWatch::worth_trying(Clock::time_point now) {
  hear(now);
  std::vector<wire::ClaimId> worth;
  for (auto& [claim, watched] : watched_) {
    if (!watched.next_look || *watched.next_look > now || !is_worth_trying(watched, now)) continue;
    watched.next_look.reset();
    worth.push_back(claim);
  }
  return worth;
}

}  // namespace holdfast::broker
