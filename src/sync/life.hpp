// SPDX-License-Identifier: MIT
// How one process hears of another's end at once.
//
// The kernel tells of a thread's end through the words on its robust list, long before it tells of the process: that
// comes after its memory is freed, 40 ms a GiB. So a process that owns locks shows a page, a memfd that others find in
// /proc/PID/fd, with a word for each of its threads that took one. Who waits sleeps on such a word beside the lock's.
//
// It is a rumour, no proof: a thread may end alone. And there may be none: a page that cannot be opened, a program that
// closed the descriptor, more threads than words. So a waiter looks now and then as well (process_mutex.cpp).
#pragma once

#include "sync/futex.hpp"
#include "sync/thread.hpp"

namespace holdfast::sync::life {

/// Shows that the calling thread lives, from now on until it ends. Returns the number by which Watch finds it: the
/// page's descriptor and 1, or kNothing.
constexpr std::uint32_t kNothing = 0xffffffff;
std::uint32_t show(Thread& thread);

struct Page;

/// Another process's page.
class Watch {
 public:
  Watch() = default;
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;
  ~Watch() { close(); }

  /// A word that changes when a thread of the process ends, `tid` if it is shown, and the value that it has while it
  /// lives; nullptr when there is none. The page is kept for the next time.
  futex::Watched word(std::uint32_t pid, std::uint32_t start, std::uint32_t number, std::uint32_t tid);

 private:
  bool open(std::uint32_t pid, std::uint32_t start, std::uint32_t number);
  void close();

  const Page* page_ = nullptr;
};

}  // namespace holdfast::sync::life
