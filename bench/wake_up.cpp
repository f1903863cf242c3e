// SPDX-License-Identifier: MIT
// wake_up.cpp - from one holder's release to the next one's being told: two processes pass a pseudo-terminal to and
// fro, by holdfast and by a blocking flock(2). The kernel wakes a flock waiter itself; ours is woken by the close event
// and then claims everything anew, so the ratio says what waiting without a broker costs.
//
// usage: wake_up [ROUNDS]
#include <holdfast/claim.hpp>

#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;  // CLOCK_MONOTONIC: one clock for all processes

// In memory that both processes see.
struct Shared {
  std::atomic<std::int64_t> released_at{0};
};

std::int64_t now() { return Clock::now().time_since_epoch().count(); }

struct Pipe {
  Pipe() {
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) std::exit(1);
  }
  void say() const {
    if (::write(ends[1], "x", 1) != 1) std::exit(1);
  }
  void await() const {
    char byte = 0;
    if (::read(ends[0], &byte, 1) != 1) std::exit(1);
  }
  std::array<int, 2> ends{};
};

// `Lock` has take(), which waits, and give_back(). The child holds first; the parent waits, and notes how long after
// the release it got through.
template <class Lock>
std::vector<double> measure(const std::string& path, int rounds) {
  void* const memory = ::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  auto* const shared = new (memory) Shared;
  const Pipe begin;
  const Pipe taken;
  const pid_t child = ::fork();
  if (child == 0) {
    for (int round = 0; round < rounds; ++round) {
      begin.await();
      Lock lock{path};
      lock.take();
      taken.say();
      ::poll(nullptr, 0, 30);  // the waiter must be asleep by then, or there is nothing to wake
      shared->released_at = now();
      lock.give_back();
    }
    ::_exit(0);
  }
  std::vector<double> times;
  for (int round = 0; round < rounds; ++round) {
    begin.say();
    taken.await();
    Lock lock{path};
    lock.take();
    times.push_back(static_cast<double>(now() - shared->released_at) / 1000.0);
    lock.give_back();
  }
  ::waitpid(child, nullptr, 0);
  ::munmap(memory, sizeof(Shared));
  std::ranges::sort(times);
  return times;
}

class ByHoldfast {
 public:
  explicit ByHoldfast(std::string path) : path_{std::move(path)} {}
  void take() {
    holdfast::Options options;
    options.wait = holdfast::Wait::for_ever();
    auto claim = holdfast::claim(path_, options);
    if (!claim) {
      std::fprintf(stderr, "%s\n", claim.error().message.c_str());
      std::exit(1);
    }
    claim_ = std::move(*claim);
  }
  void give_back() { claim_.release(); }

 private:
  std::string path_;
  holdfast::Claim claim_;
};

class ByFlock {
 public:
  explicit ByFlock(const std::string& path) : fd_{::open(path.c_str(), O_RDWR | O_NOCTTY | O_CLOEXEC)} {}
  void take() const {
    if (::flock(fd_, LOCK_EX) != 0) std::exit(1);
  }
  void give_back() const { ::close(fd_); }

 private:
  int fd_;
};

}  // namespace

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 100;
  int master = -1;
  int slave = -1;
  std::array<char, 64> pty{};
  if (::openpty(&master, &slave, pty.data(), nullptr, nullptr) != 0) return 1;
  std::vector<double> ours;
  std::vector<double> theirs;
  for (int part = 0; part < 4; ++part) {  // taking turns: the machine's other work meets both alike
    for (const double time : measure<ByHoldfast>(pty.data(), rounds / 4)) ours.push_back(time);
    for (const double time : measure<ByFlock>(pty.data(), rounds / 4)) theirs.push_back(time);
  }
  std::ranges::sort(ours);
  std::ranges::sort(theirs);
  const auto print = [](const char* name, const std::vector<double>& times) {
    std::printf("release to next holder: %s %.0f us (nine tenths %.0f, most %.0f)\n", name, times[times.size() / 2],
                times[times.size() * 9 / 10], times.back());
  };
  print("holdfast", ours);
  print("flock", theirs);
  std::printf("ratio holdfast/flock wake-up %.2f\n", ours[ours.size() / 2] / theirs[theirs.size() / 2]);
  return 0;
}
