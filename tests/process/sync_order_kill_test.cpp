// SPDX-License-Identifier: MIT
// Orders compared between processes through a graph in a file: found across processes and across runs, and whatever was
// half done when a process was killed. Children are forked without threads; they talk by their exit status and the
// file.
#include <holdfast/sync/order.hpp>

#include "sync/order_graph.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <memory>
#include <random>
#include <string>
#include <vector>

namespace holdfast::sync {
namespace {

using namespace std::chrono_literals;
using order::How;
using order::Report;

int seen = 0;
Report::Kind last_kind{};
std::string last_text;
std::string last_steps;
pid_t other_process = 0;

void note(const Report& report, void*) {
  ++seen;
  last_kind = report.kind;
  last_text = order::to_string(report);
  last_steps.clear();
  for (const order::Acquisition& one : report.acquisitions)
    last_steps += std::string{one.wanted} + "<" + (one.held != nullptr ? one.held : "") + " ";
  if (!report.acquisitions.empty()) other_process = report.acquisitions.back().process;
}

// Takes the classes in this order, all of them held in the end.
void take(const std::vector<const char*>& names) {
  std::array<int, 8> locks{};
  for (std::size_t i = 0; i < names.size(); ++i)
    order::acquiring(LockClass{names[i]}, &locks[i], How::exclusive, order::here());
  for (std::size_t i = names.size(); i-- > 0;) order::released(&locks[i]);
}

// This program as another one, for the test of the environment: that is asked once, at the first lock.
[[maybe_unused]] const bool as_a_program = [] {
  const char* reverse = ::getenv("ORDER_TEST_REVERSE");
  if (reverse == nullptr) return false;
  take(*reverse == '1' ? std::vector{"env.b", "env.a"} : std::vector{"env.a", "env.b"});
  ::_exit(static_cast<int>(10 + order::contents().reports));
}();

class OrderBetweenProcesses : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/dev/shm/holdfast-order-XXXXXX";
    const int fd = ::mkstemp(name);
    ASSERT_GE(fd, 0);
    ::close(fd);
    graph_ = name;
    seen = 0;
  }
  void TearDown() override {
    order::switch_off();
    ::unlink(graph_.c_str());
  }
  [[nodiscard]] std::error_code on() const { return order::switch_on({.graph = graph_, .handler = &note}); }

  // What `body` returns in a child, or minus the signal that ended it.
  template <class Body>
  int in_child(Body&& body) const {
    const pid_t child = ::fork();
    if (child == 0) ::_exit(body());
    return ended(child);
  }
  static int ended(pid_t child) {
    int status = 0;
    EXPECT_EQ(::waitpid(child, &status, 0), child);
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
  }
  // In a child with this graph: the number of findings.
  int child_takes(const std::vector<const char*>& names) const {
    return in_child([&] {
      if (on()) return 99;
      take(names);
      return seen;
    });
  }

  std::string graph_;
};

TEST_F(OrderBetweenProcesses, an_inversion_between_two_processes_is_found_by_the_second) {
  EXPECT_EQ(child_takes({"across.a", "across.b"}), 0);
  ASSERT_FALSE(on());
  take({"across.b", "across.a"});
  ASSERT_EQ(seen, 1);
  EXPECT_EQ(last_kind, Report::Kind::inversion);
  EXPECT_EQ(last_steps, "across.a<across.b across.b<across.a ");
  EXPECT_NE(other_process, ::getpid());
  EXPECT_NE(other_process, 0);
  EXPECT_THAT(last_text, testing::HasSubstr("[" + std::to_string(other_process) + "]"));
}

TEST_F(OrderBetweenProcesses, a_cycle_over_three_processes_is_found_by_the_third) {
  EXPECT_EQ(child_takes({"ring.a", "ring.b"}), 0);
  EXPECT_EQ(child_takes({"ring.b", "ring.c"}), 0);
  EXPECT_EQ(child_takes({"ring.c", "ring.a"}), 1);
}

TEST_F(OrderBetweenProcesses, the_graph_survives_a_restart_and_a_finding_is_told_again) {
  EXPECT_EQ(child_takes({"again.a", "again.b"}), 0);
  EXPECT_EQ(child_takes({"again.b", "again.a"}), 1);
  EXPECT_EQ(child_takes({"again.b", "again.a"}), 1);
  EXPECT_EQ(child_takes({"again.a", "again.b"}), 0);
}

TEST_F(OrderBetweenProcesses, a_forked_child_holds_what_its_parent_held) {
  ASSERT_FALSE(on());
  const int a = 0;
  order::acquiring(LockClass{"fork.a"}, &a, How::exclusive, order::here());
  EXPECT_EQ(in_child([] {
              take({"fork.b"});
              return static_cast<int>(order::contents().orders);
            }),
            1);
  order::released(&a);
  take({"fork.b", "fork.a"});
  EXPECT_EQ(seen, 1);
}

TEST_F(OrderBetweenProcesses, the_environment_switches_it_on_with_a_graph) {
  const auto run = [&](const char* mode, bool reverse) {
    return in_child([&] {
      ::setenv("HOLDFAST_ORDER", mode, 1);
      ::setenv("HOLDFAST_ORDER_GRAPH", graph_.c_str(), 1);
      ::setenv("ORDER_TEST_REVERSE", reverse ? "1" : "0", 1);
      const int null = ::open("/dev/null", O_WRONLY | O_CLOEXEC);
      ::dup2(null, STDERR_FILENO);
      ::dup2(null, STDOUT_FILENO);
      ::execl("/proc/self/exe", "order", nullptr);
      return 99;
    });
  };
  EXPECT_EQ(run("on", false), 10);
  EXPECT_EQ(run("off", true), 10);
  EXPECT_EQ(run("on", true), 11);
  EXPECT_EQ(run("abort", true), -SIGABRT);
}

TEST_F(OrderBetweenProcesses, the_block_on_stderr_names_both_sides) {
  EXPECT_EQ(child_takes({"text.a", "text.b"}), 0);
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  EXPECT_EQ(in_child([&] {
              ::dup2(ends[1], STDERR_FILENO);
              if (order::switch_on({.graph = graph_})) return 99;
              take({"text.b", "text.a"});
              return 0;
            }),
            0);
  ::close(ends[1]);
  std::string text(65536, '\0');
  text.resize(static_cast<std::size_t>(std::max<ssize_t>(::read(ends[0], text.data(), text.size()), 0)));
  ::close(ends[0]);
  EXPECT_THAT(text, testing::StartsWith("holdfast: lock order inversion: \"text.a\" is taken under \"text.b\""));
  EXPECT_THAT(text, testing::HasSubstr("\n  now, "));
  EXPECT_THAT(text, testing::HasSubstr("\n  seen, "));
}

// Deaths.

int steps_left = 0;
void die_when_it_is_time() {
  if (steps_left-- == 0) ::raise(SIGKILL);
}

class OrderAndDeath : public OrderBetweenProcesses {
 protected:
  void SetUp() override {
    OrderBetweenProcesses::SetUp();
    ASSERT_FALSE(on());  // makes the file what it must be
    order::switch_off();
    const int fd = ::open(graph_.c_str(), O_RDWR | O_CLOEXEC);
    ASSERT_GE(fd, 0);
    void* memory = ::mmap(nullptr, sizeof(order::Region), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    ::close(fd);
    ASSERT_NE(memory, MAP_FAILED);
    region_ = static_cast<order::Region*>(memory);
  }
  void TearDown() override {
    if (region_ != nullptr) ::munmap(region_, sizeof(order::Region));
    OrderBetweenProcesses::TearDown();
  }
  void empty() const {
    ASSERT_EQ(::truncate(graph_.c_str(), 0), 0);
    ASSERT_EQ(::truncate(graph_.c_str(), sizeof(order::Region)), 0);
    region_->magic = order::kMagic;
  }
  order::Region* region_ = nullptr;
};

// Adds a chain of orders, a use in a handler, and names.
void add_all(order::Graph& graph, std::uint64_t token_number) {
  std::uint32_t turns = 0;
  order::Token token{token_number, turns};
  const char* names[] = {"death.a", "death.b", "death.c", "death.d", "death.e", "death.f"};
  for (order::ClassIndex i = 0; i < 6; ++i) {
    static_cast<void>(graph.number(LockClass{names[i]}.key()));
    if (!graph.has_name(i)) graph.set_name(i, names[i]);
  }
  order::Sighting sighting;
  sighting.frames = 3;
  static_cast<void>(graph.add({4, How::exclusive, 5, How::exclusive}, sighting, token));
  static_cast<void>(graph.add({3, How::exclusive, 4, How::recursive_shared}, sighting, token));
  for (const order::ClassIndex from : {2U, 0U, 1U})  // the last one joins two
    static_cast<void>(graph.add({from, How::exclusive, from + 1, How::exclusive}, sighting, token));
  graph.add({.of = 0, .how = How::exclusive, .handler = 2, .open = 4}, sighting, token);
}

TEST_F(OrderAndDeath, a_death_at_any_step_leaves_a_graph_that_the_next_completes) {
  std::vector<std::uint64_t> whole;
  int steps = 0;
  for (;; ++steps) {
    ASSERT_LT(steps, 2000);
    empty();
    const int end = in_child([&] {
      steps_left = steps;
      order::Graph graph{*region_, &die_when_it_is_time};
      add_all(graph, 77);
      return 0;
    });
    if (end == 0) break;  // there were no more steps
    ASSERT_EQ(end, -SIGKILL);
    const auto start = std::chrono::steady_clock::now();
    order::Graph graph{*region_};
    add_all(graph, 78);
    EXPECT_LT(std::chrono::steady_clock::now() - start, 1s);
    ASSERT_EQ(graph.classes(), 6U);
    ASSERT_TRUE(graph.closes_cycle({5, How::exclusive, 0, How::exclusive})) << "after a death at step " << steps;
    ASSERT_TRUE(graph.closes_cycle({4, How::exclusive, 0, How::exclusive}));
    ASSERT_FALSE(graph.closes_cycle({4, How::shared, 0, How::exclusive}));  // arrived at by recursive readers alone
    for (order::ClassIndex from = 0; from < 4; ++from)
      for (order::ClassIndex to = 0; to < 4; ++to)
        ASSERT_EQ(graph.closes_cycle({from, How::exclusive, to, How::exclusive}), to <= from)
            << from << " " << to << " after a death at step " << steps;
    std::uint32_t turns = 0;
    order::Token token{79, turns};
    EXPECT_EQ(graph.add({3, How::exclusive, 0, How::exclusive}, {}, token), order::Graph::Added::closes_cycle);
    order::Sighting found;
    ASSERT_TRUE(graph.witness(order::WitnessKey::of({1, How::exclusive, 2, How::exclusive}), found));
    EXPECT_EQ(found.frames, 3U);
    EXPECT_EQ(graph.handler_signals(0), 2U);
    char name[56];
    graph.name(3, name);
    EXPECT_STREQ(name, "death.d");
    EXPECT_EQ(region_->turn.load(), 0U);
  }
  EXPECT_GT(steps, 40);
  RecordProperty("steps", steps);
}

TEST_F(OrderAndDeath, an_order_that_died_half_made_is_found_by_its_reverse) {
  // Killed after the direct bits and before the closure: the next one must not believe the closure.
  int found_direct = 0;
  for (int steps = 0;; ++steps) {
    empty();
    const int end = in_child([&] {
      steps_left = steps;
      order::Graph graph{*region_, &die_when_it_is_time};
      add_all(graph, 77);
      return 0;
    });
    if (end == 0) break;
    order::Graph graph{*region_};
    const order::Edge edge{1, How::exclusive, 2, How::exclusive};
    if (!graph.knows(edge)) continue;
    ++found_direct;
    std::uint32_t turns = 0;
    order::Token token{79, turns};
    ASSERT_EQ(graph.add({3, How::exclusive, 0, How::exclusive}, {}, token), order::Graph::Added::closes_cycle)
        << "after a death at step " << steps;
  }
  EXPECT_GT(found_direct, 5);
}

TEST_F(OrderAndDeath, a_stopped_process_stops_nobody) {
  const pid_t child = ::fork();
  if (child == 0) {
    std::uint32_t turns = 0;
    order::Token token{77, turns};
    const order::Turn turn{region_->turn, token};
    ::raise(SIGSTOP);
    ::_exit(0);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, WUNTRACED), child);
  ASSERT_TRUE(WIFSTOPPED(status));
  ASSERT_FALSE(on());
  const auto start = std::chrono::steady_clock::now();
  take({"stop.a", "stop.b"});
  take({"stop.b", "stop.a"});
  EXPECT_LT(std::chrono::steady_clock::now() - start, 2s);
  EXPECT_EQ(seen, 1);
  ::kill(child, SIGKILL);
  ended(child);
}

TEST_F(OrderAndDeath, kills_at_random_wedge_nobody_and_lose_no_order) {
  const char* names[] = {"storm.0", "storm.1", "storm.2", "storm.3", "storm.4", "storm.5", "storm.6", "storm.7"};
  std::minstd_rand random{std::random_device{}()};
  for (int killed = 0; killed < 600;) {
    std::array<pid_t, 3> children;
    for (pid_t& child : children) {
      child = ::fork();
      if (child != 0) continue;
      // Switched on anew each time, so that the thread forgets what it found in order and asks the graph.
      std::minstd_rand mine{static_cast<unsigned>(::getpid())};
      for (;;) {
        if (on()) ::_exit(99);
        const std::size_t first = mine() % 7;
        take({names[first], names[first + 1 + mine() % (7 - first)]});
        order::switch_off();
      }
    }
    ::usleep(static_cast<useconds_t>(random() % 3000));
    for (const pid_t child : children) ::kill(child, SIGKILL);
    for (const pid_t child : children) {
      ASSERT_EQ(ended(child), -SIGKILL);
      ++killed;
    }
    if (killed % 30 == 0) {  // nothing false, nothing wedged; then from the start
      ASSERT_FALSE(on());
      take({"storm.0", "storm.1", "storm.2", "storm.3", "storm.4", "storm.5", "storm.6", "storm.7"});
      ASSERT_EQ(seen, 0) << last_text;
      take({"storm.7", "storm.0"});
      ASSERT_EQ(seen, 1);
      seen = 0;
      order::switch_off();
      ::unlink(graph_.c_str());
      SetUp();
    }
  }
}

}  // namespace
}  // namespace holdfast::sync
