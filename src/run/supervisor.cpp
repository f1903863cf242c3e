// SPDX-License-Identifier: MIT
// supervisor.cpp - one question at a time, and inotify plus a timer for what the command gives up without asking.
//
// Closing a descriptor gives its locks up and asks nobody. inotify tells of it, a moment before the locks are gone
// (fs/file_table.c, __fput(): fsnotify_close() comes first), so the look at an event is repeated after short, growing
// pauses.
#include "run/supervisor.hpp"

#include <sys/inotify.h>
#include <unistd.h>

#include <algorithm>

namespace holdfast::run {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;

constexpr microseconds kFirstPause{100};
constexpr milliseconds kLongestPause{200};

}  // namespace

Supervisor::Supervisor(const claiming::Holding& holding, Listener listener, Surroundings surroundings)
    : surroundings_{std::move(surroundings)}, listener_{std::move(listener)} {
  std::vector<convention::MarkView> views;
  for (const auto& mark : holding.marks()) views.push_back(mark->view());
  // First, because it says when what the command had locked is over.
  add_open_hand_overs(lendings_, views, surroundings_);
  add_flock_hand_overs(lendings_, views, surroundings_);
  add_record_hand_overs(lendings_, views, surroundings_);
  add_file_hand_overs(lendings_, views, surroundings_);
  add_driver_hand_overs(lendings_, views, surroundings_);
}

void Supervisor::answer_one() {
  if (const auto question = listener_.receive()) answer(*question);
}

void Supervisor::answer(const Question& question) {
  const Answer answer = answer_to(question);
  if (!anything_lent()) {
    next_look_.reset();
  } else {
    // Before the answer is sent: the command may at once close what it gets.
    if (!events_) watch();
    if (!next_look_) schedule(kLongestPause);
  }
  listener_.send(question, answer);
  const bool soon = std::ranges::count_if(lendings_, [](const auto& lending) { return lending->ends_soon(); }) > 0;
  if (soon) schedule(kFirstPause);
}

Answer Supervisor::answer_to(const Question& question) {
  const Caller caller{listener_, question};
  for (const auto& lending : lendings_) {
    if (auto answer = lending->consider(question, caller)) return std::move(*answer);
  }
  return Answer::carry_on();
}

bool Supervisor::anything_lent() const {
  return std::ranges::any_of(lendings_, [](const auto& lending) { return lending->lent(); });
}

void Supervisor::watch() {
  events_.reset(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
  if (!events_) return;  // the timer finds it, later
  for (const auto& lending : lendings_) {
    for (const std::string& path : lending->watched())
      ::inotify_add_watch(events_.get(), path.c_str(), IN_CLOSE | IN_OPEN);
  }
}

void Supervisor::on_events() {
  alignas(inotify_event) char buffer[4096];
  while (::read(events_.get(), buffer, sizeof buffer) > 0) {
  }
  look_again();
  if (anything_lent()) schedule(kFirstPause);
}

void Supervisor::look_again() {
  const auto now = Clock::now();
  for (const auto& lending : lendings_) {
    if (lending->lent()) lending->take_back(now);
  }
  if (anything_lent()) {
    schedule(std::min<Clock::duration>(pause_ * 2, kLongestPause));
  } else {
    next_look_.reset();
  }
}

void Supervisor::schedule(Clock::duration first) {
  pause_ = std::max<Clock::duration>(first, kFirstPause);
  next_look_ = Clock::now() + pause_;
}

void Supervisor::refresh() {
  for (const auto& lending : lendings_) lending->refresh();
  if (anything_lent()) {
    if (!events_) watch();
    schedule(kLongestPause);
  }
  // Killed with a question in hand, the other one has left its caller waiting.
  if (const auto question = listener_.in_hand()) answer(*question);
}

void Supervisor::settle() {
  for (const auto& lending : lendings_) lending->settle();
}

}  // namespace holdfast::run
