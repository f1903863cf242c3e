// SPDX-License-Identifier: MIT
// block_bench.cpp - see the header.
#include "interop/block_bench.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <filesystem>

namespace holdfast::interop {

using testing::HasSubstr;

bool is_open_exclusively(const std::string& device) {
  const base::UniqueFd probe{::open(device.c_str(), O_RDONLY | O_EXCL | O_NONBLOCK | O_CLOEXEC)};
  if (probe || errno != EPERM) return !probe && errno == EBUSY;
  // sg refuses O_RDONLY with O_EXCL (drivers/scsi/sg.c).
  const base::UniqueFd generic{::open(device.c_str(), O_RDWR | O_EXCL | O_NONBLOCK | O_CLOEXEC)};
  return !generic && errno == EBUSY;
}

BlockBench::BlockBench(BlockProgram program, std::string device, pid_t spared)
    : program_{std::move(program)}, device_{std::move(device)}, spared_{spared} {
  std::filesystem::create_directory(scratch_ / "mnt");
  adopt_strays();
}

BlockBench::~BlockBench() {
  unmount();
  kill_strays(spared_);
}

void BlockBench::unmount() const { ::umount2((scratch_ / "mnt").c_str(), 0); }

void BlockBench::prepare() const {
  if (program_.before == nullptr) return;
  const Ending made = run_to_the_end(program_.before(device_));
  ASSERT_EQ(made.status, 0) << made.output;
}

void BlockBench::expect_kept_out(const Ending& one) const {
  if (program_.refused_status >= 0)
    EXPECT_EQ(one.status, program_.refused_status) << one.output;
  else
    EXPECT_NE(one.status, 0);
  if (program_.refusal != " ") {
    EXPECT_THAT(one.output, HasSubstr(program_.refusal));
  }
}

std::unique_ptr<Program> BlockBench::hold_by_claim() const {
  auto holder = std::make_unique<Program>(holdfast({"claim", "-n", device_}), Stdio::pipes);
  EXPECT_TRUE(eventually([&] { return holder->has_said("claimed"); }, {holder.get()})) << holder->output();
  return holder;
}

std::unique_ptr<Program> BlockBench::hold_by_it() const {
  switch (program_.hold) {
    case Hold::stays: {
      auto one = std::make_unique<Program>(program_.staying(device_), Stdio::pipes);
      one->type("x");  // cat says it back once flock or udevadm has started it
      EXPECT_TRUE(eventually([&] { return one->has_said("x"); }, {one.get()})) << one->output();
      return one;
    }
    case Hold::opens: {
      auto one = std::make_unique<Program>(program_.staying(device_), Stdio::pipes);
      EXPECT_TRUE(eventually([&] { return !openers(device_, program_.holder).empty(); }, {one.get()})) << one->output();
      return one;
    }
    case Hold::stopped: {
      auto one = std::make_unique<Program>(command(), Stdio::pipes, Words{}, User{}, Traced::yes);
      one->type(program_.input);
      EXPECT_TRUE(run_until_it_takes(device_, program_.taking, *one)) << one->output();
      return one;
    }
    case Hold::passing:
      return stopped_in_passing();
    case Hold::kernel: {
      const Ending done = run_it();
      EXPECT_EQ(done.status, program_.status) << done.output;
      return nullptr;
    }
  }
  return nullptr;
}

// A program of several threads is not traced but stopped as soon as it is seen with the device, and let go on when it
// turns out that it has opened it for a look only.
std::unique_ptr<Program> BlockBench::stopped_in_passing() const {
  auto one = std::make_unique<Program>(command(), Stdio::pipes);
  const bool caught = eventually(
      [&] {
        if (openers(device_, program_.holder).empty()) return false;
        one->kill(SIGSTOP);
        if (is_open_exclusively(device_)) return true;
        one->kill(SIGCONT);
        return false;
      },
      {one.get()});
  EXPECT_TRUE(caught) << one->output();
  return one;
}

std::unique_ptr<Program> BlockBench::script_under_run() const {
  Words script{"sh", "-c", R"(printf "$1" | { shift; "$@"; }; echo "ended with $?"; read -r line)", "sh",
               program_.input};
  const Words words = command();
  script.insert(script.end(), words.begin(), words.end());
  auto one = std::make_unique<Program>(run_with(device_, script, program_.run_options), Stdio::pipes);
  EXPECT_TRUE(eventually([&] { return one->has_said("ended with "); }, {one.get()})) << one->output();
  EXPECT_TRUE(one->has_said(fmt::format("ended with {}\n", program_.status))) << one->output();
  return one;
}

}  // namespace holdfast::interop
