// SPDX-License-Identifier: MIT
// calls.cpp - the tables that src/run/filter/generate_filters.cpp wrote at build time.
#include "run/calls.hpp"

#include <linux/audit.h>

#include <algorithm>
#include <iterator>

namespace holdfast::run {
namespace {

struct NumberedCall {
  std::uint32_t architecture;
  int number;
  Call call;
};

#include "run_filters.inc"

}  // namespace

std::span<const sock_filter> program_of(Filter filter) {
  if (filter == Filter::marks) return kMarks;
  return kMarksAndPaths;
}

Call call_of(std::uint32_t architecture, int number) {
  const auto* const found = std::ranges::find_if(
      kCalls, [&](const NumberedCall& entry) { return entry.number == number && entry.architecture == architecture; });
  return found == std::end(kCalls) ? Call::unknown : found->call;
}

bool is_32_bit(std::uint32_t architecture) { return (architecture & __AUDIT_ARCH_64BIT) == 0; }

}  // namespace holdfast::run
