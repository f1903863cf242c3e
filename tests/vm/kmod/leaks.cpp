// SPDX-License-Identifier: MIT
// leaks.cpp - what the modules' selftests and hostile calls leave behind, asked of a kernel that looks for it. One look
// takes minutes there, so that there is one for all of them.
#include "vm/support/kernel.hpp"
#include "vm/support/module.hpp"

#include "interop/support/program.hpp"

#include <gtest/gtest.h>

namespace holdfast::vm {
namespace {

TEST(Leaks, there_are_none_when_the_modules_are_gone) {
  const Modules built = modules();
  if (!built.missing.empty()) GTEST_SKIP() << built.missing;
  if (!looks_for_leaks()) GTEST_SKIP() << "this kernel does not look for leaks";
  for (const char* locking : {"locking=semaphore", "locking=rwsem"}) {
    const Module scull{"scull", locking};
    EXPECT_EQ(interop::run_to_the_end({KMOD_FOLDER "/kmod_scull_selftest"}).status, 0);
    EXPECT_GT(bombard({"/dev/scull0", "/dev/sculluid"}, {0}, std::chrono::seconds{1}), 0U);
  }
  {
    const Module async_n{"async_n"};
    EXPECT_EQ(interop::run_to_the_end({KMOD_FOLDER "/kmod_async_n_selftest"}).status, 0);
    EXPECT_GT(bombard({"/dev/async_n0"}, {0}, std::chrono::seconds{1}), 0U);
  }
  EXPECT_EQ(leaks(), "");
}

}  // namespace
}  // namespace holdfast::vm
