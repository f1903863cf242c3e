// SPDX-License-Identifier: MIT
// A segment is opened by those for whom its locks are good, and by nobody else.
#include <fcntl.h>
#include <sched.h>
#include <holdfast/sync/mutex.hpp>
#include <holdfast/sync/segment.hpp>

#include <mutex>
#include <string>

#include "process/sync_support.hpp"

#if defined(__clang__)
#pragma clang diagnostic ignored "-Wthread-safety-analysis"  // a child locks and dies
#endif

namespace {

using namespace sync_tests;
using holdfast::sync::Acquired;
using holdfast::sync::errc;
using holdfast::sync::mutex;
using holdfast::sync::segment;
using holdfast::sync::SegmentHeader;

class SegmentFile : public testing::Test {
 protected:
  ~SegmentFile() override { ::unlink(path_.c_str()); }

  /// Changes one byte of the file's header.
  void spoil(off_t where) const {
    const int fd = ::open(path_.c_str(), O_RDWR | O_CLOEXEC);
    unsigned char byte = 0;
    EXPECT_EQ(::pread(fd, &byte, 1, where), 1);
    byte ^= 0xff;
    EXPECT_EQ(::pwrite(fd, &byte, 1, where), 1);
    ::close(fd);
  }
  [[nodiscard]] std::error_code refusal() const { return segment::open_or_make(path_, 4096).error(); }

  std::string path_ = "/dev/shm/holdfast-sync-test-" + std::to_string(::getpid());
};

TEST_F(SegmentFile, two_mappings_share_a_lock) {
  const auto first = segment::open_or_make(path_, 4096);
  ASSERT_TRUE(first) << first.error().message();
  const auto second = segment::open_or_make(path_, 4096);
  ASSERT_TRUE(second) << second.error().message();
  ASSERT_NE(first->as<mutex>(), second->as<mutex>());
  first->as<mutex>()->lock();
  EXPECT_EQ(second->as<mutex>()->trylock().error(), errc::deadlock);
  first->as<mutex>()->unlock();
  using TooLarge = std::array<char, 5000>;
  EXPECT_EQ(first->as<TooLarge>(), nullptr);
}

TEST_F(SegmentFile, what_is_not_ours_is_refused) {
  ASSERT_TRUE(segment::open_or_make(path_, 4096));
  EXPECT_EQ(segment::open_or_make(path_, 8192).error(), errc::wrong_layout);
  for (const off_t where : {offsetof(SegmentHeader, magic), offsetof(SegmentHeader, version),
                            offsetof(SegmentHeader, futex_offset), offsetof(SegmentHeader, bytes)}) {
    spoil(where);
    EXPECT_EQ(refusal(), errc::wrong_layout);
    spoil(where);
  }
  spoil(offsetof(SegmentHeader, boot));
  EXPECT_EQ(refusal(), errc::foreign_boot);
  spoil(offsetof(SegmentHeader, boot));
  EXPECT_TRUE(segment::open_or_make(path_, 4096));
}

TEST_F(SegmentFile, another_pid_namespace_is_refused) {
  ASSERT_TRUE(segment::open_or_make(path_, 4096));
  int status = 0;
  const pid_t pid = child([&] {
    if (::unshare(CLONE_NEWPID) != 0) ::_exit(77);
    const pid_t inner = ::fork();
    if (inner == 0) ::_exit(refusal() == errc::foreign_namespace ? 0 : 1);
    int inner_status = 0;
    ::waitpid(inner, &inner_status, 0);
    ::_exit(WEXITSTATUS(inner_status));
  });
  ASSERT_EQ(::waitpid(pid, &status, 0), pid);
  if (WEXITSTATUS(status) == 77) GTEST_SKIP() << "needs the right to make a pid namespace";
  EXPECT_EQ(status, 0);
}

TEST_F(SegmentFile, those_who_open_at_once_get_the_same) {
  Shared<std::atomic<int>> in;
  for (int i = 0; i < 4; ++i) {
    const pid_t pid = child([&] {
      const auto mapped = segment::open_or_make(path_, 4096);
      if (!mapped) ::_exit(1);
      auto* const count = static_cast<std::atomic<int>*>(mapped->data());
      ++*count;
      while (*count < 4) std::this_thread::sleep_for(100us);
      ++*in;
    });
    ASSERT_GT(pid, 0);
  }
  EXPECT_TRUE(comes_true([&] { return *in == 4; }));
  while (::waitpid(-1, nullptr, 0) > 0) {
  }
}

TEST(Segment, a_nameless_one_is_for_the_children) {
  const auto memory = segment::make(sizeof(mutex));
  ASSERT_TRUE(memory) << memory.error().message();
  auto* const lock = memory->as<mutex>();
  const pid_t pid = child([&] {
    lock->lock();
    ::raise(SIGKILL);
  });
  ::waitpid(pid, nullptr, 0);
  EXPECT_EQ(lock->lock_checked(), Acquired::owner_died);
  lock->unlock();
}

}  // namespace
