// SPDX-License-Identifier: MIT
// broker_events_test.cpp - what the real broker tells and writes down: through Watch and through the history.
#include "claim/inquiry.hpp"
#include "process/support/broker.hpp"
#include "process/support/child.hpp"
#include "process/support/devices.hpp"

#include <holdfast/claim.hpp>
#include <holdfast/watch.hpp>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace holdfast {
namespace {

using namespace testing_support;
using namespace std::chrono_literals;
using testing::HasSubstr;

class BrokerEventsTest : public testing::Test {
 protected:
  // The next event of the terminal, as "claimed by PID".
  std::string next(Watch& watch) {
    auto event = watch.next(Wait::at_most(kPatience));
    if (!event) return event.error().message;
    last = std::move(*event);
    return std::string{to_string(last.kind)} + (last.who.pid > 0 ? " by " + std::to_string(last.who.pid) : "");
  }
  Watch watching() const {
    auto watch = Watch::open({{pty.path()}});
    EXPECT_TRUE(watch) << watch.error().message;
    return std::move(*watch);
  }
  // A child that claims the terminal, waiting if need be, and holds it until told.
  Child claimer(const char* purpose) const {
    return Child{[this, purpose](Peer& test) {
      Options options;
      options.wait = Wait::for_ever();
      options.purpose = purpose;
      auto mine = claim(pty.path(), options);
      test.tell(mine ? "claimed" : mine.error().message);
      test.hear();
      if (mine) mine->release();
      test.tell("released");
      test.hear();
      return 0;
    }};
  }
  std::vector<std::string> written() const {
    const auto events = claiming::history({pty.path()}, std::nullopt, 100);
    if (!events) return {events.error().message};
    std::vector<std::string> all;
    for (const Event& event : *events)
      all.push_back(std::string{to_string(event.kind)} + " by " + std::to_string(event.who.pid));
    return all;
  }

  Pty pty;
  TemporaryDirectory directory;
  BrokerUnderTest broker{{"--history", directory.path() + "/history"}};
  Event last;
};

TEST_F(BrokerEventsTest, claims_waits_and_ends_are_told_and_written_down) {
  Watch watch = watching();
  std::vector<std::string> told;
  const auto hears = [&](const std::string& words) {
    EXPECT_EQ(next(watch), words);
    told.push_back(words);
  };
  Child first = claimer("first");
  ASSERT_EQ(first.hear(), "claimed");
  hears("claimed by " + std::to_string(first.pid()));
  EXPECT_EQ(last.device, pty.path());
  EXPECT_EQ(last.who.purpose, "first");
  Child second = claimer("second");
  hears("waiting by " + std::to_string(second.pid()));
  first.tell("release");
  ASSERT_EQ(second.hear(), "claimed");
  hears("released by " + std::to_string(first.pid()));
  EXPECT_GT(last.held, 0ns);
  hears("claimed by " + std::to_string(second.pid()));
  EXPECT_GT(last.waited, 0ns);
  second.kill();
  hears("lapsed by " + std::to_string(second.pid()));
  EXPECT_EQ(written(), told);
}

TEST_F(BrokerEventsTest, a_kick_is_told_with_its_reason_and_leaves_the_device_free) {
  Watch watch = watching();
  Child holder = claimer("long test");
  ASSERT_EQ(holder.hear(), "claimed");
  EXPECT_EQ(next(watch), "claimed by " + std::to_string(holder.pid()));
  EXPECT_EQ(claiming::kick("/dev/null", 0ns, "").error().code, errc::not_held);
  const auto kicked = claiming::kick(pty.path(), 50ms, "the board is needed");
  ASSERT_TRUE(kicked) << kicked.error().message;
  EXPECT_EQ(next(watch), "revoked by " + std::to_string(holder.pid()));
  EXPECT_THAT(last.detail, HasSubstr("the board is needed"));
  const auto mine = claim(pty.path());
  EXPECT_TRUE(mine) << mine.error().message;
}

TEST_F(BrokerEventsTest, watch_and_history_go_on_after_the_broker_was_killed) {
  Watch watch = watching();
  {
    EXPECT_TRUE(claim(pty.path()));
  }
  const std::string me = " by " + std::to_string(::getpid());
  EXPECT_EQ(next(watch), "claimed" + me);
  EXPECT_EQ(next(watch), "released" + me);
  ASSERT_EQ(written().size(), 2U);  // to be asked settles what waits to be written
  broker.kill();
  broker.start();
  EXPECT_EQ(next(watch), "missed");
  {
    EXPECT_TRUE(claim(pty.path()));
  }
  EXPECT_EQ(next(watch), "claimed" + me);
  EXPECT_EQ(next(watch), "released" + me);
  EXPECT_EQ(written(), (std::vector{"claimed" + me, "released" + me, "claimed" + me, "released" + me}));
}

}  // namespace
}  // namespace holdfast
