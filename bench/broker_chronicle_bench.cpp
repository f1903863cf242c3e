// SPDX-License-Identifier: MIT
// broker_chronicle_bench.cpp - what an event costs the broker's loop, and how many a second reach the disk.
#include <benchmark/benchmark.h>
#include <stdlib.h>

#include <filesystem>
#include <string>

#include "broker/chronicle.hpp"

namespace {

using namespace holdfast;
using namespace holdfast::broker;

wire::Event event(std::uint32_t minor) {
  wire::Event made;
  made.kind = wire::EventKind::released;
  made.at = std::chrono::system_clock::now();
  made.device = {"/dev/ttyUSB" + std::to_string(minor), wire::NodeKind::character, 188, minor, 0};
  made.who = {4121, 99'123, "picocom", "joe", made.at, "flash the board", {}};
  made.waited = std::chrono::seconds{3};
  made.held = std::chrono::minutes{2};
  return made;
}

class Directory {
 public:
  Directory() { path_ = ::mkdtemp(path_.data()); }
  Directory(const Directory&) = delete;
  Directory& operator=(const Directory&) = delete;
  ~Directory() { std::filesystem::remove_all(path_); }
  [[nodiscard]] std::string file() const { return path_ + "/history"; }

 private:
  std::string path_ = std::filesystem::temp_directory_path() / "holdfast-bench-XXXXXX";
};

class Reader final : public Listener {
 public:
  bool send(std::span<const std::byte> packet) override {
    benchmark::DoNotOptimize(packet.data());
    return true;
  }
};

void loop_tells(benchmark::State& state) {
  Chronicle chronicle{[](std::string_view) {}};
  std::vector<Reader> readers(static_cast<std::size_t>(state.range(0)));
  for (Reader& reader : readers) chronicle.subscribe(reader, {});
  const wire::Event made = event(0);
  for (auto each : state) chronicle.happened(made);
  state.SetItemsProcessed(static_cast<std::int64_t>(state.iterations()));
}
BENCHMARK(loop_tells)->Arg(0)->Arg(1)->Arg(8)->Arg(64);

// The loop's part alone: the thread takes them away meanwhile.
void loop_hands_to_history(benchmark::State& state) {
  const Directory directory;
  Chronicle chronicle{[](std::string_view) {}};
  chronicle.start_history(directory.file());
  const wire::Event made = event(0);
  for (auto each : state) chronicle.happened(made);
  state.SetItemsProcessed(static_cast<std::int64_t>(state.iterations()));
}
BENCHMARK(loop_hands_to_history)->Iterations(50'000);

void disk_takes(benchmark::State& state) {
  const Directory directory;
  auto file = HistoryFile::open(directory.file());
  if (!file) return state.SkipWithError(file.error().message.c_str());
  std::vector<wire::Event> batch;
  for (std::uint32_t i = 0; i < state.range(0); ++i) batch.push_back(event(i % 16));
  for (auto each : state)
    if (!file->add(batch)) return state.SkipWithError("not written");
  state.SetItemsProcessed(static_cast<std::int64_t>(state.iterations()) * state.range(0));
}
BENCHMARK(disk_takes)->Arg(1)->Arg(32)->Arg(1024)->UseRealTime();

void newest_hundred_of_a_device(benchmark::State& state) {
  const Directory directory;
  auto file = HistoryFile::open(directory.file());
  if (!file) return state.SkipWithError(file.error().message.c_str());
  std::vector<wire::Event> batch;
  for (std::uint32_t i = 0; i < 100'000; ++i) batch.push_back(event(i % 1000));
  if (!file->add(batch)) return state.SkipWithError("not written");
  const wire::HistoryQuery query{{event(7).device}, std::nullopt, 100};
  for (auto each : state) {
    const auto range = file->find(query);
    benchmark::DoNotOptimize(range);
    const auto rows = file->read(query, *range, 512);
    if (!rows || rows->size() != 100) return state.SkipWithError("not read");
  }
}
BENCHMARK(newest_hundred_of_a_device)->UseRealTime();

}  // namespace

BENCHMARK_MAIN();
