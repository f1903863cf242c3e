// SPDX-License-Identifier: MIT
// The validator through the real locks.
#include <holdfast/sync/mutex.hpp>
#include <holdfast/sync/order.hpp>
#include <holdfast/sync/ordered.hpp>
#include <holdfast/sync/process_mutex.hpp>
#include <holdfast/sync/rw_semaphore.hpp>
#include <holdfast/sync/semaphore.hpp>
#include <holdfast/sync/spinlock.hpp>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <chrono>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <thread>
#include <vector>

#if defined(__clang__)
#pragma clang diagnostic ignored "-Wthread-safety-analysis"  // what it forbids is what is tested here
#endif

namespace holdfast::sync {
namespace {

using namespace std::chrono_literals;
using order::Report;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

class OrderOfLocks : public testing::Test {
 protected:
  void SetUp() override {
#if !HOLDFAST_SYNC_ORDER
    GTEST_SKIP() << "the locks are compiled without order validation (HOLDFAST_SYNC_ORDER=0)";
#endif
    ASSERT_FALSE(order::switch_on({.graph = {}, .handler = &OrderOfLocks::note, .context = this}));
  }
  void TearDown() override { order::switch_off(); }
  static void note(const Report& report, void* context) {
    auto& self = *static_cast<OrderOfLocks*>(context);
    self.kinds_.push_back(report.kind);
    for (const order::Acquisition& one : report.acquisitions) {
      self.steps_.push_back(std::string{one.wanted} + "<" + (one.held != nullptr ? one.held : ""));
      self.hows_.push_back(one.held_how);
    }
  }
  // The two locks in one order, then in the other, by this thread.
  template <class First, class Second>
  static void both_ways(First& first, Second& second) {
    {
      const std::lock_guard outer{first};
      const std::lock_guard inner{second};
    }
    const std::lock_guard outer{second};
    const std::lock_guard inner{first};
  }
  std::vector<Report::Kind> kinds_;
  std::vector<std::string> steps_;
  std::vector<order::How> hows_;  // how each was held under which another was taken
};

// A driver whose read() and write() take its two locks in opposite orders.
class Driver {
 public:
  void read() {
    const std::lock_guard first{lock1_};
    const std::lock_guard second{lock2_};
  }
  void write() {
    const std::lock_guard first{lock2_};
    const std::lock_guard second{lock1_};
  }

 private:
  mutex lock1_{LockClass{"driver.lock1"}};
  mutex lock2_{LockClass{"driver.lock2"}};
};

TEST_F(OrderOfLocks, read_and_write_of_a_driver_in_opposite_orders_are_found_between_threads) {
  Driver driver;
  std::thread{[&] { driver.read(); }}.join();
  EXPECT_THAT(kinds_, IsEmpty());
  std::thread{[&] { driver.write(); }}.join();
  EXPECT_THAT(kinds_, ElementsAre(Report::Kind::inversion));
  EXPECT_THAT(steps_, ElementsAre("driver.lock1<driver.lock2", "driver.lock2<driver.lock1"));
}

TEST_F(OrderOfLocks, a_second_lock_by_the_holder_is_told_and_answered) {
  mutex lock{LockClass{"own.lock"}};
  const std::lock_guard guard{lock};
  EXPECT_EQ(lock.lock_checked().error(), errc::deadlock);
  EXPECT_THAT(kinds_, ElementsAre(Report::Kind::recursion));
  EXPECT_FALSE(lock.trylock().has_value());
  // It is still held once: what comes next is under it.
  mutex inner{LockClass{"own.inner"}};
  const std::size_t orders = order::contents().orders;
  inner.lock();
  inner.unlock();
  EXPECT_EQ(order::contents().orders, orders + 1);
}

TEST_F(OrderOfLocks, what_a_timed_lock_did_not_get_is_not_held) {
  mutex taken{LockClass{"timed.taken"}};
  mutex other{LockClass{"timed.other"}};
  taken.lock();
  std::thread{[&] {
    const std::size_t orders = order::contents().orders;
    EXPECT_EQ(taken.lock_timeout(1ms).error(), errc::timed_out);
    EXPECT_EQ(taken.trylock().error(), errc::busy);
    other.lock();
    other.unlock();
    EXPECT_EQ(order::contents().orders, orders);
  }}.join();
  taken.unlock();
  EXPECT_THAT(kinds_, IsEmpty());
}

TEST_F(OrderOfLocks, scoped_lock_of_the_library_backs_off_and_is_fine) {
  mutex a{LockClass{"scoped.a"}};
  mutex b{LockClass{"scoped.b"}};
  for (int i = 0; i < 3; ++i) {
    const std::scoped_lock both{a, b};
  }
  for (int i = 0; i < 3; ++i) {
    const std::scoped_lock both{b, a};
  }
  EXPECT_THAT(kinds_, IsEmpty());
}

TEST_F(OrderOfLocks, readers_in_opposite_orders_are_found_because_writers_come_between) {
  rw_semaphore a{LockClass{"rw.a"}};
  rw_semaphore b{LockClass{"rw.b"}};
  {
    const std::shared_lock first{a};
    const std::shared_lock second{b};
  }
  EXPECT_THAT(kinds_, IsEmpty());
  const std::shared_lock first{b};
  const std::shared_lock second{a};
  EXPECT_THAT(kinds_, ElementsAre(Report::Kind::inversion));
}

TEST_F(OrderOfLocks, a_reader_under_a_mutex_and_a_mutex_under_a_writer_are_found_between_threads) {
  rw_semaphore table{LockClass{"rw.table"}, Policy::writer_first};
  mutex queue{LockClass{"rw.queue"}};
  std::thread{[&] {
    const std::lock_guard first{queue};
    const std::shared_lock second{table};
  }}.join();
  std::thread{[&] {
    ASSERT_TRUE(table.down_write().has_value());
    ASSERT_TRUE(table.downgrade_write().has_value());
    ASSERT_TRUE(queue.trylock().has_value());  // backs off, had it not got it
    queue.unlock();
    ASSERT_TRUE(table.up_read().has_value());
  }}.join();
  EXPECT_THAT(kinds_, IsEmpty());
  std::thread{[&] {
    const std::lock_guard first{table};
    const std::lock_guard second{queue};
  }}.join();
  EXPECT_THAT(kinds_, ElementsAre(Report::Kind::inversion));
}

TEST_F(OrderOfLocks, a_reader_that_reads_again_is_told_and_answered) {
  rw_semaphore lock{LockClass{"again.rw"}};
  ASSERT_TRUE(lock.down_read());
  EXPECT_EQ(lock.down_read().error(), errc::deadlock);
  EXPECT_THAT(kinds_, ElementsAre(Report::Kind::recursion));
  mutex inner{LockClass{"again.inner"}};
  const std::size_t orders = order::contents().orders;
  inner.lock();  // under the lock, which is held once
  inner.unlock();
  ASSERT_TRUE(lock.up_read());
  inner.lock();
  inner.unlock();
  EXPECT_EQ(order::contents().orders, orders + 1);
}

TEST_F(OrderOfLocks, a_writer_that_became_a_reader_holds_as_a_reader) {
  rw_semaphore table{LockClass{"down.table"}};
  mutex queue{LockClass{"down.queue"}};
  ASSERT_TRUE(table.down_write());
  ASSERT_TRUE(table.downgrade_write());
  queue.lock();
  queue.unlock();
  ASSERT_TRUE(table.up_read());
  const std::lock_guard first{queue};
  const std::lock_guard second{table};
  ASSERT_THAT(hows_, SizeIs(2));
  EXPECT_EQ(hows_[0], order::How::exclusive);  // the queue
  EXPECT_EQ(hows_[1], order::How::shared);     // the table, before
}

TEST_F(OrderOfLocks, each_kind_of_lock_is_found_in_opposite_orders) {
  mutex with{LockClass{"each.with"}};
  process_mutex process{LockClass{"each.process"}};
  robust_spinlock robust{LockClass{"each.robust"}};
  ordered<spinlock> spin{LockClass{"each.spin"}};
  ordered<rw_spinlock> rw_spin{LockClass{"each.rw_spin"}};
  ordered<seqlock> sequence{LockClass{"each.sequence"}};
  ordered<std::mutex> of_others{LockClass{"each.of_others"}};
  std::size_t found = 0;
  const auto expect_one_more = [&] { EXPECT_THAT(kinds_, SizeIs(++found)); };
  both_ways(with, process);
  expect_one_more();
  both_ways(with, robust);
  expect_one_more();
  both_ways(with, spin);
  expect_one_more();
  both_ways(with, rw_spin);
  expect_one_more();
  both_ways(with, sequence);
  expect_one_more();
  both_ways(with, of_others);
  expect_one_more();
  EXPECT_THAT(kinds_, testing::Each(Report::Kind::inversion));
  EXPECT_EQ(steps_.back(), "each.of_others<each.with");
}

TEST_F(OrderOfLocks, a_reader_that_spins_counts_as_one_that_waits) {
  ordered<rw_spinlock> a{LockClass{"spin.a"}};
  ordered<rw_spinlock> b{LockClass{"spin.b"}};
  {
    const std::shared_lock first{a};
    const std::shared_lock second{b, std::try_to_lock};
    EXPECT_TRUE(second.owns_lock());
  }
  {
    const std::shared_lock first{b};
    const std::shared_lock second{a};
  }
  EXPECT_THAT(kinds_, IsEmpty());
  const std::shared_lock first{a};
  const std::shared_lock second{b};
  EXPECT_THAT(kinds_, ElementsAre(Report::Kind::inversion));
}

TEST_F(OrderOfLocks, several_units_of_one_semaphore_are_no_recursion_but_have_an_order) {
  owned_semaphore<3> units{LockClass{"units"}};
  mutex lock{LockClass{"units.lock"}};
  ASSERT_TRUE(units.down());
  ASSERT_TRUE(units.down());
  lock.lock();
  EXPECT_THAT(kinds_, IsEmpty());
  lock.unlock();
  ASSERT_TRUE(units.up());
  lock.lock();  // one unit is held still
  lock.unlock();
  ASSERT_TRUE(units.up());
  const std::lock_guard guard{lock};
  EXPECT_THAT(kinds_, IsEmpty());
  ASSERT_TRUE(units.down());
  EXPECT_THAT(kinds_, ElementsAre(Report::Kind::inversion));
  EXPECT_THAT(steps_, ElementsAre("units<units.lock", "units.lock<units"));
  ASSERT_TRUE(units.up());
}

TEST_F(OrderOfLocks, what_waits_for_a_semaphore_is_recorded_and_nothing_is_held_by_it) {
  semaphore events{LockClass{"events"}, 2};
  mutex lock{LockClass{"events.lock"}};
  const std::size_t orders = order::contents().orders;
  {
    const std::lock_guard guard{lock};
    ASSERT_TRUE(events.down());
  }
  EXPECT_EQ(order::contents().orders, orders + 1);
  ASSERT_TRUE(events.down());
  lock.lock();
  lock.unlock();
  EXPECT_EQ(order::contents().orders, orders + 1);
  EXPECT_THAT(kinds_, IsEmpty());
}

TEST_F(OrderOfLocks, a_process_mutex_that_another_thread_gave_back_is_not_held) {
  process_mutex device{LockClass{"handed.device"}};
  mutex lock{LockClass{"handed.lock"}};
  for (int i = 0; i < 3; ++i) {
    device.lock();
    std::thread{[&] { device.unlock(); }}.join();
    const std::size_t orders = order::contents().orders;
    lock.lock();
    EXPECT_EQ(order::contents().orders, orders);
    device.lock();  // under the lock, and no second time
    device.unlock();
    lock.unlock();
  }
  EXPECT_THAT(kinds_, IsEmpty());
  device.lock();
  lock.lock();
  EXPECT_THAT(kinds_, ElementsAre(Report::Kind::inversion));
  lock.unlock();
  device.unlock();
}

TEST_F(OrderOfLocks, a_lock_of_a_handler_taken_under_irqsave_is_fine_and_without_it_is_found) {
  ordered<spinlock> lock{LockClass{"irq.spin"}};
  robust_spinlock robust{LockClass{"irq.robust"}};
  {
    const irqsave_guard first{lock};
    const irqsave_guard second{robust};
  }
  const auto handler = [&] {
    const order::InHandler now{SIGUSR1};
    const std::lock_guard first{lock};
    const std::lock_guard second{robust};
  };
  {
    const signals_blocked as_the_kernel_would;
    handler();
  }
  EXPECT_THAT(kinds_, IsEmpty());
  {
    const irqsave_guard guard{lock};
  }
  EXPECT_THAT(kinds_, IsEmpty());
  {
    const std::lock_guard guard{lock};
  }
  EXPECT_THAT(kinds_, ElementsAre(Report::Kind::signal_unsafe));
  EXPECT_THAT(steps_, ElementsAre("irq.spin<", "irq.spin<"));
}

TEST_F(OrderOfLocks, it_is_found_though_the_same_locks_were_taken_under_irqsave_before) {
  ordered<spinlock> lock{LockClass{"irq.late"}};
  for (int i = 0; i < 3; ++i) {
    const irqsave_guard guard{lock};
  }
  {
    const std::lock_guard guard{lock};  // an order known to the thread, but for the signals
  }
  const order::InHandler now{SIGUSR1};
  const std::lock_guard guard{lock};
  EXPECT_THAT(kinds_, ElementsAre(Report::Kind::signal_unsafe));
}

TEST_F(OrderOfLocks, locks_without_a_class_are_left_alone) {
  mutex a;
  mutex b;
  const std::size_t classes = order::contents().classes;
  {
    const std::lock_guard first{a};
    const std::lock_guard second{b};
  }
  {
    const std::lock_guard first{b};
    const std::lock_guard second{a};
  }
  EXPECT_THAT(kinds_, IsEmpty());
  EXPECT_EQ(order::contents().classes, classes);
}

TEST_F(OrderOfLocks, accounts_in_order_of_address_are_fine_with_a_subclass) {
  struct Account {
    mutex lock{LockClass{"accounts"}};
  };
  std::vector<Account> accounts(4);
  for (std::size_t low = 0; low < accounts.size(); ++low)
    for (std::size_t high = low + 1; high < accounts.size(); ++high) {
      const std::lock_guard first{accounts[low].lock};
      const order::Nested subclass{1};
      const std::lock_guard second{accounts[high].lock};
    }
  EXPECT_THAT(kinds_, IsEmpty());
}

TEST_F(OrderOfLocks, a_lock_is_made_at_compile_time_with_its_class) {
  static constinit mutex lock{LockClass{"static.lock"}};
  const std::lock_guard guard{lock};
  EXPECT_TRUE(lock.is_locked());
  static_assert(sizeof(mutex) == 40);
  static constinit process_mutex process{LockClass{"static.process"}};
  static constinit semaphore count{LockClass{"static.count"}, 1};
  static constinit owned_semaphore<2> units{LockClass{"static.units"}};
  static constinit robust_spinlock robust{LockClass{"static.robust"}};
  static constinit ordered<spinlock> spin{LockClass{"static.spin"}};
  EXPECT_FALSE(process.is_locked() || robust.is_locked() || spin.plain().is_locked());
  EXPECT_EQ(count.value() + units.value(), 3U);
}

}  // namespace
}  // namespace holdfast::sync
