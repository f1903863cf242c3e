// SPDX-License-Identifier: MIT
// bench.hpp - the serial line, the scratch directory and the `holdfast` command that an interop test works with.
#pragma once

#include "interop/support/program.hpp"
#include "process/support/devices.hpp"

#include <string>

namespace holdfast::interop {

/// A serial line: the program gets the slave of a pseudo-terminal for a device, the test has the far end.
class Line {
 public:
  Line();
  [[nodiscard]] const std::string& device() const { return pty_.path(); }
  [[nodiscard]] const std::string& heard() const { return heard_; }  ///< what programs sent so far
  void listen();
  void say(std::string_view text);

 private:
  testing_support::Pty pty_;
  std::string heard_;
};

/// A directory that goes with the test; everybody may write to it.
class Scratch {
 public:
  Scratch();
  [[nodiscard]] std::string operator/(const std::string& name) const { return directory_ / name; }
  [[nodiscard]] const std::string& path() const { return directory_.path(); }
  std::string file(const std::string& name, const std::string& content) const;  ///< makes it; its path

 private:
  testing_support::TemporaryDirectory directory_;
};

/// `holdfast` and its arguments.
[[nodiscard]] Words holdfast(const Words& arguments);

/// `holdfast run -n OPTIONS DEVICE -- COMMAND`.
[[nodiscard]] Words run_with(const std::string& device, const Words& command, const Words& options = {});

/// `holdfast claim -n` by another process: status 0 when it got the device (and gave it back).
[[nodiscard]] Ending try_claim(const std::string& device, User user = {});

/// What stands in /run/lock for a pseudo-terminal by the names that serial programs make.
[[nodiscard]] Words lock_files_of(const std::string& device);

/// What a table cell says: recorded with the test's result for tools/interop_table.
void record(const std::string& row, const std::string& column, const std::string& cell, const std::string& note = {});

}  // namespace holdfast::interop
