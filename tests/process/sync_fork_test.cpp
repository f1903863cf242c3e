// SPDX-License-Identifier: MIT
// fork and exec while locks are held: a child holds nothing and takes nothing along when it ends; a thread's locks end
// with the program that exec replaces, a process's do not.
#include <holdfast/sync/mutex.hpp>
#include <holdfast/sync/process_mutex.hpp>
#include <holdfast/sync/rw_semaphore.hpp>
#include <holdfast/sync/semaphore.hpp>
#include <holdfast/sync/spinlock.hpp>

#include "process/sync_support.hpp"

#if defined(__clang__)
#pragma clang diagnostic ignored "-Wthread-safety-analysis"  // held across functions and processes
#endif

namespace {

using namespace sync_tests;
using namespace holdfast::sync;

struct Locks {
  mutex one;
  process_mutex process;
  rw_semaphore written;
  rw_semaphore read;
  owned_semaphore<1> unit;
  robust_spinlock spin;
  std::atomic<bool> held{false};

  void take() {
    one.lock();
    process.lock();
    written.lock();
    read.lock_shared();
    static_cast<void>(unit.down());
    spin.lock();
    held = true;
  }
  void give() {
    one.unlock();
    process.unlock();
    written.unlock();
    read.unlock_shared();
    EXPECT_TRUE(unit.up());
    spin.unlock();
  }
};

template <class Got>
bool is(const Got& got, errc why) {
  return !got && got.error() == why;
}

bool all_are_busy(Locks& l) {
  return is(l.one.trylock(), errc::busy) && is(l.process.trylock(), errc::busy) &&
         is(l.written.down_read_trylock(), errc::busy) && is(l.read.down_write_trylock(), errc::busy) &&
         is(l.unit.down_trylock(), errc::busy) && is(l.spin.trylock(), errc::busy);
}

bool all_refuse_to_be_given(Locks& l) {
  return is(l.one.unlock_checked(), errc::not_owner) && is(l.process.unlock_checked(), errc::not_owner) &&
         is(l.written.up_write(), errc::not_owner) && is(l.read.up_read(), errc::not_owner) &&
         is(l.unit.up(), errc::not_owner) && is(l.spin.unlock_checked(), errc::not_owner);
}

TEST(SyncFork, a_child_holds_nothing_and_its_end_gives_nothing_back) {
  Shared<Locks> locks;
  locks->take();
  for (const bool killed : {false, true}) {
    const pid_t pid = child([&] {
      if (!all_refuse_to_be_given(*locks)) ::_exit(1);
      if (!all_are_busy(*locks)) ::_exit(2);
      mutex own;  // what it takes itself is its own
      own.lock();
      if (!all_are_busy(*locks)) ::_exit(3);
      own.unlock();
      if (killed) ::raise(SIGKILL);
    });
    int status = 0;
    ASSERT_EQ(::waitpid(pid, &status, 0), pid);
    EXPECT_TRUE(killed ? WIFSIGNALED(status) : status == 0) << WEXITSTATUS(status);
  }
  bool busy = false;
  std::thread([&] {
    busy = is(locks->one.trylock(), errc::busy) && is(locks->written.down_read_trylock(), errc::busy) &&
           is(locks->read.down_write_trylock(), errc::busy) && is(locks->unit.down_trylock(), errc::busy) &&
           is(locks->spin.trylock(), errc::busy);
  }).join();
  EXPECT_TRUE(busy);
  locks->give();
  locks->take();  // throws if a death was told
  locks->give();
}

TEST(SyncFork, a_child_of_a_thread_that_waits_waits_for_nothing) {
  Shared<Locks> locks;
  locks->take();
  std::atomic<bool> done{false};
  std::thread waiter([&] {
    locks->one.lock();
    locks->one.unlock();
    done = true;
  });
  // Whatever the waiter is at, the child's only thread is at nothing.
  for (int i = 0; i < 20; ++i) {
    const pid_t pid = child([&] {
      mutex own;
      if (own.lock_checked() != Acquired::clean || !is(locks->one.trylock(), errc::busy)) ::_exit(1);
    });
    int status = 0;
    ASSERT_EQ(::waitpid(pid, &status, 0), pid);
    EXPECT_EQ(status, 0);
  }
  locks->give();
  waiter.join();
  EXPECT_TRUE(done);
}

TEST(SyncFork, exec_ends_what_a_thread_held_and_not_what_its_process_did) {
  Shared<Locks> locks;
  const pid_t holder = child([&] {
    locks->take();
    ::execlp("sleep", "sleep", "60", nullptr);
  });
  ASSERT_TRUE(comes_true([&] { return locks->held.load(); }));
  EXPECT_EQ(locks->one.lock_timeout(kGenerous), Acquired::owner_died);
  EXPECT_EQ(locks->written.down_write_timeout(kGenerous), Acquired::owner_died);
  EXPECT_EQ(locks->read.down_write_timeout(kGenerous), Acquired::clean);  // a reader changed nothing
  EXPECT_EQ(locks->unit.down_timeout(kGenerous), Acquired::owner_died);
  EXPECT_EQ(locks->spin.lock_checked(), Acquired::owner_died);
  EXPECT_EQ(locks->process.trylock().error(), errc::busy);
  EXPECT_EQ(::waitpid(holder, nullptr, WNOHANG), 0);  // the program it became is alive
  kill_and_reap(holder);
  EXPECT_EQ(locks->process.lock_timeout(kGenerous), Acquired::owner_died);
  locks->one.unlock();
  locks->written.unlock();
  locks->read.unlock();
  EXPECT_TRUE(locks->unit.up());
  locks->spin.unlock();
  locks->process.unlock();
}

}  // namespace
