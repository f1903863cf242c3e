// SPDX-License-Identifier: MIT
// scull.cpp - scull's devices between processes: who waits for whom, that no end of anybody keeps the lock or
// memory, and who may open what. What one process sees is in the module's own selftest.
#include "vm/support/kernel.hpp"
#include "vm/support/module.hpp"

#include "interop/support/program.hpp"
#include "process/support/child.hpp"
#include "process/support/devices.hpp"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <scull.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <optional>

namespace holdfast::vm {
namespace {

using base::UniqueFd;
using interop::Ending;
using interop::eventually;
using interop::run_to_the_end;
using testing::HasSubstr;
using testing::Not;
using testing_support::Child;
using testing_support::in_a_child;
using testing_support::kPatience;
using testing_support::Peer;
using testing_support::Pty;

constexpr const char* kDevice = "/dev/scull0";
constexpr uid_t kAlice = 1001;
constexpr uid_t kBob = 1002;

UniqueFd opened(const std::string& path, int flags) {
  UniqueFd file{::open(path.c_str(), flags | O_CLOEXEC)};
  EXPECT_TRUE(file) << path << ": " << std::strerror(errno);
  return file;
}

void truncate(const std::string& path) { opened(path, O_WRONLY); }

long allocated(const std::string& name) { return number_in("/sys/class/scull/" + name + "/allocated"); }

void handle(int number, int flags) {
  struct sigaction action{};
  action.sa_handler = [](int) {};
  action.sa_flags = flags;
  ::sigaction(number, &action, nullptr);
}

std::string said(ssize_t result) { return result < 0 ? std::strerror(errno) : std::to_string(result); }

class Scull : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    const Modules built = modules();
    if (!built.missing.empty()) GTEST_SKIP() << built.missing;
    module_.emplace("scull", std::string{"locking="} + GetParam());
  }
  [[nodiscard]] static bool readers_in_parallel() { return std::string{GetParam()} == "rwsem"; }

 private:
  std::optional<Module> module_;
};

INSTANTIATE_TEST_SUITE_P(, Scull, testing::Values("semaphore", "rwsem"),
                         [](const auto& locking) { return locking.param; });

// What is the same with either lock, or takes too long for both.
class ScullOnce : public testing::Test {
 protected:
  void SetUp() override {
    const Modules built = modules();
    if (!built.missing.empty()) GTEST_SKIP() << built.missing;
    module_.emplace("scull");
    for (const char* name : {"scullsingle", "sculluid", "scullwuid", "scullpriv"})
      ASSERT_EQ(::chmod((std::string{"/dev/"} + name).c_str(), 0666), 0);
  }

 private:
  std::optional<Module> module_;
};

TEST_P(Scull, its_selftest_passes) {
  const Ending ending = run_to_the_end({KMOD_FOLDER "/kmod_scull_selftest"});
  EXPECT_EQ(ending.status, 0) << ending.output;
  EXPECT_THAT(ending.output, Not(HasSubstr("not ok")));
}

// Somebody is in the middle of a write, with the lock held.
InTheMiddle writer_in_the_middle() {
  return InTheMiddle{[](char* memory, Peer& test) {
    const UniqueFd file{::open(kDevice, O_RDWR | O_CLOEXEC)};
    test.tell(said(::pwrite(file.get(), memory, InTheMiddle::kSize, 0)));
    test.hear();
    return 0;
  }};
}

TEST_P(Scull, a_reader_waits_for_the_whole_write) {
  const InTheMiddle writer = writer_in_the_middle();
  if (!writer.missing().empty()) GTEST_SKIP() << writer.missing();
  ASSERT_TRUE(writer.reached());
  Child reader{[](Peer& test) {
    std::array<char, 5000> text{};
    const ssize_t got = ::pread(opened(kDevice, O_RDONLY).get(), text.data(), text.size(), 0);
    test.tell(said(got) + " " + std::string{text.data(), 3} + text[4095]);
    return 0;
  }};
  ASSERT_TRUE(sleeps_in(reader.pid(), SYS_pread64));
  writer.go_on('w');
  EXPECT_EQ(reader.hear(), "4096 wwww");
}

TEST_P(Scull, a_handled_signal_ends_the_wait_of_a_reader_or_restarts_it) {
  const InTheMiddle writer = writer_in_the_middle();
  if (!writer.missing().empty()) GTEST_SKIP() << writer.missing();
  ASSERT_TRUE(writer.reached());
  const auto read_with = [](int flags) {
    return [flags](Peer& test) {
      handle(SIGUSR1, flags);
      std::array<char, 10> text{};
      const UniqueFd file = opened(kDevice, O_RDONLY);
      test.tell(said(::pread(file.get(), text.data(), text.size(), 0)));
      return 0;
    };
  };
  Child interrupted{read_with(0)};
  Child restarted{read_with(SA_RESTART)};
  ASSERT_TRUE(sleeps_in(interrupted.pid(), SYS_pread64));
  ASSERT_TRUE(sleeps_in(restarted.pid(), SYS_pread64));
  interrupted.signal(SIGUSR1);
  restarted.signal(SIGUSR1);
  EXPECT_EQ(interrupted.hear(), "Interrupted system call");
  ASSERT_TRUE(sleeps_in(restarted.pid(), SYS_pread64));
  writer.go_on('w');
  EXPECT_EQ(restarted.hear(), "10");
}

// An rwsem's writers can only be killed: the kernel has no interruptible wait for them.
TEST_P(Scull, a_signal_ends_the_wait_of_a_writer_of_a_truncation_and_of_a_seek) {
  const InTheMiddle writer = writer_in_the_middle();
  if (!writer.missing().empty()) GTEST_SKIP() << writer.missing();
  ASSERT_TRUE(writer.reached());
  struct Waiting {
    long call;
    std::function<std::string()> what;
    bool writes;
  };
  const std::array waits{
      Waiting{SYS_pwrite64, [] { return said(::pwrite(opened(kDevice, O_RDWR).get(), "x", 1, 0)); }, true},
      Waiting{SYS_openat, [] { return said(::open(kDevice, O_WRONLY | O_CLOEXEC)); }, true},
      Waiting{SYS_lseek, [] { return said(::lseek(opened(kDevice, O_RDWR).get(), 0, SEEK_END)); }, false},
      Waiting{SYS_ioctl, [] { return said(::ioctl(opened(kDevice, O_RDWR).get(), SCULL_IOC_RESET_LAYOUT)); }, true},
  };
  for (const Waiting& wait : waits) {
    Child waiter{[&](Peer& test) {
      handle(SIGUSR1, 0);
      test.tell(wait.what());
      return 0;
    }};
    ASSERT_TRUE(sleeps_in(waiter.pid(), wait.call));
    if (wait.writes && readers_in_parallel()) {
      waiter.kill();
      EXPECT_EQ(waiter.reap(), 128 + SIGKILL);
    } else {
      waiter.signal(SIGUSR1);
      EXPECT_EQ(waiter.hear(), "Interrupted system call") << wait.call;
    }
  }
  writer.go_on('w');
  // The last of the waiters took nothing along.
  EXPECT_EQ(in_a_child([] { return said(::pwrite(opened(kDevice, O_RDWR).get(), "x", 1, 0)); }), "1");
}

TEST_P(Scull, readers_run_in_parallel_with_an_rwsem_alone) {
  const UniqueFd file = opened(kDevice, O_RDWR);
  ASSERT_EQ(::pwrite(file.get(), "hello", 5, 0), 5);
  const InTheMiddle reader{[](char* memory, Peer& test) {
    const UniqueFd own{::open(kDevice, O_RDONLY | O_CLOEXEC)};
    test.tell(said(::pread(own.get(), memory, 5, 0)));
    return 0;
  }};
  if (!reader.missing().empty()) GTEST_SKIP() << reader.missing();
  ASSERT_TRUE(reader.reached());
  Child other{[&](Peer& test) {
    std::array<char, 5> text{};
    test.tell(said(::pread(file.get(), text.data(), text.size(), 0)));
    return 0;
  }};
  if (readers_in_parallel()) {
    EXPECT_EQ(other.hear(), "5");
    Child writer{[&](Peer& test) {
      test.tell(said(::pwrite(file.get(), "x", 1, 0)));
      return 0;
    }};
    ASSERT_TRUE(sleeps_in(writer.pid(), SYS_pwrite64));
    reader.go_on(0);
    EXPECT_EQ(writer.hear(), "1");
  } else {
    ASSERT_TRUE(sleeps_in(other.pid(), SYS_pread64));
    reader.go_on(0);
    EXPECT_EQ(other.hear(), "5");
  }
}

TEST_P(Scull, who_is_killed_in_the_middle_gives_the_lock_back) {
  InTheMiddle writer = writer_in_the_middle();
  if (!writer.missing().empty()) GTEST_SKIP() << writer.missing();
  ASSERT_TRUE(writer.reached());
  Child waiter{[](Peer& test) {
    test.tell(said(::pwrite(opened(kDevice, O_RDWR).get(), "x", 1, 0)));
    return 0;
  }};
  ASSERT_TRUE(sleeps_in(waiter.pid(), SYS_pwrite64));
  writer.child().kill();
  EXPECT_EQ(waiter.hear(), "1");
  truncate(kDevice);
  EXPECT_EQ(allocated("scull0"), 0);
}

TEST_P(Scull, devices_do_not_wait_for_each_other) {
  const InTheMiddle writer = writer_in_the_middle();
  if (!writer.missing().empty()) GTEST_SKIP() << writer.missing();
  ASSERT_TRUE(writer.reached());
  EXPECT_EQ(in_a_child([] { return said(::pwrite(opened("/dev/scull1", O_RDWR).get(), "x", 1, 0)); }), "1");
  writer.go_on('w');
}

TEST_P(Scull, what_one_writes_another_never_sees_in_parts) {
  static constexpr std::size_t kBytes = 10'000;  // three quanta
  const auto fill = [](char letter) {
    return [letter](Peer&) {
      const std::string text(kBytes, letter);
      const UniqueFd file = opened(kDevice, O_RDWR);
      while (::pwrite(file.get(), text.data(), text.size(), 0) == static_cast<ssize_t>(kBytes)) {
      }
      return 1;
    };
  };
  const UniqueFd file = opened(kDevice, O_RDWR);
  Child a{fill('a')};
  Child b{fill('b')};
  std::string text(kBytes, '\0');
  std::array<int, 2> seen{};
  ASSERT_TRUE(eventually(
      [&] {
        const ssize_t got = ::pread(file.get(), text.data(), text.size(), 0);
        if (got == 0) return false;
        EXPECT_EQ(got, static_cast<ssize_t>(kBytes));
        EXPECT_EQ(std::count(text.begin(), text.end(), text[0]), got);
        ++seen.at(text[0] == 'a' ? 0 : 1);
        return (seen[0] > 20 && seen[1] > 20) || HasFailure();
      },
      {}, {}, kPatience));
}

TEST_F(ScullOnce, a_gibibyte_comes_back_as_it_was_written) {
  // KASAN and kmemleak keep records of each quantum: there it is less. A machine with less memory writes less as well.
  const std::string memory = text_of("/proc/meminfo");
  const long free = std::atol(memory.c_str() + memory.find("MemAvailable:") + std::strlen("MemAvailable:")) / 1024;
  const long mebibytes = std::min(looks_for_leaks() ? 128L : 1024L, free * 3 / 4);
  std::printf("%ld MiB of %ld that are free\n", mebibytes, free);
  std::string block(1 << 20, '\0');
  Random random{7};
  std::generate(block.begin(), block.end(), [&] { return static_cast<char>(random()); });
  const auto stamp = [&](long number) {
    for (std::size_t at = 0; at + sizeof number <= block.size(); at += 4096) {
      std::memcpy(&block[at], &number, sizeof number);
      number += 1'000'000;
    }
  };
  const UniqueFd file = opened(kDevice, O_RDWR);
  for (long number = 0; number < mebibytes; ++number) {
    stamp(number);
    ASSERT_EQ(::write(file.get(), block.data(), block.size()), static_cast<ssize_t>(block.size())) << number << " MiB";
  }
  ASSERT_EQ(::lseek(file.get(), 0, SEEK_END), mebibytes << 20);
  ASSERT_EQ(::lseek(file.get(), 0, SEEK_SET), 0);
  std::string in(block.size(), '\0');
  for (long number = 0; number < mebibytes; ++number) {
    stamp(number);
    ASSERT_EQ(::read(file.get(), in.data(), in.size()), static_cast<ssize_t>(in.size())) << number << " MiB";
    ASSERT_TRUE(in == block) << number << " MiB";
  }
  EXPECT_GE(allocated("scull0"), mebibytes << 20);
  truncate(kDevice);
  EXPECT_EQ(allocated("scull0"), 0);
}

TEST_P(Scull, who_writes_more_than_there_is_gets_enomem_and_nobody_is_killed) {
  const MemoryLimit limit{16 << 20};
  if (!limit.missing().empty()) GTEST_SKIP() << limit.missing();
  Child writer{[&](Peer& test) {
    const std::string text(256 * 1024, 'm');
    const UniqueFd file = opened(kDevice, O_WRONLY);
    const UniqueFd group = opened(limit.path() + "/cgroup.procs", O_WRONLY);
    const UniqueFd back = opened("/sys/fs/cgroup/cgroup.procs", O_WRONLY);
    ::mlockall(MCL_CURRENT | MCL_FUTURE);  // from here on only the device allocates
    if (::write(group.get(), "0", 1) != 1) return 1;
    ssize_t written = 0;
    ssize_t last = 0;
    while ((last = ::write(file.get(), text.data(), text.size())) > 0) written += last;
    const int error = errno;
    if (::write(back.get(), "0", 1) != 1) return 1;
    test.tell(std::to_string(written >> 20) + " MiB, then " + std::strerror(error));
    // What was written is there, the lock is free.
    test.tell(said(::lseek(file.get(), 0, SEEK_END) - written));
    return 0;
  }};
  EXPECT_THAT(writer.hear(), testing::MatchesRegex("([5-9]|1[0-5]) MiB, then Cannot allocate memory"));
  EXPECT_EQ(writer.hear(), "0");
  EXPECT_EQ(writer.reap(), 0);
  EXPECT_EQ(limit.event("oom_kill"), 0);
  EXPECT_GT(limit.usage(), 10 << 20);
  truncate(kDevice);
  EXPECT_EQ(allocated("scull0"), 0);
  // The kernel's own count of what the control group has: quanta, sets and the tree above them.
  EXPECT_TRUE(eventually([&] { return limit.usage() < 1 << 20; }, {}, {}, kPatience)) << limit.usage();
}

TEST_P(Scull, each_allocation_and_copy_that_fails_gives_the_lock_back_and_leaks_nothing) {
  const UniqueFd file = opened(kDevice, O_RDWR);
  const std::string old(10'000, 'o');
  const std::string text(20'000, 'n');
  std::string in(text.size(), '\0');
  const auto fresh = [&] {
    truncate(kDevice);
    ASSERT_EQ(allocated("scull0"), 0);
    ASSERT_EQ(::pwrite(file.get(), old.data(), old.size(), 0), static_cast<ssize_t>(old.size()));
  };
  ssize_t result = 0;
  fresh();
  const int in_write = with_each_failure(
      [&] { result = ::pwrite(file.get(), text.data(), text.size(), 0); },
      [&] {
        const ssize_t done = std::max<ssize_t>(result, 0);
        const auto end = std::max<std::size_t>(static_cast<std::size_t>(done), old.size());
        ASSERT_EQ(::pread(file.get(), in.data(), in.size(), 0), static_cast<ssize_t>(end));
        const std::size_t old_from = std::string_view{in}.substr(0, end).find_first_not_of('n');
        EXPECT_EQ(old_from == std::string_view::npos ? end : old_from, static_cast<std::size_t>(done));
        fresh();
      });
  if (in_write < 0) GTEST_SKIP() << "this kernel cannot let allocations fail";
  const int in_read = with_each_failure(
      [&] { result = ::pread(file.get(), in.data(), in.size(), 0); },
      [&] { EXPECT_EQ(::pwrite(file.get(), old.data(), old.size(), 0), static_cast<ssize_t>(old.size())); });
  const int in_truncation = with_each_failure([&] { UniqueFd{::open(kDevice, O_WRONLY | O_CLOEXEC)}; }, fresh);
  scull_layout layout{.quantum = 100, .qset = 7};
  const int in_ioctl =
      with_each_failure([&] { static_cast<void>(::ioctl(file.get(), SCULL_IOC_SET_LAYOUT, &layout)); }, fresh);
  const int far_out =
      with_each_failure([&] { result = ::pwrite(file.get(), "far", 3, 1L << 50); },
                        [&] {
                          EXPECT_EQ(::lseek(file.get(), 0, SEEK_END), result == 3 ? (1L << 50) + 3 : 10'000);
                          fresh();
                        });
  std::printf("failed: %d in write, %d in read, %d in truncation, %d in an ioctl, %d far out\n", in_write, in_read,
              in_truncation, in_ioctl, far_out);
  EXPECT_GT(in_write, 4);
  EXPECT_GT(in_read, 2);
  EXPECT_GT(in_truncation, 0);
  EXPECT_GT(in_ioctl, 0);
  EXPECT_GT(far_out, 2);
  truncate(kDevice);
  EXPECT_EQ(allocated("scull0"), 0);
}

const std::vector<std::string> kNodes{"/dev/scull0",   "/dev/scull1",    "/dev/scullsingle",
                                      "/dev/sculluid", "/dev/scullwuid", "/dev/scullpriv"};

void expect_all_free() {
  for (const std::string& node : kNodes) {
    if (node == "/dev/scullpriv") continue;
    const std::string end = in_a_child([&] {
      const UniqueFd file{::open(node.c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC)};
      return said(::ioctl(file.get(), SCULL_IOC_RESET_LAYOUT));
    });
    EXPECT_EQ(end, "0") << node;
    EXPECT_EQ(allocated(node.substr(5)), 0) << node;
  }
}

TEST_P(Scull, processes_killed_at_random_leave_no_lock_and_no_memory) {
  const Storm storm_seen = storm(
      5,
      [](Random& random) {
        static std::string block(200'000, 's');
        const UniqueFd file{::open(kNodes[random() % 2].c_str(), (random() % 4 == 0 ? O_WRONLY : O_RDWR) | O_CLOEXEC)};
        const auto size = random() % block.size();
        const auto offset = static_cast<off_t>(random() % 1'000'000);
        scull_layout layout{.quantum = static_cast<__u32>(1 + random() % 5000),
                            .qset = static_cast<__u32>(1 + random() % 100)};
        const UniqueFd single{::open(kNodes[2 + random() % 3].c_str(), O_RDWR | O_CLOEXEC)};
        static_cast<void>(::pwrite(single.get(), block.data(), size, 0));
        switch (random() % 4) {
          case 0:
            static_cast<void>(::ioctl(file.get(), SCULL_IOC_SET_LAYOUT, &layout));
            break;
          case 1:
            static_cast<void>(::pread(file.get(), block.data(), size, offset));
            break;
          default:
            static_cast<void>(::pwrite(file.get(), block.data(), size, offset));
            break;
        }
      },
      soak_time() / 2);
  std::printf("%llu steps, %d kills\n", static_cast<unsigned long long>(storm_seen.steps), storm_seen.kills);
  EXPECT_GT(storm_seen.kills, 9);
  EXPECT_GT(storm_seen.steps, 100U);
  expect_all_free();
}

TEST_P(Scull, hostile_calls_do_no_harm) {
  const std::uint64_t calls =
      bombard(kNodes, {SCULL_IOC_GET_LAYOUT, SCULL_IOC_SET_LAYOUT, SCULL_IOC_RESET_LAYOUT}, soak_time() / 2);
  std::printf("%llu calls\n", static_cast<unsigned long long>(calls));
  EXPECT_GT(calls, 1000U);
  expect_all_free();
}

TEST_P(Scull, it_is_not_unloaded_while_somebody_has_it_open) {
  {
    const UniqueFd file = opened(kDevice, O_RDONLY);
    EXPECT_EQ(remove_module("scull"), EWOULDBLOCK);
    EXPECT_TRUE(std::filesystem::exists(kDevice));
  }
  // With data in it.
  ASSERT_EQ(::pwrite(opened(kDevice, O_RDWR).get(), "x", 1, 1 << 30), 1);
  EXPECT_EQ(remove_module("scull"), 0);
  EXPECT_FALSE(std::filesystem::exists("/sys/class/scull"));
}

TEST(ScullParameters, out_of_range_are_refused) {
  const Modules built = modules();
  if (!built.missing.empty()) GTEST_SKIP() << built.missing;
  for (const char* refused :
       {"quantum=0", "quantum=131073", "qset=0", "qset=16385", "devices=65", "locking=spinlock", "locking="})
    EXPECT_EQ(insert_module("scull", refused), EINVAL) << refused;
}

TEST(ScullParameters, say_how_many_devices_and_how_data_is_laid_out) {
  const Modules built = modules();
  if (!built.missing.empty()) GTEST_SKIP() << built.missing;
  const Module module{"scull", "devices=6 quantum=10 qset=3"};
  scull_layout layout{};
  ASSERT_EQ(::ioctl(opened("/dev/scull5", O_RDONLY).get(), SCULL_IOC_GET_LAYOUT, &layout), 0);
  EXPECT_EQ(layout.quantum, 10U);
  EXPECT_EQ(layout.qset, 3U);
  EXPECT_FALSE(std::filesystem::exists("/dev/scull6"));
}

// A process of a user that has a device open, until it is told to close.
class Opener {
 public:
  Opener(uid_t user, std::string path, int flags = O_RDWR)
      : child_{[=](Peer& test) {
          if (user != 0 && ::setresuid(user, user, user) != 0) return 1;
          test.hear();
          const UniqueFd file{::open(path.c_str(), flags | O_CLOEXEC)};
          test.tell(file ? "opened" : std::strerror(errno));
          test.hear();
          return 0;
        }} {
    child_.tell("open");
  }
  std::string answer() { return child_.hear(); }
  void close() {
    child_.tell("close");
    EXPECT_EQ(child_.reap(), 0);
  }
  Child& child() { return child_; }

 private:
  Child child_;
};

TEST_F(ScullOnce, scullsingle_is_open_once_whoever_asks) {
  Opener first{kAlice, "/dev/scullsingle"};
  EXPECT_EQ(first.answer(), "opened");
  EXPECT_EQ(Opener(kAlice, "/dev/scullsingle").answer(), "Device or resource busy");
  EXPECT_EQ(Opener(0, "/dev/scullsingle").answer(), "Device or resource busy");
  first.child().kill();
  EXPECT_EQ(Opener(kBob, "/dev/scullsingle").answer(), "opened");
}

TEST_F(ScullOnce, sculluid_is_one_users_until_his_last_close) {
  Opener first{kAlice, "/dev/sculluid"};
  EXPECT_EQ(first.answer(), "opened");
  Opener second{kAlice, "/dev/sculluid"};
  EXPECT_EQ(second.answer(), "opened");
  EXPECT_EQ(Opener(kBob, "/dev/sculluid").answer(), "Device or resource busy");
  EXPECT_EQ(Opener(0, "/dev/sculluid").answer(), "opened") << "root may";
  first.close();
  EXPECT_EQ(Opener(kBob, "/dev/sculluid").answer(), "Device or resource busy");
  second.close();
  EXPECT_EQ(Opener(kBob, "/dev/sculluid").answer(), "opened");
}

TEST_F(ScullOnce, scullwuid_lets_other_users_wait) {
  Opener first{kAlice, "/dev/scullwuid"};
  EXPECT_EQ(first.answer(), "opened");
  EXPECT_EQ(Opener(kBob, "/dev/scullwuid", O_RDWR | O_NONBLOCK).answer(), "Resource temporarily unavailable");
  Opener killed{kBob, "/dev/scullwuid"};
  Opener waiting{kBob, "/dev/scullwuid"};
  ASSERT_TRUE(sleeps_in(killed.child().pid(), SYS_openat));
  ASSERT_TRUE(sleeps_in(waiting.child().pid(), SYS_openat));
  killed.child().kill();
  first.close();
  EXPECT_EQ(waiting.answer(), "opened");
  EXPECT_EQ(Opener(kAlice, "/dev/scullwuid", O_RDWR | O_NONBLOCK).answer(), "Resource temporarily unavailable");
  waiting.close();
  EXPECT_EQ(Opener(kAlice, "/dev/scullwuid", O_RDWR | O_NONBLOCK).answer(), "opened");
}

TEST_F(ScullOnce, a_signal_ends_the_wait_for_scullwuid) {
  Opener first{kAlice, "/dev/scullwuid"};
  EXPECT_EQ(first.answer(), "opened");
  Child waiter{[](Peer& test) {
    if (::setresuid(kBob, kBob, kBob) != 0) return 1;
    handle(SIGUSR1, 0);
    test.tell(said(::open("/dev/scullwuid", O_RDWR | O_CLOEXEC)));
    return 0;
  }};
  ASSERT_TRUE(sleeps_in(waiter.pid(), SYS_openat));
  waiter.signal(SIGUSR1);
  EXPECT_EQ(waiter.hear(), "Interrupted system call");
}

// A session on a terminal, which does what it is told: "write TEXT", "read", anything else ends it.
Child session_on(const Pty& pty) {
  return Child{[&](Peer& test) {
    const UniqueFd terminal{::open(pty.path().c_str(), O_RDWR | O_NOCTTY | O_CLOEXEC)};
    if (::setsid() < 0 || ::ioctl(terminal.get(), TIOCSCTTY, 0) != 0) return 1;
    ::signal(SIGHUP, SIG_IGN);
    while (true) {
      const std::string order = test.hear();
      const UniqueFd file{::open("/dev/scullpriv", order == "read" ? O_RDONLY | O_CLOEXEC : O_WRONLY | O_CLOEXEC)};
      std::array<char, 100> text{};
      if (order.starts_with("write ")) {
        test.tell(said(::write(file.get(), order.data() + 6, order.size() - 6)));
      } else if (order == "read") {
        const ssize_t got = ::read(file.get(), text.data(), text.size());
        test.tell("'" + std::string{text.data(), static_cast<std::size_t>(std::max<ssize_t>(got, 0))} + "'");
      } else {
        return 0;
      }
    }
  }};
}

TEST_F(ScullOnce, scullpriv_has_a_memory_for_each_terminal) {
  const Pty one;
  const Pty two;
  Child first{session_on(one)};
  Child second{session_on(two)};
  first.tell("write first");
  EXPECT_EQ(first.hear(), "5");
  second.tell("read");
  EXPECT_EQ(second.hear(), "''");
  second.tell("write second");
  EXPECT_EQ(second.hear(), "6");
  first.tell("read");
  EXPECT_EQ(first.hear(), "'first'");
  second.tell("read");
  EXPECT_EQ(second.hear(), "'second'");
}

TEST_F(ScullOnce, scullpriv_does_not_show_a_terminal_to_its_next_session) {
  const Pty pty;
  {
    Child first{session_on(pty)};
    first.tell("write secret");
    EXPECT_EQ(first.hear(), "6");
    EXPECT_GT(allocated("scullpriv"), 0);
    first.kill();
  }
  Child next{session_on(pty)};
  next.tell("read");
  EXPECT_EQ(next.hear(), "''");
  EXPECT_EQ(allocated("scullpriv"), 0) << "nobody can ask for it any more";
}

}  // namespace
}  // namespace holdfast::vm
