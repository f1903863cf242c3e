// SPDX-License-Identifier: MIT
// run_job_control_test.cpp - a run in the hands of an interactive shell on a terminal of its own: Ctrl-C, Ctrl-Z, fg,
// bg, window size.
#include "run_support.hpp"

#include <pty.h>
#include <holdfast/claim.hpp>

#include <sys/stat.h>
#include <termios.h>

namespace holdfast::run_test {
namespace {

// bash -i with a pseudo-terminal as its controlling terminal.
class Shell {
 public:
  Shell() {
    const winsize size{40, 100, 0, 0};
    int master = -1;
    pid_ = ::forkpty(&master, nullptr, nullptr, &size);
    if (pid_ == 0) {
      ::setenv("PS1", "", 1);
      ::setenv("TERM", "dumb", 1);
      ::unsetenv("PROMPT_COMMAND");
      ::execlp("bash", "bash", "--norc", "--noprofile", "--noediting", "-i", nullptr);
      ::_exit(99);
    }
    master_.reset(master);
    type("stty -echo; PS1=; echo re''ady\n");
    expect("ready\r\n");
  }
  Shell(const Shell&) = delete;
  Shell& operator=(const Shell&) = delete;
  ~Shell() {
    ::kill(pid_, SIGKILL);
    master_.reset();
    ::waitpid(pid_, nullptr, 0);
  }

  [[nodiscard]] int master() const { return master_.get(); }
  void type(const std::string& text) const {
    if (::write(master_.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()))
      ADD_FAILURE() << "the shell is gone";
  }
  /// Reads on until `wanted` has appeared; returns what came up to its end.
  std::string expect(const std::string& wanted) {
    while (true) {
      if (const auto at = seen_.find(wanted); at != std::string::npos) {
        std::string first = seen_.substr(0, at + wanted.size());
        seen_.erase(0, at + wanted.size());
        return first;
      }
      pollfd readable{master_.get(), POLLIN, 0};
      char buffer[4096];
      const bool ready = ::poll(&readable, 1, static_cast<int>(milliseconds{kPatience}.count())) == 1;
      const ssize_t got = ready ? ::read(master_.get(), buffer, sizeof buffer) : -1;
      if (got <= 0) {
        ADD_FAILURE() << "never saw \"" << wanted << "\", only: " << seen_;
        return {};
      }
      seen_.append(buffer, static_cast<std::size_t>(got));
    }
  }

 private:
  pid_t pid_ = -1;
  UniqueFd master_;
  std::string seen_;
};

std::string run_line(const Pty& pty, const std::string& command) {
  return std::string{RUN_DRIVER} + " " + pty.path() + " -- " + command;
}

bool is_refused(const Pty& pty) {
  const auto attempt = claim(pty.path());
  return !attempt && attempt.error().code == errc::refused;
}

TEST(JobControl, interrupt_from_the_terminal_ends_the_command_and_frees_the_device) {
  const Pty pty;
  Shell shell;
  shell.type(run_line(pty, "sh -c 'echo u''p; exec sleep 1000'") + "\n");
  shell.expect("up\r\n");
  shell.type("\x03");
  shell.type("echo status $?\n");
  shell.expect("status 130\r\n");
  EXPECT_TRUE(claim(pty.path()));
}

TEST(JobControl, an_interrupt_that_the_command_handles_reaches_it_once) {
  const Pty pty;
  Shell shell;
  shell.type(run_line(pty,
                      "python3 -c '\nimport signal, time\ncount = 0\ndef on(s, f):\n  global count; count += "
                      "1\nsignal.signal(signal.SIGINT, on)\n"
                      "print(\"u\" + \"p\", flush=True)\nwhile count == 0: signal.pause()\n"
                      "time.sleep(0.2)\nprint(\"count\", count)'\n"));
  shell.expect("up\r\n");
  shell.type("\x03");
  shell.expect("count 1\r\n");
}

TEST(JobControl, stop_and_foreground_work_and_the_claim_stays) {
  const Pty pty;
  Shell shell;
  shell.type(run_line(pty, "sh -c 'echo u''p; read a; echo got $a; exit 5'") + "\n");
  shell.expect("up\r\n");
  shell.type("\x1a");
  shell.expect("Stopped");
  shell.type("echo in''side\n");
  shell.expect("inside\r\n");
  EXPECT_TRUE(is_refused(pty)) << "stopped, not released";
  shell.type("fg\n");
  shell.type("word\n");
  shell.expect("got word\r\n");
  shell.type("echo status $?\n");
  shell.expect("status 5\r\n");
  EXPECT_TRUE(claim(pty.path()));
}

TEST(JobControl, stopped_twice_and_continued_in_the_background_it_ends_there) {
  const Pty pty;
  Shell shell;
  shell.type(run_line(pty,
                      "python3 -c '\nimport signal\n"
                      "signal.signal(signal.SIGCONT, lambda s, f: print(\"on\" + \"ward\", flush=True))\n"
                      "print(\"u\" + \"p\", flush=True)\nwhile True: signal.pause()\n'\n"));
  shell.expect("up\r\n");
  shell.type("\x1a");
  shell.expect("Stopped");
  shell.type("fg\n");
  shell.expect("onward\r\n");
  shell.type("\x1a");
  shell.expect("Stopped");
  shell.type("bg\n");
  shell.expect("onward\r\n");
  shell.type("kill %1; wait %1; echo status $?\n");
  shell.expect("status 143\r\n");
  EXPECT_TRUE(claim(pty.path()));
}

TEST(JobControl, a_background_command_that_reads_the_terminal_stops_the_job) {
  const Pty pty;
  Shell shell;
  shell.type(run_line(pty, "sh -c 'read a; echo got $a'") + " &\n");
  shell.type("until jobs | grep -q Stopped; do sleep 0.02; done; echo now; fg\n");
  shell.expect("now\r\n");
  shell.expect(RUN_DRIVER);
  shell.type("word\n");
  shell.expect("got word\r\n");
}

TEST(JobControl, killing_a_stopped_command_ends_the_job) {
  const Pty pty;
  Shell shell;
  shell.type(run_line(pty, "sh -c 'echo pid $$ e''nd; read a'") + "\n");
  shell.expect("pid ");
  const int command = std::atoi(shell.expect(" end\r\n").c_str());
  ASSERT_GT(command, 1);
  shell.type("\x1a");
  shell.expect("Stopped");
  ::kill(command, SIGKILL);
  // Whether bash still reports "Exit 137" depends on who saw the job end first, it or its `jobs`.
  shell.type("while jobs | grep -q Stopped; do sleep 0.02; done; echo en''ded\n");
  shell.expect("ended\r\n");
  EXPECT_TRUE(claim(pty.path()));
}

TEST(JobControl, a_change_of_the_window_size_reaches_the_command) {
  const Pty pty;
  Shell shell;
  shell.type(run_line(pty,
                      "python3 -c '\nimport os, signal\nwinch = {signal.SIGWINCH}\n"
                      "signal.pthread_sigmask(signal.SIG_BLOCK, winch)\nprint(\"u\" + \"p\", flush=True)\n"
                      "signal.sigwait(winch)\nprint(\"size\", os.get_terminal_size().columns, \"end\")\n'") +
             "\n");
  shell.expect("up\r\n");
  const winsize size{40, 77, 0, 0};
  ::ioctl(shell.master(), TIOCSWINSZ, &size);
  shell.expect("size 77 end\r\n");
}

TEST(JobControl, the_keeper_answers_descendants_while_the_job_is_stopped) {
  const Pty pty;
  Shell shell;
  const std::string fifo = "/tmp/holdfast-fifo-" + std::to_string(::getpid());
  ::unlink(fifo.c_str());
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  // A descendant in a session of its own is not stopped with the job.
  shell.type(run_line(pty, "sh -c 'setsid sh -c \"echo ap''art; read x < " + fifo + "; flock -n " + pty.path() +
                               " echo loc''ked\" & read a'\n"));
  shell.expect("apart\r\n");
  shell.type("\x1a");
  shell.expect("Stopped");
  const UniqueFd go{::open(fifo.c_str(), O_RDWR | O_CLOEXEC)};
  ASSERT_EQ(::write(go.get(), "go\n", 3), 3);
  shell.expect("locked\r\n");
  ::unlink(fifo.c_str());
}

}  // namespace
}  // namespace holdfast::run_test
