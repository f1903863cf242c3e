// SPDX-License-Identifier: MIT
// base_printable_fuzz.cpp - everything from outside passes through printable() on its way to a terminal, to JSON and
// into lock files. Checked against a decoder of UTF-8 written another way: by value, not by ranges of bytes.
#include "fuzz.hpp"

#include "base/error.hpp"

#include <bit>
#include <string>

using namespace holdfast;
using fuzz::require;

namespace {

bool is_utf8(std::string_view text) {
  while (!text.empty()) {
    const auto lead = static_cast<unsigned char>(text.front());
    const auto ones = static_cast<std::size_t>(std::countl_one(lead));
    if (ones == 1 || ones > 4) return false;
    const std::size_t length = ones == 0 ? 1 : ones;
    if (length > text.size()) return false;
    std::uint32_t value = lead < 0x80 ? lead : lead & (0x7FU >> length);
    for (std::size_t i = 1; i < length; ++i) {
      const auto byte = static_cast<unsigned char>(text[i]);
      if (byte >> 6 != 2) return false;
      value = value << 6 | (byte & 0x3FU);
    }
    constexpr std::uint32_t kLeast[] = {0, 0, 0x80, 0x800, 0x10000};
    if (value < kLeast[length] || value > 0x10FFFF || (value >= 0xD800 && value < 0xE000)) return false;
    text.remove_prefix(length);
  }
  return true;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::size_t most = data[0];
  const std::string_view text = fuzz::text_of(data + 1, size - 1);
  const std::string shown = base::printable(text, most);
  require(shown.size() <= most, "the cut holds");
  require(is_utf8(shown), "it is UTF-8");
  require(fuzz::is_harmless(shown), "it has no control characters");
  require(base::printable(shown, most) == shown, "showing it twice changes nothing");
  if (text.size() <= most && is_utf8(text) && fuzz::is_harmless(text)) require(shown == text, "what is clean passes");
  require(base::errno_text(static_cast<int>(most)).size() > 1, "every errno has words");
  return 0;
}
