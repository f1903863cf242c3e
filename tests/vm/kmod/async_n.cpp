// SPDX-License-Identifier: MIT
// async_n.cpp - /dev/async_n0 between processes: who is told of a message, and that no end of anybody keeps the
// lock or the buffer. What one process sees is in the module's own selftest.
#include "vm/support/kernel.hpp"
#include "vm/support/module.hpp"

#include "interop/support/program.hpp"
#include "process/support/child.hpp"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

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

constexpr const char* kDevice = "/dev/async_n0";

UniqueFd opened(int flags, const char* path = kDevice) {
  UniqueFd file{::open(path, flags | O_CLOEXEC)};
  EXPECT_TRUE(file) << path << ": " << std::strerror(errno);
  return file;
}

std::string said(ssize_t result) { return result < 0 ? std::strerror(errno) : std::to_string(result); }

long attribute(const std::string& name) { return number_in("/sys/class/async_n/async_n0/" + name); }

void expect_free() {
  EXPECT_TRUE(eventually([] { return attribute("allocated") == 0; }, {}, {}, kPatience));
  EXPECT_EQ(attribute("readers"), 0);
  EXPECT_EQ(attribute("writers"), 0);
}

class AsyncN : public testing::Test {
 protected:
  void SetUp() override {
    const Modules built = modules();
    if (!built.missing.empty()) GTEST_SKIP() << built.missing;
    module_.emplace("async_n");
  }

 private:
  std::optional<Module> module_;
};

TEST_F(AsyncN, its_selftest_passes) {
  const Ending ending = run_to_the_end({KMOD_FOLDER "/kmod_async_n_selftest"});
  EXPECT_EQ(ending.status, 0) << ending.output;
  EXPECT_THAT(ending.output, Not(HasSubstr("not ok")));
}

TEST_F(AsyncN, a_session_in_python_goes_as_its_author_told) {
  interop::Program session{{"/usr/bin/python3", VM_SOURCE "/kmod/async_n_session.py"}, interop::Stdio::pipes};
  ASSERT_TRUE(eventually([&] { return session.ended().has_value(); }, {&session}, {}, kPatience * 5));
  session.listen();
  EXPECT_EQ(session.ended(), 0);
  EXPECT_EQ(session.output(), "nothing to read yet\nhey, how are you?\nnothing to read yet\nstop reading\n");
  expect_free();
}

// A reader that asked for a signal, and says what it read when that came.
Child told_by_signal() {
  return Child{[](Peer& test) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGIO);
    ::sigprocmask(SIG_BLOCK, &set, nullptr);
    const UniqueFd file = opened(O_RDONLY);
    ::fcntl(file.get(), F_SETOWN, ::getpid());
    ::fcntl(file.get(), F_SETFL, O_ASYNC);
    test.tell("ready");
    while (true) {
      int number = 0;
      ::sigwait(&set, &number);
      std::array<char, 256> text{};
      const ssize_t got = ::read(file.get(), text.data(), text.size());
      test.tell(std::string{text.data(), static_cast<std::size_t>(std::max<ssize_t>(got, 0))});
    }
    return 0;
  }};
}

TEST_F(AsyncN, every_reader_that_asked_is_told) {
  Child one{told_by_signal()};
  Child two{told_by_signal()};
  const UniqueFd silent = opened(O_RDONLY);  // in this process, which SIGIO would end
  EXPECT_EQ(one.hear(), "ready");
  EXPECT_EQ(two.hear(), "ready");
  const UniqueFd writer = opened(O_WRONLY);
  ASSERT_EQ(::write(writer.get(), "hello", 5), 5);
  EXPECT_EQ(one.hear(), "hello");
  EXPECT_EQ(two.hear(), "hello");
  two.kill();
  ASSERT_EQ(::write(writer.get(), "again", 5), 5);
  EXPECT_EQ(one.hear(), "again");
}

TEST_F(AsyncN, the_buffer_outlives_its_killed_users_by_nothing) {
  Child reader{told_by_signal()};
  EXPECT_EQ(reader.hear(), "ready");
  EXPECT_EQ(attribute("readers"), 1);
  EXPECT_GE(attribute("allocated"), 256);
  reader.kill();
  expect_free();
}

TEST_F(AsyncN, a_sleeper_in_poll_is_woken) {
  Child reader{[](Peer& test) {
    const UniqueFd file = opened(O_RDONLY);
    pollfd entry{file.get(), POLLIN, 0};
    test.tell(said(::poll(&entry, 1, -1)));
    return 0;
  }};
  ASSERT_TRUE(sleeps_in(reader.pid(), SYS_poll));
  ASSERT_EQ(::write(opened(O_WRONLY).get(), "hello", 5), 5);
  EXPECT_EQ(reader.hear(), "1");
}

TEST_F(AsyncN, a_signal_ends_the_wait_for_who_is_in_the_middle_of_a_write) {
  const UniqueFd file = opened(O_RDWR);  // while one can
  const InTheMiddle writer{[](char* memory, Peer& test) {
    test.tell(said(::write(opened(O_WRONLY).get(), memory, 100)));
    test.hear();
    return 0;
  }};
  if (!writer.missing().empty()) GTEST_SKIP() << writer.missing();
  ASSERT_TRUE(writer.reached());
  const std::array<std::pair<long, std::function<std::string()>>, 3> waits{{
      {SYS_read,
       [&] {
         std::array<char, 10> text{};
         return said(::read(file.get(), text.data(), text.size()));
       }},
      {SYS_write, [&] { return said(::write(file.get(), "x", 1)); }},
      {SYS_openat, [] { return said(::open(kDevice, O_RDONLY | O_CLOEXEC)); }},
  }};
  for (const auto& [call, wait] : waits) {
    Child waiter{[&](Peer& test) {
      struct sigaction action{};
      action.sa_handler = [](int) {};
      ::sigaction(SIGUSR1, &action, nullptr);
      test.tell(wait());
      return 0;
    }};
    ASSERT_TRUE(sleeps_in(waiter.pid(), call));
    waiter.signal(SIGUSR1);
    EXPECT_EQ(waiter.hear(), "Interrupted system call") << call;
  }
  writer.go_on('w');
  std::array<char, 200> text{};
  ASSERT_TRUE(eventually([&] { return ::read(file.get(), text.data(), text.size()) == 100; }, {}, {}, kPatience));
  EXPECT_EQ(text[99], 'w');
}

TEST_F(AsyncN, who_is_killed_in_the_middle_of_a_write_gives_the_lock_back_and_changes_nothing) {
  const UniqueFd file = opened(O_RDWR);
  ASSERT_EQ(::write(file.get(), "before", 6), 6);
  InTheMiddle writer{[](char* memory, Peer& test) {
    test.tell(said(::write(opened(O_WRONLY).get(), memory, 100)));
    return 0;
  }};
  if (!writer.missing().empty()) GTEST_SKIP() << writer.missing();
  ASSERT_TRUE(writer.reached());
  writer.child().kill();
  std::array<char, 200> text{};
  EXPECT_EQ(::read(file.get(), text.data(), text.size()), 6);
}

TEST_F(AsyncN, each_allocation_and_copy_that_fails_gives_the_lock_back_and_leaks_nothing) {
  const int in_open = with_each_failure([] { UniqueFd{::open(kDevice, O_RDWR | O_CLOEXEC)}; }, [] { expect_free(); });
  if (in_open < 0) GTEST_SKIP() << "this kernel cannot let allocations fail";
  const UniqueFd file = opened(O_RDWR);
  std::array<char, 10> text{};
  const auto works = [&] {
    EXPECT_EQ(::write(file.get(), "before", 6), 6);
    EXPECT_EQ(::read(file.get(), text.data(), text.size()), 6);
  };
  works();
  ssize_t result = 0;
  const int in_write = with_each_failure([&] { result = ::write(file.get(), "after", 5); },
                                         [&] {
                                           EXPECT_EQ(::read(file.get(), text.data(), text.size()), result == 5 ? 5 : 6);
                                           works();
                                         });
  const int in_read =
      with_each_failure([&] { static_cast<void>(::read(file.get(), text.data(), text.size())); }, works);
  const int in_asking = with_each_failure([&] { ::fcntl(file.get(), F_SETFL, O_ASYNC); },
                                          [&] {
                                            ::fcntl(file.get(), F_SETFL, 0);
                                            works();
                                          });
  std::printf("failed: %d in open, %d in write, %d in read, %d in asking for signals\n", in_open, in_write, in_read,
              in_asking);
  EXPECT_GT(in_open, 2);
  EXPECT_GT(in_write, 0);
  EXPECT_GT(in_read, 0);
  EXPECT_GT(in_asking, 0);
}

TEST_F(AsyncN, processes_killed_at_random_leave_no_lock_and_no_buffer) {
  const Storm seen = storm(
      5,
      [](Random& random) {
        static constexpr std::array kModes{O_RDONLY, O_WRONLY, O_RDWR};
        const UniqueFd file{::open(kDevice, kModes[random() % 3] | O_CLOEXEC)};
        std::array<char, 300> text{};
        ::signal(SIGIO, SIG_IGN);
        ::fcntl(file.get(), F_SETOWN, ::getpid());
        ::fcntl(file.get(), F_SETFL, random() % 2 == 0 ? O_ASYNC : 0);
        pollfd entry{file.get(), POLLIN, 0};
        ::poll(&entry, 1, static_cast<int>(random() % 3));
        static_cast<void>(::write(file.get(), text.data(), random() % text.size()));
        static_cast<void>(::read(file.get(), text.data(), random() % text.size()));
      },
      soak_time());
  std::printf("%llu steps, %d kills\n", static_cast<unsigned long long>(seen.steps), seen.kills);
  EXPECT_GT(seen.kills, 9);
  EXPECT_GT(seen.steps, 100U);
  expect_free();
}

TEST_F(AsyncN, hostile_calls_do_no_harm) {
  const std::uint64_t calls = bombard({kDevice}, {0}, soak_time());
  std::printf("%llu calls\n", static_cast<unsigned long long>(calls));
  EXPECT_GT(calls, 1000U);
  expect_free();
}

TEST_F(AsyncN, it_is_not_unloaded_while_somebody_has_it_open) {
  {
    const UniqueFd file = opened(O_RDONLY);
    EXPECT_EQ(remove_module("async_n"), EWOULDBLOCK);
  }
  EXPECT_EQ(remove_module("async_n"), 0);
  EXPECT_FALSE(std::filesystem::exists(kDevice));
}

TEST(AsyncNParameters, say_how_many_devices_and_how_large_a_message_is) {
  const Modules built = modules();
  if (!built.missing.empty()) GTEST_SKIP() << built.missing;
  for (const char* refused : {"size=0", "size=65537", "devices=0", "devices=65"})
    EXPECT_EQ(insert_module("async_n", refused), EINVAL) << refused;
  const Module module{"async_n", "size=10 devices=3"};
  const UniqueFd one = opened(O_RDWR, "/dev/async_n1");
  const UniqueFd two = opened(O_RDWR, "/dev/async_n2");
  EXPECT_EQ(::write(one.get(), "0123456789abc", 13), 10);
  std::array<char, 100> text{};
  EXPECT_EQ(::read(one.get(), text.data(), text.size()), 10);
  EXPECT_EQ(::read(two.get(), text.data(), text.size()), 0);
  EXPECT_FALSE(std::filesystem::exists("/dev/async_n3"));
}

}  // namespace
}  // namespace holdfast::vm
