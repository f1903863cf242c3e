// SPDX-License-Identifier: MIT
// broker_run_test.cpp - `holdfast run` and a broker that is killed meanwhile: the command keeps the device, nobody gets
// in, and what it held goes when the command does, whether a broker is there by then or not.
#include "process/support/broker.hpp"
#include "process/support/devices.hpp"
#include "process/support/raw_client.hpp"

#include <gtest/gtest.h>

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <string>

namespace holdfast {
namespace {

using namespace testing_support;
using namespace std::chrono_literals;

// The command under `holdfast run`, which says "started" and ends with its input.
class RunningCommand {
 public:
  explicit RunningCommand(const std::string& device) {
    std::array<int, 2> in{};
    std::array<int, 2> out{};
    if (::pipe2(in.data(), O_CLOEXEC) != 0 || ::pipe2(out.data(), O_CLOEXEC) != 0) std::abort();
    input_.reset(in[1]);
    output_.reset(out[0]);
    const base::UniqueFd theirs_in{in[0]};
    const base::UniqueFd theirs_out{out[1]};
    pid_ = ::fork();
    if (pid_ != 0) return;
    ::dup2(in[0], STDIN_FILENO);
    ::dup2(out[1], STDOUT_FILENO);
    ::execl(HOLDFAST_COMMAND, "holdfast", "run", device.c_str(), "--", "sh", "-c", "echo started; read line", nullptr);
    ::_exit(127);
  }
  RunningCommand(const RunningCommand&) = delete;
  RunningCommand& operator=(const RunningCommand&) = delete;
  ~RunningCommand() { end(); }

  [[nodiscard]] bool started() const {
    pollfd said{output_.get(), POLLIN, 0};
    return ::poll(&said, 1, static_cast<int>(kPatience.count())) > 0 && (said.revents & POLLIN) != 0;
  }
  /// Its exit status, when its input is at an end.
  int end() {
    input_.reset();
    int status = 0;
    if (pid_ > 0) ::waitpid(pid_, &status, 0);
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }

 private:
  pid_t pid_ = -1;
  base::UniqueFd input_;
  base::UniqueFd output_;
};

class RunOverARestart : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    if (GetParam() && !loop_.missing().empty()) GTEST_SKIP() << "needs " << loop_.missing();
  }
  [[nodiscard]] std::string device() const { return GetParam() ? loop_.path() : pty_.path(); }
  // An own process: the answer to one that waits in this one would be another matter.
  static std::string tried(const std::string& device, const std::string& socket) {
    return in_a_child([&] {
      RawClient client{socket};
      return client.ask(claim_of(device)).words;
    });
  }

  Pty pty_;
  LoopDevice loop_;
  BrokerUnderTest broker_;
};

TEST_P(RunOverARestart, keeps_the_device_and_gives_it_to_who_waits_when_it_ends) {
  RunningCommand run{device()};
  ASSERT_TRUE(run.started());
  ASSERT_TRUE(tried(device(), broker_.socket()).starts_with("refused"));
  for (int times = 0; times < 2; ++times) {
    broker_.kill();
    broker_.start();
    EXPECT_TRUE(tried(device(), broker_.socket()).starts_with("refused"));
  }
  RawClient next{broker_.socket()};
  const std::uint32_t number = next.send(claim_of(device(), kForEver));
  ASSERT_EQ(next.answer_to(number).words, "queued");
  EXPECT_EQ(run.end(), 1) << "read's status at the end of its input";
  EXPECT_EQ(next.answer_to(number).words, "granted");
}

TEST_P(RunOverARestart, gives_everything_back_while_there_is_no_broker) {
  RunningCommand run{device()};
  ASSERT_TRUE(run.started());
  broker_.kill();
  EXPECT_EQ(run.end(), 1);
  EXPECT_TRUE(lock_files_of(device()).empty());
  broker_.start();
  EXPECT_EQ(tried(device(), broker_.socket()), "granted");
}

INSTANTIATE_TEST_SUITE_P(Of, RunOverARestart, ::testing::Values(false, true),
                         [](const auto& tested) { return tested.param ? "a_disk" : "a_terminal"; });

}  // namespace
}  // namespace holdfast
