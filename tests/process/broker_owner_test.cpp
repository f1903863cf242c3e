// SPDX-License-Identifier: MIT
// broker_owner_test.cpp - the owner is the process that the kernel says speaks, or the one of the pidfd: forks,
// threads, execs, deaths, other users' processes, namespaces, and numbers that are used again.
#include "process/support/broker.hpp"
#include "process/support/devices.hpp"
#include "process/support/raw_client.hpp"

#include <gtest/gtest.h>

#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <functional>
#include <optional>
#include <string>
#include <thread>

namespace holdfast {
namespace {

using namespace testing_support;
using namespace std::chrono_literals;

constexpr uid_t kNobody = 65534;

void become_nobody() {
  if (::setgroups(0, nullptr) != 0 || ::setresgid(kNobody, kNobody, kNobody) != 0 ||
      ::setresuid(kNobody, kNobody, kNobody) != 0)
    ::_exit(9);
}

// A child that has claimed the device for itself when it is made; "granted" or what was answered instead.
class Claimant {
 public:
  /// \param then  goes on in the child with the connection and the claim
  Claimant(
      const std::string& socket, const std::string& device,
      const std::function<void(Peer& test, RawClient& client, wire::ClaimId claim)>& then =
          [](Peer& test, RawClient&, wire::ClaimId) { test.hear(); })
      : child_{[&](Peer& test) {
          RawClient client{socket};
          const Answer answer = client.ask(claim_of(device));
          test.tell(answer.words);
          then(test, client, answer.claim());
          return 0;
        }},
        answer_{child_.hear()} {}
  [[nodiscard]] const std::string& answer() const { return answer_; }
  Child& child() { return child_; }

 private:
  Child child_;
  std::string answer_;
};

std::string asked_again(const BrokerUnderTest& broker, const std::string& device) {
  RawClient client{broker.socket()};
  return client.ask(claim_of(device)).words;
}

// The last word of a claim that waits.
std::string asked_patiently(const BrokerUnderTest& broker, const std::string& device) {
  RawClient client{broker.socket()};
  const std::uint32_t number = client.send(claim_of(device, {true, 10s}));
  std::string words = client.answer_to(number).words;
  return words == "queued" ? client.answer_to(number).words : words;
}

bool is_refused(const std::string& words) { return words.starts_with("refused"); }

TEST(Owner, that_is_killed_makes_room_for_the_next) {
  const Pty pty;
  BrokerUnderTest broker;
  Claimant owner{broker.socket(), pty.path()};
  ASSERT_EQ(owner.answer(), "granted");
  RawClient next{broker.socket()};
  const std::uint32_t number = next.send(claim_of(pty.path(), kForEver));
  ASSERT_EQ(next.answer_to(number).words, "queued");
  const Stopwatch watch;
  owner.child().signal(SIGKILL);
  EXPECT_EQ(next.answer_to(number).words, "granted");
  std::printf("from kill -9 to the next grant: %.2f ms\n", watch.ms());
}

TEST(Owner, whose_first_thread_ended_goes_on_with_the_others) {
  const Pty pty;
  BrokerUnderTest broker;
  Claimant owner{broker.socket(), pty.path(), [](Peer& test, RawClient&, wire::ClaimId) {
                   std::thread{[&] {
                     test.hear();
                     ::_exit(0);
                   }}.detach();
                   ::syscall(SYS_exit, 0);
                 }};
  ASSERT_EQ(owner.answer(), "granted");
  // Until /proc shows the first thread as ended.
  const std::string stat = "/proc/" + std::to_string(owner.child().pid()) + "/stat";
  const auto ended = [&] {
    const base::UniqueFd file{::open(stat.c_str(), O_RDONLY | O_CLOEXEC)};
    std::array<char, 512> text{};
    const ssize_t got = ::read(file.get(), text.data(), text.size() - 1);
    const char* const parenthesis = got > 0 ? std::strrchr(text.data(), ')') : nullptr;
    return parenthesis != nullptr && parenthesis[2] == 'Z';
  };
  const Stopwatch watch;
  while (!ended() && watch.ms() < 10'000) ::poll(nullptr, 0, 1);
  ASSERT_TRUE(ended());
  EXPECT_TRUE(is_refused(asked_again(broker, pty.path())));
  owner.child().tell("end");
  EXPECT_EQ(asked_patiently(broker, pty.path()), "granted");
}

TEST(Owner, keeps_its_claim_over_an_exec_that_keeps_the_connection) {
  const Pty pty;
  BrokerUnderTest broker;
  Claimant owner{broker.socket(), pty.path(), [](Peer& test, RawClient& client, wire::ClaimId) {
                   test.hear();
                   ::fcntl(client.socket(), F_SETFD, 0);
                   ::execl("/bin/sleep", "sleep", "60", nullptr);
                 }};
  ASSERT_EQ(owner.answer(), "granted");
  owner.child().tell("exec");
  ASSERT_EQ(owner.child().hear(), "(gone)") << "the test's own socket closes on exec";
  EXPECT_TRUE(is_refused(asked_again(broker, pty.path())));
  owner.child().kill();
  EXPECT_EQ(asked_patiently(broker, pty.path()), "granted");
}

TEST(Owner, that_closes_its_connection_gives_its_claim_back) {
  const Pty pty;
  BrokerUnderTest broker;
  RawClient next{broker.socket()};
  const testing_support::Owner other;
  RawClient leaver{broker.socket()};
  ASSERT_EQ(leaver.ask(claim_of(pty.path())).words, "granted");
  const std::uint32_t number = send_for(next, other, claim_of(pty.path(), kForEver));
  ASSERT_EQ(next.answer_to(number).words, "queued");
  leaver.hang_up();
  EXPECT_EQ(next.answer_to(number).words, "granted");
}

// Stops it here and now, to be let go by PTRACE_DETACH.
void stop(pid_t broker) {
  ASSERT_EQ(::ptrace(PTRACE_SEIZE, broker, nullptr, PTRACE_O_TRACESYSGOOD), 0);
  ASSERT_EQ(::ptrace(PTRACE_INTERRUPT, broker, nullptr, nullptr), 0);
  ASSERT_EQ(::waitpid(broker, nullptr, 0), broker);
}

// Stops it again when accept4(2) has given it a connection.
void let_it_accept(pid_t broker) {
  bool accepts = false;
  int status = 0;
  do {
    ::ptrace(PTRACE_SYSCALL, broker, nullptr, nullptr);
    ASSERT_EQ(::waitpid(broker, &status, 0), broker);
    ASSERT_TRUE(WIFSTOPPED(status));
    __ptrace_syscall_info call{};
    ::ptrace(PTRACE_GET_SYSCALL_INFO, broker, sizeof call, &call);
    if (call.op == PTRACE_SYSCALL_INFO_ENTRY) accepts = call.entry.nr == SYS_accept4;
    if (call.op == PTRACE_SYSCALL_INFO_EXIT && accepts && call.exit.rval >= 0) return;
  } while (true);
}

TEST(Owner, is_known_by_what_it_says_while_it_is_accepted) {
  const Pty pty;
  BrokerUnderTest broker;
  ASSERT_GT(broker.pid(), 0);
  ASSERT_NO_FATAL_FAILURE(stop(broker.pid()));
  RawClient client{broker.socket(), RawClient::Greeting::unsaid};
  ASSERT_NO_FATAL_FAILURE(let_it_accept(broker.pid()));
  client.send(wire::Hello{wire::kVersion, wire::kVersion, "in a hurry"});
  const std::uint32_t asked = client.send(claim_of(pty.path()));
  ::ptrace(PTRACE_DETACH, broker.pid(), nullptr, nullptr);
  EXPECT_EQ(client.answer_to(asked).words, "granted");
}

TEST(ForkedChild, on_the_inherited_connection_is_not_the_owner) {
  const Pty pty;
  BrokerUnderTest broker;
  Claimant owner{broker.socket(), pty.path(), [](Peer& test, RawClient& client, wire::ClaimId claim) {
                   // One after the other: both use the one connection.
                   test.tell(in_a_child([&] { return client.ask(wire::Release{claim}).words; }));
                   test.tell(client.ask(wire::Downgrade{claim}).words);
                   test.tell(client.ask(wire::Release{claim}).words);
                   test.hear();
                 }};
  ASSERT_EQ(owner.answer(), "granted");
  EXPECT_TRUE(is_refused(owner.child().hear()));
  EXPECT_EQ(owner.child().hear(), "granted") << "the owner could not use the connection any more";
  EXPECT_EQ(owner.child().hear(), "done");
}

TEST(ForkedChild, neither_claims_nor_waits_nor_watches_on_the_inherited_connection) {
  const Pty pty;
  const Pty free;
  BrokerUnderTest broker;
  RawClient client{broker.socket()};
  ASSERT_EQ(client.ask(claim_of(pty.path())).words, "granted");
  const std::string words = in_a_child([&] {
    std::string wrong;
    for (const wire::FromClient& message :
         {wire::FromClient{claim_of(free.path())}, wire::FromClient{claim_of(pty.path(), kForEver)},
          wire::FromClient{wire::Kick{name_of(pty.path()), 0s, "child"}}, wire::FromClient{wire::Watch{}}})
      if (const Answer answer = client.ask(message); answer.code() != errc::not_held) wrong += answer.words + "; ";
    return wrong.empty() ? "nothing wrong" : wrong;
  });
  EXPECT_EQ(words, "nothing wrong");
  EXPECT_TRUE(is_refused(asked_again(broker, pty.path())));
  EXPECT_EQ(client.ask(claim_of(free.path())).words, "granted");
}

TEST(ForkedChild, that_lives_on_with_the_connection_does_not_keep_the_dead_owners_claim) {
  const Pty pty;
  BrokerUnderTest broker;
  Claimant owner{broker.socket(), pty.path(), [](Peer& test, RawClient&, wire::ClaimId) {
                   const pid_t child = ::fork();
                   if (child == 0)
                     for (;;) ::pause();
                   test.tell(std::to_string(child));
                   test.hear();
                 }};
  ASSERT_EQ(owner.answer(), "granted");
  const pid_t child = std::stoi(owner.child().hear());
  RawClient next{broker.socket()};
  const std::uint32_t number = next.send(claim_of(pty.path(), kForEver));
  ASSERT_EQ(next.answer_to(number).words, "queued");
  owner.child().kill();
  EXPECT_EQ(next.answer_to(number).words, "granted");
  EXPECT_EQ(::kill(child, 0), 0);
  ::kill(child, SIGKILL);
}

TEST(OwnerByPidfd, dies_and_the_claim_with_it_though_the_asker_lives) {
  const Pty pty;
  BrokerUnderTest broker;
  RawClient asker{broker.socket()};
  const testing_support::Owner owner;
  const testing_support::Owner next;
  ASSERT_EQ(ask_for(asker, owner, claim_of(pty.path())).words, "granted");
  const std::uint32_t number = send_for(asker, next, claim_of(pty.path(), kForEver));
  ASSERT_EQ(asker.answer_to(number).words, "queued");
  owner.kill();
  EXPECT_EQ(asker.answer_to(number).words, "granted");
}

TEST(OwnerByPidfd, keeps_its_claim_when_the_asker_goes) {
  const Pty pty;
  BrokerUnderTest broker;
  const testing_support::Owner owner;
  const std::string words = in_a_child([&] {
    RawClient asker{broker.socket()};
    return ask_for(asker, owner, claim_of(pty.path())).words;
  });
  ASSERT_EQ(words, "granted");
  RawClient next{broker.socket()};
  const std::uint32_t number = next.send(claim_of(pty.path(), kForEver));
  ASSERT_EQ(next.answer_to(number).words, "queued");
  // Whoever is asked after what the asker left behind has been dealt with.
  EXPECT_TRUE(is_refused(asked_again(broker, pty.path())));
  owner.kill();
  EXPECT_EQ(next.answer_to(number).words, "granted");
}

TEST(OwnerByPidfd, must_be_the_askers_own_process) {
  const Pty pty;
  ::chmod(pty.path().c_str(), 0666);
  BrokerUnderTest broker;
  const testing_support::Owner of_root;
  const std::string words = in_a_child([&]() -> std::string {
    become_nobody();
    RawClient client{broker.socket()};
    const Answer answer = ask_for(client, of_root, claim_of(pty.path()));
    return answer.code() == errc::not_permitted ? "not permitted" : answer.words;
  });
  EXPECT_EQ(words, "not permitted");
  EXPECT_EQ(asked_again(broker, pty.path()), "granted");
}

// Root claims for a user's shell: that has the device alone, and is not to come by what root alone may open.
TEST(OwnerByPidfd, that_may_not_open_the_device_gets_no_descriptor_of_it) {
  const Pty pty;
  ASSERT_EQ(::chmod(pty.path().c_str(), 0600), 0);
  BrokerUnderTest broker;
  Child owner{[&](Peer& test) {
    become_nobody();
    test.tell("nobody");
    const wire::ClaimId claim{std::stoull(test.hear())};
    RawClient client{broker.socket()};
    std::string got;
    for (const wire::FromClient& message :
         {wire::FromClient{wire::Resume{claim, client.epoch(), {}}}, wire::FromClient{wire::Downgrade{claim}},
          wire::FromClient{wire::Upgrade{claim, {}}}}) {
      const Answer answer = client.ask(message);
      if (answer.code() != errc::not_held || !answer.descriptors.empty()) got += answer.words + "; ";
    }
    test.tell(got.empty() ? "nothing" : got);
    test.tell(client.ask(wire::Release{claim}).words);
    test.hear();
    return 0;
  }};
  ASSERT_EQ(owner.hear(), "nobody");
  RawClient asker{broker.socket()};
  wire::Claim claim = claim_of(pty.path());
  claim.owner = wire::OwnerGiven::by_pidfd;
  const int pidfd = owner.pidfd();
  const Answer held = asker.ask(claim, {&pidfd, 1});
  ASSERT_EQ(held.words, "granted");
  owner.tell(std::to_string(static_cast<std::uint64_t>(held.claim())));
  EXPECT_EQ(owner.hear(), "nothing");
  EXPECT_EQ(owner.hear(), "done") << "it may give back what is its own";
}

TEST(OwnerByPidfd, that_is_dead_already_gets_nothing) {
  const Pty pty;
  BrokerUnderTest broker;
  RawClient client{broker.socket()};
  const testing_support::Owner dead;
  dead.kill();
  EXPECT_TRUE(is_refused(ask_for(client, dead, claim_of(pty.path())).words));
  EXPECT_TRUE(is_refused(ask_for(client, dead, claim_of(pty.path(), kForEver)).words));
  EXPECT_EQ(asked_again(broker, pty.path()), "granted");
}

TEST(OwnerByPidfd, that_is_no_pidfd_is_refused) {
  const Pty pty;
  BrokerUnderTest broker;
  const base::UniqueFd nothing{::open("/dev/null", O_RDONLY | O_CLOEXEC)};
  for (const int fd : {nothing.get(), pty.master()}) {
    RawClient client{broker.socket()};
    wire::Claim claim = claim_of(pty.path());
    claim.owner = wire::OwnerGiven::by_pidfd;
    const std::string words = client.ask(claim, {&fd, 1}).words;
    EXPECT_TRUE(is_refused(words) || words == "(gone)") << words;
  }
  EXPECT_EQ(asked_again(broker, pty.path()), "granted");
}

// Runs `body` as the init of a pid namespace with a /proc and lock files of its own; "skip: ..." when it may not.
std::string in_a_pid_namespace(const std::function<std::string()>& body) {
  return in_a_child([&]() -> std::string {
    if (::unshare(CLONE_NEWPID) != 0) return std::string{"skip: a pid namespace: "} + std::strerror(errno);
    return in_a_child([&]() -> std::string {
      if (const std::string missing = private_lock_directory(); !missing.empty()) return "skip: " + missing;
      if (::mount("proc", "/proc", "proc", 0, nullptr) != 0)
        return std::string{"skip: mounting /proc: "} + std::strerror(errno);
      return body();
    });
  });
}

TEST(PidNamespace, of_the_client_hides_neither_the_owner_nor_its_death) {
  const Pty pty;
  BrokerUnderTest broker;
  Child container{[&](Peer& test) {
    if (::unshare(CLONE_NEWPID) != 0) {
      test.tell("skip");
      return 0;
    }
    Claimant inside{broker.socket(), pty.path()};
    test.tell(inside.answer());
    test.tell(std::to_string(inside.child().pid()));
    test.hear();
    inside.child().kill();
    test.tell("killed");
    test.hear();
    return 0;
  }};
  const std::string words = container.hear();
  if (words == "skip") GTEST_SKIP() << "needs a pid namespace";
  ASSERT_EQ(words, "granted");
  const std::string pid = container.hear();
  RawClient client{broker.socket()};
  const Answer refused = client.ask(claim_of(pty.path()));
  ASSERT_NE(refused.as<wire::Refused>(), nullptr) << refused.words;
  ASSERT_TRUE(refused.as<wire::Refused>()->holder);
  EXPECT_EQ(std::to_string(refused.as<wire::Refused>()->holder->pid), pid) << "its number out here";
  const std::uint32_t number = client.send(claim_of(pty.path(), kForEver));
  ASSERT_EQ(client.answer_to(number).words, "queued");
  container.tell("kill");
  EXPECT_EQ(client.answer_to(number).words, "granted");
}

// Makes a process of the number `pid` that claims when it is told to; its pid is not `pid` when the machine does not
// let us.
class NumberedClaimant {
 public:
  NumberedClaimant(pid_t pid, const std::string& socket, const std::string& device) {
    const base::UniqueFd last{::open("/proc/sys/kernel/ns_last_pid", O_WRONLY | O_CLOEXEC)};
    const std::string number = std::to_string(pid - 1);
    static_cast<void>(::write(last.get(), number.data(), number.size()));
    claimant_.emplace([&](Peer& test) {
      test.hear();
      RawClient client{socket};
      test.tell(client.ask(claim_of(device)).words);
      test.hear();
      return 0;
    });
  }
  [[nodiscard]] pid_t pid() const { return claimant_->pid(); }
  std::string claim() {
    claimant_->tell("claim");
    return claimant_->hear();
  }

 private:
  std::optional<Child> claimant_;
};

TEST(ReusedPid, inherits_nothing_from_the_dead_owner_even_if_the_broker_was_down_meanwhile) {
  const Pty pty;
  const std::string words = in_a_pid_namespace([&]() -> std::string {
    constexpr pid_t kPid = 3000;
    BrokerUnderTest broker;
    {
      NumberedClaimant first{kPid, broker.socket(), pty.path()};
      if (first.pid() != kPid) return "skip: ns_last_pid";
      if (const std::string answer = first.claim(); answer != "granted") return "first: " + answer;
      broker.kill();
    }
    NumberedClaimant second{kPid, broker.socket(), pty.path()};
    if (second.pid() != kPid) return "skip: ns_last_pid";
    broker.start();
    if (const std::string answer = asked_again(broker, pty.path()); answer != "granted") return "other: " + answer;
    return ::testing::Test::HasFailure() ? "failure" : "as promised";
  });
  if (words.starts_with("skip")) GTEST_SKIP() << "needs " << words;
  EXPECT_EQ(words, "as promised");
}

}  // namespace
}  // namespace holdfast
