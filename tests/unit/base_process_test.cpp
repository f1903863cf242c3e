// SPDX-License-Identifier: MIT
// Which process is that, and does it still run: on real processes in every state that death knows.
#include "base/process.hpp"
#include "base/unique_fd.hpp"

#include <gtest/gtest.h>

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <string>

namespace holdfast::base {
namespace {

using namespace std::chrono_literals;

constexpr pid_t kNoSuchPid = 4'194'304;  // PID_MAX_LIMIT, include/linux/threads.h: the first number never given

// A forked child that is killed and reaped at the end. It runs `body` and then waits.
class Child {
 public:
  template <class Body>
  explicit Child(Body body) {
    int ends[2];
    EXPECT_EQ(::pipe2(ends, O_CLOEXEC), 0);
    pid_ = ::fork();
    if (pid_ == 0) {
      body(ends[1]);
      while (true) ::pause();
    }
    ready_.reset(ends[0]);
    ::close(ends[1]);
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child() {
    kill();
    ::waitpid(pid_, nullptr, 0);
  }
  void kill() const { ::kill(pid_, SIGKILL); }
  // Until it has written a byte.
  void await() const {
    char byte = 0;
    EXPECT_EQ(::read(ready_.get(), &byte, 1), 1);
  }
  // Until it is dead but not reaped.
  void await_death() const {
    siginfo_t facts{};
    EXPECT_EQ(::waitid(P_PID, static_cast<id_t>(pid_), &facts, WEXITED | WNOWAIT), 0);
  }
  [[nodiscard]] pid_t pid() const { return pid_; }

 private:
  pid_t pid_ = -1;
  UniqueFd ready_;
};

void say_ready(int fd) {
  const char byte = 'r';
  if (::write(fd, &byte, 1) != 1) ::_exit(1);
}

TEST(FactsOf, itself_is_known_in_full) {
  const auto facts = facts_of(::getpid());
  ASSERT_TRUE(facts);
  EXPECT_EQ(facts->id, self());
  EXPECT_EQ(facts->id.pid, ::getpid());
  EXPECT_GT(facts->id.start_ticks, 0U);
  EXPECT_EQ(facts->uid, ::geteuid());
  EXPECT_FALSE(facts->dead);
  EXPECT_TRUE(is_alive(self()));
}

TEST(FactsOf, start_is_a_moment_ago_for_a_new_process) {
  const auto before = std::chrono::system_clock::now();
  const Child child{say_ready};
  child.await();
  const auto facts = facts_of(child.pid());
  ASSERT_TRUE(facts);
  EXPECT_GE(facts->started, before - 1s);
  EXPECT_LE(facts->started, std::chrono::system_clock::now() + 1s);
}

TEST(FactsOf, name_with_parentheses_and_blanks_is_read_whole) {
  const Child child{[](int ready) {
    ::prctl(PR_SET_NAME, ") R 1 (x");
    say_ready(ready);
  }};
  child.await();
  const auto facts = facts_of(child.pid());
  ASSERT_TRUE(facts);
  EXPECT_EQ(facts->command, ") R 1 (x");
  EXPECT_GT(facts->id.start_ticks, 0U);
}

TEST(FactsOf, first_process_is_alive) {
  ASSERT_TRUE(facts_of(1));
  EXPECT_TRUE(is_alive({1, 0}));
  EXPECT_TRUE(is_alive(facts_of(1)->id));
}

TEST(FactsOf, numbers_of_no_process_are_unknown_and_dead) {
  for (const pid_t pid : {kNoSuchPid, 0, -1}) {
    EXPECT_FALSE(facts_of(pid)) << pid;
    EXPECT_FALSE(is_alive({pid, 0})) << pid;
  }
}

TEST(IsAlive, another_start_time_is_another_process) {
  ProcessId other = self();
  other.start_ticks += 1;
  EXPECT_FALSE(is_alive(other));
  other.start_ticks = 0;
  EXPECT_TRUE(is_alive(other)) << "an unknown start time matches";
}

TEST(Self, child_does_not_take_itself_for_its_parent) {
  const ProcessId parent = self();
  const pid_t child = ::fork();
  if (child == 0) {
    const bool right = self().pid == ::getpid() && self() == facts_of(::getpid())->id && self().pid != parent.pid;
    ::_exit(right ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(self(), parent);
}

TEST(IsAlive, zombie_is_dead) {
  const Child child{say_ready};
  child.await();
  EXPECT_TRUE(is_alive({child.pid(), 0}));
  child.kill();
  child.await_death();
  ASSERT_TRUE(facts_of(child.pid())) << "not reaped, so still listed";
  EXPECT_TRUE(facts_of(child.pid())->dead);
  EXPECT_FALSE(is_alive({child.pid(), 0}));
}

TEST(IsAlive, stopped_process_is_alive) {
  const Child child{say_ready};
  child.await();
  ASSERT_EQ(::kill(child.pid(), SIGSTOP), 0);
  siginfo_t facts{};
  ASSERT_EQ(::waitid(P_PID, static_cast<id_t>(child.pid()), &facts, WSTOPPED | WNOWAIT), 0);
  EXPECT_TRUE(is_alive({child.pid(), 0}));
}

void* run_on(void* ready) {
  // The leader's end shows in its state; only then is the process in the state that is tested.
  while (true) {
    const auto facts = facts_of(::getpid());
    const UniqueFd stat{::open(("/proc/" + std::to_string(::getpid()) + "/stat").c_str(), O_RDONLY | O_CLOEXEC)};
    char text[256];
    const ssize_t got = ::read(stat.get(), text, sizeof text);
    if (got > 0 && std::string_view{text, static_cast<std::size_t>(got)}.find(") Z ") != std::string_view::npos) break;
    ::poll(nullptr, 0, 1);
  }
  say_ready(*static_cast<int*>(ready));
  while (true) ::pause();
}

TEST(IsAlive, process_whose_first_thread_ended_is_alive_while_another_runs) {
  const Child child{[](int ready) {
    pthread_t thread{};
    ::pthread_create(&thread, nullptr, run_on, &ready);
    ::syscall(SYS_exit, 0);  // this thread alone
  }};
  child.await();
  EXPECT_TRUE(is_alive({child.pid(), 0}));
  child.kill();
  child.await_death();
  EXPECT_FALSE(is_alive({child.pid(), 0}));
}

TEST(ExecutableName, is_the_base_name_of_the_running_file) {
  EXPECT_EQ(executable_name(::getpid()), std::filesystem::read_symlink("/proc/self/exe").filename().string());
  EXPECT_EQ(executable_name(kNoSuchPid), "");
}

TEST(ExecutableName, stays_the_same_after_the_file_was_replaced) {
  std::string directory = "/tmp/holdfast-exe-XXXXXX";
  ASSERT_NE(::mkdtemp(directory.data()), nullptr);
  const std::string copy = directory + "/holder";
  std::filesystem::copy_file("/bin/sleep", copy);
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    ::execl(copy.c_str(), "holder", "1000", nullptr);
    ::_exit(1);
  }
  ::close(ends[1]);
  char byte = 0;
  EXPECT_EQ(::read(ends[0], &byte, 1), 0) << "exec closes the other end";
  ::close(ends[0]);
  EXPECT_EQ(executable_name(child), "holder");
  ASSERT_EQ(::unlink(copy.c_str()), 0);
  EXPECT_EQ(executable_name(child), "holder") << "the kernel adds \" (deleted)\" to the link";
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  ::rmdir(directory.c_str());
}

TEST(UserName, is_read_from_the_password_file_else_the_number) {
  EXPECT_EQ(user_name(0), "root");
  EXPECT_EQ(user_name(3'999'999'999U), "3999999999");
}

}  // namespace
}  // namespace holdfast::base
