// SPDX-License-Identifier: MIT
// claim_exclusion_test.cpp - two claimers exclude each other by whatever name they come, be they processes or threads
// of one; and a refusal says who holds, by which means and since when.
#include "process/support/child.hpp"
#include "process/support/devices.hpp"

#include "device/device.hpp"

#include <holdfast/claim.hpp>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fcntl.h>
#include <sched.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

namespace holdfast {
namespace {

using testing::Contains;
using testing::HasSubstr;
using testing::IsEmpty;
using namespace testing_support;
using namespace std::chrono_literals;

// "taken", or the error's message.
std::string try_claim(const std::string& device, const Options& options = {}) {
  const auto taken = claim(device, options);
  return taken ? "taken" : taken.error().message;
}

// A process that holds `device` until it is told anything; it then releases, says "released", and lives on.
Child holder_of(const std::string& device, const Options& options = {}) {
  return Child{[=](Peer& test) {
    auto mine = claim(device, options);
    test.tell(mine ? "claimed" : mine.error().message);
    test.hear();
    if (mine) mine->release();
    test.tell("released");
    test.hear();
    return 0;
  }};
}

// All names under which another process may come to the same device.
std::vector<std::string> names_of(const std::string& device, const TemporaryDirectory& directory) {
  struct stat node{};
  EXPECT_EQ(::stat(device.c_str(), &node), 0);
  const std::string link = directory / "link";
  EXPECT_EQ(::symlink(device.c_str(), link.c_str()), 0);
  return {device, link, "/dev/../" + device.substr(1)};
}

TEST(ExclusiveClaim, refuses_every_name_of_a_pty_until_released) {
  const Pty pty;
  const TemporaryDirectory directory;
  Child holder = holder_of(pty.path());
  ASSERT_EQ(holder.hear(), "claimed");
  for (const std::string& name : names_of(pty.path(), directory))
    EXPECT_THAT(try_claim(name), HasSubstr("is held by")) << name;
  holder.tell("release");
  ASSERT_EQ(holder.hear(), "released");
  EXPECT_THAT(lock_files_of(pty.path()), IsEmpty());
  EXPECT_EQ(try_claim(pty.path()), "taken");
}

TEST(ExclusiveClaim, refuses_every_name_number_and_node_copy_of_a_loop_device) {
  const LoopDevice loop;
  if (!loop.missing().empty()) GTEST_SKIP() << "needs " << loop.missing();
  const TemporaryDirectory directory;
  struct stat node{};
  ASSERT_EQ(::stat(loop.path().c_str(), &node), 0);
  std::vector<std::string> names = names_of(loop.path(), directory);
  names.push_back("b" + std::to_string(major(node.st_rdev)) + ":" + std::to_string(minor(node.st_rdev)));
  const std::string copy = directory / "copy";
  if (::mknod(copy.c_str(), S_IFBLK | 0600, node.st_rdev) == 0) names.push_back(copy);

  Child holder = holder_of(loop.path());
  ASSERT_EQ(holder.hear(), "claimed");
  for (const std::string& name : names) EXPECT_THAT(try_claim(name), HasSubstr("is held by")) << name;
  holder.tell("release");
  ASSERT_EQ(holder.hear(), "released");
  for (const std::string& name : names) EXPECT_EQ(try_claim(name), "taken") << name;
}

TEST(ExclusiveClaim, refuses_a_bind_mount_of_the_node) {
  const LoopDevice loop;
  if (!loop.missing().empty()) GTEST_SKIP() << "needs " << loop.missing();
  const TemporaryDirectory directory;
  Child holder = holder_of(loop.path());
  ASSERT_EQ(holder.hear(), "claimed");
  const std::string words = in_a_child([&] {
    const std::string target = directory / "bound";
    const base::UniqueFd file{::open(target.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600)};
    if (::unshare(CLONE_NEWNS) != 0 || ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        ::mount(loop.path().c_str(), target.c_str(), nullptr, MS_BIND, nullptr) != 0)
      return std::string{"skip: "} + std::strerror(errno);
    return try_claim(target);
  });
  if (words.starts_with("skip")) GTEST_SKIP() << "needs mount namespaces: " << words;
  EXPECT_THAT(words, HasSubstr("is held by"));
}

TEST(ExclusiveClaim, excludes_two_threads_of_one_process) {
  const Pty pty;
  for (const Mode mode : {Mode::exclusive, Mode::shared}) {
    auto mine = claim(pty.path(), {.mode = mode});
    ASSERT_TRUE(mine) << mine.error().message;
    std::string others;
    std::thread{[&] { others = try_claim(pty.path()); }}.join();
    EXPECT_THAT(others, HasSubstr("[" + std::to_string(::getpid()) + "]"));
    mine->release();
    std::thread{[&] { others = try_claim(pty.path()); }}.join();
    EXPECT_EQ(others, "taken");
  }
}

TEST(ExclusiveClaim, of_threads_that_compete_is_held_by_one_at_a_time) {
  const Pty pty;
  std::atomic<int> inside{0};
  std::atomic<int> overlaps{0};
  std::atomic<int> turns{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([&] {
      for (int turn = 0; turn < 10; ++turn) {
        auto mine = claim(pty.path(), {.wait = Wait::at_most(kPatience)});
        if (!mine) continue;
        if (inside.fetch_add(1) != 0) ++overlaps;
        ++turns;
        std::this_thread::yield();
        inside.fetch_sub(1);
      }
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(overlaps, 0);
  EXPECT_EQ(turns, 40);
  EXPECT_THAT(lock_files_of(pty.path()), IsEmpty());
}

TEST(Refusal, names_device_holder_means_and_since) {
  const Pty pty;
  const auto before = std::chrono::system_clock::now();
  Child holder = holder_of(pty.path(), {.purpose = "flashing"});
  ASSERT_EQ(holder.hear(), "claimed");
  const auto refused = claim(pty.path());
  ASSERT_FALSE(refused);
  const Error& error = refused.error();
  EXPECT_EQ(error.code, errc::refused);
  EXPECT_EQ(error.device, pty.path());
  EXPECT_THAT(error.message, HasSubstr(pty.path()));
  EXPECT_THAT(error.message, HasSubstr("[" + std::to_string(holder.pid()) + "] since "));
  ASSERT_TRUE(error.holder);
  EXPECT_EQ(error.holder->pid, holder.pid());
  EXPECT_FALSE(error.holder->command.empty());
  EXPECT_NE(error.holder->start_ticks, 0U);
  EXPECT_EQ(error.holder->purpose, "flashing");
  EXPECT_THAT(error.holder->means, Contains("holdfast"));
  ASSERT_TRUE(error.holder->since);
  EXPECT_GE(*error.holder->since + 1s, before);
  EXPECT_LE(*error.holder->since, std::chrono::system_clock::now() + 1s);
}

TEST(SeveralDevices, are_taken_all_or_none) {
  const Pty first;
  const Pty second;
  const LoopDevice loop;
  // Clears what a killed holder of an earlier terminal with the same number may have left.
  ASSERT_EQ(try_claim(first.path()), "taken");
  Child holder = holder_of(second.path());
  ASSERT_EQ(holder.hear(), "claimed");
  std::vector<std::string> both{first.path(), second.path()};
  if (loop.missing().empty()) both.push_back(loop.path());
  const auto refused = claim(both);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().device, second.path());
  EXPECT_THAT(lock_files_of(first.path()), IsEmpty());
  EXPECT_EQ(in_a_child([&] { return try_claim(first.path()); }), "taken");
  if (loop.missing().empty()) {
    EXPECT_EQ(in_a_child([&] { return try_claim(loop.path()); }), "taken");
  }

  holder.tell("release");
  ASSERT_EQ(holder.hear(), "released");
  {
    const auto taken = claim(both);
    ASSERT_TRUE(taken) << taken.error().message;
    for (const std::string& one : both)
      EXPECT_THAT(in_a_child([&] { return try_claim(one); }), HasSubstr("is held by")) << one;
  }
  EXPECT_THAT(lock_files_of(first.path()), IsEmpty());
  EXPECT_THAT(lock_files_of(second.path()), IsEmpty());
}

TEST(SeveralDevices, that_are_names_of_one_count_once) {
  const Pty pty;
  const TemporaryDirectory directory;
  const auto taken = claim(names_of(pty.path(), directory));
  ASSERT_TRUE(taken) << taken.error().message;
  EXPECT_EQ(taken->nodes(), std::vector<std::string>{pty.path()});
}

TEST(SeveralDevices, crossed_by_two_waiters_do_not_deadlock) {
  const Pty one;
  const Pty other;
  const auto turns = [](std::string a, std::string b) {
    return [a, b](Peer& test) {
      for (int turn = 0; turn < 10; ++turn) {
        const auto mine = claim(std::array{a, b}, {.wait = Wait::at_most(kPatience)});
        if (!mine) {
          test.tell(mine.error().message);
          return 1;
        }
      }
      test.tell("done");
      return 0;
    };
  };
  Child forward{turns(one.path(), other.path())};
  Child backward{turns(other.path(), one.path())};
  EXPECT_EQ(forward.hear(), "done");
  EXPECT_EQ(backward.hear(), "done");
}

// udevd locks a disk for some milliseconds to look at it, by a worker that may be dead when one asks who it was.
TEST(Exclusion, a_lock_that_udevd_has_in_passing_refuses_no_claim) {
  const LoopDevice loop;
  if (!loop.missing().empty()) GTEST_SKIP() << loop.missing();
  Child udevd{[&](Peer& test) {
    test.tell("here");
    while (true) {
      const pid_t worker = ::fork();
      if (worker == 0) {
        ::prctl(PR_SET_NAME, "(udev-worker)");
        const base::UniqueFd disk{::open(loop.path().c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC)};
        if (::flock(disk.get(), LOCK_SH | LOCK_NB) == 0) ::usleep(200);
        ::_exit(0);
      }
      ::waitpid(worker, nullptr, 0);
      ::usleep(1000);
    }
    return 0;
  }};
  ASSERT_EQ(udevd.hear(), "here");
  for (int i = 0; i < 300; ++i) ASSERT_EQ(try_claim(loop.path()), "taken") << "at attempt " << i;
}

}  // namespace
}  // namespace holdfast
