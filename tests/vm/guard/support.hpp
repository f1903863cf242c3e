// SPDX-License-Identifier: MIT
// support.hpp - the guard in the lab's kernel, for one test: installed, and everything that it was told taken back.
#pragma once

#include "guard/guard.hpp"
#include "process/support/child.hpp"

#include <gtest/gtest.h>

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

[[nodiscard]] std::vector<device::Node> nodes_of(const std::vector<std::string>& paths);

/// What a stranger's open(2) of the device is answered: "OK", or the name of the errno.
[[nodiscard]] std::string opened(const std::string& path, int flags);
[[nodiscard]] std::string opened(const std::string& path);
/// "OK" for a result that is not negative, else the name of errno.
[[nodiscard]] std::string name_of(long result);

}  // namespace holdfast::vm
