// SPDX-License-Identifier: MIT
#include "sync/life.hpp"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>

#include "sync/process.hpp"
#include "sync/words.hpp"

namespace holdfast::sync::life {

struct alignas(64) Shown : Node {};

struct Page {
  static constexpr std::uint64_t kMagic = 0x3145464c53464800;  // "\0HFSLFE1", little-endian

  std::uint64_t magic = kMagic;
  Process process;
  std::array<Shown, 63> threads;  // the word: the thread's id, with the waiters bit so that the kernel wakes
};
static_assert(sizeof(Page) == 4096);

namespace {

constexpr char kName[] = "holdfast-life";

// Ours; made once for a process, and never taken back.
constinit std::atomic<Page*> ours{nullptr};
constinit int ours_at = -1;
constinit struct stat ours_file{};

// A child of fork is another process. The program may have closed our descriptor and opened a file in its place.
void forget() {
  Page* const page = ours.exchange(nullptr, std::memory_order_relaxed);
  if (page == nullptr) return;
  ::munmap(static_cast<void*>(page), sizeof(Page));
  struct stat now{};
  if (::fstat(ours_at, &now) == 0 && now.st_ino == ours_file.st_ino && now.st_dev == ours_file.st_dev) ::close(ours_at);
}

Page* make() {
  static const bool watched = ::pthread_atfork(nullptr, nullptr, forget) == 0;
  const Process process = this_process();
  const int fd = watched && process.pid != 0 ? ::memfd_create(kName, MFD_CLOEXEC) : -1;
  if (fd < 0) return nullptr;
  void* memory = MAP_FAILED;
  if (::ftruncate(fd, sizeof(Page)) == 0)
    memory = ::mmap(nullptr, sizeof(Page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (memory == MAP_FAILED || ::fstat(fd, &ours_file) != 0) {
    ::close(fd);
    return nullptr;
  }
  auto* const page = new (memory) Page;
  page->process = process;
  ours_at = fd;
  ours.store(page, std::memory_order_release);  // pairs with the load in our_page
  return page;
}

Page* our_page() {
  static constinit pthread_mutex_t making = PTHREAD_MUTEX_INITIALIZER;
  Page* page = ours.load(std::memory_order_acquire);
  if (page != nullptr) return page;
  ::pthread_mutex_lock(&making);
  page = ours.load(std::memory_order_relaxed);
  if (page == nullptr) page = make();
  ::pthread_mutex_unlock(&making);
  return page;
}

}  // namespace

std::uint32_t show(Thread& thread) {
  Page* const page = our_page();
  if (page == nullptr) return kNothing;
  for (Shown& shown : page->threads) {
    std::uint32_t seen = shown.word.load(std::memory_order_relaxed);
    if (words::owner(seen) != 0) continue;
    pend(thread, shown);
    // Acquire: our links come after the kernel's last look at those of the thread that had it before. Who watches
    // compares it, and reads nothing else.
    const bool got = shown.word.compare_exchange_strong(seen, thread.tid | words::kWaiters, std::memory_order_acquire,
                                                        std::memory_order_relaxed);
    if (got) enqueue(thread, shown);
    unpend(thread);
    if (got) return static_cast<std::uint32_t>(ours_at) + 1;
  }
  return kNothing;
}

void Watch::close() {
  if (page_ != nullptr) ::munmap(const_cast<Page*>(page_), sizeof(Page));
  page_ = nullptr;
}

bool Watch::open(std::uint32_t pid, std::uint32_t start, std::uint32_t number) {
  if (page_ != nullptr && page_->process.pid == pid && page_->process.start == start) return true;
  close();
  if (number == 0 || number == kNothing) return false;
  // The number may be any file's by now, and to open a device does something. So it is only named first.
  std::array<char, 48> path{};
  std::array<char, 48> name{};
  ::snprintf(path.data(), path.size(), "/proc/%u/fd/%u", pid, number - 1);
  const int named = ::open(path.data(), O_PATH | O_CLOEXEC);
  if (named < 0) return false;
  ::snprintf(path.data(), path.size(), "/proc/self/fd/%d", named);
  const ssize_t length = ::readlink(path.data(), name.data(), name.size() - 1);
  constexpr char kExpected[] = "/memfd:holdfast-life ";
  const bool right = length > 0 && ::strncmp(name.data(), kExpected, sizeof(kExpected) - 1) == 0;
  const int file = right ? ::open(path.data(), O_RDONLY | O_CLOEXEC) : -1;
  ::close(named);
  struct stat status{};
  if (file < 0) return false;
  void* memory = MAP_FAILED;
  if (::fstat(file, &status) == 0 && status.st_size == sizeof(Page))
    memory = ::mmap(nullptr, sizeof(Page), PROT_READ, MAP_SHARED, file, 0);
  ::close(file);
  if (memory == MAP_FAILED) return false;
  page_ = static_cast<const Page*>(memory);
  if (page_->magic == Page::kMagic && page_->process.pid == pid && page_->process.start == start) return true;
  close();
  return false;
}

futex::Watched Watch::word(std::uint32_t pid, std::uint32_t start, std::uint32_t number, std::uint32_t tid) {
  futex::Watched found{nullptr, 0};
  if (!open(pid, start, number)) return found;
  for (const Shown& shown : page_->threads) {
    const std::uint32_t seen = shown.word.load(std::memory_order_relaxed);
    if (words::owner(seen) == 0) continue;
    if (found.word == nullptr || words::owner(seen) == tid) found = {&shown.word, seen};
  }
  return found;
}

}  // namespace holdfast::sync::life
