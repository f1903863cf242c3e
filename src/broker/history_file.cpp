// SPDX-License-Identifier: MIT
// history_file.cpp - the only file that speaks SQL. The write-ahead log lets others read while we write, and asks the
// disk to settle at checkpoints alone (sqlite.org/wal.html): a power failure may take the last seconds, a kill nothing.
#include "broker/history_file.hpp"

#include "base/error.hpp"

#include <fmt/format.h>
#include <sqlite3.h>

#include <limits>

namespace holdfast::broker {
namespace {

constexpr std::int64_t kSchema = 1;
constexpr int kDeletedAtOnce = 10'000;

constexpr const char* kTables =
    "CREATE TABLE event(id INTEGER PRIMARY KEY, at INTEGER NOT NULL, kind INTEGER NOT NULL,"
    " path TEXT NOT NULL, node INTEGER NOT NULL, major INTEGER NOT NULL, minor INTEGER NOT NULL,"
    " devpts INTEGER NOT NULL, mode INTEGER NOT NULL, pid INTEGER NOT NULL, start INTEGER NOT NULL,"
    " command TEXT NOT NULL, user TEXT NOT NULL, since INTEGER, purpose TEXT NOT NULL, means TEXT NOT NULL,"
    " waited INTEGER NOT NULL, held INTEGER NOT NULL, detail TEXT NOT NULL);"
    "CREATE INDEX event_device ON event(node, major, minor, devpts, id);"
    "CREATE INDEX event_at ON event(at);"
    "PRAGMA user_version = 1;";
constexpr const char* kColumns =
    "id, at, kind, path, node, major, minor, devpts, mode, pid, start, command, user, since, purpose, means, waited, "
    "held, detail";

// Statements take their arguments in order.
class Arguments {
 public:
  explicit Arguments(sqlite3_stmt* statement) : statement_{statement} { sqlite3_reset(statement); }
  void operator()(std::int64_t value) { sqlite3_bind_int64(statement_, ++last_, value); }
  /// Borrowed until the statement ran.
  void operator()(const std::string& text) {
    sqlite3_bind_text(statement_, ++last_, text.data(), static_cast<int>(text.size()), SQLITE_STATIC);
  }
  void nothing() { sqlite3_bind_null(statement_, ++last_); }

 private:
  sqlite3_stmt* statement_;
  int last_ = 0;
};

class Columns {
 public:
  explicit Columns(sqlite3_stmt* statement) : statement_{statement} {}
  std::int64_t number() { return sqlite3_column_int64(statement_, next_++); }
  std::string text() {
    const auto* const bytes = reinterpret_cast<const char*>(sqlite3_column_text(statement_, next_));
    const auto size = static_cast<std::size_t>(sqlite3_column_bytes(statement_, next_));
    ++next_;
    return bytes != nullptr ? std::string{bytes, size} : std::string{};
  }
  std::optional<std::int64_t> maybe() {
    const bool null = sqlite3_column_type(statement_, next_) == SQLITE_NULL;
    const std::int64_t value = number();
    return null ? std::nullopt : std::optional{value};
  }

 private:
  sqlite3_stmt* statement_;
  int next_ = 0;
};

std::string joined(const std::vector<std::string>& lines) { return fmt::format("{}", fmt::join(lines, "\n")); }

std::vector<std::string> split(std::string_view lines) {
  std::vector<std::string> all;
  while (!lines.empty()) {
    const auto end = lines.find('\n');
    all.emplace_back(lines.substr(0, end));
    lines.remove_prefix(end == std::string_view::npos ? lines.size() : end + 1);
  }
  return all;
}

// A file that somebody else wrote into may hold anything; what no message could carry falls out when it is encoded.
Row row_of(sqlite3_stmt* statement) {
  Columns column{statement};
  Row row;
  row.id = column.number();
  wire::Event& event = row.event;
  event.at = wire::WallTime{wire::Duration{column.number()}};
  event.kind = static_cast<wire::EventKind>(column.number());
  event.device.path = column.text();
  event.device.kind = static_cast<wire::NodeKind>(column.number());
  event.device.major = static_cast<std::uint32_t>(column.number());
  event.device.minor = static_cast<std::uint32_t>(column.number());
  event.device.devpts = static_cast<std::uint64_t>(column.number());
  event.mode = static_cast<Mode>(column.number());
  event.who.pid = static_cast<pid_t>(column.number());
  event.who.start_ticks = static_cast<std::uint64_t>(column.number());
  event.who.command = column.text();
  event.who.user = column.text();
  if (const auto since = column.maybe())
    event.who.since = std::chrono::system_clock::time_point{std::chrono::nanoseconds{*since}};
  event.who.purpose = column.text();
  event.who.means = split(column.text());
  event.waited = wire::Duration{column.number()};
  event.held = wire::Duration{column.number()};
  event.detail = column.text();
  return row;
}

// " AND at >= ? AND (node, ...) IN (VALUES ...)", as far as the query says so.
std::string condition(const wire::HistoryQuery& query) {
  std::string sql = query.since ? " AND at >= ?" : "";
  if (query.devices.empty()) return sql;
  sql += " AND (node, major, minor, devpts) IN (VALUES ";
  for (std::size_t i = 0; i < query.devices.size(); ++i) sql += i == 0 ? "(?, ?, ?, ?)" : ", (?, ?, ?, ?)";
  return sql + ")";
}

void bind_condition(Arguments& bind, const wire::HistoryQuery& query) {
  if (query.since) bind(query.since->time_since_epoch().count());
  for (const wire::DeviceName& device : query.devices) {
    bind(static_cast<std::int64_t>(device.kind));
    bind(device.major);
    bind(device.minor);
    bind(static_cast<std::int64_t>(device.devpts));
  }
}

}  // namespace

void HistoryFile::CloseDatabase::operator()(sqlite3* database) const noexcept { sqlite3_close_v2(database); }
void HistoryFile::FinishStatement::operator()(sqlite3_stmt* statement) const noexcept { sqlite3_finalize(statement); }

HistoryFile::HistoryFile(std::string path, Database database)
    : path_{std::move(path)}, database_{std::move(database)} {}

Error HistoryFile::trouble(std::string_view what) const {
  return base::failure(errc::system_fault, fmt::format("{}: {}: {}", path_, what, sqlite3_errmsg(database_.get())), "");
}

Result<HistoryFile> HistoryFile::open(const std::string& path) {
  sqlite3* opened = nullptr;
  const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
  const int status = sqlite3_open_v2(path.c_str(), &opened, flags, nullptr);
  HistoryFile file{path, Database{opened}};
  if (status != SQLITE_OK) return std::unexpected{file.trouble("open")};
  if (const auto done = file.set_up(); !done) return std::unexpected{done.error()};
  return file;
}

Result<> HistoryFile::run(const char* sql) {
  if (sqlite3_exec(database_.get(), sql, nullptr, nullptr, nullptr) != SQLITE_OK)
    return std::unexpected{trouble("write")};
  return {};
}

Result<HistoryFile::Statement> HistoryFile::prepare(const std::string& sql) {
  sqlite3_stmt* statement = nullptr;
  const int status =
      sqlite3_prepare_v2(database_.get(), sql.c_str(), static_cast<int>(sql.size()), &statement, nullptr);
  if (status != SQLITE_OK) return std::unexpected{trouble("prepare")};
  return Statement{statement};
}

Result<std::int64_t> HistoryFile::number(const char* sql) {
  auto statement = prepare(sql);
  if (!statement) return std::unexpected{statement.error()};
  if (sqlite3_step(statement->get()) != SQLITE_ROW) return std::unexpected{trouble("read")};
  return sqlite3_column_int64(statement->get(), 0);
}

Result<> HistoryFile::set_up() {
  sqlite3_busy_timeout(database_.get(), 2000);  // somebody looks into it with sqlite3(1)
  if (sqlite3_db_readonly(database_.get(), "main") == 1)
    return std::unexpected{base::failure(errc::system_fault, path_ + ": may not be written", "")};
  const auto schema = number("PRAGMA user_version");
  if (!schema) return std::unexpected{schema.error()};
  if (*schema > kSchema) {
    return std::unexpected{base::failure(
        errc::system_fault, fmt::format("{}: written by a newer holdfast (version {})", path_, *schema), "")};
  }
  if (const auto done =
          run("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA journal_size_limit = 16777216;"
              "PRAGMA cell_size_check = ON; PRAGMA trusted_schema = OFF;");
      !done) {
    return done;
  }
  if (*schema == 0) {
    if (auto done = run("BEGIN IMMEDIATE"); !done) return done;
    if (auto done = run(kTables); !done) return done;
    if (auto done = run("COMMIT"); !done) return done;
  }
  const std::string insert = fmt::format(
      "INSERT INTO event({}) VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", kColumns);
  for (const auto& [statement, sql] :
       {std::pair{&begin_, std::string{"BEGIN IMMEDIATE"}}, {&insert_, insert}, {&commit_, std::string{"COMMIT"}}}) {
    auto prepared = prepare(sql);
    if (!prepared) return std::unexpected{prepared.error()};
    *statement = std::move(*prepared);
  }
  return {};
}

Result<> HistoryFile::insert(const wire::Event& event) {
  const std::string means = joined(event.who.means);
  Arguments bind{insert_.get()};
  bind(event.at.time_since_epoch().count());
  bind(static_cast<std::int64_t>(event.kind));
  bind(event.device.path);
  bind(static_cast<std::int64_t>(event.device.kind));
  bind(event.device.major);
  bind(event.device.minor);
  bind(static_cast<std::int64_t>(event.device.devpts));
  bind(static_cast<std::int64_t>(event.mode));
  bind(event.who.pid);
  bind(static_cast<std::int64_t>(event.who.start_ticks));
  bind(event.who.command);
  bind(event.who.user);
  if (event.who.since)
    bind(std::chrono::duration_cast<std::chrono::nanoseconds>(event.who.since->time_since_epoch()).count());
  else
    bind.nothing();
  bind(event.who.purpose);
  bind(means);
  bind(event.waited.count());
  bind(event.held.count());
  bind(event.detail);
  const int status = sqlite3_step(insert_.get());
  if (status != SQLITE_DONE) return std::unexpected{trouble("write")};
  return {};
}

Result<> HistoryFile::add(std::span<const wire::Event> events) {
  const auto step = [this](const Statement& statement) -> Result<> {
    const int status = sqlite3_step(statement.get());
    Result<> result;
    if (status != SQLITE_DONE) result = std::unexpected{trouble("write")};
    sqlite3_reset(statement.get());
    return result;
  };
  Result<> result = step(begin_);
  if (!result) return result;
  for (const wire::Event& event : events) {
    result = insert(event);
    if (!result) break;
  }
  sqlite3_reset(insert_.get());
  sqlite3_clear_bindings(insert_.get());
  if (result) result = step(commit_);
  if (!result) (void)run("ROLLBACK");  // an answer of "no transaction" is as good
  return result;
}

Result<Range> HistoryFile::find(const wire::HistoryQuery& query) {
  const auto statement = prepare(fmt::format(
      "SELECT min(id), max(id) FROM (SELECT id FROM event WHERE 1{} ORDER BY id DESC LIMIT ?)", condition(query)));
  if (!statement) return std::unexpected{statement.error()};
  Arguments bind{statement->get()};
  bind_condition(bind, query);
  bind(query.most);
  if (sqlite3_step(statement->get()) != SQLITE_ROW) return std::unexpected{trouble("read")};
  if (sqlite3_column_type(statement->get(), 0) == SQLITE_NULL) return Range{};
  return Range{sqlite3_column_int64(statement->get(), 0), sqlite3_column_int64(statement->get(), 1)};
}

Result<std::vector<Row>> HistoryFile::read(const wire::HistoryQuery& query, const Range& range, int most) {
  const auto statement = prepare(
      fmt::format("SELECT {} FROM event WHERE id BETWEEN ? AND ?{} ORDER BY id LIMIT ?", kColumns, condition(query)));
  if (!statement) return std::unexpected{statement.error()};
  Arguments bind{statement->get()};
  bind(range.first);
  bind(range.last);
  bind_condition(bind, query);
  bind(most);
  std::vector<Row> rows;
  int status = 0;
  while ((status = sqlite3_step(statement->get())) == SQLITE_ROW) rows.push_back(row_of(statement->get()));
  if (status != SQLITE_DONE) return std::unexpected{trouble("read")};
  return rows;
}

Result<bool> HistoryFile::forget_some(const Retention& retention, wire::WallTime now) {
  const auto newest = number("SELECT coalesce(max(id), 0) FROM event");
  if (!newest) return std::unexpected{newest.error()};
  const std::int64_t oldest_at = (now - retention.age).time_since_epoch().count();
  const auto statement = prepare(
      "DELETE FROM event WHERE id IN (SELECT id FROM event WHERE id <= ?1 UNION SELECT id FROM event WHERE at < ?2"
      " LIMIT ?3)");
  if (!statement) return std::unexpected{statement.error()};
  Arguments bind{statement->get()};
  bind(*newest - retention.rows);
  bind(oldest_at);
  bind(kDeletedAtOnce);
  if (sqlite3_step(statement->get()) != SQLITE_DONE) return std::unexpected{trouble("write")};
  return sqlite3_changes(database_.get()) == kDeletedAtOnce;
}

}  // namespace holdfast::broker
