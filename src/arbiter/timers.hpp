// SPDX-License-Identifier: MIT
// timers.hpp - the instants at which something ends: a binary heap whose entries can be taken out from the middle,
// because most deadlines never pass.
#pragma once

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
    Index owner = kNone;     ///< who is told where its entry is
    [[nodiscard]] bool before(const Entry& other) const { return at != other.at ? at < other.at : rank < other.rank; }
  };

  [[nodiscard]] bool empty() const { return heap_.empty(); }
  [[nodiscard]] const Entry& front() const { return heap_.front(); }

  /// `moved(owner, position)` is called for each entry whose position changes; kNone: it is out.
  template <class Moved>
  void add(const Entry& entry, Moved moved) {
    heap_.push_back(entry);
    rise(heap_.size() - 1, entry, moved);
  }
  template <class Moved>
  void remove(Index position, Moved moved) {
    moved(heap_[position].owner, kNone);
    const Entry last = heap_.back();
    heap_.pop_back();
    if (position == heap_.size()) return;
    if (position > 0 && last.before(heap_[(position - 1) / 2]))
      rise(position, last, moved);
    else
      sink(position, last, moved);
  }

 private:
  template <class Moved>
  void rise(std::size_t at, const Entry& entry, Moved& moved) {
    for (; at > 0 && entry.before(heap_[(at - 1) / 2]); at = (at - 1) / 2) put(at, heap_[(at - 1) / 2], moved);
    put(at, entry, moved);
  }
  template <class Moved>
  void sink(std::size_t at, const Entry& entry, Moved& moved) {
    for (std::size_t child = at * 2 + 1; child < heap_.size(); child = at * 2 + 1) {
      if (child + 1 < heap_.size() && heap_[child + 1].before(heap_[child])) ++child;
      if (!heap_[child].before(entry)) break;
      put(at, heap_[child], moved);
      at = child;
    }
    put(at, entry, moved);
  }
  template <class Moved>
  void put(std::size_t at, const Entry& entry, Moved& moved) {
    heap_[at] = entry;
    moved(entry.owner, static_cast<Index>(at));
  }

  std::vector<Entry> heap_;
};

}  // namespace holdfast::arbiter
