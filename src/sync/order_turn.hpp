// SPDX-License-Identifier: MIT
// order_turn.hpp - one at a time adds to a graph, and nobody waits long for somebody who died, is stopped, or was
// interrupted by a signal handler that wants to add as well.
//
// A lock that may be broken. Because a graph only grows, two who add at once destroy nothing; they may only miss the
// cycle that both close together. So whoever has waited kPatience for the same turn takes it over and makes the closure
// anew, and whoever finds at the end that his turn was taken over does his work again. No kernel help is needed, hence
// no assumption about pid namespaces, threads' ids or mappings, and a debugger that stops a process stops nobody else.
#pragma once

#include "sync/order_region.hpp"

#include <cstdint>

namespace holdfast::sync::order {

/// Who asks: unlikely to be equal in two threads, and never zero. The low bits count the turns of one thread.
class Token {
 public:
  static constexpr unsigned kCountBits = 24;
  constexpr Token(std::uint64_t thread, std::uint32_t& count) noexcept : thread_{(thread << 1) | 1}, count_{count} {}
  [[nodiscard]] std::uint64_t next() noexcept {
    return (thread_ << kCountBits) | (++count_ & ((1U << kCountBits) - 1));
  }
  [[nodiscard]] bool is_mine(std::uint64_t turn) const noexcept {
    return turn >> kCountBits == thread_ << kCountBits >> kCountBits;
  }

 private:
  std::uint64_t thread_;
  std::uint32_t& count_;
};

class Turn {
 public:
  static constexpr std::int64_t kPatience = 20'000'000;  // nanoseconds

  /// Waits for the turn, or takes it over.
  Turn(Word& word, Token& token) noexcept;
  /// The one before did not end his turn: what he did may be half done.
  [[nodiscard]] bool taken_over() const noexcept { return taken_over_; }
  /// Tells those who wait that this one lives. False when the turn was taken over.
  [[nodiscard]] bool still_mine() noexcept;
  /// Ends the turn. False when it was taken over: what was done must be done again.
  [[nodiscard]] bool give_back() noexcept;

 private:
  Word& word_;
  Token& token_;
  std::uint64_t mine_;
  bool taken_over_ = false;
};

}  // namespace holdfast::sync::order
