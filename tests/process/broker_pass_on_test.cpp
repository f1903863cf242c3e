// SPDX-License-Identifier: MIT
// broker_pass_on_test.cpp - a pseudo-terminal goes from one holder to the next over the same descriptions: nobody comes
// between, everything names the new holder, and at whichever step the broker is killed, one holds it or nobody.
#include "process/support/broker.hpp"
#include "process/support/child.hpp"
#include "process/support/devices.hpp"
#include "process/support/raw_client.hpp"

#include "claim/holding.hpp"
#include "convention/proxy.hpp"
#include "convention/uucp.hpp"
#include "device/device.hpp"

#include <holdfast/claim.hpp>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <vector>

namespace holdfast {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using namespace testing_support;

// Claims when told, says when it waits and when it holds, and releases when told.
class Claimer {
 public:
  explicit Claimer(const std::string& device, Options options = {})
      : child_{[device, options](Peer& test) mutable {
          test.hear();
          options.wait = Wait::for_ever();
          options.on_progress = [&](const Progress&) { test.tell("waits"); };
          auto mine = claim(device, options);
          test.tell(!mine ? mine.error().message : mine->is_brokered() ? "holds" : "holds daemonless");
          test.hear();
          if (mine) mine->release();
          test.tell("released");
          test.hear();
          return 0;
        }} {}
  void go() { child_.tell("go on"); }
  std::string hear() { return child_.hear(); }
  // The next words that are no progress.
  std::string outcome() {
    std::string words = hear();
    while (words == "waits") words = hear();
    return words;
  }
  [[nodiscard]] pid_t pid() const { return child_.pid(); }

 private:
  Child child_;
};

// Of whoever holds it by the proxy; 0 for nobody.
pid_t holder_in_proxy(const std::string& device) {
  const auto identity = device::identify(device);
  const auto records = identity ? convention::read_proxy(convention::proxy_path(identity->node.id, {}))
                                : Result<std::vector<convention::ProxyRecord>>{};
  if (!records) return -1;
  for (const auto& record : *records)
    if (!record.waiting) return record.who.pid;
  return 0;
}

std::string daemonless(const std::string& device) {
  return in_a_child([&] {
    const auto taken = claim(device, {.way = Way::never_broker});
    return taken ? std::string{"taken"} : taken.error().message;
  });
}

bool flock_is_free(const std::string& device) {
  const base::UniqueFd fd{::open(device.c_str(), O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC)};
  return ::flock(fd.get(), LOCK_EX | LOCK_NB) == 0;
}

TEST(PassedOn, names_the_next_holder_everywhere) {
  const BrokerUnderTest broker;
  const Pty pty;
  Claimer first{pty.path()};
  first.go();
  ASSERT_EQ(first.outcome(), "holds");
  Claimer second{pty.path(), {.purpose = "the second"}};
  second.go();
  ASSERT_EQ(second.hear(), "waits");
  const auto before = lock_files_of(pty.path());
  ASSERT_FALSE(before.empty());
  struct stat was{};
  ASSERT_EQ(::stat(before.front().c_str(), &was), 0);
  first.go();
  EXPECT_EQ(first.hear(), "released");
  ASSERT_EQ(second.outcome(), "holds");
  EXPECT_EQ(holder_in_proxy(pty.path()), second.pid());
  EXPECT_EQ(lock_files_of(pty.path()), before);
  for (const std::string& file : before) {
    const auto found = convention::read_uucp(file);
    ASSERT_TRUE(found);
    EXPECT_EQ(found->content.pid, second.pid()) << file;
    EXPECT_EQ(found->inode.ino, was.st_ino) << file;  // the same file: it was passed on, not made anew
  }
  EXPECT_THAT(daemonless(pty.path()), HasSubstr("[" + std::to_string(second.pid()) + "]"));
  second.go();
  EXPECT_EQ(second.hear(), "released");
  EXPECT_THAT(lock_files_of(pty.path()), IsEmpty());
  EXPECT_EQ(daemonless(pty.path()), "taken");
}

TEST(PassedOn, lets_no_stranger_between_who_waits_in_the_kernel) {
  const BrokerUnderTest broker;
  const Pty pty;
  Claimer first{pty.path()};
  first.go();
  ASSERT_EQ(first.outcome(), "holds");
  Claimer second{pty.path()};
  second.go();
  ASSERT_EQ(second.hear(), "waits");
  Child stranger{[&](Peer& test) {
    const int fd = ::open(pty.path().c_str(), O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    test.tell("asks");
    ::flock(fd, LOCK_EX);
    test.tell("got it");
    test.hear();
    return 0;
  }};
  ASSERT_EQ(stranger.hear(), "asks");
  first.go();
  EXPECT_EQ(first.hear(), "released");
  ASSERT_EQ(second.outcome(), "holds");
  EXPECT_EQ(stranger.hear(std::chrono::milliseconds{200}), "(silence)");
  second.go();
  EXPECT_EQ(second.hear(), "released");
  EXPECT_EQ(stranger.hear(), "got it");
}

TEST(PassedOn, is_not_what_the_releaser_keeps_a_copy_of) {
  const BrokerUnderTest broker;
  const Pty pty;
  RawClient client{broker.socket()};
  const Owner one;
  const Owner other;
  const Answer held = ask_for(client, one, claim_of(pty.path()));
  ASSERT_EQ(held.words, "granted");
  const auto files = lock_files_of(pty.path());
  const std::uint32_t waits = send_for(client, other, claim_of(pty.path(), kForEver));
  ASSERT_EQ(client.answer_to(waits).words, "queued");
  // It keeps `held.descriptors`, and says so.
  EXPECT_EQ(client.ask(wire::Release{held.claim(), wire::Copies::kept}).words, "done");
  const Answer next = client.answer_to(waits);
  ASSERT_EQ(next.words, "granted");
  for (const base::UniqueFd& copy : held.descriptors) ::flock(copy.get(), LOCK_UN);
  EXPECT_FALSE(flock_is_free(pty.path()));
  EXPECT_EQ(holder_in_proxy(pty.path()), other.pid());
}

TEST(PassedOn, ends_with_the_death_of_the_one_who_got_it) {
  const BrokerUnderTest broker;
  const Pty pty;
  Claimer first{pty.path()};
  first.go();
  ASSERT_EQ(first.outcome(), "holds");
  Claimer third{pty.path()};
  {
    Claimer second{pty.path()};
    second.go();
    ASSERT_EQ(second.hear(), "waits");
    third.go();
    ASSERT_EQ(third.hear(), "waits");
    first.go();
    ASSERT_EQ(second.outcome(), "holds");
  }
  ASSERT_EQ(third.outcome(), "holds");
  EXPECT_EQ(holder_in_proxy(pty.path()), third.pid());
  EXPECT_EQ(first.hear(), "released");
  third.go();
  EXPECT_EQ(third.hear(), "released");
  EXPECT_THAT(lock_files_of(pty.path()), IsEmpty());
}

// --- Killed at each step ---------------------------------------------------------------------------------------------

// Stops the broker at each of its system calls from the next one on, and kills it at the one with this number, counted
// from the one that hears the release. False when it came to sleep before: then it lives on.
bool killed_at(pid_t broker, int number, const std::function<void()>& release) {
  EXPECT_EQ(::ptrace(PTRACE_SEIZE, broker, nullptr, PTRACE_O_TRACESYSGOOD), 0);
  ::ptrace(PTRACE_INTERRUPT, broker, nullptr, nullptr);
  int status = 0;
  EXPECT_EQ(::waitpid(broker, &status, __WALL), broker);
  release();
  int calls = -1;
  while (true) {
    ::ptrace(PTRACE_SYSCALL, broker, nullptr, nullptr);
    if (::waitpid(broker, &status, __WALL) != broker || !WIFSTOPPED(status)) return true;
    if (WSTOPSIG(status) != (SIGTRAP | 0x80)) continue;
    __ptrace_syscall_info info{};
    ::ptrace(PTRACE_GET_SYSCALL_INFO, broker, sizeof info, &info);
    if (info.op != PTRACE_SYSCALL_INFO_ENTRY) continue;
    if (calls < 0 && info.entry.nr != SYS_recvmsg) continue;
    if (info.entry.nr == SYS_epoll_wait) {
      ::ptrace(PTRACE_DETACH, broker, nullptr, nullptr);
      return false;
    }
    if (++calls == number) break;
  }
  ::kill(broker, SIGKILL);
  return true;
}

TEST(PassedOn, has_one_holder_or_none_wherever_the_broker_is_killed) {
  constexpr int kFewest = 8;  // a harness that misses the calls makes fewer
  int killed = 0;
  for (bool again = true; again; ++killed) {
    SCOPED_TRACE("killed at call " + std::to_string(killed));
    BrokerUnderTest broker;
    const Pty pty;
    Claimer first{pty.path()};
    first.go();
    ASSERT_EQ(first.outcome(), "holds");
    Claimer second{pty.path()};
    second.go();
    ASSERT_EQ(second.hear(), "waits");
    again = killed_at(broker.pid(), killed, [&] { first.go(); });
    if (again) {
      broker.kill();
      EXPECT_EQ(first.hear(), "released");
      broker.start();
    } else {
      EXPECT_EQ(first.hear(), "released");
    }
    ASSERT_EQ(second.outcome(), "holds");
    EXPECT_EQ(holder_in_proxy(pty.path()), second.pid());
    EXPECT_FALSE(flock_is_free(pty.path()));
    EXPECT_THAT(daemonless(pty.path()), HasSubstr("is held by"));
    for (const std::string& file : lock_files_of(pty.path()))
      EXPECT_EQ(convention::read_uucp(file)->content.pid, second.pid()) << file;
    second.go();
    EXPECT_EQ(second.hear(), "released");
    // Both live, so that a lock file of either would count.
    EXPECT_THAT(lock_files_of(pty.path()), IsEmpty());
    EXPECT_EQ(daemonless(pty.path()), "taken");
    if (HasFailure()) return;
  }
  EXPECT_GE(killed, kFewest);
  RecordProperty("killed", killed);
}

// --- What can be -----------------------------------------------------------------------------------------------------

claiming::Holding held(const std::string& path) {
  const auto device = device::identify(path);
  auto holding = claiming::attempt(std::span{&*device, 1}, {}, base::self());
  EXPECT_TRUE(holding);
  return holding ? std::move(*holding) : claiming::Holding{};
}

int description_of(const claiming::Holding& holding) { return holding.nodes().front().file.get(); }

TEST(CanBePassedOn, is_a_pseudo_terminal_as_it_was_opened) {
  const Pty pty;
  const auto holding = held(pty.path());
  EXPECT_TRUE(holding.can_be_passed_on());
  ASSERT_EQ(::chmod(pty.path().c_str(), 0666), 0);  // whoever may open it now
  EXPECT_FALSE(holding.can_be_passed_on());
}

TEST(CanBePassedOn, is_not_a_line_that_its_user_wants_to_drop) {
  const Pty pty;
  const auto holding = held(pty.path());
  termios state{};
  ASSERT_EQ(::tcgetattr(description_of(holding), &state), 0);
  state.c_cflag |= HUPCL;
  ASSERT_EQ(::tcsetattr(description_of(holding), TCSANOW, &state), 0);
  EXPECT_FALSE(holding.can_be_passed_on());
}

TEST(CanBePassedOn, is_not_a_description_that_was_put_to_use) {
  const Pty pty;
  const auto holding = held(pty.path());
  ASSERT_EQ(::fcntl(description_of(holding), F_SETFL, O_NONBLOCK | O_ASYNC), 0);
  EXPECT_FALSE(holding.can_be_passed_on());
}

TEST(CanBePassedOn, is_not_what_a_stranger_wants_alone) {
  const Pty pty;
  const auto holding = held(pty.path());
  ASSERT_EQ(::ioctl(description_of(holding), TIOCEXCL), 0);
  EXPECT_FALSE(holding.can_be_passed_on());
  ASSERT_EQ(::ioctl(description_of(holding), TIOCNXCL), 0);
  EXPECT_TRUE(holding.can_be_passed_on());
}

TEST(CanBePassedOn, is_not_a_claim_whose_files_were_taken_away) {
  const Pty pty;
  const auto holding = held(pty.path());
  const auto files = lock_files_of(pty.path());
  ASSERT_FALSE(files.empty());
  ASSERT_EQ(::unlink(files.front().c_str()), 0);
  EXPECT_FALSE(holding.can_be_passed_on());
}

TEST(CanBePassedOn, is_not_a_disk_whose_close_writes_it_out) {
  const LoopDevice loop;
  if (!loop.missing().empty()) GTEST_SKIP() << "needs " << loop.missing();
  EXPECT_FALSE(held(loop.path()).can_be_passed_on());
}

}  // namespace
}  // namespace holdfast
