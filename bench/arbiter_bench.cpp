// SPDX-License-Identifier: MIT
// arbiter_bench.cpp - decisions in a second with many waiters, and how the cost of one grows with their number.
//
// A turn is what a busy broker sees: a holder releases (ended), the next one is granted, and somebody queues at the
// end again with a deadline, which is taken out of the middle of the timers at its grant. That is three decisions.
#include <benchmark/benchmark.h>

#include <chrono>
#include <deque>
#include <variant>
#include <vector>

#include "arbiter/arbiter.hpp"

namespace {

using namespace holdfast;
using namespace holdfast::arbiter;

class Load {
 public:
  Load(std::size_t waiters, std::size_t devices, Policy policy, unsigned shared_of_8, std::size_t set)
      : arbiter_{Rules{.policy = policy}}, devices_{devices}, shared_of_8_{shared_of_8}, set_{set} {
    for (std::size_t i = 0; i < waiters + devices; ++i) ask();
  }

  void turn() {
    // The oldest claim: with sets, others may wait for it on several devices.
    if (!held_.empty()) {
      const Granted oldest = held_.front();
      held_.pop_front();
      static_cast<void>(arbiter_.release(now_, oldest.owner, oldest.claim, out_));
      take();
    }
    ask();
  }
  [[nodiscard]] std::size_t decided() const { return decided_; }
  [[nodiscard]] std::size_t waiting() const { return arbiter_.waiting_count(); }

 private:
  void ask() {
    now_ += std::chrono::nanoseconds{100};
    const std::uint64_t mixed = ++asked_ * 0x9E3779B97F4A7C15;
    keys_.clear();
    for (std::size_t i = 0; i < set_; ++i) keys_.push_back(DeviceKey{(mixed >> (16 * i)) % devices_});
    arbiter_.request(now_,
                     {.owner = OwnerId{asked_},
                      .devices = keys_,
                      .mode = mixed >> 61 < shared_of_8_ ? Mode::shared : Mode::exclusive,
                      .patience = Patience::until(now_ + std::chrono::hours{1} + std::chrono::nanoseconds{mixed >> 24}),
                      .priority = static_cast<Priority>((mixed >> 50) % kPriorityCount)},
                     out_);
    take();
  }
  void take() {
    decided_ += out_.all().size();
    for (const Decision& each : out_.all())
      if (const auto* const granted = std::get_if<Granted>(&each)) held_.push_back(*granted);
    out_.clear();
  }

  Arbiter arbiter_;
  std::size_t devices_;
  unsigned shared_of_8_;
  std::size_t set_;
  Decisions out_;
  std::deque<Granted> held_;
  std::vector<DeviceKey> keys_;
  Time now_{};
  std::uint64_t asked_ = 0;
  std::size_t decided_ = 0;
};

void run(benchmark::State& state, Policy policy, unsigned shared_of_8, std::size_t set) {
  Load load{static_cast<std::size_t>(state.range(0)), static_cast<std::size_t>(state.range(1)), policy, shared_of_8,
            set};
  const std::size_t before = load.decided();
  for (auto _ : state) load.turn();
  const auto decided = static_cast<double>(load.decided() - before);
  state.counters["decisions"] = benchmark::Counter{decided, benchmark::Counter::kIsRate};
  state.counters["each"] = benchmark::Counter{decided, benchmark::Counter::kIsRate | benchmark::Counter::kInvert};
  state.counters["waiting"] = static_cast<double>(load.waiting());
}

void exclusive(benchmark::State& state) { run(state, Policy::phase_fair, 0, 1); }
void mixed_phase_fair(benchmark::State& state) { run(state, Policy::phase_fair, 4, 1); }
void mixed_writer_first(benchmark::State& state) { run(state, Policy::writer_first, 4, 1); }
void pairs_of_devices(benchmark::State& state) { run(state, Policy::phase_fair, 4, 2); }

void sizes(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"waiters", "devices"});
  for (const int waiters : {100, 1'000, 10'000, 100'000}) bench->Args({waiters, 1});
  for (const int waiters : {1'000, 10'000, 100'000}) bench->Args({waiters, 1'000});
}
BENCHMARK(exclusive)->Apply(sizes);
BENCHMARK(mixed_phase_fair)->Apply(sizes);
BENCHMARK(mixed_writer_first)->Apply(sizes);
BENCHMARK(pairs_of_devices)->Apply(sizes);

}  // namespace

BENCHMARK_MAIN();
