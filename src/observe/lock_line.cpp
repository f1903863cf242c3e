// SPDX-License-Identifier: MIT
// lock_line.cpp - one line of /proc/locks. The format is the kernel's lock_get_status() in fs/locks.c: words of varying
// padding, so it is taken apart by words and never by columns:
//   "12: -> POSIX  ADVISORY  WRITE 4711 00:05:123 0 EOF"
#include "observe/observe.hpp"

#include <sys/sysmacros.h>

#include <charconv>

namespace holdfast::observe {
namespace {

constexpr std::string_view kBlank = " \t\r\n";

std::string_view next_word(std::string_view& rest) {
  const auto start = std::min(rest.find_first_not_of(kBlank), rest.size());
  const auto end = std::min(rest.find_first_of(kBlank, start), rest.size());
  const std::string_view word = rest.substr(start, end - start);
  rest.remove_prefix(end);
  return word;
}

// The whole word and nothing else is the number.
template <class Number>
bool read_number(std::string_view word, Number& number, int radix = 10) {
  const auto [end, wrong] = std::from_chars(word.data(), word.data() + word.size(), number, radix);
  return wrong == std::errc{} && end == word.data() + word.size() && !word.empty();
}

LockLine::Kind kind_of(std::string_view word) {
  if (word == "FLOCK") return LockLine::Kind::flock;
  if (word == "POSIX") return LockLine::Kind::posix;
  if (word == "OFDLCK") return LockLine::Kind::ofd;
  if (word == "LEASE" || word == "DELEG") return LockLine::Kind::lease;
  return LockLine::Kind::other;
}

// "fd:01:4711": hexadecimal major and minor as the kernel packs them (12 and 20 bits), decimal inode.
std::optional<device::InodeId> read_inode(std::string_view word) {
  const auto first = word.find(':');
  const auto second = first == std::string_view::npos ? first : word.find(':', first + 1);
  if (second == std::string_view::npos) return std::nullopt;
  unsigned high = 0;
  unsigned low = 0;
  device::InodeId inode;
  if (!read_number(word.substr(0, first), high, 16) || high > 0xFFF) return std::nullopt;
  if (!read_number(word.substr(first + 1, second - first - 1), low, 16) || low > 0xFFFFF) return std::nullopt;
  if (!read_number(word.substr(second + 1), inode.ino)) return std::nullopt;
  inode.dev = makedev(high, low);
  return inode;
}

}  // namespace

std::optional<LockLine> parse_lock_line(std::string_view line) {
  const std::string_view number = next_word(line);
  std::uint64_t ordinal = 0;
  if (!number.ends_with(':') || !read_number(number.substr(0, number.size() - 1), ordinal)) return std::nullopt;
  LockLine lock;
  std::string_view word = next_word(line);
  if (word == "->") {
    lock.blocked = true;
    word = next_word(line);
  }
  if (word.empty()) return std::nullopt;
  lock.kind = kind_of(word);
  next_word(line);  // ADVISORY, MANDATORY, ACTIVE, BREAKING...
  word = next_word(line);
  if (word != "READ" && word != "WRITE" && word != "UNLCK" && word != "NONE" && word != "RW") return std::nullopt;
  lock.write = word == "WRITE" || word == "RW";
  if (!read_number(next_word(line), lock.pid)) return std::nullopt;
  const auto inode = read_inode(next_word(line));
  if (!inode) return std::nullopt;
  lock.inode = *inode;
  return lock;
}

}  // namespace holdfast::observe
