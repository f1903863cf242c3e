// SPDX-License-Identifier: MIT
// error.cpp - the one place where an errno becomes an answer. The words follow errno(3); the classes follow the
// question a caller asks next: wait, fix the argument, ask for permission, or report.
#include "base/error.hpp"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cerrno>
#include <cstring>

namespace holdfast {
namespace {

class Category final : public std::error_category {
 public:
  [[nodiscard]] const char* name() const noexcept override { return "holdfast"; }
  [[nodiscard]] std::string message(int value) const override {
    switch (static_cast<errc>(value)) {
      case errc::refused:
        return "held by somebody else";
      case errc::timed_out:
        return "still held by somebody else at the deadline";
      case errc::interrupted:
        return "interrupted by a signal";
      case errc::not_permitted:
        return "not permitted";
      case errc::no_such_device:
        return "no such device";
      case errc::not_a_device:
        return "not a device";
      case errc::gone:
        return "the device is gone";
      case errc::not_held:
        return "not held by this process";
      case errc::invalid_argument:
        return "invalid argument";
      case errc::ambiguous:
        return "the names of the drive cannot be told apart";
      case errc::no_resources:
        return "out of resources";
      case errc::system_fault:
        return "a system call failed";
      case errc::deadlock:
        return "the wait would never end";
      case errc::revoked:
        return "taken back by an administrator";
      case errc::lapsed:
        return "the claim's time is over";
    }
    return "unknown";
  }
};

}  // namespace

const std::error_category& error_category() noexcept {
  static const Category category;
  return category;
}

std::error_code make_error_code(errc code) noexcept { return {static_cast<int>(code), error_category()}; }

std::string to_string(const Holder& holder) {
  std::string text = holder.command.empty() ? std::string{"process"} : base::printable(holder.command, 32);
  text += holder.pid > 0 ? fmt::format("[{}]", holder.pid) : std::string{"[?]"};
  if (holder.since) {
    const std::time_t when = std::chrono::system_clock::to_time_t(*holder.since);
    std::tm local{};
    ::localtime_r(&when, &local);
    const bool today = std::chrono::system_clock::now() - *holder.since < std::chrono::hours{20};
    text += today ? fmt::format(" since {:%H:%M:%S}", local) : fmt::format(" since {:%F %H:%M}", local);
  }
  if (!holder.means.empty())
    text += fmt::format(" ({})", base::printable(fmt::format("{}", fmt::join(holder.means, ", "))));
  return text;
}

}  // namespace holdfast

namespace holdfast::base {

errc errc_from_errno(int errnum) noexcept {
  switch (errnum) {
    case EACCES:
    case EPERM:
    case EROFS:
      return errc::not_permitted;
    case ENOENT:
    case ENOTDIR:
    case ELOOP:
      return errc::no_such_device;
    case ENXIO:
    case ENODEV:
    case EIO:
      return errc::gone;
    case EMFILE:
    case ENFILE:
    case ENOMEM:
    case ENOSPC:
    case ENOLCK:
    case EDQUOT:
      return errc::no_resources;
    case EBUSY:
      return errc::refused;
    case EINTR:
      return errc::interrupted;
    case EINVAL:
    case ENAMETOOLONG:
      return errc::invalid_argument;
    default:
      return errc::system_fault;
  }
}

std::string errno_text(int errnum) {
  char buffer[128];
  return ::strerror_r(errnum, buffer, sizeof buffer);  // the GNU form: returns the text
}

Error fault(errc code, int errnum, std::string_view what, std::string_view device) {
  Error error;
  error.code = code;
  error.device = std::string{device};
  error.errnum = errnum;
  const std::string subject = printable(device);
  error.message = subject.empty() ? fmt::format("{}: {}", what, errno_text(errnum))
                                  : fmt::format("{}: {}: {}", subject, what, errno_text(errnum));
  return error;
}

Error fault(int errnum, std::string_view what, std::string_view device) {
  return fault(errc_from_errno(errnum), errnum, what, device);
}

Error failure(errc code, std::string message, std::string_view device) {
  Error error;
  error.code = code;
  error.device = std::string{device};
  error.message = std::move(message);
  return error;
}

namespace {

// Length of the well-formed UTF-8 sequence at the head of `text`, 0 when there is none (Unicode 15, table 3-7).
// Overlong forms and surrogates count as broken: some terminals decode the former, and JSON forbids both.
std::size_t utf8_length(std::string_view text) {
  const auto byte = [text](std::size_t at) { return static_cast<unsigned char>(text[at]); };
  const unsigned char lead = byte(0);
  const std::size_t length = lead < 0x80                   ? 1
                             : lead >= 0xC2 && lead < 0xE0 ? 2
                             : lead >= 0xE0 && lead < 0xF0 ? 3
                             : lead >= 0xF0 && lead < 0xF5 ? 4
                                                           : 0;
  if (length == 0 || length > text.size()) return 0;
  for (std::size_t i = 1; i < length; ++i)
    if ((byte(i) & 0xC0U) != 0x80U) return 0;
  const bool overlong = (lead == 0xE0 && byte(1) < 0xA0) || (lead == 0xF0 && byte(1) < 0x90);
  const bool no_character = (lead == 0xED && byte(1) >= 0xA0) || (lead == 0xF4 && byte(1) >= 0x90);
  return overlong || no_character ? 0 : length;
}

}  // namespace

std::string printable(std::string_view text, std::size_t most) {
  std::string clean;
  while (!text.empty()) {
    const std::size_t length = utf8_length(text);
    const auto lead = static_cast<unsigned char>(text.front());
    // C0 and DEL, and the C1 controls that UTF-8 writes as C2 80..9F, can drive a terminal.
    const bool control =
        lead < 0x20 || lead == 0x7F || (length == 2 && lead == 0xC2 && static_cast<unsigned char>(text[1]) < 0xA0);
    const std::string_view piece = length == 0 || control ? std::string_view{"?"} : text.substr(0, length);
    if (clean.size() + piece.size() > most) break;
    clean += piece;
    text.remove_prefix(length == 0 ? 1 : length);
  }
  return clean;
}

}  // namespace holdfast::base
