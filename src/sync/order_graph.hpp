// SPDX-License-Identifier: MIT
// order_graph.hpp - which classes were taken under which, and whether one more order closes a cycle.
//
// Pure but for the wait for a turn: no process, no clock, no stack is known here. Every cycle of this graph is a
// deadlock that may happen, and only those, because a class has two nodes: readers that get past waiting writers
// (recursive read) do not wait for readers, so an order that arrives by such a read and goes on from a read does not
// block. That is the kernel's notion of a strong dependency path (Documentation/locking/lockdep-design.rst), made into
// plain reachability.
//
// `reach` is the transitive closure, so that the test for a cycle is a look at one word. It is the reason why an order
// that is known costs nothing, and why the price of a new one depends on how many classes there are, not on how they
// hang together.
#pragma once

#include "sync/order_region.hpp"
#include "sync/order_turn.hpp"

#include <array>
#include <bitset>
#include <cstdint>
#include <optional>
#include <span>

namespace holdfast::sync::order {

using ClassIndex = std::uint32_t;

[[nodiscard]] constexpr bool is_shared(How how) noexcept { return (static_cast<unsigned>(how) & 1) != 0; }
[[nodiscard]] constexpr Node arrival(ClassIndex at, How how) noexcept {
  return 2 * at + (how == How::recursive_shared ? 1 : 0);
}
[[nodiscard]] constexpr ClassIndex class_of(Node node) noexcept { return node / 2; }

/// `to` was waited for while `from` was held.
struct Edge {
  ClassIndex from = 0;
  How held = How::exclusive;
  ClassIndex to = 0;
  How wanted = How::exclusive;

  /// The node that it leads to.
  [[nodiscard]] constexpr Node target() const noexcept { return arrival(to, wanted); }
  /// The nodes that it starts from, as bits of word source_word() of a row. An exclusive hold blocks every arrival.
  [[nodiscard]] constexpr std::uint64_t source_bits() const noexcept {
    return std::uint64_t{is_shared(held) ? 1U : 3U} << (2 * from % 64);
  }
  [[nodiscard]] constexpr std::size_t source_word() const noexcept { return 2 * from / 64; }
};

/// What a witness is about: an order, or a use of `to` (then `from` says which).
struct WitnessKey {
  static constexpr std::uint64_t kInHandler = kClasses;
  static constexpr std::uint64_t kOpen = kClasses + 1;
  std::uint64_t from;
  std::uint64_t to;
  bool held_shared;
  bool recursive;

  [[nodiscard]] static constexpr WitnessKey of(const Edge& edge) noexcept {
    return {edge.from, edge.to, is_shared(edge.held), edge.wanted == How::recursive_shared};
  }
  /// Never 0.
  [[nodiscard]] constexpr std::uint64_t packed() const noexcept {
    return 1 | (std::uint64_t{held_shared} << 1) | (std::uint64_t{recursive} << 2) | (from << 8) | (to << 32);
  }
};

/// A witness as it is written and read: places are packed by order_stack.hpp.
struct Sighting {
  std::uint32_t process = 0;
  std::uint32_t thread = 0;
  char program[16] = {};
  std::uint64_t held_at = 0;
  std::uint64_t frames = 0;
  std::array<std::uint64_t, kFrames> stack{};
};

/// How a class is used with respect to signals.
struct Use {
  ClassIndex of = 0;
  How how = How::exclusive;
  std::uint64_t handler = 0;  ///< bit of the signal in whose handler it is waited for, or 0
  std::uint64_t open = 0;     ///< signals that can come while it is held
};

/// A handler waits for `wanted`; whoever holds that may wait (through others) for `held`, whose holder the handler may
/// have interrupted. Often both are one class.
struct SignalConflict {
  Node wanted = 0;
  Node held = 0;
  bool held_shared = false;
  std::uint64_t signals = 0;
};

class Graph {
 public:
  /// \param on_step  called after every single change of the region: tests die there
  explicit Graph(Region& region, void (*on_step)() = nullptr) noexcept : region_{region}, on_step_{on_step} {}

  /// The class's number, given to it now if it has none. Lock-free.
  /// \returns nothing when there are kMostClasses others
  [[nodiscard]] std::optional<ClassIndex> number(std::uint64_t key) noexcept;
  [[nodiscard]] bool has_name(ClassIndex of) const noexcept;
  /// All who name a class must give it the same text.
  void set_name(ClassIndex of, const char* name) noexcept;
  [[nodiscard]] std::optional<ClassIndex> find(std::uint64_t key) const noexcept;
  void name(ClassIndex of, char (&to)[56]) const noexcept;
  [[nodiscard]] std::size_t classes() const noexcept;

  /// Whether the order was added before, and closed no cycle then. Lock-free; a late no is possible.
  [[nodiscard]] bool knows(const Edge& edge) const noexcept;
  /// Whether to add the order would close a cycle. True is true for ever.
  [[nodiscard]] bool closes_cycle(const Edge& edge) const noexcept;

  enum class Added : std::uint8_t { known, fresh, closes_cycle };
  /// Adds an order unless it closes a cycle.
  [[nodiscard]] Added add(const Edge& edge, const Sighting& sighting, Token& token) noexcept;

  /// Whether use() would tell anything new.
  [[nodiscard]] bool knows(const Use& use) const noexcept;
  void add(const Use& use, const Sighting& sighting, Token& token) noexcept;
  [[nodiscard]] std::uint64_t handler_signals(ClassIndex of) const noexcept;
  [[nodiscard]] bool any_handlers() const noexcept {
    return region_.handler_signals.load(std::memory_order_relaxed) != 0;
  }
  /// Calls `found` for each conflict in the graph. \cost  (classes taken in handlers) x classes
  template <class Found>
  void signal_conflicts(Found&& found) const {
    for (ClassIndex wanted = 0, count = static_cast<ClassIndex>(classes()); wanted < count; ++wanted) {
      if (handler_signals(wanted) == 0) continue;
      for (ClassIndex held = 0; held < count; ++held)
        for (unsigned kinds = 0; kinds < 4; ++kinds) {
          const SignalConflict conflict = conflict_of(2 * wanted + kinds % 2, 2 * held + kinds / 2);
          if (conflict.signals != 0) found(conflict);
        }
    }
  }

  /// The shortest way from `edge.target()` back to where `edge` starts: the orders that it contradicts.
  /// \returns how many of `way` were filled; more than its size when it was too small
  struct Search;
  [[nodiscard]] std::size_t way_back(const Edge& edge, Search& search, std::span<Edge> way) const noexcept;

  [[nodiscard]] bool witness(const WitnessKey& key, Sighting& to) const noexcept;
  /// Whether the table of witnesses had no room for one.
  [[nodiscard]] bool witnesses_full() const noexcept { return witnesses_full_; }

  /// Makes the closure from the direct orders. False when the turn was lost meanwhile.
  [[nodiscard]] bool close(Turn& turn) noexcept;

 private:
  template <class Change>
  void in_turn(Token& token, Change&& change) noexcept;
  [[nodiscard]] bool has(const std::array<Row, kNodes>& rows, Node from, Node to) const noexcept {
    return ((rows[from].words[to / 64].load(std::memory_order_relaxed) >> (to % 64)) & 1) != 0;
  }
  [[nodiscard]] bool has_row(Node node) const noexcept {
    const ClassIndex of = class_of(node);
    return node % 2 == 0 || ((region_.recursive[of / 64].load(std::memory_order_relaxed) >> (of % 64)) & 1) != 0;
  }
  // Gives the node a row, if it has none. In a turn.
  void make_row(Node node) noexcept;
  // Calls `visit` for each node that an order leads to from this one, until it says true, and says whether it did.
  template <class Visit>
  bool any_direct(Node node, Visit&& visit) const noexcept {
    for (std::size_t word = 0; word < kNodes / 64; ++word)
      for (std::uint64_t left = region_.direct[node].words[word].load(std::memory_order_relaxed); left != 0;
           left &= left - 1)
        if (visit(static_cast<Node>(64 * word + static_cast<unsigned>(__builtin_ctzll(left))))) return true;
    return false;
  }
  void set(std::array<Row, kNodes>& rows, Node from, Node to) noexcept;
  void unite(Row& to, const Row& with, std::size_t words) noexcept;
  [[nodiscard]] std::atomic<std::uint16_t>& index_of(std::uint64_t packed) const noexcept;
  void keep(const WitnessKey& key, const Sighting& sighting) noexcept;
  [[nodiscard]] SignalConflict conflict_of(Node wanted, Node held) const noexcept;
  void step() const noexcept {
    if (on_step_ != nullptr) [[unlikely]]
      on_step_();
  }

  Region& region_;
  void (*on_step_)();
  bool witnesses_full_ = false;
};

/// Memory of way_back(), too much for a signal handler's stack.
struct Graph::Search {
  std::bitset<kNodes> seen;
  std::array<std::uint16_t, kNodes> came_from;
  std::array<std::uint16_t, kNodes> queue;
};

}  // namespace holdfast::sync::order
