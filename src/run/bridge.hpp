// SPDX-License-Identifier: MIT
// bridge.hpp - passing a lock from one open description to another with no moment in which a third could take it.
//
// The idea: at every step somebody holds at least a read lock, and each step that strengthens a lock is made by the
// only holder. The kernel replaces a lock under the inode's lock list in one go (fs/locks.c, flock_lock_inode()
// since 4.0, posix_lock_inode()), so a stranger who wants the lock exclusively never finds it free. A stranger who
// wants it shared may get in while both hold read locks; then the last step fails and the caller decides.
#pragma once

#include <cstdint>

namespace holdfast::run {

enum class Level : std::uint8_t { none, read, write };

/// A lock that two descriptions, ours and the command's, can be made to hold. Never waits.
class Passable {
 public:
  virtual ~Passable() = default;
  /// Sets what one side holds. 0, or errno; EAGAIN when somebody else is in the way.
  [[nodiscard]] virtual int set_ours(Level level) = 0;
  [[nodiscard]] virtual int set_theirs(Level level) = 0;
};

/// We hold `held`; they want `wanted`. Afterwards they hold it and we hold nothing, or all is as before.
/// \returns 0, or the errno that their own attempt on a free lock would have met
[[nodiscard]] int pass_to_them(Passable& lock, Level held, Level wanted);

/// They give up what they hold; afterwards we hold `held` again if nobody else holds anything.
/// \returns whether we do
[[nodiscard]] bool pass_back(Passable& lock, Level held);

}  // namespace holdfast::run
