// SPDX-License-Identifier: MIT
// top.cpp - `holdfast top`: the survey on a full screen, looked at anew when the broker tells of something, and every
// two seconds, because what others do has no event.
#include <holdfast/watch.hpp>

#include "base/error.hpp"
#include "cli/command.hpp"
#include "cli/survey.hpp"

#define NCURSES_NOMACROS 1
#include <ncurses.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <clocale>
#include <csignal>
#include <cstdio>
#include <optional>

namespace holdfast::cli {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

constexpr auto kLook = 2s;        // without news
constexpr auto kSoonest = 200ms;  // between two looks: each goes through all processes

volatile std::sig_atomic_t ended = 0;
void end(int) { ended = 1; }

// Before ncurses, which installs its own where nobody has: the screen is then left in our way.
void catch_the_end() {
  struct sigaction action{};
  action.sa_handler = end;
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) ::sigaction(number, &action, nullptr);
}

class Screen {
 public:
  Screen() : screen_{::newterm(nullptr, stdout, stdin)} {
    if (screen_ == nullptr) return;
    ::cbreak();
    ::noecho();
    ::curs_set(0);
    ::keypad(stdscr, TRUE);
    ::nodelay(stdscr, TRUE);
  }
  Screen(const Screen&) = delete;
  Screen& operator=(const Screen&) = delete;
  ~Screen() {
    if (screen_ == nullptr) return;
    ::endwin();
    ::delscreen(screen_);
  }
  [[nodiscard]] explicit operator bool() const { return screen_ != nullptr; }
  [[nodiscard]] static std::size_t width() { return COLS > 1 ? static_cast<std::size_t>(COLS) : 1; }
  [[nodiscard]] static int height() { return std::max(LINES, 1); }

  // `first` is the first line of the body that is shown; given back as far as it makes sense.
  static int paint(const observe::TopView& view, int first) {
    const int room = std::max(height() - static_cast<int>(view.head.size()) - 1, 0);
    first = std::clamp(first, 0, std::max(static_cast<int>(view.body.size()) - room, 0));
    ::erase();
    int y = 0;
    for (const observe::TopLine& line : view.head) show(y++, line);
    for (int i = 0; i < room && first + i < static_cast<int>(view.body.size()); ++i)
      show(y++, view.body[static_cast<std::size_t>(first) + static_cast<std::size_t>(i)]);
    if (view.body.empty() && room > 0) show(y, {observe::TopLine::Look::plain, "no device is in use"});
    const bool more = first + room < static_cast<int>(view.body.size());
    show(height() - 1,
         {observe::TopLine::Look::plain,
          observe::cut(more || first > 0 ? "q quits  arrows, Page Up, Page Down scroll" : "q quits", width())});
    ::refresh();
    return first;
  }

 private:
  static void show(int y, const observe::TopLine& line) {
    using Look = observe::TopLine::Look;
    const attr_t look = line.look == Look::heading  ? A_REVERSE
                        : line.look == Look::waiter ? A_DIM
                        : line.look == Look::plain  ? A_NORMAL
                                                    : A_BOLD;
    ::attrset(static_cast<int>(look));
    ::mvaddstr(y, 0, line.text.c_str());
    ::attrset(A_NORMAL);
  }

  SCREEN* screen_;
};

// What the keys in the queue ask for: nothing to quit, else the new first line.
std::optional<int> after_keys(int first) {
  for (int key = ::getch(); key != ERR; key = ::getch()) {
    const int page = std::max(Screen::height() - 4, 1);
    if (key == 'q' || key == 'Q') return std::nullopt;
    if (key == KEY_DOWN || key == 'j') first += 1;
    if (key == KEY_UP || key == 'k') first -= 1;
    if (key == KEY_NPAGE || key == ' ') first += page;
    if (key == KEY_PPAGE) first -= page;
    if (key == KEY_HOME) first = 0;
    first = std::max(first, 0);
  }
  return first;
}

// False when it cannot be watched through any more.
bool drain(Watch& watch) {
  while (true) {
    const auto event = watch.try_next();
    if (!event) return false;
    if (!*event) return true;
  }
}

}  // namespace

int top_command(const CommandLine& line) {
  if (::isatty(STDIN_FILENO) != 1 || ::isatty(STDOUT_FILENO) != 1)
    return fail_usage("top", "needs a terminal; holdfast status shows the same once");
  auto surveyed = survey_with_queues(line.operands);
  if (!surveyed) return fail(surveyed.error());
  auto watch = Watch::open(line.operands);
  std::setlocale(LC_ALL, "");
  catch_the_end();
  std::optional<Screen> screen{std::in_place};
  if (!*screen) {
    complain("this terminal is unknown: set TERM");
    return kExitSystem;
  }

  int first = 0;
  auto looked = Clock::now();
  auto look_at = looked + kLook;
  while (ended == 0) {
    first = Screen::paint(
        observe::top_view(surveyed->survey, surveyed->broker, std::chrono::system_clock::now(), Screen::width()),
        first);
    std::array<pollfd, 2> waits{{{STDIN_FILENO, POLLIN, 0}, {watch ? watch->fd() : -1, POLLIN, 0}}};
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(look_at - Clock::now()).count();
    ::poll(waits.data(), waits.size(), static_cast<int>(std::max<std::int64_t>(left, 0)));
    if ((waits[0].revents & (POLLHUP | POLLERR)) != 0) break;
    const auto now_first = after_keys(first);  // also what SIGWINCH left: KEY_RESIZE
    if (!now_first) break;
    first = *now_first;
    if (waits[1].revents != 0) {
      if (!drain(*watch)) watch = std::unexpected{Error{}};
      look_at = std::min(look_at, looked + kSoonest);
    }
    if (Clock::now() < look_at) continue;
    auto again = survey_with_queues(line.operands);
    if (!again) {  // a named device went
      screen.reset();
      return fail(again.error());
    }
    surveyed = std::move(again);
    if (!watch) watch = Watch::open(line.operands);
    looked = Clock::now();
    look_at = looked + kLook;
  }
  return 0;
}

}  // namespace holdfast::cli
