// SPDX-License-Identifier: MIT
// lab.cpp - see the header.
#include "vm/support/lab.hpp"

#include "interop/support/program.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <fnmatch.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <vector>

namespace holdfast::vm {

using testing_support::Child;
using testing_support::Peer;

std::string node_of(const std::string& device) {
  if (device.starts_with("/dev/")) return device;
  std::vector<std::string> found;
  for (const char* const kind : {"/sys/dev/block", "/sys/dev/char"}) {
    for (const auto& entry : std::filesystem::directory_iterator{kind}) {
      std::error_code gone;
      const std::string directory = std::filesystem::canonical(entry.path(), gone).string();
      if (gone || ::fnmatch(device.c_str(), directory.c_str(), 0) != 0) continue;
      std::ifstream event{directory + "/uevent"};
      for (std::string line; std::getline(event, line);)
        if (line.starts_with("DEVNAME=")) found.push_back("/dev/" + line.substr(8));
    }
  }
  EXPECT_EQ(found.size(), 1U) << device << " is " << fmt::format("{}", fmt::join(found, ", "));
  return found.size() == 1 ? found.front() : std::string{};
}

Child holder_of(const std::string& device, const Options& options) {
  return Child{[=](Peer& test) {
    auto mine = claim(device, options);
    test.tell(mine ? "claimed" : mine.error().message);
    test.hear();
    if (mine) mine->release();
    test.tell("released");
    test.hear();
    return 0;
  }};
}

std::string try_claim(const std::string& device, const Options& options) {
  const auto taken = claim(device, options);
  return taken ? "taken" : taken.error().message;
}

std::string who_holds(const std::string& device, const Options& options) {
  const auto taken = claim(device, options);
  if (taken) return "nobody";
  const Error& error = taken.error();
  if (error.code == errc::refused && error.holder) return fmt::format("held by {}", error.holder->pid);
  return error.message;
}

void settle() {
  const auto done = interop::run_to_the_end({"udevadm", "settle", "--timeout=60"});
  EXPECT_EQ(done.status, 0) << done.output;
}

}  // namespace holdfast::vm
