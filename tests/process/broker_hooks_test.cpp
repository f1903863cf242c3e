// SPDX-License-Identifier: MIT
// Programs of the administrator: what they get, what they may, and what becomes of them.
#include "broker/hooks.hpp"

#include "process/support/child.hpp"
#include "process/support/devices.hpp"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <sstream>

namespace holdfast::broker {
namespace {

using namespace testing_support;
using namespace std::chrono_literals;
using ::testing::HasSubstr;
using Clock = HookRunner::Clock;

ClaimRecord some_claim(std::uint64_t id = 7) {
  ClaimRecord claim;
  claim.id = wire::ClaimId{id};
  claim.owner = {4121, 99};
  claim.purpose = "flash\nthe board";
  claim.devices = {{{device::Kind::character, 4, 64, 0}, "/dev/ttyS0", {}, true},
                   {{device::Kind::character, 4, 65, 0}, "/dev/ttyS1", {}, false},
                   {{device::Kind::character, 4, 66, 0}, "/dev/ttyS2", {}, true}};
  return claim;
}

class Hooks : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "needs root, whose the hooks must be";
    ::chmod(directory_.path().c_str(), 0755);
    ASSERT_EQ(::mkdir(settings_.directory.c_str(), 0755), 0);
    std::ofstream{out_};
    ::chmod(out_.c_str(), 0666);
  }
  // OUT in the script is the file that a hook may write to.
  void hook(const std::string& name, std::string script, mode_t mode = 0755) const {
    for (std::size_t at = 0; (at = script.find("OUT", at)) != std::string::npos; at += out_.size())
      script.replace(at, 3, out_);
    const std::string path = settings_.directory + "/" + name;
    std::ofstream{path} << "#!/bin/sh\n" << script << "\n";
    ::chmod(path.c_str(), mode);
  }
  [[nodiscard]] std::string out() const {
    std::stringstream text;
    text << std::ifstream{out_}.rdbuf();
    return text.str();
  }
  // As the loop does it, until `count` answers have come.
  static std::vector<HookRunner::Answer> answers_of(HookRunner& runner, std::size_t count) {
    std::vector<HookRunner::Answer> answers;
    const auto end = Clock::now() + kPatience;
    while (answers.size() < count && Clock::now() < end) {
      for (auto& answer : runner.advance(Clock::now())) answers.push_back(std::move(answer));
      const auto next = std::min(runner.next_deadline().value_or(end), end) - Clock::now();
      if (answers.size() == count) break;
      pollfd heard{runner.fd(), POLLIN, 0};
      ::poll(&heard, 1, static_cast<int>(std::clamp<std::int64_t>(next / 1ms + 1, 0, 1000)));
    }
    EXPECT_EQ(answers.size(), count);
    return answers;
  }
  // "granted", or why not.
  static std::string answer_of(HookRunner& runner, const ClaimRecord& claim) {
    const auto said = [](const Result<>& result) { return result ? "granted" : result.error().message; };
    if (const auto at_once = runner.before_grant(claim)) return said(*at_once);
    const auto answers = answers_of(runner, 1);
    if (answers.empty()) return "(silence)";
    EXPECT_EQ(answers.front().claim, claim.id);
    return said(answers.front().result);
  }
  // Goes on until the file has so many lines.
  void wait_for_lines(HookRunner& runner, std::ptrdiff_t count) const {
    const auto end = Clock::now() + kPatience;
    while (std::ranges::count(out(), '\n') < count && Clock::now() < end) {
      static_cast<void>(runner.advance(Clock::now()));
      pollfd heard{runner.fd(), POLLIN, 0};
      ::poll(&heard, 1, 10);
    }
  }

  TemporaryDirectory directory_;
  HookRunner::Settings settings_{.directory = directory_ / "hooks.d"};
  std::string out_ = directory_ / "out";
};

TEST_F(Hooks, none_grant_at_once) {
  HookRunner runner{settings_};
  EXPECT_TRUE(runner.before_grant(some_claim())) << "an empty directory";
  HookRunner without{{.directory = directory_ / "missing"}};
  EXPECT_TRUE(without.before_grant(some_claim()));
}

TEST_F(Hooks, that_come_after_many_grants_are_run_and_that_go_are_not) {
  HookRunner runner{settings_};
  const auto grant_often = [&] {
    for (int i = 0; i < 3 * PathWatch::kPays; ++i) ASSERT_TRUE(runner.before_grant(some_claim()));
  };
  grant_often();
  hook("10-no", "exit 1");
  EXPECT_TRUE(runner.are_there());
  EXPECT_THAT(answer_of(runner, some_claim()), HasSubstr("10-no refuses it"));
  ::unlink((settings_.directory + "/10-no").c_str());
  grant_often();
  hook("10-no", "exit 1", 0644);
  EXPECT_TRUE(runner.before_grant(some_claim()));
  ::chmod((settings_.directory + "/10-no").c_str(), 0755);
  EXPECT_TRUE(runner.are_there());
}

TEST_F(Hooks, run_in_the_order_of_names_with_the_claim_in_their_environment) {
  hook("20-second", "echo second >> OUT");
  hook("10-first", "echo \"first $# $1\" >> OUT; env | grep ^HOLDFAST | sort >> OUT");
  hook("30-third.dpkg-old", "echo leftover >> OUT");
  hook("README", "echo readme >> OUT", 0644);
  HookRunner runner{settings_};
  EXPECT_EQ(answer_of(runner, some_claim()), "granted");
  EXPECT_EQ(out(),
            "first 1 before-grant\nHOLDFAST_CLAIM=7\nHOLDFAST_DEVICES=/dev/ttyS0 /dev/ttyS2\n"
            "HOLDFAST_HOLDER_PID=4121\nHOLDFAST_HOLDER_START=99\nHOLDFAST_HOLDER_UID=0\nHOLDFAST_HOLDER_USER=root\n"
            "HOLDFAST_MODE=exclusive\nHOLDFAST_PURPOSE=flash?the board\nsecond\n");
}

TEST_F(Hooks, refusal_names_the_hook_and_its_last_line) {
  hook("10-shift", "echo looking; echo 'only after 18:00' >&2; exit 3");
  hook("20-next", "echo ran >> OUT");
  HookRunner runner{settings_};
  EXPECT_EQ(answer_of(runner, some_claim()), "/dev/ttyS0: the hook 10-shift refuses it: only after 18:00");
  EXPECT_EQ(out(), "") << "the next one is not asked";
}

TEST_F(Hooks, silent_refusal_gives_its_status_or_its_signal) {
  hook("10-no", "exit 4");
  HookRunner runner{settings_};
  EXPECT_THAT(answer_of(runner, some_claim()), HasSubstr("exit status 4"));
  hook("10-no", "kill -SEGV $$");
  EXPECT_THAT(answer_of(runner, some_claim()), HasSubstr("signal 11"));
  ::unlink((settings_.directory + "/10-no").c_str());
  std::ofstream{settings_.directory + "/10-no"} << "#!/nonexistent\n";
  ::chmod((settings_.directory + "/10-no").c_str(), 0755);
  EXPECT_THAT(answer_of(runner, some_claim()), HasSubstr("could not be run"));
}

TEST_F(Hooks, one_that_takes_too_long_is_killed_with_its_children_and_refuses) {
  hook("10-slow", "sleep 1000 & echo $! >> OUT; sleep 1000");
  settings_.at_most = 300ms;
  HookRunner runner{settings_};
  const Stopwatch watch;
  EXPECT_THAT(answer_of(runner, some_claim()), HasSubstr("longer than 300 ms"));
  EXPECT_LT(watch.ms(), 10'000);
  const auto child = pidfd_of(std::stoi(out()));
  EXPECT_TRUE(!child || wait_for_death(child.get()));
}

TEST_F(Hooks, loop_goes_on_while_one_runs) {
  hook("10-slow", "echo started >> OUT; sleep 1000");
  HookRunner runner{settings_};
  EXPECT_FALSE(runner.before_grant(some_claim()));
  wait_for_lines(runner, 1);
  const Stopwatch watch;
  for (int i = 0; i < 100; ++i) EXPECT_TRUE(runner.advance(Clock::now()).empty());
  EXPECT_LT(watch.ms(), 5000);
}

TEST_F(Hooks, one_that_floods_its_output_keeps_nobody_and_is_bounded) {
  hook("10-flood", "yes x | head -c 3000000; echo; echo 'the end'; exit 1");
  HookRunner runner{settings_};
  EXPECT_THAT(answer_of(runner, some_claim()), HasSubstr("10-flood refuses it: the end"));
}

TEST_F(Hooks, that_others_may_change_refuse) {
  HookRunner runner{settings_};
  hook("10-loose", "exit 0", 0775);
  EXPECT_THAT(answer_of(runner, some_claim()), HasSubstr("10-loose is not run"));
  hook("10-loose", "exit 0", 0757);
  EXPECT_THAT(answer_of(runner, some_claim()), HasSubstr("10-loose is not run"));
  hook("10-loose", "exit 0");
  EXPECT_EQ(answer_of(runner, some_claim()), "granted");
  ASSERT_EQ(::chown((settings_.directory + "/10-loose").c_str(), 51001, 0), 0);
  EXPECT_THAT(answer_of(runner, some_claim()), HasSubstr("10-loose is not run"));
  ::unlink((settings_.directory + "/10-loose").c_str());
  ASSERT_EQ(::symlink("/bin/true", (settings_.directory + "/10-loose").c_str()), 0);
  EXPECT_THAT(answer_of(runner, some_claim()), HasSubstr("10-loose is not run"));
  ::unlink((settings_.directory + "/10-loose").c_str());
  hook("10-tight", "exit 0");
  ::chmod(settings_.directory.c_str(), 0777);
  EXPECT_THAT(answer_of(runner, some_claim()), HasSubstr("others than root may change them"));
}

TEST_F(Hooks, get_no_right_no_descriptor_and_no_variable_of_ours) {
  hook("10-look",
       "grep -E '^(Uid|Gid|Groups|CapEff|CapPrm|CapInh|CapAmb|NoNewPrivs|SigBlk|SigIgn):' /proc/self/status | tr -s "
       "'\\t "
       "' ' ' >> OUT; ls -l /proc/self/fd | grep -c -- '->' >> OUT; readlink /proc/self/fd/0 >> OUT; pwd >> OUT; env | "
       "grep -c SECRET >> OUT; true");
  ::setenv("SECRET", "1", 1);
  const base::UniqueFd leaked{::open("/dev/zero", O_RDONLY)};  // not close-on-exec, as a library might
  HookRunner runner{settings_};
  EXPECT_EQ(answer_of(runner, some_claim()), "granted");
  EXPECT_EQ(out(),
            "Uid: 65534 65534 65534 65534\nGid: 65534 65534 65534 65534\nGroups: \nSigBlk: 0000000000000000\n"
            "SigIgn: 0000000000000000\nCapInh: 0000000000000000\nCapPrm: 0000000000000000\nCapEff: "
            "0000000000000000\nCapAmb: 0000000000000000\nNoNewPrivs: 1\n"
            "4\n/dev/null\n/\n0\n")
      << "4: the three standard ones, and the directory that ls reads";
}

TEST_F(Hooks, answer_that_nobody_wants_any_more_is_not_waited_for) {
  hook("10-slow", "echo $$ >> OUT; exec sleep 1000");
  HookRunner runner{settings_};
  EXPECT_FALSE(runner.before_grant(some_claim()));
  wait_for_lines(runner, 1);
  const auto pidfd = pidfd_of(std::stoi(out()));
  ASSERT_TRUE(pidfd);
  runner.forget(some_claim().id);
  EXPECT_TRUE(wait_for_death(pidfd.get()));
  EXPECT_TRUE(runner.advance(Clock::now()).empty());
}

TEST_F(Hooks, killed_broker_leaves_none_behind) {
  hook("10-slow", "echo $$ >> OUT; exec sleep 1000");
  Child broker{[&](testing_support::Peer& test) {
    HookRunner runner{settings_};
    static_cast<void>(runner.before_grant(some_claim()));
    wait_for_lines(runner, 1);
    test.tell("runs");
    test.hear();
    return 0;
  }};
  ASSERT_EQ(broker.hear(), "runs");
  const auto pidfd = pidfd_of(std::stoi(out()));
  ASSERT_TRUE(pidfd);
  broker.kill();
  EXPECT_TRUE(wait_for_death(pidfd.get()));
}

TEST_F(Hooks, after_the_end_they_are_told_why_and_refuse_nothing) {
  hook("10-no", "exit 1");
  hook("20-log", "echo $1 $HOLDFAST_END >> OUT");
  HookRunner runner{settings_};
  runner.after_end(some_claim(), arbiter::End::owner_died);
  wait_for_lines(runner, 1);
  EXPECT_EQ(out(), "after-release owner_died\n");
}

TEST_F(Hooks, only_so_many_run_at_once_and_all_are_answered) {
  hook("10-count", "echo + >> OUT; sleep 0.05; echo - >> OUT");
  settings_.at_once = 2;
  HookRunner runner{settings_};
  for (std::uint64_t id = 1; id <= 6; ++id) EXPECT_FALSE(runner.before_grant(some_claim(id)));
  const auto answers = answers_of(runner, 6);
  EXPECT_TRUE(std::ranges::all_of(answers, [](const auto& answer) { return answer.result.has_value(); }));
  int running = 0;
  int most = 0;
  for (const char byte : out()) {
    running += byte == '+' ? 1 : byte == '-' ? -1 : 0;
    most = std::max(most, running);
  }
  EXPECT_GE(most, 1);
  EXPECT_LE(most, 2);
}

}  // namespace
}  // namespace holdfast::broker
