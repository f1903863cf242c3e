// SPDX-License-Identifier: MIT
// claim_side_effects_test.cpp - no surprises: a device that is taken is not opened, one that is free is opened once,
// non-blocking, never as controlling terminal, and its settings stay as they were.
#include "process/support/child.hpp"
#include "process/support/devices.hpp"

#include <holdfast/claim.hpp>

#include <gtest/gtest.h>

#include <fcntl.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

namespace holdfast {
namespace {

using namespace testing_support;

// How often `body`, run in a child of its own, opens the node. Not by inotify(7), which merges events that are alike,
// nor by fanotify(7), which tells nothing of terminals: ptrace(2) stops at each call. O_PATH opens no device.
int opens_of(const std::string& path, const std::function<void()>& body) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
    ::raise(SIGSTOP);
    body();
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  ::ptrace(PTRACE_SETOPTIONS, child, nullptr, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL);
  int opens = 0;
  while (true) {
    ::ptrace(PTRACE_SYSCALL, child, nullptr, nullptr);
    if (::waitpid(child, &status, 0) != child || !WIFSTOPPED(status)) break;
    __ptrace_syscall_info info{};
    if (WSTOPSIG(status) != (SIGTRAP | 0x80) || ::ptrace(PTRACE_GET_SYSCALL_INFO, child, sizeof info, &info) <= 0 ||
        info.op != PTRACE_SYSCALL_INFO_ENTRY)
      continue;
    if (info.entry.nr != SYS_openat || (info.entry.args[2] & O_PATH) != 0) continue;
    std::string name(path.size() + 1, '\1');
    const iovec here{name.data(), name.size()};
    const iovec there{reinterpret_cast<void*>(info.entry.args[1]), name.size()};
    const bool read = ::process_vm_readv(child, &here, 1, &there, 1, 0) > 0;
    if (read && std::strcmp(name.c_str(), path.c_str()) == 0 && name.back() == '\0') ++opens;
  }
  return opens;
}

TEST(OpenCount, counts_each_of_two_opens_and_no_look_at_the_path) {
  const Pty pty;
  const auto opens_twice = [&] {
    for (int i = 0; i < 2; ++i) const base::UniqueFd fd{::open(pty.path().c_str(), O_RDWR | O_NOCTTY | O_CLOEXEC)};
    const base::UniqueFd look{::open(pty.path().c_str(), O_PATH | O_CLOEXEC)};
  };
  EXPECT_EQ(opens_of(pty.path(), opens_twice), 2);
}

TEST(RefusedClaim, by_a_holdfast_holder_opens_no_node) {
  const Pty pty;
  const auto mine = claim(pty.path());
  ASSERT_TRUE(mine);
  EXPECT_EQ(opens_of(pty.path(), [&] { static_cast<void>(claim(pty.path())); }), 0);
}

TEST(RefusedClaim, by_a_lock_file_opens_no_node) {
  const Pty pty;
  Child living{[](Peer& test) {
    test.hear();
    return 0;
  }};
  const std::string file = "/run/lock/LCK.." + pty.path().substr(pty.path().rfind('/') + 1);
  ::unlink(file.c_str());
  std::ofstream{file} << "     " << living.pid() << "\n";
  EXPECT_FALSE(claim(pty.path()));
  EXPECT_EQ(opens_of(pty.path(), [&] { static_cast<void>(claim(pty.path())); }), 0);
  ::unlink(file.c_str());
}

TEST(Claim, opens_a_terminal_once_and_uses_that) {
  const Pty pty;
  const auto claim_and_use = [&] {
    auto mine = claim(pty.path());
    if (mine) static_cast<void>(mine->fd());
  };
  EXPECT_EQ(opens_of(pty.path(), claim_and_use), 1);
}

TEST(Claim, opens_without_blocking_and_keeps_a_terminals_settings) {
  const Pty pty;
  termios before{};
  ASSERT_EQ(::tcgetattr(pty.master(), &before), 0);
  before.c_iflag ^= IXON;  // not the default
  ASSERT_EQ(::tcsetattr(pty.master(), TCSANOW, &before), 0);
  ASSERT_EQ(::tcgetattr(pty.master(), &before), 0);
  {
    auto mine = claim(pty.path());
    ASSERT_TRUE(mine);
    const auto fd = mine->fd();
    ASSERT_TRUE(fd);
    EXPECT_NE(::fcntl(*fd, F_GETFL) & O_NONBLOCK, 0);
    EXPECT_NE(::fcntl(*fd, F_GETFD) & FD_CLOEXEC, 0);
  }
  termios after{};
  ASSERT_EQ(::tcgetattr(pty.master(), &after), 0);
  EXPECT_EQ(after.c_iflag, before.c_iflag);
  EXPECT_EQ(after.c_oflag, before.c_oflag);
  EXPECT_EQ(after.c_cflag, before.c_cflag);
  EXPECT_EQ(after.c_lflag, before.c_lflag);
  EXPECT_EQ(std::memcmp(after.c_cc, before.c_cc, sizeof after.c_cc), 0);
}

TEST(Claim, gives_a_session_leader_no_controlling_terminal) {
  const Pty pty;
  EXPECT_EQ(in_a_child([&]() -> std::string {
              ::setsid();
              auto mine = claim(pty.path());
              if (!mine || !mine->fd()) return "not taken";
              const base::UniqueFd terminal{::open("/dev/tty", O_RDWR | O_CLOEXEC)};
              return terminal ? "has one" : errno == ENXIO ? "none" : std::strerror(errno);
            }),
            "none");
}

TEST(Claim, that_may_not_open_opens_nothing_and_excludes_all_the_same) {
  const Pty pty;
  const Options closed{.opening = Opening::never};
  EXPECT_EQ(opens_of(pty.path(), [&] { static_cast<void>(claim(pty.path(), closed)); }), 0);
  const auto mine = claim(pty.path(), closed);
  ASSERT_TRUE(mine) << mine.error().message;
  EXPECT_FALSE(claim(pty.path(), closed));
  EXPECT_FALSE(claim(pty.path()));
}

// Waiting for a stranger's lock on one device moves no modem line of another that is free.
TEST(Waiter, for_two_devices_opens_the_free_one_a_few_times_at_most) {
  const Pty free;
  const Pty taken;
  Child stranger{[&](Peer& test) {
    const int fd = ::open(taken.path().c_str(), O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    struct flock words{};
    words.l_type = F_WRLCK;
    test.tell(::fcntl(fd, F_SETLK, &words) == 0 ? "locked" : "failed");
    test.hear();
    return 0;
  }};
  ASSERT_EQ(stranger.hear(), "locked");
  const std::vector<std::string> both{free.path(), taken.path()};
  const int opens =
      opens_of(free.path(), [&] { static_cast<void>(claim(both, {.wait = Wait::at_most(std::chrono::seconds{1})})); });
  EXPECT_GE(opens, 1);
  // One or two are usual, five at the least would be made by an attempt at each look. More than two come from
  // /proc/locks, which may leave out a line when other locks come and go while it is read.
  EXPECT_LE(opens, 4);
}

}  // namespace
}  // namespace holdfast
