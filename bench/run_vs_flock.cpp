// SPDX-License-Identifier: MIT
// run_vs_flock.cpp - the whole process, from posix_spawn to the exit status: `holdfast run -n DEVICE -- true` against
// `flock -n FILE true`, on a pseudo-terminal and on a loop device of our own. The two take turns, so that whatever else
// the machine does meets both alike; medians are compared.
//
// usage: run_vs_flock HOLDFAST [ROUNDS]
#include <fcntl.h>
#include <linux/loop.h>
#include <pty.h>
#include <spawn.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;
using Microseconds = std::chrono::duration<double, std::micro>;

// How long the program ran; ends the benchmark when it did not succeed.
double time_of(const std::vector<std::string>& words) {
  std::vector<char*> argv;
  for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
  const auto start = Clock::now();
  pid_t child = -1;
  int status = -1;
  if (::posix_spawn(&child, argv[0], &actions, nullptr, argv.data(), environ) != 0 ||
      ::waitpid(child, &status, 0) != child || status != 0) {
    std::fprintf(stderr, "%s did not succeed: wait status %d\n", argv[0], status);
    std::exit(1);
  }
  const double time = Microseconds{Clock::now() - start}.count();
  ::posix_spawn_file_actions_destroy(&actions);
  return time;
}

double quantile(std::vector<double> times, double part) {
  const auto at = static_cast<std::ptrdiff_t>(part * static_cast<double>(times.size() - 1));
  std::ranges::nth_element(times, times.begin() + at);
  return times[static_cast<std::size_t>(at)];
}

using Command = std::vector<std::string>;

void compare(const std::string& what, const Command& ours, const Command& theirs, int rounds) {
  std::array<std::vector<double>, 2> times;
  for (int warm_up = 0; warm_up < 5; ++warm_up) time_of(warm_up % 2 == 0 ? ours : theirs);
  for (int round = 0; round < rounds; ++round) {
    // The order changes, or one would always run in the wake of the other.
    const bool ours_first = round % 2 == 0;
    const double first = time_of(ours_first ? ours : theirs);
    const double second = time_of(ours_first ? theirs : ours);
    times[0].push_back(ours_first ? first : second);
    times[1].push_back(ours_first ? second : first);
  }
  std::array<double, 2> medians{};
  for (std::size_t i = 0; i < 2; ++i) {
    medians[i] = quantile(times[i], 0.5);
    std::printf("%s: %s %.0f us (tenth %.0f, nine tenths %.0f)\n", what.c_str(), i == 0 ? "holdfast" : "flock",
                medians[i], quantile(times[i], 0.1), quantile(times[i], 0.9));
  }
  std::printf("ratio holdfast/flock %s %.2f\n", what.c_str(), medians[0] / medians[1]);
}

// A loop device over a file of our own; empty when the machine lacks them or we may not.
class Loop {
 public:
  Loop() {
    std::string file = "/tmp/holdfast-bench-XXXXXX";
    backing_ = ::mkostemp(file.data(), O_CLOEXEC);
    if (backing_ < 0) return;
    ::unlink(file.c_str());
    if (::ftruncate(backing_, 1 << 20) != 0) return;
    const int control = ::open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    if (control < 0) return;
    for (int attempt = 0; attempt < 8 && path_.empty(); ++attempt) {
      const std::string path = "/dev/loop" + std::to_string(::ioctl(control, LOOP_CTL_GET_FREE));
      const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
      // Somebody else may have taken the free number meanwhile.
      if (fd >= 0 && ::ioctl(fd, LOOP_SET_FD, backing_) == 0) path_ = path;
      if (fd >= 0) ::close(fd);
    }
    ::close(control);
  }
  ~Loop() {
    if (const int fd = path_.empty() ? -1 : ::open(path_.c_str(), O_RDWR | O_CLOEXEC); fd >= 0) {
      ::ioctl(fd, LOOP_CLR_FD);
      ::close(fd);
    }
    ::close(backing_);
  }
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  int backing_ = -1;
  std::string path_;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: run_vs_flock HOLDFAST [ROUNDS]\n");
    return 2;
  }
  const std::string holdfast = argv[1];
  const int rounds = argc > 2 ? std::atoi(argv[2]) : 200;
  const std::string flock = "/usr/bin/flock";
  const std::string nothing = "/bin/true";

  std::string file = "/tmp/holdfast-bench-lock-XXXXXX";
  if (const int fd = ::mkostemp(file.data(), O_CLOEXEC); fd >= 0) ::close(fd);
  const Command theirs{flock, "-n", file, nothing};

  int master = -1;
  int slave = -1;
  std::array<char, 64> pty{};
  if (::openpty(&master, &slave, pty.data(), nullptr, nullptr) != 0) return 1;
  ::close(slave);
  ::fcntl(master, F_SETFD, FD_CLOEXEC);
  compare("a pty", {holdfast, "run", "-n", pty.data(), "--", nothing}, theirs, rounds);
  if (const Loop loop; !loop.path().empty())
    compare("a loop device", {holdfast, "run", "-n", loop.path(), "--", nothing}, theirs, rounds);
  else
    std::fprintf(stderr, "no loop device to be had here\n");
  compare("starting alone", {holdfast, "--version"}, {flock, "--version"}, rounds);
  ::unlink(file.c_str());
  return 0;
}
