// SPDX-License-Identifier: MIT
// broker_load_test.cpp - ten thousand waiters of one device over two hundred connections, a thousand devices: the order
// holds, and what a waiter costs is said. Owners are children named by pidfd.
#include "process/support/broker.hpp"
#include "process/support/devices.hpp"
#include "process/support/raw_client.hpp"

#include <gtest/gtest.h>

#include <sys/resource.h>

#include <array>
#include <cstdio>
#include <string>
#include <unordered_map>
#include <vector>

namespace holdfast {
namespace {

using namespace testing_support;

// Sanitizers take ten times as long for everything.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr std::size_t kWaiters = 1'000;
constexpr std::size_t kDevices = 100;
constexpr long kMostBytesEach = 64 * 1024;
#else
constexpr std::size_t kWaiters = 10'000;
constexpr std::size_t kDevices = 1'000;
constexpr long kMostBytesEach = 8 * 1024;
#endif
constexpr std::size_t kClients = 200;

// Before the broker is started, which inherits it.
void allow_many_descriptors() {
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

std::vector<RawClient> connect_many(const BrokerUnderTest& broker) {
  std::vector<RawClient> clients;
  for (std::size_t i = 0; i < kClients; ++i) clients.emplace_back(broker.socket());
  return clients;
}

TEST(Load, of_ten_thousand_waiters_keeps_their_order) {
  allow_many_descriptors();
  const Pty pty;
  std::vector<Owner> owners;
  for (std::size_t i = 0; i < kWaiters + 1; ++i) owners.emplace_back();
  BrokerUnderTest broker;
  std::vector<RawClient> clients = connect_many(broker);
  const long before = broker.memory_kib();
  const Answer first = ask_for(clients[0], owners[kWaiters], claim_of(pty.path()));
  ASSERT_EQ(first.words, "granted");
  const Stopwatch queueing;
  std::vector<std::uint32_t> numbers(kWaiters);
  for (std::size_t i = 0; i < kWaiters; ++i) {
    RawClient& client = clients[i % kClients];
    numbers[i] = send_for(client, owners[i], claim_of(pty.path(), kForEver));
    // One after the other: connections have no order among themselves.
    ASSERT_EQ(client.answer_to(numbers[i]).words, "queued") << i;
  }
  const double queueing_ms = queueing.ms();
  const long bytes_each = (broker.memory_kib() - before) * 1024 / static_cast<long>(kWaiters);
  const Stopwatch serving;
  wire::ClaimId holds = first.claim();
  std::size_t holder = 0;  // whose connection speaks
  for (std::size_t i = 0; i < kWaiters; ++i) {
    ASSERT_EQ(clients[holder % kClients].ask(wire::Release{holds}).words, "done") << i;
    const Answer granted = clients[i % kClients].answer_to(numbers[i]);
    ASSERT_EQ(granted.words, "granted") << i;
    holds = granted.claim();
    holder = i;
  }
  const double each_us = serving.ms() * 1000 / static_cast<double>(kWaiters);
  std::printf(
      "%zu waiters: %ld bytes of the broker's memory each; %.0f us to queue one, %.0f us from one to the next\n",
      kWaiters, bytes_each, queueing_ms * 1000 / static_cast<double>(kWaiters), each_us);
  EXPECT_LT(bytes_each, kMostBytesEach);
}

TEST(Load, of_ten_thousand_waiters_that_die_at_once_leaves_nothing_behind) {
  allow_many_descriptors();
  const Pty pty;
  BrokerUnderTest broker;
  const int descriptors = broker.descriptors();
  {
    std::vector<RawClient> clients = connect_many(broker);
    std::vector<Owner> owners;
    for (std::size_t i = 0; i < kWaiters; ++i) {
      owners.emplace_back();
      const std::string words = ask_for(clients[i % kClients], owners[i], claim_of(pty.path(), kForEver)).words;
      ASSERT_EQ(words, i == 0 ? "granted" : "queued") << i;
    }
  }
  EXPECT_TRUE(broker.descriptors_fall_to(descriptors));
  RawClient client{broker.socket()};
  EXPECT_EQ(client.ask(claim_of(pty.path())).words, "granted");
}

TEST(Load, of_a_thousand_devices_is_one_claim_each) {
  allow_many_descriptors();
  std::vector<Pty> ptys(kDevices);
  BrokerUnderTest broker;
  std::vector<RawClient> clients = connect_many(broker);
  const long before = broker.memory_kib();
  const int descriptors_before = broker.descriptors();
  const Stopwatch watch;
  std::vector<wire::ClaimId> held;
  for (std::size_t i = 0; i < kDevices; ++i) {
    // The descriptors of the grants are closed at once: the broker has its own.
    const Answer answer = clients[i % kClients].ask(claim_of(ptys[i].path()));
    ASSERT_EQ(answer.words, "granted") << i;
    held.push_back(answer.claim());
  }
  std::printf("%zu devices: %.0f us, %ld KiB and %.1f descriptors of the broker each\n", kDevices,
              watch.ms() * 1000 / static_cast<double>(kDevices),
              (broker.memory_kib() - before) / static_cast<long>(kDevices),
              static_cast<double>(broker.descriptors() - descriptors_before) / static_cast<double>(kDevices));
  const Owner other;
  for (std::size_t i = 0; i < kDevices; i += 7)
    EXPECT_EQ(ask_for(clients[i % kClients], other, claim_of(ptys[i].path())).code(), errc::refused) << i;
  for (std::size_t i = 0; i < kDevices; ++i)
    ASSERT_EQ(clients[i % kClients].ask(wire::Release{held[i]}).words, "done") << i;
  for (std::size_t i = 0; i < kDevices; i += 7)
    EXPECT_EQ(ask_for(clients[i % kClients], other, claim_of(ptys[i].path())).words, "granted") << i;
}

}  // namespace
}  // namespace holdfast
