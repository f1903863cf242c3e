// SPDX-License-Identifier: MIT
// broker_rights_test.cpp - who may open the node may claim it, nobody else; what others may see, take back, cut
// short.
#include "process/support/broker.hpp"
#include "process/support/devices.hpp"
#include "process/support/raw_client.hpp"

#include <gtest/gtest.h>

#include <fcntl.h>
#include <grp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <functional>
#include <string>

namespace holdfast {
namespace {

using namespace testing_support;
using namespace std::chrono_literals;

struct User {
  uid_t uid = 65534;
  gid_t gid = 65534;
  gid_t further = 0;  // another group; 0: none
};

// The last words of `body`, run as that user.
std::string as(const User& user, const std::function<std::string()>& body) {
  return in_a_child([&]() -> std::string {
    const std::size_t groups = user.further == 0 ? 0 : 1;
    if (::setgroups(groups, &user.further) != 0 || ::setresgid(user.gid, user.gid, user.gid) != 0 ||
        ::setresuid(user.uid, user.uid, user.uid) != 0)
      return "cannot become that user";
    return body();
  });
}

std::string try_as(const User& user, const BrokerUnderTest& broker, const std::string& device,
                   const wire::Patience& patience = {}) {
  return as(user, [&]() -> std::string {
    RawClient client{broker.socket()};
    const Answer answer = client.ask(claim_of(device, patience));
    return answer.code() == errc::not_permitted ? "not permitted" : answer.words;
  });
}

TEST(Permission, is_that_of_the_node) {
  const Pty pty;
  BrokerUnderTest broker;
  const User nobody;
  ASSERT_EQ(::chmod(pty.path().c_str(), 0600), 0);
  EXPECT_EQ(try_as(nobody, broker, pty.path()), "not permitted");
  EXPECT_EQ(try_as(nobody, broker, pty.path(), kForEver), "not permitted");
  ASSERT_EQ(::chmod(pty.path().c_str(), 0606), 0);
  EXPECT_EQ(try_as(nobody, broker, pty.path()), "granted");
  ASSERT_EQ(::chmod(pty.path().c_str(), 0600), 0);
  EXPECT_EQ(try_as(nobody, broker, pty.path()), "not permitted");
}

TEST(Permission, may_come_from_a_supplementary_group) {
  const Pty pty;
  BrokerUnderTest broker;
  constexpr gid_t kGroup = 54321;
  ASSERT_EQ(::chown(pty.path().c_str(), 0, kGroup), 0);
  ASSERT_EQ(::chmod(pty.path().c_str(), 0660), 0);
  EXPECT_EQ(try_as({}, broker, pty.path()), "not permitted");
  EXPECT_EQ(try_as({.further = kGroup}, broker, pty.path()), "granted");
}

TEST(Permission, of_a_group_may_be_less_than_that_of_others) {
  const Pty pty;
  BrokerUnderTest broker;
  constexpr gid_t kGroup = 54321;
  ASSERT_EQ(::chown(pty.path().c_str(), 0, kGroup), 0);
  ASSERT_EQ(::chmod(pty.path().c_str(), 0606), 0);
  EXPECT_EQ(try_as({}, broker, pty.path()), "granted");
  EXPECT_EQ(try_as({.further = kGroup}, broker, pty.path()), "not permitted");
}

TEST(Refusal, of_permission_comes_before_any_word_about_the_holder) {
  const Pty pty;
  BrokerUnderTest broker;
  ASSERT_EQ(::chmod(pty.path().c_str(), 0600), 0);
  RawClient client{broker.socket()};
  ASSERT_EQ(client.ask(claim_of(pty.path())).words, "granted");
  EXPECT_EQ(try_as({}, broker, pty.path()), "not permitted");
}

TEST(Claim, of_another_user_can_be_neither_released_nor_changed) {
  const Pty pty;
  BrokerUnderTest broker;
  ASSERT_EQ(::chmod(pty.path().c_str(), 0666), 0);
  RawClient client{broker.socket()};
  const Answer held = client.ask(claim_of(pty.path()));
  ASSERT_EQ(held.words, "granted");
  const std::string words = as({}, [&] {
    std::string wrong;
    RawClient other{broker.socket()};
    for (const wire::FromClient& message :
         {wire::FromClient{wire::Release{held.claim()}}, wire::FromClient{wire::Downgrade{held.claim()}},
          wire::FromClient{wire::Upgrade{held.claim(), kForEver}}, wire::FromClient{wire::Renew{held.claim(), 1ms}}})
      if (const Answer answer = other.ask(message); answer.code() != errc::not_held) wrong += answer.words + "; ";
    return wrong.empty() ? "nothing wrong" : wrong;
  });
  EXPECT_EQ(words, "nothing wrong");
  EXPECT_EQ(client.ask(wire::Release{held.claim()}).words, "done");
}

TEST(Kick, asks_the_holder_and_then_takes_the_device_back) {
  const Pty pty;
  BrokerUnderTest broker;
  RawClient holder{broker.socket()};
  RawClient client{broker.socket()};
  const Answer held = holder.ask(claim_of(pty.path()));
  ASSERT_EQ(held.words, "granted");
  const testing_support::Owner next;
  const std::uint32_t number = send_for(client, next, claim_of(pty.path(), kForEver));
  ASSERT_EQ(client.answer_to(number).words, "queued");
  RawClient root{broker.socket()};
  const std::uint32_t kick = root.send(wire::Kick{name_of(pty.path()), 80ms, "maintenance"});
  const Answer asked = holder.hear();
  ASSERT_EQ(asked.words, "notice: asked to leave");
  EXPECT_EQ(asked.as<wire::RevokeNotice>()->reason, "maintenance");
  EXPECT_GT(asked.as<wire::RevokeNotice>()->grace, 0ns);
  EXPECT_NE(asked.as<wire::RevokeNotice>()->by, "");
  EXPECT_EQ(holder.hear().words, "notice: revoked");
  EXPECT_EQ(root.answer_to(kick).words, "done");
  EXPECT_EQ(client.answer_to(number).words, "granted");
  EXPECT_NE(holder.ask(wire::Release{held.claim()}).words, "done");
}

TEST(Kick, is_over_when_the_holder_leaves_by_itself) {
  const Pty pty;
  BrokerUnderTest broker;
  RawClient holder{broker.socket()};
  const Answer held = holder.ask(claim_of(pty.path()));
  RawClient root{broker.socket()};
  const std::uint32_t kick = root.send(wire::Kick{name_of(pty.path()), 100ms, ""});
  ASSERT_EQ(holder.hear().words, "notice: asked to leave");
  EXPECT_EQ(holder.ask(wire::Release{held.claim()}).words, "done");
  EXPECT_EQ(root.answer_to(kick).words, "done");
  // The next claim of the device is not the one that was meant.
  ASSERT_EQ(holder.ask(claim_of(pty.path())).words, "granted");
  EXPECT_EQ(holder.hear(250ms).words, "(silence)");
}

TEST(Kick, of_a_device_that_nobody_holds_is_refused) {
  const Pty pty;
  BrokerUnderTest broker;
  RawClient root{broker.socket()};
  EXPECT_EQ(root.ask(wire::Kick{name_of(pty.path()), 0s, ""}).code(), errc::not_held);
}

TEST(Kick, by_another_user_is_refused) {
  const Pty pty;
  BrokerUnderTest broker;
  ASSERT_EQ(::chmod(pty.path().c_str(), 0666), 0);
  RawClient holder{broker.socket()};
  const Answer held = holder.ask(claim_of(pty.path()));
  ASSERT_EQ(held.words, "granted");
  const std::string words = as({}, [&]() -> std::string {
    RawClient other{broker.socket()};
    const Answer answer = other.ask(wire::Kick{name_of(pty.path()), 0s, "mine"});
    return answer.code() == errc::not_permitted ? "not permitted" : answer.words;
  });
  EXPECT_EQ(words, "not permitted");
  EXPECT_EQ(holder.ask(wire::Release{held.claim()}).words, "done");
}

TEST(Kick, of_ones_own_claim_is_permitted) {
  const Pty pty;
  BrokerUnderTest broker;
  ASSERT_EQ(::chmod(pty.path().c_str(), 0666), 0);
  const std::string words = as({}, [&]() -> std::string {
    RawClient holder{broker.socket()};
    RawClient other{broker.socket()};
    if (const Answer held = holder.ask(claim_of(pty.path())); held.words != "granted") return held.words;
    return other.ask(wire::Kick{name_of(pty.path()), 0s, "again"}).words;
  });
  EXPECT_EQ(words, "done");
}

TEST(Lease, lapses_after_a_warning_and_the_next_gets_in) {
  const Pty pty;
  BrokerUnderTest broker;
  RawClient client{broker.socket()};
  const testing_support::Owner owner;
  const testing_support::Owner next;
  wire::Claim leased = claim_of(pty.path());
  leased.lease = 150ms;
  const Stopwatch watch;
  const Answer held = ask_for(client, owner, leased);
  ASSERT_EQ(held.words, "granted");
  ASSERT_TRUE(held.as<wire::Granted>()->lapses_in);
  EXPECT_LE(*held.as<wire::Granted>()->lapses_in, 150ms);
  RawClient waiter{broker.socket()};
  const std::uint32_t number = send_for(waiter, next, claim_of(pty.path(), kForEver));
  ASSERT_EQ(waiter.answer_to(number).words, "queued");
  EXPECT_EQ(waiter.answer_to(number).words, "granted");
  EXPECT_GE(watch.ms(), 149);
  std::string last;
  while (client.has_heard()) last = client.hear().words;
  EXPECT_EQ(last, "notice: lapsed");
  EXPECT_NE(client.ask(wire::Release{held.claim()}).words, "done");
}

TEST(Lease, that_is_renewed_goes_on) {
  const Pty pty;
  BrokerUnderTest broker;
  RawClient client{broker.socket()};
  wire::Claim leased = claim_of(pty.path());
  leased.lease = 100ms;
  const Answer held = client.ask(leased);
  ASSERT_EQ(held.words, "granted");
  const Answer renewed = client.ask(wire::Renew{held.claim(), 1h});
  ASSERT_EQ(renewed.words, "renewed");
  EXPECT_GT(renewed.as<wire::Renewed>()->lapses_in, 59min);
  while (true) {
    const Answer notice = client.hear(300ms);
    if (notice.words == "(silence)") break;
    EXPECT_NE(notice.words, "notice: lapsed");
  }
  EXPECT_EQ(client.ask(wire::Release{held.claim()}).words, "done");
}

TEST(Status, shows_holder_and_queue) {
  const Pty pty;
  BrokerUnderTest broker;
  RawClient client{broker.socket()};
  const testing_support::Owner holder;
  const testing_support::Owner waiter;
  wire::Claim claim = claim_of(pty.path());
  claim.purpose = "flashing";
  ASSERT_EQ(ask_for(client, holder, claim).words, "granted");
  ASSERT_EQ(ask_for(client, waiter, claim_of(pty.path(), kForEver)).words, "queued");
  const Answer answer = client.ask(wire::StatusQuery{{name_of(pty.path())}});
  const auto* status = answer.as<wire::StatusAnswer>();
  ASSERT_NE(status, nullptr) << answer.words;
  ASSERT_EQ(status->devices.size(), 1U);
  const wire::DeviceStatus& device = status->devices[0];
  ASSERT_EQ(device.holders.size(), 1U);
  EXPECT_EQ(device.holders[0].pid, holder.pid());
  EXPECT_EQ(device.holders[0].purpose, "flashing");
  EXPECT_EQ(device.waiting, 1U);
  ASSERT_EQ(device.waiters.size(), 1U);
  EXPECT_EQ(device.waiters[0].who.pid, waiter.pid());
}

}  // namespace
}  // namespace holdfast
