// SPDX-License-Identifier: MIT
// What a process shows of its life, seen from another.
#include "sync/life.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <thread>

#include "sync/process.hpp"
#include "sync/words.hpp"

namespace {

using namespace holdfast::sync;

struct Child {
  pid_t pid = 0;
  std::uint32_t start = 0;
  std::uint32_t number = 0;
};

/// A process that shows its life and waits for the end.
Child showing() {
  int pipe[2];
  EXPECT_EQ(::pipe2(pipe, O_CLOEXEC), 0);
  Child child;
  child.pid = ::fork();
  if (child.pid == 0) {
    const std::uint32_t said[] = {this_process().start, life::show(*self())};
    if (::write(pipe[1], said, sizeof(said)) != sizeof(said)) ::_exit(1);
    for (;;) ::pause();
  }
  std::uint32_t said[2] = {};
  EXPECT_EQ(::read(pipe[0], said, sizeof(said)), static_cast<ssize_t>(sizeof(said)));
  ::close(pipe[0]);
  ::close(pipe[1]);
  child.start = said[0];
  child.number = said[1];
  return child;
}

void end(const Child& child) {
  ::kill(child.pid, SIGKILL);
  ::waitpid(child.pid, nullptr, 0);
}

constexpr std::uint64_t kTenSeconds = 10'000'000'000;

TEST(Life, the_word_that_a_process_shows_wakes_who_sleeps_on_it_when_it_is_killed) {
  const Child child = showing();
  life::Watch watch;
  const auto pid = static_cast<std::uint32_t>(child.pid);
  const futex::Watched word = watch.word(pid, child.start, child.number, pid);
  ASSERT_NE(word.word, nullptr);
  EXPECT_EQ(words::owner(word.value), pid);
  ::kill(child.pid, SIGKILL);
  while (word.word->load() == word.value)
    ASSERT_NE(futex::wait_any({&word, 1}, futex::now() + kTenSeconds), futex::Woke::timed_out);
  EXPECT_EQ(words::owner(word.word->load()), 0U);
  EXPECT_EQ(watch.word(pid, child.start, child.number, pid).word, nullptr);
  ::waitpid(child.pid, nullptr, 0);
}

TEST(Life, another_file_in_the_place_of_the_page_is_not_opened) {
  const Child child = showing();
  life::Watch watch;
  const auto pid = static_cast<std::uint32_t>(child.pid);
  EXPECT_EQ(watch.word(pid, child.start, 1, pid).word, nullptr);
  EXPECT_EQ(watch.word(pid, child.start + 1, child.number, pid).word, nullptr) << "an earlier process of that id";
  EXPECT_EQ(watch.word(pid, child.start, life::kNothing, pid).word, nullptr);
  EXPECT_NE(watch.word(pid, child.start, child.number, pid).word, nullptr);
  end(child);
}

TEST(Life, another_thread_stands_in_for_one_that_ended) {
  ASSERT_NE(life::show(*self()), life::kNothing);
  std::uint32_t ended = 0;
  std::uint32_t number = 0;
  std::thread([&] {
    ended = self()->tid;
    number = life::show(*self());
  }).join();
  life::Watch watch;
  const Process process = this_process();
  // The thread is joined when the kernel has cleared its id, which is after it has walked its list.
  const futex::Watched word = watch.word(process.pid, process.start, number, ended);
  ASSERT_NE(word.word, nullptr);
  EXPECT_EQ(words::owner(word.value), self()->tid);
}

TEST(Life, a_child_of_fork_shows_a_life_of_its_own) {
  ASSERT_NE(life::show(*self()), life::kNothing);
  const Child child = showing();
  life::Watch watch;
  const auto pid = static_cast<std::uint32_t>(child.pid);
  const futex::Watched word = watch.word(pid, child.start, child.number, pid);
  ASSERT_NE(word.word, nullptr);
  EXPECT_EQ(words::owner(word.value), pid);
  end(child);
}

TEST(Life, a_process_is_gone_when_it_is_killed_and_not_before) {
  const Child child = showing();
  const auto pid = static_cast<std::uint32_t>(child.pid);
  EXPECT_FALSE(is_gone(pid, child.start));
  EXPECT_TRUE(is_gone(pid, child.start + 1));
  ::kill(child.pid, SIGKILL);
  for (const std::uint64_t last = futex::now() + kTenSeconds; !is_gone(pid, child.start);) {
    ASSERT_LT(futex::now(), last);
    std::this_thread::yield();
  }
  ::waitpid(child.pid, nullptr, 0);
  EXPECT_TRUE(is_gone(pid, child.start));
}

}  // namespace
