// SPDX-License-Identifier: MIT
// scull_readers.cpp - do readers of a scull device get through side by side? One reader, then two, with either lock;
// run where the module is for: tests/vm/vm --machine kmod --bare run -- build/release/bench/scull_readers
#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;
constexpr std::size_t kBytes = 256 * 1024;
constexpr std::chrono::seconds kTime{3};

[[noreturn]] void fail(const char* what) {
  std::perror(what);
  std::exit(1);
}

void load(const std::string& locking) {
  const char* kernel = std::getenv("LAB_KERNEL");
  const char* own = std::getenv("HOLDFAST_MODULES");
  if (kernel == nullptr) fail("not in a machine of the lab");
  const std::string folder = own != nullptr ? own : std::string{KMOD_FOLDER} + "/" + kernel;
  const int file = ::open((folder + "/scull/scull.ko").c_str(), O_RDONLY | O_CLOEXEC);
  if (::syscall(SYS_finit_module, file, ("locking=" + locking).c_str(), 0) != 0) fail("scull.ko");
  ::close(file);
}

// Reads per second of so many readers, each on a processor of its own.
double reads_per_second(int readers, std::atomic<long>& reads) {
  reads = 0;
  std::vector<pid_t> children;
  const auto begin = Clock::now();
  for (int i = 0; i < readers; ++i) {
    const pid_t child = ::fork();
    if (child < 0) fail("fork");
    if (child > 0) {
      children.push_back(child);
      continue;
    }
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(i, &one);
    ::sched_setaffinity(0, sizeof one, &one);
    std::string text(kBytes, '\0');
    const int file = ::open("/dev/scull0", O_RDONLY | O_CLOEXEC);
    while (Clock::now() - begin < kTime) {
      if (::pread(file, text.data(), text.size(), 0) != static_cast<ssize_t>(kBytes)) ::_exit(1);
      ++reads;
    }
    ::_exit(0);
  }
  for (const pid_t child : children) {
    int status = 0;
    if (::waitpid(child, &status, 0) != child || status != 0) fail("a reader");
  }
  return static_cast<double>(reads) / std::chrono::duration<double>{Clock::now() - begin}.count();
}

}  // namespace

int main() {
  void* memory = ::mmap(nullptr, sizeof(std::atomic<long>), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) fail("mmap");
  auto& reads = *new (memory) std::atomic<long>{0};
  for (const char* locking : {"semaphore", "rwsem"}) {
    load(locking);
    const int file = ::open("/dev/scull0", O_WRONLY | O_CLOEXEC);
    const std::string text(kBytes, 's');
    if (::write(file, text.data(), text.size()) != static_cast<ssize_t>(kBytes)) fail("write");
    ::close(file);
    const double one = reads_per_second(1, reads);
    const double two = reads_per_second(2, reads);
    std::printf("%-9s  one reader %6.0f reads/s, two %6.0f: %.2f times\n", locking, one, two, two / one);
    if (::syscall(SYS_delete_module, "scull", 0) != 0) fail("scull");
  }
}
