// SPDX-License-Identifier: MIT
// Not a program: Clang reads it with -Wthread-safety and -verify, and it fails when a warning that is expected here is
// missing, or one comes that is not. So each lock is known to be annotated, and right use is known to be quiet.
#include <holdfast/sync/mutex.hpp>
#include <holdfast/sync/ordered.hpp>
#include <holdfast/sync/process_mutex.hpp>
#include <holdfast/sync/rw_semaphore.hpp>
#include <holdfast/sync/spinlock.hpp>

#include <mutex>

using namespace holdfast::sync;

mutex one;
process_mutex process;
rw_semaphore rw;
spinlock spin;
rw_spinlock rw_spin;
seqlock sequence;
robust_spinlock robust;
ordered<spinlock> with_class{LockClass{"annotations"}};

int by_mutex HF_GUARDED_BY(one);
int by_process HF_GUARDED_BY(process);
int by_rw HF_GUARDED_BY(rw);
int by_spin HF_GUARDED_BY(spin);
int by_rw_spin HF_GUARDED_BY(rw_spin);
int by_sequence HF_GUARDED_BY(sequence);
int by_robust HF_GUARDED_BY(robust);
int by_ordered HF_GUARDED_BY(with_class);

void right() {
  one.lock();
  ++by_mutex;
  one.unlock();
  process.lock();
  ++by_process;
  process.unlock();
  rw.lock();
  ++by_rw;
  rw.unlock();
  spin.lock();
  ++by_spin;
  spin.unlock();
  rw_spin.lock();
  ++by_rw_spin;
  rw_spin.unlock();
  sequence.lock();
  ++by_sequence;
  sequence.unlock();
  robust.lock();
  ++by_robust;
  robust.unlock();
  with_class.lock();
  ++by_ordered;
  with_class.unlock();
}

int right_shared() {
  rw.lock_shared();
  const int first = by_rw;
  rw.unlock_shared();
  rw_spin.lock_shared();
  const int second = by_rw_spin;
  rw_spin.unlock_shared();
  return first + second;
}

void right_tried() {
  if (one.try_lock()) {
    ++by_mutex;
    one.unlock();
  }
  if (process.try_lock()) {
    ++by_process;
    process.unlock();
  }
  if (rw.try_lock()) {
    ++by_rw;
    rw.unlock();
  }
  if (spin.try_lock()) {
    ++by_spin;
    spin.unlock();
  }
  if (robust.try_lock()) {
    ++by_robust;
    robust.unlock();
  }
}

void right_irqsave() {
  const irqsave_guard guard(spin);
  ++by_spin;
}

// clang-format off
void without_a_lock() {
  ++by_mutex;     // expected-warning {{requires holding mutex 'one' exclusively}}
  ++by_process;   // expected-warning {{requires holding process_mutex 'process' exclusively}}
  ++by_rw;        // expected-warning {{requires holding rw_semaphore 'rw' exclusively}}
  ++by_spin;      // expected-warning {{requires holding spinlock 'spin' exclusively}}
  ++by_rw_spin;   // expected-warning {{requires holding rw_spinlock 'rw_spin' exclusively}}
  ++by_sequence;  // expected-warning {{requires holding seqlock 'sequence' exclusively}}
  ++by_robust;    // expected-warning {{requires holding robust_spinlock 'robust' exclusively}}
  ++by_ordered;   // expected-warning {{requires holding ordered 'with_class' exclusively}}
}

void writes_as_a_reader() {
  rw.lock_shared();
  ++by_rw;  // expected-warning {{requires holding rw_semaphore 'rw' exclusively}}
  rw.unlock_shared();
  rw_spin.lock_shared();
  ++by_rw_spin;  // expected-warning {{requires holding rw_spinlock 'rw_spin' exclusively}}
  rw_spin.unlock_shared();
}

void locks_twice() {
  one.lock();  // expected-note {{mutex acquired here}}
  one.lock();  // expected-warning {{acquiring mutex 'one' that is already held}}
  one.unlock();
}

void forgets_to_unlock() {
  process.lock();  // expected-note {{process_mutex acquired here}}
}  // expected-warning {{process_mutex 'process' is still held at the end of function}}

void unlocks_what_it_has_not() {
  robust.unlock();      // expected-warning {{releasing robust_spinlock 'robust' that was not held}}
  spin.unlock();        // expected-warning {{releasing spinlock 'spin' that was not held}}
  sequence.unlock();    // expected-warning {{releasing seqlock 'sequence' that was not held}}
  with_class.unlock();  // expected-warning {{releasing ordered 'with_class' that was not held}}
}

void unlocks_in_the_wrong_way() {
  rw.lock();           // expected-note {{rw_semaphore acquired here}}
  rw.unlock_shared();  // expected-warning {{releasing rw_semaphore 'rw' using shared access, expected exclusive access}}
}

void does_not_ask_whether_it_had_it() {
  static_cast<void>(one.try_lock());
  ++by_mutex;  // expected-warning {{requires holding mutex 'one' exclusively}}
}
// clang-format on
