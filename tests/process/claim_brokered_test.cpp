// SPDX-License-Identifier: MIT
// claim_brokered_test.cpp - the client's side of a claim through the broker: what it makes of each answer, of a broker
// that dies, comes back or is none, and what a third process finds meanwhile.
#include "process/support/child.hpp"
#include "process/support/devices.hpp"
#include "process/support/scripted_broker.hpp"

#include <holdfast/holdfast.h>
#include <holdfast/claim.hpp>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

namespace holdfast {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using namespace testing_support;
using namespace std::chrono_literals;

// What another process meets that knows no broker.
std::string stranger_tries(const std::string& device, Options options = {}) {
  return in_a_child([&] {
    options.way = Way::never_broker;
    const auto taken = claim(device, options);
    return taken ? std::string{"taken"} : taken.error().message;
  });
}

bool readable(int fd, std::chrono::milliseconds patience = kPatience) {
  pollfd heard{fd, POLLIN, 0};
  return ::poll(&heard, 1, static_cast<int>(patience.count())) == 1;
}

// Grants the first request of one connection, and its release.
void grant_once(Stage& stage, const std::string& device) {
  Visitor client = stage.admit();
  const auto asked = client.hear<wire::Claim>();
  claiming::Holding holding = stage.take(device);
  client.grant(asked.number, holding);
  const auto release = client.hear<wire::Release>();
  holding.give_back();
  client.say(release.number, wire::Done{});
  stage.test().tell("released");
}

TEST(BrokeredClaim, is_held_through_the_broker_and_released_through_it) {
  const LoopDevice loop;
  if (!loop.missing().empty()) GTEST_SKIP() << "needs " << loop.missing();
  ScriptedBroker broker{[&](Stage& stage) { grant_once(stage, loop.path()); }};
  auto mine = claim(loop.path());
  ASSERT_TRUE(mine) << mine.error().message;
  EXPECT_TRUE(mine->is_brokered());
  EXPECT_THAT(stranger_tries(loop.path()), HasSubstr("is held by"));
  EXPECT_THAT(stranger_tries(loop.path(), {.conventions = {Convention::o_excl}}), HasSubstr("is held by"));
  EXPECT_TRUE(mine->fd());
  mine->release();
  EXPECT_EQ(broker.hear(), "released");
  EXPECT_EQ(stranger_tries(loop.path()), "taken");
  EXPECT_EQ(broker.end(), 0);
}

TEST(BrokeredClaim, names_this_process_in_the_lock_files) {
  const Pty pty;
  ScriptedBroker broker{[&](Stage& stage) { grant_once(stage, pty.path()); }};
  auto mine = claim(pty.path());
  ASSERT_TRUE(mine) << mine.error().message;
  EXPECT_THAT(stranger_tries(pty.path()), HasSubstr("[" + std::to_string(::getpid()) + "]"));
  EXPECT_THAT(lock_files_of(pty.path()), Not(IsEmpty()));
  mine->release();
  EXPECT_THAT(lock_files_of(pty.path()), IsEmpty());
}

TEST(BrokeredClaim, outlives_the_broker_and_is_given_back_without_it) {
  const Pty pty;
  ScriptedBroker broker{[&](Stage& stage) { grant_once(stage, pty.path()); }};
  auto mine = claim(pty.path());
  ASSERT_TRUE(mine) << mine.error().message;
  broker.kill_for_good();
  EXPECT_THAT(stranger_tries(pty.path()), HasSubstr("is held by"));
  for (const Convention convention : {Convention::proxy, Convention::flock, Convention::posix, Convention::uucp})
    EXPECT_THAT(stranger_tries(pty.path(), {.conventions = {convention}}), HasSubstr("is held by"));
  mine->release();
  EXPECT_THAT(lock_files_of(pty.path()), IsEmpty());
  EXPECT_EQ(stranger_tries(pty.path()), "taken");
}

TEST(BrokeredClaim, ends_with_this_process_whatever_the_broker_does) {
  const Pty pty;
  ScriptedBroker broker{[&](Stage& stage) {
    Visitor client = stage.admit();
    const auto asked = client.hear<wire::Claim>();
    claiming::Holding holding = stage.take(pty.path());
    client.grant(asked.number, holding);
    if (!client.hear_any()) stage.test().tell("hung up");
    holding.give_back();
    stage.test().tell("given back");
    stage.test().hear();
  }};
  Child client{[&](Peer& test) {
    const auto mine = claim(pty.path());
    test.tell(mine && mine->is_brokered() ? "claimed" : "no");
    test.hear();
    return 0;
  }};
  ASSERT_EQ(client.hear(), "claimed");
  client.kill();
  EXPECT_EQ(broker.hear(), "hung up");
  EXPECT_EQ(broker.hear(), "given back");
  EXPECT_EQ(stranger_tries(pty.path()), "taken");
}

// --- Without it ------------------------------------------------------------------------------------------------------

TEST(NoBroker, is_no_obstacle) {
  const Pty pty;
  for (const char* const socket : {"", "/nowhere/socket", "/dev/null"}) {
    ::setenv("HOLDFAST_SOCKET", socket, 1);
    const auto mine = claim(pty.path());
    ASSERT_TRUE(mine) << mine.error().message;
    EXPECT_FALSE(mine->is_brokered());
  }
}

TEST(NoBroker, keeps_no_time_limit_and_says_so) {
  const Pty pty;
  ::setenv("HOLDFAST_SOCKET", "/nowhere/socket", 1);
  const auto mine = claim(pty.path(), {.lease = 1h});
  ASSERT_FALSE(mine);
  EXPECT_THAT(mine.error().message, HasSubstr("none answers at /nowhere/socket"));
  EXPECT_EQ(stranger_tries(pty.path()), "taken");
}

TEST(NoBroker, guards_nothing_and_says_so_to_whoever_requires_it) {
  const Pty pty;
  ::setenv("HOLDFAST_SOCKET", "/nowhere/socket", 1);
  const auto mine = claim(pty.path(), {.guarding = Guarding::required});
  ASSERT_FALSE(mine);
  EXPECT_EQ(mine.error().message, "the guard needs the broker: none answers at /nowhere/socket; start holdfastd");
  EXPECT_EQ(stranger_tries(pty.path()), "taken");
}

TEST(NoBroker, of_another_version_is_none) {
  const Pty pty;
  ScriptedBroker broker{[](Stage& stage) {
    Visitor client = stage.meet();
    client.welcome(0);
  }};
  const auto mine = claim(pty.path());
  ASSERT_TRUE(mine) << mine.error().message;
  EXPECT_FALSE(mine->is_brokered());
}

TEST(NoBroker, that_leaves_the_device_to_others_is_none) {
  const Pty pty;
  ScriptedBroker broker{[](Stage& stage) {
    Visitor client = stage.admit();
    const auto asked = client.hear<wire::Claim>();
    client.say(asked.number, wire::NotMine{"another devpts"});
  }};
  const auto mine = claim(pty.path());
  ASSERT_TRUE(mine) << mine.error().message;
  EXPECT_FALSE(mine->is_brokered());
  EXPECT_THAT(stranger_tries(pty.path()), HasSubstr("is held by"));
}

TEST(NoBroker, that_grants_another_device_is_not_believed) {
  const Pty pty;
  const Pty other;
  ScriptedBroker broker{[&](Stage& stage) {
    Visitor client = stage.admit();
    const auto asked = client.hear<wire::Claim>();
    claiming::Holding holding = stage.take(other.path());
    client.grant(asked.number, holding);
    const auto release = client.hear<wire::Release>();
    holding.give_back();
    client.say(release.number, wire::Done{});
    stage.test().tell("released");
  }};
  const auto mine = claim(pty.path());
  ASSERT_TRUE(mine) << mine.error().message;
  EXPECT_FALSE(mine->is_brokered());
  EXPECT_EQ(broker.hear(), "released");
  EXPECT_THAT(stranger_tries(pty.path()), HasSubstr("is held by"));
}

TEST(NoBroker, that_dies_in_the_middle_is_none) {
  const Pty pty;
  ScriptedBroker broker{[](Stage& stage) {
    Visitor client = stage.admit();
    static_cast<void>(client.hear<wire::Claim>());
    ::_exit(0);
  }};
  const auto mine = claim(pty.path());
  ASSERT_TRUE(mine) << mine.error().message;
  EXPECT_FALSE(mine->is_brokered());
}

// --- Waiting ---------------------------------------------------------------------------------------------------------

TEST(WaitAtTheBroker, tells_of_its_progress_and_ends_with_the_grant) {
  const Pty pty;
  ScriptedBroker broker{[&](Stage& stage) {
    Visitor client = stage.admit();
    const auto asked = client.hear<wire::Claim>();
    const bool as_asked = asked.body.patience.waits && !asked.body.patience.at_most &&
                          asked.body.progress == wire::Progress::told &&
                          asked.body.priority == wire::Priority::urgent && asked.body.lease == wire::Duration{1h};
    stage.test().tell(as_asked ? "as asked" : "something else");
    client.say(asked.number, wire::Queued{wire::Place{3}, 2, 12s});
    client.say(asked.number, wire::Queued{wire::Place{3}, 1, std::nullopt});
    claiming::Holding holding = stage.take(pty.path());
    client.grant(asked.number, holding, wire::ClaimId{7}, 30min);
    stage.test().hear();
  }};
  std::vector<Progress> heard;
  auto mine = claim(pty.path(), {.wait = Wait::for_ever(),
                                 .priority = Priority::urgent,
                                 .lease = 1h,
                                 .on_progress = [&](const Progress& progress) { heard.push_back(progress); }});
  ASSERT_TRUE(mine) << mine.error().message;
  EXPECT_EQ(broker.hear(), "as asked");
  ASSERT_EQ(heard.size(), 2U);
  EXPECT_EQ(heard[0].ahead, 2U);
  EXPECT_EQ(heard[0].estimate, std::chrono::nanoseconds{12s});
  EXPECT_EQ(heard[1].ahead, 1U);
  EXPECT_EQ(heard[1].estimate, std::nullopt);
  EXPECT_LE(mine->time_left().value_or(1h), 30min);
  EXPECT_GT(mine->time_left().value_or(0s), 29min);
  broker.kill_for_good();
}

TEST(WaitAtTheBroker, ends_with_its_refusal_and_names_the_holder) {
  const Pty pty;
  ScriptedBroker broker{[](Stage& stage) {
    Visitor client = stage.admit();
    const auto asked = client.hear<wire::Claim>();
    wire::Refused no;
    no.code = errc::deadlock;
    no.message = "a waits for b waits for a";
    no.device = "/dev/x";
    no.holder = Holder{};
    no.holder->pid = 42;
    client.say(asked.number, no);
  }};
  const auto mine = claim(pty.path(), {.wait = Wait::for_ever()});
  ASSERT_FALSE(mine);
  EXPECT_EQ(mine.error().code, errc::deadlock);
  EXPECT_EQ(mine.error().message, "a waits for b waits for a");
  EXPECT_EQ(mine.error().holder.value_or(Holder{}).pid, 42);
}

TEST(WaitAtTheBroker, is_taken_back_when_a_signal_ends_it) {
  const Pty pty;
  ScriptedBroker broker{[](Stage& stage) {
    Visitor client = stage.admit();
    const auto asked = client.hear<wire::Claim>();
    client.say(asked.number, wire::Queued{wire::Place{3}, 1, std::nullopt});
    const auto cancel = client.hear<wire::Cancel>();
    stage.test().tell(cancel.body.asked == asked.number ? "cancelled" : "something else cancelled");
    client.say(cancel.number, wire::Done{});
  }};
  struct sigaction quiet{};
  quiet.sa_handler = [](int) {};
  ::sigaction(SIGUSR1, &quiet, nullptr);
  const pthread_t waiting = ::pthread_self();
  std::jthread interrupter;
  const auto mine = claim(pty.path(), {.wait = Wait::for_ever(),
                                       .on_signal = OnSignal::give_up,
                                       // Once it waits, and from inside: the signal is pending when the sleep begins.
                                       .on_progress = [&](const Progress&) { ::pthread_kill(waiting, SIGUSR1); }});
  ASSERT_FALSE(mine);
  EXPECT_EQ(mine.error().code, errc::interrupted);
  EXPECT_EQ(broker.hear(), "cancelled");
}

TEST(WaitAtTheBroker, gives_back_a_grant_that_crossed_its_end) {
  const Pty pty;
  ScriptedBroker broker{[&](Stage& stage) {
    Visitor client = stage.admit();
    const auto asked = client.hear<wire::Claim>();
    client.say(asked.number, wire::Queued{wire::Place{3}, 1, std::nullopt});
    const auto cancel = client.hear<wire::Cancel>();
    claiming::Holding holding = stage.take(pty.path());
    client.grant(asked.number, holding, wire::ClaimId{11});
    client.say(cancel.number, wire::Refused{errc::not_held, 0, "granted already", {}, {}});
    const auto release = client.hear<wire::Release>();
    holding.give_back();
    client.say(release.number, wire::Done{});
    stage.test().tell(release.body.claim == wire::ClaimId{11} ? "released" : "something else released");
  }};
  struct sigaction quiet{};
  quiet.sa_handler = [](int) {};
  ::sigaction(SIGUSR1, &quiet, nullptr);
  const pthread_t waiting = ::pthread_self();
  const auto mine =
      claim(pty.path(), {.wait = Wait::for_ever(), .on_signal = OnSignal::give_up, .on_progress = [&](const Progress&) {
                           ::pthread_kill(waiting, SIGUSR1);
                         }});
  ASSERT_FALSE(mine);
  EXPECT_EQ(mine.error().code, errc::interrupted);
  EXPECT_EQ(broker.hear(), "released");
  EXPECT_EQ(stranger_tries(pty.path()), "taken");
}

TEST(WaitAtTheBroker, comes_back_to_its_place_at_the_next_broker) {
  const Pty pty;
  ScriptedBroker broker{[](Stage& stage) {
    Visitor client = stage.admit();
    const auto asked = client.hear<wire::Claim>();
    client.say(asked.number, wire::Queued{wire::Place{33}, 1, std::nullopt});
    stage.test().tell("queued");
    stage.test().hear();
  }};
  // Not the brokers in a thread: they die with whoever made them (PR_SET_PDEATHSIG).
  Result<Claim> mine;
  std::jthread claimant{[&] { mine = claim(pty.path(), {.wait = Wait::for_ever()}); }};
  EXPECT_EQ(broker.hear(), "queued");
  broker.kill();
  broker.start([&](Stage& stage) {
    Visitor client = stage.admit(wire::Epoch{2});
    const auto asked = client.hear<wire::Claim>();
    stage.test().tell(asked.body.place == wire::Place{33} ? "at its place" : "without its place");
    claiming::Holding holding = stage.take(pty.path());
    client.grant(asked.number, holding);
    stage.test().hear();
  });
  claimant.join();
  ASSERT_TRUE(mine) << mine.error().message;
  EXPECT_TRUE(mine->is_brokered());
  EXPECT_EQ(broker.hear(), "at its place");
  broker.kill_for_good();
}

TEST(WaitAtTheBroker, goes_on_without_it_when_none_comes_back) {
  const Pty pty;
  ScriptedBroker broker{[](Stage& stage) {
    Visitor client = stage.admit();
    const auto asked = client.hear<wire::Claim>();
    client.say(asked.number, wire::Queued{wire::Place{33}, 1, std::nullopt});
    ::_exit(0);
  }};
  // The listener lives on, so that connecting works and nobody answers: as long as it can take.
  const Stopwatch watch;
  const auto mine = claim(pty.path(), {.wait = Wait::for_ever()});
  ASSERT_TRUE(mine) << mine.error().message;
  EXPECT_FALSE(mine->is_brokered());
  EXPECT_GE(watch.ms(), 4900);
  EXPECT_LE(watch.ms(), 8000);
}

TEST(WaitAtTheBroker, ends_at_the_deadline_though_the_broker_forgets_it) {
  const Pty pty;
  ScriptedBroker broker{[](Stage& stage) {
    Visitor client = stage.admit();
    const auto asked = client.hear<wire::Claim>();
    const bool as_asked = asked.body.patience.at_most && *asked.body.patience.at_most <= 100ms;
    client.say(asked.number, wire::Queued{wire::Place{33}, 1, std::nullopt});
    stage.test().tell(as_asked ? "as asked" : "something else");
    const auto cancel = client.hear<wire::Cancel>();
    client.say(cancel.number, wire::Done{});
  }};
  const auto mine = claim(pty.path(), {.wait = Wait::at_most(100ms)});
  ASSERT_FALSE(mine);
  EXPECT_EQ(mine.error().code, errc::timed_out);
  EXPECT_EQ(broker.hear(), "as asked");
}

// --- While it is held ------------------------------------------------------------------------------------------------

TEST(HeldThroughTheBroker, changes_its_mode_and_keeps_its_descriptors) {
  const LoopDevice loop;
  if (!loop.missing().empty()) GTEST_SKIP() << "needs " << loop.missing();
  ScriptedBroker broker{[&](Stage& stage) {
    Visitor client = stage.admit();
    const auto asked = client.hear<wire::Claim>();
    claiming::Holding holding = stage.take(loop.path());
    client.grant(asked.number, holding);
    const auto down = client.hear<wire::Downgrade>();
    stage.test().tell(holding.downgrade() ? "down" : "not down");
    client.grant(down.number, holding);
    const auto up = client.hear<wire::Upgrade>();
    stage.test().tell(holding.upgrade() ? "up" : "not up");
    client.grant(up.number, holding);
    stage.test().hear();
  }};
  auto mine = claim(loop.path());
  ASSERT_TRUE(mine) << mine.error().message;
  const auto fd = mine->fd();
  ASSERT_TRUE(fd);
  const auto down = mine->downgrade();
  ASSERT_TRUE(down) << down.error().message;
  EXPECT_EQ(broker.hear(), "down");
  EXPECT_EQ(mine->mode(), Mode::shared);
  EXPECT_EQ(stranger_tries(loop.path(), {.mode = Mode::shared}), "taken");
  const auto up = mine->upgrade();
  ASSERT_TRUE(up) << up.error().message;
  EXPECT_EQ(broker.hear(), "up");
  EXPECT_EQ(mine->mode(), Mode::exclusive);
  EXPECT_EQ(mine->fd().value_or(-1), *fd);
  broker.kill_for_good();
  for (const Convention convention : {Convention::proxy, Convention::flock, Convention::o_excl})
    EXPECT_THAT(stranger_tries(loop.path(), {.conventions = {convention}}), HasSubstr("is held by"));
}

TEST(HeldThroughTheBroker, is_guarded_as_asked_and_hears_who_was_kept_out) {
  const Pty pty;
  ScriptedBroker broker{[&](Stage& stage) {
    Visitor client = stage.admit();
    const auto asked = client.hear<wire::Claim>();
    stage.test().tell(asked.body.guarding == Guarding::required ? "required" : "something else");
    const claiming::Holding holding = stage.take(pty.path());
    client.grant(asked.number, holding, wire::ClaimId{7}, {}, Enforcement::guarded);
    client.say(0, wire::RevokeNotice{wire::ClaimId{7}, wire::Ending::denied, 0s, "cat[1] of root", "cat was refused"});
    stage.test().hear();
  }};
  auto mine = claim(pty.path(), {.guarding = Guarding::required});
  ASSERT_TRUE(mine) << mine.error().message;
  EXPECT_EQ(broker.hear(), "required");
  EXPECT_EQ(mine->enforcement(), Enforcement::guarded);
  ASSERT_TRUE(readable(*mine->notice_fd()));
  EXPECT_TRUE(mine->check());
  const auto notices = mine->notices();
  ASSERT_EQ(notices.size(), 1U);
  EXPECT_EQ(notices[0].kind, Notice::Kind::denied);
  EXPECT_EQ(notices[0].by, "cat[1] of root");
  EXPECT_EQ(notices[0].reason, "cat was refused");
  EXPECT_TRUE(mine->held());
  broker.kill_for_good();
}

TEST(HeldThroughTheBroker, hears_that_somebody_asks_for_it_and_that_it_is_over) {
  const Pty pty;
  ScriptedBroker broker{[&](Stage& stage) {
    Visitor client = stage.admit();
    const auto asked = client.hear<wire::Claim>();
    claiming::Holding holding = stage.take(pty.path());
    client.grant(asked.number, holding);
    stage.test().hear();
    client.say(0, wire::RevokeNotice{wire::ClaimId{7}, wire::Ending::asked_to_leave, 3s, "root[1]", "maintenance"});
    stage.test().hear();
    holding.give_back();
    client.say(0, wire::RevokeNotice{wire::ClaimId{7}, wire::Ending::revoked, 0s, "root[1]", "maintenance"});
    stage.test().hear();
  }};
  auto mine = claim(pty.path());
  ASSERT_TRUE(mine) << mine.error().message;
  const auto notice = mine->notice_fd();
  ASSERT_TRUE(notice) << notice.error().message;
  EXPECT_FALSE(readable(*notice, 0ms));
  broker.tell("ask");
  ASSERT_TRUE(readable(*notice));
  EXPECT_TRUE(mine->check());
  const auto notices = mine->notices();
  ASSERT_EQ(notices.size(), 1U);
  EXPECT_EQ(notices[0].kind, Notice::Kind::asked_to_leave);
  EXPECT_EQ(notices[0].grace, std::chrono::nanoseconds{3s});
  EXPECT_EQ(notices[0].by, "root[1]");
  EXPECT_EQ(notices[0].reason, "maintenance");
  broker.tell("revoke");
  ASSERT_TRUE(readable(*notice));
  const auto over = mine->check();
  ASSERT_FALSE(over);
  EXPECT_EQ(over.error().code, errc::revoked);
  EXPECT_THAT(over.error().message, HasSubstr("taken back by root[1]: maintenance"));
  EXPECT_FALSE(mine->held());
  const auto fd = mine->fd();
  ASSERT_FALSE(fd);
  EXPECT_EQ(fd.error().code, errc::revoked);
  EXPECT_EQ(stranger_tries(pty.path()), "taken");
  mine->release();
}

constexpr double kMostReleaseMs = 4000;  // of which it waits one second, twice at most

// The broker has all power over it, and hears of it when it reads on.
TEST(HeldThroughTheBroker, is_released_in_a_moment_though_the_broker_is_silent) {
  const Pty pty;
  ScriptedBroker broker{[&](Stage& stage) {
    Visitor client = stage.admit();
    const auto asked = client.hear<wire::Claim>();
    claiming::Holding holding = stage.take(pty.path());
    client.grant(asked.number, holding);
    stage.test().hear();
    stage.test().tell(client.hear<wire::Release>().body.copies == wire::Copies::closed ? "closed" : "kept");
    holding.give_back();
    stage.test().tell("given back");
    stage.test().hear();
  }};
  auto mine = claim(pty.path());
  ASSERT_TRUE(mine) << mine.error().message;
  const Stopwatch watch;
  mine->release();
  EXPECT_LT(watch.ms(), kMostReleaseMs);
  EXPECT_THAT(stranger_tries(pty.path()), HasSubstr("is held by"));
  broker.tell("read on");
  EXPECT_EQ(broker.hear(), "closed");
  EXPECT_EQ(broker.hear(), "given back");
  EXPECT_EQ(stranger_tries(pty.path()), "taken");
}

TEST(HeldThroughTheBroker, is_released_in_a_moment_though_the_next_broker_is_silent) {
  const Pty pty;
  ScriptedBroker broker{[&](Stage& stage) {
    Visitor client = stage.admit();
    const auto asked = client.hear<wire::Claim>();
    claiming::Holding holding = stage.take(pty.path());
    client.grant(asked.number, holding);
    stage.test().hear();
  }};
  auto mine = claim(pty.path());
  ASSERT_TRUE(mine) << mine.error().message;
  broker.kill();
  broker.start([&](Stage& stage) {
    const Visitor client = stage.meet();
    stage.test().hear();
  });
  const Stopwatch watch;
  mine->release();
  EXPECT_LT(watch.ms(), kMostReleaseMs);
  EXPECT_THAT(lock_files_of(pty.path()), IsEmpty());
  EXPECT_EQ(stranger_tries(pty.path()), "taken");
}

// Who was shown the descriptor may have done with it what outlives closing it: an epoll, a SIGIO.
TEST(HeldThroughTheBroker, is_not_passed_on_when_its_descriptor_was_shown) {
  const Pty pty;
  ScriptedBroker broker{[&](Stage& stage) {
    for (int i = 0; i < 2; ++i) {
      Visitor client = stage.admit();
      const auto asked = client.hear<wire::Claim>();
      claiming::Holding holding = stage.take(pty.path());
      client.grant(asked.number, holding);
      const auto release = client.hear<wire::Release>();
      stage.test().tell(release.body.copies == wire::Copies::closed ? "closed" : "kept");
      holding.give_back();
      client.say(release.number, wire::Done{});
      if (client.hear_any()) stage.test().tell("reused");
    }
  }};
  for (const bool shown : {false, true}) {
    Child client{[&](Peer& test) {
      auto mine = claim(pty.path());
      if (shown && mine) test.tell(mine->fd() ? "shown" : "no");
      return 0;
    }};
    if (shown) {
      EXPECT_EQ(client.hear(), "shown");
    }
    EXPECT_EQ(broker.hear(), shown ? "kept" : "closed");
    EXPECT_EQ(client.reap(), 0);
  }
}

TEST(HeldThroughTheBroker, is_told_to_a_broker_that_was_started_anew) {
  const Pty pty;
  ScriptedBroker broker{[&](Stage& stage) {
    Visitor client = stage.admit();
    const auto asked = client.hear<wire::Claim>();
    const claiming::Holding holding = stage.take(pty.path());
    client.grant(asked.number, holding);
    stage.test().hear();
  }};
  auto mine = claim(pty.path());
  ASSERT_TRUE(mine) << mine.error().message;
  const auto notice = mine->notice_fd();
  ASSERT_TRUE(notice);
  broker.kill();
  ASSERT_TRUE(readable(*notice)) << "the broker's end is not heard";
  broker.start([&](Stage& stage) {
    Visitor client = stage.admit(wire::Epoch{2});
    auto resumed = client.hear<wire::Resume>();
    const bool known =
        resumed.body.claim == wire::ClaimId{7} && resumed.body.epoch == wire::Epoch{1} && !resumed.descriptors.empty();
    stage.test().tell(known ? "resumed" : "something else");
    wire::Granted granted;
    granted.claim = wire::ClaimId{7};
    client.say(resumed.number, granted);
    const auto release = client.hear<wire::Release>();
    client.say(release.number, wire::Done{});
    stage.test().tell("released");
  });
  EXPECT_TRUE(mine->check());
  EXPECT_EQ(broker.hear(), "resumed");
  EXPECT_FALSE(readable(*notice, 0ms));
  EXPECT_THAT(stranger_tries(pty.path()), HasSubstr("is held by"));
  mine->release();
  EXPECT_EQ(broker.hear(), "released");
}

TEST(HeldThroughTheBroker, is_renewed) {
  const Pty pty;
  ScriptedBroker broker{[&](Stage& stage) {
    Visitor client = stage.admit();
    const auto asked = client.hear<wire::Claim>();
    claiming::Holding holding = stage.take(pty.path());
    client.grant(asked.number, holding, wire::ClaimId{7}, 1min);
    const auto renew = client.hear<wire::Renew>();
    client.say(renew.number, wire::Renewed{renew.body.claim, renew.body.lease / 2});
    stage.test().hear();
  }};
  auto mine = claim(pty.path(), {.lease = 1min});
  ASSERT_TRUE(mine) << mine.error().message;
  const auto left = mine->renew(4h);
  ASSERT_TRUE(left) << left.error().message;
  EXPECT_EQ(*left, std::chrono::nanoseconds{2h});
  EXPECT_GT(mine->time_left().value_or(0s), 119min);
  broker.kill_for_good();
}

TEST(HeldThroughTheBroker, tells_a_c_program_the_same) {
  const Pty pty;
  ScriptedBroker broker{[&](Stage& stage) {
    Visitor client = stage.admit();
    const auto asked = client.hear<wire::Claim>();
    const bool as_asked = asked.body.priority == wire::Priority::high && asked.body.lease == wire::Duration{60s};
    stage.test().tell(as_asked ? "as asked" : "something else");
    claiming::Holding holding = stage.take(pty.path());
    client.grant(asked.number, holding, wire::ClaimId{7}, 60s);
    client.say(0, wire::RevokeNotice{wire::ClaimId{7}, wire::Ending::lapses_soon, 5s, {}, {}});
    const auto renew = client.hear<wire::Renew>();
    client.say(renew.number, wire::Renewed{renew.body.claim, renew.body.lease});
    holding.give_back();
    client.say(0, wire::RevokeNotice{wire::ClaimId{7}, wire::Ending::revoked, 0s, "root[1]", "maintenance"});
    stage.test().hear();
  }};
  hf_options options{};
  options.size = sizeof options;
  options.lease_ms = 60'000;
  options.priority = HF_HIGH;
  hf_claim* mine = nullptr;
  ASSERT_EQ(hf_claim_device(&mine, pty.path().c_str(), &options, nullptr), 0);
  EXPECT_EQ(broker.hear(), "as asked");
  const int fd = hf_claim_notice_fd(mine);
  ASSERT_TRUE(readable(fd));
  hf_notice notice{};
  ASSERT_EQ(hf_claim_notice(mine, &notice), 1);
  EXPECT_EQ(notice.kind, HF_LAPSES_SOON);
  EXPECT_EQ(notice.grace_ms, 5000);
  EXPECT_EQ(hf_claim_notice(mine, &notice), 0);
  ASSERT_EQ(hf_claim_renew(mine, 1000), 0);
  ASSERT_TRUE(readable(fd));
  EXPECT_EQ(hf_claim_check(mine), -1);
  EXPECT_EQ(errno, ECANCELED);
  ASSERT_EQ(hf_claim_notice(mine, &notice), 1);
  EXPECT_EQ(notice.kind, HF_REVOKED);
  EXPECT_STREQ(notice.by, "root[1]");
  EXPECT_STREQ(notice.reason, "maintenance");
  hf_release(mine);
}

// --- Connections -----------------------------------------------------------------------------------------------------

// Grants what is asked for on one connection until it ends; says how many claims that were.
void grant_all(Stage& stage, const std::string& device, Visitor& client) {
  int count = 0;
  while (auto heard = client.hear_any()) {
    if (!std::holds_alternative<wire::Claim>(heard->body)) continue;
    ++count;
    claiming::Holding holding = stage.take(device);
    client.grant(heard->number, holding);
    const auto release = client.hear<wire::Release>();
    holding.give_back();
    client.say(release.number, wire::Done{});
  }
  stage.test().tell(std::to_string(count));
}

TEST(Connection, is_kept_for_the_next_claim_and_forgotten_by_forked_children) {
  const Pty pty;
  ScriptedBroker broker{[&](Stage& stage) {
    Visitor parent = stage.admit();
    std::thread first{[&] { grant_all(stage, pty.path(), parent); }};
    Visitor child = stage.admit();
    grant_all(stage, pty.path(), child);
    first.join();
  }};
  Child client{[&](Peer& test) {
    for (int i = 0; i < 5; ++i) static_cast<void>(claim(pty.path()));
    const pid_t child = ::fork();
    if (child == 0) {
      for (int i = 0; i < 3; ++i) static_cast<void>(claim(pty.path()));
      ::_exit(0);
    }
    ::waitpid(child, nullptr, 0);
    static_cast<void>(claim(pty.path()));
    test.tell("done");
    return 0;
  }};
  EXPECT_EQ(client.hear(), "done");
  EXPECT_EQ(client.reap(), 0);
  EXPECT_EQ(broker.hear(), "3");
  EXPECT_EQ(broker.hear(), "6");
}

TEST(Connection, ends_at_exec_unless_the_claim_is_left_to_it) {
  const Pty pty;
  for (const bool leave : {false, true}) {
    ScriptedBroker broker{[&](Stage& stage) {
      Visitor client = stage.admit();
      const auto asked = client.hear<wire::Claim>();
      const claiming::Holding holding = stage.take(pty.path());
      client.grant(asked.number, holding);
      static_cast<void>(client.hear_any());
      stage.test().tell("hung up");
    }};
    Child client{[&](Peer& test) {
      auto mine = claim(pty.path());
      if (leave && mine) static_cast<void>(mine->leave_to_exec());
      test.tell(mine ? "claimed" : "no");
      ::fcntl(test.socket(), F_SETFD, 0);
      ::execl("/bin/sleep", "sleep", "60", nullptr);
      return 1;
    }};
    ASSERT_EQ(client.hear(), "claimed");
    if (leave) {
      // It runs when its name is another; then it has what it keeps.
      while (base::executable_name(client.pid()) != "sleep") std::this_thread::yield();
      EXPECT_THAT(stranger_tries(pty.path(), {.conventions = {Convention::flock}}), HasSubstr("is held by"));
      client.kill();
    }
    EXPECT_EQ(broker.hear(), "hung up");
    client.kill();
    client.reap();
  }
}

TEST(Connection, of_a_claim_for_the_whole_tree_lives_in_its_children) {
  const Pty pty;
  ScriptedBroker broker{[&](Stage& stage) {
    Visitor client = stage.admit();
    const auto asked = client.hear<wire::Claim>();
    stage.test().tell(asked.body.owner_scope == OwnerScope::tree ? "tree" : "process");
    const claiming::Holding holding = stage.take(pty.path());
    client.grant(asked.number, holding);
    static_cast<void>(client.hear_any());
    stage.test().tell("hung up");
  }};
  Child client{[&](Peer& test) {
    auto mine = claim(pty.path(), {.owner_scope = OwnerScope::tree});
    const pid_t child = ::fork();
    if (child == 0) {
      test.tell(mine ? "claimed" : "no");
      test.hear();
    }
    ::_exit(0);
    return 0;
  }};
  ASSERT_EQ(client.hear(), "claimed");
  EXPECT_EQ(broker.hear(), "tree");
  ASSERT_TRUE(wait_for_death(client.pidfd()));
  EXPECT_THAT(stranger_tries(pty.path(), {.conventions = {Convention::flock}}), HasSubstr("is held by"));
  client.tell("go");
  EXPECT_EQ(broker.hear(), "hung up");
}

}  // namespace
}  // namespace holdfast
