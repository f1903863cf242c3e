// SPDX-License-Identifier: MIT
// claim_gone_test.cpp - a device that goes while it is claimed or waited for: here a pseudo-terminal whose master is
// closed. Cables are pulled in the lab (tests/vm/plug_test.cpp).
#include "process/support/child.hpp"
#include "process/support/devices.hpp"

#include <holdfast/holdfast.h>
#include <holdfast/claim.hpp>

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <optional>

namespace holdfast {
namespace {

using namespace testing_support;
using testing::HasSubstr;
using testing::IsEmpty;

bool noticed(int fd) {
  pollfd readable{fd, POLLIN, 0};
  return ::poll(&readable, 1, static_cast<int>(kPatience.count())) == 1;
}

TEST(Gone, is_noticed_and_said) {
  std::optional<Pty> pty{std::in_place};
  const std::string path = pty->path();
  auto mine = claim(path);
  ASSERT_TRUE(mine) << mine.error().message;
  const auto notice = mine->notice_fd();
  ASSERT_TRUE(notice) << notice.error().message;
  EXPECT_EQ(mine->notice_fd().value_or(-1), *notice);
  pollfd readable{*notice, POLLIN, 0};
  ASSERT_EQ(::poll(&readable, 1, 0), 0);
  ASSERT_TRUE(mine->check());
  pty.reset();
  ASSERT_TRUE(noticed(*notice));
  const auto there = mine->check();
  ASSERT_FALSE(there);
  EXPECT_EQ(there.error().code, errc::gone);
  EXPECT_THAT(there.error().message, HasSubstr(path + ": is gone"));
  EXPECT_TRUE(mine->held());
  mine->release();
  EXPECT_THAT(lock_files_of(path), IsEmpty());
  EXPECT_EQ(mine->check().error().code, errc::not_held);
  EXPECT_EQ(mine->notice_fd().error().code, errc::not_held);
}

TEST(Gone, is_not_said_of_a_device_that_only_changed) {
  const Pty pty;
  auto mine = claim(pty.path());
  ASSERT_TRUE(mine) << mine.error().message;
  const auto notice = mine->notice_fd();
  ASSERT_TRUE(notice) << notice.error().message;
  struct stat node{};
  ASSERT_EQ(::stat(pty.path().c_str(), &node), 0);
  ASSERT_EQ(::chmod(pty.path().c_str(), node.st_mode & 07777U), 0);
  ASSERT_TRUE(noticed(*notice));
  EXPECT_TRUE(mine->check());
  pollfd readable{*notice, POLLIN, 0};
  EXPECT_EQ(::poll(&readable, 1, 0), 0) << "check() takes what was heard";
}

TEST(Gone, ends_a_wait_for_it_although_the_holder_holds_on) {
  std::optional<Pty> pty{std::in_place};
  const std::string path = pty->path();
  const auto mine = claim(path);
  ASSERT_TRUE(mine) << mine.error().message;
  Child waiter{[&](Peer& test) {
    pty.reset();  // the master that it inherited
    test.tell("waiting");
    const auto none = claim(path, {.wait = Wait::for_ever()});
    test.tell(none ? "claimed" : none.error().code == errc::gone ? "gone" : none.error().message);
    return 0;
  }};
  ASSERT_EQ(waiter.hear(), "waiting");
  ASSERT_TRUE(waited_for(path));
  pty.reset();
  EXPECT_EQ(waiter.hear(), "gone");
}

TEST(Gone, is_noticed_from_c) {
  std::optional<Pty> pty{std::in_place};
  hf_claim* mine = nullptr;
  ASSERT_EQ(hf_claim_device(&mine, pty->path().c_str(), nullptr, nullptr), 0);
  const int notice = hf_claim_notice_fd(mine);
  ASSERT_GE(notice, 0);
  EXPECT_EQ(hf_claim_check(mine), 0);
  pty.reset();
  ASSERT_TRUE(noticed(notice));
  EXPECT_EQ(hf_claim_check(mine), -1);
  EXPECT_EQ(errno, ENXIO);
  hf_release(mine);
  EXPECT_EQ(hf_claim_check(nullptr), -1);
  EXPECT_EQ(hf_claim_notice_fd(nullptr), -1);
}

TEST(Gone, before_there_is_anything_to_notice_it_with_is_said_at_once) {
  const LoopDevice loop;
  if (!loop.missing().empty()) GTEST_SKIP() << loop.missing();
  const std::string words = in_a_child([&loop]() -> std::string {
    struct stat node{};
    if (::stat(loop.path().c_str(), &node) != 0) return "no node";
    if (::unshare(CLONE_NEWNS) != 0 || ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        ::mount("none", "/dev", "tmpfs", 0, nullptr) != 0 ||
        ::mknod(loop.path().c_str(), S_IFBLK | 0600, node.st_rdev) != 0)
      return "no /dev of its own";
    auto mine = claim(loop.path());
    if (!mine) return mine.error().message;
    if (::unlink(loop.path().c_str()) != 0) return "not removed";
    const auto notice = mine->notice_fd();
    if (notice) return "a notice that nothing will ever make readable";
    return notice.error().code == errc::gone ? "told" : notice.error().message;
  });
  if (words.starts_with("no ")) GTEST_SKIP() << words;
  EXPECT_EQ(words, "told");
}

TEST(Gone, has_no_notice_when_the_user_has_no_inotify_left_and_check_still_tells) {
  const std::string words = in_a_child([]() -> std::string {
    if (::unshare(CLONE_NEWUSER) != 0) return "no user namespace";
    const base::UniqueFd limit{::open("/proc/sys/user/max_inotify_instances", O_WRONLY | O_CLOEXEC)};
    if (!limit || ::write(limit.get(), "0", 1) != 1) return "no limit of inotify instances";
    std::optional<Pty> pty{std::in_place};
    auto mine = claim(pty->path());
    if (!mine) return mine.error().message;
    const auto notice = mine->notice_fd();
    if (notice) return "a notice against the limit";
    if (notice.error().code != errc::no_resources) return notice.error().message;
    pty.reset();
    const auto there = mine->check();
    return there ? "still there" : "told";
  });
  if (words.starts_with("no ")) GTEST_SKIP() << words;
  EXPECT_EQ(words, "told");
}

}  // namespace
}  // namespace holdfast
