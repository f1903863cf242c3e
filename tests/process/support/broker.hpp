// SPDX-License-Identifier: MIT
// broker.hpp - a broker of a test's own: the built holdfastd on a temporary socket with a temporary state directory,
// which the test may kill and start again. Needs HOLDFASTD, the program's path.
#pragma once

#include "process/support/child.hpp"
#include "process/support/devices.hpp"

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

namespace holdfast::testing_support {

/// Sets HOLDFAST_SOCKET, so that claims of this process and of its children go through this broker. Ends it with the
/// object, and fails the test when it does not end well or when a sanitizer complained.
class BrokerUnderTest {
 public:
  /// Who listens while no broker is there: nobody, or somebody like systemd for holdfastd.socket, so that clients wait.
  enum class Socket : std::uint8_t { brokers, units };
  /// \param options  added to the command line: {"--policy", "fifo"}
  /// \param program  looked up at each start
  explicit BrokerUnderTest(std::vector<std::string> options = {}, std::string program = HOLDFASTD,
                           Socket whose = Socket::brokers);
  BrokerUnderTest(const BrokerUnderTest&) = delete;
  BrokerUnderTest& operator=(const BrokerUnderTest&) = delete;
  ~BrokerUnderTest();

  [[nodiscard]] std::string socket() const { return folder_ / "socket"; }
  [[nodiscard]] std::string state() const { return folder_ / "state"; }
  [[nodiscard]] pid_t pid() const { return pid_; }

  /// kill -9; returns when it is dead and reaped.
  void kill();
  /// After kill() or stop(): the same socket, the same state. Returns when it is ready.
  void start();
  /// SIGTERM; its exit status, or 128 + the signal; -1 when it does not end.
  int stop();

  /// What it wrote to its standard error, all of it so far.
  [[nodiscard]] std::string log();
  [[nodiscard]] int descriptors() const;      ///< how many it has open
  [[nodiscard]] long memory_kib() const;      ///< what is resident of its own memory (RssAnon)
  [[nodiscard]] double processor_ms() const;  ///< it used so far, in steps of the clock tick

  /// Waits until `count()` is at most `most`. False after kPatience.
  [[nodiscard]] bool descriptors_fall_to(int most) const;

 private:
  int reap();
  void outlast_hang_ups() const;
  void listen();

  TemporaryDirectory folder_;
  std::vector<std::string> options_;
  std::string program_;
  base::UniqueFd listener_;
  base::UniqueFd heard_;
  std::string log_;
  pid_t pid_ = -1;
};

}  // namespace holdfast::testing_support
