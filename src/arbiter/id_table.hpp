// SPDX-License-Identifier: MIT
// id_table.hpp - from a caller's number to an index. Open addressing, because std::unordered_map allocates for each
// entry, and owners come and go with every claim.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "arbiter/pool.hpp"

namespace holdfast::arbiter {

template <class Id>
class IdTable {
 public:
  /// kNone when it is not there.
  [[nodiscard]] Index find(Id id) const {
    if (slots_.empty()) return kNone;
    for (std::size_t at = home(id);; at = next(at))
      if (slots_[at].index == kNone || slots_[at].id == id) return slots_[at].index;
  }
  /// `id` is not there yet.
  void insert(Id id, Index index) {
    if ((used_ + 1) * 2 > slots_.size()) grow();
    ++used_;
    place({id, index});
  }
  /// `id` is there.
  void erase(Id id) {
    std::size_t hole = home(id);
    while (slots_[hole].id != id || slots_[hole].index == kNone) hole = next(hole);
    // Those behind move up, unless that would put them before their home: no tombstones are left.
    for (std::size_t at = next(hole); slots_[at].index != kNone; at = next(at)) {
      const std::size_t from_home = (at - home(slots_[at].id)) & (slots_.size() - 1);
      if (from_home < ((at - hole) & (slots_.size() - 1))) continue;
      slots_[hole] = slots_[at];
      hole = at;
    }
    slots_[hole].index = kNone;
    --used_;
  }

 private:
  struct Slot {
    Id id{};
    Index index = kNone;
  };

  [[nodiscard]] std::size_t home(Id id) const {
    // Finalizer of splitmix64: device numbers and process numbers come in rows.
    std::uint64_t x = static_cast<std::uint64_t>(id);
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
    return static_cast<std::size_t>(x ^ (x >> 31)) & (slots_.size() - 1);
  }
  [[nodiscard]] std::size_t next(std::size_t at) const { return (at + 1) & (slots_.size() - 1); }
  void place(const Slot& slot) {
    std::size_t at = home(slot.id);
    while (slots_[at].index != kNone) at = next(at);
    slots_[at] = slot;
  }
  void grow() {
    std::vector<Slot> old = std::exchange(slots_, std::vector<Slot>(slots_.empty() ? 16 : slots_.size() * 2));
    for (const Slot& slot : old)
      if (slot.index != kNone) place(slot);
  }

  std::vector<Slot> slots_;  // a power of two
  std::size_t used_ = 0;
};

}  // namespace holdfast::arbiter
