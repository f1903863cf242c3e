// SPDX-License-Identifier: MIT
// places.hpp - where the system keeps what we read, so that a test can hand in a recorded tree.
#pragma once

#include <string>

namespace holdfast::base {

struct Places {
  std::string dev = "/dev";
  std::string sys = "/sys";
  std::string proc = "/proc";
  std::string udev_data = "/run/udev/data";  // udev's database; absent in containers
  std::string lock_dir = "/run/lock";        // UUCP lock files and our proxies (FHS 3.0 section 5.9)
  std::string tmp = "/tmp";                  // DDLP level B lock files
};

}  // namespace holdfast::base
