// SPDX-License-Identifier: MIT
// block_test.cpp - the programs that write disks and holdfast, on one loop device, both ways. Each test is a cell of
// docs/interop.md.
#include "interop/block_programs.hpp"

#include "process/support/devices.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <filesystem>
#include <memory>

namespace holdfast::interop {
namespace {

using testing::HasSubstr;

bool is_open_exclusively(const std::string& device) {
  const base::UniqueFd probe{::open(device.c_str(), O_RDONLY | O_EXCL | O_NONBLOCK | O_CLOEXEC)};
  return !probe && errno == EBUSY;
}

class Block : public testing::TestWithParam<BlockProgram> {
 protected:
  void SetUp() override {
    if (!is_installed(program().binary)) GTEST_SKIP() << program().binary << " is not installed";
    if (!loop_.missing().empty()) GTEST_SKIP() << loop_.missing();
    std::filesystem::create_directory(scratch_ / "mnt");
    adopt_strays();
    prepare();
  }

  void TearDown() override {
    unmount();
    kill_strays();
  }

  static const BlockProgram& program() { return GetParam(); }

  static void cell(const std::string& text) {
    const std::string test = testing::UnitTest::GetInstance()->current_test_info()->name();
    record(program().row, test.substr(0, test.find('/')), text, program().note);
  }

  const std::string& device() const { return loop_.path(); }
  bool asks() const { return !program().refusal.empty(); }
  void unmount() const { ::umount2((scratch_ / "mnt").c_str(), 0); }

  void prepare() const {
    if (program().before == nullptr) return;
    const Ending made = run_to_the_end(program().before(device()));
    ASSERT_EQ(made.status, 0) << made.output;
  }

  Words command() const { return program().command(device(), scratch_); }
  Ending run_it() const { return run_to_the_end(command(), program().input); }

  void expect_kept_out(const Ending& one) const {
    EXPECT_NE(one.status, 0);
    if (program().refusal != " ") {
      EXPECT_THAT(one.output, HasSubstr(program().refusal));
    }
  }

  std::unique_ptr<Program> hold_by_claim() const {
    auto holder = std::make_unique<Program>(holdfast({"claim", "-n", device()}), Stdio::pipes);
    EXPECT_TRUE(eventually([&] { return holder->has_said("claimed"); }, {holder.get()})) << holder->output();
    return holder;
  }

  // The program while it has the disk.
  std::unique_ptr<Program> hold_by_it() const {
    if (program().hold == Hold::stays) {
      auto one = std::make_unique<Program>(program().staying(device()), Stdio::pipes);
      one->type("x");  // cat says it back once flock or udevadm has started it
      EXPECT_TRUE(eventually([&] { return one->has_said("x"); }, {one.get()})) << one->output();
      return one;
    }
    if (program().hold == Hold::opens) {
      auto one = std::make_unique<Program>(program().staying(device()), Stdio::pipes);
      EXPECT_TRUE(eventually([&] { return !openers(device(), program().holder).empty(); }, {one.get()}))
          << one->output();
      return one;
    }
    if (program().hold == Hold::stopped) {
      auto one = std::make_unique<Program>(command(), Stdio::pipes, Words{}, User{}, Traced::yes);
      one->type(program().input);
      EXPECT_TRUE(run_until_it_takes(device(), program().taking, *one)) << one->output();
      return one;
    }
    const Ending done = run_it();
    EXPECT_EQ(done.status, 0) << done.output;
    return nullptr;
  }

  // Under run, in a script that goes on until it is told to end.
  std::unique_ptr<Program> script_under_run() const {
    Words script{"sh", "-c", R"(printf "$1" | { shift; "$@"; }; echo "ended with $?"; read -r line)", "sh",
                 program().input};
    const Words words = command();
    script.insert(script.end(), words.begin(), words.end());
    auto one = std::make_unique<Program>(run_with(device(), script, program().run_options), Stdio::pipes);
    EXPECT_TRUE(eventually([&] { return one->has_said("ended with "); }, {one.get()})) << one->output();
    EXPECT_TRUE(one->has_said("ended with 0")) << one->output();
    return one;
  }

  testing_support::LoopDevice loop_;
  Scratch scratch_;
};

TEST_P(Block, a_claim_keeps_it_out_if_it_honours_any_convention) {
  auto holder = hold_by_claim();
  const Ending one = run_it();
  if (!asks()) {
    EXPECT_EQ(one.status, 0) << one.output;
    cell("no");
    return;
  }
  expect_kept_out(one);
  // That it was our claim and nothing else:
  holder->end_input();
  ASSERT_TRUE(eventually([&] { return holder->ended().has_value(); }, {holder.get()}));
  const Ending again = run_it();
  EXPECT_EQ(again.status, 0) << again.output;
  cell("yes");
}

TEST_P(Block, keeps_a_claim_out_by_whatever_it_marks) {
  auto one = hold_by_it();
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
  auto one = hold_by_it();
  const Ending status = run_to_the_end(holdfast({"status", device()}));
  EXPECT_EQ(status.status, 0) << status.output;
  EXPECT_THAT(status.output, HasSubstr(program().hold == Hold::kernel ? scratch_ / "mnt" : program().holder));
  cell("yes");
}

TEST_P(Block, its_end_frees_the_disk_at_once) {
  auto one = hold_by_it();
  if (one) {
    one->kill(SIGKILL);
    kill_strays();  // flock(1) leaves its child with the lock: that it is dead, too, is part of the end
  }
  unmount();
  const Ending claim = try_claim(device());
  EXPECT_EQ(claim.status, 0) << claim.output;
  cell("yes");
}

TEST_P(Block, works_under_run) {
  const Ending plain = run_to_the_end(run_with(device(), command()), program().input);
  if (program().run_options.empty()) {
    EXPECT_EQ(plain.status, 0) << plain.output;
    cell("yes");
    return;
  }
  EXPECT_NE(plain.status, 0);
  const Ending one = run_to_the_end(run_with(device(), command(), program().run_options), program().input);
  EXPECT_EQ(one.status, 0) << one.output;
  cell(fmt::format("no; yes with {}", fmt::join(program().run_options, " ")));
}

TEST_P(Block, run_keeps_others_out_meanwhile) {
  auto one = script_under_run();
  unmount();
  const Ending claim = try_claim(device());
  EXPECT_EQ(claim.status, 75) << claim.output;
  if (asks() && program().run_options.empty()) {
    // What the program had taken by itself comes back to us a moment after it has closed the disk.
    EXPECT_TRUE(eventually([&] { return is_open_exclusively(device()); }, {one.get()}));
    expect_kept_out(run_it());
    cell("its like and claims");
  } else {
    const Ending other = run_it();
    EXPECT_EQ(other.status, 0) << other.output;
    cell("claims");
  }
}

TEST_P(Block, the_disk_is_free_as_soon_as_run_ends) {
  auto one = script_under_run();
  unmount();
  one->type("\n");
  ASSERT_TRUE(eventually([&] { return one->ended().has_value(); }, {one.get()})) << one->output();
  const Ending other = run_it();
  EXPECT_EQ(other.status, 0) << other.output;
  unmount();
  const Ending claim = try_claim(device());
  EXPECT_EQ(claim.status, 0) << claim.output;
  cell("yes");
}

INSTANTIATE_TEST_SUITE_P(interop, Block, testing::ValuesIn(block_programs()),
                         [](const auto& row) { return row.param.row; });

}  // namespace
}  // namespace holdfast::interop
