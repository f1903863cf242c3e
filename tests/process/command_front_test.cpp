// SPDX-License-Identifier: MIT
// The installed command as a shell meets it: exit statuses, one line per complaint, and standard descriptors that are
// closed, full or at their end.
#include "base/unique_fd.hpp"
#include "process/support/child.hpp"
#include "process/support/devices.hpp"
#include "process/support/shell.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <string>
#include <vector>

namespace holdfast {
namespace {

using base::UniqueFd;
using testing::AllOf;
using testing::EndsWith;
using testing::HasSubstr;
using testing::StartsWith;
using testing_support::ended;
using testing_support::Ended;
using testing_support::kPatience;
using testing_support::Pty;
using testing_support::Shell;
using testing_support::Stopwatch;
using testing_support::TemporaryDirectory;

bool is_free(const std::string& device) {
  const UniqueFd fd{::open(device.c_str(), O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC)};
  return fd && ::flock(fd.get(), LOCK_EX | LOCK_NB) == 0;
}

MATCHER(IsOneComplaint, "is one line that begins with \"holdfast: \"") {
  return arg.starts_with("holdfast: ") && arg.ends_with('\n') && std::ranges::count(arg, '\n') == 1;
}

TEST(Front, usage_errors_are_one_line_and_64) {
  for (const char* const words : {"", "frobnicate", "--frob", "run", "run $D", "run $D --", "run -- true", "claim",
                                  "claim -Q $D", "claim -w soon $D", "claim -E 256 $D", "claim -C nothing $D",
                                  "claim $D -- true", "claim ''", "run '' -- true", "explain", "help nothing"}) {
    const Ended it = ended(fmt::format("exec $H {}", words), "/dev/null");
    EXPECT_EQ(it.status, 64) << words;
    EXPECT_THAT(it.err, IsOneComplaint()) << words;
    EXPECT_EQ(it.out, "") << words;
  }
}

TEST(Front, what_is_no_device_is_66) {
  const TemporaryDirectory place;
  ASSERT_EQ(::symlink("nowhere", (place / "dangling").c_str()), 0);
  ASSERT_EQ(::symlink("loop", (place / "loop").c_str()), 0);
  ASSERT_EQ(::mkfifo((place / "fifo").c_str(), 0600), 0);
  for (const std::string& path :
       {place / "missing", place / "dangling", place / "loop", place / "fifo", place.path(), std::string{"c4095:1"}}) {
    for (const char* const command : {"claim -n $D", "run -n $D -- true", "explain $D"}) {
      const Ended it = ended(fmt::format("exec $H {}", command), path);
      EXPECT_EQ(it.status, 66) << path << ": " << it.err;
      EXPECT_THAT(it.err, IsOneComplaint());
    }
  }
}

TEST(Front, a_hostile_name_does_not_reach_the_terminal) {
  const Ended it = ended("exec $H claim \"$(printf '/dev/\\033[31m\\nred')\"");
  EXPECT_EQ(it.status, 66);
  EXPECT_THAT(it.err, IsOneComplaint());
  EXPECT_EQ(it.err.find('\033'), std::string::npos);
}

TEST(Front, an_argument_as_long_as_the_kernel_allows_is_refused_in_one_line) {
  const Ended it = ended("exec $H claim $(head -c 130000 /dev/zero | tr '\\0' a)");
  EXPECT_EQ(it.status, 64);
  EXPECT_THAT(it.err, IsOneComplaint());
  EXPECT_LT(it.err.size(), 1000U);
}

TEST(Front, ten_thousand_names_of_one_device_are_one_device) {
  const Pty pty;
  const Ended it = ended("exec $H run -n $(yes $D | head -n 10000) -- echo held", pty.path());
  EXPECT_EQ(it.status, 0) << it.err;
  EXPECT_EQ(it.out, "held\n");
}

TEST(Front, ten_thousand_devices_of_which_the_last_is_missing_leave_nothing_taken) {
  const Pty pty;
  const Ended it = ended("exec $H run -n $(yes $D | head -n 10000) /dev/missing -- echo held", pty.path());
  EXPECT_EQ(it.status, 66) << it.err;
  EXPECT_EQ(it.out, "");
  EXPECT_TRUE(is_free(pty.path()));
}

TEST(Front, claim_says_when_it_holds_and_ends_with_its_input) {
  const Pty pty;
  Shell holder{"exec $H claim $D", pty.path()};
  EXPECT_EQ(holder.line(), "claimed " + pty.path());
  EXPECT_FALSE(is_free(pty.path()));
  holder.close_input();
  EXPECT_EQ(holder.end().status, 0);
  EXPECT_TRUE(is_free(pty.path()));
}

TEST(Front, claim_without_input_ends_with_a_signal) {
  const Pty pty;
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) {
    for (const char* const input : {"</dev/null", "<&-"}) {
      Shell holder{fmt::format("exec $H claim $D {}", input), pty.path()};
      EXPECT_EQ(holder.line(), "claimed " + pty.path());
      EXPECT_FALSE(is_free(pty.path()));
      ::kill(holder.pid(), number);
      EXPECT_EQ(holder.end().status, 0) << input << ", signal " << number;
      EXPECT_TRUE(is_free(pty.path()));
    }
  }
}

TEST(Front, a_signal_during_the_wait_kills_as_it_would_kill_anybody) {
  const Pty pty;
  Shell holder{"exec $H claim $D", pty.path()};
  EXPECT_THAT(holder.line(), StartsWith("claimed"));
  Shell waiter{"exec $H claim -v $D 2>&1", pty.path()};
  EXPECT_THAT(waiter.line(), AllOf(HasSubstr("is held by"), EndsWith("; waiting")));
  ::kill(waiter.pid(), SIGTERM);
  EXPECT_EQ(waiter.end().status, 128 + SIGTERM);
}

TEST(Front, a_refusal_is_75_or_what_was_asked_for) {
  const Pty pty;
  Shell holder{"exec $H claim -m 'night run' $D", pty.path()};
  EXPECT_THAT(holder.line(), StartsWith("claimed"));
  for (const char* const command : {"claim -n $D", "run -n $D -- true", "claim -w 0 $D"}) {
    const Ended it = ended(fmt::format("exec $H {}", command), pty.path());
    EXPECT_EQ(it.status, 75) << command;
    EXPECT_THAT(it.err, AllOf(IsOneComplaint(), HasSubstr(fmt::format("[{}]", holder.pid()))));
  }
  EXPECT_EQ(ended("exec $H claim -n -E 0 $D", pty.path()).status, 0);
  EXPECT_EQ(ended("exec $H run -n -E 255 $D -- true", pty.path()).status, 255);
}

TEST(Front, a_wait_ends_at_its_deadline) {
  const Pty pty;
  Shell holder{"exec $H claim $D", pty.path()};
  EXPECT_THAT(holder.line(), StartsWith("claimed"));
  const Stopwatch watch;
  const Ended it = ended("exec $H claim -v -w 0.3 $D", pty.path());
  EXPECT_EQ(it.status, 75);
  EXPECT_GE(watch.ms(), 300);
  EXPECT_LT(watch.ms(), 5000);
  EXPECT_THAT(it.err, HasSubstr("; waiting until "));
}

TEST(Front, the_wait_ends_when_the_holder_does) {
  const Pty pty;
  Shell holder{"exec $H claim $D", pty.path()};
  EXPECT_THAT(holder.line(), StartsWith("claimed"));
  Shell waiter{"exec $H run -v $D -- echo mine 2>&1", pty.path()};
  EXPECT_THAT(waiter.line(), EndsWith("; waiting"));
  holder.close_input();
  const Ended it = waiter.end();
  EXPECT_EQ(it.status, 0);
  EXPECT_THAT(it.out, HasSubstr("mine\n"));
}

TEST(Front, output_that_cannot_be_written_is_71_and_takes_nothing) {
  const Pty pty;
  for (const char* const words : {"--help", "--version", "run --help", "claim $D", "doctor", "explain $D"}) {
    for (const char* const output : {">/dev/full", ">&-"}) {
      const Ended it = ended(fmt::format("exec $H {} {}", words, output), pty.path());
      EXPECT_EQ(it.status, 71) << words << output;
      EXPECT_THAT(it.err, HasSubstr("holdfast: standard output: ")) << words << output;
    }
  }
  EXPECT_TRUE(is_free(pty.path()));
}

TEST(Front, no_device_or_lock_becomes_a_standard_descriptor) {
  const Pty pty;
  Shell holder{"exec $H claim -v $D <&- 2>&-", pty.path()};
  EXPECT_THAT(holder.line(), StartsWith("claimed"));
  for (const char* const fd : {"0", "2"})
    EXPECT_EQ(std::filesystem::read_symlink(fmt::format("/proc/{}/fd/{}", holder.pid(), fd)), "/dev/null");
}

TEST(Front, a_command_finds_closed_descriptors_closed) {
  const Pty pty;
  const Ended it = ended("exec $H run -n $D -- sh -c 'readlink /proc/$$/fd/0; echo done' <&-", pty.path());
  EXPECT_EQ(it.out, "done\n") << it.err;
}

TEST(Front, without_descriptors_left_it_says_so_and_takes_nothing) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "missing: a statically linked command: the sanitizers' needs descriptors to be loaded at all";
#endif
  const Pty pty;
  // Another test's killed holder may have left its files under this number.
  const auto before = testing_support::lock_files_of(pty.path());
  for (const int limit : {4, 5, 6}) {
    const Ended it = ended(fmt::format("ulimit -n {}; exec $H claim -n $D", limit), pty.path());
    EXPECT_EQ(it.status, 71) << limit << ": " << it.err;
    EXPECT_THAT(it.err, IsOneComplaint()) << limit;
    EXPECT_TRUE(is_free(pty.path()));
    EXPECT_EQ(testing_support::lock_files_of(pty.path()), before) << limit;
  }
}

TEST(Front, a_command_that_cannot_be_run_is_126_and_one_that_is_missing_127) {
  const Pty pty;
  const Ended forbidden = ended("exec $H run -n $D -- /etc/passwd", pty.path());
  EXPECT_EQ(forbidden.status, 126);
  EXPECT_THAT(forbidden.err, IsOneComplaint());
  const Ended missing = ended("exec $H run -n $D -- no-such-command", pty.path());
  EXPECT_EQ(missing.status, 127);
  EXPECT_THAT(missing.err, IsOneComplaint());
  EXPECT_EQ(ended("exec $H run -n $D -- sh -c 'kill -9 $$'", pty.path()).status, 128 + SIGKILL);
  EXPECT_TRUE(is_free(pty.path()));
}

}  // namespace
}  // namespace holdfast
