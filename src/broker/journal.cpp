// SPDX-License-Identifier: MIT
// journal.cpp - see the header.
#include "broker/journal.hpp"

#include "base/error.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <optional>

namespace holdfast::broker {
namespace {

constexpr const char* kName = "journal";
constexpr const char* kNewName = "journal.new";
constexpr const char* kBaseName = "token-base";
constexpr const char* kNewBaseName = "token-base.new";

// Half a megabyte costs nobody anything, and takes a millisecond to write anew.
constexpr std::size_t kGrown = std::size_t{1} << 19U;

int write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t put = ::write(fd, text.data(), text.size());
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return errno;
    text.remove_prefix(static_cast<std::size_t>(put));
  }
  return 0;
}

std::optional<std::string> read_all(int directory, const char* name) {
  const base::UniqueFd fd{::openat(directory, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW)};
  if (!fd) return std::nullopt;
  std::string text;
  char buffer[65536];
  while (true) {
    const ssize_t got = ::read(fd.get(), buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return text;
    text.append(buffer, static_cast<std::size_t>(got));
  }
}

base::UniqueFd open_directory(const std::string& path) {
  ::mkdir(path.c_str(), 0755);
  return base::UniqueFd{::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
}

std::string boot_id() {
  const auto text = read_all(AT_FDCWD, "/proc/sys/kernel/random/boot_id");
  return text ? text->substr(0, text->find('\n')) : std::string{};
}

// 2020-01-01: what is counted since then leaves room for every clock.
constexpr std::chrono::sys_seconds kBegin{std::chrono::seconds{1'577'836'800}};
constexpr unsigned kTokensPerSecond = 24;  // as a power of 2
// What a base is raised by when the clock does not raise it: 17 hours of that.
constexpr std::uint64_t kLeap = std::uint64_t{1} << 40U;

std::uint64_t base_by_the_clock() {
  const auto now = std::chrono::floor<std::chrono::seconds>(std::chrono::system_clock::now());
  return static_cast<std::uint64_t>(std::max(now - kBegin, std::chrono::seconds{1}).count()) << kTokensPerSecond;
}

std::uint64_t stored_base(int directory) {
  const auto text = read_all(directory, kBaseName);
  std::uint64_t base = 0;
  if (text) std::from_chars(text->data(), text->data() + text->size(), base);
  return base;
}

// Synced, because it is all that a dead machine has to remember.
void store_base(int directory, std::uint64_t base) {
  const base::UniqueFd fd{::openat(directory, kNewBaseName, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644)};
  if (fd && write_all(fd.get(), fmt::format("{}\n", base)) == 0 && ::fsync(fd.get()) == 0 &&
      ::renameat(directory, kNewBaseName, directory, kBaseName) == 0)
    ::fsync(directory);
}

std::uint64_t new_base(const std::string& lasting) {
  const std::uint64_t by_the_clock = base_by_the_clock();
  if (lasting.empty()) return by_the_clock;
  const base::UniqueFd directory = open_directory(lasting);
  if (!directory) return by_the_clock;
  const std::uint64_t stored = stored_base(directory.get());
  const std::uint64_t base = by_the_clock > stored ? by_the_clock : stored + kLeap;
  store_base(directory.get(), base);
  return base;
}

// An instant as far away on one clock as it is on the other; the end of time stays that.
template <class From, class To>
arbiter::Time on(arbiter::Time until) {
  const arbiter::Duration left = until.time_since_epoch() - From::now().time_since_epoch();
  const arbiter::Duration now = To::now().time_since_epoch();
  return left > arbiter::Duration::max() - now ? arbiter::Time::max() : arbiter::Time{now + left};
}

}  // namespace

Result<Journal> Journal::open(const Places& places, Found& found) {
  Journal journal;
  journal.directory_ = open_directory(places.state);
  if (!journal.directory_) return std::unexpected(base::fault(errno, "state directory", places.state));
  if (::flock(journal.directory_.get(), LOCK_EX | LOCK_NB) != 0)
    return std::unexpected(base::failure(
        errc::refused, fmt::format("another holdfastd uses {}: stop it, or name another --state", places.state), {}));
  const std::string boot = boot_id();
  const auto text = read_all(journal.directory_.get(), kName);
  if (text) journal.read(*text, boot, found);
  // Of a line that was refused nobody knows what it said: tokens may be missing.
  if (journal.head_.boot.empty() || found.refused_lines > 0) journal.count_from_a_new_base(places.lasting, boot);
  journal.head_.epoch = static_cast<wire::Epoch>(static_cast<std::uint64_t>(journal.head_.epoch) + 1);
  for (const auto& [device, token] : journal.tokens_) found.tokens.push_back({device, token});
  if (const int errnum = journal.write_anew(); errnum != 0)
    return std::unexpected(base::fault(errnum, "journal", places.state));
  return journal;
}

void Journal::read(std::string_view text, const std::string& boot, Found& found) {
  std::map<wire::ClaimId, JournalClaim> claims;
  for (std::size_t end = 0; (end = text.find('\n')) != std::string_view::npos; text.remove_prefix(end + 1)) {
    auto line = parse_journal_line(text.substr(0, end));
    const auto* head = line ? std::get_if<JournalHead>(&*line) : nullptr;
    if (head != nullptr && head->boot != boot) return;
    if (head != nullptr) head_ = *head;
    if (head != nullptr) continue;
    // Without its head nobody knows of which boot it is.
    if (!line || head_.boot.empty()) {
      ++found.refused_lines;
    } else if (const auto* token = std::get_if<JournalToken>(&*line)) {
      arbiter::Token& latest = tokens_[token->device];
      latest = std::max(latest, token->token);
    } else if (const auto* over = std::get_if<JournalEnd>(&*line)) {
      claims.erase(over->claim);
    } else if (auto* entry = std::get_if<JournalClaim>(&*line)) {
      remember(entry->claim, {});
      claims.insert_or_assign(entry->claim.id, std::move(*entry));
    }
  }
  claims_.clear();
  for (auto& [id, entry] : claims) {
    claims_.emplace(id, journal_text(entry));
    if (auto& until = entry.claim.until) until = on<BootClock, std::chrono::steady_clock>(*until);
    found.claims.push_back(std::move(entry));
  }
}

// What is found of claims stays; their numbers and tokens go on from where no earlier broker can have come.
void Journal::count_from_a_new_base(const std::string& lasting, const std::string& boot) {
  const std::uint64_t base = new_base(lasting);
  head_ = {boot, static_cast<wire::Epoch>(base), base, base, new_place_key()};
}

void Journal::remember(const ClaimRecord& claim, std::string line) {
  for (const ClaimRecord::Device& device : claim.devices) {
    arbiter::Token& latest = tokens_[device.id];
    latest = std::max(latest, device.token);
  }
  head_.next_claim = std::max(head_.next_claim, static_cast<std::uint64_t>(claim.id) + 1);
  claims_.insert_or_assign(claim.id, std::move(line));
}

void Journal::granted(const ClaimRecord& claim, const claiming::Holding& /*holding*/) { record(claim); }

std::string Journal::line_of(const ClaimRecord& claim) {
  auto until = claim.until;
  if (until) until = on<std::chrono::steady_clock, BootClock>(*until);
  return journal_text(claim, until, std::chrono::system_clock::now());
}

void Journal::record(const ClaimRecord& claim) {
  const std::string line = line_of(claim);
  remember(claim, line);
  append(line);
}

void Journal::passed_on(wire::ClaimId from, const ClaimRecord& to, const claiming::Holding& /*holding*/) {
  std::string line = line_of(to);
  const std::string both = journal_text(JournalEnd{from}) + line;
  claims_.erase(from);
  remember(to, std::move(line));
  append(both);
}

void Journal::ended(wire::ClaimId claim) {
  if (claims_.erase(claim) != 0) append(journal_text(JournalEnd{claim}));
}

// What was remembered before is in the file after it.
void Journal::append(std::string_view line) {
  const bool has_grown = size_ > kGrown && size_ > 4 * size_when_new_;
  if (errnum_ != 0 || has_grown) {
    errnum_ = write_anew();
    if (errnum_ == 0) return;
  }
  const ssize_t put = ::write(file_.get(), line.data(), line.size());
  if (put == static_cast<ssize_t>(line.size())) {
    size_ += line.size();
    return;
  }
  errnum_ = put < 0 ? errno : ENOSPC;
  // Half a line would spoil the next one.
  if (put > 0 && ::ftruncate(file_.get(), static_cast<off_t>(size_)) != 0) errnum_ = errno;
}

int Journal::write_anew() {
  std::string text = journal_text(head_);
  for (const auto& [device, token] : tokens_) text += journal_text(JournalToken{device, token});
  for (const auto& [id, line] : claims_) text += line;
  base::UniqueFd file{
      ::openat(directory_.get(), kNewName, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600)};
  if (!file) return errno;
  if (const int errnum = write_all(file.get(), text); errnum != 0) {
    ::unlinkat(directory_.get(), kNewName, 0);
    return errnum;
  }
  if (::renameat(directory_.get(), kNewName, directory_.get(), kName) != 0) return errno;
  file_ = std::move(file);
  size_ = size_when_new_ = text.size();
  return 0;
}

}  // namespace holdfast::broker
