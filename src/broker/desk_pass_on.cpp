// SPDX-License-Identifier: MIT
// desk_pass_on.cpp - from one holder to the next without a moment between, where that can be.
//
// What the guard was told of the one goes over to the next in one step: who waits owns the device in the kernel before
// the marks of the one before are given back, and they are given back and taken anew under that guard.
//
// The marks themselves can go on, too: the same open descriptions with the same locks, only under another name. At no
// moment a stranger could come between, and nothing is closed or opened. Who holds a description has power over its
// locks, so a client passes on only what it says it has no copy of, and only to a claim of the very same rights: a
// client that lies takes from those alone from whom it could take anyway, by ptrace(2) or kill(2). All that a taking
// anew would look at is looked at; where it could find anything, it is done.
//
// In this order, because the broker may be killed anywhere: the guard; the journal says that the one claim is over and
// the other one has begun, in one write; then the marks name the new owner; then it is told. Until the last step no
// client has the locks, so that they are free when the broker dies, and what is left, a lock file, names the journal's
// owner. The guard is the one's or the next one's then, and the next broker ends what the journal does not know of.
#include "broker/desk.hpp"

#include <algorithm>
#include <utility>

namespace holdfast::broker {

namespace {

bool covers_the_same(const Ticket& a, const Ticket& b) {
  return std::ranges::equal(a.nodes, b.nodes,
                            [](const Node& one, const Node& other) {
                              return one.key == other.key && one.id == other.id && one.named == other.named;
                            }) &&
         // Lock files are named after links, too.
         std::ranges::equal(a.taking->devices, b.taking->devices, [](const auto& one, const auto& other) {
           return one == other || (one->node.id == other->node.id && one->links == other->links);
         });
}

bool are_alike(const Ticket& from, const Ticket& to) {
  const Options& had = from.taking->options;
  const Options& wants = to.taking->options;
  return had.cover == wants.cover && had.opening == wants.opening && had.conventions == wants.conventions &&
         from.taking->speaker->rights == to.taking->speaker->rights;
}

}  // namespace

// The one whom the arbiter has just let in, when it gets just that and nobody has a say in between: hooks expect a
// device that was given back.
Ticket* Desk::heir_of(const Ticket& from) {
  Ticket* heir = nullptr;
  for (const arbiter::Decision& decision : decisions_.all()) {
    const auto* const granted = std::get_if<arbiter::Granted>(&decision);
    if (granted == nullptr) continue;
    if (heir != nullptr) return nullptr;
    heir = find_arbiter(static_cast<std::uint64_t>(granted->request));
    if (heir == nullptr) return nullptr;
  }
  const bool possible = heir != nullptr && from.stage == Stage::held && from.mode == Mode::exclusive &&
                        heir->mode == Mode::exclusive && covers_the_same(from, *heir) && !world_.hooks.are_there();
  return possible ? heir : nullptr;
}

// Children of a whole tree have copies of which the speaker knows nothing.
bool Desk::marks_can_go_on(const Ticket& from, const Ticket& to) const {
  const bool nobody_guards =
      !from.enforced &&
      (to.guarding == Guarding::off || (to.guarding == Guarding::automatic && world_.enforcer.installed() == 0));
  return (nobody_guards || is_guarded(to)) && !from.to_be_resumed &&
         from.taking->options.owner_scope == OwnerScope::process && are_alike(from, to) &&
         world_.hands.can_pass_on(from.holding);
}

void Desk::hand_over(Ticket& from, Ticket& to, wire::Copies copies) {
  if (to.stage != Stage::elected || held_up(to)) return leave(from);
  look_at_guard();
  // What the guard refuses it is asked again when the marks are taken, or the claim goes without.
  if (is_guarded(from) && to.guarding != Guarding::off) static_cast<void>(tell_guard(to, &from));
  if (copies == wire::Copies::closed && marks_can_go_on(from, to)) return pass_on(from, to);
  leave(from);
}

void Desk::pass_on(Ticket& from, Ticket& to) {
  to.hooks_ran = true;
  to.holding = std::move(from.holding);
  if (to.lease) start_lease(to);
  if (to.until) enforce_until(to);
  begin_to_hold(to);
  from.stage = Stage::leaving;
  for (const Node& node : from.nodes) ++leaving_[node.key];
  world_.memory.passed_on(from.id, record_of(to), to.holding);
  world_.hands.pass_on(to.holding, *to.taking, to.lock_file, to.since);
  grant(to);
  left(from);
  tell_claimed(to);
}

}  // namespace holdfast::broker
