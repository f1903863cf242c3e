// SPDX-License-Identifier: MIT
// journal_line.cpp - see the header.
#include "broker/journal_line.hpp"

#include "device/node.hpp"

#include <fmt/format.h>
#include <time.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>

namespace holdfast::broker {
namespace {

constexpr std::string_view kNothing = "-";

// FNV-1a with 64 bits: against accidents, not against who may write the file.
std::uint64_t checksum(std::string_view text) {
  std::uint64_t sum = 0xCBF29CE484222325U;
  for (const char byte : text) sum = (sum ^ static_cast<unsigned char>(byte)) * 0x100000001B3U;
  return sum;
}

bool is_plain(char byte) {
  return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') || (byte >= '0' && byte <= '9') ||
         std::string_view{"_./:+"}.contains(byte);
}

void append_escaped(std::string& line, std::string_view text) {
  static constexpr std::string_view kDigits = "0123456789ABCDEF";
  for (const char byte : text) {
    if (is_plain(byte)) {
      line += byte;
      continue;
    }
    const auto value = static_cast<unsigned char>(byte);
    line += '%';
    line += kDigits[value >> 4U];
    line += kDigits[value & 15U];
  }
}

std::optional<std::string> unescaped(std::string_view text) {
  std::string plain;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      if (!is_plain(text[i])) return std::nullopt;
      plain += text[i];
      continue;
    }
    unsigned value = 0;
    const char* const digits = text.data() + i + 1;
    if (text.size() - i < 3 || std::from_chars(digits, digits + 2, value, 16).ptr != digits + 2) return std::nullopt;
    plain += static_cast<char>(value);
    i += 2;
  }
  return plain;
}

/// Takes a line apart, word by word. After the first word that is not what it should be, nothing is.
class Words {
 public:
  explicit Words(std::string_view text) : rest_{text} {}

  std::string_view word() {
    if (is_done_) fits_ = false;
    const auto end = rest_.find(' ');
    const std::string_view taken = rest_.substr(0, end);
    is_done_ = end == std::string_view::npos;
    rest_.remove_prefix(is_done_ ? rest_.size() : end + 1);
    if (taken.empty()) fits_ = false;
    return taken;
  }

  template <class Number>
  Number number() {
    return number_of<Number>(word());
  }

  // One of the words, as its place in the list.
  template <class Choice, std::size_t kCount>
  Choice one_of(const std::array<std::string_view, kCount>& names) {
    const auto found = std::ranges::find(names, word());
    if (found == names.end()) return refuse<Choice>();
    return static_cast<Choice>(found - names.begin());
  }

  std::string string() {
    const std::string_view taken = word();
    if (taken == kNothing) return {};
    auto plain = unescaped(taken);
    return plain ? std::move(*plain) : refuse<std::string>();
  }

  template <class Take>
  void each_of_list(Take&& take) {
    std::string_view list = word();
    if (list == kNothing) return;
    while (fits_) {
      const auto end = list.find(',');
      take(list.substr(0, end));
      if (end == std::string_view::npos) return;
      list.remove_prefix(end + 1);
    }
  }

  template <class Number>
  Number number_of(std::string_view text) {
    Number value{};
    const char* const end = text.data() + text.size();
    const auto [last, error] = std::from_chars(text.data(), end, value);
    return error == std::errc{} && last == end && !text.empty() ? value : refuse<Number>();
  }

  template <class Value>
  Value refuse() {
    fits_ = false;
    return Value{};
  }

  device::DeviceId device(std::string_view text) {
    const auto at = text.find('@');
    auto id = device::parse_number(text.substr(0, at));
    if (!id) return refuse<device::DeviceId>();
    if (at != std::string_view::npos) id->devpts = number_of<dev_t>(text.substr(at + 1));
    // Only as we write it ourselves.
    if (device::to_string(*id) != text || (id->devpts != 0 && !device::is_pseudo_terminal(*id)))
      return refuse<device::DeviceId>();
    return *id;
  }

  [[nodiscard]] bool fit() const { return fits_ && is_done_; }

 private:
  std::string_view rest_;
  bool is_done_ = false;
  bool fits_ = true;
};

constexpr std::array<std::string_view, 2> kModes{"exclusive", "shared"};
constexpr std::array<std::string_view, 2> kScopes{"process", "tree"};
constexpr std::array<std::string_view, 2> kOwners{"speaker", "by_pidfd"};
constexpr std::array<std::string_view, 2> kNamed{"covered", "named"};

std::string_view name_of(const std::array<std::string_view, 2>& names, auto value) {
  return names.at(static_cast<std::size_t>(value));
}

void append_string(std::string& line, std::string_view text) {
  if (text.empty()) line += kNothing;
  append_escaped(line, text);
}

std::string body(const JournalHead& head) {
  std::string line = "holdfast 1 ";
  append_string(line, head.boot);
  fmt::format_to(std::back_inserter(line), " {} {} {}", static_cast<std::uint64_t>(head.epoch), head.token_base,
                 head.next_claim);
  return line;
}

std::string body(const JournalEnd& end) { return fmt::format("end {}", static_cast<std::uint64_t>(end.claim)); }

std::string body(const JournalToken& token) {
  return fmt::format("token {} {}", device::to_string(token.device), static_cast<std::uint64_t>(token.token));
}

std::string body(const JournalClaim& entry) {
  const ClaimRecord& claim = entry.claim;
  std::string line = fmt::format("claim {} {} {} {} {} {} {} ", static_cast<std::uint64_t>(claim.id), claim.owner.pid,
                                 claim.owner.start_ticks, claim.uid, name_of(kModes, claim.mode),
                                 name_of(kScopes, claim.scope), name_of(kOwners, claim.given));
  if (claim.until) fmt::format_to(std::back_inserter(line), "{}", claim.until->time_since_epoch().count());
  if (!claim.until) line += kNothing;
  fmt::format_to(std::back_inserter(line), " {} {} ", claim.since.time_since_epoch().count(),
                 entry.written.time_since_epoch().count());
  const auto list = [&](const auto& members, auto&& append) {
    if (members.empty()) line += kNothing;
    for (bool is_first = true; const auto& member : members) {
      if (!std::exchange(is_first, false)) line += ',';
      append(member);
    }
    line += ' ';
  };
  list(claim.devices, [&](const ClaimRecord::Device& device) {
    fmt::format_to(std::back_inserter(line), "{}={}={}=", device::to_string(device.id),
                   static_cast<std::uint64_t>(device.token), name_of(kNamed, device.named));
    append_string(line, device.path);
  });
  list(claim.lock_files, [&](const std::string& file) { append_string(line, file); });
  append_string(line, claim.purpose);
  return line;
}

JournalHead parse_head(Words& words) {
  if (words.number<int>() != 1) return words.refuse<JournalHead>();
  JournalHead head;
  head.boot = words.string();
  head.epoch = static_cast<wire::Epoch>(words.number<std::uint64_t>());
  head.token_base = words.number<std::uint64_t>();
  head.next_claim = words.number<std::uint64_t>();
  return head;
}

JournalToken parse_token(Words& words) {
  JournalToken token;
  token.device = words.device(words.word());
  token.token = static_cast<arbiter::Token>(words.number<std::uint64_t>());
  return token;
}

ClaimRecord::Device parse_device(Words& words, std::string_view text) {
  const auto next = [&] {
    const auto end = text.find('=');
    if (end == std::string_view::npos) return words.refuse<std::string_view>();
    const std::string_view part = text.substr(0, end);
    text.remove_prefix(end + 1);
    return part;
  };
  ClaimRecord::Device device;
  device.id = words.device(next());
  device.token = static_cast<arbiter::Token>(words.number_of<std::uint64_t>(next()));
  const auto named = std::ranges::find(kNamed, next());
  if (named == kNamed.end()) return words.refuse<ClaimRecord::Device>();
  device.named = named != kNamed.begin();
  auto path = unescaped(text == kNothing ? std::string_view{} : text);
  if (!path) return words.refuse<ClaimRecord::Device>();
  device.path = std::move(*path);
  return device;
}

JournalClaim parse_claim(Words& words) {
  ClaimRecord claim;
  claim.id = static_cast<wire::ClaimId>(words.number<std::uint64_t>());
  claim.owner.pid = words.number<pid_t>();
  claim.owner.start_ticks = words.number<std::uint64_t>();
  claim.uid = words.number<uid_t>();
  claim.mode = words.one_of<Mode>(kModes);
  claim.scope = words.one_of<OwnerScope>(kScopes);
  claim.given = words.one_of<wire::OwnerGiven>(kOwners);
  if (const std::string_view until = words.word(); until != kNothing)
    claim.until = arbiter::Time{arbiter::Duration{words.number_of<std::int64_t>(until)}};
  claim.since = wire::WallTime{std::chrono::nanoseconds{words.number<std::int64_t>()}};
  const wire::WallTime written{std::chrono::nanoseconds{words.number<std::int64_t>()}};
  words.each_of_list([&](std::string_view text) { claim.devices.push_back(parse_device(words, text)); });
  words.each_of_list([&](std::string_view text) {
    auto file = unescaped(text);
    claim.lock_files.push_back(file && !file->empty() ? std::move(*file) : words.refuse<std::string>());
  });
  claim.purpose = words.string();
  if (claim.owner.pid <= 0 || claim.devices.empty()) return words.refuse<JournalClaim>();
  return {std::move(claim), written};
}

}  // namespace

BootClock::time_point BootClock::now() {
  timespec now{};
  ::clock_gettime(CLOCK_BOOTTIME, &now);
  return time_point{std::chrono::seconds{now.tv_sec} + std::chrono::nanoseconds{now.tv_nsec}};
}

std::string journal_text(const JournalLine& line) {
  return with_checksum(std::visit([](const auto& one) { return body(one); }, line)) + '\n';
}

std::string with_checksum(std::string_view content) { return fmt::format("{} #{:016x}", content, checksum(content)); }

std::optional<JournalLine> parse_journal_line(std::string_view text) {
  const auto mark = text.rfind(" #");
  if (mark == std::string_view::npos) return std::nullopt;
  const std::string_view said = text.substr(mark + 2);
  const std::string_view rest = text.substr(0, mark);
  if (fmt::format("{:016x}", checksum(rest)) != said) return std::nullopt;
  Words words{rest};
  const std::string_view kind = words.word();
  std::optional<JournalLine> line;
  if (kind == "holdfast") line = parse_head(words);
  if (kind == "claim") line = parse_claim(words);
  if (kind == "end") line = JournalEnd{static_cast<wire::ClaimId>(words.number<std::uint64_t>())};
  if (kind == "token") line = parse_token(words);
  return words.fit() ? line : std::nullopt;
}

}  // namespace holdfast::broker
