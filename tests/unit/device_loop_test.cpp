// SPDX-License-Identifier: MIT
// device_loop_test.cpp - disks, partitions and layers that the kernel makes on the spot: a loop device with two
// partitions, and a second loop device on one of them.
#include "base/unique_fd.hpp"
#include "device/device.hpp"
#include "process/support/loop.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fcntl.h>
#include <linux/blkpg.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <string>
#include <vector>

namespace holdfast::device {
namespace {

using base::UniqueFd;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::Not;

constexpr long long kMegabyte = 1024 * 1024;
constexpr off_t kSize = 4 * kMegabyte;

std::string empty_image() {
  std::string path = "/tmp/holdfast-loop-XXXXXX";
  const UniqueFd file{::mkostemp(path.data(), O_CLOEXEC)};
  return file && ::ftruncate(file.get(), kSize) == 0 ? path : std::string{};
}

class Loop {
 public:
  explicit Loop(const std::string& backing) {
    const UniqueFd file{::open(backing.c_str(), O_RDWR | O_CLOEXEC)};
    if (file) path_ = testing_support::attach_loop(file.get(), LO_FLAGS_PARTSCAN);
    if (!path_.empty()) device_.reset(::open(path_.c_str(), O_RDWR | O_CLOEXEC));
  }
  ~Loop() {
    if (device_) ::ioctl(device_.get(), LOOP_CLR_FD);
  }
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;
  [[nodiscard]] const std::string& path() const { return path_; }

  // By number, so that it does not depend on the partition tables that this kernel reads.
  [[nodiscard]] bool add_partition(int number) const {
    blkpg_partition partition{};
    partition.pno = number;
    partition.start = number * kMegabyte;
    partition.length = kMegabyte;
    blkpg_ioctl_arg request{BLKPG_ADD_PARTITION, 0, sizeof partition, &partition};
    return ::ioctl(device_.get(), BLKPG, &request) == 0;
  }

 private:
  UniqueFd device_;
  std::string path_;
};

std::vector<std::string> siblings(const std::string& path) {
  const auto device = identify(path);
  EXPECT_TRUE(device) << device.error().message;
  std::vector<std::string> lines;
  if (device)
    for (const Sibling& sibling : device->siblings)
      lines.push_back(sibling.node.path + ": " + std::string{to_string(sibling.relation)});
  return lines;
}

class LoopDevice : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::access("/dev/loop-control", R_OK | W_OK) != 0) GTEST_SKIP() << "needs /dev/loop-control";
    image_ = empty_image();
    ASSERT_FALSE(image_.empty());
  }
  void TearDown() override {
    if (!image_.empty()) ::unlink(image_.c_str());
  }
  std::string image_;
};

TEST_F(LoopDevice, is_a_disk_whose_partitions_are_covered) {
  const Loop loop{image_};
  if (loop.path().empty()) GTEST_SKIP() << "no loop device could be set up";
  const auto device = identify(loop.path());
  ASSERT_TRUE(device) << device.error().message;
  EXPECT_EQ(device->family, Family::disk);
  EXPECT_EQ(device->subsystem, "block");
  EXPECT_EQ(device->node.id.kind, Kind::block);
  EXPECT_EQ(device->node.id.major, 7U);
  EXPECT_EQ(device->node.path, loop.path());
  EXPECT_THAT(device->siblings, ::testing::IsEmpty());
  if (!loop.add_partition(1) || !loop.add_partition(2)) GTEST_SKIP() << "this kernel has no partitions on loop devices";
  EXPECT_THAT(siblings(loop.path()), ElementsAre(loop.path() + "p1: partition", loop.path() + "p2: partition"));
  std::vector<std::string> covered;
  const auto parted = identify(loop.path());
  ASSERT_TRUE(parted) << parted.error().message;
  for (const Covered& one : covered_nodes(*parted, Cover::function)) covered.push_back(one.node.path);
  EXPECT_THAT(covered, ElementsAre(loop.path(), loop.path() + "p1", loop.path() + "p2"));
  EXPECT_THAT(siblings(loop.path() + "p1"), ElementsAre(loop.path() + ": whole disk"));
}

TEST_F(LoopDevice, on_a_partition_of_another_is_a_layer_above_it) {
  const Loop lower{image_};
  if (lower.path().empty() || !lower.add_partition(1) || !lower.add_partition(2))
    GTEST_SKIP() << "needs partitions on loop devices";
  const std::string part = lower.path() + "p2";
  const Loop upper{part};
  ASSERT_FALSE(upper.path().empty());
  EXPECT_THAT(siblings(upper.path()),
              ::testing::UnorderedElementsAre(lower.path() + ": layer below", part + ": layer below"));
  EXPECT_THAT(siblings(part), Contains(upper.path() + ": layer above"));
  EXPECT_THAT(siblings(lower.path()), Contains(upper.path() + ": layer above"));
  EXPECT_THAT(siblings(lower.path() + "p1"), Not(Contains(upper.path() + ": layer above")));
}

TEST_F(LoopDevice, is_identified_while_somebody_has_it_exclusively) {
  const Loop loop{image_};
  if (loop.path().empty()) GTEST_SKIP() << "no loop device could be set up";
  const UniqueFd exclusive{::open(loop.path().c_str(), O_RDONLY | O_EXCL | O_CLOEXEC)};
  ASSERT_TRUE(exclusive);
  const auto device = identify(loop.path());
  ASSERT_TRUE(device) << device.error().message;
  EXPECT_TRUE(recheck(exclusive.get(), device->node));
}

}  // namespace
}  // namespace holdfast::device
