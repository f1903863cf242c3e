// SPDX-License-Identifier: MIT
// kernel.hpp - what tests of kernel modules do to a kernel: stop a system call in the middle, let its allocations fail,
// kill and bombard, and ask what was leaked.
#pragma once

#include "base/unique_fd.hpp"
#include "process/support/child.hpp"

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <random>
#include <string>
#include <vector>

namespace holdfast::vm {

/// The text of a small file without its last newline; "" when there is none.
[[nodiscard]] std::string text_of(const std::string& path);
/// The number in it; -1 when there is none.
[[nodiscard]] long number_in(const std::string& path);
/// False with errno.
bool write_text(const std::string& path, const std::string& text);

/// Waits until the process sleeps inside this system call.
[[nodiscard]] bool sleeps_in(pid_t pid, long system_call);

/// A process that stops in the middle of a system call, where the kernel copies from or to its memory: that memory is
/// there only when the test says so (userfaultfd(2)). What the call has locked stays locked meanwhile.
class InTheMiddle {
 public:
  static constexpr std::size_t kSize = 4096;

  /// `body` runs in a child and gets kSize bytes that are not there yet.
  explicit InTheMiddle(const std::function<int(char* memory, testing_support::Peer& test)>& body);
  [[nodiscard]] const std::string& missing() const { return missing_; }  ///< the reason to skip, or empty
  /// Waits until the memory is touched: the process is in the middle now.
  [[nodiscard]] bool reached() const;
  /// The memory is there, full of `fill`.
  void go_on(char fill) const;
  [[nodiscard]] testing_support::Child& child() { return child_; }

 private:
  testing_support::Child child_;
  std::string missing_;
  base::UniqueFd faults_;
  std::uint64_t address_ = 0;
};

/// A control group with a limit of memory, which the test's child enters. Removed with the object.
class MemoryLimit {
 public:
  explicit MemoryLimit(std::size_t bytes);
  MemoryLimit(const MemoryLimit&) = delete;
  MemoryLimit& operator=(const MemoryLimit&) = delete;
  ~MemoryLimit();
  [[nodiscard]] const std::string& missing() const { return missing_; }
  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] long event(const std::string& name) const;  ///< of memory.events
  [[nodiscard]] long usage() const;                         ///< what is charged now

 private:
  std::string path_;
  std::string missing_;
};

/// Calls `call` again and again, each time with the next of its allocations and copies failing, until none is left to
/// fail, and `after` after each. Returns how many failed; -1 where the kernel cannot (no fault injection).
int with_each_failure(const std::function<void()>& call, const std::function<void()>& after);

/// Whether the kernel has kmemleak.
[[nodiscard]] bool looks_for_leaks();
/// Its report of what the modules' tests made the kernel allocate and nobody points to. Takes minutes.
[[nodiscard]] std::string leaks();

/// HOLDFAST_SOAK_SECONDS, or 5 s.
[[nodiscard]] std::chrono::milliseconds soak_time();

using Random = std::mt19937_64;

/// `workers` processes that each repeat `step` and are killed at random, in the middle of whatever, or get SIGUSR1,
/// which they handle; new ones take their place.
struct Storm {
  std::uint64_t steps = 0;
  int kills = 0;
};
[[nodiscard]] Storm storm(int workers, const std::function<void(Random&)>& step, std::chrono::milliseconds time);

/// A process whose threads do to the nodes whatever comes to their minds: calls with random commands, sizes, pointers
/// and flags, each other's descriptors closed. Returns the number of calls; 0 when it ended by a signal.
[[nodiscard]] std::uint64_t bombard(const std::vector<std::string>& nodes, const std::vector<unsigned long>& commands,
                                    std::chrono::milliseconds time);

}  // namespace holdfast::vm
