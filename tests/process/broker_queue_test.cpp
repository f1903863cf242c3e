// SPDX-License-Identifier: MIT
// broker_queue_test.cpp - who gets it next: order, direct hand-off, readers and writers, priorities, cancel, deadlines,
// deadlocks. All owners are children named by pidfd, so one connection speaks for all and hears in which order things
// happened.
#include "process/support/broker.hpp"
#include "process/support/devices.hpp"
#include "process/support/raw_client.hpp"

#include <gtest/gtest.h>

#include <array>
#include <map>
#include <string>
#include <vector>

namespace holdfast {
namespace {

using namespace testing_support;
using namespace std::chrono_literals;

wire::Claim shared_claim_of(const std::string& device, const wire::Patience& patience = {}) {
  wire::Claim claim = claim_of(device, patience);
  claim.mode = Mode::shared;
  return claim;
}

// Requests of one device by owners with names, over one connection; what is granted, in order.
class Line {
 public:
  explicit Line(const BrokerUnderTest& broker) : client_{broker.socket()} {}

  // The first letter of the name says the mode: w exclusive, r shared.
  std::string ask(const std::string& name, wire::Claim claim) {
    if (name[0] == 'r') claim.mode = Mode::shared;
    const std::uint32_t number = send_for(client_, owners_[name], std::move(claim));
    names_[number] = name;
    const Answer answer = client_.answer_to(number);
    if (answer.claim() != wire::ClaimId{}) held_[name] = answer.claim();
    return answer.words;
  }

  // All that hold now release, one after the other; who is granted before the last Done, in order.
  std::string let_go() {
    std::string granted;
    const auto held = std::exchange(held_, {});
    for (const auto& [name, claim] : held) granted += release(claim);
    return granted;
  }

  std::string release(wire::ClaimId claim) {
    std::string granted;
    const std::uint32_t number = client_.send(wire::Release{claim});
    while (true) {
      const Answer answer = client_.hear();
      if (answer.number == number || !answer.body)
        return answer.words == "done" ? granted : granted + "(" + answer.words + ")";
      if (answer.claim() == wire::ClaimId{}) continue;
      const std::string& name = names_[answer.number];
      held_[name] = answer.claim();
      granted += (granted.empty() ? "" : " ") + name;
    }
  }

  RawClient& client() { return client_; }
  std::map<std::string, wire::ClaimId>& held() { return held_; }
  Owner& owner(const std::string& name) { return owners_[name]; }

 private:
  RawClient client_;
  std::map<std::string, Owner> owners_;
  std::map<std::uint32_t, std::string> names_;
  std::map<std::string, wire::ClaimId> held_;
};

struct PolicyCase {
  std::string policy;
  std::vector<std::string> phases;  // who holds together, phase by phase
};

class Policy : public ::testing::TestWithParam<PolicyCase> {};

TEST_P(Policy, grants_in_its_order) {
  const Pty pty;
  BrokerUnderTest broker{{"--policy", GetParam().policy}};
  Line line{broker};
  ASSERT_EQ(line.ask("w0", claim_of(pty.path())), "granted");
  for (const char* name : {"w1", "r1", "r2", "w2", "r3", "w3"})
    ASSERT_EQ(line.ask(name, claim_of(pty.path(), kForEver)), "queued");
  for (const std::string& phase : GetParam().phases) EXPECT_EQ(line.let_go(), phase);
  EXPECT_EQ(line.let_go(), "");
}

INSTANTIATE_TEST_SUITE_P(Policies, Policy,
                         ::testing::Values(PolicyCase{"phase_fair", {"r1 r2 r3", "w1", "w2", "w3"}},
                                           PolicyCase{"fifo", {"w1", "r1 r2", "w2", "r3", "w3"}},
                                           PolicyCase{"writer_first", {"w1", "w2", "w3", "r1 r2 r3"}}),
                         [](const auto& tested) { return tested.param.policy; });

TEST(Queue, of_many_connections_is_served_in_the_order_of_asking) {
  const Pty pty;
  BrokerUnderTest broker;
  constexpr std::size_t kMany = 20;
  std::array<Owner, kMany> owners;
  std::vector<RawClient> clients;
  std::vector<std::uint32_t> numbers;
  for (std::size_t i = 0; i < kMany; ++i) {
    clients.emplace_back(broker.socket());
    const std::uint32_t number = send_for(clients[i], owners[i], claim_of(pty.path(), kForEver));
    numbers.push_back(number);
    if (i == 0) continue;
    ASSERT_EQ(clients[i].answer_to(number).words, "queued");
  }
  Answer granted = clients[0].answer_to(numbers[0]);
  std::uint64_t token = 0;
  for (std::size_t i = 0; i < kMany; ++i) {
    ASSERT_EQ(granted.words, "granted") << i;
    EXPECT_GT(static_cast<std::uint64_t>(granted.token()), token);
    token = static_cast<std::uint64_t>(granted.token());
    ASSERT_EQ(clients[i].ask(wire::Release{granted.claim()}).words, "done");
    if (i + 1 == kMany) break;
    // The grant is sent before the releaser is answered.
    EXPECT_TRUE(clients[i + 1].has_heard()) << i;
    for (std::size_t later = i + 2; later < kMany; ++later) EXPECT_FALSE(clients[later].has_heard());
    granted = clients[i + 1].answer_to(numbers[i + 1]);
  }
}

TEST(Try, is_refused_while_others_hold_and_names_the_holder) {
  const Pty pty;
  BrokerUnderTest broker;
  Line line{broker};
  ASSERT_EQ(line.ask("w0", claim_of(pty.path())), "granted");
  const Owner other;
  const Answer answer = ask_for(line.client(), other, claim_of(pty.path()));
  const auto* refused = answer.as<wire::Refused>();
  ASSERT_NE(refused, nullptr) << answer.words;
  EXPECT_EQ(refused->code, errc::refused);
  ASSERT_TRUE(refused->holder);
  EXPECT_EQ(refused->holder->pid, line.owner("w0").pid());
  EXPECT_NE(answer.words.find(pty.path()), std::string::npos) << answer.words;
}

TEST(Try, does_not_overtake_a_waiter) {
  const Pty pty;
  BrokerUnderTest broker;
  Line line{broker};
  ASSERT_EQ(line.ask("r0", claim_of(pty.path())), "granted");
  ASSERT_EQ(line.ask("w1", claim_of(pty.path(), kForEver)), "queued");
  EXPECT_EQ(line.ask("r1", claim_of(pty.path())).substr(0, 7), "refused");
  EXPECT_EQ(line.let_go(), "w1");
}

TEST(Shared, claims_hold_together_and_keep_exclusive_ones_out) {
  const Pty pty;
  BrokerUnderTest broker;
  Line line{broker};
  ASSERT_EQ(line.ask("r1", claim_of(pty.path())), "granted");
  ASSERT_EQ(line.ask("r2", claim_of(pty.path())), "granted");
  EXPECT_EQ(line.ask("w1", claim_of(pty.path())).substr(0, 7), "refused");
  EXPECT_EQ(line.release(line.held()["r1"]), "");
  EXPECT_EQ(line.ask("w1", claim_of(pty.path())).substr(0, 7), "refused");
  EXPECT_EQ(line.release(line.held()["r2"]), "");
  EXPECT_EQ(line.ask("w1", claim_of(pty.path())), "granted");
}

TEST(Queued, says_how_many_are_ahead) {
  const Pty pty;
  BrokerUnderTest broker;
  RawClient client{broker.socket()};
  std::array<Owner, 4> owners;
  ASSERT_EQ(ask_for(client, owners[0], claim_of(pty.path())).words, "granted");
  for (std::uint32_t i = 1; i < owners.size(); ++i) {
    const Answer answer = ask_for(client, owners[i], claim_of(pty.path(), kForEver));
    const auto* queued = answer.as<wire::Queued>();
    ASSERT_NE(queued, nullptr) << answer.words;
    EXPECT_EQ(queued->ahead, i - 1);
    EXPECT_NE(queued->place, wire::Place{});
  }
}

TEST(Queued, is_told_again_as_the_queue_moves_to_those_who_want_it) {
  const Pty pty;
  BrokerUnderTest broker;
  RawClient client{broker.socket()};
  RawClient told{broker.socket()};
  std::array<Owner, 3> owners;
  const Answer first = ask_for(client, owners[0], claim_of(pty.path()));
  const std::uint32_t second = send_for(client, owners[1], claim_of(pty.path(), kForEver));
  ASSERT_EQ(client.answer_to(second).words, "queued");
  wire::Claim claim = claim_of(pty.path(), kForEver);
  claim.progress = wire::Progress::told;
  const Answer queued = ask_for(told, owners[2], claim);
  ASSERT_NE(queued.as<wire::Queued>(), nullptr) << queued.words;
  EXPECT_EQ(queued.as<wire::Queued>()->ahead, 1U);
  ASSERT_EQ(client.ask(wire::Release{first.claim()}).words, "done");
  const Answer moved = told.hear();
  ASSERT_NE(moved.as<wire::Queued>(), nullptr) << moved.words;
  EXPECT_EQ(moved.as<wire::Queued>()->ahead, 0U);
}

TEST(Cancel, takes_a_waiter_out_and_nobody_else) {
  const Pty pty;
  BrokerUnderTest broker;
  RawClient client{broker.socket()};
  std::array<Owner, 3> owners;
  const Answer held = ask_for(client, owners[0], claim_of(pty.path()));
  ASSERT_EQ(held.words, "granted");
  const std::uint32_t cancelled = send_for(client, owners[1], claim_of(pty.path(), kForEver));
  ASSERT_EQ(client.answer_to(cancelled).words, "queued");
  const std::uint32_t kept = send_for(client, owners[2], claim_of(pty.path(), kForEver));
  ASSERT_EQ(client.answer_to(kept).words, "queued");
  EXPECT_EQ(client.ask(wire::Cancel{cancelled}).words, "done");
  EXPECT_EQ(client.ask(wire::Release{held.claim()}).words, "done");
  EXPECT_EQ(client.answer_to(kept).words, "granted");
}

TEST(Waiter, whose_connection_is_closed_leaves_the_queue) {
  const Pty pty;
  BrokerUnderTest broker;
  RawClient client{broker.socket()};
  RawClient leaver{broker.socket()};
  std::array<Owner, 3> owners;
  const Answer held = ask_for(client, owners[0], claim_of(pty.path()));
  ASSERT_EQ(ask_for(leaver, owners[1], claim_of(pty.path(), kForEver)).words, "queued");
  const std::uint32_t kept = send_for(client, owners[2], claim_of(pty.path(), kForEver));
  ASSERT_EQ(client.answer_to(kept).words, "queued");
  leaver.hang_up();
  EXPECT_EQ(client.ask(wire::Release{held.claim()}).words, "done");
  EXPECT_EQ(client.answer_to(kept).words, "granted");
}

TEST(Deadline, ends_a_wait_and_names_the_holder) {
  const Pty pty;
  BrokerUnderTest broker;
  RawClient client{broker.socket()};
  std::array<Owner, 2> owners;
  ASSERT_EQ(ask_for(client, owners[0], claim_of(pty.path())).words, "granted");
  const Stopwatch watch;
  const std::uint32_t number = send_for(client, owners[1], claim_of(pty.path(), {true, 60ms}));
  ASSERT_EQ(client.answer_to(number).words, "queued");
  const Answer answer = client.answer_to(number);
  EXPECT_EQ(answer.code(), errc::timed_out) << answer.words;
  EXPECT_GE(watch.ms(), 59);
  ASSERT_NE(answer.as<wire::Refused>(), nullptr);
  ASSERT_TRUE(answer.as<wire::Refused>()->holder);
  EXPECT_EQ(answer.as<wire::Refused>()->holder->pid, owners[0].pid());
}

TEST(Priority, overtakes_those_below_it) {
  const Pty pty;
  BrokerUnderTest broker;
  Line line{broker};
  ASSERT_EQ(line.ask("w0", claim_of(pty.path())), "granted");
  const std::vector<std::pair<std::string, wire::Priority>> asked{{"w_idle", wire::Priority::idle},
                                                                  {"w_normal", wire::Priority::normal},
                                                                  {"w_high", wire::Priority::high},
                                                                  {"w_urgent", wire::Priority::urgent},
                                                                  {"w_low", wire::Priority::low}};
  for (const auto& [name, priority] : asked) {
    wire::Claim claim = claim_of(pty.path(), kForEver);
    claim.priority = priority;
    ASSERT_EQ(line.ask(name, claim), "queued");
  }
  for (const char* next : {"w_urgent", "w_high", "w_normal", "w_low", "w_idle"}) EXPECT_EQ(line.let_go(), next);
}

TEST(Set, of_devices_is_granted_as_a_whole) {
  const Pty one;
  const Pty two;
  BrokerUnderTest broker;
  RawClient client{broker.socket()};
  std::array<Owner, 3> owners;
  const Answer first = ask_for(client, owners[0], claim_of(one.path()));
  const Answer second = ask_for(client, owners[1], claim_of(two.path()));
  wire::Claim both = claim_of(one.path(), kForEver);
  both.devices.push_back(name_of(two.path()));
  const std::uint32_t number = send_for(client, owners[2], both);
  ASSERT_EQ(client.answer_to(number).words, "queued");
  ASSERT_EQ(client.ask(wire::Release{first.claim()}).words, "done");
  EXPECT_FALSE(client.has_heard());
  ASSERT_EQ(client.ask(wire::Release{second.claim()}).words, "done");
  const Answer granted = client.answer_to(number);
  ASSERT_NE(granted.as<wire::Granted>(), nullptr) << granted.words;
  EXPECT_EQ(granted.as<wire::Granted>()->devices.size(), 2U);
  for (const Pty* pty : {&one, &two})
    EXPECT_EQ(ask_for(client, owners[0], claim_of(pty->path())).code(), errc::refused);
}

TEST(Deadlock, is_refused_and_its_cycle_is_named) {
  const Pty one;
  const Pty two;
  BrokerUnderTest broker;
  RawClient client{broker.socket()};
  std::array<Owner, 2> owners;
  ASSERT_EQ(ask_for(client, owners[0], claim_of(one.path())).words, "granted");
  ASSERT_EQ(ask_for(client, owners[1], claim_of(two.path())).words, "granted");
  ASSERT_EQ(ask_for(client, owners[0], claim_of(two.path(), kForEver)).words, "queued");
  const Answer refused = ask_for(client, owners[1], claim_of(one.path(), kForEver));
  EXPECT_EQ(refused.code(), errc::deadlock) << refused.words;
  for (const std::string& word :
       {one.path(), two.path(), std::to_string(owners[0].pid()), std::to_string(owners[1].pid())})
    EXPECT_NE(refused.words.find(word), std::string::npos) << refused.words << " without " << word;
}

TEST(Deadlock, of_three_is_refused_and_goes_when_one_dies) {
  const std::array<Pty, 3> ptys;
  BrokerUnderTest broker;
  RawClient client{broker.socket()};
  std::array<Owner, 3> owners;
  for (std::size_t i = 0; i < 3; ++i) ASSERT_EQ(ask_for(client, owners[i], claim_of(ptys[i].path())).words, "granted");
  std::array<std::uint32_t, 2> waits{};
  for (std::size_t i = 0; i < 2; ++i) {
    waits[i] = send_for(client, owners[i], claim_of(ptys[i + 1].path(), kForEver));
    ASSERT_EQ(client.answer_to(waits[i]).words, "queued");
  }
  EXPECT_EQ(ask_for(client, owners[2], claim_of(ptys[0].path(), kForEver)).code(), errc::deadlock);
  owners[2].kill();
  EXPECT_EQ(client.answer_to(waits[1]).words, "granted");
}

TEST(SameOwner, is_refused_at_once_and_told_of_the_deadlock_when_it_would_wait_for_itself) {
  const Pty pty;
  BrokerUnderTest broker;
  RawClient client{broker.socket()};
  RawClient other{broker.socket()};
  ASSERT_EQ(client.ask(claim_of(pty.path())).words, "granted");
  EXPECT_EQ(other.ask(claim_of(pty.path())).code(), errc::refused);
  EXPECT_EQ(other.ask(claim_of(pty.path(), kForEver)).code(), errc::deadlock);
}

TEST(Downgrade, lets_readers_in_and_upgrade_waits_for_them) {
  const Pty pty;
  BrokerUnderTest broker;
  RawClient client{broker.socket()};
  std::array<Owner, 2> owners;
  const Answer held = ask_for(client, owners[0], claim_of(pty.path()));
  const std::uint32_t reader = send_for(client, owners[1], shared_claim_of(pty.path(), kForEver));
  ASSERT_EQ(client.answer_to(reader).words, "queued");
  const Answer down = client.ask(wire::Downgrade{held.claim()});
  ASSERT_EQ(down.words, "granted");
  EXPECT_EQ(down.as<wire::Granted>()->mode, Mode::shared);
  const Answer shared = client.answer_to(reader);
  ASSERT_EQ(shared.words, "granted");
  EXPECT_EQ(client.ask(wire::Upgrade{held.claim(), kNoWait}).code(), errc::refused);
  const std::uint32_t upgrade = client.send(wire::Upgrade{held.claim(), kForEver});
  ASSERT_EQ(client.answer_to(upgrade).words, "queued");
  ASSERT_EQ(client.ask(wire::Release{shared.claim()}).words, "done");
  const Answer up = client.answer_to(upgrade);
  ASSERT_EQ(up.words, "granted");
  EXPECT_EQ(up.as<wire::Granted>()->mode, Mode::exclusive);
  EXPECT_GT(up.token(), held.token());
}

TEST(Release, of_what_is_not_held_is_refused) {
  const Pty pty;
  BrokerUnderTest broker;
  RawClient client{broker.socket()};
  EXPECT_EQ(client.ask(wire::Release{wire::ClaimId{4711}}).code(), errc::not_held);
  const Answer held = client.ask(claim_of(pty.path()));
  ASSERT_EQ(held.words, "granted");
  EXPECT_EQ(client.ask(wire::Release{held.claim()}).words, "done");
  EXPECT_EQ(client.ask(wire::Release{held.claim()}).code(), errc::not_held);
}

}  // namespace
}  // namespace holdfast
