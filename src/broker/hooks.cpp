// SPDX-License-Identifier: MIT
// hooks.cpp - see the header.
#include "broker/hooks.hpp"

#include "base/directory.hpp"
#include "base/error.hpp"
#include "base/process.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <cerrno>

namespace holdfast::broker {
namespace {

constexpr std::size_t kTail = 1024;  // of a hook's output: its last line is shown
constexpr int kReads = 16;           // a pipe's fill (pipe(7))
constexpr auto kReap = std::chrono::milliseconds{100};
constexpr int kCouldNotRun = 126;  // as shells say it

// run-parts(8)'s rule, which leaves out what editors and packages leave behind.
bool is_hook_name(std::string_view name) {
  return !name.empty() && std::ranges::all_of(name, [](char byte) {
    return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') || (byte >= '0' && byte <= '9') ||
           byte == '_' || byte == '-';
  });
}

bool is_roots_alone(const struct stat& status) {
  return status.st_uid == 0 && (status.st_mode & (S_IWGRP | S_IWOTH)) == 0;
}

std::string_view name_of(arbiter::End why) {
  switch (why) {
    case arbiter::End::released:
      return "released";
    case arbiter::End::lapsed:
      return "lapsed";
    case arbiter::End::revoked:
      return "revoked";
    case arbiter::End::owner_died:
      return "owner_died";
  }
  return "released";
}

std::vector<std::string> environment_of(const ClaimRecord& claim) {
  std::vector<std::string> devices;
  for (const ClaimRecord::Device& device : claim.devices)
    if (device.named) devices.push_back(device.path);
  return {
      "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
      "LC_ALL=C.UTF-8",
      fmt::format("HOLDFAST_CLAIM={}", static_cast<std::uint64_t>(claim.id)),
      fmt::format("HOLDFAST_DEVICES={}", fmt::join(devices, " ")),
      fmt::format("HOLDFAST_MODE={}", claim.mode == Mode::exclusive ? "exclusive" : "shared"),
      "HOLDFAST_PURPOSE=" + base::printable(claim.purpose),
      fmt::format("HOLDFAST_HOLDER_PID={}", claim.owner.pid),
      fmt::format("HOLDFAST_HOLDER_START={}", claim.owner.start_ticks),
      fmt::format("HOLDFAST_HOLDER_UID={}", claim.uid),
      "HOLDFAST_HOLDER_USER=" + base::user_name(claim.uid),
  };
}

std::vector<char*> pointers(std::vector<std::string>& strings) {
  std::vector<char*> list;
  for (std::string& string : strings) list.push_back(string.data());
  list.push_back(nullptr);
  return list;
}

std::string last_line(std::string_view text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) text.remove_suffix(1);
  return base::printable(text.substr(text.rfind('\n') + 1));
}

/// What the child needs, made before the fork: it may not allocate after it (pthread_atfork(3)).
struct Start {
  const char* path = nullptr;
  char* const* arguments = nullptr;
  char* const* environment = nullptr;
  int output = -1;
  pid_t broker = 0;
  HookRunner::User user;
};

bool drop_rights(const HookRunner::User& user) {
  if (::geteuid() == 0 &&
      (::syscall(SYS_setgroups, 0, nullptr) != 0 || ::syscall(SYS_setresgid, user.gid, user.gid, user.gid) != 0 ||
       ::syscall(SYS_setresuid, user.uid, user.uid, user.uid) != 0))
    return false;
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  const std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3> none{};
  return ::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) == 0 &&
         ::syscall(SYS_capset, &header, none.data()) == 0 && ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0;
}

[[noreturn]] void run(const Start& start) {
  sigset_t none;
  ::sigemptyset(&none);
  for (int number = 1; number < NSIG; ++number) ::signal(number, SIG_DFL);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  // A group of its own, so that all of it can be killed.
  ::setsid();
  const int nothing = ::open("/dev/null", O_RDONLY);
  const bool wired = nothing >= 0 && ::dup2(nothing, 0) == 0 && ::dup2(start.output, 1) == 1 &&
                     ::dup2(start.output, 2) == 2 && ::syscall(SYS_close_range, 3U, ~0U, 0) == 0 && ::chdir("/") == 0;
  ::umask(022);
  // The signal last: a change of rights forgets it (prctl(2)). The broker may have died before it was set.
  const bool ready = wired && drop_rights(start.user) && ::prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) == 0 &&
                     ::getppid() == start.broker;
  if (ready) ::execve(start.path, start.arguments, start.environment);
  ::_exit(kCouldNotRun);
}

}  // namespace

HookRunner::HookRunner(Settings settings)
    : settings_{std::move(settings)}, nothing_there_{settings_.directory}, epoll_{::epoll_create1(EPOLL_CLOEXEC)} {}

HookRunner::~HookRunner() {
  for (Round& round : running_) kill(round);
}

// Where none are, that is known from then on; where some are, they are looked at each time.
Result<std::vector<std::string>> HookRunner::names() {
  if (settings_.directory.empty() || nothing_there_.is_quiet()) return std::vector<std::string>{};
  auto found = look();
  if (found && !found->has_any && nothing_there_.start()) {
    found = look();
    if (!found || found->has_any) nothing_there_.stop();
  }
  if (!found) return std::unexpected(std::move(found.error()));
  return std::move(found->names);
}

Result<HookRunner::Found> HookRunner::look() const {
  Found found;
  const base::Directory directory{::opendir(settings_.directory.c_str())};
  if (!directory && errno == ENOENT) return found;
  struct stat status{};
  if (!directory || ::fstat(::dirfd(directory.get()), &status) != 0)
    return std::unexpected(base::fault(errc::system_fault, errno, "hooks", settings_.directory));
  while (const dirent* entry = ::readdir(directory.get())) {
    if (!is_hook_name(entry->d_name)) continue;
    found.has_any = true;
    if (::faccessat(::dirfd(directory.get()), entry->d_name, X_OK, AT_EACCESS) == 0)
      found.names.emplace_back(entry->d_name);
  }
  std::ranges::sort(found.names);
  if (!found.names.empty() && !is_roots_alone(status))
    return std::unexpected(base::failure(
        errc::not_permitted,
        fmt::format("the hooks in {} are not run because others than root may change them: chown and chmod it",
                    settings_.directory),
        {}));
  return found;
}

Result<> HookRunner::check(const std::string& name) const {
  struct stat status{};
  const std::string path = settings_.directory + "/" + name;
  // Not through a link: where that leads may be in others' hands.
  if (::lstat(path.c_str(), &status) != 0) return std::unexpected(base::fault(errc::system_fault, errno, path, {}));
  if (S_ISREG(status.st_mode) && is_roots_alone(status)) return {};
  return std::unexpected(base::failure(
      errc::not_permitted,
      fmt::format("the hook {} is not run because it is not a file that root alone may change: chown and chmod it",
                  path),
      {}));
}

Error HookRunner::refusal(const Round& round, std::string_view why) const {
  return base::failure(errc::not_permitted,
                       fmt::format("{}: the hook {} refuses it: {}", round.device, round.names.front(), why),
                       round.device);
}

Result<> HookRunner::start(Round& round, Clock::time_point now) {
  const std::string& name = round.names.front();
  if (auto safe = check(name); !safe) return safe;
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC | O_NONBLOCK) != 0)
    return std::unexpected(base::fault(errno, "pipe2", round.device));
  base::UniqueFd reader{ends[0]};
  const base::UniqueFd writer{ends[1]};
  // The hook may write as it likes; we never wait for it.
  ::fcntl(writer.get(), F_SETFL, 0);
  const std::string path = settings_.directory + "/" + name;
  std::vector<std::string> words{path, round.event == Event::before_grant ? "before-grant" : "after-release"};
  const auto arguments = pointers(words);
  const auto environment = pointers(round.environment);
  const Start start{path.c_str(), arguments.data(), environment.data(), writer.get(), ::getpid(), settings_.user};
  const pid_t pid = ::fork();
  if (pid == 0) run(start);
  if (pid < 0) return std::unexpected(base::fault(errno, "fork", round.device));
  round.pid = pid;
  round.pidfd.reset(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  round.output = std::move(reader);
  round.tail.clear();
  round.deadline = now + settings_.at_most;
  for (const int fd : {round.pidfd.get(), round.output.get()}) {
    epoll_event wanted{.events = EPOLLIN, .data = {.fd = fd}};
    if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &wanted) == 0) continue;
    const int errnum = errno;
    kill(round);
    return std::unexpected(base::fault(errnum, "epoll_ctl", round.device));
  }
  return {};
}

std::optional<Result<>> HookRunner::before_grant(const ClaimRecord& claim) {
  auto list = names();
  if (!list) return Result<>{std::unexpected(std::move(list.error()))};
  if (list->empty()) return Result<>{};
  Round round;
  round.claim = claim.id;
  round.device = claim.devices.empty() ? std::string{} : claim.devices.front().path;
  round.environment = environment_of(claim);
  round.names = std::move(*list);
  queued_.push_back(std::move(round));
  // What cannot even be started is answered by advance(), as all else.
  return std::nullopt;
}

bool HookRunner::are_there() {
  const auto list = names();
  return !list || !list->empty();
}

void HookRunner::after_end(const ClaimRecord& claim, arbiter::End why) {
  auto list = names();
  if (!list || list->empty()) return;
  Round round;
  round.event = Event::after_release;
  round.claim = claim.id;
  round.device = claim.devices.empty() ? std::string{} : claim.devices.front().path;
  round.environment = environment_of(claim);
  round.environment.push_back(fmt::format("HOLDFAST_END={}", name_of(why)));
  round.names = std::move(*list);
  queued_.push_back(std::move(round));
}

void HookRunner::forget(wire::ClaimId claim) {
  const auto is_unwanted = [&](const Round& round) {
    return round.claim == claim && round.event == Event::before_grant;
  };
  std::erase_if(queued_, is_unwanted);
  for (auto round = running_.begin(); round != running_.end();) {
    if (is_unwanted(*round)) kill(*round);
    round = is_unwanted(*round) ? running_.erase(round) : std::next(round);
  }
}

void HookRunner::kill(Round& round) {
  if (round.pid <= 0) return;
  // It may not have come to setsid() yet. Until it is waited for, its number is nobody else's.
  ::kill(-round.pid, SIGKILL);
  ::kill(round.pid, SIGKILL);
  // One that hangs in a driver dies when that lets it.
  if (::waitpid(round.pid, nullptr, WNOHANG) == 0) dying_.push_back(round.pid);
  round.pid = 0;
  round.pidfd.reset();
  round.output.reset();
}

void HookRunner::read_output(Round& round) {
  std::array<char, 4096> bytes;
  ssize_t got = -1;
  // One that writes faster than we read shall not keep us.
  for (int reads = 0; reads < kReads && round.output; ++reads) {
    got = ::read(round.output.get(), bytes.data(), bytes.size());
    if (got <= 0) break;
    round.tail.append(bytes.data(), static_cast<std::size_t>(got));
    if (round.tail.size() > kTail) round.tail.erase(0, round.tail.size() - kTail);
  }
  if (got == 0) round.output.reset();
}

std::optional<Result<>> HookRunner::look_at(Round& round, Clock::time_point now) {
  read_output(round);
  siginfo_t end{};
  const int waited = ::waitid(P_PID, static_cast<id_t>(round.pid), &end, WEXITED | WNOHANG | WNOWAIT);
  if (waited == 0 && end.si_pid == 0) {
    if (now < round.deadline) return std::nullopt;
    kill(round);
    return std::unexpected(
        refusal(round, fmt::format("it took longer than {} ms and was killed", settings_.at_most.count())));
  }
  // What it wrote last may have come after the first look. What it left running in its group goes with it.
  read_output(round);
  kill(round);
  if (waited != 0 || end.si_code != CLD_EXITED)
    return std::unexpected(refusal(round, fmt::format("killed by signal {}", end.si_status)));
  if (end.si_status != 0) {
    std::string line = last_line(round.tail);
    if (line.empty() && end.si_status == kCouldNotRun) line = "it could not be run";
    if (line.empty()) line = fmt::format("exit status {}", end.si_status);
    // What comes after the end of a claim has nothing to refuse: the next hook runs.
    if (round.event == Event::before_grant) return std::unexpected(refusal(round, line));
  }
  round.names.erase(round.names.begin());
  if (round.names.empty()) return Result<>{};
  if (auto started = start(round, now); !started) return started;
  return std::nullopt;
}

void HookRunner::begin_more(Clock::time_point now, std::vector<Answer>& answers) {
  while (!queued_.empty() && running_.size() < settings_.at_once) {
    Round round = std::move(queued_.front());
    queued_.pop_front();
    if (auto started = start(round, now); started) {
      running_.push_back(std::move(round));
    } else if (round.event == Event::before_grant) {
      answers.push_back({round.claim, std::move(started)});
    }
  }
}

std::optional<HookRunner::Clock::time_point> HookRunner::next_deadline() const {
  // What is queued is begun in advance().
  if (!queued_.empty() && running_.size() < settings_.at_once) return Clock::time_point::min();
  std::optional<Clock::time_point> first;
  if (!dying_.empty()) first = Clock::now() + kReap;
  for (const Round& round : running_)
    if (!first || round.deadline < *first) first = round.deadline;
  return first;
}

std::vector<HookRunner::Answer> HookRunner::advance(Clock::time_point now) {
  std::vector<Answer> answers;
  std::erase_if(dying_, [](pid_t pid) { return ::waitpid(pid, nullptr, WNOHANG) != 0; });
  for (auto round = running_.begin(); round != running_.end();) {
    auto answer = look_at(*round, now);
    if (answer && round->event == Event::before_grant) answers.push_back({round->claim, std::move(*answer)});
    round = answer ? running_.erase(round) : std::next(round);
  }
  begin_more(now, answers);
  return answers;
}

}  // namespace holdfast::broker
