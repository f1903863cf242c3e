// SPDX-License-Identifier: MIT
// One owner per descriptor; and descriptors that forked children do not get.
#include "base/process_fd.hpp"
#include "base/unique_fd.hpp"
#include "process/support/packets.hpp"

#include <gtest/gtest.h>

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <thread>
#include <utility>
#include <vector>

namespace holdfast::base {
namespace {

bool is_open(int fd) { return ::fcntl(fd, F_GETFD) >= 0; }
int open_null() { return ::open("/dev/null", O_RDONLY | O_CLOEXEC); }

// Exit status of a forked child that runs `body`.
template <class Body>
int in_child(Body body) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(body());
  int status = -1;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST(UniqueFd, destructor_closes) {
  int raw = -1;
  {
    const UniqueFd fd{open_null()};
    raw = fd.get();
    ASSERT_TRUE(fd);
    EXPECT_TRUE(is_open(raw));
  }
  EXPECT_FALSE(is_open(raw));
}

TEST(UniqueFd, empty_is_false_and_closes_nothing) {
  UniqueFd fd;
  EXPECT_FALSE(fd);
  EXPECT_EQ(fd.get(), -1);
  fd.reset();
}

TEST(UniqueFd, move_leaves_the_source_empty) {
  UniqueFd first{open_null()};
  const int raw = first.get();
  UniqueFd second{std::move(first)};
  EXPECT_FALSE(first);  // NOLINT(bugprone-use-after-move): the state after a move is what is tested
  EXPECT_EQ(second.get(), raw);
  EXPECT_TRUE(is_open(raw));
}

TEST(UniqueFd, move_assignment_closes_what_was_there) {
  UniqueFd first{open_null()};
  UniqueFd second{open_null()};
  const int kept = first.get();
  const int closed = second.get();
  second = std::move(first);
  EXPECT_EQ(second.get(), kept);
  EXPECT_TRUE(is_open(kept));
  EXPECT_FALSE(is_open(closed));
}

TEST(UniqueFd, move_assignment_to_itself_keeps_it) {
  UniqueFd fd{open_null()};
  UniqueFd& alias = fd;
  const int raw = fd.get();
  fd = std::move(alias);
  EXPECT_EQ(fd.get(), raw);
  EXPECT_TRUE(is_open(raw));
}

TEST(UniqueFd, release_gives_the_descriptor_away) {
  UniqueFd fd{open_null()};
  const UniqueFd taker{fd.release()};
  EXPECT_FALSE(fd);
  EXPECT_TRUE(is_open(taker.get()));
}

TEST(ProcessFd, opens_with_close_on_exec) {
  const ProcessFd fd = ProcessFd::open("/dev/null", O_RDONLY);
  ASSERT_TRUE(fd);
  EXPECT_EQ(::fcntl(fd.get(), F_GETFD), FD_CLOEXEC);
}

TEST(ProcessFd, failed_open_is_empty_and_leaves_errno) {
  const ProcessFd fd = ProcessFd::open("/nowhere/at/all", O_RDONLY);
  EXPECT_EQ(errno, ENOENT);
  EXPECT_FALSE(fd);
}

TEST(ProcessFd, forked_child_does_not_have_it) {
  const ProcessFd fd = ProcessFd::open("/dev/null", O_RDONLY);
  ASSERT_TRUE(fd);
  EXPECT_EQ(in_child([&] { return is_open(fd.get()) ? 1 : 0; }), 0);
  EXPECT_TRUE(is_open(fd.get()));
}

TEST(ProcessFd, grandchild_does_not_have_it_either) {
  const ProcessFd fd = ProcessFd::open("/dev/null", O_RDONLY);
  EXPECT_EQ(in_child([&] { return in_child([&] { return is_open(fd.get()) ? 1 : 0; }); }), 0);
}

TEST(ProcessFd, moved_one_is_still_kept_from_children) {
  ProcessFd first = ProcessFd::open("/dev/null", O_RDONLY);
  const int raw = first.get();
  ProcessFd second{std::move(first)};
  EXPECT_FALSE(first);  // NOLINT(bugprone-use-after-move): the state after a move is what is tested
  EXPECT_EQ(second.get(), raw);
  EXPECT_EQ(in_child([&] { return is_open(raw) ? 1 : 0; }), 0);
  ProcessFd third = ProcessFd::open("/dev/null", O_RDONLY);
  const int closed = third.get();
  third = std::move(second);
  EXPECT_EQ(third.get(), raw);
  EXPECT_FALSE(is_open(closed));
}

TEST(ProcessFd, child_that_reuses_the_number_keeps_its_own_file) {
  ProcessFd fd = ProcessFd::open("/dev/null", O_RDONLY);
  // The object's copy in the child must not close what the child opened under the same number.
  EXPECT_EQ(in_child([&] {
              const int own = open_null();
              const bool same_number = own == fd.get();
              const int status = same_number && in_child([&] { return is_open(own) ? 0 : 1; }) == 0 ? 0 : 1;
              return status;
            }),
            0);
}

TEST(ProcessFd, reset_closes_and_takes_it_off_the_list) {
  ProcessFd fd = ProcessFd::open("/dev/null", O_RDONLY);
  const int raw = fd.get();
  fd.reset();
  EXPECT_FALSE(fd);
  EXPECT_FALSE(is_open(raw));
  const UniqueFd other{open_null()};
  ASSERT_EQ(other.get(), raw) << "open(2) gives the lowest free number";
  EXPECT_EQ(in_child([&] { return is_open(raw) ? 0 : 1; }), 0) << "a child lost a descriptor that is not on the list";
}

TEST(ProcessFd, shared_one_is_inherited) {
  ProcessFd fd = ProcessFd::open("/dev/null", O_RDONLY);
  fd.share_with_children();
  EXPECT_EQ(in_child([&] { return is_open(fd.get()) ? 0 : 1; }), 0);
}

TEST(ProcessFd, received_and_adopted_ones_are_closed_in_forked_children) {
  int ends[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
  const UniqueFd one{ends[0]};
  const UniqueFd other{ends[1]};
  const UniqueFd sent{open_null()};
  ASSERT_TRUE(testing_support::send_descriptor(one.get(), sent.get()));
  char byte = 0;
  iovec part{&byte, 1};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> space{};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = space.data();
  header.msg_controllen = space.size();
  std::vector<ProcessFd> received;
  ASSERT_EQ(ProcessFd::receive(other.get(), header, received), 1);
  ASSERT_EQ(received.size(), 1U);
  EXPECT_NE(::fcntl(received.front().get(), F_GETFD) & FD_CLOEXEC, 0);
  const ProcessFd adopted = ProcessFd::adopt(UniqueFd{open_null()});
  EXPECT_EQ(in_child([&] { return is_open(received.front().get()) || is_open(adopted.get()) ? 1 : 0; }), 0);
  EXPECT_EQ(ProcessFd::receive(other.get(), header, received), -1);
  EXPECT_EQ(errno, EAGAIN) << "it waits";
}

TEST(ProcessFd, no_fork_falls_between_opening_and_listing) {
  std::atomic<bool> stop{false};
  std::thread opener{[&] {
    while (!stop.load(std::memory_order_relaxed)) {
      const ProcessFd fd = ProcessFd::open("/dev/zero", O_RDONLY);
    }
  }};
  for (int round = 0; round < 100; ++round) {
    EXPECT_EQ(in_child([] {
                char target[32];
                char name[] = "/proc/self/fd/0";
                for (char digit = '3'; digit <= '9'; ++digit) {
                  name[sizeof name - 2] = digit;
                  const ssize_t length = ::readlink(name, target, sizeof target);
                  if (std::string_view{target, length < 0 ? 0U : static_cast<std::size_t>(length)} == "/dev/zero")
                    return 1;
                }
                return 0;
              }),
              0);
  }
  stop = true;
  opener.join();
}

}  // namespace
}  // namespace holdfast::base
