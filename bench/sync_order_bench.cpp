// SPDX-License-Identifier: MIT
// sync_order_bench.cpp - what the lock-order validator adds to nested locks, and what a new order costs.
//
// Chains of 1, 2 and 4 locks are taken and released with three builds of one lock around std::mutex: without the hooks,
// with them switched off, with them on. Off and on are the same code. The three take turns in short slices, and what is
// printed are the slices' quarters, so that whatever else the machine does meets all alike.
#include <holdfast/sync/order.hpp>

#include <time.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "sync/chains.hpp"

namespace {

using namespace holdfast::sync;
using namespace bench;

// The quarter: what a machine that others use shows of itself when it is let alone.
double quarter(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<long>(values.size() / 4), values.end());
  return values[values.size() / 4];
}

double ninth_tenth(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<long>(values.size() * 9 / 10), values.end());
  return values[values.size() * 9 / 10];
}

void must(bool done, const char* what) {
  if (done) return;
  std::fprintf(stderr, "sync_order_bench: %s\n", what);
  std::exit(1);
}

template <std::size_t kDepth>
void compare(std::array<Bare, 4>& bare, std::array<Hooked, 4>& hooked) {
  std::vector<double> bares;
  std::vector<double> off;
  std::vector<double> on;
  for (int turn = 0; turn < 400; ++turn) {
    const double base = chain<kDepth>(bare);
    order::switch_off();
    const double silent = chain<kDepth>(hooked);
    must(!order::switch_on(), "cannot switch on");
    const double loud = chain<kDepth>(hooked);
    if (turn < 20) continue;
    bares.push_back(base);
    off.push_back(silent);
    on.push_back(loud);
  }
  const double base = quarter(bares);
  std::printf("chain of %zu: %.1f ns; off %+.2f ns, on %+.2f ns\n", kDepth, base, quarter(off) - base,
              quarter(on) - base);
  std::printf("ratio sync-order/off %zu %.3f\n", kDepth, quarter(off) / base);
  std::printf("ratio sync-order/on %zu %.3f\n", kDepth, quarter(on) / base);
}

// Called through a few frames, as real locks are: the stack is walked for a new order.
template <int kFrames>
[[gnu::noinline]] void take_pair(const LockClass& outer, const LockClass& inner) {
  if constexpr (kFrames == 0) {
    static int locks[2];
    order::acquiring(outer, &locks[0], order::How::exclusive, order::here());
    order::acquiring(inner, &locks[1], order::How::exclusive, order::here());
    order::released(&locks[1]);
    order::released(&locks[0]);
  } else {
    take_pair<kFrames - 1>(outer, inner);
    asm volatile("" ::: "memory");  // no tail call
  }
}

// All orders among `count` classes, shuffled but for their direction. A graph of its own each.
void new_orders(const char* what, std::size_t count, std::size_t most) {
  static int number = 0;
  const std::string file =
      "/dev/shm/holdfast-order-bench-" + std::to_string(::time(nullptr)) + "-" + std::to_string(++number);
  must(!order::switch_on({.graph = file}), "cannot make a graph in /dev/shm");
  std::remove(file.c_str());
  std::deque<std::string> names;
  std::vector<LockClass> classes;
  for (std::size_t i = 0; i < count; ++i) {
    classes.emplace_back(names.emplace_back("class " + std::to_string(i)).c_str());
    take_pair<6>(classes.back(), LockClass{});  // known, by itself
  }
  std::vector<std::pair<std::size_t, std::size_t>> pairs;
  for (std::size_t outer = 0; outer < count; ++outer)
    for (std::size_t inner = outer + 1; inner < count; ++inner) pairs.emplace_back(outer, inner);
  std::uint64_t random = 42;
  for (std::size_t i = pairs.size(); i-- > 1;) {
    random = random * 6364136223846793005 + 1442695040888963407;
    std::swap(pairs[i], pairs[(random >> 33) % (i + 1)]);
  }
  pairs.resize(std::min(pairs.size(), most));
  std::vector<double> times;
  for (const auto& [outer, inner] : pairs) {
    const double start = nanoseconds();
    take_pair<6>(classes[outer], classes[inner]);
    times.push_back(nanoseconds() - start);
  }
  must(order::contents().orders == pairs.size(), "not every order was new");
  double sum = 0;
  for (const double time : times) sum += time;
  std::printf("new order, %s: mean %.2f us, quarter %.2f us, most of them under %.2f us\n", what,
              sum / 1e3 / static_cast<double>(times.size()), quarter(times) / 1e3, ninth_tenth(times) / 1e3);
}

}  // namespace

int main() {
  std::array<Bare, 4> bare;
  std::array<Hooked, 4> hooked;
  const char* names[] = {"bench.a", "bench.b", "bench.c", "bench.d"};
  for (std::size_t i = 0; i < hooked.size(); ++i) hooked[i].lock_class = LockClass{names[i]};
  must(!order::switch_on(), "cannot switch on");
  compare<1>(bare, hooked);
  compare<2>(bare, hooked);
  compare<4>(bare, hooked);
  new_orders("16 classes", 16, 8000);
  new_orders("100 classes", 100, 8000);
  new_orders("1000 classes", 1000, 8000);
}
