// SPDX-License-Identifier: MIT
// broker_chronicle_test.cpp - who hears of what, in which order, and what a slow one gets instead.
#include "broker/chronicle.hpp"

#include "wire/codec.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>

namespace holdfast::broker {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using wire::EventKind;

wire::DeviceName device(std::uint32_t minor) { return {"/dev/ttyS" + std::to_string(minor), {}, 4, minor, 0}; }

wire::Event event(EventKind kind, std::uint32_t minor, std::string detail = "") {
  wire::Event made;
  made.kind = kind;
  made.at = std::chrono::system_clock::now();  // what is old is not kept
  made.device = device(minor);
  made.detail = std::move(detail);
  return made;
}

// A connection that takes as much as it is told to.
class Reader final : public Listener {
 public:
  explicit Reader(std::size_t takes = 1000) : takes_{takes} {}
  bool send(std::span<const std::byte> packet) override {
    if (takes_ == 0) return false;
    --takes_;
    auto message = wire::decode_from_broker(packet, 0);
    if (!message) return ADD_FAILURE() << "not a message", true;
    numbers.push_back(message->number);
    messages.push_back(std::move(message->body));
    return true;
  }
  void take(std::size_t more) { takes_ = more; }
  std::vector<std::string> details() const {
    std::vector<std::string> all;
    for (const auto& message : messages) {
      const auto& each = std::get<wire::Event>(message);
      all.push_back(each.kind == EventKind::missed ? "missed: " + each.detail : each.detail);
    }
    return all;
  }

  std::vector<std::uint32_t> numbers;
  std::vector<wire::FromBroker> messages;

 private:
  std::size_t takes_;
};

class ChronicleTest : public testing::Test {
 protected:
  std::vector<std::string> said;
  Chronicle::Say say = [this](std::string_view line) { said.emplace_back(line); };
};

TEST_F(ChronicleTest, a_watcher_hears_in_order_what_it_asked_for_and_nothing_else) {
  Chronicle chronicle{say};
  Reader all;
  Reader one;
  Reader releases;
  Reader nobody;
  chronicle.subscribe(all, {});
  chronicle.subscribe(one, {{device(1)}, wire::Watch{}.kinds});
  chronicle.subscribe(releases, {{}, 1U << static_cast<unsigned>(EventKind::released)});
  chronicle.happened(event(EventKind::claimed, 0, "a"));
  chronicle.happened(event(EventKind::claimed, 1, "b"));
  chronicle.happened(event(EventKind::released, 0, "c"));
  EXPECT_THAT(all.details(), ElementsAre("a", "b", "c"));
  EXPECT_THAT(one.details(), ElementsAre("b"));
  EXPECT_THAT(releases.details(), ElementsAre("c"));
  EXPECT_THAT(nobody.details(), IsEmpty());
  EXPECT_THAT(all.numbers, ElementsAre(0U, 0U, 0U));
}

TEST_F(ChronicleTest, a_new_wish_replaces_the_old_one_and_who_is_forgotten_hears_nothing) {
  Chronicle chronicle{say};
  Reader reader;
  chronicle.subscribe(reader, {{device(0)}, wire::Watch{}.kinds});
  chronicle.subscribe(reader, {{device(1)}, wire::Watch{}.kinds});
  chronicle.happened(event(EventKind::claimed, 0, "a"));
  chronicle.happened(event(EventKind::claimed, 1, "b"));
  chronicle.forget(reader);
  chronicle.happened(event(EventKind::claimed, 1, "c"));
  EXPECT_THAT(reader.details(), ElementsAre("b"));
}

TEST_F(ChronicleTest, a_slow_watcher_finds_in_place_of_what_was_lost_how_much_it_was) {
  Chronicle chronicle{say, Chronicle::Room{3, 1 << 20}};
  Reader slow{0};
  Reader quick;
  chronicle.subscribe(slow, {});
  chronicle.subscribe(quick, {});
  for (const char* const name : {"a", "b", "c", "d", "e"}) chronicle.happened(event(EventKind::claimed, 0, name));
  EXPECT_TRUE(chronicle.wants_ready(slow));
  EXPECT_FALSE(chronicle.wants_ready(quick));

  slow.take(2);
  chronicle.ready(slow);
  chronicle.happened(event(EventKind::claimed, 0, "f"));  // the gap's event and this one fit again
  chronicle.happened(event(EventKind::claimed, 0, "g"));  // this one does not
  slow.take(100);
  chronicle.ready(slow);
  chronicle.happened(event(EventKind::claimed, 0, "h"));

  EXPECT_THAT(slow.details(), ElementsAre("a", "b", "c", "missed: 2 events lost: they were not read fast enough", "f",
                                          "missed: 1 events lost: they were not read fast enough", "h"));
  EXPECT_THAT(quick.details(), ElementsAre("a", "b", "c", "d", "e", "f", "g", "h"));
  EXPECT_FALSE(chronicle.wants_ready(slow));
}

TEST_F(ChronicleTest, what_waits_for_a_watcher_is_bounded_in_bytes_too) {
  Chronicle chronicle{say, Chronicle::Room{1000, 4000}};
  Reader slow{0};
  chronicle.subscribe(slow, {});
  for (int i = 0; i < 100; ++i) chronicle.happened(event(EventKind::claimed, 0, std::string(900, 'x')));
  slow.take(1000);
  chronicle.ready(slow);
  EXPECT_LE(slow.messages.size(), 5U);
  EXPECT_THAT(slow.details().back(), HasSubstr("missed: 9"));
}

TEST_F(ChronicleTest, without_a_history_a_question_is_refused_at_once) {
  Chronicle chronicle{say};
  Reader reader;
  chronicle.ask(reader, 7, {});
  ASSERT_EQ(reader.messages.size(), 1U);
  EXPECT_EQ(reader.numbers[0], 7U);
  EXPECT_THAT(std::get<wire::Refused>(reader.messages[0]).message, HasSubstr("no history"));
  EXPECT_EQ(chronicle.fd(), -1);
}

// --- With a history --------------------------------------------------------------------------------------------------

class ChronicleHistoryTest : public ChronicleTest {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "holdfast-chronicle-XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    directory = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(directory); }
  std::string file() const { return directory + "/history"; }

  // Runs the loop until so many messages came, or a line for the log.
  void run(Chronicle& chronicle, const Reader& reader, std::size_t messages) {
    while (reader.messages.size() < messages && said.empty()) {
      pollfd news{chronicle.fd(), POLLIN, 0};
      ASSERT_EQ(::poll(&news, 1, 10'000), 1) << "nothing came";
      chronicle.deliver();
    }
  }
  static std::vector<std::string> details(const wire::FromBroker& message) {
    std::vector<std::string> all;
    for (const wire::Event& each : std::get<wire::HistoryAnswer>(message).events) all.push_back(each.detail);
    return all;
  }

  std::string directory;
};

TEST_F(ChronicleHistoryTest, a_question_is_answered_with_all_that_happened_before_it) {
  Chronicle chronicle{say};
  chronicle.start_history(file());
  chronicle.happened(event(EventKind::claimed, 0, "a"));
  chronicle.happened(event(EventKind::claimed, 1, "b"));
  chronicle.happened(event(EventKind::released, 0, "c"));
  Reader reader;
  chronicle.ask(reader, 5, {{device(0)}, std::nullopt, 100});
  run(chronicle, reader, 1);
  ASSERT_EQ(reader.messages.size(), 1U);
  EXPECT_EQ(reader.numbers[0], 5U);
  EXPECT_THAT(details(reader.messages[0]), ElementsAre("a", "c"));
  EXPECT_EQ(std::get<wire::HistoryAnswer>(reader.messages[0]).more, wire::More::last);
}

TEST_F(ChronicleHistoryTest, a_long_answer_waits_for_its_reader_page_by_page) {
  Chronicle chronicle{say};
  chronicle.start_history(file());
  constexpr std::size_t kEvents = 3000;
  for (std::size_t i = 0; i < kEvents; ++i) chronicle.happened(event(EventKind::claimed, 0, std::to_string(i)));
  Reader reader{1};
  chronicle.ask(reader, 5, {{}, std::nullopt, 1'000'000});
  chronicle.ask(reader, 6, {});  // refused, which the reader may hear first
  std::vector<std::string> all;
  bool last = false;
  while (!last) {
    const std::size_t before = reader.messages.size();
    reader.take(1);
    chronicle.ready(reader);
    run(chronicle, reader, before + 1);
    ASSERT_EQ(reader.messages.size(), before + 1) << "no more than it takes";
    if (reader.numbers.back() == 6) continue;
    const auto page = details(reader.messages.back());
    all.insert(all.end(), page.begin(), page.end());
    last = std::get<wire::HistoryAnswer>(reader.messages.back()).more == wire::More::last;
  }
  ASSERT_EQ(all.size(), kEvents);
  for (std::size_t i = 0; i < kEvents; ++i) ASSERT_EQ(all[i], std::to_string(i));
  EXPECT_GT(reader.messages.size(), 4U);
}

TEST_F(ChronicleHistoryTest, who_leaves_in_the_middle_of_an_answer_gets_no_more_of_it) {
  Chronicle chronicle{say};
  chronicle.start_history(file());
  for (int i = 0; i < 2000; ++i) chronicle.happened(event(EventKind::claimed, 0));
  Reader reader;
  chronicle.ask(reader, 5, {{}, std::nullopt, 1'000'000});
  run(chronicle, reader, 1);
  chronicle.forget(reader);
  Reader other;
  chronicle.ask(other, 9, {{}, std::nullopt, 1});
  run(chronicle, other, 1);
  EXPECT_EQ(reader.messages.size(), 1U);
  EXPECT_EQ(std::get<wire::HistoryAnswer>(other.messages[0]).events.size(), 1U);
}

TEST_F(ChronicleHistoryTest, a_file_that_is_no_database_is_said_once_and_watchers_go_on) {
  std::ofstream{file()} << std::string(5000, 'x');
  Chronicle chronicle{say};
  chronicle.start_history(file());
  Reader reader;
  chronicle.subscribe(reader, {});
  run(chronicle, reader, 1);
  ASSERT_EQ(said.size(), 1U);
  EXPECT_THAT(said[0], testing::AllOf(HasSubstr("no history is kept"), HasSubstr(file())));
  chronicle.happened(event(EventKind::claimed, 0, "a"));
  said.clear();
  chronicle.ask(reader, 3, {});
  run(chronicle, reader, 2);
  ASSERT_EQ(reader.messages.size(), 2U);
  EXPECT_EQ(std::get<wire::Event>(reader.messages[0]).detail, "a");
  EXPECT_THAT(std::get<wire::Refused>(reader.messages[1]).message, HasSubstr("not a database"));
  EXPECT_THAT(said, IsEmpty());
}

TEST_F(ChronicleHistoryTest, what_waits_to_be_written_is_written_before_the_end) {
  {
    Chronicle chronicle{say};
    chronicle.start_history(file());
    for (int i = 0; i < 50; ++i) chronicle.happened(event(EventKind::claimed, 0));
  }
  auto again = HistoryFile::open(file());
  ASSERT_TRUE(again) << again.error().message;
  const auto range = again->find({{}, std::nullopt, 1000});
  ASSERT_TRUE(range);
  EXPECT_EQ(range->last - range->first, 49);
}

}  // namespace
}  // namespace holdfast::broker
