// SPDX-License-Identifier: MIT
// order_report.hpp - a finding as text, without memory of its own: it may be told in a signal handler.
#pragma once

#include <holdfast/sync/order.hpp>

#include <cstddef>
#include <span>

namespace holdfast::sync::order {

/// The report as lines, cut when `to` is too small.
/// \returns the number of bytes written; no terminating zero
[[nodiscard]] std::size_t write_report(const Report& report, std::span<char> to) noexcept;

}  // namespace holdfast::sync::order
