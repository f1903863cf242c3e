// SPDX-License-Identifier: MIT
// history_file.hpp - events in an SQLite file: a table, two indexes, a version. Every call may wait for the disk.
#pragma once

#include "wire/message.hpp"

#include <holdfast/error.hpp>

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

struct sqlite3;
struct sqlite3_stmt;

namespace holdfast::broker {

/// How much is kept: what is older, and what are more rows, is deleted.
struct Retention {
  std::chrono::days age{90};
  std::int64_t rows = 1'000'000;
};

/// Rows from `first` to `last`, both included.
struct Range {
  std::int64_t first = 1;
  std::int64_t last = 0;
};

struct Row {
  std::int64_t id = 0;
  wire::Event event;
};

class HistoryFile {
 public:
  /// Opens or makes it. \returns system_fault for what is not an SQLite file, is damaged or read-only, or was written
  /// by a newer holdfast
  [[nodiscard]] static Result<HistoryFile> open(const std::string& path);

  /// In one transaction: all or none.
  [[nodiscard]] Result<> add(std::span<const wire::Event> events);
  /// Where the newest `query.most` rows that match begin, and the newest row of all; an empty range for none.
  [[nodiscard]] Result<Range> find(const wire::HistoryQuery& query);
  /// The first of the rows in the range that match, oldest first.
  [[nodiscard]] Result<std::vector<Row>> read(const wire::HistoryQuery& query, const Range& range, int most);
  /// Deletes some of what is to be kept no longer; says whether there is more of it.
  [[nodiscard]] Result<bool> forget_some(const Retention& retention, wire::WallTime now);

 private:
  struct CloseDatabase {
    void operator()(sqlite3* database) const noexcept;
  };
  struct FinishStatement {
    void operator()(sqlite3_stmt* statement) const noexcept;
  };
  using Database = std::unique_ptr<sqlite3, CloseDatabase>;
  using Statement = std::unique_ptr<sqlite3_stmt, FinishStatement>;

  HistoryFile(std::string path, Database database);
  [[nodiscard]] Error trouble(std::string_view what) const;
  [[nodiscard]] Result<> run(const char* sql);
  [[nodiscard]] Result<std::int64_t> number(const char* sql);
  [[nodiscard]] Result<Statement> prepare(const std::string& sql);
  [[nodiscard]] Result<> set_up();
  [[nodiscard]] Result<> insert(const wire::Event& event);

  std::string path_;
  Database database_;  // before the statements, which must go first
  Statement begin_;
  Statement insert_;
  Statement commit_;
};

}  // namespace holdfast::broker
