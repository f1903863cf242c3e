// SPDX-License-Identifier: MIT
// command_broker_test.cpp - the command with a real broker: claims for a shell, claims for a time, and kick.
#include "process/support/broker.hpp"
#include "process/support/devices.hpp"
#include "process/support/shell.hpp"

#include <fmt/format.h>
#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

namespace holdfast {
namespace {

using namespace testing_support;
using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;

class CommandBrokerTest : public testing::Test {
 protected:
  [[nodiscard]] const std::string& device() const { return pty_.path(); }
  [[nodiscard]] std::string claimed() const { return "claimed " + device(); }
  [[nodiscard]] int taken_at_once() const { return ended("exec $H run -n $D -- true", device()).status; }
  [[nodiscard]] int taken_within_patience() const { return ended("exec $H run -w 20 $D -- true", device()).status; }

  BrokerUnderTest broker_;
  Pty pty_;
};

TEST_F(CommandBrokerTest, a_claim_for_a_shell_ends_with_the_shell) {
  Shell shell{"$H claim --pid $$ -m script $D; echo goes on; read x", device()};
  EXPECT_EQ(shell.line(), claimed());
  EXPECT_EQ(shell.line(), "goes on");
  const Ended refused = ended("exec $H run -n $D -- true", device());
  EXPECT_EQ(refused.status, 75);
  EXPECT_THAT(refused.err, HasSubstr(fmt::format("sh[{}]", shell.pid()))) << "and not the command that has exited";
  EXPECT_THAT(ended("exec $H status $D", device()).out, HasSubstr("script"));
  shell.close_input();
  EXPECT_EQ(shell.end().err, "");
  EXPECT_EQ(taken_within_patience(), 0);
}

TEST_F(CommandBrokerTest, a_claim_for_a_shell_that_is_killed_is_free) {
  Shell shell{"$H claim --pid $$ $D; read x", device()};
  ASSERT_EQ(shell.line(), claimed());
  ::kill(shell.pid(), SIGKILL);
  EXPECT_EQ(taken_within_patience(), 0);
}

TEST_F(CommandBrokerTest, release_gives_back_what_the_shell_has_and_nothing_twice) {
  Shell shell{"$H claim --pid $$ $D; $H release --pid $$ $D; echo $?; $H release --pid $$ $D; echo $?; read x",
              device()};
  EXPECT_EQ(shell.line(), claimed());
  EXPECT_EQ(shell.line(), "0");
  EXPECT_EQ(shell.line(), "75");
  EXPECT_EQ(taken_at_once(), 0);
  const pid_t shell_pid = shell.pid();
  shell.close_input();
  EXPECT_THAT(shell.end().err,
              StartsWith(fmt::format("holdfast: {}: process {} has no claim of it", device(), shell_pid)));
}

TEST_F(CommandBrokerTest, release_does_not_give_back_what_another_has) {
  Shell holder{"$H claim --pid $$ $D; read x", device()};
  ASSERT_EQ(holder.line(), claimed());
  EXPECT_EQ(ended("$H release --pid $$ $D", device()).status, 75);
  EXPECT_EQ(ended("$H release --pid 4194305 $D", device()).status, 64) << "no process can have this number";
  EXPECT_EQ(taken_at_once(), 75);
}

TEST_F(CommandBrokerTest, a_claim_for_a_time_warns_and_lapses) {
  const Stopwatch watch;
  const Ended it = ended("exec $H claim --for 1 $D </dev/null", device());
  EXPECT_GE(watch.ms(), 1000);
  EXPECT_EQ(it.status, 75);
  EXPECT_EQ(it.out, claimed() + "\n");
  EXPECT_THAT(it.err, AllOf(HasSubstr(device() + ": its time is nearly over; it is taken back in "),
                            HasSubstr(": the time of the claim is over\n")));
  EXPECT_EQ(taken_at_once(), 0);
}

TEST_F(CommandBrokerTest, a_claim_for_a_shell_lapses_too_and_asking_again_renews_it) {
  Shell shell{
      "$H claim --pid $$ --for 30 $D; read x; $H claim --pid $$ --for 2h $D; read x; "
      "$H claim --pid $$ --for 0.1 $D; read x",
      device()};
  const auto seconds_left = [&] {
    const json status = json::parse(ended("exec $H status --json $D", device()).out, nullptr, false);
    const json& uses = status["devices"][0]["uses"];
    return uses.empty() || !uses[0]["lapses_in_seconds"].is_number() ? 0.0 : uses[0]["lapses_in_seconds"].get<double>();
  };
  EXPECT_EQ(shell.line(), claimed());
  EXPECT_GT(seconds_left(), 5);
  EXPECT_LE(seconds_left(), 30);
  shell.say("\n");
  EXPECT_EQ(shell.line(), claimed());
  EXPECT_GT(seconds_left(), 7000);
  shell.say("\n");
  EXPECT_EQ(shell.line(), claimed());
  EXPECT_EQ(taken_within_patience(), 0) << "though the shell lives";
  EXPECT_EQ(::kill(shell.pid(), 0), 0);
}

TEST_F(CommandBrokerTest, kick_asks_first_and_then_takes_the_device) {
  Shell holder{"exec $H claim -m mine $D </dev/null 2>&1", device()};
  ASSERT_EQ(holder.line(), claimed());
  const Ended kick = ended("exec $H kick --grace 0.2 -m 'the board is needed' $D", device());
  EXPECT_EQ(kick.status, 0) << kick.err;
  EXPECT_EQ(taken_at_once(), 0) << "kick returns when the device is free";
  EXPECT_THAT(holder.line(), AllOf(StartsWith("holdfast: " + device() + ": somebody asks for it, "),
                                   HasSubstr("the board is needed"), HasSubstr("; it is taken back in ")));
  EXPECT_THAT(holder.line(), AllOf(StartsWith("holdfast: "), HasSubstr(device())));
  EXPECT_EQ(holder.end().status, 75);
}

TEST_F(CommandBrokerTest, kick_ends_when_the_holder_leaves_by_itself) {
  Shell holder{"exec $H claim $D </dev/null 2>&1", device()};
  ASSERT_EQ(holder.line(), claimed());
  Shell kick{"exec $H kick --grace 3600 $D", device()};
  EXPECT_THAT(holder.line(), HasSubstr("somebody asks for it"));
  ::kill(holder.pid(), SIGTERM);
  EXPECT_EQ(kick.end().status, 0);
  EXPECT_EQ(holder.end().status, 0);
}

TEST_F(CommandBrokerTest, kick_of_a_run_leaves_its_command_alive_and_says_so) {
  Shell run{"exec $H run -n $D -- sh -c 'echo runs; read x; exit 7' 2>&1", device()};
  ASSERT_EQ(run.line(), "runs");
  EXPECT_EQ(ended("exec $H kick --grace 0 $D", device()).status, 0);
  EXPECT_THAT(run.line(), AllOf(StartsWith("holdfast: "), HasSubstr("the command goes on")));
  run.close_input();
  EXPECT_EQ(run.end().status, 7);
}

TEST_F(CommandBrokerTest, nobody_to_kick_is_a_refusal) {
  const Ended it = ended("exec $H kick $D", device());
  EXPECT_EQ(it.status, 75);
  EXPECT_THAT(it.err, HasSubstr(device()));
}

}  // namespace
}  // namespace holdfast
