// SPDX-License-Identifier: MIT
// convention_driver_lock_test.cpp - the owner that a driver names in sysfs, as text from outside.
#include "convention/driver_lock.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace holdfast::convention {
namespace {

class DriverOwner : public testing::Test {
 protected:
  DriverOwner() { EXPECT_NE(::mkdtemp(directory_.data()), nullptr); }
  ~DriverOwner() override { std::filesystem::remove_all(directory_); }
  std::optional<Holder> owner_as(const std::string& text) {
    const std::string folder = directory_ + "/dev/char/245:0/hf_exclusive";
    std::filesystem::create_directories(folder);
    std::ofstream{folder + "/owner"} << text;
    return owner();
  }
  std::optional<Holder> owner() {
    device::Node node;
    node.id = {device::Kind::character, 245, 0, 0};
    base::Places places;
    places.sys = directory_;
    return driver_owner(node, places);
  }

 private:
  std::string directory_ = "/tmp/holdfast-native-XXXXXX";
};

TEST_F(DriverOwner, is_none_without_the_attribute_or_when_it_is_free) {
  EXPECT_FALSE(owner());
  EXPECT_FALSE(owner_as("none\n"));
}

TEST_F(DriverOwner, is_a_process_with_its_name) {
  const auto found = owner_as("process " + std::to_string(::getpid()) + " 1000 some name\n");
  ASSERT_TRUE(found);
  EXPECT_EQ(found->pid, ::getpid());
  EXPECT_FALSE(found->command.empty());
  EXPECT_TRUE(found->since);
}

TEST_F(DriverOwner, is_the_kernel_without_a_number) {
  const auto found = owner_as("kernel 0 1000 kuser a\n");
  ASSERT_TRUE(found);
  EXPECT_EQ(found->pid, 0);
  EXPECT_EQ(found->command, "kernel");
  EXPECT_EQ(found->purpose, "kuser a");
}

TEST_F(DriverOwner, that_cannot_be_seen_from_here_is_there_all_the_same) {
  const auto found = owner_as("process 0 1000 other\n");
  ASSERT_TRUE(found);
  EXPECT_EQ(found->pid, 0);
  EXPECT_TRUE(found->command.empty());
}

TEST_F(DriverOwner, is_none_in_what_is_not_understood) {
  for (const char* text : {"", "\n", "nonesuch 1 2 x\n", "proc"}) EXPECT_FALSE(owner_as(text)) << text;
  for (const char* text : {"process", "process x y z", "process 99999999999999999999 -1 a"}) {
    const auto found = owner_as(text);
    ASSERT_TRUE(found) << text;
    EXPECT_EQ(found->pid, 0);
  }
}

}  // namespace
}  // namespace holdfast::convention
