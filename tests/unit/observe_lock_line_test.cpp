// SPDX-License-Identifier: MIT
// Lines of /proc/locks as the kernel has written them over the years, and lines that nobody should have written.
#include "observe/observe.hpp"

#include <gtest/gtest.h>
#include <sys/sysmacros.h>

#include <random>
#include <string>

namespace holdfast::observe {
namespace {

using Kind = LockLine::Kind;

TEST(LockLine, flock_names_the_taker_and_the_file) {
  const auto lock = parse_lock_line("1: FLOCK  ADVISORY  WRITE 4121 00:05:133 0 EOF");
  ASSERT_TRUE(lock);
  EXPECT_EQ(lock->kind, Kind::flock);
  EXPECT_TRUE(lock->write);
  EXPECT_FALSE(lock->blocked);
  EXPECT_EQ(lock->pid, 4121);
  EXPECT_EQ(lock->inode, (device::InodeId{makedev(0, 5), 133}));
}

TEST(LockLine, numbers_of_the_file_system_are_hexadecimal_and_the_inode_is_decimal) {
  const auto lock = parse_lock_line("12: POSIX  ADVISORY  READ  7 fd:1a:1048576 128 191");
  ASSERT_TRUE(lock);
  EXPECT_EQ(lock->kind, Kind::posix);
  EXPECT_FALSE(lock->write);
  EXPECT_EQ(lock->inode, (device::InodeId{makedev(0xFD, 0x1A), 1048576}));
}

TEST(LockLine, lock_of_an_open_file_description_has_pid_minus_one) {
  const auto lock = parse_lock_line("3: OFDLCK ADVISORY  WRITE -1 00:05:133 0 0");
  ASSERT_TRUE(lock);
  EXPECT_EQ(lock->kind, Kind::ofd);
  EXPECT_EQ(lock->pid, -1);
}

TEST(LockLine, waiter_is_marked_however_deep_it_is_indented) {
  for (const char* line :
       {"1: -> FLOCK  ADVISORY  WRITE 99 00:05:133 0 EOF", "1:   -> FLOCK  ADVISORY  WRITE 99 00:05:133 0 EOF"}) {
    const auto lock = parse_lock_line(line);
    ASSERT_TRUE(lock) << line;
    EXPECT_TRUE(lock->blocked);
    EXPECT_EQ(lock->kind, Kind::flock);
    EXPECT_EQ(lock->pid, 99);
  }
}

TEST(LockLine, lease_and_delegation_are_leases) {
  EXPECT_EQ(parse_lock_line("2: LEASE  ACTIVE    READ  55 08:01:17 0 EOF")->kind, Kind::lease);
  EXPECT_EQ(parse_lock_line("2: DELEG  BREAKING  READ  55 08:01:17 0 EOF")->kind, Kind::lease);
  EXPECT_EQ(parse_lock_line("2: ACCESS ADVISORY  READ  55 08:01:17 0 EOF")->kind, Kind::other);
}

TEST(LockLine, line_of_fdinfo_is_the_same_after_its_tag) {
  EXPECT_TRUE(parse_lock_line("\t1: FLOCK  ADVISORY  READ 12 00:06:3 0 EOF\n"));
}

TEST(LockLine, lock_without_a_file_is_no_answer) {
  EXPECT_FALSE(parse_lock_line("1: POSIX *NOINODE* WRITE 12 <none>:0 0 EOF"));
}

TEST(LockLine, garbage_is_no_answer) {
  for (const char* line :
       {"", " ", ":", "1", "1:", "x: FLOCK ADVISORY WRITE 1 00:05:133 0 EOF", "1: ->",
        "1: FLOCK ADVISORY SIDEWAYS 1 00:05:1 0 EOF", "1: FLOCK ADVISORY WRITE one 00:05:1 0 EOF",
        "1: FLOCK ADVISORY WRITE 99999999999 00:05:1 0 EOF", "1: FLOCK ADVISORY WRITE 1 00:05 0 EOF",
        "1: FLOCK ADVISORY WRITE 1 00:05:", "1: FLOCK ADVISORY WRITE 1 1000:05:1 0 EOF",
        "1: FLOCK ADVISORY WRITE 1 00:100000:1 0 EOF", "1: FLOCK ADVISORY WRITE 1 00:05:-1 0 EOF",
        "1: FLOCK ADVISORY WRITE 1 00:05:99999999999999999999 0 EOF", "1: FLOCK ADVISORY WRITE 1 00:05:1x 0 EOF"})
    EXPECT_FALSE(parse_lock_line(line)) << line;
}

TEST(LockLine, no_cut_or_changed_byte_of_a_good_line_does_harm) {
  const std::string good = "12: -> OFDLCK ADVISORY  WRITE -1 00:05:133 0 EOF";
  std::mt19937 random{4711};
  std::size_t answered = 0;
  for (std::size_t cut = 0; cut <= good.size(); ++cut)
    for (int i = 0; i < 50; ++i) {
      std::string line = good.substr(0, cut);
      if (i > 0 && !line.empty()) line[random() % line.size()] = static_cast<char>(random());
      if (const auto lock = parse_lock_line(line)) {
        ++answered;
        EXPECT_LT(major(lock->inode.dev), 0x1000U);
      }
    }
  EXPECT_GT(answered, 0U);
  EXPECT_FALSE(parse_lock_line(std::string(1 << 20, ' ')));
  EXPECT_FALSE(parse_lock_line(std::string(1 << 20, '1')));
  EXPECT_FALSE(parse_lock_line(std::string("1: FLOCK\0ADVISORY", 17)));
}

}  // namespace
}  // namespace holdfast::observe
