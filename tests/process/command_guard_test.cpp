// SPDX-License-Identifier: MIT
// command_guard_test.cpp - what the command says where there is no guard: in a mount namespace without a BPF file
// system, so that no test can switch the guard of this machine on or off. With a guard: tests/vm/guarded_test.cpp.
#include "process/support/child.hpp"
#include "process/support/devices.hpp"
#include "process/support/shell.hpp"

#include <gmock/gmock.h>
#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

#include <algorithm>

#include <nlohmann/json.hpp>

namespace holdfast {
namespace {

using namespace testing_support;
using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

constexpr const char* kPins = "/sys/fs/bpf";

/// The machine without its BPF file system, for this process and the commands that it starts.
class CommandGuardTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    able_ = ::geteuid() == 0 && ::access(kPins, F_OK) == 0 && ::unshare(CLONE_NEWNS) == 0 &&
            ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
            ::mount("none", kPins, "tmpfs", 0, nullptr) == 0;
  }
  void SetUp() override {
    if (!able_) GTEST_SKIP() << "needs root, mount namespaces and " << kPins;
    ::setenv("HOLDFAST_SOCKET", "", 1);
  }
  void TearDown() override { ::unsetenv("HOLDFAST_SOCKET"); }

  static inline bool able_ = false;
  Pty pty_;
};

TEST_F(CommandGuardTest, on_says_what_lacks_with_the_remedy) {
  const Ended it = ended("exec $H guard on");
  EXPECT_EQ(it.status, 71);
  EXPECT_THAT(
      it.err,
      HasSubstr("holdfast: the guard: /sys/fs/bpf is no BPF file system; remedy: mount -t bpf none /sys/fs/bpf\n"));
}

TEST_F(CommandGuardTest, status_is_1_while_it_is_off) {
  const Ended text = ended("exec $H guard status");
  EXPECT_EQ(text.status, 1);
  EXPECT_THAT(text.out, AllOf(StartsWith("the guard is off\n"), HasSubstr("remedy: mount -t bpf none /sys/fs/bpf")));
  const Ended in_json = ended("exec $H guard status --json");
  EXPECT_EQ(in_json.status, 1);
  const json out = json::parse(in_json.out, nullptr, false);
  EXPECT_EQ(out.value("guard", ""), "off");
  EXPECT_FALSE(out["lacks"].empty());
}

TEST_F(CommandGuardTest, off_when_it_is_off_has_nothing_to_do) {
  EXPECT_EQ(ended("exec $H guard off").status, 0);
  EXPECT_EQ(ended("exec $H guard off --force").status, 0);
}

TEST_F(CommandGuardTest, wrong_words_are_usage_errors) {
  for (const char* const words : {"", "maybe", "on off", "on -- true"}) {
    const Ended it = ended(std::string{"exec $H guard "} + words);
    EXPECT_EQ(it.status, 64) << words;
    EXPECT_EQ(std::ranges::count(it.err, '\n'), 1) << words;
  }
}

TEST_F(CommandGuardTest, doctor_lists_what_lacks_as_notes_with_remedies) {
  const json out = json::parse(ended("exec $H doctor --json").out, nullptr, false);
  const auto& findings = out["findings"];
  const auto pins = std::ranges::find_if(findings, [](const json& one) {
    return one["topic"] == "guard" && one["remedy"] == "mount -t bpf none /sys/fs/bpf";
  });
  ASSERT_NE(pins, findings.end()) << out;
  EXPECT_EQ((*pins)["weight"], "note") << "claims work without it";
}

TEST_F(CommandGuardTest, explain_says_why_a_claim_would_not_be_guarded) {
  const Ended text = ended("exec $H explain $D", pty_.path());
  EXPECT_THAT(text.out, AllOf(HasSubstr("enforcement: advisory"), HasSubstr("\n  not guarded: ")));
  const json out = json::parse(ended("exec $H explain --json $D", pty_.path()).out, nullptr, false);
  EXPECT_EQ(out[0]["enforcement"], "advisory");
  EXPECT_TRUE(out[0]["not_guarded"].is_string());
  const Ended null = ended("exec $H explain /dev/null");
  EXPECT_THAT(null.out, HasSubstr("not guarded: /dev/null never is: it is a memory device"));
}

TEST_F(CommandGuardTest, what_is_to_be_guarded_is_not_claimed_without_a_broker) {
  ::setenv("HOLDFAST_SOCKET", "/nowhere/socket", 1);
  for (const char* const words :
       {"run -n --guard $D -- echo ran", "run -n --guard=require $D -- echo ran", "claim -n --guard $D </dev/null"}) {
    const Ended it = ended(std::string{"exec $H "} + words, pty_.path());
    EXPECT_EQ(it.status, 71) << words;
    EXPECT_EQ(it.out, "") << words;
    EXPECT_EQ(it.err, "holdfast: the guard needs the broker: none answers at /nowhere/socket; start holdfastd\n");
  }
  for (const char* const how : {"auto", "off"})
    EXPECT_EQ(ended(std::string{"exec $H run -n --guard="} + how + " $D -- echo ran", pty_.path()).out, "ran\n");
}

TEST_F(CommandGuardTest, when_to_guard_is_one_of_three_words) {
  const Ended it = ended("exec $H run --guard=maybe $D -- true", pty_.path());
  EXPECT_EQ(it.status, 64);
  EXPECT_THAT(it.err, HasSubstr("'maybe' does not say when to guard; there are require, auto, off"));
}

TEST_F(CommandGuardTest, verbose_says_the_level) {
  EXPECT_THAT(ended("echo | $H claim -n -v --no-open $D", pty_.path()).err,
              HasSubstr("holdfast: enforcement: advisory\n"));
  EXPECT_THAT(ended("exec $H run -n -v --no-open $D -- true", pty_.path()).err,
              HasSubstr("holdfast: enforcement: advisory\n"));
}

}  // namespace
}  // namespace holdfast
