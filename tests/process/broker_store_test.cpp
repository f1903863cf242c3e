// SPDX-License-Identifier: MIT
// The descriptor store, with a systemd of the test's own that keeps what it is sent and passes it on to the next
// broker: a claim's locks outlive the broker and its client, and go when the next broker says so.
#include "broker/store.hpp"

#include "claim/parcel.hpp"
#include "process/support/child.hpp"
#include "process/support/devices.hpp"
#include "process/support/fake_systemd.hpp"

#include <holdfast/claim.hpp>

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace holdfast::broker {
namespace {

using namespace testing_support;
using namespace std::chrono_literals;
using Clock = DescriptorStore::Clock;

class Store : public ::testing::Test {
 protected:
  // A broker that takes the terminal for claim 7, keeps it, waits for a word and dies.
  std::unique_ptr<Child> broker_that_keeps(const std::string& path) {
    auto broker = std::make_unique<Child>([path](testing_support::Peer& test) {
      DescriptorStore store;
      auto holding = claiming::take(std::array{path}, {}, base::self());
      if (!holding) return 1;
      const auto now = Clock::now();
      store.keep(wire::ClaimId{7}, *holding, now);
      store.advance(now + 2s);
      test.tell("kept");
      test.hear();
      return 0;
    });
    EXPECT_EQ(broker->hear(), "kept");
    systemd_.hear();
    return broker;
  }
  static std::string refusal_of(const std::string& path) {
    const auto mine = claim(path);
    return mine ? "free" : mine.error().message;
  }

  FakeSystemd systemd_;
  Pty pty_;
};

TEST_F(Store, keeps_a_claims_locks_when_broker_and_client_are_dead) {
  auto broker = broker_that_keeps(pty_.path());
  EXPECT_THAT(systemd_.names(), ::testing::ElementsAre("claim-7"));
  broker->kill();
  EXPECT_NE(refusal_of(pty_.path()), "free");
}

TEST_F(Store, next_broker_has_the_same_open_descriptions_and_gives_them_back) {
  auto broker = broker_that_keeps(pty_.path());
  const base::ProcessId dead{broker->pid(), base::facts_of(broker->pid())->id.start_ticks};
  broker->kill();
  for (int restart = 1; restart <= 2; ++restart) {
    SCOPED_TRACE(restart);
    Child next{[&](testing_support::Peer& test) {
      systemd_.pass_on();
      DescriptorStore store;
      auto kept = store.take_over();
      if (kept.size() != 1 || kept.front().claim != wire::ClaimId{7}) return 1;
      std::vector<device::Device> devices;
      devices.push_back(*device::identify(pty_.path()));
      const Options options;
      auto holding = claiming::unpack(devices, kept.front().marks, std::move(kept.front().descriptors),
                                      {.options = options, .owner = dead, .locks = convention::Locks::proven});
      if (!holding) {
        test.tell(holding.error().message);
        return 1;
      }
      test.tell("adopted");
      if (test.hear() != "give back") return 0;
      store.drop(wire::ClaimId{7});
      holding->give_back();
      test.tell("given back");
      return 0;
    }};
    ASSERT_EQ(next.hear(), "adopted");
    if (restart == 1) {
      next.kill();
      EXPECT_NE(refusal_of(pty_.path()), "free") << "it is there for the one after the next, too";
      continue;
    }
    next.tell("give back");
    ASSERT_EQ(next.hear(), "given back");
    EXPECT_EQ(refusal_of(pty_.path()), "free") << "by name: though systemd has not closed its copy yet";
    systemd_.hear();
    EXPECT_THAT(systemd_.names(), ::testing::IsEmpty());
  }
}

TEST_F(Store, claims_that_end_at_once_are_no_news_to_systemd) {
  DescriptorStore store;
  auto holding = claiming::take(std::array{pty_.path()}, {}, base::self());
  ASSERT_TRUE(holding);
  const auto now = Clock::now();
  store.keep(wire::ClaimId{8}, *holding, now);
  ASSERT_TRUE(store.next_due());
  store.advance(now + 500ms);
  store.drop(wire::ClaimId{8});
  store.advance(now + 2s);
  EXPECT_FALSE(store.next_due());
  systemd_.hear();
  EXPECT_THAT(systemd_.names(), ::testing::IsEmpty());
}

TEST_F(Store, claims_that_the_broker_alone_has_are_kept_at_once) {
  DescriptorStore store;
  auto holding = claiming::take(std::array{pty_.path()}, {}, base::self());
  ASSERT_TRUE(holding);
  store.keep(wire::ClaimId{8}, *holding, Clock::now());
  store.hurry(wire::ClaimId{8}, Clock::now());
  store.hurry(wire::ClaimId{8}, Clock::now());
  systemd_.hear();
  EXPECT_THAT(systemd_.names(), ::testing::ElementsAre("claim-8"));
  store.drop(wire::ClaimId{8});
  systemd_.hear();
  EXPECT_THAT(systemd_.names(), ::testing::IsEmpty());
}

TEST_F(Store, claims_by_the_dozen_are_no_news_to_systemd_though_the_broker_alone_has_them) {
  DescriptorStore store;
  auto holding = claiming::take(std::array{pty_.path()}, {}, base::self());
  ASSERT_TRUE(holding);
  const auto now = Clock::now();
  const auto heard = [&] {
    systemd_.hear();  // soon enough: few messages fit on their way
    return systemd_.names().size();
  };
  for (std::uint64_t claim = 1; claim <= 24; ++claim) {
    store.keep(wire::ClaimId{claim}, *holding, now);
    store.hurry(wire::ClaimId{claim}, now);
    EXPECT_EQ(heard(), std::min<std::uint64_t>(claim, 20));
  }
  store.hurry(wire::ClaimId{24}, now + 1s);
  EXPECT_EQ(heard(), 21U);
  store.advance(now + 1s);
  EXPECT_EQ(heard(), 24U);
}

TEST_F(Store, claim_that_systemd_could_not_be_told_of_is_told_of_again) {
  DescriptorStore store;
  auto holding = claiming::take(std::array{pty_.path()}, {}, base::self());
  ASSERT_TRUE(holding);
  const auto now = Clock::now();
  store.keep(wire::ClaimId{8}, *holding, now);
  const std::string socket = ::getenv("NOTIFY_SOCKET");
  ::setenv("NOTIFY_SOCKET", "/nowhere", 1);
  store.hurry(wire::ClaimId{8}, now);
  ::setenv("NOTIFY_SOCKET", socket.c_str(), 1);
  ASSERT_TRUE(store.next_due());
  store.advance(*store.next_due());
  systemd_.hear();
  EXPECT_THAT(systemd_.names(), ::testing::ElementsAre("claim-8"));
}

TEST_F(Store, claims_that_hold_by_an_exclusive_open_are_not_kept) {
  const LoopDevice disk;
  if (!disk.missing().empty()) GTEST_SKIP() << "needs " << disk.missing();
  DescriptorStore store;
  auto holding = claiming::take(std::array{disk.path()}, {}, base::self());
  ASSERT_TRUE(holding) << holding.error().message;
  store.keep(wire::ClaimId{9}, *holding, Clock::now());
  EXPECT_FALSE(store.next_due());
}

TEST_F(Store, garbage_in_it_is_removed) {
  systemd_.put("claim-12", base::UniqueFd{::open("/dev/null", O_RDONLY | O_CLOEXEC)});
  systemd_.put("claim-x", base::UniqueFd{::open("/dev/null", O_RDONLY | O_CLOEXEC)});
  Child next{[&](testing_support::Peer& test) {
    systemd_.pass_on();
    DescriptorStore store;
    test.tell(store.take_over().empty() ? "nothing" : "something");
    return 0;
  }};
  EXPECT_EQ(next.hear(), "nothing");
  next.reap();
  systemd_.hear();
  EXPECT_THAT(systemd_.names(), ::testing::IsEmpty());
}

TEST(StoreWithoutSystemd, keeps_nothing) {
  const Pty pty;
  DescriptorStore store;
  auto holding = claiming::take(std::array{pty.path()}, {}, base::self());
  ASSERT_TRUE(holding);
  store.keep(wire::ClaimId{8}, *holding, Clock::now());
  EXPECT_FALSE(store.next_due());
  EXPECT_TRUE(store.take_over().empty());
}

}  // namespace
}  // namespace holdfast::broker
