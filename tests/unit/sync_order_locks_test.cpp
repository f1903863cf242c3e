// SPDX-License-Identifier: MIT
// The validator through the real locks.
#include <holdfast/sync/mutex.hpp>
#include <holdfast/sync/order.hpp>
#include <holdfast/sync/rw_semaphore.hpp>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

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
    for (const order::Acquisition& one : report.acquisitions)
      self.steps_.push_back(std::string{one.wanted} + "<" + (one.held != nullptr ? one.held : ""));
  }
  std::vector<Report::Kind> kinds_;
  std::vector<std::string> steps_;
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
}

}  // namespace
}  // namespace holdfast::sync
