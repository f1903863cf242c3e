// SPDX-License-Identifier: MIT
// broker_strangers_test.cpp - programs that never heard of the broker: what they took keeps a grant back, for its
// waiter alone; what the broker granted keeps them out.
#include "process/support/broker.hpp"
#include "process/support/devices.hpp"
#include "process/support/raw_client.hpp"

#include <holdfast/claim.hpp>

#include <gtest/gtest.h>

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <fstream>
#include <iterator>
#include <string>

namespace holdfast {
namespace {

using namespace testing_support;
using namespace std::chrono_literals;

std::string basename(const std::string& path) { return path.substr(path.rfind('/') + 1); }

// What a stranger does to a device, in a process of its own.
enum class Means { flock, record_lock, uucp_file, daemonless_claim };

std::string word_for(Means means) {
  switch (means) {
    case Means::flock:
      return "flock";
    case Means::record_lock:
      return "record_lock";
    case Means::uucp_file:
      return "uucp_file";
    case Means::daemonless_claim:
      return "daemonless_claim";
  }
  return "?";
}

// Whoever takes it says "in", or why not, and keeps it until told to let go.
void take(Means means, const std::string& device, Peer& test) {
  const std::string file = "/run/lock/LCK.." + basename(device);
  if (means == Means::daemonless_claim) {
    ::setenv("HOLDFAST_SOCKET", "", 1);
    auto mine = claim(device);
    test.tell(mine ? "in" : mine.error().message);
    test.hear();
    if (mine) mine->release();
    test.tell("out");
    test.hear();
    return;
  }
  base::UniqueFd node{::open(device.c_str(), O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC)};
  bool done = static_cast<bool>(node);
  if (means == Means::flock) done = done && ::flock(node.get(), LOCK_EX | LOCK_NB) == 0;
  if (means == Means::record_lock) {
    struct ::flock whole{};
    whole.l_type = F_WRLCK;
    done = done && ::fcntl(node.get(), F_SETLK, &whole) == 0;
  }
  if (means == Means::uucp_file) {
    node.reset();
    const base::UniqueFd made{::open(file.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644)};
    std::array<char, 12> pid{};
    std::snprintf(pid.data(), pid.size(), "%10d\n", ::getpid());
    done = made && ::write(made.get(), pid.data(), 11) == 11;
  }
  test.tell(done ? "in" : "kept out");
  test.hear();
  if (means == Means::uucp_file && done) ::unlink(file.c_str());
  node.reset();
  test.tell("out");
  test.hear();
}

class Stranger {
 public:
  Stranger(Means means, const std::string& device)
      : child_{[=](Peer& test) {
          take(means, device, test);
          return 0;
        }},
        answer_{child_.hear()} {}
  [[nodiscard]] const std::string& answer() const { return answer_; }
  [[nodiscard]] pid_t pid() const { return child_.pid(); }
  void let_go() {
    child_.tell("out");
    child_.hear();
  }

 private:
  Child child_;
  std::string answer_;
};

class StrangersMeans : public ::testing::TestWithParam<Means> {};

TEST_P(StrangersMeans, keep_a_try_out_and_are_named) {
  const Pty pty;
  BrokerUnderTest broker;
  Stranger stranger{GetParam(), pty.path()};
  ASSERT_EQ(stranger.answer(), "in");
  RawClient client{broker.socket()};
  const Answer answer = client.ask(claim_of(pty.path()));
  EXPECT_EQ(answer.code(), errc::refused) << answer.words;
  ASSERT_NE(answer.as<wire::Refused>(), nullptr);
  ASSERT_TRUE(answer.as<wire::Refused>()->holder) << answer.words;
  EXPECT_EQ(answer.as<wire::Refused>()->holder->pid, stranger.pid());
  stranger.let_go();
  EXPECT_EQ(client.ask(claim_of(pty.path())).words, "granted");
}

TEST_P(StrangersMeans, keep_a_waiter_back_until_they_let_go) {
  const Pty pty;
  BrokerUnderTest broker;
  Stranger stranger{GetParam(), pty.path()};
  ASSERT_EQ(stranger.answer(), "in");
  RawClient client{broker.socket()};
  const std::uint32_t number = client.send(claim_of(pty.path(), kForEver));
  ASSERT_EQ(client.answer_to(number).words, "queued");
  EXPECT_FALSE(client.has_heard());
  stranger.let_go();
  const Stopwatch watch;
  EXPECT_EQ(client.answer_to(number).words, "granted");
  std::printf("from %s given up to granted: %.1f ms\n", word_for(GetParam()).c_str(), watch.ms());
}

TEST_P(StrangersMeans, are_kept_out_by_what_the_broker_granted) {
  const Pty pty;
  BrokerUnderTest broker;
  RawClient client{broker.socket()};
  const Answer held = client.ask(claim_of(pty.path()));
  ASSERT_EQ(held.words, "granted");
  {
    Stranger stranger{GetParam(), pty.path()};
    EXPECT_NE(stranger.answer(), "in");
    if (GetParam() == Means::daemonless_claim) {
      EXPECT_NE(stranger.answer().find("[" + std::to_string(::getpid()) + "]"), std::string::npos) << stranger.answer();
    }
  }
  ASSERT_EQ(client.ask(wire::Release{held.claim()}).words, "done");
  Stranger stranger{GetParam(), pty.path()};
  EXPECT_EQ(stranger.answer(), "in");
}

TEST_P(StrangersMeans, in_the_way_of_one_device_hold_up_no_other) {
  const Pty taken;
  const Pty free;
  BrokerUnderTest broker;
  Stranger stranger{GetParam(), taken.path()};
  ASSERT_EQ(stranger.answer(), "in");
  RawClient waiter{broker.socket()};
  ASSERT_EQ(waiter.ask(claim_of(taken.path(), kForEver)).words, "queued");
  RawClient client{broker.socket()};
  const testing_support::Owner other;
  for (int i = 0; i < 10; ++i) {
    const Answer held = ask_for(client, other, claim_of(free.path()));
    ASSERT_EQ(held.words, "granted");
    ASSERT_EQ(client.ask(wire::Release{held.claim()}).words, "done");
  }
  EXPECT_FALSE(waiter.has_heard());
}

INSTANTIATE_TEST_SUITE_P(Each, StrangersMeans,
                         ::testing::Values(Means::flock, Means::record_lock, Means::uucp_file, Means::daemonless_claim),
                         [](const auto& means) { return word_for(means.param); });

TEST(Elected, waiter_keeps_its_place_before_others_while_a_stranger_is_in_the_way) {
  const Pty pty;
  BrokerUnderTest broker;
  Stranger stranger{Means::flock, pty.path()};
  ASSERT_EQ(stranger.answer(), "in");
  RawClient client{broker.socket()};
  std::array<testing_support::Owner, 3> owners;
  std::array<std::uint32_t, 3> numbers{};
  for (std::size_t i = 0; i < owners.size(); ++i) {
    numbers[i] = send_for(client, owners[i], claim_of(pty.path(), kForEver));
    ASSERT_EQ(client.answer_to(numbers[i]).words, "queued");
  }
  stranger.let_go();
  std::uint32_t last_release = 0;
  for (const std::uint32_t number : numbers) {
    const Answer granted = client.answer_to(number);
    ASSERT_EQ(granted.words, "granted");
    last_release = client.send(wire::Release{granted.claim()});
  }
  EXPECT_EQ(client.answer_to(last_release).words, "done");
}

TEST(Elected, waiter_may_cancel_and_meets_its_deadline_and_dies_and_the_next_is_elected) {
  const Pty pty;
  BrokerUnderTest broker;
  Stranger stranger{Means::flock, pty.path()};
  ASSERT_EQ(stranger.answer(), "in");
  RawClient client{broker.socket()};
  const std::array<testing_support::Owner, 4> owners;
  const std::uint32_t cancelled = send_for(client, owners[0], claim_of(pty.path(), kForEver));
  ASSERT_EQ(client.answer_to(cancelled).words, "queued");
  const std::uint32_t late = send_for(client, owners[1], claim_of(pty.path(), {true, 300ms}));
  ASSERT_EQ(client.answer_to(late).words, "queued");
  const std::uint32_t dead = send_for(client, owners[2], claim_of(pty.path(), kForEver));
  ASSERT_EQ(client.answer_to(dead).words, "queued");
  const std::uint32_t last = send_for(client, owners[3], claim_of(pty.path(), kForEver));
  ASSERT_EQ(client.answer_to(last).words, "queued");
  EXPECT_EQ(client.ask(wire::Cancel{cancelled}).words, "done");
  const Answer timed_out = client.answer_to(late);
  EXPECT_EQ(timed_out.code(), errc::timed_out) << timed_out.words;
  owners[2].kill();
  stranger.let_go();
  EXPECT_EQ(client.answer_to(last).words, "granted");
}

TEST(LockFile, of_a_grant_carries_the_owners_pid) {
  const Pty pty;
  BrokerUnderTest broker;
  RawClient client{broker.socket()};
  const testing_support::Owner owner;
  const Answer held = ask_for(client, owner, claim_of(pty.path()));
  ASSERT_EQ(held.words, "granted");
  std::ifstream file{"/run/lock/LCK.." + basename(pty.path())};
  long pid = 0;
  file >> pid;
  EXPECT_EQ(pid, owner.pid());
  ASSERT_EQ(client.ask(wire::Release{held.claim()}).words, "done");
  EXPECT_TRUE(lock_files_of(pty.path()).empty());
}

TEST(LockFiles, are_gone_after_the_owners_death) {
  const Pty pty;
  BrokerUnderTest broker;
  RawClient client{broker.socket()};
  const testing_support::Owner owner;
  ASSERT_EQ(ask_for(client, owner, claim_of(pty.path())).words, "granted");
  ASSERT_FALSE(lock_files_of(pty.path()).empty());
  owner.kill();
  const testing_support::Owner next;
  const std::uint32_t number = send_for(client, next, claim_of(pty.path(), {true, 10s}));
  Answer answer = client.answer_to(number);
  if (answer.words == "queued") answer = client.answer_to(number);
  ASSERT_EQ(answer.words, "granted");
  ASSERT_EQ(client.ask(wire::Release{answer.claim()}).words, "done");
  EXPECT_TRUE(lock_files_of(pty.path()).empty());
}

TEST(Descriptors, of_a_grant_are_the_nodes_own_and_carry_the_locks) {
  const Pty pty;
  BrokerUnderTest broker;
  RawClient client{broker.socket()};
  const Answer held = client.ask(claim_of(pty.path()));
  ASSERT_EQ(held.words, "granted");
  const auto& marks = held.as<wire::Granted>()->marks;
  ASSERT_EQ(marks.nodes.size(), 1U);
  ASSERT_EQ(marks.nodes[0].open, wire::NodeOpen::writable);
  ASSERT_FALSE(held.descriptors.empty());
  struct stat through_fd{};
  struct stat through_path{};
  ASSERT_EQ(::fstat(held.descriptors[0].get(), &through_fd), 0);
  ASSERT_EQ(::stat(pty.path().c_str(), &through_path), 0);
  EXPECT_EQ(through_fd.st_rdev, through_path.st_rdev);
  // The same description has the flock: to take it again is nothing; on another one it is refused.
  EXPECT_EQ(::flock(held.descriptors[0].get(), LOCK_EX | LOCK_NB), 0);
  const base::UniqueFd other{::open(pty.path().c_str(), O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC)};
  EXPECT_EQ(::flock(other.get(), LOCK_EX | LOCK_NB), -1);
  EXPECT_EQ(errno, EWOULDBLOCK);
}

TEST(Disk, is_claimed_with_o_excl_and_let_go_completely) {
  const LoopDevice loop;
  if (!loop.missing().empty()) GTEST_SKIP() << "needs " << loop.missing();
  BrokerUnderTest broker;
  RawClient client{broker.socket()};
  for (int i = 0; i < 3; ++i) {
    Answer held = client.ask(claim_of(loop.path()));
    ASSERT_EQ(held.words, "granted");
    {
      const base::UniqueFd other{::open(loop.path().c_str(), O_RDONLY | O_EXCL | O_CLOEXEC)};
      EXPECT_FALSE(other);
    }
    held.descriptors.clear();
    ASSERT_EQ(client.ask(wire::Release{held.claim()}).words, "done");
    const base::UniqueFd other{::open(loop.path().c_str(), O_RDONLY | O_EXCL | O_CLOEXEC)};
    EXPECT_TRUE(other) << "O_EXCL is still held after Done";
  }
}

}  // namespace
}  // namespace holdfast
