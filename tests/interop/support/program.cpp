// SPDX-License-Identifier: MIT
// program.cpp - see the header.
#include "interop/support/program.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <grp.h>
#include <poll.h>
#include <pty.h>
#include <pwd.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>

namespace holdfast::interop {

namespace fs = std::filesystem;
using base::UniqueFd;
using Clock = std::chrono::steady_clock;

namespace {

constexpr const char* kPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

std::vector<char*> pointers(const Words& words) {
  std::vector<char*> all;
  for (const std::string& word : words) all.push_back(const_cast<char*>(word.c_str()));
  all.push_back(nullptr);
  return all;
}

[[noreturn]] void become(const Words& command, const Words& environment, User user, Traced traced) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (traced == Traced::yes) ::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
  if (user.uid != 0 && (::setgroups(0, nullptr) != 0 || ::setgid(user.gid) != 0 || ::setuid(user.uid) != 0))
    ::_exit(125);
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  Words all{kPath, "LANG=C", "LC_ALL=C", "TERM=vt100"};
  all.insert(all.end(), environment.begin(), environment.end());
  const auto words = pointers(command);
  const auto variables = pointers(all);
  ::execvpe(words[0], words.data(), variables.data());
  ::_exit(127);
}

int wait_status(int status) { return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status); }

// Paths of a directory's entries; none when it vanishes, as processes do.
std::vector<fs::path> entries(const fs::path& directory) {
  std::vector<fs::path> all;
  std::error_code gone;
  for (fs::directory_iterator entry{directory, gone}; !gone && entry != fs::directory_iterator{}; entry.increment(gone))
    all.push_back(entry->path());
  return all;
}

std::vector<pid_t> children_of(pid_t parent) {
  std::vector<pid_t> children;
  for (const fs::path& task : entries(fmt::format("/proc/{}/task", parent))) {
    std::ifstream list{task / "children"};
    children.insert(children.end(), std::istream_iterator<pid_t>{list}, {});
  }
  return children;
}

std::string comm_of(const std::string& pid) {
  std::string comm;
  std::ifstream file{fmt::format("/proc/{}/comm", pid)};
  std::getline(file, comm);
  return comm;
}

void kill_below(pid_t parent, pid_t spared = -1) {
  for (const pid_t child : children_of(parent)) {
    if (child == spared) continue;
    kill_below(child);
    ::kill(child, SIGKILL);
  }
}

}  // namespace

User nobody() {
  const passwd* const entry = ::getpwnam("nobody");
  return entry != nullptr ? User{entry->pw_uid, entry->pw_gid} : User{65534, 65534};
}

Program::Program(const Words& command, Stdio stdio, const Words& environment, User user, Traced traced) {
  if (stdio == Stdio::terminal) {
    int master = -1;
    const winsize size{.ws_row = 24, .ws_col = 80, .ws_xpixel = 0, .ws_ypixel = 0};
    pid_ = ::forkpty(&master, nullptr, nullptr, &size);
    if (pid_ < 0) std::abort();
    if (pid_ == 0) become(command, environment, user, traced);
    ::fcntl(master, F_SETFD, FD_CLOEXEC);
    out_ = UniqueFd{master};
  } else {
    std::array<int, 2> to{};
    std::array<int, 2> from{};
    if (::pipe2(to.data(), O_CLOEXEC) != 0 || ::pipe2(from.data(), O_CLOEXEC) != 0) std::abort();
    pid_ = ::fork();
    if (pid_ < 0) std::abort();
    if (pid_ == 0) {
      ::setsid();
      ::dup2(to[0], STDIN_FILENO);
      ::dup2(from[1], STDOUT_FILENO);
      ::dup2(from[1], STDERR_FILENO);
      become(command, environment, user, traced);
    }
    ::close(to[0]);
    ::close(from[1]);
    in_ = UniqueFd{to[1]};
    out_ = UniqueFd{from[0]};
  }
  ::fcntl(out_.get(), F_SETFL, ::fcntl(out_.get(), F_GETFL) | O_NONBLOCK);
  pidfd_ = UniqueFd{static_cast<int>(::syscall(SYS_pidfd_open, pid_, 0))};
}

Program::~Program() {
  kill_below(pid_);
  if (!status_) {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
}

void Program::type(std::string_view text) {
  const int fd = in_ ? in_.get() : out_.get();
  if (::write(fd, text.data(), text.size()) != static_cast<ssize_t>(text.size())) std::abort();
}

void Program::end_input() { in_.reset(); }

void Program::kill(int number) const { ::kill(pid_, number); }

void Program::listen() {
  char bytes[4096];
  while (true) {
    const ssize_t got = ::read(out_.get(), bytes, sizeof bytes);
    if (got > 0)
      output_.append(bytes, static_cast<std::size_t>(got));
    else if (got == 0 || errno != EINTR)
      return;
  }
}

std::optional<int> Program::ended() {
  if (!status_) {
    int status = 0;
    if (::waitpid(pid_, &status, WNOHANG) == pid_ && !WIFSTOPPED(status)) {
      status_ = wait_status(status);
      listen();
    }
  }
  return status_;
}

Ending run_to_the_end(const Words& command, const std::string& input, const Words& environment, User user) {
  Program program{command, Stdio::pipes, environment, user};
  if (!input.empty()) program.type(input);
  program.end_input();
  if (!eventually([&] { return program.ended().has_value(); }, {&program}))
    return {-1, program.output() + "\n(it does not end)"};
  return {*program.ended(), program.output()};
}

bool eventually(const std::function<bool()>& happened, const std::vector<Program*>& programs,
                const std::vector<int>& also, std::chrono::milliseconds patience) {
  const auto end = Clock::now() + patience;
  std::vector<bool> hung_up(programs.size() * 2 + also.size());
  while (true) {
    for (Program* const program : programs) program->listen();
    if (happened()) return true;
    if (Clock::now() >= end) return false;
    std::vector<pollfd> events;
    for (const Program* const program : programs) {
      events.push_back({program->talk_fd(), POLLIN, 0});
      events.push_back({program->pidfd(), POLLIN, 0});
    }
    for (const int fd : also) events.push_back({fd, POLLIN, 0});
    // What hung up once stays readable for ever, and is no event any more.
    for (std::size_t i = 0; i < events.size(); ++i)
      if (hung_up[i]) events[i].fd = -1;
    ::poll(events.data(), events.size(), 20);
    for (std::size_t i = 0; i < events.size(); ++i) {
      const bool dead = i < programs.size() * 2 && i % 2 == 1 && events[i].revents != 0;
      if (dead || (events[i].revents & (POLLHUP | POLLERR)) != 0) hung_up[i] = true;
    }
  }
}

namespace {

bool is_open_as(pid_t pid, std::int64_t fd, const struct stat& device) {
  struct stat file{};
  return ::stat(fmt::format("/proc/{}/fd/{}", pid, fd).c_str(), &file) == 0 &&
         (file.st_mode & S_IFMT) == (device.st_mode & S_IFMT) && file.st_rdev == device.st_rdev;
}

}  // namespace

bool run_until_it_takes(const std::string& device, Taking by, Program& program) {
  struct stat node{};
  if (::stat(device.c_str(), &node) != 0) return false;
  const pid_t pid = program.pid();
  __ptrace_syscall_info entry{};
  int status = 0;
  while (::waitpid(pid, &status, __WALL) == pid && WIFSTOPPED(status)) {
    ::ptrace(PTRACE_SETOPTIONS, pid, nullptr, PTRACE_O_TRACESYSGOOD);
    __ptrace_syscall_info info{};
    const bool at_call = WSTOPSIG(status) == (SIGTRAP | 0x80) &&
                         ::ptrace(PTRACE_GET_SYSCALL_INFO, pid, reinterpret_cast<void*>(sizeof info), &info) > 0;
    if (at_call && info.op == PTRACE_SYSCALL_INFO_ENTRY) entry = info;
    if (at_call && info.op == PTRACE_SYSCALL_INFO_EXIT && info.exit.is_error == 0) {
      const auto& call = entry.entry;
      const bool opened = call.nr == SYS_openat && (by == Taking::open || (call.args[2] & O_EXCL) != 0);
      const bool locked = call.nr == SYS_flock;
      const auto fd = locked ? static_cast<std::int64_t>(call.args[0]) : info.exit.rval;
      if ((by == Taking::flock ? locked : opened) && is_open_as(pid, fd, node)) return true;
    }
    const int signal = at_call || WSTOPSIG(status) == SIGTRAP ? 0 : WSTOPSIG(status);
    ::ptrace(PTRACE_SYSCALL, pid, nullptr, signal);
  }
  return false;
}

void adopt_strays() { ::prctl(PR_SET_CHILD_SUBREAPER, 1); }

void kill_strays(pid_t spared) {
  while (true) {
    kill_below(::getpid(), spared);
    const auto left = children_of(::getpid());
    if (left.empty() || left == std::vector{spared}) return;
    ::waitpid(left.front() == spared ? left.back() : left.front(), nullptr, 0);
  }
}

bool is_installed(std::string_view name) {
  for (const char* const directory : {"/usr/sbin", "/usr/bin", "/sbin", "/bin"})
    if (::access(fmt::format("{}/{}", directory, name).c_str(), X_OK) == 0) return true;
  return false;
}

std::vector<pid_t> openers(const std::string& device, std::string_view name) {
  std::vector<pid_t> found;
  struct stat node{};
  if (::stat(device.c_str(), &node) != 0) return found;
  for (const fs::path& process : entries("/proc")) {
    const std::string number = process.filename();
    if (number.find_first_not_of("0123456789") != std::string::npos) continue;
    if (comm_of(number) != name) continue;
    for (const fs::path& fd : entries(process / "fd")) {
      struct stat status{};
      if (::stat(fd.c_str(), &status) != 0 || status.st_rdev != node.st_rdev ||
          (status.st_mode & S_IFMT) != (node.st_mode & S_IFMT))
        continue;
      found.push_back(static_cast<pid_t>(std::stol(number)));
      break;
    }
  }
  return found;
}

std::vector<pid_t> processes_below(pid_t parent, std::string_view name) {
  std::vector<pid_t> found;
  for (const pid_t child : children_of(parent)) {
    if (comm_of(std::to_string(child)) == name) found.push_back(child);
    const auto more = processes_below(child, name);
    found.insert(found.end(), more.begin(), more.end());
  }
  return found;
}

bool kernel_lock_on(const std::string& device, std::string_view kind) {
  struct stat node{};
  if (::stat(device.c_str(), &node) != 0) return false;
  const std::string file = fmt::format(" {:02x}:{:02x}:{} ", major(node.st_dev), minor(node.st_dev), node.st_ino);
  std::ifstream locks{"/proc/locks"};
  for (std::string line; std::getline(locks, line);)
    if (line.find(file) != std::string::npos && line.find(kind) != std::string::npos) return true;
  return false;
}

}  // namespace holdfast::interop
