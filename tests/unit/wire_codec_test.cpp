// SPDX-License-Identifier: MIT
// wire_codec_test.cpp - messages come out as they went in, and nothing else comes out.
#include "wire/codec.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "wire_samples.hpp"

using namespace holdfast;
using namespace holdfast::wire;
using namespace std::chrono_literals;

namespace {

using Packet = std::vector<std::byte>;

template <class Side>
Packet packed(const Side& message, std::uint32_t number = 0xA1B2C3D4) {
  Packet packet;
  EXPECT_TRUE(encode(number, message, packet).has_value());
  return packet;
}

auto decoded(const FromClient&, const Packet& packet, std::size_t descriptors) {
  return decode_from_client(packet, descriptors);
}
auto decoded(const FromBroker&, const Packet& packet, std::size_t descriptors) {
  return decode_from_broker(packet, descriptors);
}

std::size_t descriptors_in(const Packet& packet) { return static_cast<std::size_t>(packet[3]); }

template <class Check>
void each_sample(Check check) {
  for (const FromClient& each : client_samples()) check(each);
  for (const FromBroker& each : broker_samples()) check(each);
}

Packet changed(Packet packet, std::size_t at, unsigned value) {
  packet[at] = static_cast<std::byte>(value);
  return packet;
}

Fault fault_of(const Packet& packet, std::size_t descriptors = 0) {
  const auto result = decode_from_client(packet, descriptors);
  EXPECT_FALSE(result.has_value());
  return result.has_value() ? Fault::too_large : result.error();
}

}  // namespace

TEST(WireCodec, every_message_comes_out_as_it_went_in) {
  std::set<std::size_t> kinds_of_client;
  std::set<std::size_t> kinds_of_broker;
  for (const FromClient& each : client_samples()) kinds_of_client.insert(each.index());
  for (const FromBroker& each : broker_samples()) kinds_of_broker.insert(each.index());
  EXPECT_EQ(kinds_of_client.size(), std::variant_size_v<FromClient>);
  EXPECT_EQ(kinds_of_broker.size(), std::variant_size_v<FromBroker>);
  each_sample([](const auto& sample) {
    const Packet packet = packed(sample);
    const auto out = decoded(sample, packet, descriptors_in(packet));
    ASSERT_TRUE(out.has_value()) << sample.index() << ": " << to_string(out.error());
    EXPECT_EQ(out->number, 0xA1B2C3D4U);
    EXPECT_EQ(out->body.index(), sample.index());
    EXPECT_EQ(packed(out->body), packet) << sample.index();
  });
}

TEST(WireCodec, the_fields_of_a_claim_are_each_in_their_place) {
  const Packet packet = packed(client_samples()[2]);
  const auto out = decode_from_client(packet, 1);
  ASSERT_TRUE(out.has_value());
  const Claim& claim = std::get<Claim>(out->body);
  ASSERT_EQ(claim.devices.size(), 2U);
  EXPECT_EQ(claim.devices[1].path, "/dev/sr0");
  EXPECT_EQ(claim.devices[1].kind, NodeKind::block);
  EXPECT_EQ(claim.devices[0].major, 188U);
  EXPECT_EQ(claim.devices[0].minor, 7U);
  EXPECT_EQ(claim.mode, Mode::shared);
  EXPECT_EQ(claim.owner_scope, OwnerScope::tree);
  EXPECT_EQ(claim.cover, Cover::unit);
  EXPECT_EQ(claim.opening, Opening::never);
  EXPECT_EQ(claim.conventions, (ConventionSet{Convention::proxy, Convention::tiocexcl}));
  EXPECT_TRUE(claim.patience.waits);
  EXPECT_EQ(claim.patience.at_most, 5s);
  EXPECT_EQ(claim.progress, wire::Progress::told);
  EXPECT_EQ(claim.priority, Priority::urgent);
  EXPECT_EQ(claim.lease, 2h);
  EXPECT_EQ(claim.place, Place{77});
  EXPECT_EQ(claim.owner, OwnerGiven::by_pidfd);
  EXPECT_EQ(claim.purpose, "flash the board");
  EXPECT_EQ(claim.guarding, Guarding::off);
}

TEST(WireCodec, the_bytes_of_a_message_are_these_on_every_machine) {
  const Packet packet = packed(FromClient{Release{ClaimId{0x0102030405060708}}}, 0x0A0B0C0D);
  const unsigned expected[] = {'h', 'f', kVersion, 0, 0x0D, 0x0C, 0x0B, 0x0A, 3, 0, 9, 0, 8, 7, 6, 5, 4, 3, 2, 1, 0};
  ASSERT_EQ(packet.size(), std::size(expected));
  for (std::size_t i = 0; i < packet.size(); ++i) EXPECT_EQ(static_cast<unsigned>(packet[i]), expected[i]) << i;
}

TEST(WireCodec, a_message_that_is_cut_off_anywhere_is_refused) {
  each_sample([](const auto& sample) {
    const Packet whole = packed(sample);
    for (std::size_t size = 0; size < whole.size(); ++size) {
      Packet cut{whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size)};
      EXPECT_FALSE(decoded(sample, cut, descriptors_in(whole)).has_value()) << sample.index() << " at " << size;
      if (size < kHeaderBytes) continue;
      cut[10] = static_cast<std::byte>((size - kHeaderBytes) & 0xff);  // and says so
      cut[11] = static_cast<std::byte>((size - kHeaderBytes) >> 8);
      EXPECT_FALSE(decoded(sample, cut, descriptors_in(whole)).has_value()) << sample.index() << " at " << size;
    }
  });
}

TEST(WireCodec, a_changed_byte_is_refused_or_is_what_it_says) {
  each_sample([](const auto& sample) {
    const Packet whole = packed(sample);
    for (std::size_t at = 0; at < whole.size(); ++at)
      for (const unsigned value : {0U, 1U, 2U, 0x7fU, 0x80U, 0xffU}) {
        const Packet other = changed(whole, at, value);
        const auto out = decoded(sample, other, descriptors_in(other));
        if (out.has_value() && other[2] == std::byte{kVersion}) {
          Packet again;
          ASSERT_TRUE(encode(out->number, out->body, again).has_value());
          EXPECT_EQ(again, other) << sample.index() << " at " << at;
        }
      }
  });
}

TEST(WireCodec, bytes_after_the_end_are_refused) {
  Packet packet = packed(FromClient{Release{ClaimId{1}}});
  packet.push_back(std::byte{0});
  EXPECT_EQ(fault_of(packet), Fault::wrong_length);
  packet[10] = std::byte{10};
  EXPECT_EQ(fault_of(packet), Fault::malformed);
}

TEST(WireCodec, what_is_not_ours_is_told_apart) {
  const Packet packet = packed(FromClient{Release{ClaimId{1}}});
  EXPECT_EQ(fault_of({}), Fault::not_ours);
  EXPECT_EQ(fault_of(changed(packet, 0, 'x')), Fault::not_ours);
  EXPECT_EQ(fault_of(changed(packet, 2, 7)), Fault::wrong_version);
  EXPECT_EQ(fault_of(changed(packet, 8, 200)), Fault::unknown_kind);
}

TEST(WireCodec, no_side_may_speak_for_the_other) {
  EXPECT_EQ(fault_of(packed(FromBroker{Done{}})), Fault::unknown_kind);
  const auto out = decode_from_broker(packed(FromClient{Release{ClaimId{1}}}), 0);
  ASSERT_FALSE(out.has_value());
  EXPECT_EQ(out.error(), Fault::unknown_kind);
}

TEST(WireCodec, a_greeting_of_another_version_is_understood) {
  Packet packet = changed(packed(FromClient{Hello{2, 9, "holdfast"}}), 2, 9);
  packet.push_back(std::byte{42});  // a field of the future
  packet[10] = static_cast<std::byte>(packet.size() - kHeaderBytes);
  const auto out = decode_from_client(packet, 0);
  ASSERT_TRUE(out.has_value());
  EXPECT_EQ(std::get<Hello>(out->body).newest, 9);
}

TEST(WireCodec, descriptors_must_be_as_many_as_the_message_says) {
  const Packet release = packed(FromClient{Release{ClaimId{1}}});
  EXPECT_EQ(fault_of(release, 1), Fault::wrong_descriptors);
  EXPECT_EQ(fault_of(changed(release, 3, 1), 1), Fault::wrong_descriptors);
  const Packet resume = packed(FromClient{Resume{ClaimId{1}, Epoch{1}, some_marks()}});
  EXPECT_EQ(fault_of(resume, 0), Fault::wrong_descriptors);
  EXPECT_TRUE(decode_from_client(resume, 2).has_value());
}

TEST(WireCodec, a_pidfd_rides_with_a_claim_for_another_process) {
  Claim claim;
  claim.owner = OwnerGiven::by_pidfd;
  const Packet packet = packed(FromClient{claim});
  EXPECT_TRUE(decode_from_client(packet, 1).has_value());
  EXPECT_EQ(fault_of(packet, 0), Fault::wrong_descriptors);
}

TEST(WireCodec, a_mark_of_no_node_is_malformed) {
  Granted granted;
  granted.marks = some_marks();
  granted.marks.marks.back().node = 2;
  Packet packet;
  EXPECT_EQ(encode(1, FromBroker{granted}, packet).error(), Fault::too_large);
}

TEST(WireCodec, nothing_is_sent_that_would_not_be_understood) {
  Packet packet;
  const auto fails = [&](const FromClient& message) { return !encode(1, message, packet).has_value(); };
  Claim claim;
  claim.purpose = std::string(kMostPurpose, 'x');
  EXPECT_FALSE(fails(claim));
  claim.purpose += 'x';
  EXPECT_TRUE(fails(claim));
  EXPECT_TRUE(fails(Hello{1, 1, std::string{"a\0b", 3}}));
  EXPECT_TRUE(fails(Renew{ClaimId{1}, -1ns}));
  EXPECT_TRUE(fails(Watch{{}, 1U << kEventKinds}));
  claim = {};
  claim.devices.assign(kMostDevices + 1, a_device());
  EXPECT_TRUE(fails(claim));
  claim.devices.assign(kMostDevices, a_device(std::string(kMostPath, 'x')));
  EXPECT_TRUE(fails(claim)) << "each field is within its limit, the whole is not";
}

TEST(WireCodec, a_text_with_a_zero_is_refused) {
  const Packet packet = packed(FromClient{Hello{1, 1, "abc"}});
  EXPECT_EQ(fault_of(changed(packet, packet.size() - 2, 0)), Fault::malformed);
}

TEST(WireCodec, a_count_without_elements_allocates_nothing) {
  Packet packet = packed(FromBroker{HistoryAnswer{}});
  packet[12] = packet[13] = std::byte{0xff};
  const auto out = decode_from_broker(packet, 0);
  ASSERT_FALSE(out.has_value());
  EXPECT_EQ(out.error(), Fault::malformed);
}

TEST(WireCodec, every_fault_has_words) {
  std::set<std::string_view> words;
  for (int i = 0; i <= static_cast<int>(Fault::too_large); ++i) words.insert(to_string(static_cast<Fault>(i)));
  EXPECT_EQ(words.size(), static_cast<std::size_t>(Fault::too_large) + 1);
}
