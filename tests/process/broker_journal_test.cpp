// SPDX-License-Identifier: MIT
// The journal under a broker that is killed at each of its system calls: what was answered is found again, and nothing
// that was not asked for.
#include "broker/journal.hpp"

#include "process/support/devices.hpp"
#include "process/support/traced_run.hpp"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>

namespace holdfast::broker {
namespace {

using namespace testing_support;
using namespace std::chrono_literals;

ClaimRecord claim(std::uint64_t id, std::uint64_t token, Mode mode = Mode::exclusive) {
  ClaimRecord record;
  record.id = wire::ClaimId{id};
  record.owner = {4121, 1};
  record.mode = mode;
  record.purpose = "flash";
  record.devices = {{{device::Kind::character, 4, 64, 0}, "/dev/ttyS0", arbiter::Token{token}, true}};
  return record;
}

// "7:exclusive@3 9:shared@4", in the order of the numbers.
std::string told(const Journal::Found& found) {
  std::string text;
  for (const auto& [record, written] : found.claims)
    text += (text.empty() ? "" : " ") + std::to_string(static_cast<std::uint64_t>(record.id)) + ":" +
            (record.mode == Mode::exclusive ? "exclusive" : "shared") + "@" +
            std::to_string(static_cast<std::uint64_t>(record.devices.front().token));
  return text;
}

Journal::Found found_in(const Journal::Places& places) {
  Journal::Found found;
  const auto journal = Journal::open(places, found);
  EXPECT_TRUE(journal) << journal.error().message;
  return found;
}

std::string text_of(const std::string& path) {
  std::stringstream text;
  text << std::ifstream{path}.rdbuf();
  return text.str();
}

class JournalTest : public ::testing::Test {
 protected:
  Result<Journal> open() {
    found_ = {};
    return Journal::open(places_, found_);
  }
  Journal opened() {
    auto journal = open();
    EXPECT_TRUE(journal) << journal.error().message;
    return std::move(*journal);
  }
  TemporaryDirectory directory_;
  Journal::Places places_{directory_ / "state", directory_ / "lasting"};
  std::string file_ = directory_ / "state/journal";
  Journal::Found found_;
};

TEST_F(JournalTest, next_broker_finds_claims_and_tokens) {
  {
    Journal journal = opened();
    EXPECT_THAT(found_.claims, ::testing::IsEmpty());
    journal.record(claim(1, 10));
    journal.record(claim(2, 11));
    journal.record(claim(2, 11, Mode::shared));
    journal.ended(wire::ClaimId{1});
  }
  opened();
  EXPECT_EQ(told(found_), "2:shared@11");
  ASSERT_EQ(found_.tokens.size(), 1U);
  EXPECT_EQ(found_.tokens.front().token, arbiter::Token{11});
  EXPECT_EQ(found_.refused_lines, 0U);
}

TEST_F(JournalTest, numbers_and_epochs_only_rise_within_a_boot) {
  std::optional<Journal> journal = opened();
  const std::uint64_t id = journal->next_claim();
  journal->record(claim(id, 1));
  journal->ended(wire::ClaimId{id});
  const wire::Epoch epoch = journal->epoch();
  const std::uint64_t base = journal->token_base();
  journal.reset();
  journal = opened();
  EXPECT_EQ(journal->next_claim(), id + 1);
  EXPECT_EQ(static_cast<std::uint64_t>(journal->epoch()), static_cast<std::uint64_t>(epoch) + 1);
  EXPECT_EQ(journal->token_base(), base);
}

TEST_F(JournalTest, tokens_rise_across_a_boot_though_the_clock_went_back) {
  const std::uint64_t base = opened().token_base();
  std::filesystem::remove(file_);
  const std::string ahead = std::to_string(base + (std::uint64_t{1} << 50U));
  std::ofstream{directory_ / "lasting/token-base"} << ahead;
  EXPECT_GT(opened().token_base(), std::stoull(ahead));
  // And without a lasting directory by the clock.
  std::filesystem::remove(file_);
  places_.lasting.clear();
  EXPECT_GE(opened().token_base(), base);
}

TEST_F(JournalTest, claims_of_another_boot_are_forgotten) {
  opened().record(claim(1, 10));
  std::string text = text_of(file_);
  JournalHead head = std::get<JournalHead>(*parse_journal_line(text.substr(0, text.find('\n'))));
  head.boot = "another";
  std::ofstream{file_} << journal_text(head) << text.substr(text.find('\n') + 1);
  const auto base = opened().token_base();
  EXPECT_EQ(told(found_), "");
  EXPECT_EQ(found_.refused_lines, 0U);
  EXPECT_GE(base, head.token_base);
}

TEST_F(JournalTest, garbage_is_refused_line_by_line_and_the_tokens_start_above_what_it_may_have_said) {
  std::uint64_t base = 0;
  {
    Journal journal = opened();
    base = journal.token_base();
    journal.record(claim(1, 10));
  }
  std::ofstream{file_, std::ios::app} << "claim 2 what\n\n\xff\xff\n" << journal_text(JournalClaim{claim(3, 12), {}});
  const Journal journal = opened();
  EXPECT_EQ(told(found_), "1:exclusive@10 3:exclusive@12");
  EXPECT_EQ(found_.refused_lines, 3U);
  EXPECT_GT(journal.token_base(), base);
  EXPECT_EQ(text_of(file_).find("what"), std::string::npos) << "written anew without it";
}

TEST_F(JournalTest, file_cut_at_any_byte_tells_what_was_whole) {
  {
    Journal journal = opened();
    journal.record(claim(1, 10));
    journal.record(claim(2, 11));
    journal.ended(wire::ClaimId{1});
  }
  const std::string text = text_of(file_);
  std::vector<std::string> seen;
  for (std::size_t size = text.find('\n') + 1; size <= text.size(); ++size) {
    std::ofstream{file_, std::ios::trunc} << text.substr(0, size);
    opened();
    EXPECT_EQ(found_.refused_lines, 0U) << size;
    if (const auto now = told(found_); seen.empty() || seen.back() != now) seen.push_back(now);
  }
  EXPECT_THAT(seen, ::testing::ElementsAre("", "1:exclusive@10", "1:exclusive@10 2:exclusive@11", "2:exclusive@11"));
}

TEST_F(JournalTest, second_broker_is_refused) {
  const Journal journal = opened();
  Journal::Found found;
  const auto second = Journal::open(places_, found);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, errc::refused);
}

TEST_F(JournalTest, does_not_grow_with_what_is_over) {
  Journal journal = opened();
  for (std::uint64_t id = 1; id <= 20'000; ++id) {
    journal.record(claim(id, id));
    if (id != 7) journal.ended(wire::ClaimId{id});
  }
  EXPECT_LT(std::filesystem::file_size(file_), 1U << 20U);
  EXPECT_EQ(journal.errnum(), 0);
  const Journal::Found found = [&] {
    Journal::Places copy = places_;
    copy.state = directory_ / "copy";
    std::filesystem::copy(places_.state, copy.state);
    return found_in(copy);
  }();
  EXPECT_EQ(told(found), "7:exclusive@7");
  ASSERT_EQ(found.tokens.size(), 1U);
  EXPECT_EQ(found.tokens.front().token, arbiter::Token{20'000});
}

TEST_F(JournalTest, what_did_not_fit_is_written_with_the_next_line_that_does) {
  const std::string said = in_a_child([&]() -> std::string {
    auto journal = open();
    if (!journal) return journal.error().message;
    ::signal(SIGXFSZ, SIG_IGN);
    const auto size = std::filesystem::file_size(file_);
    rlimit limit{size + 20, RLIM_INFINITY};  // half a line more
    ::setrlimit(RLIMIT_FSIZE, &limit);
    journal->record(claim(1, 10));
    if (journal->errnum() == 0) return "no error";
    if (std::filesystem::file_size(file_) != size) return "half a line";
    limit.rlim_cur = RLIM_INFINITY;
    ::setrlimit(RLIMIT_FSIZE, &limit);
    journal->record(claim(2, 11));
    return journal->errnum() == 0 ? "written" : "still an error";
  });
  EXPECT_EQ(said, "written");
  opened();
  EXPECT_EQ(told(found_), "1:exclusive@10 2:exclusive@11");
  EXPECT_EQ(found_.refused_lines, 0U);
}

TEST_F(JournalTest, claims_end_at_their_time_though_the_broker_was_away) {
  const auto until = arbiter::Time{std::chrono::steady_clock::now().time_since_epoch() + 2h};
  {
    Journal journal = opened();
    ClaimRecord record = claim(1, 10);
    record.until = until;
    journal.record(record);
  }
  opened();
  ASSERT_EQ(found_.claims.size(), 1U);
  ASSERT_TRUE(found_.claims.front().claim.until);
  EXPECT_LT(*found_.claims.front().claim.until - until, 1s);
  EXPECT_LT(until - *found_.claims.front().claim.until, 1s);
}

// What the broker does, and how far it came: each step counts once it was answered.
constexpr int kSteps = 6;
std::string after_step(int step) {
  static constexpr std::array<const char*, kSteps + 1> kStates{"5:exclusive@1",
                                                               "5:exclusive@1 6:exclusive@2",
                                                               "5:exclusive@1 6:exclusive@2 7:exclusive@3",
                                                               "5:exclusive@1 6:shared@2 7:exclusive@3",
                                                               "6:shared@2 7:exclusive@3",
                                                               "6:shared@2",
                                                               "6:shared@2 8:exclusive@4"};
  return kStates.at(static_cast<std::size_t>(step));
}

TEST_F(JournalTest, kill_at_any_call_loses_nothing_that_was_answered) {
  int stops = 0;
  for (int last = 1;; ++last) {
    SCOPED_TRACE("killed at stop " + std::to_string(last));
    std::filesystem::remove_all(places_.state);
    opened().record(claim(5, 1));
    const std::string progress = directory_ / "progress";
    std::ofstream{progress, std::ios::trunc};
    const TracedRun run{[&] {
                          const int answers = ::open(progress.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC);
                          const auto answer = [&] { [[maybe_unused]] const ssize_t put = ::write(answers, "x", 1); };
                          marker();
                          Journal::Found found;
                          auto journal = Journal::open(places_, found);
                          if (!journal) ::_exit(1);
                          journal->record(claim(6, 2));
                          answer();
                          journal->record(claim(7, 3));
                          answer();
                          journal->record(claim(6, 2, Mode::shared));
                          answer();
                          journal->ended(wire::ClaimId{5});
                          answer();
                          journal->ended(wire::ClaimId{7});
                          answer();
                          journal->record(claim(8, 4));
                          answer();
                          marker();
                        },
                        [](long) {}, last};
    ASSERT_TRUE(run.dead());
    const int answered = static_cast<int>(std::filesystem::file_size(progress));
    opened();
    EXPECT_EQ(found_.refused_lines, 0U);
    EXPECT_THAT(told(found_), ::testing::AnyOf(after_step(answered), after_step(std::min(answered + 1, kSteps))));
    if (run.stops() < last) break;
    stops = run.stops();
  }
  EXPECT_GE(stops, 40) << "a harness that misses the calls makes fewer";
}

}  // namespace
}  // namespace holdfast::broker
