// SPDX-License-Identifier: MIT
// explain and doctor on this machine's own devices, and on lock directories that are in every kind of bad shape.
#include "base/unique_fd.hpp"
#include "convention/convention.hpp"
#include "observe/doctor.hpp"
#include "observe/explain.hpp"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>

#include <nlohmann/json.hpp>

namespace holdfast::observe {
namespace {

using base::UniqueFd;
using testing::Contains;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

constexpr uid_t kNobody = 65534;

class Machine : public testing::Test {
 protected:
  Machine() {
    char name[] = "/tmp/holdfast-test-XXXXXX";
    if (::mkdtemp(name) == nullptr) std::abort();
    root_ = name;
    ::chmod(name, 0755);
    places_.lock_dir = root_ + "/lock";
    places_.tmp = root_ + "/tmp";
    for (const std::string& directory : {places_.lock_dir, places_.tmp}) {
      std::filesystem::create_directory(directory);
      ::chmod(directory.c_str(), 01777);
    }
    master_.reset(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
    char slave[64] = "";
    if (::grantpt(master_.get()) == 0 && ::unlockpt(master_.get()) == 0)
      ::ptsname_r(master_.get(), slave, sizeof slave);
    pty_ = slave;
  }
  ~Machine() override {
    std::error_code ignored;
    std::filesystem::remove_all(root_, ignored);
  }

  // What another user finds.
  static std::string as_nobody(const std::function<std::string()>& body) {
    int answer[2];
    if (::pipe2(answer, O_CLOEXEC) != 0) return {};
    const pid_t child = ::fork();
    if (child == 0) {
      if (::setgid(kNobody) != 0 || ::setuid(kNobody) != 0) ::_exit(1);
      const std::string text = body();
      ::_exit(::write(answer[1], text.data(), text.size()) == static_cast<ssize_t>(text.size()) ? 0 : 1);
    }
    ::close(answer[1]);
    std::string text;
    char buffer[4096];
    for (ssize_t got = 0; (got = ::read(answer[0], buffer, sizeof buffer)) > 0;)
      text.append(buffer, static_cast<std::size_t>(got));
    ::close(answer[0]);
    ::waitpid(child, nullptr, 0);
    return text;
  }

  [[nodiscard]] Finding finding(std::string_view topic) const {
    const auto all = examine(places_);
    const auto found = std::ranges::find(all, topic, &Finding::topic);
    return found == all.end() ? Finding{} : *found;
  }

  void write_lock_file(const std::string& name, const std::string& content) const {
    std::ofstream{places_.lock_dir + "/" + name} << content;
  }

  std::string root_;
  std::string pty_;
  UniqueFd master_;
  base::Places places_;
};

using Explain = Machine;

TEST_F(Explain, steps_follow_the_table_and_nothing_is_taken_or_opened) {
  const UniqueFd events{::inotify_init1(IN_NONBLOCK | IN_CLOEXEC)};
  ASSERT_GE(::inotify_add_watch(events.get(), pty_.c_str(), IN_OPEN), 0);
  const auto found = explain(pty_, Cover::function, places_);
  ASSERT_TRUE(found) << found.error().message;
  ASSERT_EQ(found->steps.size(), static_cast<std::size_t>(kConventionCount));
  for (std::size_t i = 0; i < found->steps.size(); ++i)
    EXPECT_EQ(found->steps[i].convention, convention::table()[i].id);
  EXPECT_TRUE(std::filesystem::is_empty(places_.lock_dir));
  EXPECT_TRUE(std::filesystem::is_empty(places_.tmp));
  char buffer[4096];
  EXPECT_EQ(::read(events.get(), buffer, sizeof buffer), -1);
}

TEST_F(Explain, terminal_gets_lock_files_and_no_block_convention) {
  const auto found = explain(pty_, Cover::function, places_);
  ASSERT_TRUE(found);
  const auto step = [&](Convention convention) { return found->steps[static_cast<std::size_t>(convention)]; };
  EXPECT_EQ(step(Convention::uucp).state, Step::State::would_take);
  EXPECT_THAT(step(Convention::uucp).files,
              Contains(places_.lock_dir + "/LCK..pts_" + pty_.substr(pty_.rfind('/') + 1)));
  EXPECT_EQ(step(Convention::o_excl).state, Step::State::not_applicable);
  EXPECT_THAT(step(Convention::o_excl).reason, Not(IsEmpty()));
  EXPECT_EQ(step(Convention::ddlp).state, Step::State::not_applicable);
}

TEST_F(Explain, closed_lock_directory_is_not_available_and_said_why) {
  if (::geteuid() != 0) GTEST_SKIP() << "missing: root, to become another user";
  ::chmod(places_.lock_dir.c_str(), 0755);
  const auto json = nlohmann::json::parse(as_nobody([&] {
                                            const auto found = explain(pty_, Cover::function, places_);
                                            return found ? to_json(*found) : found.error().message;
                                          }),
                                          nullptr, false);
  ASSERT_TRUE(json.is_object());
  for (const auto& step : json["steps"]) {
    if (step["convention"] != "proxy" && step["convention"] != "uucp") continue;
    EXPECT_EQ(step["state"], "not_available");
    EXPECT_THAT(step["reason"].get<std::string>(), HasSubstr(places_.lock_dir));
  }
}

TEST_F(Explain, node_that_one_may_not_open_names_the_group_it_needs) {
  if (::geteuid() != 0) GTEST_SKIP() << "missing: root, to become another user";
  ::chmod(pty_.c_str(), 0600);
  const auto json = nlohmann::json::parse(as_nobody([&] {
                                            const auto found = explain(pty_, Cover::function, places_);
                                            return found ? to_json(*found) : found.error().message;
                                          }),
                                          nullptr, false);
  ASSERT_TRUE(json.is_object());
  EXPECT_EQ(json["steps"][4]["convention"], "flock");
  EXPECT_EQ(json["steps"][4]["state"], "not_available");
  EXPECT_THAT(json["steps"][4]["reason"].get<std::string>(), HasSubstr("needs the group "));
}

TEST_F(Explain, text_names_device_order_limits_and_holders) {
  const auto found = explain(pty_, Cover::function, places_);
  ASSERT_TRUE(found);
  const std::string text = to_text(*found, std::chrono::system_clock::now());
  EXPECT_THAT(text, HasSubstr(pty_ + "\n"));
  EXPECT_LT(text.find("  proxy "), text.find("  uucp "));
  EXPECT_LT(text.find("  uucp "), text.find("  tiocexcl "));
  EXPECT_THAT(text, HasSubstr("limit: "));
  EXPECT_THAT(text, testing::ContainsRegex(pty_ + " +free"));
  EXPECT_THAT(text, HasSubstr("enforcement: advisory")) << "TIOCEXCL is not set on pseudo-terminals";
}

using Doctor = Machine;

TEST_F(Doctor, good_lock_directory_is_fine) {
  EXPECT_EQ(finding("lock_directory").weight, Weight::fine);
  EXPECT_EQ(finding("lock_files").weight, Weight::fine);
}

TEST_F(Doctor, missing_lock_directory_is_a_problem_with_a_remedy) {
  std::filesystem::remove(places_.lock_dir);
  EXPECT_EQ(finding("lock_directory").weight, Weight::problem);
  EXPECT_THAT(finding("lock_directory").remedy, HasSubstr("1777 " + places_.lock_dir));
  std::ofstream{places_.lock_dir} << "a file";
  EXPECT_THAT(finding("lock_directory").what, HasSubstr("not a directory"));
}

TEST_F(Doctor, directory_without_sticky_bit_is_a_problem) {
  ::chmod(places_.lock_dir.c_str(), 0777);
  EXPECT_EQ(finding("lock_directory").weight, Weight::problem);
  EXPECT_THAT(finding("lock_directory").remedy, HasSubstr("chmod +t"));
}

TEST_F(Doctor, directory_of_roots_own_is_a_note_to_root_and_a_problem_to_others) {
  if (::geteuid() != 0) GTEST_SKIP() << "missing: root, to become another user";
  ::chmod(places_.lock_dir.c_str(), 0755);
  EXPECT_EQ(finding("lock_directory").weight, Weight::note);
  const auto json = nlohmann::json::parse(as_nobody([&] { return to_json(examine(places_)); }), nullptr, false);
  ASSERT_TRUE(json.is_object());
  EXPECT_EQ(json["healthy"], false);
  EXPECT_EQ(json["findings"][0]["topic"], "lock_directory");
  EXPECT_EQ(json["findings"][0]["weight"], "problem");
}

TEST_F(Doctor, stale_lock_file_is_named_with_its_remedy) {
  const pid_t dead = ::fork();
  if (dead == 0) ::_exit(0);
  ::waitpid(dead, nullptr, 0);
  write_lock_file("LCK..ttyS99", std::to_string(dead) + "\n");
  EXPECT_EQ(finding("stale_lock_file").weight, Weight::note);
  EXPECT_THAT(finding("stale_lock_file").what, HasSubstr(std::to_string(dead)));
  EXPECT_EQ(finding("stale_lock_file").remedy, "rm " + places_.lock_dir + "/LCK..ttyS99");
}

TEST_F(Doctor, lock_file_of_a_living_process_is_no_finding) {
  write_lock_file("LCK..ttyS99", std::to_string(::getpid()) + "\n");
  EXPECT_EQ(finding("lock_files").weight, Weight::fine);
}

TEST_F(Doctor, garbled_lock_file_is_a_problem_and_reaches_no_terminal) {
  write_lock_file("LCK..\x1b[2J", "nobody");
  EXPECT_EQ(finding("garbled_lock_file").weight, Weight::problem);
  const std::string text = to_text(examine(places_));
  EXPECT_TRUE(std::ranges::all_of(text, [](char c) { return c == '\n' || (c >= ' ' && c <= '~'); })) << text;
}

TEST_F(Doctor, lock_file_that_cannot_be_read_is_not_called_garbled) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root to make a file that another user cannot read";
  write_lock_file("LCK..ttyS99", std::to_string(::getpid()) + "\n");
  ASSERT_EQ(::chmod((places_.lock_dir + "/LCK..ttyS99").c_str(), 0600), 0);
  const std::string text = as_nobody([&] { return to_text(examine(places_)); });
  EXPECT_THAT(text, HasSubstr("LCK..ttyS99 of user root cannot be read: Permission denied"));
  EXPECT_THAT(text, Not(HasSubstr("rm ")));
}

TEST_F(Doctor, planted_link_in_place_of_our_lock_file_is_a_problem) {
  ASSERT_EQ(::symlink("/etc/passwd", (places_.lock_dir + "/holdfast-c4:99").c_str()), 0);
  EXPECT_EQ(finding("own_lock_file").weight, Weight::problem);
  EXPECT_THAT(finding("own_lock_file").remedy, HasSubstr("rm "));
}

TEST_F(Doctor, health_is_the_absence_of_problems) {
  EXPECT_TRUE(is_healthy({}));
  EXPECT_TRUE(is_healthy({{"a", Weight::note, "b", "c"}}));
  EXPECT_FALSE(is_healthy({{"a", Weight::note, "b", "c"}, {"d", Weight::problem, "e", "f"}}));
}

}  // namespace
}  // namespace holdfast::observe
