// SPDX-License-Identifier: MIT
// support.hpp - the guard in the lab's kernel, for one test: installed, and everything that it was told taken back.
#pragma once

#include "guard/guard.hpp"
#include "process/support/child.hpp"

#include <gtest/gtest.h>
#include <sched.h>

#include <string>
#include <vector>

namespace holdfast::vm {

/// Installs the guard and opens it; fails the test when that does not work.
class GuardTest : public testing::Test {
 protected:
  void SetUp() override;
  void TearDown() override;

  guard::Guard& guard() { return *guard_; }
  /// Enforces for a process; fails the test when refused.
  guard::Enforced enforce(const std::vector<std::string>& paths, const guard::Owner& owner, Mode mode = Mode::exclusive,
                          std::optional<guard::BootClock::time_point> until = std::nullopt);
  /// The denials since the last call, as "COMMAND[PID] OPERATION /dev/NAME".
  std::vector<std::string> denied();

 private:
  std::optional<guard::Guard> guard_;
  std::vector<guard::Enforced> claims_;
};

/// This thread, and what it forks, on one processor as long as it lives. QEMU before 8.1 now and then runs what another
/// processor has just patched (a stale int3 of the kernel's text_poke()), and the kernel panics at that: so who
/// attaches programs while others pass the hooks does it so. Real processors do not need it.
class OneProcessor {
 public:
  OneProcessor();
  OneProcessor(const OneProcessor&) = delete;
  OneProcessor& operator=(const OneProcessor&) = delete;
  ~OneProcessor();

 private:
  cpu_set_t before_;
};

[[nodiscard]] std::vector<device::Node> nodes_of(const std::vector<std::string>& paths);

/// Nodes that need not exist: so many numbers of a major that nobody has.
[[nodiscard]] std::vector<device::Node> made_up_nodes(unsigned first, unsigned count);

/// How many entries a map of the guard has.
[[nodiscard]] std::size_t entries_of(const std::string& map);

/// What a stranger's open(2) of the device is answered: "OK", or the name of the errno.
[[nodiscard]] std::string opened(const std::string& path, int flags);
[[nodiscard]] std::string opened(const std::string& path);
/// "OK" for a result that is not negative, else the name of errno.
[[nodiscard]] std::string name_of(long result);

}  // namespace holdfast::vm
