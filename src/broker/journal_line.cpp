// SPDX-License-Identifier: MIT
// journal_line.cpp - see the header.
#include "broker/journal_line.hpp"

#include "device/node.hpp"

#include <fmt/format.h>
#include <time.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <concepts>
#include <limits>
#include <ranges>
#include <utility>

namespace holdfast::broker {
namespace {

constexpr std::string_view kNothing = "-";
constexpr std::size_t kUsualLine = 512;  // bytes that are enough for most claims

// FNV-1a with 64 bits: against accidents, not against who may write the file.
std::uint64_t checksum(std::string_view text) {
  std::uint64_t sum = 0xCBF29CE484222325U;
  for (const char byte : text) sum = (sum ^ static_cast<unsigned char>(byte)) * 0x100000001B3U;
  return sum;
}

// A table, and numbers without fmt: between a release and the next one's grant nothing takes as long as this line.
constexpr std::array<bool, 256> kPlain = [] {
  std::array<bool, 256> plain{};
  for (const char byte : std::string_view{"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./:+"})
    plain.at(static_cast<unsigned char>(byte)) = true;
  return plain;
}();

bool is_plain(char byte) { return kPlain[static_cast<unsigned char>(byte)]; }

void append_escaped(std::string& line, std::string_view text) {
  static constexpr std::string_view kDigits = "0123456789ABCDEF";
  while (!text.empty()) {
    const auto plain = static_cast<std::size_t>(std::ranges::find_if_not(text, is_plain) - text.begin());
    line += text.substr(0, plain);
    text.remove_prefix(plain);
    if (text.empty()) return;
    const auto value = static_cast<unsigned char>(text.front());
    line += '%';
    line += kDigits[value >> 4U];
    line += kDigits[value & 15U];
    text.remove_prefix(1);
  }
}

template <std::integral Number>
void append_number(std::string& line, Number number, char after) {
  std::array<char, std::numeric_limits<Number>::digits10 + 3> digits;
  line.append(digits.data(), std::to_chars(digits.data(), digits.data() + digits.size(), number).ptr);
  line += after;
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
    return Value();
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

  [[nodiscard]] bool is_done() const { return is_done_; }
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

unsigned bits_of(ConventionSet set) {
  unsigned bits = 0;
  for (int i = 0; i < kConventionCount; ++i) bits |= set.contains(static_cast<Convention>(i)) ? 1U << i : 0U;
  return bits;
}

ConventionSet conventions_of(unsigned bits) {
  ConventionSet set;
  for (int i = 0; i < kConventionCount; ++i)
    if ((bits & 1U << i) != 0) set = set.with(static_cast<Convention>(i));
  return set;
}

void append_owner_given(std::string& line, const ClaimRecord& claim) {
  line += name_of(kOwners, claim.given);
  line += claim.given == wire::OwnerGiven::by_pidfd ? ':' : ' ';
  if (claim.given != wire::OwnerGiven::by_pidfd) return;
  append_number(line, claim.asked.by.pid, ':');
  append_number(line, claim.asked.by.start_ticks, ':');
  append_number(line, bits_of(claim.asked.conventions), ':');
  append_number(line, static_cast<unsigned>(claim.asked.opening), ' ');
}

void parse_owner_given(Words& words, ClaimRecord& claim) {
  std::string_view rest = words.word();
  const auto next = [&rest] {
    const auto end = rest.find(':');
    const std::string_view part = rest.substr(0, end);
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
    return part;
  };
  const auto known = std::ranges::find(kOwners, next());
  if (known == kOwners.end()) return words.refuse<void>();
  claim.given = static_cast<wire::OwnerGiven>(known - kOwners.begin());
  if (claim.given != wire::OwnerGiven::by_pidfd) return rest.empty() ? void() : words.refuse<void>();
  claim.asked.by.pid = words.number_of<pid_t>(next());
  claim.asked.by.start_ticks = words.number_of<std::uint64_t>(next());
  claim.asked.conventions = conventions_of(words.number_of<unsigned>(next()));
  const auto opening = words.number_of<unsigned>(next());
  if (opening > static_cast<unsigned>(Opening::never) || !rest.empty()) return words.refuse<void>();
  claim.asked.opening = static_cast<Opening>(opening);
}

void append_string(std::string& line, std::string_view text) {
  if (text.empty()) line += kNothing;
  append_escaped(line, text);
}

std::string body(const JournalHead& head) {
  std::string line = "holdfast 1 ";
  append_string(line, head.boot);
  fmt::format_to(std::back_inserter(line), " {} {} {} {} {}", static_cast<std::uint64_t>(head.epoch), head.token_base,
                 head.next_claim, head.place_key[0], head.place_key[1]);
  return line;
}

std::string body(const JournalEnd& end) { return "end " + std::to_string(static_cast<std::uint64_t>(end.claim)); }

std::string body(const JournalToken& token) {
  return fmt::format("token {} {}", device::to_string(token.device), static_cast<std::uint64_t>(token.token));
}

std::string body(const ClaimRecord& claim, std::optional<arbiter::Time> until, wire::WallTime written) {
  std::string line;
  line.reserve(kUsualLine);
  line += "claim ";
  append_number(line, static_cast<std::uint64_t>(claim.id), ' ');
  append_number(line, claim.owner.pid, ' ');
  append_number(line, claim.owner.start_ticks, ' ');
  append_number(line, claim.uid, ' ');
  line.append(name_of(kModes, claim.mode)).append(1, ' ');
  line.append(name_of(kScopes, claim.scope)).append(1, ' ');
  append_owner_given(line, claim);
  if (until)
    append_number(line, until->time_since_epoch().count(), ' ');
  else
    line.append(kNothing).append(1, ' ');
  append_number(line, claim.since.time_since_epoch().count(), ' ');
  append_number(line, written.time_since_epoch().count(), ' ');
  const auto list = [&](const auto& members, auto&& append) {
    if (members.empty()) line += kNothing;
    for (bool is_first = true; const auto& member : members) {
      if (!std::exchange(is_first, false)) line += ',';
      append(member);
    }
    line += ' ';
  };
  list(claim.devices, [&](const ClaimRecord::Device& device) {
    line.append(device::to_string(device.id)).append(1, '=');
    append_number(line, static_cast<std::uint64_t>(device.token), '=');
    line.append(name_of(kNamed, device.named)).append(1, '=');
    append_string(line, device.path);
  });
  list(claim.lock_files, [&](const std::string& file) { append_string(line, file); });
  append_string(line, claim.purpose);
  if (!claim.enforced) return line;
  const guard::Enforced& told = *claim.enforced;
  fmt::format_to(std::back_inserter(line), " {}:{} {}:{} ", told.owner.tgid, told.owner.start, told.root.tgid,
                 told.root.start);
  if (told.until) fmt::format_to(std::back_inserter(line), "{} ", told.until->time_since_epoch().count());
  if (!told.until) line += "- ";
  list(told.devices, [&](const hf_guard_device& key) { line += device::to_string(guard::id_of(key)); });
  line.pop_back();
  return line;
}

JournalHead parse_head(Words& words) {
  if (words.number<int>() != 1) return words.refuse<JournalHead>();
  JournalHead head;
  head.boot = words.string();
  head.epoch = static_cast<wire::Epoch>(words.number<std::uint64_t>());
  head.token_base = words.number<std::uint64_t>();
  head.next_claim = words.number<std::uint64_t>();
  for (std::uint64_t& half : head.place_key) half = words.number<std::uint64_t>();
  return head;
}

JournalToken parse_token(Words& words) {
  JournalToken token;
  token.device = words.device(words.word());
  token.token = static_cast<arbiter::Token>(words.number<std::uint64_t>());
  return token;
}

hf_guard_process parse_guarded_process(Words& words) {
  const std::string_view text = words.word();
  const auto colon = std::min(text.find(':'), text.size());
  hf_guard_process process{};
  process.tgid = words.number_of<std::uint32_t>(text.substr(0, colon));
  process.start = words.number_of<std::uint64_t>(text.substr(std::min(colon + 1, text.size())));
  return process;
}

guard::Enforced parse_enforced(Words& words) {
  guard::Enforced told;
  told.owner = parse_guarded_process(words);
  told.root = parse_guarded_process(words);
  if (const std::string_view until = words.word(); until != kNothing)
    told.until = guard::BootClock::time_point{std::chrono::nanoseconds{words.number_of<std::int64_t>(until)}};
  words.each_of_list([&](std::string_view text) { told.devices.push_back(guard::key_of(words.device(text))); });
  return told;
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
  parse_owner_given(words, claim);
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
  if (!words.is_done()) claim.enforced = parse_enforced(words);
  if (claim.owner.pid <= 0 || claim.devices.empty()) return words.refuse<JournalClaim>();
  return {std::move(claim), written};
}

// As {:016x}.
void append_checksum(std::string& line) {
  static constexpr std::string_view kDigits = "0123456789abcdef";
  std::uint64_t rest = checksum(line);
  std::array<char, 16> digits;
  for (char& digit : digits | std::views::reverse) digit = kDigits[std::exchange(rest, rest >> 4U) & 15U];
  line.append(" #").append(digits.data(), digits.size());
}

std::string ended(std::string line) {
  append_checksum(line);
  line += '\n';
  return line;
}

}  // namespace

BootClock::time_point BootClock::now() {
  timespec now{};
  ::clock_gettime(CLOCK_BOOTTIME, &now);
  return time_point{std::chrono::seconds{now.tv_sec} + std::chrono::nanoseconds{now.tv_nsec}};
}

std::string journal_text(const JournalLine& line) {
  return std::visit([](const auto& one) { return journal_text(one); }, line);
}
std::string journal_text(const JournalHead& head) { return ended(body(head)); }
std::string journal_text(const JournalClaim& entry) {
  return journal_text(entry.claim, entry.claim.until, entry.written);
}
std::string journal_text(const ClaimRecord& claim, std::optional<arbiter::Time> until, wire::WallTime written) {
  return ended(body(claim, until, written));
}
std::string journal_text(const JournalEnd& end) { return ended(body(end)); }
std::string journal_text(const JournalToken& token) { return ended(body(token)); }

std::string with_checksum(std::string_view content) {
  std::string line{content};
  append_checksum(line);
  return line;
}

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
