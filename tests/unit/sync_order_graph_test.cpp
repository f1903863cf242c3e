// SPDX-License-Identifier: MIT
// The graph by itself, against a slow one that is obviously right: which orders it refuses, what its closure says, and
// that the closure can be made again from half of it.
#include "sync/order_graph.hpp"

#include <gtest/gtest.h>

#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

namespace holdfast::sync::order {
namespace {

// All ways that the definition allows, walked each time: from an arrival at a class one goes on by any order that
// starts there, but not from a recursive read by one that was held as a reader.
class Slow {
 public:
  [[nodiscard]] bool reaches(ClassIndex from, How arrived, const Edge& end) const {
    std::set<std::pair<ClassIndex, bool>> seen;
    return reaches(from, arrived == How::recursive_shared, end, seen);
  }
  [[nodiscard]] bool closes_cycle(const Edge& edge) const { return reaches(edge.to, edge.wanted, edge); }
  void add(const Edge& edge) { edges_.push_back(edge); }

 private:
  static bool goes_on(bool recursive, const Edge& edge) { return !recursive || edge.held == How::exclusive; }
  [[nodiscard]] bool reaches(ClassIndex at, bool recursive, const Edge& end,
                             std::set<std::pair<ClassIndex, bool>>& seen) const {
    if (at == end.from && goes_on(recursive, end)) return true;
    if (!seen.emplace(at, recursive).second) return false;
    for (const Edge& edge : edges_)
      if (edge.from == at && goes_on(recursive, edge) &&
          reaches(edge.to, edge.wanted == How::recursive_shared, end, seen))
        return true;
    return false;
  }
  std::vector<Edge> edges_;
};

class OrderGraph : public testing::Test {
 protected:
  OrderGraph() {
    for (ClassIndex i = 0; i < kClassCount; ++i) EXPECT_EQ(graph_.number((i + 1) << 8), i);
  }
  Edge some_edge() {
    const How hows[] = {How::exclusive, How::shared, How::recursive_shared};
    Edge edge;
    do {
      edge = {static_cast<ClassIndex>(random_() % kClassCount), hows[random_() % 3],
              static_cast<ClassIndex>(random_() % kClassCount), hows[random_() % 3]};
    } while (edge.from == edge.to);
    return edge;
  }
  static constexpr std::uint32_t kClassCount = 40;
  std::unique_ptr<Region> region_ = std::make_unique<Region>();
  Graph graph_{*region_};
  std::uint32_t turns_ = 0;
  Token token_{1, turns_};
  std::minstd_rand random_{42};
};

TEST_F(OrderGraph, it_refuses_exactly_the_orders_that_close_a_cycle) {
  int refused = 0;
  for (int round = 0; round < 20; ++round) {
    region_ = std::make_unique<Region>();
    Graph graph{*region_};
    for (ClassIndex i = 0; i < kClassCount; ++i) ASSERT_TRUE(graph.number((i + 1) << 8).has_value());
    Slow slow;
    for (int i = 0; i < 200; ++i) {
      const Edge edge = some_edge();
      const bool closes = slow.closes_cycle(edge);
      ASSERT_EQ(graph.closes_cycle(edge), closes);
      const Graph::Added added = graph.add(edge, {}, token_);
      ASSERT_EQ(added == Graph::Added::closes_cycle, closes);
      ASSERT_EQ(graph.knows(edge), !closes);
      if (closes) {
        ++refused;
      } else {
        slow.add(edge);
      }
    }
  }
  EXPECT_GT(refused, 400);
}

TEST_F(OrderGraph, the_way_back_is_made_of_orders_that_were_added) {
  auto search = std::make_unique<Graph::Search>();
  int refused = 0;
  for (int i = 0; i < 500; ++i) {
    const Edge edge = some_edge();
    if (graph_.add(edge, {}, token_) != Graph::Added::closes_cycle) continue;
    ++refused;
    std::array<Edge, kClassCount> way;
    const std::size_t length = graph_.way_back(edge, *search, way);
    ASSERT_GT(length, 0U);
    ASSERT_LE(length, way.size());
    EXPECT_EQ(way[0].from, edge.to);
    EXPECT_EQ(way[length - 1].to, edge.from);
    for (std::size_t at = 0; at < length; ++at) {
      EXPECT_TRUE(graph_.knows(way[at]));
      if (at > 0) {
        EXPECT_EQ(way[at].from, way[at - 1].to);
      }
    }
  }
  EXPECT_GT(refused, 50);
}

TEST_F(OrderGraph, the_closure_can_be_made_again_from_the_direct_orders) {
  for (int i = 0; i < 200; ++i) static_cast<void>(graph_.add(some_edge(), {}, token_));
  std::vector<std::uint64_t> before;
  for (Row& row : region_->reach)
    for (Word& word : row.words) before.push_back(word.exchange(0));
  Turn turn{region_->turn, token_};
  ASSERT_TRUE(graph_.close(turn));
  ASSERT_TRUE(turn.give_back());
  std::vector<std::uint64_t> after;
  for (const Row& row : region_->reach)
    for (const Word& word : row.words) after.push_back(word.load());
  EXPECT_EQ(before, after);
}

TEST_F(OrderGraph, a_turn_that_its_owner_never_ends_is_taken_over) {
  std::uint32_t other_turns = 0;
  Token other{2, other_turns};
  const Turn dead{region_->turn, other};
  Turn next{region_->turn, token_};
  EXPECT_TRUE(next.taken_over());
  EXPECT_TRUE(next.give_back());
  EXPECT_EQ(region_->turn.load(), 0U);
}

TEST_F(OrderGraph, who_lost_his_turn_is_told) {
  std::uint32_t other_turns = 0;
  Token other{2, other_turns};
  Turn slow{region_->turn, other};
  Turn next{region_->turn, token_};
  EXPECT_FALSE(slow.still_mine());
  EXPECT_FALSE(slow.give_back());
  EXPECT_TRUE(next.still_mine());
  EXPECT_TRUE(next.give_back());
}

TEST_F(OrderGraph, a_handler_takes_over_from_its_own_thread_at_once) {
  Turn interrupted{region_->turn, token_};
  {
    Turn handler{region_->turn, token_};
    EXPECT_TRUE(handler.taken_over());
    EXPECT_TRUE(handler.give_back());
  }
  EXPECT_FALSE(interrupted.give_back());
}

TEST_F(OrderGraph, a_witness_is_what_was_seen_first) {
  Sighting seen;
  seen.process = 12;
  seen.thread = 13;
  seen.frames = 2;
  seen.stack = {7, 8};
  const Edge edge{1, How::exclusive, 2, How::exclusive};
  ASSERT_EQ(graph_.add(edge, seen, token_), Graph::Added::fresh);
  seen.process = 14;
  ASSERT_EQ(graph_.add(edge, seen, token_), Graph::Added::known);
  Sighting found;
  ASSERT_TRUE(graph_.witness(WitnessKey::of(edge), found));
  EXPECT_EQ(found.process, 12U);
  EXPECT_EQ(found.thread, 13U);
  ASSERT_EQ(found.frames, 2U);
  EXPECT_EQ(found.stack[1], 8U);
  EXPECT_FALSE(graph_.witness(WitnessKey::of({2, How::exclusive, 1, How::exclusive}), found));
}

TEST_F(OrderGraph, a_file_full_of_rubbish_crashes_nothing) {
  std::minstd_rand rubbish{7};
  auto* words = reinterpret_cast<Word*>(region_.get());
  for (std::size_t i = 0; i < sizeof(Region) / 8; ++i) words[i] = (std::uint64_t{rubbish()} << 33) ^ rubbish();
  region_->turn = 0;
  auto search = std::make_unique<Graph::Search>();
  for (int i = 0; i < 50; ++i) {
    const Edge edge = some_edge();
    static_cast<void>(graph_.add(edge, {}, token_));
    std::array<Edge, 8> way;
    static_cast<void>(graph_.way_back(edge, *search, way));
    Sighting seen;
    static_cast<void>(graph_.witness(WitnessKey::of(edge), seen));
    EXPECT_LE(seen.frames, kFrames);
    char name[56];
    graph_.name(edge.from, name);
    EXPECT_LT(std::char_traits<char>::length(name), sizeof name);
    graph_.add({.of = edge.from, .how = edge.held, .handler = 1, .open = 1}, {}, token_);
  }
  EXPECT_FALSE(graph_.number(std::uint64_t{99} << 8).has_value());
}

}  // namespace
}  // namespace holdfast::sync::order
