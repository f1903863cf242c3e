// SPDX-License-Identifier: MIT
// What a broker that is started anew believes of a claim in its journal whose owner lives: the same owner may have made
// another one meanwhile, a moment later.
#include "process/support/devices.hpp"
#include "process/support/raw_client.hpp"

#include "broker/survivors.hpp"
#include "claim/holding.hpp"
#include "device/device.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <span>

namespace holdfast::broker {
namespace {

using namespace testing_support;

constexpr int kMoments = 50;  // some of them within a millisecond, which is all that a proxy tells

class WhatIsLeft : public ::testing::Test {
 protected:
  claiming::Holding claim_of(base::ProcessId owner) const {
    auto holding = claiming::attempt(std::span{&device_, 1}, {}, owner);
    EXPECT_TRUE(holding);
    return holding ? std::move(*holding) : claiming::Holding{};
  }

  // In the journal, of a claim that is there already or was a moment ago.
  [[nodiscard]] JournalClaim written_now(base::ProcessId owner) const {
    JournalClaim entry;
    entry.claim.owner = owner;
    entry.claim.devices = {{.id = device_.node.id, .path = device_.node.path, .named = true}};
    entry.written = std::chrono::system_clock::now();
    return entry;
  }

 private:
  Pty pty_;
  device::Device device_ = *device::identify(pty_.path());
};

TEST_F(WhatIsLeft, is_the_claim_that_a_broker_made_for_another_process_before_it_wrote_it_down) {
  const Owner owner;
  const base::ProcessId other = base::facts_of(owner.pid())->id;
  for (int moment = 0; moment < kMoments; ++moment) {
    claiming::Holding holding = claim_of(other);
    EXPECT_EQ(what_is_left(written_now(other), {}), Left::held) << moment;
    holding.give_back();
  }
}

TEST_F(WhatIsLeft, is_a_claim_made_anew_when_its_owner_made_it_just_after_that) {
  for (int moment = 0; moment < kMoments; ++moment) {
    const JournalClaim entry = written_now(base::self());
    claiming::Holding holding = claim_of(base::self());
    EXPECT_EQ(what_is_left(entry, {}), Left::taken_anew) << moment;
    holding.give_back();
  }
}

TEST_F(WhatIsLeft, is_nothing_when_it_was_given_back) {
  claim_of(base::self()).give_back();
  EXPECT_EQ(what_is_left(written_now(base::self()), {}), Left::given_back);
}

}  // namespace
}  // namespace holdfast::broker
