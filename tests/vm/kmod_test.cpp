// SPDX-License-Identifier: MIT
// kmod_test.cpp - the kernel modules, in one machine: what all of them promise is here, each has a file in kmod/.
#include "vm/support/module.hpp"

#include <gtest/gtest.h>

#include <filesystem>

namespace holdfast::vm {
namespace {

TEST(Kmod, every_module_loads_and_goes_twice) {
  const auto built = modules();
  if (!built.missing.empty()) GTEST_SKIP() << built.missing;
  for (int round = 0; round < 2; ++round) {
    const Module exclusive{"holdfast_exclusive"};
    const Module checksum{"checksum"};
    const Module user{"checksum_kuser"};
    EXPECT_TRUE(std::filesystem::exists("/sys/class/hf_checksum/hf_checksum0/hf_exclusive/abi"));
  }
  EXPECT_FALSE(std::filesystem::exists("/sys/class/hf_checksum"));
}

}  // namespace
}  // namespace holdfast::vm
