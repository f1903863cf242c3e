// SPDX-License-Identifier: MIT
// block_test.cpp - the programs that write disks and holdfast, on one loop device, both ways. Each test is a cell of
// docs/interop.md.
#include "interop/block_bench.hpp"

#include "process/support/devices.hpp"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>

namespace holdfast::interop {
namespace {

using testing::HasSubstr;

class Block : public testing::TestWithParam<BlockProgram> {
 protected:
  void SetUp() override {
    if (!is_installed(program().binary)) GTEST_SKIP() << program().binary << " is not installed";
    if (!loop_.missing().empty()) GTEST_SKIP() << loop_.missing();
    bench_.prepare();
  }

  static const BlockProgram& program() { return GetParam(); }

  static void cell(const std::string& text) {
    const std::string test = testing::UnitTest::GetInstance()->current_test_info()->name();
    record(program().row, test.substr(0, test.find('/')), text, program().note);
  }

  const std::string& device() const { return loop_.path(); }

  testing_support::LoopDevice loop_;
  BlockBench bench_{program(), loop_.path()};
};

TEST_P(Block, a_claim_keeps_it_out_if_it_honours_any_convention) {
  auto holder = bench_.hold_by_claim();
  const Ending one = bench_.run_it();
  if (!bench_.asks()) {
    EXPECT_EQ(one.status, 0) << one.output;
    cell("no");
    return;
  }
  bench_.expect_kept_out(one);
  // That it was our claim and nothing else:
  holder->end_input();
  ASSERT_TRUE(eventually([&] { return holder->ended().has_value(); }, {holder.get()}));
  const Ending again = bench_.run_it();
  EXPECT_EQ(again.status, 0) << again.output;
  cell("yes");
}

TEST_P(Block, keeps_a_claim_out_by_whatever_it_marks) {
  auto one = bench_.hold_by_it();
  const Ending claim = try_claim(device());
  if (program().hold == Hold::opens) {
    EXPECT_EQ(claim.status, 0) << claim.output;
    cell("no");
    return;
  }
  EXPECT_EQ(claim.status, 75) << claim.output;
  EXPECT_THAT(claim.output, HasSubstr(fmt::format("{} is held by {}", device(), program().holder)));
  if (program().hold == Hold::stopped) {
    EXPECT_THAT(claim.output, HasSubstr(fmt::format("{}[{}]", program().holder, one->pid())));
  }
  EXPECT_THAT(claim.output, HasSubstr(program().means));
  cell("yes: " + program().means);
}

TEST_P(Block, status_shows_it) {
  auto one = bench_.hold_by_it();
  const Ending status = run_to_the_end(holdfast({"status", device()}));
  EXPECT_EQ(status.status, 0) << status.output;
  EXPECT_THAT(status.output, HasSubstr(program().hold == Hold::kernel ? bench_.scratch() / "mnt" : program().holder));
  cell("yes");
}

TEST_P(Block, its_end_frees_the_disk_at_once) {
  auto one = bench_.hold_by_it();
  if (one) {
    one->kill(SIGKILL);
    kill_strays();  // flock(1) leaves its child with the lock: that it is dead, too, is part of the end
  }
  bench_.unmount();
  const Ending claim = try_claim(device());
  EXPECT_EQ(claim.status, 0) << claim.output;
  cell("yes");
}

TEST_P(Block, works_under_run) {
  const Ending plain = run_to_the_end(run_with(device(), bench_.command()), program().input);
  if (program().run_options.empty()) {
    EXPECT_EQ(plain.status, 0) << plain.output;
    cell("yes");
    return;
  }
  EXPECT_NE(plain.status, 0);
  const Ending one = run_to_the_end(run_with(device(), bench_.command(), program().run_options), program().input);
  EXPECT_EQ(one.status, 0) << one.output;
  cell(fmt::format("no; yes with {}", fmt::join(program().run_options, " ")));
}

TEST_P(Block, run_keeps_others_out_meanwhile) {
  auto one = bench_.script_under_run();
  bench_.unmount();
  const Ending claim = try_claim(device());
  EXPECT_EQ(claim.status, 75) << claim.output;
  if (bench_.asks() && program().run_options.empty()) {
    // What the program had taken by itself comes back to us a moment after it has closed the disk.
    EXPECT_TRUE(eventually([&] { return is_open_exclusively(device()); }, {one.get()}));
    bench_.expect_kept_out(bench_.run_it());
    cell("its like and claims");
  } else {
    const Ending other = bench_.run_it();
    EXPECT_EQ(other.status, 0) << other.output;
    cell("claims");
  }
}

TEST_P(Block, the_disk_is_free_as_soon_as_run_ends) {
  auto one = bench_.script_under_run();
  bench_.unmount();
  one->type("\n");
  ASSERT_TRUE(eventually([&] { return one->ended().has_value(); }, {one.get()})) << one->output();
  const Ending other = bench_.run_it();
  EXPECT_EQ(other.status, 0) << other.output;
  bench_.unmount();
  const Ending claim = try_claim(device());
  EXPECT_EQ(claim.status, 0) << claim.output;
  cell("yes");
}

INSTANTIATE_TEST_SUITE_P(interop, Block, testing::ValuesIn(block_programs()),
                         [](const auto& row) { return row.param.row; });

}  // namespace
}  // namespace holdfast::interop
