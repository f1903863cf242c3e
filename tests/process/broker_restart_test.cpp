// SPDX-License-Identifier: MIT
// broker_restart_test.cpp - kill -9 of the broker: who holds goes on holding, nobody gets in, who waits keeps the
// place, and what ends meanwhile has ended when the broker is back.
#include "process/support/broker.hpp"
#include "process/support/devices.hpp"
#include "process/support/raw_client.hpp"

#include <holdfast/claim.hpp>

#include <gtest/gtest.h>

#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <memory>
#include <string>
#include <vector>

namespace holdfast {
namespace {

using namespace testing_support;
using namespace std::chrono_literals;

// In a child, because two claims of one process are another matter.
std::string daemonless_try(const std::string& device) {
  return in_a_child([&]() -> std::string {
    ::setenv("HOLDFAST_SOCKET", "", 1);
    const auto mine = claim(device);
    return mine ? "taken" : mine.error().message;
  });
}

bool flock_is_refused(const std::string& device) {
  const base::UniqueFd node{::open(device.c_str(), O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC)};
  return node && ::flock(node.get(), LOCK_EX | LOCK_NB) != 0;
}

Answer resume(RawClient& client, const Answer& granted, wire::Epoch epoch) {
  std::vector<int> descriptors;
  for (const base::UniqueFd& fd : granted.descriptors) descriptors.push_back(fd.get());
  return client.ask(wire::Resume{granted.claim(), epoch, granted.as<wire::Granted>()->marks}, descriptors);
}

enum class EndOfBroker { kill, stop };

class Restart : public ::testing::TestWithParam<EndOfBroker> {
 protected:
  static void end(BrokerUnderTest& broker) {
    if (GetParam() == EndOfBroker::kill)
      broker.kill();
    else
      EXPECT_EQ(broker.stop(), 0);
  }
};

TEST_P(Restart, loses_no_claim_and_admits_no_second_holder) {
  const Pty pty;
  BrokerUnderTest broker;
  RawClient client{broker.socket()};
  const wire::Epoch epoch = client.epoch();
  const Answer held = client.ask(claim_of(pty.path()));
  ASSERT_EQ(held.words, "granted");
  end(broker);
  EXPECT_TRUE(flock_is_refused(pty.path()));
  EXPECT_NE(daemonless_try(pty.path()), "taken");
  broker.start();
  EXPECT_TRUE(flock_is_refused(pty.path()));
  EXPECT_NE(daemonless_try(pty.path()), "taken");
  const std::string words = in_a_child([&] {
    RawClient other{broker.socket()};
    const Answer answer = other.ask(claim_of(pty.path()));
    const auto* refused = answer.as<wire::Refused>();
    return refused != nullptr && refused->holder ? std::to_string(refused->holder->pid) : answer.words;
  });
  EXPECT_EQ(words, std::to_string(::getpid()));
  RawClient back{broker.socket()};
  EXPECT_NE(back.epoch(), epoch);
  const Answer resumed = resume(back, held, epoch);
  ASSERT_EQ(resumed.words, "granted");
  EXPECT_EQ(resumed.claim(), held.claim());
  EXPECT_EQ(resumed.token(), held.token());
  EXPECT_EQ(back.ask(wire::Release{held.claim()}).words, "done");
  EXPECT_TRUE(lock_files_of(pty.path()).empty());
}

// `claim --pid`: who asked is gone, and the owner never had a descriptor.
class ForAnother : public ::testing::Test {
 protected:
  [[nodiscard]] std::string asked() const {
    return in_a_child([&] {
      RawClient asker{broker_.socket()};
      return ask_for(asker, owner_, claim_of(pty_.path())).words;
    });
  }
  Pty pty_;
  BrokerUnderTest broker_;
  testing_support::Owner owner_;
};

TEST_F(ForAnother, who_has_no_descriptor_a_claim_is_taken_again_after_a_kill) {
  ASSERT_EQ(asked(), "granted");
  for (int times = 0; times < 2; ++times) {
    broker_.kill();
    EXPECT_FALSE(flock_is_refused(pty_.path())) << "nobody has what carried the locks";
    broker_.start();
    EXPECT_TRUE(flock_is_refused(pty_.path()));
    EXPECT_NE(daemonless_try(pty_.path()), "taken");
  }
  RawClient next{broker_.socket()};
  const std::uint32_t number = next.send(claim_of(pty_.path(), kForEver));
  ASSERT_EQ(next.answer_to(number).words, "queued");
  owner_.kill();
  EXPECT_EQ(next.answer_to(number).words, "granted");
}

TEST_F(ForAnother, a_claim_that_somebody_else_took_meanwhile_is_lost_and_the_log_says_so) {
  ASSERT_EQ(asked(), "granted");
  broker_.kill();
  const base::UniqueFd node{::open(pty_.path().c_str(), O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC)};
  ASSERT_EQ(::flock(node.get(), LOCK_EX | LOCK_NB), 0);
  broker_.start();
  EXPECT_NE(broker_.log().find("is lost"), std::string::npos) << broker_.log();
  EXPECT_TRUE(lock_files_of(pty_.path()).empty());
  ::flock(node.get(), LOCK_UN);
  EXPECT_EQ(daemonless_try(pty_.path()), "taken");
}

TEST(ForAnotherOfAGroup, a_claim_is_taken_again_with_the_rights_of_the_owners_groups) {
  const Pty pty;
  constexpr gid_t kGroup = 54321;
  ASSERT_EQ(::chown(pty.path().c_str(), 0, kGroup), 0);
  ASSERT_EQ(::chmod(pty.path().c_str(), 0660), 0);
  const auto become_a_member = [] {
    const gid_t group = kGroup;
    return ::setgroups(1, &group) == 0 && ::setresgid(65534, 65534, 65534) == 0 &&
           ::setresuid(65534, 65534, 65534) == 0;
  };
  BrokerUnderTest broker;
  Child owner{[&](testing_support::Peer& test) {
    test.tell(become_a_member() ? "a member" : "cannot");
    test.hear();
    return 0;
  }};
  ASSERT_EQ(owner.hear(), "a member");
  const std::string words = in_a_child([&]() -> std::string {
    if (!become_a_member()) return "cannot";
    RawClient asker{broker.socket()};
    wire::Claim claim = claim_of(pty.path());
    claim.owner = wire::OwnerGiven::by_pidfd;
    const int pidfd = owner.pidfd();
    return asker.ask(claim, {&pidfd, 1}).words;
  });
  ASSERT_EQ(words, "granted");
  broker.kill();
  broker.start();
  EXPECT_NE(daemonless_try(pty.path()), "taken") << broker.log();
}

// The descendants' copies of the descriptors are the claim; nobody can speak for it any more.
TEST(Tree, whose_owner_died_with_the_broker_away_keeps_the_device_until_its_last_member_ends) {
  const Pty pty;
  BrokerUnderTest broker;
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  const base::UniqueFd theirs{ends[0]};
  base::UniqueFd life{ends[1]};
  Child owner{[&](Peer& test) {
    RawClient client{broker.socket()};
    wire::Claim wanted = claim_of(pty.path());
    wanted.owner_scope = OwnerScope::tree;
    const Answer held = client.ask(wanted);
    if (::fork() == 0) {
      life.reset();
      char byte = 0;
      static_cast<void>(!::read(theirs.get(), &byte, 1));
      ::_exit(0);
    }
    test.tell(held.words);
    test.hear();
    return 0;
  }};
  ASSERT_EQ(owner.hear(), "granted");
  broker.kill();
  owner.kill();
  broker.start();
  EXPECT_NE(daemonless_try(pty.path()), "taken");
  RawClient next{broker.socket()};
  EXPECT_TRUE(next.ask(claim_of(pty.path())).words.starts_with("refused"));
  const std::uint32_t number = next.send(claim_of(pty.path(), kForEver));
  ASSERT_EQ(next.answer_to(number).words, "queued");
  life.reset();
  EXPECT_EQ(next.answer_to(number).words, "granted");
}

TEST(Stop, gives_back_first_what_was_hung_up_before) {
  const std::array<Pty, 8> ptys;
  BrokerUnderTest broker;
  std::vector<std::unique_ptr<RawClient>> clients;
  for (const Pty& pty : ptys) {
    clients.push_back(std::make_unique<RawClient>(broker.socket()));
    ASSERT_EQ(clients.back()->ask(claim_of(pty.path())).words, "granted");
    ASSERT_FALSE(lock_files_of(pty.path()).empty());
  }
  ASSERT_GT(broker.pid(), 0);
  ::kill(broker.pid(), SIGSTOP);
  clients.clear();
  ::kill(broker.pid(), SIGTERM);
  ::kill(broker.pid(), SIGCONT);
  EXPECT_EQ(broker.stop(), 0);
  for (const Pty& pty : ptys) EXPECT_TRUE(lock_files_of(pty.path()).empty()) << pty.path();
}

TEST_P(Restart, keeps_the_places_of_those_who_wait) {
  const Pty pty;
  BrokerUnderTest broker;
  const std::array<testing_support::Owner, 6> owners;
  RawClient client{broker.socket()};
  const wire::Epoch epoch = client.epoch();
  const Answer held = ask_for(client, owners[0], claim_of(pty.path()));
  ASSERT_EQ(held.words, "granted");
  std::array<wire::Place, 6> places{};
  for (std::size_t i = 1; i < owners.size(); ++i) {
    const Answer answer = ask_for(client, owners[i], claim_of(pty.path(), kForEver));
    ASSERT_NE(answer.as<wire::Queued>(), nullptr) << answer.words;
    places[i] = answer.as<wire::Queued>()->place;
  }
  end(broker);
  broker.start();
  RawClient back{broker.socket()};
  // A newcomer is first to ask, and last in the queue; the others come in the wrong order.
  const testing_support::Owner newcomer;
  ASSERT_EQ(resume(back, held, epoch).words, "granted");
  const std::uint32_t newcomers = send_for(back, newcomer, claim_of(pty.path(), kForEver));
  ASSERT_EQ(back.answer_to(newcomers).words, "queued");
  std::vector<std::uint32_t> expected(owners.size() - 1);
  for (const std::size_t i : {5U, 2U, 4U, 1U, 3U}) {
    wire::Claim claim = claim_of(pty.path(), kForEver);
    claim.place = places[i];
    expected[i - 1] = send_for(back, owners[i], claim);
    ASSERT_EQ(back.answer_to(expected[i - 1]).words, "queued");
  }
  expected.push_back(newcomers);
  wire::ClaimId holds = held.claim();
  for (const std::uint32_t number : expected) {
    const std::uint32_t release = back.send(wire::Release{holds});
    const Answer next = back.hear();
    ASSERT_EQ(next.words, "granted");
    EXPECT_EQ(next.number, number);
    holds = next.claim();
    EXPECT_EQ(back.answer_to(release).words, "done");
  }
}

TEST_P(Restart, lets_a_claim_be_released_that_was_not_resumed) {
  const Pty pty;
  BrokerUnderTest broker;
  RawClient client{broker.socket()};
  Answer held = client.ask(claim_of(pty.path()));
  ASSERT_EQ(held.words, "granted");
  end(broker);
  broker.start();
  RawClient back{broker.socket()};
  EXPECT_EQ(back.ask(wire::Release{held.claim()}).words, "done");
  held.descriptors.clear();
  EXPECT_TRUE(lock_files_of(pty.path()).empty());
  EXPECT_EQ(daemonless_try(pty.path()), "taken");
}

TEST_P(Restart, takes_a_claim_whose_locks_are_gone_as_given_back) {
  const Pty pty;
  BrokerUnderTest broker;
  RawClient client{broker.socket()};
  Answer held = client.ask(claim_of(pty.path()));
  ASSERT_EQ(held.words, "granted");
  end(broker);
  held.descriptors.clear();
  broker.start();
  const std::string words = in_a_child([&] {
    RawClient other{broker.socket()};
    return other.ask(claim_of(pty.path())).words;
  });
  EXPECT_EQ(words, "granted");
}

TEST_P(Restart, finds_out_that_a_holder_died_meanwhile) {
  const Pty pty;
  BrokerUnderTest broker;
  Child holder{[&](Peer& test) {
    RawClient client{broker.socket()};
    const Answer held = client.ask(claim_of(pty.path()));
    test.tell(held.words);
    test.hear();
    return 0;
  }};
  ASSERT_EQ(holder.hear(), "granted");
  end(broker);
  holder.kill();
  broker.start();
  RawClient client{broker.socket()};
  EXPECT_EQ(client.ask(claim_of(pty.path())).words, "granted");
}

TEST_P(Restart, sees_the_death_of_a_holder_that_it_adopted) {
  const Pty pty;
  BrokerUnderTest broker;
  Child holder{[&](Peer& test) {
    RawClient client{broker.socket()};
    const Answer held = client.ask(claim_of(pty.path()));
    test.tell(held.words);
    test.hear();
    return 0;
  }};
  ASSERT_EQ(holder.hear(), "granted");
  end(broker);
  broker.start();
  RawClient client{broker.socket()};
  const std::uint32_t number = client.send(claim_of(pty.path(), kForEver));
  ASSERT_EQ(client.answer_to(number).words, "queued");
  holder.kill();
  const Answer next = client.answer_to(number);
  ASSERT_EQ(next.words, "granted");
  EXPECT_EQ(client.ask(wire::Release{next.claim()}).words, "done");
  EXPECT_TRUE(lock_files_of(pty.path()).empty());
}

TEST_P(Restart, does_not_let_tokens_fall) {
  const Pty pty;
  BrokerUnderTest broker;
  std::uint64_t last = 0;
  for (int life = 0; life < 3; ++life) {
    for (int i = 0; i < 3; ++i) {
      RawClient client{broker.socket()};
      const Answer held = client.ask(claim_of(pty.path()));
      ASSERT_EQ(held.words, "granted");
      EXPECT_GT(static_cast<std::uint64_t>(held.token()), last);
      last = static_cast<std::uint64_t>(held.token());
      ASSERT_EQ(client.ask(wire::Release{held.claim()}).words, "done");
    }
    end(broker);
    broker.start();
  }
}

TEST_P(Restart, keeps_sharers_together_and_writers_out) {
  const Pty pty;
  BrokerUnderTest broker;
  RawClient client{broker.socket()};
  const wire::Epoch epoch = client.epoch();
  const std::array<testing_support::Owner, 4> owners;
  wire::Claim shared = claim_of(pty.path());
  shared.mode = Mode::shared;
  const Answer first = ask_for(client, owners[0], shared);
  const Answer second = ask_for(client, owners[1], shared);
  ASSERT_EQ(second.words, "granted");
  end(broker);
  broker.start();
  RawClient back{broker.socket()};
  EXPECT_EQ(resume(back, first, epoch).words, "granted");
  EXPECT_EQ(ask_for(back, owners[2], shared).words, "granted");
  EXPECT_EQ(ask_for(back, owners[3], claim_of(pty.path())).code(), errc::refused);
}

TEST_P(Restart, keeps_the_time_of_a_lease) {
  const Pty pty;
  BrokerUnderTest broker;
  RawClient client{broker.socket()};
  const wire::Epoch epoch = client.epoch();
  const testing_support::Owner owner;
  wire::Claim leased = claim_of(pty.path());
  leased.lease = 1s;
  const Stopwatch watch;
  Answer held = ask_for(client, owner, leased);
  ASSERT_EQ(held.words, "granted");
  end(broker);
  broker.start();
  RawClient back{broker.socket()};
  const Answer resumed = resume(back, held, epoch);
  ASSERT_EQ(resumed.words, "granted");
  ASSERT_TRUE(resumed.as<wire::Granted>()->lapses_in);
  EXPECT_LT(*resumed.as<wire::Granted>()->lapses_in, 1s);
  const testing_support::Owner next;
  const std::uint32_t number = send_for(back, next, claim_of(pty.path(), kForEver));
  ASSERT_EQ(back.answer_to(number).words, "queued");
  EXPECT_EQ(back.answer_to(number).words, "granted");
  EXPECT_GE(watch.ms(), 999);
}

INSTANTIATE_TEST_SUITE_P(By, Restart, ::testing::Values(EndOfBroker::kill, EndOfBroker::stop),
                         [](const auto& end) { return end.param == EndOfBroker::kill ? "kill" : "sigterm"; });

// A child that claims by the library, says so, and releases when told.
class LibraryClaimant {
 public:
  explicit LibraryClaimant(const std::string& device, Wait wait = Wait::none())
      : child_{[=](Peer& test) {
          auto mine = claim(device, {.wait = wait});
          test.tell(mine ? "granted" : mine.error().message);
          test.hear();
          if (mine) mine->release();
          test.tell("released");
          test.hear();
          return 0;
        }} {}
  std::string hear(std::chrono::milliseconds patience = kPatience) { return child_.hear(patience); }
  void release() {
    child_.tell("release");
    ASSERT_EQ(child_.hear(), "released");
  }
  Child& child() { return child_; }

 private:
  Child child_;
};

// Waits until the broker has so many waiters for the device: looks again at each of its events.
bool queued(const BrokerUnderTest& broker, const std::string& device, std::uint32_t count) {
  RawClient client{broker.socket()};
  if (client.ask(wire::Watch{}).words != "done") return false;
  while (true) {
    const Answer answer = client.ask(wire::StatusQuery{{name_of(device)}});
    const auto* status = answer.as<wire::StatusAnswer>();
    if (status == nullptr) return false;
    if (!status->devices.empty() && status->devices[0].waiting == count) return true;
    if (client.hear().as<wire::Event>() == nullptr) return false;
  }
}

TEST(LibraryClaim, outlives_the_broker_and_its_waiters_keep_their_order) {
  const Pty pty;
  BrokerUnderTest broker;
  LibraryClaimant holder{pty.path()};
  ASSERT_EQ(holder.hear(), "granted");
  std::vector<std::unique_ptr<LibraryClaimant>> waiters;
  for (std::uint32_t i = 0; i < 5; ++i) {
    waiters.push_back(std::make_unique<LibraryClaimant>(pty.path(), Wait::for_ever()));
    ASSERT_TRUE(queued(broker, pty.path(), i + 1));
  }
  broker.kill();
  EXPECT_TRUE(flock_is_refused(pty.path()));
  broker.start();
  ASSERT_TRUE(queued(broker, pty.path(), 5)) << "not all came back";
  holder.release();
  for (std::size_t i = 0; i < waiters.size(); ++i) {
    EXPECT_EQ(waiters[i]->hear(), "granted");
    for (std::size_t later = i + 1; later < waiters.size(); ++later) EXPECT_EQ(waiters[later]->hear(0ms), "(silence)");
    waiters[i]->release();
  }
}

TEST(LibraryClaim, is_released_without_the_broker) {
  const Pty pty;
  BrokerUnderTest broker;
  LibraryClaimant holder{pty.path()};
  ASSERT_EQ(holder.hear(), "granted");
  broker.kill();
  EXPECT_NE(daemonless_try(pty.path()), "taken");
  holder.release();
  EXPECT_EQ(daemonless_try(pty.path()), "taken");
}

TEST(LibraryClaim, goes_on_without_the_broker_when_that_does_not_come_back_unless_it_cannot_do_without) {
  const Pty pty;
  const Pty other;
  BrokerUnderTest broker;
  LibraryClaimant holder{pty.path()};
  ASSERT_EQ(holder.hear(), "granted");
  LibraryClaimant holder_of_the_other{other.path()};
  ASSERT_EQ(holder_of_the_other.hear(), "granted");
  LibraryClaimant waiter{pty.path(), Wait::for_ever()};
  Child needs_it{[&](Peer& test) {
    auto mine = claim(other.path(), {.wait = Wait::for_ever(), .lease = 60s});
    test.tell(mine ? "granted" : mine.error().message);
    test.hear();
    return 0;
  }};
  ASSERT_TRUE(queued(broker, pty.path(), 1));
  ASSERT_TRUE(queued(broker, other.path(), 1));
  broker.kill();
  holder.release();
  EXPECT_EQ(waiter.hear(), "granted");
  LibraryClaimant another{pty.path()};
  EXPECT_NE(another.hear(), "granted");
  waiter.release();
  holder_of_the_other.release();
  EXPECT_EQ(needs_it.hear(500ms), "(silence)");
  broker.start();
  EXPECT_EQ(needs_it.hear(), "granted");
}

TEST(LibraryClaim, that_waits_daemonless_and_one_through_the_broker_exclude_each_other) {
  const Pty pty;
  BrokerUnderTest broker;
  LibraryClaimant holder{pty.path()};
  ASSERT_EQ(holder.hear(), "granted");
  Child daemonless{[&](Peer& test) {
    ::setenv("HOLDFAST_SOCKET", "", 1);
    auto mine = claim(pty.path(), {.wait = Wait::for_ever()});
    test.tell(mine ? "granted" : mine.error().message);
    test.hear();
    return 0;
  }};
  ASSERT_TRUE(waited_for(pty.path()));
  EXPECT_EQ(daemonless.hear(0ms), "(silence)");
  holder.release();
  EXPECT_EQ(daemonless.hear(), "granted");
  LibraryClaimant another{pty.path()};
  EXPECT_NE(another.hear(), "granted");
  daemonless.kill();
}

}  // namespace
}  // namespace holdfast
