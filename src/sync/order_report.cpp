// SPDX-License-Identifier: MIT
// One block: what it is and what it leads to on the first line, then each acquisition with its stack.
#include "sync/order_report.hpp"

#include <charconv>
#include <cstring>
#include <string_view>

namespace holdfast::sync::order {

namespace {

class Lines {
 public:
  explicit Lines(std::span<char> to) noexcept : to_{to} {}

  Lines& operator<<(std::string_view text) noexcept {
    for (const char byte : text) {
      if (used_ == to_.size()) return *this;
      // Names come from a file that others may write: nothing of it may steer a terminal.
      const auto value = static_cast<unsigned char>(byte);
      to_[used_++] = value < ' ' && byte != '\n' ? '?' : value == 0x7f ? '?' : byte;
    }
    return *this;
  }
  Lines& operator<<(std::uint64_t number) noexcept { return put(number, 10); }
  Lines& hex(std::uint64_t number) noexcept {
    *this << "0x";
    return put(number, 16);
  }
  [[nodiscard]] std::size_t used() const noexcept { return used_; }

 private:
  Lines& put(std::uint64_t number, int base) noexcept {
    char digits[24];
    const auto end = std::to_chars(digits, digits + sizeof digits, number, base).ptr;
    return *this << std::string_view{digits, static_cast<std::size_t>(end - digits)};
  }

  std::span<char> to_;
  std::size_t used_ = 0;
};

std::string_view text_of(How how) noexcept {
  switch (how) {
    case How::exclusive:
      return "exclusively";
    case How::counted:
      return "as one of several units";
    case How::shared:
      return "shared";
    case How::recursive_shared:
      return "shared, recursively";
  }
  return "";
}

void write(Lines& lines, const Frame& frame) noexcept {
  if (frame.module != nullptr) lines << frame.module << "+";
  lines.hex(frame.offset);
  if (frame.symbol != nullptr) (lines << " (" << frame.symbol << "+").hex(frame.into) << ")";
}

void write_headline(Lines& lines, const Report& report) noexcept {
  const std::span<const Acquisition> all = report.acquisitions;
  const auto wanted = [&](std::size_t i) { return i < all.size() ? all[i].wanted : "?"; };
  lines << "holdfast: ";
  switch (report.kind) {
    case Report::Kind::inversion:
      lines << "lock order inversion: \"" << wanted(0) << "\" is taken under \"";
      lines << (all.empty() || all[0].held == nullptr ? "?" : all[0].held);
      lines << "\", the reverse of what was seen before; threads that do both can deadlock\n";
      return;
    case Report::Kind::recursion:
      lines << "recursion: a \"" << wanted(0) << "\" is taken by the thread that holds it; it would wait for itself\n";
      return;
    case Report::Kind::nesting:
      lines << "nesting: a second \"" << wanted(0) << "\" is taken under the first, in no known order; "
            << "threads that take the two the other way round can deadlock\n";
      return;
    case Report::Kind::signal_unsafe:
      lines << "signal-unsafe lock: \"" << wanted(0) << "\" is taken in a handler of signal "
            << static_cast<unsigned>(report.signal)
            << " and elsewhere while that can come; a handler that interrupts the holder deadlocks\n";
      return;
    case Report::Kind::signal_inversion:
      lines << "signal-unsafe lock order: a handler of signal " << static_cast<unsigned>(report.signal) << " takes \""
            << wanted(0) << "\", whose holder may wait for \"" << wanted(1)
            << "\", whose holder the handler can interrupt; together they deadlock\n";
      return;
    case Report::Kind::full:
      lines << "lock order validation is incomplete from now on: " << (report.limit != nullptr ? report.limit : "full")
            << "\n";
      return;
  }
}

}  // namespace

std::size_t write_report(const Report& report, std::span<char> to) noexcept {
  Lines lines{to};
  write_headline(lines, report);
  bool first = true;
  for (const Acquisition& one : report.acquisitions) {
    const bool signals = report.kind == Report::Kind::signal_unsafe || report.kind == Report::Kind::signal_inversion;
    const bool has_now = report.kind != Report::Kind::full && !signals;
    lines << (first && has_now ? "  now, " : "  seen, ") << (one.program != nullptr ? one.program : "?") << "["
          << static_cast<unsigned>(one.process) << "] thread " << static_cast<unsigned>(one.thread) << ": \""
          << (one.wanted != nullptr ? one.wanted : "?") << "\" taken " << text_of(one.wanted_how);
    if (one.held != nullptr) {
      lines << " under \"" << one.held << "\" held " << text_of(one.held_how) << " since ";
      write(lines, one.held_at);
    }
    lines << (signals ? first ? ", in the handler\n" : ", where the signal can come\n" : "\n");
    for (const Frame& frame : one.stack) {
      lines << "    ";
      write(lines, frame);
      lines << "\n";
    }
    if (one.stack.empty()) lines << "    (stack not recorded)\n";
    first = false;
  }
  if (report.left_out != 0) lines << "  and " << report.left_out << " more orders between\n";
  return lines.used();
}

std::string to_string(const Report& report) {
  std::string text(32 * 1024, '\0');
  text.resize(write_report(report, text));
  return text;
}

}  // namespace holdfast::sync::order
