// SPDX-License-Identifier: MIT
// The lock-order validator through its hooks, in one process: what it finds, with which stacks, and above all what it
// does not.
#include <holdfast/sync/order.hpp>

#include "sync/order_report.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <deque>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <thread>
#include <vector>

namespace holdfast::sync {
namespace {

using order::How;
using order::Report;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

// Locks of the test's own: ThreadSanitizer would complain of the orders of the library's.
struct Lock {
  explicit Lock(const LockClass& of) : lock_class{of} {}
  void lock() {
    order::acquiring(lock_class, this, How::exclusive, order::here());
    while (taken.exchange(true)) std::this_thread::yield();
  }
  bool try_lock() {
    if (taken.exchange(true)) return false;
    order::acquired_by_try(lock_class, this, How::exclusive, order::here());
    return true;
  }
  void unlock() {
    taken = false;
    order::released(this);
  }
  LockClass lock_class;
  std::atomic<bool> taken{false};
};

// Lets everybody in: those who use it are alone.
struct SharedLock {
  void lock() const { order::acquiring(lock_class, this, How::exclusive, order::here()); }
  void unlock() const { order::released(this); }
  void lock_shared() const { order::acquiring(lock_class, this, reads, order::here()); }
  void unlock_shared() const { order::released(this); }
  LockClass lock_class;
  How reads;
};

// For orders alone, where really taking the lock would deadlock.
struct Shown {
  explicit Shown(const LockClass& lock_class, const void* lock, How how = How::exclusive) : lock_{lock} {
    order::acquiring(lock_class, lock, how, order::here());
  }
  ~Shown() { order::released(lock_); }
  Shown(const Shown&) = delete;
  Shown& operator=(const Shown&) = delete;
  const void* lock_;
};

struct Found {
  Report::Kind kind;
  int signal;
  std::vector<std::string> steps;  // "wanted<held"
  std::vector<std::size_t> depths;
  std::string text;
};

class Order : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/holdfast-order-XXXXXX";
    const int fd = ::mkstemp(name);
    ASSERT_GE(fd, 0);
    ::close(fd);
    graph_ = name;
    ASSERT_FALSE(on());
  }
  void TearDown() override {
    order::switch_off();
    ::unlink(graph_.c_str());
  }
  std::error_code on() { return order::switch_on({.graph = graph_, .handler = &Order::note, .context = this}); }

  // May run in a signal handler: nothing is allocated here.
  static void note(const Report& report, void* context) {
    auto& self = *static_cast<Order*>(context);
    const std::size_t number = self.count_.fetch_add(1);
    if (number >= self.notes_.size()) return;
    Note& note = self.notes_[number];
    note.kind = report.kind;
    note.signal = report.signal;
    note.steps = report.acquisitions.size();
    for (std::size_t i = 0; i < note.steps; ++i) {
      const order::Acquisition& one = report.acquisitions[i];
      std::strncpy(note.wanted[i], one.wanted, sizeof note.wanted[i] - 1);
      if (one.held != nullptr) std::strncpy(note.held[i], one.held, sizeof note.held[i] - 1);
      note.depths[i] = one.stack.size();
    }
    note.length = order::write_report(report, note.text);
  }

  [[nodiscard]] std::vector<Found> found() const {
    std::vector<Found> all;
    for (std::size_t number = 0; number < std::min(count_.load(), notes_.size()); ++number) {
      const Note& note = notes_[number];
      Found& one = all.emplace_back(Found{note.kind, note.signal, {}, {}, {note.text, note.length}});
      for (std::size_t i = 0; i < note.steps; ++i) {
        one.steps.push_back(std::string{note.wanted[i]} + (note.held[i][0] != '\0' ? "<" : "") + note.held[i]);
        one.depths.push_back(note.depths[i]);
      }
    }
    return all;
  }

  // Takes `inner` under `outer`.
  template <class Outer, class Inner>
  static void nest(Outer& outer, Inner& inner) {
    const std::lock_guard first{outer};
    const std::lock_guard second{inner};
  }

  std::string graph_;

 private:
  struct Note {
    Report::Kind kind;
    int signal;
    std::size_t steps;
    std::size_t depths[8];
    char wanted[8][56];
    char held[8][56];
    std::size_t length;
    char text[16384];
  };
  std::vector<Note> notes_ = std::vector<Note>(128);
  std::atomic<std::size_t> count_{0};
};

// The example of every introduction to locking: read() takes lock1 then lock2, write() lock2 then lock1.
struct Driver {
  Lock lock1{LockClass{"driver.lock1"}};
  Lock lock2{LockClass{"driver.lock2"}};
  [[gnu::noinline]] void read() {
    lock1.lock();
    lock2.lock();
    lock2.unlock();
    lock1.unlock();
  }
  [[gnu::noinline]] void write() {
    lock2.lock();
    lock1.lock();
    lock1.unlock();
    lock2.unlock();
  }
};

TEST_F(Order, read_and_write_in_opposite_orders_are_found_though_one_thread_did_both) {
  Driver driver;
  driver.read();
  EXPECT_THAT(found(), IsEmpty());
  driver.write();
  ASSERT_THAT(found(), SizeIs(1));
  EXPECT_EQ(found()[0].kind, Report::Kind::inversion);
  EXPECT_THAT(found()[0].steps, ElementsAre("driver.lock1<driver.lock2", "driver.lock2<driver.lock1"));
  const Found one = found()[0];
  for (const std::size_t depth : one.depths) EXPECT_GT(depth, 2U);
}

TEST_F(Order, read_in_one_thread_and_write_in_another_are_found_though_they_never_met) {
  Driver driver;
  std::thread{[&] { driver.read(); }}.join();
  std::thread{[&] { driver.write(); }}.join();
  ASSERT_THAT(found(), SizeIs(1));
  EXPECT_THAT(found()[0].steps, ElementsAre("driver.lock1<driver.lock2", "driver.lock2<driver.lock1"));
}

TEST_F(Order, a_pair_is_reported_once) {
  Driver driver;
  driver.read();
  for (int i = 0; i < 100; ++i) driver.write();
  std::thread{[&] { driver.write(); }}.join();
  EXPECT_THAT(found(), SizeIs(1));
}

TEST_F(Order, the_stacks_of_both_acquisitions_are_where_they_happened) {
  Driver driver;
  driver.read();
  driver.write();
  ASSERT_THAT(found(), SizeIs(1));
  const std::string text = found()[0].text;
  char program[256] = {};
  ASSERT_GT(::readlink("/proc/self/exe", program, sizeof program - 1), 0);
  EXPECT_THAT(text, HasSubstr("lock order inversion: \"driver.lock1\" is taken under \"driver.lock2\""));
  EXPECT_THAT(text, HasSubstr("  now, "));
  EXPECT_THAT(text, HasSubstr("  seen, "));
  EXPECT_THAT(text, HasSubstr(std::string{program} + "+0x"));
  EXPECT_THAT(text, HasSubstr("[" + std::to_string(::getpid()) + "]"));
}

TEST_F(Order, a_cycle_of_three_classes_is_found_with_its_whole_way) {
  Lock a{LockClass{"three.a"}};
  Lock b{LockClass{"three.b"}};
  Lock c{LockClass{"three.c"}};
  nest(a, b);
  nest(b, c);
  EXPECT_THAT(found(), IsEmpty());
  nest(c, a);
  ASSERT_THAT(found(), SizeIs(1));
  EXPECT_THAT(found()[0].steps, ElementsAre("three.a<three.c", "three.b<three.a", "three.c<three.b"));
}

TEST_F(Order, classes_made_at_one_place_are_one_class) {
  const auto make = [](std::source_location at = std::source_location::current()) {
    return std::make_unique<Lock>(LockClass{at});
  };
  std::vector<std::unique_ptr<Lock>> ones;
  for (int i = 0; i < 2; ++i) ones.push_back(make());
  const auto other = make();
  EXPECT_EQ(ones[0]->lock_class.key(), ones[1]->lock_class.key());
  EXPECT_NE(ones[0]->lock_class.key(), other->lock_class.key());
  nest(*ones[0], *other);
  nest(*other, *ones[1]);
  ASSERT_THAT(found(), SizeIs(1));
  EXPECT_THAT(found()[0].text, HasSubstr("sync_order_test.cpp:"));
}

TEST_F(Order, a_class_is_a_constant) {
  static constexpr LockClass kOne{"constant"};
  static_assert(kOne.key() == LockClass{"constant"}.key());
  static_assert(kOne.key() != kOne.nested(1).key() && kOne.nested(1).key() != kOne.nested(2).key());
  static_assert(kOne.nested(0).key() == kOne.key());
  static_assert(LockClass::line_of(LockClass{"b"}.key()) == 0 && LockClass::subclass_of(kOne.nested(3).key()) == 3);
  static_assert(LockClass::line_of(LockClass{std::source_location::current()}.key()) == __LINE__);
  static_assert(LockClass{"b"}.key() % 16 == 0);
  static_assert(LockClass{}.key() == 0);
  SUCCEED();
}

TEST_F(Order, a_name_that_leads_nowhere_is_not_followed) {
  const auto* nowhere = reinterpret_cast<const char*>(8);  // NOLINT: another process's pointer
  const LockClass foreign = LockClass::from_parts(LockClass{"foreign"}.key(), nowhere);
  const LockClass wrong = LockClass::from_parts(LockClass{"wrong"}.key(), "another text");
  const int locks[2] = {};
  for (const bool reverse : {false, true}) {
    const Shown one{reverse ? wrong : foreign, &locks[0]};
    const Shown two{reverse ? foreign : wrong, &locks[1]};
  }
  ASSERT_THAT(found(), SizeIs(1));
  EXPECT_THAT(found()[0].steps[0], testing::MatchesRegex("class [0-9a-f]{16}<class [0-9a-f]{16}"));
}

TEST_F(Order, a_lock_without_a_class_is_not_looked_at) {
  const int locks[2] = {};
  const Shown one{LockClass{}, &locks[0]};
  const Shown two{LockClass{}, &locks[0]};
  const Shown three{LockClass{"has one"}, &locks[1]};
  EXPECT_THAT(found(), IsEmpty());
  EXPECT_EQ(order::contents().classes, 1U);
  EXPECT_EQ(order::contents().orders, 0U);
}

TEST_F(Order, a_lock_taken_twice_by_its_holder_is_recursion) {
  const LockClass kClass{"twice"};
  const int lock = 0;
  const Shown first{kClass, &lock};
  const Shown second{kClass, &lock};
  ASSERT_THAT(found(), SizeIs(1));
  EXPECT_EQ(found()[0].kind, Report::Kind::recursion);
  EXPECT_THAT(found()[0].steps, ElementsAre("twice<twice"));
}

TEST_F(Order, two_locks_of_one_class_without_an_order_are_nesting) {
  Lock one{LockClass{"pair"}};
  Lock two{LockClass{"pair"}};
  nest(one, two);
  ASSERT_THAT(found(), SizeIs(1));
  EXPECT_EQ(found()[0].kind, Report::Kind::nesting);
}

TEST_F(Order, recursion_is_reported_though_nesting_was) {
  const LockClass kClass{"both"};
  const int locks[2] = {};
  {
    const Shown first{kClass, &locks[0]};
    const Shown second{kClass, &locks[1]};
  }
  {
    const Shown first{kClass, &locks[0]};
    const Shown second{kClass, &locks[0]};
  }
  ASSERT_THAT(found(), SizeIs(2));
  EXPECT_EQ(found()[1].kind, Report::Kind::recursion);
}

TEST_F(Order, locks_of_one_class_in_order_of_address_with_subclasses_are_fine) {
  const LockClass kClass{"account"};
  std::array<std::mutex, 2> accounts;
  for (int i = 0; i < 2; ++i) {
    const Shown first{kClass, &accounts[0]};
    const order::Nested subclass{1};
    const Shown second{kClass, &accounts[1]};
  }
  EXPECT_THAT(found(), IsEmpty());
  const Shown second{kClass.nested(1), &accounts[1]};
  const Shown first{kClass, &accounts[0]};
  ASSERT_THAT(found(), SizeIs(1));
  EXPECT_THAT(found()[0].steps[0], "account<account/1");
}

TEST_F(Order, hand_over_hand_is_fine) {
  // A list whose nodes alternate between two subclasses: never more than two are held, in the list's order.
  const LockClass kEven{"list.node"};
  std::deque<Lock> list;
  for (std::uint32_t i = 0; i < 6; ++i) list.emplace_back(kEven.nested(i));
  for (int walk = 0; walk < 3; ++walk) {
    list[0].lock();
    for (std::size_t i = 1; i < list.size(); ++i) {
      list[i].lock();
      list[i - 1].unlock();
    }
    list.back().unlock();
  }
  EXPECT_THAT(found(), IsEmpty());
  // What was let go of meanwhile is not held: the last node then the first is the reverse of nothing when alone.
  list.back().lock();
  list.back().unlock();
  list.front().lock();
  list.front().unlock();
  EXPECT_THAT(found(), IsEmpty());
}

TEST_F(Order, releases_in_any_order_leave_the_right_locks_held) {
  Lock a{LockClass{"any.a"}};
  Lock b{LockClass{"any.b"}};
  Lock c{LockClass{"any.c"}};
  a.lock();
  b.lock();
  a.unlock();
  c.lock();  // under b alone
  b.unlock();
  c.unlock();
  EXPECT_EQ(order::contents().orders, 2U);  // a b, b c
  nest(a, c);                               // agrees with both
  EXPECT_THAT(found(), IsEmpty());
  nest(c, a);
  EXPECT_THAT(found(), SizeIs(1));
}

TEST_F(Order, a_trylock_in_the_wrong_order_is_fine) {
  Lock a{LockClass{"try.a"}};
  Lock b{LockClass{"try.b"}};
  nest(a, b);
  for (int i = 0; i < 3; ++i) {  // backs off, as who takes two locks in the wrong order must
    b.lock();
    if (a.try_lock()) a.unlock();
    b.unlock();
  }
  EXPECT_THAT(found(), IsEmpty());
}

TEST_F(Order, what_is_waited_for_under_a_trylock_counts) {
  Lock a{LockClass{"try.held.a"}};
  Lock b{LockClass{"try.held.b"}};
  nest(a, b);
  ASSERT_TRUE(b.try_lock());
  a.lock();
  a.unlock();
  b.unlock();
  EXPECT_THAT(found(), SizeIs(1));
}

TEST_F(Order, readers_that_pass_waiting_writers_may_read_twice_and_in_both_orders) {
  SharedLock a{LockClass{"rec.a"}, How::recursive_shared};
  SharedLock b{LockClass{"rec.b"}, How::recursive_shared};
  for (SharedLock* first : {&a, &b}) {
    const std::shared_lock one{*first};
    const std::shared_lock two{first == &a ? b : a};
    const Shown again{first->lock_class, first, How::recursive_shared};
  }
  EXPECT_THAT(found(), IsEmpty());
}

TEST_F(Order, readers_that_wait_behind_writers_may_not_read_twice) {
  const LockClass kClass{"fair"};
  const int lock = 0;
  const Shown one{kClass, &lock, How::shared};
  const Shown two{kClass, &lock, How::shared};
  ASSERT_THAT(found(), SizeIs(1));
  EXPECT_EQ(found()[0].kind, Report::Kind::recursion);
}

TEST_F(Order, readers_that_wait_behind_writers_deadlock_in_both_orders) {
  SharedLock a{LockClass{"fair.a"}, How::shared};
  SharedLock b{LockClass{"fair.b"}, How::shared};
  {
    const std::shared_lock one{a};
    const std::shared_lock two{b};
  }
  const std::shared_lock two{b};
  const std::shared_lock one{a};
  EXPECT_THAT(found(), SizeIs(1));
}

TEST_F(Order, a_recursive_reader_deadlocks_with_writers_in_the_reverse_order) {
  SharedLock a{LockClass{"mixed.a"}, How::recursive_shared};
  Lock b{LockClass{"mixed.b"}};
  {
    const std::shared_lock one{a};
    const std::lock_guard two{b};
  }
  {
    const std::lock_guard one{b};  // waits as a reader, whom readers do not stop
    const std::shared_lock two{a};
  }
  EXPECT_THAT(found(), IsEmpty());
  nest(b, a);  // as a writer
  ASSERT_THAT(found(), SizeIs(1));
}

TEST_F(Order, a_writer_that_became_a_reader_holds_as_a_reader) {
  SharedLock a{LockClass{"down.a"}, How::recursive_shared};
  Lock b{LockClass{"down.b"}};
  a.lock();
  order::downgraded(&a);
  {
    const std::lock_guard two{b};
  }
  order::released(&a);
  {
    const std::lock_guard one{b};
    const std::shared_lock two{a};
  }
  EXPECT_THAT(found(), IsEmpty());
}

TEST_F(Order, a_lock_that_was_not_had_is_not_held) {
  Lock b{LockClass{"lost.b"}};
  const LockClass kLost{"lost.a"};
  const int lost = 0;
  order::acquiring(kLost, &lost, How::exclusive, order::here());
  order::released(&lost);  // timed out
  b.lock();
  b.unlock();
  EXPECT_EQ(order::contents().orders, 0U);
}

TEST_F(Order, releasing_what_is_not_held_is_nothing) {
  const int lock = 0;
  order::released(&lock);
  order::downgraded(&lock);
  EXPECT_THAT(found(), IsEmpty());
}

TEST_F(Order, what_was_held_before_it_was_switched_off_is_not_held_after) {
  Lock a{LockClass{"gap.a"}};
  Lock b{LockClass{"gap.b"}};
  a.lock();
  order::switch_off();
  EXPECT_FALSE(order::is_on());
  ASSERT_FALSE(on());
  EXPECT_TRUE(order::is_on());
  b.lock();
  b.unlock();
  a.unlock();
  EXPECT_EQ(order::contents().orders, 0U);
}

TEST_F(Order, nothing_is_recorded_while_it_is_off) {
  order::switch_off();
  Driver driver;
  driver.read();
  driver.write();
  EXPECT_THAT(found(), IsEmpty());
  EXPECT_EQ(order::contents().classes, 0U);
}

TEST_F(Order, a_handler_may_take_locks) {
  static Lock log{LockClass{"handler.log"}};
  ASSERT_FALSE(order::switch_on({.graph = graph_,
                                 .handler =
                                     [](const Report& report, void* context) {
                                       const std::lock_guard guard{log};
                                       note(report, context);
                                     },
                                 .context = this}));
  Driver driver;
  driver.read();
  driver.write();
  const std::lock_guard guard{log};
  EXPECT_THAT(found(), SizeIs(1));
}

// Signals.

static Lock* handler_lock = nullptr;

void take_in_handler(int signal) {
  const order::InHandler in{signal};
  const std::lock_guard guard{*handler_lock};
}

class OrderAndSignals : public Order {
 protected:
  void SetUp() override {
    Order::SetUp();
    struct sigaction action{};
    action.sa_handler = &take_in_handler;
    ASSERT_EQ(::sigaction(SIGUSR1, &action, &before_), 0);
    handler_lock = &lock_;
  }
  void TearDown() override {
    ::sigaction(SIGUSR1, &before_, nullptr);
    Order::TearDown();
  }
  struct Blocked {
    Blocked() {
      sigset_t set;
      sigemptyset(&set);
      sigaddset(&set, SIGUSR1);
      ::pthread_sigmask(SIG_BLOCK, &set, &before);
    }
    ~Blocked() { ::pthread_sigmask(SIG_SETMASK, &before, nullptr); }
    sigset_t before;
  };
  void take() { const std::lock_guard guard{lock_}; }

  Lock lock_{LockClass{"signal.lock"}};
  struct sigaction before_{};
};

TEST_F(OrderAndSignals, a_lock_of_a_handler_taken_while_the_signal_can_come_is_found) {
  ::raise(SIGUSR1);
  EXPECT_THAT(found(), IsEmpty());
  take();
  ASSERT_THAT(found(), SizeIs(1));
  EXPECT_EQ(found()[0].kind, Report::Kind::signal_unsafe);
  EXPECT_EQ(found()[0].signal, SIGUSR1);
  EXPECT_THAT(found()[0].steps, ElementsAre("signal.lock", "signal.lock"));
  const Found one = found()[0];
  for (const std::size_t depth : one.depths) EXPECT_GT(depth, 2U);
}

TEST_F(OrderAndSignals, it_is_found_when_the_handler_comes_last) {
  for (int i = 0; i < 10; ++i) take();
  ::raise(SIGUSR1);
  ASSERT_THAT(found(), SizeIs(1));
  EXPECT_EQ(found()[0].kind, Report::Kind::signal_unsafe);
}

TEST_F(OrderAndSignals, it_is_found_in_another_thread) {
  take();  // known in this thread as a chain in order
  {
    const Blocked blocked;
    take();
  }
  std::thread{[] { ::raise(SIGUSR1); }}.join();
  EXPECT_THAT(found(), SizeIs(1));
}

TEST_F(OrderAndSignals, a_lock_that_is_taken_with_the_signal_blocked_is_fine) {
  {
    const Blocked blocked;
    take();
  }
  ::raise(SIGUSR1);
  for (int i = 0; i < 3; ++i) {
    const Blocked blocked;
    take();
  }
  EXPECT_THAT(found(), IsEmpty());
  take();  // forgotten once
  EXPECT_THAT(found(), SizeIs(1));
}

TEST_F(OrderAndSignals, an_irqsave_lock_is_fine) {
  ::raise(SIGUSR1);
  const int lock = 0;
  order::acquiring(lock_.lock_class, &lock, How::exclusive, order::here(), order::Signals::blocked);
  order::released(&lock);
  EXPECT_THAT(found(), IsEmpty());
}

TEST_F(OrderAndSignals, a_trylock_elsewhere_is_found_and_in_the_handler_is_fine) {
  ::raise(SIGUSR1);
  ASSERT_TRUE(lock_.try_lock());  // the handler would wait for it
  lock_.unlock();
  EXPECT_THAT(found(), SizeIs(1));
  Lock other{LockClass{"signal.tried"}};
  {
    const order::InHandler in{SIGUSR2};
    ASSERT_TRUE(other.try_lock());
    other.unlock();
  }
  {
    const std::lock_guard guard{other};
  }
  EXPECT_THAT(found(), SizeIs(1));
}

TEST_F(OrderAndSignals, a_handler_that_waits_for_one_who_waits_for_the_interrupted_is_found) {
  Lock outside{LockClass{"signal.outside"}};
  ::raise(SIGUSR1);
  {
    const std::lock_guard guard{outside};  // the handler may interrupt here
  }
  EXPECT_THAT(found(), IsEmpty());
  const Blocked blocked;
  nest(lock_, outside);
  ASSERT_THAT(found(), SizeIs(1));
  EXPECT_EQ(found()[0].kind, Report::Kind::signal_inversion);
  EXPECT_THAT(found()[0].steps, ElementsAre("signal.lock", "signal.outside"));
}

TEST_F(OrderAndSignals, what_a_handler_interrupted_is_held_again_afterwards) {
  Lock a{LockClass{"interrupted.a"}};
  Lock b{LockClass{"interrupted.b"}};
  a.lock();
  ::raise(SIGUSR1);
  b.lock();
  b.unlock();
  a.unlock();
  EXPECT_EQ(order::contents().orders, 1U);  // a b, and nothing with the handler's lock
}

// Limits.

TEST_F(Order, more_classes_than_it_has_room_for_are_told_once_and_left_alone) {
  std::deque<std::string> names;
  for (std::size_t i = 0; i < order::kMostClasses + 20; ++i) names.push_back("class " + std::to_string(i));
  const int locks[2] = {};
  const auto nest_classes = [&](const std::string& outer, const std::string& inner) {
    const Shown first{LockClass{outer.c_str()}, &locks[0]};
    const Shown second{LockClass{inner.c_str()}, &locks[1]};
  };
  for (std::size_t i = 1; i < names.size(); ++i) nest_classes(names[i - 1], names[i]);
  ASSERT_THAT(found(), SizeIs(1));
  EXPECT_EQ(found()[0].kind, Report::Kind::full);
  EXPECT_THAT(found()[0].text, HasSubstr("1024 classes"));
  EXPECT_EQ(order::contents().classes, order::kMostClasses);
  EXPECT_EQ(order::contents().orders, order::kMostClasses - 1);
  nest_classes(names[order::kMostClasses - 1],
               names[0]);  // those it knows are still looked at, whatever their distance
  ASSERT_THAT(found(), SizeIs(2));
  EXPECT_EQ(found()[1].kind, Report::Kind::inversion);
  EXPECT_THAT(found()[1].text, HasSubstr("1016 more orders between"));
}

TEST_F(Order, more_orders_than_it_keeps_stacks_of_are_told_once_and_still_found) {
  std::deque<std::string> names;
  for (int i = 0; i < 200; ++i) names.push_back("many " + std::to_string(i));
  const int locks[2] = {};
  for (std::size_t outer = 0; outer < names.size(); ++outer)
    for (std::size_t inner = outer + 1; inner < names.size(); ++inner) {
      const Shown first{LockClass{names[outer].c_str()}, &locks[0]};
      const Shown second{LockClass{names[inner].c_str()}, &locks[1]};
    }
  ASSERT_THAT(found(), SizeIs(1));
  EXPECT_THAT(found()[0].text, HasSubstr("8192 orders"));
  EXPECT_EQ(order::contents().orders, 200U * 199 / 2);
  const Shown first{LockClass{names[199].c_str()}, &locks[0]};
  const Shown second{LockClass{names[198].c_str()}, &locks[1]};
  EXPECT_THAT(found(), SizeIs(2));
}

TEST_F(Order, a_thread_that_holds_more_than_it_has_room_for_is_told_once) {
  std::deque<Lock> locks;
  std::deque<std::string> names;
  for (std::uint32_t i = 0; i < order::kMostHeld + 5; ++i)
    locks.emplace_back(LockClass{names.emplace_back("deep " + std::to_string(i)).c_str()});
  for (int round = 0; round < 2; ++round) {
    for (Lock& lock : locks) lock.lock();
    for (auto lock = locks.rbegin(); lock != locks.rend(); ++lock) lock->unlock();
  }
  ASSERT_THAT(found(), SizeIs(1));
  EXPECT_THAT(found()[0].text, HasSubstr("48 locks"));
  // Each of the last five was compared with all that are held.
  EXPECT_EQ(order::contents().orders, order::kMostHeld * (order::kMostHeld - 1) / 2 + 5 * order::kMostHeld);
}

TEST_F(Order, a_handler_at_the_limit_of_depth_loses_nothing) {
  std::deque<Lock> locks;
  std::deque<std::string> names;
  for (std::uint32_t i = 0; i < order::kMostHeld; ++i)
    locks.emplace_back(LockClass{names.emplace_back("deepest " + std::to_string(i)).c_str()});
  for (Lock& lock : locks) lock.lock();
  Lock other{LockClass{"deepest.other"}};
  {
    const order::InHandler in{SIGUSR1};
    other.lock();
    other.unlock();
  }
  for (auto lock = locks.rbegin(); lock != locks.rend(); ++lock) lock->unlock();
  Lock last{LockClass{"deepest.last"}};
  const std::size_t orders = order::contents().orders;
  last.lock();
  last.unlock();
  EXPECT_EQ(order::contents().orders, orders);
}

// Threads.

TEST_F(Order, threads_that_add_at_once_miss_no_inversion) {
  constexpr int kPairs = 100;
  std::deque<std::string> names;
  for (int i = 0; i < 2 * kPairs; ++i) names.push_back("race " + std::to_string(i));
  std::atomic<int> turn{0};
  const auto run = [&](bool reverse) {
    const int locks[2] = {};
    for (int i = 0; i < kPairs; ++i) {
      turn.fetch_add(1);
      while (turn.load() < 2 * (i + 1)) std::this_thread::yield();
      const LockClass one{names[static_cast<std::size_t>(2 * i)].c_str()};
      const LockClass two{names[static_cast<std::size_t>(2 * i + 1)].c_str()};
      const Shown first{reverse ? two : one, &locks[0]};
      const Shown second{reverse ? one : two, &locks[1]};
    }
  };
  std::thread other{run, true};
  run(false);
  other.join();
  EXPECT_THAT(found(), SizeIs(kPairs));
}

TEST_F(Order, threads_come_and_go_without_a_trace) {
  Driver driver;
  for (int i = 0; i < 200; ++i) std::thread{[&] { driver.read(); }}.join();
  EXPECT_THAT(found(), IsEmpty());
  EXPECT_EQ(order::contents().orders, 1U);
}

TEST_F(Order, threads_see_it_switched_on_and_off) {
  Driver driver;
  std::atomic<bool> end{false};
  std::vector<std::thread> threads;
  for (int i = 0; i < 2; ++i)
    threads.emplace_back([&] {
      while (!end.load(std::memory_order_relaxed)) driver.read();
    });
  for (int i = 0; i < 200; ++i) {
    order::switch_off();
    ASSERT_FALSE(on());
  }
  end = true;
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(found(), IsEmpty());
}

// Files that are no graph.

TEST_F(Order, a_file_that_is_no_graph_is_refused_and_left_as_it_is) {
  char name[] = "/tmp/holdfast-order-XXXXXX";
  const int fd = ::mkstemp(name);
  ASSERT_EQ(::write(fd, "precious", 8), 8);
  EXPECT_EQ(order::switch_on({.graph = name}), std::error_code(EMEDIUMTYPE, std::generic_category()));
  char text[16] = {};
  EXPECT_EQ(::pread(fd, text, sizeof text, 0), 8);
  ::close(fd);
  ::unlink(name);
  EXPECT_TRUE(order::is_on());  // as before
}

TEST_F(Order, a_graph_that_cannot_be_made_is_an_error) {
  EXPECT_EQ(order::switch_on({.graph = "/nonexistent/graph"}), std::errc::no_such_file_or_directory);
}

}  // namespace
}  // namespace holdfast::sync
