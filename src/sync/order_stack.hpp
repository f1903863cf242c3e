// SPDX-License-Identifier: MIT
// order_stack.hpp - where code is, in words that mean the same in another process: module and offset.
#pragma once

#include "sync/order_graph.hpp"

#include <array>
#include <cstdint>

namespace holdfast::sync::order {

/// Modules of this process by their number in a graph. Filled as places are packed.
class Modules {
 public:
  explicit Modules(Region& region) noexcept : region_{region} {}

  /// `address` as module number + 1 << 48 | offset; the address itself when it lies in no module, or 256 are named.
  /// Safe in signal handlers.
  [[nodiscard]] std::uint64_t pack(const void* address) noexcept;
  /// \param path     gets the module's path, when there is one
  /// \param symbols  look for the function, by dladdr(3): not in a signal handler
  enum class Symbols : std::uint8_t { leave, look };
  void unpack(std::uint64_t place, char (&path)[112], Frame& to, Symbols symbols) const noexcept;
  [[nodiscard]] bool full() const noexcept { return full_.load(std::memory_order_relaxed); }

 private:
  [[nodiscard]] std::uint64_t number(const char* path, std::uintptr_t base) noexcept;

  Region& region_;
  // Load addresses, by number; 1 more, so that 0 is unknown. Relaxed: a word that means nothing without itself.
  std::array<Word, kModules> base_{};
  std::atomic<bool> full_{false};
};

/// Where the program is, innermost first, from the caller of the function whose frame address is `below`.
/// Safe in signal handlers. \cost  some 100 ns a frame
void capture(Modules& modules, const void* below, Sighting& to) noexcept;

}  // namespace holdfast::sync::order
