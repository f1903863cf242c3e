// SPDX-License-Identifier: MIT
// How the spinlocks wait: with growing pauses between looks, and giving the processor away once the holder must be off
// its own. No queue: where threads outnumber processors a queue hands the lock to one that does not run (measured:
// ticket and MCS locks fall to a hundredth with 4 threads on 2 processors).
#pragma once

#include "sync/host.hpp"

#include <sched.h>

namespace holdfast::sync {

class Spin {
 public:
  void again() {
    if (Host::spin_short(spent_)) return;
    ::sched_yield();
    spent_ = kSpinLimit / 2;
  }

 private:
  int spent_ = 0;
};

}  // namespace holdfast::sync
