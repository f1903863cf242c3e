// SPDX-License-Identifier: MIT
// broker_c_watch_test.cpp - events for C, from a real broker.
#include "process/support/broker.hpp"
#include "process/support/child.hpp"
#include "process/support/devices.hpp"

#include <holdfast/holdfast.h>
#include <holdfast/claim.hpp>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <string>

namespace holdfast {
namespace {

using namespace testing_support;

constexpr std::int64_t kPatienceMs = kPatience.count();

class CWatch : public testing::Test {
 protected:
  void TearDown() override { hf_watch_close(watch_); }

  void watch(std::uint32_t kinds = 0) {
    const char* const device = pty_.path().c_str();
    ASSERT_EQ(hf_watch_devices(&watch_, &device, 1, kinds, nullptr), 0);
  }
  [[nodiscard]] hf_event next() {
    hf_event event{};
    EXPECT_EQ(hf_watch_event(watch_, &event, kPatienceMs), 1);
    return event;
  }

  BrokerUnderTest broker_;
  Pty pty_;
  hf_watch* watch_ = nullptr;
};

TEST_F(CWatch, tells_who_took_the_device_and_gave_it_back) {
  watch();
  {
    const auto mine = claim(pty_.path(), {.mode = Mode::shared, .purpose = "flash"});
    ASSERT_TRUE(mine) << mine.error().message;
  }
  const hf_event claimed = next();
  EXPECT_EQ(claimed.kind, 0U + HF_EVENT_CLAIMED);
  EXPECT_EQ(claimed.shared, 1U);
  EXPECT_EQ(claimed.pid, ::getpid());
  EXPECT_EQ(std::string{claimed.device}, pty_.path());
  EXPECT_EQ(std::string{claimed.purpose}, "flash");
  EXPECT_EQ(std::string{claimed.number}.substr(0, 5), "c136:");
  EXPECT_GT(claimed.at_ms, 1'700'000'000'000);
  EXPECT_EQ(next().kind, 0U + HF_EVENT_RELEASED);
  hf_event none{};
  EXPECT_EQ(hf_watch_event(watch_, &none, HF_WAIT_NONE), 0);
  EXPECT_EQ(hf_watch_event(watch_, &none, 20), 0) << "none within the wait";
}

TEST_F(CWatch, tells_the_wanted_kinds_alone_and_its_descriptor_says_when) {
  watch(HF_EVENT_RELEASED | HF_EVENT_LAPSED);
  {
    const auto mine = claim(pty_.path());
  }
  pollfd told{hf_watch_fd(watch_), POLLIN, 0};
  ASSERT_EQ(::poll(&told, 1, static_cast<int>(kPatienceMs)), 1);
  EXPECT_EQ(next().kind, 0U + HF_EVENT_RELEASED);
}

TEST_F(CWatch, a_signal_tells_of_an_event_where_it_was_asked_for) {
  sigset_t io;
  ::sigemptyset(&io);
  ::sigaddset(&io, SIGIO);
  ::sigprocmask(SIG_BLOCK, &io, nullptr);
  watch();
  ASSERT_EQ(::fcntl(hf_watch_fd(watch_), F_SETOWN, ::getpid()), 0);
  ASSERT_EQ(::fcntl(hf_watch_fd(watch_), F_SETFL, O_ASYNC | O_NONBLOCK), 0);
  const auto mine = claim(pty_.path());
  const timespec patience{.tv_sec = 20, .tv_nsec = 0};
  EXPECT_EQ(::sigtimedwait(&io, nullptr, &patience), SIGIO);
  EXPECT_EQ(next().kind, 0U + HF_EVENT_CLAIMED);
}

TEST_F(CWatch, a_broker_started_anew_is_told_as_missed) {
  watch(HF_EVENT_CLAIMED);
  broker_.kill();
  broker_.start();
  const hf_event missed = next();
  EXPECT_EQ(missed.kind, 0U + HF_EVENT_MISSED) << "though it was not asked for";
  EXPECT_NE(std::string{missed.detail}, "");
  const auto mine = claim(pty_.path());
  EXPECT_EQ(next().kind, 0U + HF_EVENT_CLAIMED);
}

TEST_F(CWatch, a_forked_child_hears_nothing) {
  watch();
  const pid_t child = ::fork();
  if (child == 0) {
    hf_event event{};
    const bool inert = hf_watch_event(watch_, &event, HF_WAIT_NONE) == -1 && errno == EPERM;
    hf_watch_close(watch_);
    ::_exit(inert ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  const auto mine = claim(pty_.path());
  EXPECT_EQ(next().kind, 0U + HF_EVENT_CLAIMED) << "and takes nothing from the parent";
}

TEST_F(CWatch, errno_says_what_is_wrong) {
  hf_watch* none = nullptr;
  const char* const device = "/dev/no-such-device";
  const char* const nothing = nullptr;
  hf_error error{};
  const auto refused_with = [&](int result) { return result == -1 && none == nullptr ? errno : 0; };
  EXPECT_EQ(refused_with(hf_watch_devices(&none, &device, 1, 0, &error)), ENOENT);
  EXPECT_NE(std::string{error.message}.find(device), std::string::npos);
  EXPECT_EQ(refused_with(hf_watch_devices(&none, &nothing, 1, 0, nullptr)), EINVAL);
  EXPECT_EQ(refused_with(hf_watch_devices(&none, nullptr, 1, 0, nullptr)), EINVAL);
  EXPECT_EQ(refused_with(hf_watch_devices(&none, nullptr, 0, 1U << 12, nullptr)), EINVAL);
  EXPECT_EQ(hf_watch_devices(nullptr, nullptr, 0, 0, nullptr), -1);
  hf_event event{};
  EXPECT_EQ(hf_watch_event(nullptr, &event, 0), -1);
  EXPECT_EQ(hf_watch_fd(nullptr), -1);
  hf_watch_close(nullptr);
  ::setenv("HOLDFAST_SOCKET", "/nowhere/socket", 1);
  EXPECT_EQ(refused_with(hf_watch_devices(&none, nullptr, 0, 0, nullptr)), ENOENT) << "no broker";
}

}  // namespace
}  // namespace holdfast
