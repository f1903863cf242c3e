// SPDX-License-Identifier: MIT
// bridge.cpp - the order of steps; see bridge.hpp for why it is this one.
#include "run/bridge.hpp"

#include <cerrno>

namespace holdfast::run {

int pass_to_them(Passable& lock, Level held, Level wanted) {
  if (held == Level::write) {
    if (const int error = lock.set_ours(Level::read); error != 0) return error;
  }
  if (const int error = lock.set_theirs(Level::read); error != 0) {
    [[maybe_unused]] const int restored = lock.set_ours(held);
    return error;
  }
  [[maybe_unused]] const int let_go = lock.set_ours(Level::none);
  if (wanted == Level::read) return 0;
  const int error = lock.set_theirs(Level::write);
  if (error == 0) return 0;
  // A failed flock(2) conversion loses the old lock, a failed record lock keeps it: ours comes first, so that the
  // second kind leaves no gap.
  [[maybe_unused]] const int shared = lock.set_ours(Level::read);
  [[maybe_unused]] const int given_up = lock.set_theirs(Level::none);
  if (held == Level::write) {
    if (lock.set_ours(Level::write) != 0) [[maybe_unused]]
      const int kept = lock.set_ours(Level::read);
  }
  return error;
}

bool pass_back(Passable& lock, Level held) {
  if (lock.set_theirs(Level::read) == 0 && lock.set_ours(Level::read) == 0) {
    [[maybe_unused]] const int released = lock.set_theirs(Level::none);
    if (held == Level::read || lock.set_ours(held) == 0) return true;
    // Another process of the command holds it shared. Ours would keep it from upgrading.
    [[maybe_unused]] const int let_go = lock.set_ours(Level::none);
    return false;
  }
  // Theirs was not the description that holds it; releasing it changes nothing.
  [[maybe_unused]] const int released = lock.set_theirs(Level::none);
  return false;
}

}  // namespace holdfast::run
