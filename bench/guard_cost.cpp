// SPDX-License-Identifier: MIT
// guard_cost.cpp - what the guard costs those who claim nothing: without it, installed, and with claims of other
// devices, in turns; and how soon a claim is enforced. Run where BPF programs can be loaded:
//
//   tests/vm/vm --machine guard_cost --counted run --seconds 600 -- build/release/bench/guard_cost
//
// In that machine one instruction takes one nanosecond, so the figures are instructions, and the same on a busy host.
#include "guard/guard.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace {

using holdfast::guard::Enforced;
using holdfast::guard::Guard;
using Clock = std::chrono::steady_clock;

constexpr int kTurns = 9;
constexpr std::chrono::milliseconds kSample{20};

[[noreturn]] void fail(const std::string& what) {
  fmt::print(stderr, "guard_cost: {}\n", what);
  std::exit(1);
}

template <class T>
T must(holdfast::Result<T> result) {
  if (!result) fail(result.error().message);
  if constexpr (!std::is_void_v<T>) return std::move(*result);
}

int opened(const char* path, int flags) {
  const int fd = ::open(path, flags | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0600);
  if (fd < 0) fail(path);
  return fd;
}

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

// Nanoseconds for one call.
double cost(const std::function<void()>& call) {
  long calls = 0;
  const auto begin = Clock::now();
  auto now = begin;
  for (; now - begin < kSample; now = Clock::now())
    for (int i = 0; i < 200; ++i, ++calls) call();
  return std::chrono::duration<double, std::nano>{now - begin}.count() / static_cast<double>(calls);
}

struct Operation {
  const char* name;
  std::function<void()> call;
  std::array<std::vector<double>, 3> cost;  // by phase
};

class Owner {
 public:
  Owner() : pid_{::fork()} {
    if (pid_ == 0)
      while (true) ::pause();
    fd_ = static_cast<int>(::syscall(SYS_pidfd_open, pid_, 0));
  }
  Owner(const Owner&) = delete;
  Owner& operator=(const Owner&) = delete;
  ~Owner() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    ::close(fd_);
  }
  [[nodiscard]] int pidfd() const { return fd_; }

 private:
  pid_t pid_;
  int fd_ = -1;
};

std::vector<holdfast::device::Node> nodes(std::span<const char* const> paths) {
  std::vector<holdfast::device::Node> found;
  for (const char* const path : paths) found.push_back(must(holdfast::device::look_at(path)));
  return found;
}

constexpr std::array kOthers{"/dev/ttyUSB0", "/dev/ttyUSB1", "/dev/vda", "/dev/sr0", "/dev/sg0", "/dev/st0"};

std::vector<Operation> operations() {
  static const int zero = opened("/dev/zero", O_RDONLY);
  static const int null = opened("/dev/null", O_WRONLY);
  static const int port = opened("/dev/ttyS1", O_RDWR);
  static const int disk = opened("/dev/sda", O_RDONLY);
  static const int file = opened("/dev/shm/file", O_RDWR | O_CREAT);
  static std::array<char, 4096> bytes{};
  if (::write(file, bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size())) fail("/dev/shm/file");
  const auto ignore = [](ssize_t) {};
  return {{"read 1 byte of /dev/zero", [=] { ignore(::read(zero, bytes.data(), 1)); }, {}},
          {"write 1 byte to /dev/null", [=] { ignore(::write(null, bytes.data(), 1)); }, {}},
          {"ioctl FIONREAD on a serial port",
           [=] {
             int waiting = 0;
             ignore(::ioctl(port, FIONREAD, &waiting));
           },
           {}},
          {"read 512 bytes of a disk", [=] { ignore(::pread(disk, bytes.data(), 512, 0)); }, {}},
          {"read 4 KiB of a regular file", [=] { ignore(::pread(file, bytes.data(), bytes.size(), 0)); }, {}},
          {"open and close a regular file", [] { ::close(::open("/dev/shm/file", O_RDONLY | O_CLOEXEC)); }, {}},
          {"getppid (nothing is asked)", [] { ::getppid(); }, {}}};
}

void in_turns(std::vector<Operation>& all, const Owner& owner) {
  for (int turn = 0; turn < kTurns; ++turn) {
    for (std::size_t phase = 0; phase < 3; ++phase) {
      std::optional<Guard> guard;
      std::optional<Enforced> claim;
      must(holdfast::guard::remove());
      if (phase > 0) {
        must(holdfast::guard::install());
        guard.emplace(must(Guard::open()));
      }
      if (phase == 2)
        claim.emplace(must(guard->enforce(nodes(kOthers), {.pidfd = owner.pidfd()}, holdfast::Mode::exclusive)));
      ::poll(nullptr, 0, 300);  // until what was replaced is gone: that is done behind our back
      for (Operation& one : all) one.cost.at(phase).push_back(cost(one.call));
      if (claim) guard->release(*claim);
    }
  }
}

void tell(const std::vector<Operation>& all) {
  fmt::print("| call | without, ns | installed | with claims of 6 other devices |\n|---|---|---|---|\n");
  for (const Operation& one : all) {
    std::array<std::vector<double>, 2> ratios;
    for (std::size_t turn = 0; turn < kTurns; ++turn)
      for (std::size_t phase = 1; phase < 3; ++phase)
        ratios.at(phase - 1).push_back(one.cost.at(phase)[turn] / one.cost[0][turn]);
    fmt::print("| {} | {:.0f} | {:.3f} | {:.3f} |\n", one.name, median(one.cost[0]), median(ratios[0]),
               median(ratios[1]));
  }
}

double microseconds(const std::function<void()>& call) {
  const auto begin = Clock::now();
  call();
  return std::chrono::duration<double, std::micro>{Clock::now() - begin}.count();
}

void tell(const char* what, std::vector<double> times) {
  fmt::print("{}: {:.0f} us median, {:.0f} us at most of {}\n", what, median(times), *std::ranges::max_element(times),
             times.size());
}

// From the call of enforce() to its return, from which on strangers are refused.
void claim_to_enforced(Guard& guard, const std::vector<holdfast::device::Node>& wanted, const Owner& owner) {
  std::optional<Enforced> claim;
  const auto enforce = [&] {
    claim.emplace(must(guard.enforce(wanted, {.pidfd = owner.pidfd()}, holdfast::Mode::exclusive)));
  };
  std::vector<double> first;
  for (int i = 0; i < kTurns; ++i) {
    guard.rest();
    ::poll(nullptr, 0, 300);  // until the hooks are off: that is done behind our back
    first.push_back(microseconds(enforce));
    guard.release(*claim);
  }
  tell("claim to enforced, the first after a rest", first);
  std::vector<double> next;
  for (int i = 0; i < 100; ++i) {
    next.push_back(microseconds(enforce));
    guard.release(*claim);
  }
  tell("claim to enforced, the next ones", next);
}

void refusals(const char* path) {
  std::fflush(stdout);
  const pid_t stranger = ::fork();
  if (stranger == 0) {
    const auto refused = [&] {
      if (::open(path, O_RDWR | O_NONBLOCK | O_NOCTTY | O_CLOEXEC) >= 0) fail("was not refused");
    };
    std::vector<double> denied;
    std::vector<double> opens;
    for (int i = 0; i < kTurns; ++i) {
      denied.push_back(cost(refused));
      opens.push_back(cost([] { ::close(::open("/dev/zero", O_RDONLY | O_CLOEXEC)); }));
    }
    fmt::print("a refused open: {:.0f} ns, {:.2f} x an open and close of /dev/zero\n", median(denied),
               median(denied) / median(opens));
    std::fflush(stdout);
    ::_exit(0);
  }
  ::waitpid(stranger, nullptr, 0);
}

void latency(const Owner& owner) {
  must(holdfast::guard::install());
  Guard guard = must(Guard::open());
  static constexpr std::array kOne{"/dev/ttyUSB0"};
  const auto wanted = nodes(kOne);
  claim_to_enforced(guard, wanted, owner);
  const Enforced claim = must(guard.enforce(wanted, {.pidfd = owner.pidfd()}, holdfast::Mode::exclusive));
  refusals(kOne[0]);
  guard.release(claim);
}

}  // namespace

int main() {
  const Owner owner;
  std::vector<Operation> all = operations();
  in_turns(all, owner);
  tell(all);
  latency(owner);
  must(holdfast::guard::remove());
  return 0;
}
