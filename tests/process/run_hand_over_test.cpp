// SPDX-License-Identifier: MIT
// run_hand_over_test.cpp - the command locks its own device in every way there is and never meets us, while a stranger
// in a tight loop stays out.
#include "run_support.hpp"

#include <gmock/gmock.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#include <cstdio>
#include <filesystem>

namespace holdfast::run_test {
namespace {

// A rename that replaces a freshly written file is slow on ext4, which flushes it to the disk. At each O_EXCL but the
// first all processes are searched for one that has it already.
long rounds_of(const std::string& way) {
  if (way == "uucp_rename") return 100;
  return way.starts_with("o_excl") ? 200 : 1000;
}

struct Counted {
  long had = -1;
  long tried = -1;
};

Counted counted(Process& locker) {
  Counted result;
  std::sscanf(locker.line().c_str(), "%ld %ld", &result.had, &result.tried);
  return result;
}

struct Contest {
  Counted command;
  Counted stranger;
};

// The command locks and unlocks; the stranger tries all the time.
Contest contest(const std::string& device, const std::string& way, const std::string& path,
                const std::string& stranger_way) {
  const std::string locking = RUN_LOCKER " " + way + " " + path + " " + std::to_string(rounds_of(way));
  Process run{run_arguments({device}, {"sh", "-c", "echo up; read a; " + locking + "; read b"})};
  EXPECT_EQ(run.line(), "up");
  Process stranger{{RUN_LOCKER, stranger_way, path, "0"}};
  EXPECT_EQ(stranger.line(), "ready");
  run.type("go\n");
  EXPECT_EQ(run.line(), "ready");
  Contest result;
  result.command = counted(run);
  stranger.close_input();
  result.stranger = counted(stranger);
  run.type("end\n");
  EXPECT_EQ(run.wait(), 0);
  testing::Test::RecordProperty("stranger_tried", std::to_string(result.stranger.tried));
  testing::Test::RecordProperty("stranger_had", std::to_string(result.stranger.had));
  std::printf("%s: command %ld of %ld, stranger %ld of %ld\n", way.c_str(), result.command.had, result.command.tried,
              result.stranger.had, result.stranger.tried);
  return result;
}

class Bridged : public testing::TestWithParam<const char*> {};

TEST_P(Bridged, a_stranger_never_gets_in_while_the_command_locks_and_unlocks) {
  const Pty pty;
  const std::string way = GetParam();
  const bool by_file = way.starts_with("uucp");
  const Contest result = contest(pty.path(), way, by_file ? pty.lock_file() : pty.path(), way);
  EXPECT_EQ(result.command.had, rounds_of(way));
  EXPECT_GT(result.stranger.tried, 100);
  EXPECT_EQ(result.stranger.had, 0);
}

INSTANTIATE_TEST_SUITE_P(Run, Bridged, testing::Values("flock", "ofd", "uucp_create", "uucp_link", "uucp_rename"),
                         [](const auto& of) { return std::string{of.param}; });

TEST(BridgedOExcl, a_stranger_never_gets_in_while_the_command_opens_a_disk_with_o_excl_and_closes_it) {
  const Loop loop;
  if (!loop) GTEST_SKIP() << "no loop device to be had";
  const Contest result = contest(loop.path(), "o_excl", loop.path(), "o_excl");
  EXPECT_EQ(result.command.had, rounds_of("o_excl"));
  EXPECT_GT(result.stranger.tried, 100);
  EXPECT_EQ(result.stranger.had, 0);
}

// POSIX locks cannot be set for another process, O_EXCL for writing is not what the claim has, and a close without an
// unlock asks nobody: between our step and the command's a stranger may get in, which the command then notices like any
// lock that is taken. What must hold: a stranger that honours any other convention stays out, and the command is not
// refused because of us.
class Windowed : public testing::TestWithParam<const char*> {};

TEST_P(Windowed, the_command_is_never_refused_because_of_us) {
  const Loop loop;
  if (!loop) GTEST_SKIP() << "no loop device to be had";
  Process run{
      run_arguments({loop.path()}, {RUN_LOCKER, GetParam(), loop.path(), std::to_string(rounds_of(GetParam()))})};
  EXPECT_EQ(run.line(), "ready");
  EXPECT_EQ(counted(run).had, rounds_of(GetParam()));
}

TEST_P(Windowed, a_stranger_that_uses_another_convention_stays_out) {
  const Loop loop;
  if (!loop) GTEST_SKIP() << "no loop device to be had";
  const std::string way = GetParam();
  const std::string other = way == "flock_open" ? "o_excl" : "flock";
  const Contest result = contest(loop.path(), way, loop.path(), other);
  EXPECT_EQ(result.command.had, rounds_of(way));
  EXPECT_GT(result.stranger.tried, 100);
  EXPECT_EQ(result.stranger.had, 0);
}

TEST_P(Windowed, how_often_a_stranger_of_the_same_convention_gets_in_is_measured) {
  const Loop loop;
  if (!loop) GTEST_SKIP() << "no loop device to be had";
  const Contest result = contest(loop.path(), GetParam(), loop.path(), GetParam());
  EXPECT_GT(result.command.had + result.stranger.had, 0);
  EXPECT_LT(result.stranger.had, result.stranger.tried) << "the claim counts for something";
}

INSTANTIATE_TEST_SUITE_P(Run, Windowed, testing::Values("posix", "o_excl_write", "flock_open"),
                         [](const auto& of) { return std::string{of.param}; });

Process python(const std::string& device, const std::string& text) {
  return Process{run_arguments(
      {device}, {"python3", "-c", "import fcntl, os, struct, termios, sys, array\nP = '" + device + "'\n" + text})};
}

TEST(HandOver, a_lock_that_the_command_holds_keeps_strangers_out_as_ours_did) {
  const Pty pty;
  Process run = python(pty.path(),
                       "fd = os.open(P, os.O_RDWR | os.O_NOCTTY)\n"
                       "fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
                       "print('locked', flush=True)\n"
                       "sys.stdin.readline()\n");
  EXPECT_EQ(run.line(), "locked");
  EXPECT_EQ(Process({"flock", "-n", "-E", "9", pty.path(), "true"}).wait(), 9);
  run.type("\n");
  EXPECT_EQ(run.wait(), 0);
  EXPECT_EQ(Process({"flock", "-n", "-E", "9", pty.path(), "true"}).wait(), 0);
}

TEST(HandOver, a_lock_that_the_command_closes_comes_back_to_us) {
  const Pty pty;
  Process run = python(pty.path(),
                       "fd = os.open(P, os.O_RDWR | os.O_NOCTTY)\n"
                       "fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
                       "fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
                       "os.close(fd)\n"
                       "print('closed', flush=True)\n"
                       "sys.stdin.readline()\n");
  EXPECT_EQ(run.line(), "closed");
  const auto locked = [&](const char* way) {
    Process stranger{{RUN_LOCKER, way, pty.path(), "1"}};
    stranger.line();
    return counted(stranger).had == 0;
  };
  EXPECT_TRUE(soon([&] { return locked("flock"); }));
  EXPECT_TRUE(soon([&] { return locked("ofd"); }));
  run.type("\n");
  EXPECT_EQ(run.wait(), 0);
}

TEST(HandOver, processes_of_the_command_exclude_each_other) {
  const Pty pty;
  Process run{run_arguments(
      {pty.path()}, {"sh", "-c", "flock -n " + pty.path() + " flock -n -E 9 " + pty.path() + " true; echo $?"})};
  EXPECT_EQ(run.line(), "9");
}

TEST(HandOver, asking_who_holds_a_record_lock_does_not_show_ours) {
  const Pty pty;
  Process run =
      python(pty.path(),
             "fd = os.open(P, os.O_RDWR | os.O_NOCTTY)\n"
             "ask = struct.pack('hhqqi', fcntl.F_WRLCK, 0, 0, 0, 0)\n"
             "print(struct.unpack_from('h', fcntl.fcntl(fd, fcntl.F_GETLK, ask))[0] == fcntl.F_UNLCK, flush=True)\n");
  EXPECT_EQ(run.line(), "True");
  EXPECT_EQ(run.wait(), 0);
}

TEST(HandOver, a_range_that_the_command_does_not_lock_stays_ours) {
  const Pty pty;
  Process run = python(pty.path(),
                       "fd = os.open(P, os.O_RDWR | os.O_NOCTTY)\n"
                       "F_OFD_SETLK = 37\n"
                       "fcntl.fcntl(fd, F_OFD_SETLK, struct.pack('hhqqi', fcntl.F_WRLCK, 0, 100, 10, 0))\n"
                       "print('locked', flush=True)\n"
                       "sys.stdin.readline()\n");
  EXPECT_EQ(run.line(), "locked");
  Process stranger{{"python3", "-c",
                    "import fcntl, os\n"
                    "fd = os.open('" +
                        pty.path() +
                        "', os.O_RDWR | os.O_NOCTTY)\n"
                        "for start, length in ((0, 1), (100, 1), (200, 1)):\n"
                        "  try: fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, length, start); print('free')\n"
                        "  except OSError: print('taken')\n"}};
  EXPECT_EQ(stranger.line(), "taken");
  EXPECT_EQ(stranger.line(), "taken");
  EXPECT_EQ(stranger.line(), "taken");
  run.type("\n");
  EXPECT_EQ(run.wait(), 0);
}

TEST(HandOver, our_lock_file_is_not_there_until_the_command_makes_its_own) {
  const Pty pty;
  Process run = python(
      pty.path(), "L = '" + pty.lock_file() + "'\n" +
                      "def there():\n"
                      "  try: os.stat(L); return 'there'\n"
                      "  except FileNotFoundError: return 'missing'\n"
                      "print(there(), os.path.lexists(L), os.access(L, os.F_OK))\n"
                      "os.umask(0o027)\n"
                      "fd = os.open(L, os.O_CREAT | os.O_WRONLY, 0o666)\n"
                      "os.write(fd, b'%10d\\n' % os.getpid()); os.close(fd)\n"
                      "print(there(), oct(os.stat(L).st_mode & 0o777), open(L).read().strip() == str(os.getpid()))\n"
                      "try: os.open(L, os.O_CREAT | os.O_EXCL | os.O_WRONLY)\n"
                      "except FileExistsError: print('exists', flush=True)\n"
                      "sys.stdin.readline()\n"
                      "os.unlink(L)\n"
                      "print(there(), flush=True)\n"
                      "sys.stdin.readline()\n");
  EXPECT_EQ(run.line(), "missing False False");
  EXPECT_EQ(run.line(), "there 0o640 True");
  EXPECT_EQ(run.line(), "exists");
  EXPECT_EQ(::access(pty.lock_file().c_str(), F_OK), 0);
  run.type("\n");
  EXPECT_EQ(run.line(), "missing");
  EXPECT_EQ(::access(pty.lock_file().c_str(), F_OK), 0) << "to everybody else it is there all the time";
  run.type("\n");
  EXPECT_EQ(run.wait(), 0);
  EXPECT_NE(::access(pty.lock_file().c_str(), F_OK), 0);
}

TEST(HandOver, a_lock_file_that_the_command_leaves_behind_is_removed) {
  const Pty pty;
  Process run =
      python(pty.path(), "fd = os.open('" + pty.lock_file() + "', os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)\n" +
                             "os.write(fd, b'%10d\\n' % os.getpid())\n"
                             "os.kill(os.getpid(), 9)\n");
  EXPECT_EQ(run.wait(), 128 + SIGKILL);
  EXPECT_NE(::access(pty.lock_file().c_str(), F_OK), 0);
}

TEST(HandOver, a_relative_path_and_a_directory_descriptor_are_met_as_well) {
  const Pty pty;
  const std::string name = pty.lock_file().substr(pty.lock_file().rfind('/') + 1);
  Process run = python(pty.path(), "N = '" + name + "'\n" +
                                       "d = os.open('/var/lock', os.O_RDONLY)\n"
                                       "def there(**how):\n"
                                       "  try: os.stat(N, **how); return 'there'\n"
                                       "  except FileNotFoundError: return 'missing'\n"
                                       "print(there(dir_fd=d))\n"
                                       "os.chdir('/run/lock')\n"
                                       "print(there())\n"
                                       "os.close(os.open(N, os.O_CREAT | os.O_EXCL | os.O_RDWR, dir_fd=d))\n"
                                       "print(there())\n"
                                       "os.rename(N, 'elsewhere-' + N); os.unlink('elsewhere-' + N)\n"
                                       "print(there())\n");
  EXPECT_EQ(run.line(), "missing");
  EXPECT_EQ(run.line(), "missing");
  EXPECT_EQ(run.line(), "there");
  EXPECT_EQ(run.line(), "missing");
  EXPECT_EQ(run.wait(), 0);
}

TEST(HandOver, o_excl_is_lent_and_comes_back) {
  const Loop loop;
  if (!loop) GTEST_SKIP() << "no loop device to be had";
  Process run = python(loop.path(),
                       "fd = os.open(P, os.O_RDONLY | os.O_EXCL)\n"
                       "print('open', flush=True)\n"
                       "sys.stdin.readline()\n"
                       "os.close(fd)\n"
                       "print('closed', flush=True)\n"
                       "sys.stdin.readline()\n");
  const auto taken = [&] {
    const UniqueFd fd{::open(loop.path().c_str(), O_RDONLY | O_EXCL | O_CLOEXEC)};
    return !fd && errno == EBUSY;
  };
  EXPECT_EQ(run.line(), "open");
  EXPECT_TRUE(taken());
  run.type("\n");
  EXPECT_EQ(run.line(), "closed");
  EXPECT_TRUE(soon(taken));
  run.kill(SIGTERM);
  EXPECT_EQ(run.wait(), 128 + SIGTERM);
  EXPECT_FALSE(taken());
}

TEST(HandOver, a_shared_claim_has_no_o_excl_to_lend_and_stays_as_it_is) {
  const Loop loop;
  if (!loop) GTEST_SKIP() << "no loop device to be had";
  Process run{run_arguments(
      {"-s", loop.path()},
      {"sh", "-c", RUN_LOCKER " o_excl " + loop.path() + " 1; read a; " RUN_LOCKER " o_excl " + loop.path() + " 1"})};
  EXPECT_EQ(run.line(), "ready");
  EXPECT_EQ(counted(run).had, 1);
  const auto another = [&](const char* mode) { return Process{{"flock", "-n", mode, loop.path(), "true"}}.wait(); };
  EXPECT_EQ(another("-x"), 1) << "ours is still there";
  EXPECT_EQ(another("-s"), 0) << "and still shared";
  run.type("go\n");
  EXPECT_EQ(run.line(), "ready");
  EXPECT_EQ(counted(run).had, 1) << "and nobody has taken O_EXCL meanwhile";
  EXPECT_EQ(run.wait(), 0);
}

TEST(HandOver, processes_of_the_command_exclude_each_other_by_o_excl) {
  const Loop loop;
  if (!loop) GTEST_SKIP() << "no loop device to be had";
  Process run = python(loop.path(),
                       "def again():\n"
                       "  try: os.close(os.open(P, os.O_RDONLY | os.O_EXCL)); print('in', flush=True)\n"
                       "  except OSError as e: print(e.errno, flush=True)\n"
                       "fd = os.open(P, os.O_RDONLY | os.O_EXCL)\n"
                       "again()\n"
                       "if os.fork() == 0: again(); os._exit(0)\n"
                       "os.wait(); os.close(fd); again()\n");
  EXPECT_EQ(run.line(), std::to_string(EBUSY));
  EXPECT_EQ(run.line(), std::to_string(EBUSY));
  EXPECT_EQ(run.line(), "in");
  EXPECT_EQ(run.wait(), 0);
}

TEST(HandOver, each_open_with_o_excl_is_like_the_first) {
  const Loop loop;
  if (!loop) GTEST_SKIP() << "no loop device to be had";
  Process run = python(loop.path(),
                       "fd = os.open(P, os.O_RDWR | os.O_EXCL | os.O_NONBLOCK)\n"
                       "print(fcntl.fcntl(fd, fcntl.F_GETFL) & (os.O_ACCMODE | os.O_NONBLOCK))\n"
                       "os.write(fd, b'x' * 512)\n"
                       "fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
                       "os.close(fd)\n"
                       "fd = os.open(P, os.O_RDONLY)\n"
                       "fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB); print('locked')\n"
                       "os.close(fd)\n"
                       "fd = os.open(P, os.O_RDWR | os.O_EXCL)\n"
                       "print(os.lseek(fd, 0, 1), fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK, os.read(fd, 1))\n");
  EXPECT_EQ(run.line(), std::to_string(O_RDWR | O_NONBLOCK));
  EXPECT_EQ(run.line(), "locked") << "what it had locked went with its close";
  EXPECT_EQ(run.line(), "0 0 b'x'");
  EXPECT_EQ(run.wait(), 0);
}

// What else an open asks for is answered as if there were no claim.
TEST(HandOver, an_open_with_o_excl_that_the_kernel_refuses_is_refused_under_the_claim_too) {
  const Loop loop;
  if (!loop) GTEST_SKIP() << "no loop device to be had";
  Process run = python(loop.path(),
                       "import ctypes, tempfile\n"
                       "D = tempfile.mkdtemp(); L = D + '/link'; os.symlink(P, L)\n"
                       "def at(path, flags):\n"
                       "  try: os.close(os.open(path, os.O_RDONLY | os.O_EXCL | flags)); print('in')\n"
                       "  except OSError as e: print(e.errno)\n"
                       "at(P, os.O_CREAT); at(P, os.O_DIRECTORY); at(L, os.O_NOFOLLOW)\n"
                       "libc = ctypes.CDLL(None, use_errno=True)\n"
                       "how = (ctypes.c_uint64 * 3)(os.O_RDONLY | os.O_EXCL, 0, 4)  # RESOLVE_NO_SYMLINKS\n"
                       "print('in' if libc.syscall(437, -100, L.encode(), how, 24) >= 0 else ctypes.get_errno())\n"
                       "at(P, os.O_NOFOLLOW); at(L, 0)\n"
                       "os.unlink(L); os.rmdir(D)\n");
  for (const int error : {EEXIST, ENOTDIR, ELOOP, ELOOP}) EXPECT_EQ(run.line(), std::to_string(error));
  EXPECT_EQ(run.line(), "in");
  EXPECT_EQ(run.line(), "in");
  EXPECT_EQ(run.wait(), 0);
}

// The ways of access of all open descriptors of a device (fcntl(2), F_GETFL), as seen by root.
std::vector<int> opens_of(const std::string& path) {
  std::vector<int> found;
  for (const auto& process : std::filesystem::directory_iterator{"/proc"}) {
    std::error_code gone;
    for (auto fd = std::filesystem::directory_iterator{process.path() / "fd", gone};
         !gone && fd != std::filesystem::directory_iterator{}; fd.increment(gone)) {
      if (std::filesystem::read_symlink(fd->path(), gone) != path) continue;
      const std::string info = process.path() / "fdinfo" / fd->path().filename();
      std::FILE* const file = std::fopen(info.c_str(), "re");
      if (file == nullptr) continue;
      unsigned flags = 0;
      if (std::fscanf(file, "pos: %*d flags: %o", &flags) == 1) found.push_back(static_cast<int>(flags) & O_ACCMODE);
      std::fclose(file);
    }
  }
  return found;
}

TEST(HandOver, another_users_try_leaves_o_excl_where_it_is) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root to become somebody else";
  const Loop loop;
  if (!loop) GTEST_SKIP() << "no loop device to be had";
  ASSERT_EQ(::chmod(loop.path().c_str(), 0666), 0);
  Process run = python(loop.path(),
                       "fd = os.open(P, os.O_RDONLY | os.O_EXCL)\n"
                       "print('open', flush=True); sys.stdin.readline()\n"
                       "if os.fork() == 0:\n"
                       "  os.close(fd); os.setuid(65534)\n"
                       "  try: os.open(P, os.O_RDONLY | os.O_EXCL); print('in', flush=True)\n"
                       "  except OSError as e: print(e.errno, flush=True)\n"
                       "  os._exit(0)\n"
                       "os.wait(); print('tried', flush=True); sys.stdin.readline()\n");
  EXPECT_EQ(run.line(), "open");
  const auto before = opens_of(loop.path());
  run.type("\n");
  EXPECT_EQ(run.line(), std::to_string(EBUSY));
  EXPECT_EQ(run.line(), "tried");
  EXPECT_EQ(opens_of(loop.path()).size(), before.size());
  run.type("\n");
  EXPECT_EQ(run.wait(), 0);
}

TEST(HandOver, the_keeper_takes_o_excl_back_the_way_it_was) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root to become somebody else";
  const Loop loop;
  if (!loop) GTEST_SKIP() << "no loop device to be had";
  ASSERT_EQ(::chmod(loop.path().c_str(), 0666), 0);
  Process run = python(loop.path(),
                       "os.setuid(65534)\n"
                       "fd = os.open(P, os.O_RDONLY | os.O_EXCL)\n"
                       "print('open', flush=True); sys.stdin.readline()\n"
                       "os.close(fd); print('closed', flush=True); sys.stdin.readline()\n");
  EXPECT_EQ(run.line(), "open");
  run.kill(SIGKILL);
  run.wait();
  run.type("\n");
  EXPECT_EQ(run.line(), "closed");
  const auto taken = [&] {
    const UniqueFd fd{::open(loop.path().c_str(), O_RDONLY | O_EXCL | O_CLOEXEC)};
    return !fd && errno == EBUSY;
  };
  ASSERT_TRUE(soon(taken));
  EXPECT_THAT(opens_of(loop.path()), testing::Each(O_RDONLY)) << "a writable one would make udev probe the disk";
  run.type("\n");
  EXPECT_TRUE(soon([&] { return !taken(); }));
}

TEST(HandOver, o_excl_that_came_back_is_kept_by_the_keeper_too) {
  const Loop loop;
  if (!loop) GTEST_SKIP() << "no loop device to be had";
  Process run = python(loop.path(),
                       "os.close(os.open(P, os.O_RDONLY | os.O_EXCL))\n"
                       "print('closed', flush=True)\n"
                       "sys.stdin.readline()\n"
                       "os.close(os.open(P, os.O_RDONLY | os.O_EXCL))\n"
                       "print('again', flush=True)\n"
                       "sys.stdin.readline()\n");
  const auto taken = [&] {
    const UniqueFd fd{::open(loop.path().c_str(), O_RDONLY | O_EXCL | O_CLOEXEC)};
    return !fd && errno == EBUSY;
  };
  EXPECT_EQ(run.line(), "closed");
  ASSERT_TRUE(soon(taken));
  run.kill(SIGKILL);
  run.wait();
  EXPECT_TRUE(taken());
  run.type("\n");
  EXPECT_EQ(run.line(), "again") << "lent by the keeper";
  EXPECT_TRUE(soon(taken));
  run.type("\n");
  EXPECT_TRUE(soon([&] { return !taken(); }));
}

TEST(HandOver, a_command_with_threads_is_met_too) {
  const Pty pty;
  Process run = python(pty.path(),
                       "import threading\n"
                       "def lock():\n"
                       "  fd = os.open(P, os.O_RDWR | os.O_NOCTTY)\n"
                       "  fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB); print('locked', flush=True); os.close(fd)\n"
                       "t = threading.Thread(target=lock); t.start(); t.join()\n");
  EXPECT_EQ(run.line(), "locked");
  EXPECT_EQ(run.wait(), 0);
}

TEST(HandOver, a_command_that_becomes_another_user_is_met_too) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root to become somebody else";
  const Pty pty;
  ASSERT_EQ(::chmod(pty.path().c_str(), 0666), 0);
  Process run = python(pty.path(),
                       "os.setgid(65534); os.setuid(65534)\n"
                       "fd = os.open(P, os.O_RDWR | os.O_NOCTTY)\n"
                       "fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB); print('locked', flush=True)\n"
                       "L = '" +
                           pty.lock_file() + "'\n" +
                           "os.close(os.open(L, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))\n"
                           "print(os.stat(L).st_uid); os.unlink(L)\n");
  EXPECT_EQ(run.line(), "locked");
  EXPECT_EQ(run.line(), "65534");
  EXPECT_EQ(run.wait(), 0);
}

TEST(HandOver, a_user_without_privilege_is_met_too) {
  if (::geteuid() != 0) GTEST_SKIP() << "every other test shows it";
  const Pty pty;
  // seccomp(2) then wants no_new_privs, as from every ordinary user; without a filter the node could not be locked.
  Process holding{run_arguments({pty.path()}, {"sh", "-c", "echo up; read a"}), [] {
                    if (::prctl(PR_CAPBSET_DROP, CAP_SYS_ADMIN, 0, 0, 0) != 0) ::_exit(98);
                  }};
  EXPECT_EQ(holding.line(), "up");
  Process stranger{{"flock", "-n", pty.path(), "true"}};
  EXPECT_EQ(stranger.wait(), 1);
  holding.type("end\n");
  EXPECT_EQ(holding.wait(), 0);
}

// Without privilege everything must work, too: no_new_privs opens the way to the filter.
const auto kAsNobody = [] {
  if (::setgid(65534) != 0 || ::setuid(65534) != 0) ::_exit(98);
};

TEST(HandOver, works_without_any_privilege) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root to become somebody else";
  const Pty pty;
  ASSERT_EQ(::chmod(pty.path().c_str(), 0666), 0);
  Process run{run_arguments({pty.path()}, {"sh", "-c",
                                           "flock -n " + pty.path() + " echo locked; cat " + pty.lock_file() +
                                               " 2>/dev/null || echo hidden; (set -C; echo $$ > " + pty.lock_file() +
                                               ") && echo made; grep NoNewPrivs /proc/self/status"}),
              kAsNobody};
  EXPECT_EQ(run.line(), "locked");
  EXPECT_EQ(run.line(), "hidden");
  EXPECT_EQ(run.line(), "made");
  EXPECT_EQ(run.line(), "NoNewPrivs:\t1");
  EXPECT_EQ(run.wait(), 0);
  EXPECT_NE(::access(pty.lock_file().c_str(), F_OK), 0);
}

TEST(HandOver, a_terminal_closed_by_our_tiocexcl_opens_for_an_unprivileged_command_alone) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root to become somebody else";
  const testing_support::TurnAtThePort turn;
  UniqueFd probe{::open("/dev/ttyS0", O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC)};
  if (!probe) GTEST_SKIP() << "no serial port ttyS0";
  struct stat before{};
  ASSERT_EQ(::fstat(probe.get(), &before), 0);
  ::fchmod(probe.get(), 0666);
  int busy = 0;
  if (::ioctl(probe.get(), TIOCGEXCL, &busy) != 0 || busy != 0) GTEST_SKIP() << "ttyS0 is in use";
  Process run{
      run_arguments({"/dev/ttyS0"},
                    {"python3", "-c",
                     "import os, sys\n"
                     "os.open('/dev/ttyS0', os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK); print('open', flush=True)\n"
                     "os.open('/dev/ttyS0', os.O_RDONLY | os.O_NONBLOCK); print('and again', flush=True)\n"
                     "sys.stdin.readline()\n"}),
      kAsNobody};
  EXPECT_EQ(run.line(), "open");
  EXPECT_EQ(run.line(), "and again");
  EXPECT_TRUE(soon([&] { return ::ioctl(probe.get(), TIOCGEXCL, &busy) == 0 && busy == 1; }))
      << "set again after the open";
  Process stranger{{"python3", "-c",
                    "import os\n"
                    "try: os.open('/dev/ttyS0', os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK); print('in')\n"
                    "except OSError as e: print(e.errno)\n"},
                   kAsNobody};
  EXPECT_EQ(stranger.line(), std::to_string(EBUSY));
  run.type("\n");
  EXPECT_EQ(run.wait(), 0);
  ::fchmod(probe.get(), before.st_mode & 07777);
}

TEST(HandOver, tiocexcl_is_the_commands_to_set_and_clear_but_ours_stays) {
  const testing_support::TurnAtThePort turn;
  const UniqueFd probe{::open("/dev/ttyS0", O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC)};
  if (!probe) GTEST_SKIP() << "no serial port ttyS0";
  int busy = 0;
  if (::ioctl(probe.get(), TIOCGEXCL, &busy) != 0 || busy != 0) GTEST_SKIP() << "ttyS0 is in use";
  Process run = python("/dev/ttyS0",
                       "fd = os.open(P, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)\n"
                       "def get():\n"
                       "  a = array.array('i', [7]); fcntl.ioctl(fd, 0x80045440, a); return a[0]\n"
                       "print(get())\n"
                       "fcntl.ioctl(fd, termios.TIOCEXCL); print(get())\n"
                       "fcntl.ioctl(fd, termios.TIOCNXCL); print(get(), flush=True)\n"
                       "sys.stdin.readline()\n");
  EXPECT_EQ(run.line(), "0");
  EXPECT_EQ(run.line(), "1");
  EXPECT_EQ(run.line(), "0");
  int set = 0;
  ::ioctl(probe.get(), TIOCGEXCL, &set);
  EXPECT_EQ(set, 1);
  run.type("\n");
  EXPECT_EQ(run.wait(), 0);
  ::ioctl(probe.get(), TIOCGEXCL, &set);
  EXPECT_EQ(set, 0);
}

TEST(HandOver, a_flag_that_the_command_leaves_on_a_pseudo_terminal_is_cleared) {
  const Pty pty;
  const UniqueFd probe{::open(pty.path().c_str(), O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC)};
  Process run = python(pty.path(),
                       "fd = os.open(P, os.O_RDWR | os.O_NOCTTY)\n"
                       "fcntl.ioctl(fd, termios.TIOCEXCL)\n"
                       "a = array.array('i', [7]); fcntl.ioctl(fd, 0x80045440, a); print(a[0], flush=True)\n"
                       "os.kill(os.getpid(), 9)\n");
  EXPECT_EQ(run.line(), "1");
  EXPECT_EQ(run.wait(), 128 + SIGKILL);
  int set = 1;
  ASSERT_EQ(::ioctl(probe.get(), TIOCGEXCL, &set), 0);
  EXPECT_EQ(set, 0);
}

}  // namespace
}  // namespace holdfast::run_test
