// SPDX-License-Identifier: MIT
// claim_event_watch_test.cpp - events by poll(2) and by SIGIO, and through a broker that is started anew.
#include "base/unique_fd.hpp"
#include "process/support/child.hpp"
#include "process/support/devices.hpp"
#include "process/support/fake_broker.hpp"

#include <holdfast/watch.hpp>

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <optional>

namespace holdfast {
namespace {

using namespace testing_support;
using namespace std::chrono_literals;
using testing::HasSubstr;

volatile std::sig_atomic_t something_to_read = 0;
volatile std::sig_atomic_t told_descriptor = -1;

class EventWatchTest : public testing::Test {
 protected:
  void SetUp() override {
    path = directory.path() + "/socket";
    ::setenv("HOLDFAST_SOCKET", path.c_str(), 1);
    broker.emplace(path);
  }
  void TearDown() override { ::unsetenv("HOLDFAST_SOCKET"); }
  static Watch opened(const std::vector<std::string>& devices = {}, EventKinds kinds = EventKinds::all()) {
    auto watch = Watch::open(devices, kinds);
    EXPECT_TRUE(watch) << watch.error().message;
    return std::move(*watch);
  }
  static bool is_readable(const Watch& watch, int patience = 10'000) {
    pollfd waits{watch.fd(), POLLIN, 0};
    return ::poll(&waits, 1, patience) == 1;
  }
  static std::string detail_of_next(Watch& watch) {
    const auto event = watch.next(Wait::at_most(10s));
    return event ? std::string{to_string(event->kind)} + ": " + event->detail : event.error().message;
  }

  TemporaryDirectory directory;
  std::string path;
  std::optional<FakeBroker> broker;
};

TEST_F(EventWatchTest, an_event_says_who_did_what_to_which_device_and_when) {
  Watch watch = opened();
  broker->watched_by(1);
  wire::Event told = told_event(wire::EventKind::released, "/dev/ttyUSB3", "gave it back");
  told.waited = 3s;
  told.held = 4ms;
  told.mode = Mode::shared;
  broker->tell(told);
  const auto event = watch.next(Wait::at_most(10s));
  ASSERT_TRUE(event) << event.error().message;
  EXPECT_EQ(event->kind, EventKind::released);
  EXPECT_EQ(event->device, "/dev/ttyUSB3");
  EXPECT_EQ(event->number, "c188:3");
  EXPECT_EQ(event->at, told.at);
  EXPECT_EQ(event->mode, Mode::shared);
  EXPECT_EQ(event->who.pid, 4121);
  EXPECT_EQ(event->who.purpose, "flash");
  EXPECT_EQ(event->waited, 3s);
  EXPECT_EQ(event->held, 4ms);
  EXPECT_EQ(event->detail, "gave it back");
}

TEST_F(EventWatchTest, the_broker_hears_which_devices_and_kinds_are_wanted) {
  const Watch watch = opened({"/dev/null", "c1:5"}, {EventKind::claimed, EventKind::lapsed});
  const wire::Watch wanted = broker->watched_by(1);
  ASSERT_EQ(wanted.devices.size(), 2U);
  EXPECT_EQ(wanted.devices[0].path, "/dev/null");
  EXPECT_EQ(wanted.devices[0].major, 1U);
  EXPECT_EQ(wanted.devices[0].minor, 3U);
  EXPECT_EQ(wanted.devices[1].path, "/dev/zero");
  EXPECT_EQ(wanted.kinds, 0b1001U);
}

TEST_F(EventWatchTest, the_descriptor_is_readable_while_there_is_an_event) {
  Watch watch = opened();
  broker->watched_by(1);
  EXPECT_FALSE(is_readable(watch, 0));
  EXPECT_EQ(watch.next(Wait::none()).error().code, errc::timed_out);
  broker->tell(told_event(wire::EventKind::claimed, "/dev/x", "a"));
  broker->tell(told_event(wire::EventKind::claimed, "/dev/x", "b"));
  EXPECT_TRUE(is_readable(watch));
  EXPECT_EQ(watch.try_next().value().value().detail, "a");
  EXPECT_TRUE(is_readable(watch));
  EXPECT_EQ(watch.try_next().value().value().detail, "b");
  EXPECT_FALSE(is_readable(watch, 0));
  EXPECT_FALSE(watch.try_next().value());
}

// As a reader of a device with a fasync method does it: a handler notes the signal, the loop reads.
TEST_F(EventWatchTest, an_event_sends_sigio_to_its_owner_also_after_the_broker_was_started_anew) {
  Watch watch = opened();
  broker->watched_by(1);
  const int number = watch.fd();
  sigset_t sigio;
  sigset_t before;
  ::sigemptyset(&sigio);
  ::sigaddset(&sigio, SIGIO);
  ASSERT_EQ(::pthread_sigmask(SIG_BLOCK, &sigio, &before), 0);
  sigset_t in_sleep = before;
  ::sigdelset(&in_sleep, SIGIO);
  struct sigaction action{};
  action.sa_flags = SA_SIGINFO;
  action.sa_sigaction = [](int, siginfo_t* signal, void*) {
    something_to_read = 1;
    told_descriptor = signal->si_fd;
  };
  struct sigaction earlier{};
  ASSERT_EQ(::sigaction(SIGIO, &action, &earlier), 0);
  const f_owner_ex owner{F_OWNER_TID, ::gettid()};
  ASSERT_EQ(::fcntl(number, F_SETOWN_EX, &owner), 0);
  ASSERT_EQ(::fcntl(number, F_SETSIG, SIGIO), 0);  // with it, the handler hears which descriptor
  ASSERT_EQ(::fcntl(number, F_SETFL, O_ASYNC | O_NONBLOCK), 0);

  const auto read_after_signal = [&] {
    std::vector<std::string> read;
    while (read.empty()) {
      while (something_to_read == 0) ::sigsuspend(&in_sleep);
      something_to_read = 0;
      while (auto event = watch.try_next().value()) read.push_back(event->detail);
    }
    return read;
  };
  ::alarm(20);  // a signal that does not come ends the test
  EXPECT_EQ(something_to_read, 0);
  broker->tell(told_event(wire::EventKind::claimed, "/dev/x", "a"));
  EXPECT_THAT(read_after_signal(), testing::ElementsAre("a"));
  EXPECT_EQ(told_descriptor, number);

  broker.reset();
  while (something_to_read == 0) ::sigsuspend(&in_sleep);
  something_to_read = 0;
  EXPECT_FALSE(watch.try_next().value()) << "nobody is there";
  broker.emplace(path);
  EXPECT_THAT(read_after_signal(), testing::ElementsAre(HasSubstr("started anew")));
  broker->tell(told_event(wire::EventKind::claimed, "/dev/x", "b"));
  EXPECT_THAT(read_after_signal(), testing::ElementsAre("b"));
  EXPECT_EQ(watch.fd(), number);
  EXPECT_EQ(told_descriptor, number);

  ::alarm(0);
  ::sigaction(SIGIO, &earlier, nullptr);
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

TEST_F(EventWatchTest, a_broker_that_is_started_anew_is_found_by_who_polls_alone) {
  Watch watch = opened();
  broker->watched_by(1);
  const int number = watch.fd();
  broker.reset();
  ASSERT_TRUE(is_readable(watch));
  EXPECT_FALSE(watch.try_next().value());
  while (is_readable(watch, 0)) EXPECT_FALSE(watch.try_next().value());  // the socket's end is an event as well
  broker.emplace(path);
  std::optional<Event> event;
  while (!event) {
    ASSERT_TRUE(is_readable(watch));
    event = watch.try_next().value();
  }
  EXPECT_EQ(event->kind, EventKind::missed);
  EXPECT_EQ(watch.fd(), number);
  broker->tell(told_event(wire::EventKind::claimed, "/dev/x", "a"));
  EXPECT_EQ(detail_of_next(watch), "claimed: a");
}

TEST_F(EventWatchTest, a_broker_whose_directory_went_with_it_is_found_again) {
  const std::string below = directory.path() + "/run";
  std::filesystem::create_directory(below);
  ::setenv("HOLDFAST_SOCKET", (below + "/socket").c_str(), 1);
  broker.emplace(below + "/socket");
  Watch watch = opened();
  broker->watched_by(1);
  broker.reset();
  std::filesystem::remove_all(below);
  while (is_readable(watch, 0)) EXPECT_FALSE(watch.try_next().value());
  std::filesystem::create_directory(below);
  broker.emplace(below + "/socket");
  EXPECT_THAT(detail_of_next(watch), HasSubstr("started anew"));
}

TEST_F(EventWatchTest, several_starts_of_the_broker_are_one_gap_each) {
  Watch watch = opened();
  for (int i = 0; i < 3; ++i) {
    broker.reset();
    broker.emplace(path);
    EXPECT_THAT(detail_of_next(watch), HasSubstr("started anew"));
    broker->tell(told_event(wire::EventKind::claimed, "/dev/x", "a"));
    EXPECT_EQ(detail_of_next(watch), "claimed: a");
  }
}

TEST_F(EventWatchTest, a_signal_handler_interrupts_the_wait) {
  Watch watch = opened();
  struct sigaction action{};
  action.sa_handler = [](int) {};
  struct sigaction earlier{};
  ASSERT_EQ(::sigaction(SIGALRM, &action, &earlier), 0);
  itimerval soon{};
  soon.it_value.tv_usec = 20'000;
  soon.it_interval.tv_usec = 20'000;
  ::setitimer(ITIMER_REAL, &soon, nullptr);
  sigset_t alarm;
  ::sigemptyset(&alarm);
  ::sigaddset(&alarm, SIGALRM);
  EXPECT_EQ(watch.next(Wait::at_most(10s)).error().code, errc::interrupted);
  const itimerval never{};
  ::setitimer(ITIMER_REAL, &never, nullptr);
  ::sigaction(SIGALRM, &earlier, nullptr);
}

TEST_F(EventWatchTest, a_forked_child_hears_nothing_and_takes_nothing_from_its_parent) {
  Watch watch = opened();
  broker->watched_by(1);
  broker->tell(told_event(wire::EventKind::claimed, "/dev/x", "a"));
  ASSERT_TRUE(is_readable(watch));
  EXPECT_EQ(in_a_child([&watch] {
              auto event = watch.try_next();
              return event ? std::string{"an event"} : event.error().code.message();
            }),
            make_error_code(errc::not_held).message());
  EXPECT_EQ(detail_of_next(watch), "claimed: a");
  const Watch moved = std::move(watch);
  EXPECT_EQ(watch.try_next().error().code, errc::not_held);  // NOLINT(bugprone-use-after-move)
  EXPECT_EQ(watch.fd(), -1);
}

TEST_F(EventWatchTest, without_a_broker_there_is_nothing_to_watch) {
  broker.reset();
  const auto nobody = Watch::open();
  ASSERT_FALSE(nobody);
  EXPECT_EQ(nobody.error().errnum, ENOENT);
  EXPECT_THAT(nobody.error().message, testing::AllOf(HasSubstr(path), HasSubstr("holdfastd")));
  ::setenv("HOLDFAST_SOCKET", "", 1);
  EXPECT_FALSE(Watch::open());
  EXPECT_EQ(Watch::open({{"/dev/holdfast-none"}}).error().code, errc::no_such_device);
}

}  // namespace
}  // namespace holdfast
