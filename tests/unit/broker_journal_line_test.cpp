// SPDX-License-Identifier: MIT
// The journal's lines: what is written is read again, whatever clients put into their strings, and nothing else is.
#include "broker/journal_line.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace holdfast::broker {
namespace {

using namespace std::chrono_literals;

ClaimRecord claim_with(const std::string& text) {
  ClaimRecord claim;
  claim.id = wire::ClaimId{71};
  claim.owner = {4121, 998877};
  claim.uid = 1000;
  claim.scope = OwnerScope::tree;
  claim.given = wire::OwnerGiven::by_pidfd;
  claim.asked = {{77, 12}, {Convention::proxy, Convention::flock}, Opening::never};
  claim.mode = Mode::shared;
  claim.until = arbiter::Time{90min};
  claim.since = wire::WallTime{1'700'000'000s};
  claim.devices = {{{device::Kind::block, 8, 1, 0}, "/dev/sda1", arbiter::Token{7}, false},
                   {{device::Kind::character, 136, 3, 24}, text, arbiter::Token{8}, true}};
  claim.lock_files = {"/run/lock/LCK..pts" + text, "/run/lock/LK.000.136.003"};
  claim.purpose = text;
  return claim;
}

std::optional<JournalLine> read_back(const JournalLine& line) {
  std::string text = journal_text(line);
  EXPECT_EQ(text.find('\n'), text.size() - 1) << "one line end, at the end";
  text.pop_back();
  return parse_journal_line(text);
}

class ClaimWith : public ::testing::TestWithParam<std::string> {};

TEST_P(ClaimWith, any_string_is_read_as_it_was_written) {
  const ClaimRecord written = claim_with(GetParam());
  const auto line = read_back(JournalClaim{written, wire::WallTime{99s}});
  ASSERT_TRUE(line);
  const auto* read = std::get_if<JournalClaim>(&*line);
  ASSERT_NE(read, nullptr);
  EXPECT_EQ(read->written, wire::WallTime{99s});
  const ClaimRecord& claim = read->claim;
  EXPECT_EQ(claim.id, written.id);
  EXPECT_EQ(claim.owner, written.owner);
  EXPECT_EQ(claim.uid, written.uid);
  EXPECT_EQ(claim.scope, written.scope);
  EXPECT_EQ(claim.given, written.given);
  EXPECT_EQ(claim.asked, written.asked);
  EXPECT_EQ(claim.mode, written.mode);
  EXPECT_EQ(claim.until, written.until);
  EXPECT_EQ(claim.since, written.since);
  EXPECT_EQ(claim.lock_files, written.lock_files);
  EXPECT_EQ(claim.purpose, written.purpose);
  ASSERT_EQ(claim.devices.size(), 2U);
  for (std::size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(claim.devices[i].id, written.devices[i].id);
    EXPECT_EQ(claim.devices[i].path, written.devices[i].path);
    EXPECT_EQ(claim.devices[i].token, written.devices[i].token);
    EXPECT_EQ(claim.devices[i].named, written.devices[i].named);
  }
}

INSTANTIATE_TEST_SUITE_P(Journal, ClaimWith,
                         ::testing::Values("", "-", "flash the board", "a\nend 71 #0\n", "50%, 1=2 #@", "%4",
                                           "\xff\x01", std::string{"nul\0inside", 10}));

TEST(JournalLine, of_a_claim_says_what_the_guard_was_told) {
  ClaimRecord written = claim_with("flash");
  written.enforced.emplace();
  written.enforced->owner.start = 12;  // a tree
  written.enforced->root = {4121, 0, std::uint64_t{1} << 50U};
  for (const std::optional<guard::BootClock::time_point>& until :
       {std::optional<guard::BootClock::time_point>{}, std::optional{guard::BootClock::time_point{5s}}}) {
    for (const auto& device : written.devices) written.enforced->devices.push_back(guard::key_of(device.id));
    written.enforced->until = until;
    const auto line = read_back(JournalClaim{written, {}});
    ASSERT_TRUE(line);
    const auto& told = std::get<JournalClaim>(*line).claim.enforced;
    ASSERT_TRUE(told);
    EXPECT_EQ(told->owner.tgid, 0U);
    EXPECT_EQ(told->owner.start, 12U);
    EXPECT_EQ(told->root.tgid, 4121U);
    EXPECT_EQ(told->root.start, std::uint64_t{1} << 50U);
    EXPECT_EQ(told->until, until);
    ASSERT_EQ(told->devices.size(), written.enforced->devices.size());
    for (std::size_t i = 0; i < told->devices.size(); ++i)
      EXPECT_EQ(guard::id_of(told->devices[i]), guard::id_of(written.enforced->devices[i]));
  }
}

TEST(JournalLine, of_each_other_kind_is_read_as_it_was_written) {
  const JournalHead head{"0f-boot", wire::Epoch{3}, std::uint64_t{1} << 60U, 5000, {~std::uint64_t{0}, 7}};
  const auto first = read_back(head);
  ASSERT_TRUE(first);
  EXPECT_EQ(std::get<JournalHead>(*first), head);

  const auto end = read_back(JournalEnd{wire::ClaimId{9}});
  ASSERT_TRUE(end);
  EXPECT_EQ(std::get<JournalEnd>(*end).claim, wire::ClaimId{9});

  const auto token = read_back(JournalToken{{device::Kind::character, 4, 64, 0}, arbiter::Token{12}});
  ASSERT_TRUE(token);
  EXPECT_EQ(std::get<JournalToken>(*token).device, (device::DeviceId{device::Kind::character, 4, 64, 0}));
  EXPECT_EQ(std::get<JournalToken>(*token).token, arbiter::Token{12});
}

TEST(JournalLine, is_refused_when_it_lost_any_of_its_bytes) {
  std::string text = journal_text(JournalClaim{claim_with("flash"), {}});
  text.pop_back();
  ASSERT_TRUE(parse_journal_line(text));
  for (std::size_t length = 0; length < text.size(); ++length)
    EXPECT_FALSE(parse_journal_line(std::string_view{text}.substr(0, length))) << length;
  for (std::size_t from = 1; from < text.size(); ++from)
    EXPECT_FALSE(parse_journal_line(std::string_view{text}.substr(from))) << from;
}

TEST(JournalLine, is_refused_when_any_of_its_bits_changed) {
  std::string text = journal_text(JournalClaim{claim_with("flash"), {}});
  text.pop_back();
  for (std::size_t i = 0; i < text.size() * 8; ++i) {
    std::string damaged = text;
    damaged[i / 8] = static_cast<char>(damaged[i / 8] ^ (1 << (i % 8)));
    EXPECT_FALSE(parse_journal_line(damaged)) << i;
  }
}

}  // namespace
}  // namespace holdfast::broker
