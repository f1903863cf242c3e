// SPDX-License-Identifier: MIT
// command_top_test.cpp - the full screen, as a terminal shows it: in tmux, at 80 by 24 and at other sizes.
#include "process/support/devices.hpp"
#include "process/support/fake_broker.hpp"
#include "process/support/shell.hpp"

#include <gmock/gmock.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <atomic>
#include <cstdlib>

namespace holdfast {
namespace {

using namespace testing_support;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

// A tmux server of its own with one window that runs the command.
class Terminal {
 public:
  Terminal(const TemporaryDirectory& directory, const std::string& command)
      : tmux_{"tmux -S " + directory.path() + "/tmux "} {
    // `remain` keeps the last screen for who looks after the end.
    ended(tmux_ + "-f /dev/null new-session -d -x 80 -y 24 \"" + command + "; echo status $?; sleep 100\"");
  }
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;
  // Quits first: a command that looks for leaks at its end (LeakSanitizer) would be stopped for that, which the SIGCONT
  // of a hang-up undoes, and it would never end.
  ~Terminal() {
    keys("q");
    (void)screen_with("status");
    ended(tmux_ + "kill-server");
  }

  void keys(const std::string& names) const { ended(tmux_ + "send-keys " + names); }
  void resize(int columns, int lines) const {
    ended(fmt::format("{} resize-window -x {} -y {}", tmux_, columns, lines));
  }
  [[nodiscard]] std::string screen() const { return ended(tmux_ + "capture-pane -p").out; }
  // A screen has no event: it is looked at until it shows the words, or what it shows at last.
  [[nodiscard]] std::string screen_with(const std::string& words) const {
    std::string shown;
    for (int i = 0; i < 100; ++i) {
      shown = screen();
      if (shown.find(words) != std::string::npos) break;
      ::usleep(100'000);
    }
    return shown;
  }

 private:
  std::string tmux_;
};

class CommandTopTest : public testing::Test {
 protected:
  void SetUp() override {
    if (ended("command -v tmux").status != 0) GTEST_SKIP() << "needs tmux";
    ::setenv("HOLDFAST_SOCKET", path.c_str(), 1);
    ::setenv("TERM", "screen", 1);
    ::setenv("LC_ALL", "C.UTF-8", 1);
  }
  void TearDown() override {
    for (const char* const name : {"HOLDFAST_SOCKET", "TERM", "LC_ALL"}) ::unsetenv(name);
  }
  // So many wait for the terminal.
  [[nodiscard]] wire::FromBroker status() const {
    wire::DeviceStatus device;
    struct stat node{};
    EXPECT_EQ(::stat(pty.path().c_str(), &node), 0);
    device.device = {pty.path(), wire::NodeKind::character, major(node.st_rdev), minor(node.st_rdev), node.st_dev};
    Holder holder;
    holder.pid = 4121;
    holder.command = "picocom";
    holder.user = "joe";
    holder.purpose = "a purpose that is far too long for what is left of eighty columns";
    device.holders = {holder};
    device.lapses_in = std::chrono::minutes{90};
    for (int i = 0; i < waiting; ++i) {
      wire::Waiter waiter;
      waiter.who.pid = 5000 + i;
      waiter.who.command = "waiter";
      waiter.who.user = "ann";
      device.waiters.push_back(waiter);
    }
    device.waiting = static_cast<std::uint32_t>(waiting);
    return wire::StatusAnswer{{device}, wire::More::last};
  }

  [[nodiscard]] std::string top() const { return HOLDFAST_COMMAND " top " + pty.path(); }

  Pty pty;
  TemporaryDirectory directory;
  std::string path = directory.path() + "/socket";
  std::atomic<int> waiting = 2;
};

TEST_F(CommandTopTest, shows_holders_and_queues_in_80_by_24_and_quits_by_q) {
  FakeBroker broker{path, [this](const wire::FromClient&) { return std::vector{status()}; }};
  const Terminal terminal{directory, top()};
  broker.watched_by(1);
  const std::string screen = terminal.screen_with("waits 2");
  EXPECT_THAT(screen,
              AllOf(HasSubstr("1 held, 2 waiting, by the broker"),
                    HasSubstr("DEVICE         HOLDER            USER     MODE      TIME        PURPOSE"),
                    HasSubstr(fmt::format("{:<14} picocom[4121]     joe      exclusive 1 h 30 left a purpose that i\n",
                                          pty.path().substr(5))),
                    HasSubstr("               waiter[5000]      ann      waits 1   -           holdfast\n"),
                    HasSubstr("               waiter[5001]      ann      waits 2"), HasSubstr("q quits\n")));
  terminal.keys("q");
  EXPECT_THAT(terminal.screen_with("status"), AllOf(HasSubstr("status 0"), Not(HasSubstr("DEVICE"))));
}

TEST_F(CommandTopTest, an_event_changes_the_screen_at_once) {
  FakeBroker broker{path, [this](const wire::FromClient&) { return std::vector{status()}; }};
  const Terminal terminal{directory, top()};
  broker.watched_by(1);
  EXPECT_THAT(terminal.screen_with("waits 2"), Not(HasSubstr("waits 3")));
  waiting = 3;
  broker.tell(told_event(wire::EventKind::waiting, pty.path()));
  EXPECT_THAT(terminal.screen_with("waits 3"), HasSubstr("3 waiting"));
}

TEST_F(CommandTopTest, a_long_queue_is_scrolled_and_a_new_size_is_used) {
  waiting = 60;
  FakeBroker broker{path, [this](const wire::FromClient&) { return std::vector{status()}; }};
  const Terminal terminal{directory, top()};
  broker.watched_by(1);
  EXPECT_THAT(terminal.screen_with("waits 20"), AllOf(Not(HasSubstr("waits 21")), HasSubstr("Page Down scroll")));
  terminal.keys("NPage");
  EXPECT_THAT(terminal.screen_with("waits 40"), AllOf(Not(HasSubstr("waits 19 ")), HasSubstr("DEVICE")));
  terminal.keys("NPage NPage NPage");
  EXPECT_THAT(terminal.screen_with("waits 60"), AllOf(Not(HasSubstr("waits 39 ")), HasSubstr("DEVICE")));
  terminal.resize(40, 10);
  EXPECT_THAT(terminal.screen_with("q quits  arrows, Page Up, Page Down scro\n"), HasSubstr("DEVICE"));
  terminal.resize(120, 70);
  EXPECT_THAT(terminal.screen_with("waits 1 "), AllOf(HasSubstr("waits 60"), HasSubstr("what is left of eight")));
}

TEST_F(CommandTopTest, without_a_broker_it_shows_what_there_is) {
  const Terminal terminal{directory, top()};
  EXPECT_THAT(terminal.screen_with("no broker"), HasSubstr("free"));
  terminal.keys("C-c");
  EXPECT_THAT(terminal.screen_with("status"), HasSubstr("status"));
}

TEST_F(CommandTopTest, without_a_terminal_it_says_so) {
  const Ended now = ended("$H top </dev/null");
  EXPECT_EQ(now.status, 64);
  EXPECT_THAT(now.err, HasSubstr("needs a terminal"));
}

}  // namespace
}  // namespace holdfast
