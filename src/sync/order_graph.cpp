// SPDX-License-Identifier: MIT
// Order of changes within a turn: the witness, then the direct bits, then the closure. A death between any two leaves
// an order without a witness's use, or with a closure that is short; `turn` then still names the dead, and whoever
// takes it over closes the graph before he asks it anything.
#include "sync/order_graph.hpp"

#include <algorithm>
#include <cstdio>
#include <cstring>

namespace holdfast::sync::order {

namespace {

constexpr std::uint64_t bit(Node node) noexcept { return std::uint64_t{1} << (node % 64); }

void raise_to(Word& word, std::uint64_t least) noexcept {
  std::uint64_t was = word.load(std::memory_order_relaxed);
  while (was < least && !word.compare_exchange_weak(was, least, std::memory_order_relaxed)) {
  }
}

}  // namespace

std::optional<ClassIndex> Graph::find(std::uint64_t key) const noexcept {
  for (ClassIndex i = 0; i < kClasses; ++i) {
    const std::uint64_t at = region_.keys[i].load(std::memory_order_relaxed);
    if (at == 0) break;  // also for key 0, which is no class
    if (at == key) return i;
  }
  return std::nullopt;
}

std::optional<ClassIndex> Graph::number(std::uint64_t key) noexcept {
  for (ClassIndex i = 0; i < kClasses; ++i) {
    std::uint64_t at = region_.keys[i].load(std::memory_order_relaxed);
    if (at == 0) {
      // Two who want to enter one class meet at the same first empty place; the loser finds his class there.
      if (region_.keys[i].compare_exchange_strong(at, key, std::memory_order_relaxed)) at = key;
      step();
    }
    if (at != key) continue;
    raise_to(region_.classes, i + 1);
    step();
    return i;
  }
  return std::nullopt;
}

bool Graph::has_name(ClassIndex of) const noexcept {
  return region_.records[of].named.load(std::memory_order_relaxed) != 0;
}

void Graph::set_name(ClassIndex of, const char* name) noexcept {
  const std::uint64_t key = region_.keys[of].load(std::memory_order_relaxed);
  const std::uint32_t line = LockClass::line_of(key);
  const std::uint32_t subclass = LockClass::subclass_of(key);
  std::string_view base = name;
  if (line != 0) base.remove_prefix(base.rfind('/') + 1);  // npos + 1 is 0
  char tail[32] = {};
  int length = 0;
  if (line != 0) length = std::snprintf(tail, sizeof tail, ":%u", line);
  if (subclass != 0) std::snprintf(tail + length, sizeof tail - static_cast<unsigned>(length), "/%u", subclass);
  char text[56];
  std::snprintf(text, sizeof text, "%.*s%s",
                static_cast<int>(std::min(base.size(), sizeof text - 1 - std::strlen(tail))), base.data(), tail);
  region_.records[of].name.store(text);
  region_.records[of].named.store(1, std::memory_order_release);  // pairs with the acquire in name()
  step();
}

void Graph::name(ClassIndex of, char (&to)[56]) const noexcept {
  if (region_.records[of].named.load(std::memory_order_acquire) != 0) {
    region_.records[of].name.load(to);
  } else {
    std::snprintf(to, sizeof to, "class %016llx",
                  static_cast<unsigned long long>(region_.keys[of].load(std::memory_order_relaxed)));
  }
}

std::size_t Graph::classes() const noexcept {
  const std::uint64_t count = region_.classes.load(std::memory_order_relaxed);
  return count < kClasses ? count : kClasses;
}

bool Graph::knows(const Edge& edge) const noexcept {
  return has(region_.direct, arrival(edge.from, How::exclusive), edge.target()) &&
         (is_shared(edge.held) || has(region_.direct, arrival(edge.from, How::recursive_shared), edge.target()));
}

bool Graph::closes_cycle(const Edge& edge) const noexcept {
  const auto leads_back = [&](Node node) {
    const std::size_t word = edge.source_word();
    std::uint64_t reached = region_.reach[node].words[word].load(std::memory_order_relaxed);
    if (node / 64 == word) reached |= bit(node);
    return (reached & edge.source_bits()) != 0;
  };
  if (leads_back(edge.target())) return true;
  return !has_row(edge.target()) && any_direct(edge.target(), leads_back);
}

void Graph::make_row(Node node) noexcept {
  if (has_row(node)) return;
  const std::size_t words = (2 * classes() + 63) / 64;
  any_direct(node, [&](Node next) {
    unite(region_.reach[node], region_.reach[next], words);
    set(region_.reach, node, next);
    return false;
  });
  const ClassIndex of = class_of(node);
  region_.recursive[of / 64].fetch_or(std::uint64_t{1} << (of % 64), std::memory_order_relaxed);
  step();
}

void Graph::set(std::array<Row, kNodes>& rows, Node from, Node to) noexcept {
  rows[from].words[to / 64].fetch_or(bit(to), std::memory_order_relaxed);
  step();
}

void Graph::unite(Row& to, const Row& with, std::size_t words) noexcept {
  for (std::size_t i = 0; i < words; ++i) {
    const std::uint64_t more = with.words[i].load(std::memory_order_relaxed);
    if ((more & ~to.words[i].load(std::memory_order_relaxed)) == 0) continue;
    to.words[i].fetch_or(more, std::memory_order_relaxed);
    step();
  }
}

template <class Change>
void Graph::in_turn(Token& token, Change&& change) noexcept {
  for (bool again = false;; again = true) {
    Turn turn{region_.turn, token};
    step();
    if ((again || turn.taken_over()) && !close(turn)) continue;
    change();
    const bool whole = turn.give_back();
    step();
    if (whole) return;
  }
}

Graph::Added Graph::add(const Edge& edge, const Sighting& sighting, Token& token) noexcept {
  Added result = Added::fresh;
  in_turn(token, [&] {
    if (closes_cycle(edge)) {
      result = Added::closes_cycle;
      return;
    }
    result = knows(edge) ? Added::known : Added::fresh;
    if (result == Added::known) return;
    keep(WitnessKey::of(edge), sighting);
    const Node target = edge.target();
    make_row(target);
    set(region_.direct, arrival(edge.from, How::exclusive), target);
    if (!is_shared(edge.held)) set(region_.direct, arrival(edge.from, How::recursive_shared), target);
    region_.orders.fetch_add(1, std::memory_order_relaxed);
    // What reaches where the order starts from reaches the target then, too.
    const Node start = arrival(edge.from, How::exclusive);
    if (has(region_.reach, start, target) &&
        (is_shared(edge.held) || !has_row(start + 1) || has(region_.reach, start + 1, target)))
      return;
    const std::size_t nodes = 2 * classes();
    for (Node node = 0; node < nodes; ++node) {
      if (!has_row(node)) continue;
      std::uint64_t reached = region_.reach[node].words[edge.source_word()].load(std::memory_order_relaxed);
      if (node / 64 == edge.source_word()) reached |= bit(node);
      if ((reached & edge.source_bits()) == 0 || has(region_.reach, node, target)) continue;
      unite(region_.reach[node], region_.reach[target], (nodes + 63) / 64);
      // Last: a death before it leaves a row that says less than it could, and a turn that was not given back.
      set(region_.reach, node, target);
    }
  });
  return result;
}

bool Graph::close(Turn& turn) noexcept {
  const std::size_t nodes = 2 * classes();
  const std::size_t words = (nodes + 63) / 64;
  for (Node node = 0; node < nodes; ++node)
    if (has_row(node)) unite(region_.reach[node], region_.direct[node], words);
  // Warshall, a row at a time.
  for (Node through = 0; through < nodes; ++through) {
    if (!turn.still_mine()) return false;
    for (Node node = 0; node < nodes; ++node)
      if (has_row(node) && has(region_.reach, node, through)) unite(region_.reach[node], region_.reach[through], words);
  }
  return true;
}

bool Graph::knows(const Use& use) const noexcept {
  const ClassRecord& record = region_.records[use.of];
  const Word& handler = use.how == How::recursive_shared ? record.handler_recursive : record.handler_plain;
  const Word& open = is_shared(use.how) ? record.open_shared : record.open_exclusive;
  return (use.handler & ~handler.load(std::memory_order_relaxed)) == 0 &&
         (use.open & ~open.load(std::memory_order_relaxed)) == 0;
}

void Graph::add(const Use& use, const Sighting& sighting, Token& token) noexcept {
  in_turn(token, [&] {
    ClassRecord& record = region_.records[use.of];
    const bool recursive = use.how == How::recursive_shared;
    Word& handler = recursive ? record.handler_recursive : record.handler_plain;
    Word& open = is_shared(use.how) ? record.open_shared : record.open_exclusive;
    if ((use.handler & ~handler.load(std::memory_order_relaxed)) != 0) {
      make_row(arrival(use.of, use.how));
      keep({WitnessKey::kInHandler, use.of, false, recursive}, sighting);
      handler.fetch_or(use.handler, std::memory_order_relaxed);
      step();
      region_.handler_signals.fetch_or(use.handler, std::memory_order_relaxed);
      step();
    }
    if ((use.open & ~open.load(std::memory_order_relaxed)) != 0) {
      keep({WitnessKey::kOpen, use.of, is_shared(use.how), false}, sighting);
      open.fetch_or(use.open, std::memory_order_relaxed);
      step();
    }
  });
}

std::uint64_t Graph::handler_signals(ClassIndex of) const noexcept {
  return region_.records[of].handler_plain.load(std::memory_order_relaxed) |
         region_.records[of].handler_recursive.load(std::memory_order_relaxed);
}

SignalConflict Graph::conflict_of(Node wanted, Node held) const noexcept {
  if (wanted != held && !has(region_.reach, wanted, held)) return {};
  const ClassRecord& waits = region_.records[class_of(wanted)];
  const ClassRecord& holds = region_.records[class_of(held)];
  const std::uint64_t handler =
      (wanted % 2 != 0 ? waits.handler_recursive : waits.handler_plain).load(std::memory_order_relaxed);
  const std::uint64_t exclusive = handler & holds.open_exclusive.load(std::memory_order_relaxed);
  if (exclusive != 0) return {wanted, held, false, exclusive};
  if (held % 2 != 0) return {};  // arrived at as a recursive reader: other readers are not in the way
  return {wanted, held, true, handler & holds.open_shared.load(std::memory_order_relaxed)};
}

std::size_t Graph::way_back(const Edge& edge, Search& search, std::span<Edge> way) const noexcept {
  const auto is_end = [&](Node node) {
    return node / 64 == edge.source_word() && (bit(node) & edge.source_bits()) != 0;
  };
  search.seen.reset();
  std::size_t first = 0;
  std::size_t last = 0;
  const auto visit = [&](Node node, Node from) {
    if (search.seen[node]) return;
    search.seen.set(node);
    search.came_from[node] = static_cast<std::uint16_t>(from);
    search.queue[last++] = static_cast<std::uint16_t>(node);
  };
  visit(edge.target(), edge.target());
  while (first < last && !is_end(search.queue[first])) {
    const Node node = search.queue[first++];
    any_direct(node, [&](Node next) {
      visit(next, node);
      return false;
    });
  }
  if (first == last) return 0;
  std::size_t length = 0;
  const Node end = search.queue[first];
  for (Node node = end; node != edge.target(); node = search.came_from[node]) ++length;
  std::size_t at = length;
  for (Node node = end; node != edge.target(); node = search.came_from[node]) {
    if (--at >= way.size()) continue;
    const Node from = search.came_from[node];
    way[at] = {class_of(from), How::exclusive, class_of(node), node % 2 != 0 ? How::recursive_shared : How::exclusive};
    // Which of the two kinds of hold was seen: both bits are set for an exclusive one.
    if (!knows(way[at])) way[at].held = How::shared;
  }
  return length;
}

// The place in the index where the key's witness is, or where it would go. Half of the index is always empty.
std::atomic<std::uint16_t>& Graph::index_of(std::uint64_t packed) const noexcept {
  constexpr std::size_t kPlaces = 2 * kWitnesses;
  static_assert(kPlaces == 1U << 14 && kWitnesses < 1U << 16);
  std::size_t at = packed * 0x9e3779b97f4a7c15 >> 50;
  for (std::size_t probe = 0; probe < kPlaces; ++probe, at = (at + 1) % kPlaces) {
    // Acquire pairs with the release in keep(): the witness that the number names is whole.
    const std::uint32_t number = region_.witness_index[at].load(std::memory_order_acquire);
    if (number == 0) break;
    if (region_.witnesses[(number - 1) % kWitnesses].key.load(std::memory_order_relaxed) == packed) break;
  }
  return region_.witness_index[at];
}

void Graph::keep(const WitnessKey& key, const Sighting& sighting) noexcept {
  const std::uint64_t packed = key.packed();
  std::atomic<std::uint16_t>& index = index_of(packed);
  std::uint64_t number = index.load(std::memory_order_relaxed);
  if (number == 0) {
    // A death from here on loses the place, no more.
    number = region_.witness_count.fetch_add(1, std::memory_order_relaxed) + 1;
    step();
    if (number > kWitnesses) {
      region_.witness_count.store(kWitnesses, std::memory_order_relaxed);
      witnesses_full_ = true;
      return;
    }
  }
  Witness& witness = region_.witnesses[(number - 1) % kWitnesses];
  witness.who.store((std::uint64_t{sighting.process} << 32) | sighting.thread, std::memory_order_relaxed);
  witness.program.store(sighting.program);
  witness.held_at.store(sighting.held_at, std::memory_order_relaxed);
  step();
  for (std::size_t i = 0; i < sighting.frames; ++i)
    witness.stack[i].store(sighting.stack[i], std::memory_order_relaxed);
  witness.frames.store(sighting.frames, std::memory_order_relaxed);
  step();
  witness.key.store(packed, std::memory_order_relaxed);
  step();
  index.store(static_cast<std::uint16_t>(number), std::memory_order_release);
  step();
}

bool Graph::witness(const WitnessKey& key, Sighting& to) const noexcept {
  const std::uint32_t number = index_of(key.packed()).load(std::memory_order_acquire);
  if (number == 0) return false;
  const Witness& witness = region_.witnesses[(number - 1) % kWitnesses];
  const std::uint64_t who = witness.who.load(std::memory_order_relaxed);
  to.process = static_cast<std::uint32_t>(who >> 32);
  to.thread = static_cast<std::uint32_t>(who);
  witness.program.load(to.program);
  to.held_at = witness.held_at.load(std::memory_order_relaxed);
  to.frames = std::min<std::uint64_t>(witness.frames.load(std::memory_order_relaxed), kFrames);
  for (std::size_t i = 0; i < to.frames; ++i) to.stack[i] = witness.stack[i].load(std::memory_order_relaxed);
  return true;
}

}  // namespace holdfast::sync::order
