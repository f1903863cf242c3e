// SPDX-License-Identifier: MIT
// broker_history_file_test.cpp - what is written is read again, what is old goes, and no file can do harm.
#include "broker/history_file.hpp"

#include "broker/history.hpp"
#include "wire/codec.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace holdfast::broker {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::HasSubstr;
using wire::EventKind;

wire::Event event(std::uint32_t minor, std::chrono::seconds at) {
  wire::Event made;
  made.kind = EventKind::released;
  made.at = wire::WallTime{at};
  made.device = {"/dev/ttyS" + std::to_string(minor), wire::NodeKind::character, 4, minor, 0};
  return made;
}

class HistoryFileTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "holdfast-history-XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    directory = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(directory); }
  std::string path() const { return directory + "/history"; }
  HistoryFile opened() const {
    auto file = HistoryFile::open(path());
    EXPECT_TRUE(file) << file.error().message;
    return std::move(*file);
  }
  static std::vector<Row> found(HistoryFile& file, const wire::HistoryQuery& query) {
    const auto range = file.find(query);
    EXPECT_TRUE(range) << range.error().message;
    const auto rows = file.read(query, *range, 10'000);
    EXPECT_TRUE(rows) << rows.error().message;
    return *rows;
  }
  static std::vector<std::int64_t> seconds(const std::vector<Row>& rows) {
    std::vector<std::int64_t> all;
    for (const Row& row : rows)
      all.push_back(std::chrono::duration_cast<std::chrono::seconds>(row.event.at.time_since_epoch()).count());
    return all;
  }
  void sql(const char* text) const {
    sqlite3* database = nullptr;
    ASSERT_EQ(sqlite3_open(path().c_str(), &database), SQLITE_OK);
    sqlite3_busy_timeout(database, 10'000);  // the history's thread may be writing
    EXPECT_EQ(sqlite3_exec(database, text, nullptr, nullptr, nullptr), SQLITE_OK) << sqlite3_errmsg(database);
    sqlite3_close(database);
  }

  std::string directory;
};

TEST_F(HistoryFileTest, an_event_comes_back_as_it_was_also_after_reopening) {
  wire::Event made = event(3, 7s);
  made.device.kind = wire::NodeKind::block;
  made.device.devpts = ~std::uint64_t{0};
  made.mode = Mode::shared;
  made.who = {
      4121,          99, "pico'com", "joe", std::chrono::system_clock::time_point{5s}, "flash; DROP TABLE event",
      {"flock", "x"}};
  made.waited = 3s;
  made.held = 4ms;
  made.detail = "by its owner";
  {
    HistoryFile file = opened();
    ASSERT_TRUE(file.add(std::array{made}));
  }
  HistoryFile file = opened();
  const auto rows = found(file, {});
  ASSERT_EQ(rows.size(), 1U);
  const wire::Event& read = rows[0].event;
  EXPECT_EQ(read.kind, made.kind);
  EXPECT_EQ(read.at, made.at);
  EXPECT_EQ(read.device.path, made.device.path);
  EXPECT_EQ(read.device.kind, made.device.kind);
  EXPECT_EQ(read.device.minor, made.device.minor);
  EXPECT_EQ(read.device.devpts, made.device.devpts);
  EXPECT_EQ(read.mode, made.mode);
  EXPECT_EQ(read.who.pid, made.who.pid);
  EXPECT_EQ(read.who.start_ticks, made.who.start_ticks);
  EXPECT_EQ(read.who.command, made.who.command);
  EXPECT_EQ(read.who.user, made.who.user);
  EXPECT_EQ(read.who.since, made.who.since);
  EXPECT_EQ(read.who.purpose, made.who.purpose);
  EXPECT_EQ(read.who.means, made.who.means);
  EXPECT_EQ(read.waited, made.waited);
  EXPECT_EQ(read.held, made.held);
  EXPECT_EQ(read.detail, made.detail);
}

TEST_F(HistoryFileTest, a_question_names_devices_a_time_and_how_many_of_the_newest) {
  HistoryFile file = opened();
  ASSERT_TRUE(file.add(std::array{event(0, 1s), event(1, 2s), event(0, 3s), event(2, 4s), event(0, 5s)}));
  const auto device = [](std::uint32_t minor) { return event(minor, 0s).device; };
  EXPECT_THAT(seconds(found(file, {})), ElementsAre(1, 2, 3, 4, 5));
  EXPECT_THAT(seconds(found(file, {{device(0)}, std::nullopt, 100})), ElementsAre(1, 3, 5));
  EXPECT_THAT(seconds(found(file, {{device(0), device(2)}, wire::WallTime{3s}, 100})), ElementsAre(3, 4, 5));
  EXPECT_THAT(seconds(found(file, {{}, std::nullopt, 2})), ElementsAre(4, 5));
  EXPECT_THAT(seconds(found(file, {{device(0)}, wire::WallTime{2s}, 1})), ElementsAre(5));
  EXPECT_THAT(seconds(found(file, {{device(9)}, std::nullopt, 100})), ElementsAre());
  EXPECT_THAT(seconds(found(file, {{}, std::nullopt, 0})), ElementsAre());
}

TEST_F(HistoryFileTest, what_is_too_old_or_too_much_is_deleted) {
  HistoryFile file = opened();
  ASSERT_TRUE(file.add(std::array{event(0, 1s), event(0, 100'000s), event(0, 100'001s), event(0, 100'002s)}));
  const Retention day{std::chrono::days{1}, 1000};
  EXPECT_EQ(file.forget_some(day, wire::WallTime{100'003s}).value(), false);
  EXPECT_THAT(seconds(found(file, {})), ElementsAre(100'000, 100'001, 100'002));
  EXPECT_EQ(file.forget_some({std::chrono::days{1}, 2}, wire::WallTime{100'003s}).value(), false);
  EXPECT_THAT(seconds(found(file, {})), ElementsAre(100'001, 100'002));
}

TEST_F(HistoryFileTest, much_is_deleted_in_several_steps) {
  HistoryFile file = opened();
  ASSERT_TRUE(file.add(std::vector<wire::Event>(25'000, event(0, 1s))));
  int steps = 1;
  while (file.forget_some({std::chrono::days{1}, 10}, wire::WallTime{2s}).value()) ++steps;
  EXPECT_EQ(steps, 3);
  EXPECT_EQ(found(file, {}).size(), 10U);
}

TEST_F(HistoryFileTest, a_newer_version_and_what_is_no_database_are_left_alone) {
  {
    opened();
  }
  sql("PRAGMA user_version = 2");
  const auto newer = HistoryFile::open(path());
  ASSERT_FALSE(newer);
  EXPECT_THAT(newer.error().message, HasSubstr("newer"));

  std::filesystem::remove_all(path());
  std::ofstream{path()} << std::string(4096, 'x');
  const auto garbage = HistoryFile::open(path());
  ASSERT_FALSE(garbage);
  EXPECT_THAT(garbage.error().message, HasSubstr("not a database"));
  EXPECT_EQ(std::filesystem::file_size(path()), 4096U);

  std::filesystem::remove_all(path());
  std::filesystem::create_directory(path());
  EXPECT_FALSE(HistoryFile::open(path()));
  EXPECT_FALSE(HistoryFile::open(directory + "/none/history"));
}

TEST_F(HistoryFileTest, a_read_only_file_is_refused_at_the_start) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root, to become somebody else";
  {
    opened();
  }
  std::filesystem::permissions(directory, std::filesystem::perms{0755});
  ASSERT_EQ(::seteuid(65534), 0);
  const auto file = HistoryFile::open(path());
  ASSERT_EQ(::seteuid(0), 0);
  ASSERT_FALSE(file);
  EXPECT_THAT(file.error().message, HasSubstr("may not be written"));
}

TEST_F(HistoryFileTest, a_table_that_went_is_an_error_of_each_call_and_no_more) {
  HistoryFile file = opened();
  sql("DROP TABLE event");
  EXPECT_FALSE(file.add(std::array{event(0, 1s)}));
  EXPECT_FALSE(file.find({}));
  EXPECT_FALSE(file.forget_some({}, wire::WallTime{2s}));
  sql("CREATE TABLE event(x)");
  EXPECT_FALSE(file.add(std::array{event(0, 1s)}));
}

TEST_F(HistoryFileTest, rows_that_no_message_can_carry_are_left_out_of_answers) {
  {
    HistoryFile file = opened();
    ASSERT_TRUE(file.add(std::array{event(0, 1s), event(0, 2s), event(0, 3s)}));
  }
  sql("UPDATE event SET kind = 200 WHERE at = 1000000000; UPDATE event SET detail = zeroblob(2000000), waited = -1 "
      "WHERE "
      "at = 2000000000");
  History history{path(), {}};
  history.ask({1, 7, {}, std::nullopt});
  pollfd news{history.fd(), POLLIN, 0};
  ASSERT_EQ(::poll(&news, 1, 10'000), 1);
  const auto answers = history.take().answers;
  ASSERT_EQ(answers.size(), 1U);
  EXPECT_FALSE(answers[0].next);
  const auto message = wire::decode_from_broker(answers[0].packet, 0);
  ASSERT_TRUE(message);
  const auto& page = std::get<wire::HistoryAnswer>(message->body);
  ASSERT_EQ(page.events.size(), 1U);
  EXPECT_EQ(page.events[0].at, wire::WallTime{3s});
}

TEST_F(HistoryFileTest, a_gap_is_said_once_and_then_written_down) {
  {
    History history{path(), {}, {.batch = 1ms, .events = 1000}};
    const auto answered = [&history] {  // also: the events before it were written, or not
      history.ask({1, 7, {}, std::nullopt});
      std::vector<std::string> troubles;
      for (bool done = false; !done;) {
        pollfd news{history.fd(), POLLIN, 0};
        if (::poll(&news, 1, 10'000) != 1) break;
        auto heard = history.take();
        done = !heard.answers.empty();
        troubles.insert(troubles.end(), heard.troubles.begin(), heard.troubles.end());
      }
      return troubles;
    };
    EXPECT_THAT(answered(), ElementsAre());
    sql("ALTER TABLE event RENAME TO away");
    history.add(event(0, 1s));
    EXPECT_THAT(answered(), ElementsAre(HasSubstr("has a gap")));
    history.add(event(0, 2s));
    history.add(event(0, 3s));
    EXPECT_THAT(answered(), ElementsAre());
    sql("ALTER TABLE away RENAME TO event");
    history.add(event(0, 4s));
  }
  HistoryFile file = opened();
  const auto rows = found(file, {});
  ASSERT_EQ(rows.size(), 2U);
  EXPECT_EQ(rows[0].event.kind, EventKind::missed);
  EXPECT_THAT(rows[0].event.detail, HasSubstr("3 events"));
  EXPECT_EQ(rows[1].event.at, wire::WallTime{4s});
}

}  // namespace
}  // namespace holdfast::broker
