// SPDX-License-Identifier: MIT
// serial_test.cpp - the serial programs that people use and holdfast, on one line, both ways: they meet us, we meet
// them, and they run under us. Each test is a cell of docs/interop.md.
#include "interop/serial_programs.hpp"

#include "process/support/child.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <memory>

namespace holdfast::interop {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

// A link of another name to the line, for programs that treat /dev/pts differently.
class Alias {
 public:
  Alias() = default;
  Alias(const Alias&) = delete;
  Alias& operator=(const Alias&) = delete;
  ~Alias() {
    if (!path_.empty()) ::unlink(path_.c_str());
  }
  std::string make(const std::string& name, const std::string& target) {
    path_ = fmt::format("/dev/{}{}", name, ::getpid());
    ::unlink(path_.c_str());
    EXPECT_EQ(::symlink(target.c_str(), path_.c_str()), 0);
    return path_;
  }

 private:
  std::string path_;
};

// Opens the line for a moment, which CAP_SYS_ADMIN allows whatever the flag.
bool has_exclusive_flag(const std::string& device) {
  const base::UniqueFd fd{::open(device.c_str(), O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC)};
  int set = 0;
  return fd && ::ioctl(fd.get(), TIOCGEXCL, &set) == 0 && set != 0;
}

class Serial : public testing::TestWithParam<SerialProgram> {
 protected:
  void SetUp() override {
    if (!is_installed(program().binary)) GTEST_SKIP() << program().binary << " is not installed";
    if (::geteuid() != 0) GTEST_SKIP() << "root: cu needs a line that the user uucp may open";
    if (!program().device_name.empty()) device_ = alias_.make(program().device_name, line_.device());
    ASSERT_EQ(::chmod(line_.device().c_str(), 0666), 0);  // cu runs as the user uucp
    std::filesystem::create_directory(scratch_ / "dev");
    std::filesystem::create_directory(scratch_ / "sockets");
    ASSERT_EQ(::chmod((scratch_ / "sockets").c_str(), 0700), 0);
    adopt_strays();
  }

  void TearDown() override {
    kill_strays();
    // Those of a holdfast that was killed with the test, too.
    for (const std::string& file : testing_support::lock_files_of(line_.device())) ::unlink(file.c_str());
    for (const std::string& file : lock_files()) ::unlink(file.c_str());
  }

  static const SerialProgram& program() { return GetParam(); }

  // What the program's table row says, in the column named like the test.
  static void cell(const std::string& text, const std::string& note = {}) {
    const std::string test = testing::UnitTest::GetInstance()->current_test_info()->name();
    record(program().row, test.substr(0, test.find('/')), text, note.empty() ? program().note : note);
  }

  Words lock_files() const {
    Words files = lock_files_of(line_.device());
    const std::string other = "/run/lock/LCK.." + device_.substr(device_.rfind('/') + 1);
    if (std::find(files.begin(), files.end(), other) == files.end() && ::access(other.c_str(), F_OK) == 0)
      files.push_back(other);
    return files;
  }

  std::unique_ptr<Program> start() {
    const Started started = program().start(device_, scratch_);
    return std::make_unique<Program>(started.command, Stdio::terminal, started.environment);
  }

  std::unique_ptr<Program> start_under_run() {
    const Started started = program().start(device_, scratch_);
    return std::make_unique<Program>(run_with(device_, started.command), Stdio::terminal, started.environment);
  }

  std::vector<pid_t> opened_by_it() const { return openers(line_.device(), program().comm); }

  // It has the line open and marked in its own way; stopped there if it would not stay.
  bool has_the_line() const {
    const auto pids = opened_by_it();
    if (pids.empty()) return false;
    switch (program().mark) {
      case Mark::uucp: {
        for (const std::string& file : lock_files()) {
          std::ifstream content{file};
          pid_t pid = 0;
          if (content >> pid && pid == pids.front()) return true;
          // microcom writes no digits.
          if (std::filesystem::file_size(file) == sizeof(long)) return true;
        }
        return false;
      }
      case Mark::flock:
        return kernel_lock_on(line_.device(), "FLOCK");
      case Mark::posix:
        return kernel_lock_on(line_.device(), "POSIX");
      case Mark::tiocexcl:
        return has_exclusive_flag(line_.device());
      case Mark::none:
        return true;
    }
    return false;
  }

  bool gets_the_line(Program& one) {
    const bool got = eventually(
        [&] {
          line_.listen();
          return has_the_line() || (one.ended() && opened_by_it().empty());
        },
        {&one});
    if (program().passing)
      for (const pid_t pid : opened_by_it()) ::kill(pid, SIGSTOP);
    return got && has_the_line();
  }

  // It says why, ends, and has not the line.
  void expect_kept_out(Program& one, const std::vector<pid_t>& rightful = {}) {
    EXPECT_TRUE(eventually([&] { return one.has_said(program().refusal); }, {&one})) << one.output();
    EXPECT_TRUE(eventually([&] { return opened_by_it() == rightful; }, {&one})) << one.output();
  }

  // Both ways. What is said to a program that has just started may be thrown away when it sets its terminals up
  // (TCSAFLUSH), so it is said again.
  bool talks(Program& one) {
    const Talk& talk = program().talk;
    const auto insist = [&](const auto& say, const auto& understood) {
      for (int attempt = 0; attempt < 30; ++attempt) {
        say();
        if (eventually(
                [&] {
                  line_.listen();
                  return understood() || one.ended();
                },
                {&one}, {}, kPatience / 30))
          break;
      }
      return understood();
    };
    const bool heard =
        insist([&] { one.type(talk.typed); }, [&] { return line_.heard().find(talk.heard) != std::string::npos; });
    const bool shown = insist([&] { line_.say(talk.said); }, [&] { return one.has_said(talk.shown); });
    EXPECT_TRUE(heard) << "heard on the line: " << line_.heard() << "\nshown: " << one.output();
    EXPECT_TRUE(shown) << one.output();
    return heard && shown;
  }

  std::unique_ptr<Program> hold_by_claim() {
    auto holder = std::make_unique<Program>(holdfast({"claim", "-n", "-m", "test", device_}), Stdio::pipes);
    EXPECT_TRUE(eventually([&] { return holder->has_said("claimed"); }, {holder.get()})) << holder->output();
    return holder;
  }

  // kill -9 of all its processes (screen has two), and their deaths are awaited: a process that is dying has no
  // descriptors to be seen any more some time before the kernel has closed them.
  void kill_it() {
    ASSERT_THAT(opened_by_it(), Not(IsEmpty()));
    for (const pid_t pid : processes_below(::getpid(), program().comm)) {
      const base::UniqueFd process = testing_support::pidfd_of(pid);
      ::kill(pid, SIGKILL);
      ASSERT_TRUE(testing_support::wait_for_death(process.get()));
    }
  }

  bool honours_claims() const { return !program().refusal.empty(); }

  Line line_;
  Scratch scratch_;
  Alias alias_;
  std::string device_ = line_.device();
};

TEST_P(Serial, a_claim_keeps_it_out_if_it_honours_any_convention) {
  auto holder = hold_by_claim();
  auto one = start();
  if (!honours_claims()) {
    EXPECT_TRUE(gets_the_line(*one)) << one->output();
    cell("no");
    return;
  }
  expect_kept_out(*one);
  // That it was our claim and nothing else:
  holder->end_input();
  ASSERT_TRUE(eventually([&] { return holder->ended().has_value(); }, {holder.get()}));
  auto again = start();
  EXPECT_TRUE(gets_the_line(*again)) << again->output();
  cell("yes");
}

TEST_P(Serial, keeps_a_claim_out_by_whatever_it_marks) {
  auto one = start();
  ASSERT_TRUE(gets_the_line(*one)) << one->output();
  const pid_t pid = opened_by_it().front();
  const Ending claim = try_claim(device_);
  if (program().means.empty()) {
    EXPECT_EQ(claim.status, 0) << claim.output;
    cell("no");
    return;
  }
  EXPECT_EQ(claim.status, 75) << claim.output;
  EXPECT_THAT(claim.output, HasSubstr(fmt::format("{} is held by {}[{}]", line_.device(), program().comm, pid)));
  EXPECT_THAT(claim.output, HasSubstr(program().means));
  cell("yes: " + program().means);
}

TEST_P(Serial, status_shows_it) {
  auto one = start();
  ASSERT_TRUE(gets_the_line(*one)) << one->output();
  const std::string pid = std::to_string(opened_by_it().front());
  const Ending status = run_to_the_end(holdfast({"status", device_}));
  EXPECT_EQ(status.status, 0);
  EXPECT_THAT(status.output, HasSubstr(program().comm));
  EXPECT_THAT(status.output, HasSubstr(pid));
  cell("yes");
}

TEST_P(Serial, its_death_by_kill_frees_the_line_at_once) {
  auto one = start();
  ASSERT_TRUE(gets_the_line(*one)) << one->output();
  kill_it();
  const Ending claim = try_claim(device_);
  EXPECT_EQ(claim.status, 0) << claim.output;
  cell("yes");
}

TEST_P(Serial, works_under_run) {
  auto one = start_under_run();
  EXPECT_TRUE(talks(*one));
  if (program().quit.empty()) {
    cell("yes");
    return;
  }
  one->type(program().quit);
  EXPECT_TRUE(eventually([&] { return one->ended().has_value(); }, {one.get()})) << one->output();
  EXPECT_EQ(one->ended(), 0) << one->output();
  cell("yes");
}

TEST_P(Serial, run_keeps_others_out_meanwhile) {
  auto one = start_under_run();
  ASSERT_TRUE(talks(*one));
  const auto rightful = opened_by_it();
  ASSERT_THAT(rightful, Not(IsEmpty()));
  const Ending claim = try_claim(device_);
  EXPECT_EQ(claim.status, 75) << claim.output;
  auto other = start();
  if (honours_claims()) {
    expect_kept_out(*other, rightful);
    cell("its like and claims");
  } else {
    EXPECT_TRUE(eventually([&] { return opened_by_it().size() > rightful.size(); }, {one.get(), other.get()}))
        << other->output();
    cell("claims");
  }
}

TEST_P(Serial, the_line_is_free_as_soon_as_run_ends) {
  auto one = start_under_run();
  ASSERT_TRUE(talks(*one));
  kill_it();
  ASSERT_TRUE(eventually([&] { return one->ended().has_value(); }, {one.get()})) << one->output();
  const Ending claim = try_claim(device_);
  EXPECT_EQ(claim.status, 0) << claim.output;
  EXPECT_THAT(lock_files(), IsEmpty());
  auto next = start();
  EXPECT_TRUE(gets_the_line(*next)) << next->output();
  cell("yes");
}

INSTANTIATE_TEST_SUITE_P(interop, Serial, testing::ValuesIn(serial_programs()),
                         [](const auto& row) { return row.param.row; });

}  // namespace
}  // namespace holdfast::interop
