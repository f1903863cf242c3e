// SPDX-License-Identifier: MIT
// holdfastd as a service: what it tells the service manager, what it gets back from it, and what its hooks and its
// state directory mean to clients.
#include "process/support/broker.hpp"
#include "process/support/fake_systemd.hpp"
#include "process/support/raw_client.hpp"

#include <holdfast/claim.hpp>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

namespace holdfast {
namespace {

using namespace testing_support;
using namespace std::chrono_literals;
using ::testing::HasSubstr;

class Service : public ::testing::Test {
 protected:
  Service() {
    ::chmod(folder_.path().c_str(), 0711);
    ::setenv("HOLDFAST_SOCKET", socket_.c_str(), 1);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    socket_.copy(address.sun_path, sizeof address.sun_path - 1);
    base::UniqueFd listener{::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)};
    EXPECT_EQ(::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(::listen(listener.get(), 16), 0);
    systemd_.put("socket", std::move(listener));
  }
  ~Service() override {
    service_.reset();
    ::setenv("HOLDFAST_SOCKET", "", 1);
  }

  // As its unit would start it; returns when it is ready.
  void start() {
    systemd_.forget();
    service_ = std::make_unique<Child>([this](Peer&) {
      systemd_.pass_on();
      ::setenv("WATCHDOG_USEC", "400000", 1);
      ::setenv("WATCHDOG_PID", std::to_string(::getpid()).c_str(), 1);
      ::execl(HOLDFASTD, HOLDFASTD, "--state", state_.c_str(), "--history", "none", nullptr);
      return 127;
    });
    ASSERT_TRUE(systemd_.hears("READY=1"));
  }
  [[nodiscard]] std::unique_ptr<Child> client_that_holds() const {
    auto client = std::make_unique<Child>([path = pty_.path()](Peer& test) {
      auto mine = claim(path);
      test.tell(!mine ? mine.error().message : mine->is_brokered() ? "holds" : "not through the broker");
      if (test.hear() == "release") mine->release();
      test.tell("released");
      test.hear();
      return 0;
    });
    EXPECT_EQ(client->hear(), "holds");
    return client;
  }
  [[nodiscard]] std::string one_try(const std::string& socket) const {
    return in_a_child([&]() -> std::string {
      ::setenv("HOLDFAST_SOCKET", socket.c_str(), 1);
      const auto mine = claim(pty_.path());
      return mine ? "taken" : mine.error().message;
    });
  }
  [[nodiscard]] bool claims_in_store(std::size_t count) {
    return systemd_.waits_until([&] { return systemd_.names().size() == count + 1; });
  }

  TemporaryDirectory folder_;
  std::string socket_ = folder_ / "socket";
  std::string state_ = folder_ / "state";
  Pty pty_;
  FakeSystemd systemd_;
  std::unique_ptr<Child> service_;
};

TEST_F(Service, says_that_it_is_ready_alive_and_at_its_end) {
  start();
  EXPECT_TRUE(systemd_.hears("WATCHDOG=1"));
  service_->signal(SIGTERM);
  EXPECT_TRUE(systemd_.hears("STOPPING=1"));
  EXPECT_EQ(service_->reap(), 0);
}

TEST_F(Service, that_is_killed_gets_its_claims_back_and_ends_them_as_before) {
  start();
  auto client = client_that_holds();
  ASSERT_TRUE(claims_in_store(1));
  for (int restart = 0; restart < 2; ++restart) {
    service_->kill();
    EXPECT_NE(one_try(""), "taken");
    start();
    EXPECT_NE(one_try(socket_), "taken");
  }
  client->tell("release");
  ASSERT_EQ(client->hear(), "released");
  EXPECT_TRUE(claims_in_store(0));
  EXPECT_EQ(one_try(socket_), "taken");
}

TEST_F(Service, that_is_killed_with_its_client_leaves_the_locks_to_the_next_which_gives_them_back) {
  start();
  auto client = client_that_holds();
  ASSERT_TRUE(claims_in_store(1));
  service_->kill();
  client->kill();
  EXPECT_NE(one_try(""), "taken") << "systemd has the descriptors";
  start();
  EXPECT_EQ(one_try(socket_), "taken");
  EXPECT_TRUE(claims_in_store(0));
  EXPECT_TRUE(lock_files_of(pty_.path()).empty());
}

TEST(BrokerThatWasAway, does_not_take_a_claim_for_its_own_that_was_made_without_it) {
  BrokerUnderTest broker;
  const Pty pty;
  Child client{[&](Peer& test) {
    auto mine = claim(pty.path());
    test.tell(mine && mine->is_brokered() ? "through the broker" : "not");
    test.hear();
    mine->release();
    ::setenv("HOLDFAST_SOCKET", "", 1);
    mine = claim(pty.path());
    test.tell(mine && !mine->is_brokered() ? "without it" : "not");
    test.hear();
    mine->release();
    test.tell("released");
    test.hear();
    return 0;
  }};
  ASSERT_EQ(client.hear(), "through the broker");
  broker.kill();
  client.tell("release and claim");
  ASSERT_EQ(client.hear(), "without it");
  broker.start();
  EXPECT_FALSE(claim(pty.path()));
  client.tell("release");
  ASSERT_EQ(client.hear(), "released");
  const auto ours = claim(pty.path());
  EXPECT_TRUE(ours) << ours.error().message;
}

TEST(BrokerThatWasAway, hears_of_a_claim_that_was_given_back_just_after_its_start) {
  BrokerUnderTest broker;
  const Pty pty;
  RawClient client{broker.socket()};
  Answer held = client.ask(claim_of(pty.path()));
  ASSERT_EQ(held.words, "granted");
  broker.kill();
  broker.start();
  const auto ask = [&] {
    return in_a_child([&] { return RawClient{broker.socket()}.ask(claim_of(pty.path())).words; });
  };
  EXPECT_NE(ask(), "granted");
  held.descriptors.clear();  // and tells nobody
  RawClient again{broker.socket()};
  EXPECT_EQ(again.ask(claim_of(pty.path())).words, "granted") << "its owner asks";
}

TEST(BrokerHooks, decide_what_clients_get) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root, whose the hooks must be";
  const TemporaryDirectory folder;
  ::chmod(folder.path().c_str(), 0755);
  const auto write = [&](const std::string& script) {
    std::ofstream{folder / "10-shift"} << "#!/bin/sh\n" << script;
    ::chmod((folder / "10-shift").c_str(), 0755);
  };
  const BrokerUnderTest broker{{"--hooks", folder.path()}};
  const Pty pty;
  write("echo not today; exit 1");
  const auto refused = claim(pty.path());
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("10-shift refuses it: not today"));
  EXPECT_EQ(refused.error().code, errc::not_permitted);
  EXPECT_TRUE(lock_files_of(pty.path()).empty());
  write("exit 0");
  const auto granted = claim(pty.path());
  EXPECT_TRUE(granted) << granted.error().message;
}

TEST(Broker, second_one_on_the_same_state_leaves_the_first_alone) {
  BrokerUnderTest first;
  const pid_t second = ::fork();
  if (second == 0) {
    ::execl(HOLDFASTD, HOLDFASTD, "--socket", first.socket().c_str(), "--state", first.state().c_str(), "--history",
            "none", nullptr);
    ::_exit(127);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(second, &status, 0), second);
  EXPECT_EQ(WEXITSTATUS(status), 71);
  const Pty pty;
  const auto mine = claim(pty.path());
  ASSERT_TRUE(mine) << mine.error().message;
  EXPECT_TRUE(mine->is_brokered());
}

}  // namespace
}  // namespace holdfast
