// SPDX-License-Identifier: MIT
// Where nothing is: whatever brings something there is noticed before the call that does it returns, and what others do
// nearby is not taken for it.
#include "broker/path_watch.hpp"

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

namespace holdfast::broker {
namespace {

namespace fs = std::filesystem;

class PathWatching : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_NE(::mkdtemp(folder_.data()), nullptr);
    ASSERT_TRUE(fs::create_directory(folder_ + "/etc"));
  }
  void TearDown() override { fs::remove_all(folder_); }

  [[nodiscard]] std::string path() const { return folder_ + "/etc/holdfast/hooks.d"; }
  void make_it() const { fs::create_directories(path()); }
  // As one that asks often.
  static bool start(PathWatch& watch) {
    for (int i = 1; i < PathWatch::kPays; ++i)
      if (watch.start()) return false;
    return watch.start();
  }
  static void touch(const std::string& file) { std::ofstream{file}; }

  std::string folder_ = ::testing::TempDir() + "path_watch_XXXXXX";
};

TEST_F(PathWatching, nothing_is_known_before_it_starts) {
  PathWatch watch{path()};
  EXPECT_FALSE(watch.is_quiet());
}

TEST_F(PathWatching, it_is_quiet_while_nothing_happens_and_others_use_the_same_folders) {
  PathWatch watch{path()};
  ASSERT_TRUE(start(watch));
  EXPECT_TRUE(watch.is_quiet());
  touch(folder_ + "/etc/passwd");
  fs::rename(folder_ + "/etc/passwd", folder_ + "/etc/holdfast.d");
  EXPECT_TRUE(watch.is_quiet());
  EXPECT_TRUE(watch.is_quiet());
}

TEST_F(PathWatching, a_folder_made_on_the_way_is_noticed_until_it_starts_anew) {
  PathWatch watch{path()};
  ASSERT_TRUE(start(watch));
  fs::create_directory(folder_ + "/etc/holdfast");
  EXPECT_FALSE(watch.is_quiet());
  EXPECT_FALSE(watch.is_quiet());
  ASSERT_TRUE(start(watch));
  EXPECT_TRUE(watch.is_quiet());
  make_it();
  EXPECT_FALSE(watch.is_quiet());
}

TEST_F(PathWatching, entries_of_an_empty_folder_and_their_modes_are_noticed) {
  make_it();
  PathWatch watch{path()};
  ASSERT_TRUE(start(watch));
  EXPECT_TRUE(watch.is_quiet());
  touch(path() + "/check");
  EXPECT_FALSE(watch.is_quiet());
  ASSERT_TRUE(start(watch));
  ASSERT_EQ(::chmod((path() + "/check").c_str(), 0755), 0);
  EXPECT_FALSE(watch.is_quiet());
}

TEST_F(PathWatching, a_folder_moved_to_the_place_is_noticed_at_each_height) {
  fs::create_directories(folder_ + "/other/hooks.d");
  PathWatch watch{path()};
  ASSERT_TRUE(start(watch));
  fs::rename(folder_ + "/other", folder_ + "/etc/holdfast");
  EXPECT_FALSE(watch.is_quiet());
  ASSERT_TRUE(start(watch));
  EXPECT_TRUE(watch.is_quiet());
  fs::create_directories(folder_ + "/new/holdfast/hooks.d");
  fs::rename(folder_ + "/etc", folder_ + "/old");
  fs::rename(folder_ + "/new", folder_ + "/etc");
  EXPECT_FALSE(watch.is_quiet());
}

TEST_F(PathWatching, more_than_is_read_at_once_counts_as_a_change) {
  PathWatch watch{path()};
  ASSERT_TRUE(start(watch));
  for (int i = 0; i < 1000; ++i) touch(folder_ + "/etc/" + std::to_string(i));
  EXPECT_FALSE(watch.is_quiet());
}

TEST_F(PathWatching, what_cannot_be_watched_is_never_quiet) {
  fs::create_directories(folder_ + "/elsewhere/holdfast");
  fs::create_directory_symlink(folder_ + "/elsewhere/holdfast", folder_ + "/etc/holdfast");
  for (const std::string& name : {path(), folder_ + "/etc/../x", folder_ + "/./x", std::string{"hooks.d"}}) {
    PathWatch watch{name};
    EXPECT_FALSE(start(watch)) << name;
    EXPECT_FALSE(watch.is_quiet()) << name;
  }
}

TEST_F(PathWatching, what_is_mounted_on_the_way_is_noticed) {
  // In a child, whose mounts are its own.
  const pid_t child = ::fork();
  if (child == 0) {
    if (::unshare(CLONE_NEWNS) != 0 || ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) ::_exit(2);
    PathWatch watch{path()};
    const bool before = start(watch) && watch.is_quiet();
    if (::mount("none", (folder_ + "/etc").c_str(), "tmpfs", 0, "") != 0) ::_exit(2);
    ::_exit(before && !watch.is_quiet() ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status));
  if (WEXITSTATUS(status) == 2) GTEST_SKIP() << "needs a mount namespace of its own";
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

}  // namespace
}  // namespace holdfast::broker
