// SPDX-License-Identifier: MIT
// kernel.cpp - see the header.
#include "vm/support/kernel.hpp"

#include "interop/support/program.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>
#include <thread>

namespace holdfast::vm {

using base::UniqueFd;
using interop::eventually;
using testing_support::Child;
using testing_support::kPatience;
using testing_support::Peer;
using Clock = std::chrono::steady_clock;

std::string text_of(const std::string& path) {
  std::ifstream file{path};
  std::stringstream text;
  text << file.rdbuf();
  std::string result = text.str();
  if (result.ends_with('\n')) result.pop_back();
  return result;
}

long number_in(const std::string& path) {
  const std::string text = text_of(path);
  return text.empty() ? -1 : std::atol(text.c_str());
}

bool write_text(const std::string& path, const std::string& text) {
  const UniqueFd file{::open(path.c_str(), O_WRONLY | O_CLOEXEC)};
  return file && ::write(file.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size());
}

bool sleeps_in(pid_t pid, long system_call) {
  const std::string wanted = std::to_string(system_call) + " ";
  // Only a process that sleeps shows its call there; one that runs shows "running".
  return eventually([&] { return text_of("/proc/" + std::to_string(pid) + "/syscall").starts_with(wanted); }, {}, {},
                    kPatience);
}

InTheMiddle::InTheMiddle(const std::function<int(char* memory, Peer& test)>& body)
    : child_{[&](Peer& test) {
        const UniqueFd faults{static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK))};
        uffdio_api api{.api = UFFD_API, .features = 0, .ioctls = 0};
        void* memory = ::mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        uffdio_register range{.range = {.start = reinterpret_cast<std::uint64_t>(memory), .len = kSize},
                              .mode = UFFDIO_REGISTER_MODE_MISSING,
                              .ioctls = 0};
        if (!faults || memory == MAP_FAILED || ::ioctl(faults.get(), UFFDIO_API, &api) != 0 ||
            ::ioctl(faults.get(), UFFDIO_REGISTER, &range) != 0) {
          test.tell(std::string{"no userfaultfd: "} + std::strerror(errno));
          return 1;
        }
        test.tell("ready " + std::to_string(faults.get()) + " " + std::to_string(range.range.start));
        test.hear();
        return body(static_cast<char*>(memory), test);
      }} {
  std::istringstream words{child_.hear()};
  std::string ready;
  int number = -1;
  if (!(words >> ready >> number >> address_) || ready != "ready") {
    missing_ = words.str();
    return;
  }
  faults_ = UniqueFd{static_cast<int>(::syscall(SYS_pidfd_getfd, child_.pidfd(), number, 0))};
  if (!faults_) missing_ = std::string{"no pidfd_getfd: "} + std::strerror(errno);
  child_.tell("go");
}

bool InTheMiddle::reached() const {
  pollfd fault{faults_.get(), POLLIN, 0};
  uffd_msg message{};
  return ::poll(&fault, 1, static_cast<int>(kPatience.count())) == 1 &&
         ::read(faults_.get(), &message, sizeof message) == sizeof message && message.event == UFFD_EVENT_PAGEFAULT;
}

void InTheMiddle::go_on(char fill) const {
  alignas(kSize) std::array<char, kSize> page{};
  page.fill(fill);
  uffdio_copy copy{
      .dst = address_, .src = reinterpret_cast<std::uint64_t>(page.data()), .len = kSize, .mode = 0, .copy = 0};
  EXPECT_EQ(::ioctl(faults_.get(), UFFDIO_COPY, &copy), 0) << std::strerror(errno);
}

MemoryLimit::MemoryLimit(std::size_t bytes) : path_{"/sys/fs/cgroup/limited"} {
  write_text("/sys/fs/cgroup/cgroup.subtree_control", "+memory");
  std::error_code error;
  std::filesystem::create_directory(path_, error);
  if (error || !write_text(path_ + "/memory.max", std::to_string(bytes))) missing_ = "no control group for memory";
}

MemoryLimit::~MemoryLimit() {
  EXPECT_TRUE(eventually([&] { return ::rmdir(path_.c_str()) == 0 || errno == ENOENT; }, {}, {}, kPatience))
      << std::strerror(errno);
}

long MemoryLimit::event(const std::string& name) const {
  std::istringstream lines{text_of(path_ + "/memory.events")};
  std::string word;
  long count = 0;
  while (lines >> word >> count) {
    if (word == name) return count;
  }
  return -1;
}

long MemoryLimit::usage() const { return number_in(path_ + "/memory.current"); }

int with_each_failure(const std::function<void()>& call, const std::function<void()>& after) {
  const UniqueFd nth{::open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC)};
  if (!nth) return -1;
  // Allocations that may sleep are spared unless this says so; and each failure would be told with its stack.
  if (!write_text("/sys/kernel/debug/failslab/ignore-gfp-wait", "N") ||
      !write_text("/sys/kernel/debug/failslab/verbose", "0") ||
      !write_text("/sys/kernel/debug/fail_usercopy/verbose", "0"))
    return -1;
  for (int failures = 0; failures < 1000; ++failures) {
    const std::string which = std::to_string(failures + 1);
    if (::pwrite(nth.get(), which.data(), which.size(), 0) < 0) return -1;
    call();
    std::array<char, 16> left{};
    // These two copy as well. Where it is their copy that fails, the call had nothing left to fail.
    const bool failed = ::pread(nth.get(), left.data(), left.size() - 1, 0) > 0 && std::atoi(left.data()) == 0;
    while (::pwrite(nth.get(), "0", 1, 0) < 0 && errno == EFAULT) {
    }
    after();
    if (!failed) return failures;
  }
  ADD_FAILURE() << "there is no end of things to fail";
  return -1;
}

namespace {
constexpr const char* kLeaks = "/sys/kernel/debug/kmemleak";
}

bool looks_for_leaks() { return std::filesystem::exists(kLeaks); }

std::string leaks() {
  // What was allocated in the last five seconds is not looked at, and what has changed since the last scan neither.
  std::this_thread::sleep_for(std::chrono::seconds{6});
  write_text(kLeaks, "scan");
  write_text(kLeaks, "scan");
  // Each report names the process; what others lost is not ours.
  std::istringstream lines{text_of(kLeaks)};
  std::string line;
  std::string report;
  std::string ours;
  const auto end_report = [&] {
    if (report.find("comm \"vm_kmod_test\"") != std::string::npos || report.find("comm \"kmod_") != std::string::npos)
      ours += report;
    report.clear();
  };
  while (std::getline(lines, line)) {
    if (line.starts_with("unreferenced object")) end_report();
    report += line + "\n";
  }
  end_report();
  return ours;
}

std::chrono::milliseconds soak_time() {
  const char* seconds = std::getenv("HOLDFAST_SOAK_SECONDS");
  return std::chrono::seconds{seconds != nullptr ? std::atoi(seconds) : 5};
}

namespace {

// However slow the machine is.
constexpr int kKillsAtLeast = 10;
constexpr std::uint64_t kCallsAtLeast = 2000;

struct Shared {
  std::atomic<std::uint64_t> steps{0};
};

/// Memory that a process shares with its children.
std::shared_ptr<Shared> shared() {
  void* memory = ::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) std::abort();
  return {new (memory) Shared, [](Shared* it) { ::munmap(it, sizeof(Shared)); }};
}

void handle_sigusr1() {
  struct sigaction action{};
  action.sa_handler = [](int) {};
  ::sigaction(SIGUSR1, &action, nullptr);
}

}  // namespace

Storm storm(int workers, const std::function<void(Random&)>& step, std::chrono::milliseconds time) {
  const auto counter = shared();
  Random random{42};
  const auto start = [&] {
    const std::uint64_t seed = random();
    return std::make_unique<Child>([&, seed](Peer&) {
      handle_sigusr1();
      Random own{seed};
      while (true) {
        step(own);
        ++counter->steps;
      }
      return 0;
    });
  };
  std::vector<std::unique_ptr<Child>> children;
  for (int i = 0; i < workers; ++i) children.push_back(start());
  Storm result;
  const auto end = Clock::now() + time;
  while (Clock::now() < end || result.kills < kKillsAtLeast) {
    const std::uint64_t before = counter->steps;
    // Something happened since the last death: on a slow machine the kills do not outrun the work.
    static_cast<void>(eventually([&] { return counter->steps > before + random() % 20; }, {}));
    auto& victim = children[random() % children.size()];
    if (random() % 3 == 0) {
      victim->signal(SIGUSR1);
      continue;
    }
    victim->kill();
    victim = start();
    ++result.kills;
  }
  children.clear();
  result.steps = counter->steps;
  return result;
}

namespace {

constexpr std::size_t kArena = 256 * 1024;

/// Pointers that a program should not have passed, and some that it may.
class Pointers {
 public:
  Pointers()
      : good_{static_cast<char*>(
            ::mmap(nullptr, kArena + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))} {
    ::mprotect(good_ + kArena, 4096, PROT_NONE);
  }
  [[nodiscard]] char* any(Random& random) const {
    switch (random() % 8) {
      case 0:
        return nullptr;
      case 1:
        return reinterpret_cast<char*>(random());
      case 2:
        return reinterpret_cast<char*>(0xffff888000000000U + random() % 0x10000000U);
      case 3:
        return good_ + kArena - random() % 64;  // a few bytes, then nothing
      default:
        return good_;
    }
  }

 private:
  char* good_;
};

class Bomber {
 public:
  Bomber(const std::vector<std::string>& nodes, const std::vector<unsigned long>& commands,
         std::array<std::atomic<int>, 8>& files, std::uint64_t seed)
      : nodes_{nodes}, commands_{commands}, files_{files}, random_{seed} {}

  void once() {
    const int file = files_[random_() % files_.size()];
    char* const where = pointers_.any(random_);
    const std::size_t size = random_() % (random_() % 4 == 0 ? kArena : 300);
    const auto offset = static_cast<off_t>(random_() >> (random_() % 64));
    switch (random_() % 12) {
      case 0:
        reopen();
        break;
      case 1:
      case 2:
        ::ioctl(file, command(), random_() % 2 == 0 ? where : reinterpret_cast<char*>(random_()));
        break;
      case 3:
        discard(::read(file, where, size));
        break;
      case 4:
        discard(::write(file, where, size));
        break;
      case 5:
        discard(::pread(file, where, size, offset));
        break;
      case 6:
        discard(::pwrite(file, where, size, offset));
        break;
      case 7:
        ::lseek(file, offset, static_cast<int>(random_() % 6));
        break;
      case 8:
        ::fcntl(file, F_SETFL, static_cast<int>(random_()) & (O_APPEND | O_ASYNC | O_NONBLOCK));
        break;
      case 9:
        own(file);
        break;
      case 10:
        look(file);
        break;
      default:
        map(file);
        break;
    }
  }

 private:
  // What comes back is not the point.
  static void discard(ssize_t) {}

  unsigned long command() {
    if (random_() % 3 != 0)
      return commands_[random_() % commands_.size()] ^ (random_() % 8 == 0 ? 1UL << (random_() % 32) : 0);
    return random_() & 0xffffffffU;
  }
  void reopen() {
    static constexpr std::array kModes{O_RDONLY,  O_WRONLY, O_RDWR, O_WRONLY, O_RDWR | O_APPEND, O_RDWR | O_NONBLOCK,
                                       O_ACCMODE, O_PATH};
    const int opened =
        ::open(nodes_[random_() % nodes_.size()].c_str(), kModes[random_() % kModes.size()] | O_NONBLOCK | O_CLOEXEC);
    const int old = files_[random_() % files_.size()].exchange(opened);
    if (old > 2) ::close(old);  // under the feet of the other threads
  }
  void own(int file) {
    ::fcntl(file, F_SETSIG, SIGUSR1);
    ::fcntl(file, F_SETOWN, ::getpid());
  }
  void look(int file) {
    pollfd entry{file, static_cast<short>(random_()), 0};
    ::poll(&entry, 1, 0);
  }
  void map(int file) {
    void* memory =
        ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, random_() % 2 == 0 ? MAP_SHARED : MAP_PRIVATE, file, 0);
    if (memory != MAP_FAILED) ::munmap(memory, 4096);
  }

  const std::vector<std::string>& nodes_;
  const std::vector<unsigned long>& commands_;
  std::array<std::atomic<int>, 8>& files_;
  Random random_;
  Pointers pointers_;
};

}  // namespace

std::uint64_t bombard(const std::vector<std::string>& nodes, const std::vector<unsigned long>& commands,
                      std::chrono::milliseconds time) {
  const auto counter = shared();
  Child bomber{[&](Peer&) {
    handle_sigusr1();
    ::signal(SIGIO, SIG_IGN);
    const auto end = Clock::now() + time;
    std::array<std::atomic<int>, 8> files;
    for (auto& file : files) file = -1;
    std::vector<std::thread> threads;
    for (std::uint64_t seed = 1; seed <= 4; ++seed) {
      threads.emplace_back([&, seed] {
        Bomber bomb{nodes, commands, files, seed};
        while (Clock::now() < end || counter->steps < kCallsAtLeast) {
          bomb.once();
          ++counter->steps;
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    return 0;
  }};
  if (!testing_support::wait_for_death(bomber.pidfd(), time + 5 * kPatience)) return 0;
  return bomber.reap() == 0 ? counter->steps.load() : 0;
}

}  // namespace holdfast::vm
