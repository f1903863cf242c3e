// SPDX-License-Identifier: MIT
// run_structure_test.cpp - the three processes of a run: who lives how long, what is passed through, and what is left
// when one of them is killed.
#include "run_support.hpp"

#include <holdfast/claim.hpp>

#include <sys/resource.h>
#include <sys/stat.h>

namespace holdfast::run_test {
namespace {

bool is_free(const Pty& pty) { return claim(pty.path()).has_value(); }

bool is_refused(const Pty& pty) {
  const auto attempt = claim(pty.path());
  return !attempt && attempt.error().code == errc::refused;
}

bool blocks(pid_t pid, int signal) {
  std::FILE* const file = std::fopen(("/proc/" + std::to_string(pid) + "/status").c_str(), "re");
  if (file == nullptr) return false;
  char line[256];
  unsigned long mask = 0;
  while (std::fgets(line, sizeof line, file) != nullptr && std::sscanf(line, "SigBlk: %lx", &mask) != 1) {
  }
  std::fclose(file);
  return ((mask >> (signal - 1)) & 1) != 0;
}

const std::vector<std::string> kAnswer{"sh", "-c", "echo $$; read line; echo got $line"};

TEST(Run, passes_the_exit_status_through) {
  const Pty pty;
  EXPECT_EQ(Process(run_arguments({pty.path()}, {"sh", "-c", "exit 7"})).wait(), 7);
  EXPECT_EQ(Process(run_arguments({pty.path()}, {"true"})).wait(), 0);
}

TEST(Run, reports_a_signal_as_128_plus_its_number) {
  const Pty pty;
  EXPECT_EQ(Process(run_arguments({pty.path()}, {"sh", "-c", "kill -TERM $$"})).wait(), 128 + SIGTERM);
  EXPECT_EQ(Process(run_arguments({pty.path()}, {"sh", "-c", "kill -KILL $$"})).wait(), 128 + SIGKILL);
}

TEST(Run, tells_a_missing_command_from_one_that_cannot_be_executed) {
  const Pty pty;
  EXPECT_EQ(Process(run_arguments({pty.path()}, {"/no/such/command"})).wait(), 127);
  EXPECT_EQ(Process(run_arguments({pty.path()}, {"no-such-command-anywhere"})).wait(), 127);
  EXPECT_EQ(Process(run_arguments({pty.path()}, {"/etc/passwd"})).wait(), 126);
  EXPECT_TRUE(is_free(pty));
}

TEST(Run, runs_a_script_without_an_interpreter_line_as_execvp_does) {
  const Pty pty;
  char name[] = "/tmp/holdfast-script-XXXXXX";
  const int fd = ::mkstemp(name);
  ASSERT_GE(fd, 0);
  ASSERT_EQ(::write(fd, "exit 5\n", 7), 7);
  ::fchmod(fd, 0755);
  ::close(fd);
  EXPECT_EQ(Process(run_arguments({pty.path()}, {name})).wait(), 5);
  ::unlink(name);
}

TEST(Run, passes_standard_input_and_its_end_through) {
  const Pty pty;
  Process run{run_arguments({pty.path()}, {"cat"})};
  run.type("hello\n");
  EXPECT_EQ(run.line(), "hello");
  run.close_input();
  EXPECT_EQ(run.wait(), 0);
}

TEST(Run, holds_the_device_exactly_as_long_as_the_command_runs) {
  const Pty pty;
  Process run{run_arguments({pty.path()}, kAnswer)};
  run.line();
  EXPECT_TRUE(is_refused(pty));
  run.type("x\n");
  EXPECT_EQ(run.line(), "got x");
  EXPECT_EQ(run.wait(), 0);
  EXPECT_TRUE(is_free(pty)) << "given back before run ends, not some time later";
}

TEST(Run, refuses_a_device_that_is_held_and_does_not_start_the_command) {
  const Pty pty;
  const auto held = claim(pty.path());
  ASSERT_TRUE(held);
  Process run{run_arguments({pty.path()}, {"echo", "started"})};
  EXPECT_EQ(run.rest(), "");
  EXPECT_EQ(run.wait(), 75);
}

TEST(Run, waits_for_a_device_that_is_held) {
  const Pty pty;
  auto held = claim(pty.path());
  ASSERT_TRUE(held);
  Process run{run_arguments({"-w", "20000", pty.path()}, {"echo", "started"})};
  // The command's process exists, so the first attempt is over or under way; whichever way, it may not start yet.
  ASSERT_TRUE(soon([&] { return !children_of(run.pid()).empty(); }));
  held->release();
  EXPECT_EQ(run.line(), "started");
  EXPECT_EQ(run.wait(), 0);
}

TEST(Run, a_wait_can_be_interrupted_like_any_program) {
  const Pty pty;
  const auto held = claim(pty.path());
  ASSERT_TRUE(held);
  Process run{run_arguments({"-v", "-w", "20000", pty.path()}, {"true"}), [] { ::dup2(1, 2); }};
  EXPECT_NE(run.line().find("; waiting"), std::string::npos);
  run.kill(SIGINT);
  EXPECT_EQ(run.wait(), 128 + SIGINT);
}

TEST(Run, ends_when_its_turn_comes_although_the_command_was_killed_while_it_waited) {
  const Pty pty;
  auto held = claim(pty.path());
  ASSERT_TRUE(held);
  Process run{run_arguments({"-N", "-v", "-w", "20000", pty.path()}, {"true"}), [] { ::dup2(1, 2); }};
  EXPECT_NE(run.line().find("; waiting"), std::string::npos);
  // From now on its signals are as it inherited them, and the news of a child's death is lost.
  ASSERT_TRUE(soon([&] { return !blocks(run.pid(), SIGCHLD); }));
  const auto children = children_of(run.pid());
  ASSERT_EQ(children.size(), 1U);
  const UniqueFd command{static_cast<int>(::syscall(SYS_pidfd_open, children.front(), 0))};
  ::kill(children.front(), SIGKILL);
  ASSERT_TRUE(has_ended(command));
  held->release();
  EXPECT_EQ(run.wait(), 128 + SIGKILL);
}

TEST(Run, a_file_size_limit_costs_the_lock_files_not_the_command) {
  const Pty pty;
  Process run{run_arguments({pty.path()}, {"true"}), [] {
                constexpr rlimit kNothing{0, 0};
                ::setrlimit(RLIMIT_FSIZE, &kNothing);
              }};
  EXPECT_EQ(run.wait(), 0);
}

TEST(Run, holds_several_devices_at_once) {
  const Pty one;
  const Pty other;
  Process run{run_arguments({one.path(), other.path()}, kAnswer)};
  run.line();
  EXPECT_TRUE(is_refused(one));
  EXPECT_TRUE(is_refused(other));
  run.type("x\n");
  EXPECT_EQ(run.line(), "got x");
  EXPECT_EQ(run.wait(), 0);
}

TEST(Run, writes_the_commands_own_pid_and_name_into_the_lock_file) {
  const Pty pty;
  Process run{run_arguments({pty.path()}, kAnswer)};
  const pid_t command = std::stoi(run.line());
  std::string content;
  EXPECT_TRUE(soon([&] {
    char text[256]{};
    const UniqueFd file{::open(pty.lock_file().c_str(), O_RDONLY | O_CLOEXEC)};
    if (file && ::read(file.get(), text, sizeof text - 1) > 0) content = text;
    return content.find("holdfast") == std::string::npos && content.find("run_driver") == std::string::npos &&
           !content.empty();
  })) << content;
  EXPECT_EQ(std::atoi(content.c_str()), command);
  const std::string name = content.substr(content.find('\n') + 1);
  EXPECT_TRUE(name.starts_with("dash\n") || name.starts_with("sh\n") || name.starts_with("bash\n")) << content;
}

TEST(Run, the_command_inherits_no_descriptor_of_ours) {
  const Pty pty;
  Process run{run_arguments({pty.path()}, {"sh", "-c", "ls /proc/self/fd | wc -l"})};
  Process alone{{"sh", "-c", "ls /proc/self/fd | wc -l"}};
  EXPECT_EQ(run.line(), alone.line());
}

TEST(Run, the_command_starts_with_the_signal_mask_and_the_ignored_signals_of_the_caller) {
  const Pty pty;
  const auto prepare = [] {
    sigset_t some;
    ::sigemptyset(&some);
    ::sigaddset(&some, SIGUSR2);
    ::sigprocmask(SIG_SETMASK, &some, nullptr);
    ::signal(SIGCHLD, SIG_IGN);
    ::signal(SIGHUP, SIG_IGN);
  };
  const std::vector<std::string> show{"grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"};
  Process run{run_arguments({pty.path()}, show), prepare};
  Process alone{show, prepare};
  EXPECT_EQ(run.rest(), alone.rest());
  EXPECT_EQ(run.wait(), 0);
}

TEST(Run, a_signal_sent_to_it_reaches_the_command_once) {
  const Pty pty;
  Process run{run_arguments({pty.path()}, {"python3", "-c",
                                           "import signal, sys\n"
                                           "count = 0\n"
                                           "def on(number, frame):\n"
                                           "  global count; count += 1\n"
                                           "signal.signal(signal.SIGUSR1, on)\n"
                                           "print('ready', flush=True)\n"
                                           "sys.stdin.readline()\n"
                                           "print(count, flush=True)\n"})};
  EXPECT_EQ(run.line(), "ready");
  run.kill(SIGUSR1);
  const auto pending = [&] {
    // Handled by the command: neither the front nor the command has it pending.
    const UniqueFd file{::open(("/proc/" + std::to_string(run.pid()) + "/status").c_str(), O_RDONLY | O_CLOEXEC)};
    char text[4096]{};
    if (::read(file.get(), text, sizeof text - 1) <= 0) return false;
    const std::string status{text};
    return status.find("ShdPnd:\t0000000000000000") != std::string::npos;
  };
  ASSERT_TRUE(soon(pending));
  run.type("\n");
  EXPECT_EQ(run.line(), "1");
  EXPECT_EQ(run.wait(), 0);
}

TEST(Run, ends_with_the_command_when_terminated) {
  const Pty pty;
  Process run{run_arguments({pty.path()}, {"sh", "-c", "echo ready; exec sleep 1000"})};
  run.line();
  run.kill(SIGTERM);
  EXPECT_EQ(run.wait(), 128 + SIGTERM);
  EXPECT_TRUE(is_free(pty));
}

TEST(Run, killing_the_front_neither_ends_the_command_nor_the_claim) {
  const Pty pty;
  Process run{run_arguments({pty.path()}, {"sh", "-c",
                                           "echo $$; read a; flock -n " + pty.path() + " echo locked; cat " +
                                               pty.lock_file() + " 2>/dev/null || echo hidden; read b"})};
  const UniqueFd process{static_cast<int>(::syscall(SYS_pidfd_open, std::stoi(run.line()), 0))};
  run.kill(SIGKILL);
  EXPECT_EQ(run.wait(), 128 + SIGKILL);
  EXPECT_TRUE(is_refused(pty));
  run.type("go on\n");
  EXPECT_EQ(run.line(), "locked") << "the keeper answers now";
  EXPECT_EQ(run.line(), "hidden");
  EXPECT_TRUE(is_refused(pty));
  run.type("end\n");
  ASSERT_TRUE(has_ended(process));
  EXPECT_TRUE(soon([&] { return is_free(pty); }, milliseconds{100}));
  EXPECT_NE(::access(pty.lock_file().c_str(), F_OK), 0);
}

TEST(Run, killing_the_keeper_changes_nothing) {
  const Pty pty;
  Process run{
      run_arguments({pty.path()}, {"sh", "-c", "echo $$; read a; flock -n " + pty.path() + " echo locked; read b"})};
  run.line();
  pid_t keeper = 0;
  ASSERT_TRUE(soon([&] { return (keeper = keeper_of(run.pid())) > 0; }));
  ::kill(keeper, SIGKILL);
  EXPECT_TRUE(soon([&] { return keeper_of(run.pid()) != keeper && keeper_of(run.pid()) > 0; }))
      << "another one takes its place";
  EXPECT_TRUE(is_refused(pty));
  run.type("go on\n");
  EXPECT_EQ(run.line(), "locked");
  run.kill(SIGKILL);
  run.wait();
  EXPECT_TRUE(is_refused(pty)) << "the new keeper holds it";
  run.type("end\n");
  EXPECT_TRUE(soon([&] { return is_free(pty); }));
}

TEST(Run, killing_the_command_frees_the_device_although_a_grandchild_lives) {
  const Pty pty;
  // The grandchild has inherited the open node from the command. (A lock that the command took by itself would stay
  // with it, as it does without us.)
  Process run{run_arguments(
      {pty.path()}, {"sh", "-c", "exec 7<" + pty.path() + "; sleep 1000 >/dev/null & echo $!; echo $$; read a"})};
  const pid_t grandchild = std::stoi(run.line());
  const pid_t command = std::stoi(run.line());
  ::kill(command, SIGKILL);
  EXPECT_EQ(run.wait(), 128 + SIGKILL);
  EXPECT_TRUE(is_free(pty));
  ::kill(grandchild, SIGKILL);
}

TEST(Run, descendants_that_outlive_the_command_can_still_make_system_calls) {
  const Pty pty;
  Process run{run_arguments(
      {pty.path()},
      {"sh", "-c", "exec 3<&0; (read a <&3; cat /proc/self/comm; flock -n " + pty.path() + " echo locked) & exit 3"})};
  EXPECT_EQ(run.wait(), 3);
  EXPECT_TRUE(is_free(pty));
  run.type("go\n");
  EXPECT_EQ(run.line(), "cat");
  EXPECT_EQ(run.line(), "locked");
}

TEST(Run, does_not_keep_the_callers_pipe_open) {
  const Pty pty;
  Process shell{{"sh", "-c", std::string{"x=$("} + RUN_DRIVER + " " + pty.path() + " -- echo inside); echo $x"}};
  EXPECT_EQ(shell.line(), "inside");
  EXPECT_EQ(shell.wait(), 0);
}

TEST(Run, a_nested_run_of_the_same_device_works_and_excludes_a_second_one) {
  const Pty pty;
  const std::string nested = std::string{RUN_DRIVER} + " " + pty.path() + " -- ";
  Process run{
      run_arguments({pty.path()}, {"sh", "-c",
                                   nested + "sh -c 'echo inner; " + nested + "true 2>/dev/null; echo $?; flock -n " +
                                       pty.path() + " echo locked'; echo $?; " + nested + "echo again"})};
  EXPECT_EQ(run.line(), "inner");
  EXPECT_EQ(run.line(), "75") << "the inner run holds it against its own kind";
  EXPECT_EQ(run.line(), "locked");
  EXPECT_EQ(run.line(), "0");
  EXPECT_EQ(run.line(), "again");
  EXPECT_EQ(run.wait(), 0);
}

TEST(Run, a_command_without_hand_over_meets_our_lock_like_a_strangers) {
  const Pty pty;
  Process run{run_arguments({"-N", pty.path()}, {"flock", "-n", "-E", "9", pty.path(), "true"})};
  EXPECT_EQ(run.wait(), 9);
}

TEST(Run, a_front_killed_at_any_moment_never_leaves_a_command_that_runs_unclaimed) {
  const Pty pty;
  int ran = 0;
  for (int round = 0; round < 200; ++round) {
    Process run{run_arguments({pty.path()}, {"sh", "-c", "echo ran; read a"})};
    ::usleep(static_cast<useconds_t>(round) * 15);  // a different moment each time, that is all
    run.kill(SIGKILL);
    run.wait();
    run.close_input();  // ends a command that runs
    ran += run.rest().empty() ? 0 : 1;
    ASSERT_TRUE(soon([&] { return is_free(pty); })) << "round " << round;
  }
  EXPECT_NE(::access(pty.lock_file().c_str(), F_OK), 0);
  RecordProperty("ran", ran);
}

}  // namespace
}  // namespace holdfast::run_test
