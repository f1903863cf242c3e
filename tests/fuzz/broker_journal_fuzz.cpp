// SPDX-License-Identifier: MIT
// broker_journal_fuzz.cpp - the journal's lines. What is taken for a line says the same when it is written again, and
// any bytes at all survive as a claim's purpose. The checksum would keep a fuzzer out, so it is also put in its place.
#include "fuzz.hpp"

#include "broker/journal_line.hpp"

using namespace holdfast;
using fuzz::require;

namespace {

void line(std::string_view text) {
  const auto read = broker::parse_journal_line(text);
  if (!read) return;
  std::string again = broker::journal_text(*read);
  require(again.ends_with('\n') && again.find('\n') == again.size() - 1, "one line");
  again.pop_back();
  const auto same = broker::parse_journal_line(again);
  require(same && broker::journal_text(*same) == again + "\n", "the canonical form says the same");
}

void purpose(std::string_view text) {
  broker::ClaimRecord claim;
  claim.owner.pid = 1;
  claim.purpose = text;
  claim.devices.push_back({{device::Kind::character, 4, 64, 0}, std::string{text}, {}, true});
  std::string written = broker::journal_text(broker::JournalClaim{claim, {}});
  written.pop_back();
  const auto read = broker::parse_journal_line(written);
  require(read && std::get<broker::JournalClaim>(*read).claim.purpose == text, "every string is read as written");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view bytes = fuzz::text_of(data, size);
  line(bytes);
  line(broker::with_checksum(bytes));
  purpose(bytes);
  return 0;
}
