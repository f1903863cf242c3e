// SPDX-License-Identifier: MIT
// pool.hpp - memory that is used again, and lists through it. Links are indices, so that an arbiter is a plain value:
// copied, it is another one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace holdfast::arbiter {

using Index = std::uint32_t;
inline constexpr Index kNone = ~Index{0};

/// T has `Index next`, which links the free ones.
template <class T>
class Pool {
 public:
  [[nodiscard]] Index take() {
    if (free_ == kNone) {
      items_.emplace_back();
      return static_cast<Index>(items_.size() - 1);
    }
    const Index at = free_;
    free_ = items_[at].next;
    return at;
  }
  void give_back(Index at) {
    items_[at].next = free_;
    free_ = at;
  }
  [[nodiscard]] T& operator[](Index at) { return items_[at]; }
  [[nodiscard]] const T& operator[](Index at) const { return items_[at]; }
  [[nodiscard]] std::size_t size() const { return items_.size(); }

 private:
  std::vector<T> items_;
  Index free_ = kNone;
};

/// A list through the items of a pool, which have `Index next, previous`; an item is on one list at most.
struct List {
  Index first = kNone;
  Index last = kNone;
  std::uint32_t count = 0;

  [[nodiscard]] bool empty() const { return first == kNone; }

  template <class T>
  void push_back(Pool<T>& pool, Index at) {
    insert_after(pool, last, at);
  }
  /// `before` is kNone for the front.
  template <class T>
  void insert_after(Pool<T>& pool, Index before, Index at) {
    T& item = pool[at];
    item.previous = before;
    item.next = before == kNone ? first : pool[before].next;
    (item.previous == kNone ? first : pool[item.previous].next) = at;
    (item.next == kNone ? last : pool[item.next].previous) = at;
    ++count;
  }
  template <class T>
  void unlink(Pool<T>& pool, Index at) {
    const T& item = pool[at];
    (item.previous == kNone ? first : pool[item.previous].next) = item.next;
    (item.next == kNone ? last : pool[item.next].previous) = item.previous;
    --count;
  }
};

}  // namespace holdfast::arbiter
