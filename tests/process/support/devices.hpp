// SPDX-License-Identifier: MIT
// devices.hpp - devices of a test's own: a pseudo-terminal and a loop device, made on the spot and gone with the test.
#pragma once

#include "base/unique_fd.hpp"

#include <string>
#include <vector>

namespace holdfast::testing_support {

/// A pseudo-terminal: /dev/pts/N lives as long as the object, which keeps the master open and the slave closed.
class Pty {
 public:
  Pty();
  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] int master() const { return master_.get(); }

 private:
  base::UniqueFd master_;
  std::string path_;
};

/// A loop device of 1 MiB over anonymous memory. `missing()` says why there is none: skip the test then.
class LoopDevice {
 public:
  LoopDevice();
  LoopDevice(const LoopDevice&) = delete;
  LoopDevice& operator=(const LoopDevice&) = delete;
  ~LoopDevice();
  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] const std::string& missing() const { return missing_; }

 private:
  std::string path_;
  std::string missing_;
};

/// The machine has one real port, ttyS0, and tests run side by side: whoever uses it waits for his turn.
class TurnAtThePort {
 public:
  TurnAtThePort();

 private:
  base::UniqueFd turn_;
};

/// A directory that goes with the object.
class TemporaryDirectory {
 public:
  TemporaryDirectory();
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  ~TemporaryDirectory();
  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

/// What stands in /run/lock under a name that some program, or a claim on its way, gives to the device: full paths,
/// our proxy file excepted, which stays for ever.
[[nodiscard]] std::vector<std::string> lock_files_of(const std::string& device);

/// Waits until `count` processes are entered as waiting for the device. False after ten seconds.
[[nodiscard]] bool waited_for(const std::string& device, std::size_t count = 1);

/// Gives the calling process a mount namespace of its own with an empty tmpfs on /run/lock, mounted with `options`
/// ("size=64k,nr_inodes=4"). Empty when done, else what is missing: skip the test then. Call it in a child.
[[nodiscard]] std::string private_lock_directory(const std::string& options = "mode=1777");

}  // namespace holdfast::testing_support
