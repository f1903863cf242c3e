// SPDX-License-Identifier: MIT
// timers.hpp - the instants at which something ends: a heap whose entries can be taken out from the middle, because
// most deadlines never pass. Each entry has four children, which lie side by side, and where entries are is kept in a
// table of their own: with 100,000 of them it is the memory touched that costs.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "arbiter/pool.hpp"
#include "arbiter/values.hpp"

namespace holdfast::arbiter {

class Timers {
 public:
  struct Entry {
    Time at;
    std::uint64_t rank = 0;  ///< among those of one instant the lesser comes first
    Index record = kNone;
    [[nodiscard]] bool before(const Entry& other) const { return at != other.at ? at < other.at : rank < other.rank; }
  };

  [[nodiscard]] bool empty() const { return heap_.empty(); }
  [[nodiscard]] const Entry& front() const { return heap_.front(); }

  /// The record has none yet.
  void add(const Entry& entry) {
    if (entry.record >= positions_.size()) positions_.resize(entry.record + std::size_t{1}, kNone);
    heap_.push_back(entry);
    rise(heap_.size() - 1, entry);
  }
  void remove(Index record) {
    if (record >= positions_.size() || positions_[record] == kNone) return;
    const std::size_t at = positions_[record];
    positions_[record] = kNone;
    const Entry last = heap_.back();
    heap_.pop_back();
    if (at == heap_.size()) return;
    if (at > 0 && last.before(heap_[parent(at)]))
      rise(at, last);
    else
      sink(at, last);
  }

 private:
  static constexpr std::size_t kChildren = 4;
  static constexpr std::size_t parent(std::size_t at) { return (at - 1) / kChildren; }

  void rise(std::size_t at, const Entry& entry) {
    for (; at > 0 && entry.before(heap_[parent(at)]); at = parent(at)) put(at, heap_[parent(at)]);
    put(at, entry);
  }
  void sink(std::size_t at, const Entry& entry) {
    for (std::size_t child = at * kChildren + 1; child < heap_.size(); child = at * kChildren + 1) {
      const std::size_t end = std::min(child + kChildren, heap_.size());
      for (std::size_t other = child + 1; other < end; ++other)
        if (heap_[other].before(heap_[child])) child = other;
      if (!heap_[child].before(entry)) break;
      put(at, heap_[child]);
      at = child;
    }
    put(at, entry);
  }
  void put(std::size_t at, const Entry& entry) {
    positions_[entry.record] = static_cast<Index>(at);
    heap_[at] = entry;
  }

  std::vector<Entry> heap_;
  std::vector<Index> positions_;  // by record
};

}  // namespace holdfast::arbiter
