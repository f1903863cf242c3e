// SPDX-License-Identifier: MIT
// command.cpp - a child that shares our memory until it execs, as posix_spawn(3)'s does.
//
// Copying the page tables is the larger part of what fork(2) costs, so the child borrows ours (CLONE_VM) and, unlike
// posix_spawn's, runs at the same time as we do. Hence the rule for everything in Command::launch(): raw system calls
// only, no errno (it is the parent's), no memory allocation, nothing written but its own stack and `Launch`.
#include "run/command.hpp"

#include "base/error.hpp"

#include <fcntl.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

namespace holdfast::run {
namespace {

constexpr std::size_t kStackSize = std::size_t{64} * 1024;

// The result is a value, or -errno. Five arguments are set whatever the call: prctl(2) refuses what is not zero in
// those it does not use.
#if defined(__x86_64__)
inline long raw(long number, long a = 0, long b = 0, long c = 0, long d = 0, long e = 0) {
  long result = 0;
  register long r10 asm("r10") = d;
  register long r8 asm("r8") = e;
  asm volatile("syscall"
               : "=a"(result)
               : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
               : "rcx", "r11", "memory");
  return result;
}
#elif defined(__aarch64__)
inline long raw(long number, long a = 0, long b = 0, long c = 0, long d = 0, long e = 0) {
  register long x8 asm("x8") = number;
  register long x0 asm("x0") = a;
  register long x1 asm("x1") = b;
  register long x2 asm("x2") = c;
  register long x3 asm("x3") = d;
  register long x4 asm("x4") = e;
  asm volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4) : "memory");
  return x0;
}
#else
#error "raw system calls are not written for this processor yet"
#endif

template <class T>
long address(T* pointer) {
  return reinterpret_cast<long>(pointer);
}

// The kernel's own struct sigaction, which rt_sigaction(2) takes; all-zero is SIG_DFL.
struct KernelSigaction {
  unsigned long handler;
  unsigned long flags;
  unsigned long restorer;
  unsigned long mask;
};

enum class Word : int { go = 1 };

struct Report {
  int errnum;
};

long install(const sock_fprog* program) {
  const auto try_once = [&](unsigned long flags) {
    return raw(SYS_seccomp, SECCOMP_SET_MODE_FILTER, static_cast<long>(flags), address(program));
  };
  const auto try_flags = [&]() {
    // Without WAIT_KILLABLE_RECV (Linux 5.19) a signal would restart a call whose effect we have already brought about.
    const long listener = try_once(SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV);
    return listener == -EINVAL ? try_once(SECCOMP_FILTER_FLAG_NEW_LISTENER) : listener;
  };
  const long listener = try_flags();
  if (listener != -EACCES) return listener;
  // seccomp(2): EACCES means neither CAP_SYS_ADMIN nor no_new_privs.
  raw(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0);
  return try_flags();
}

void report(int channel, long listener) {
  Report text{listener < 0 ? static_cast<int>(-listener) : 0};
  iovec part{&text, sizeof text};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))]{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (listener >= 0) {
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    cmsghdr* const header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    const int fd = static_cast<int>(listener);
    __builtin_memcpy(CMSG_DATA(header), &fd, sizeof fd);
  }
  raw(SYS_sendmsg, channel, address(&message), MSG_NOSIGNAL);
  if (listener >= 0) raw(SYS_close, listener);
}

}  // namespace

struct Command::Launch {
  std::vector<std::string> arguments;
  std::vector<char*> argv;
  std::vector<std::string> candidates;
  std::vector<char*> shell_argv;  // for a script without #!, as execvp(3) runs it
  sock_fprog program{};
  bool filtered = false;
  Inherited inherited;
  int our_end = -1;    // the command's
  int other_end = -1;  // the front's, a copy of which the command has until it closes it
  std::unique_ptr<std::byte[]> stack = std::make_unique_for_overwrite<std::byte[]>(kStackSize);
};

int Command::launch(void* raw_launch) noexcept {
  Launch& with = *static_cast<Launch*>(raw_launch);
  // Closed, so that the front's death ends the wait below.
  raw(SYS_close, with.other_end);
  if (with.filtered) report(with.our_end, install(&with.program));
  Word word{};
  long got = 0;
  do {
    got = raw(SYS_read, with.our_end, address(&word), sizeof word);
  } while (got == -EINTR);
  if (got != sizeof word || word != Word::go) raw(SYS_exit_group, 0);

  if (with.inherited.ignores_children) {
    KernelSigaction ignore{};
    ignore.handler = reinterpret_cast<unsigned long>(SIG_IGN);
    raw(SYS_rt_sigaction, SIGCHLD, address(&ignore), 0, sizeof ignore.mask);
  }
  raw(SYS_rt_sigprocmask, SIG_SETMASK, address(&with.inherited.mask), 0, sizeof(unsigned long));

  long failure = -ENOENT;
  bool forbidden = false;
  for (const std::string& candidate : with.candidates) {
    failure = raw(SYS_execve, address(candidate.c_str()), address(with.argv.data()), address(environ));
    if (failure == -ENOEXEC) {
      with.shell_argv[1] = const_cast<char*>(candidate.c_str());
      failure = raw(SYS_execve, address(with.shell_argv[0]), address(with.shell_argv.data()), address(environ));
      break;
    }
    if (failure == -EACCES) forbidden = true;
    if (failure != -EACCES && failure != -ENOENT && failure != -ENOTDIR && failure != -ESTALE && failure != -ENODEV)
      break;
  }
  Report text{forbidden && failure == -ENOENT ? EACCES : static_cast<int>(-failure)};
  raw(SYS_write, with.our_end, address(&text), sizeof text);
  raw(SYS_exit_group, 127);
  return 127;
}

Command::Command() : launch_{std::make_unique<Launch>()} {}
Command::Command(Command&& other) noexcept
    : launch_{std::move(other.launch_)},
      id_{other.id_},
      to_reap_{std::exchange(other.to_reap_, false)},
      pidfd_{std::move(other.pidfd_)},
      channel_{std::move(other.channel_)} {}
Command& Command::operator=(Command&& other) noexcept {
  std::swap(launch_, other.launch_);
  std::swap(id_, other.id_);
  std::swap(to_reap_, other.to_reap_);
  std::swap(pidfd_, other.pidfd_);
  std::swap(channel_, other.channel_);
  return *this;
}

Command::~Command() {
  channel_.reset();
  if (!to_reap_) return;
  // Its end of the channel reads end of file, and it exits; it shares `launch_`, so that must not go first.
  while (::waitpid(id_.pid, nullptr, 0) < 0 && errno == EINTR) {
  }
}

Result<Command> Command::start(std::span<const std::string> arguments, std::optional<Filter> filter,
                               const Inherited& inherited) {
  Command command;
  Launch& with = *command.launch_;
  with.arguments.assign(arguments.begin(), arguments.end());
  for (std::string& argument : with.arguments) with.argv.push_back(argument.data());
  with.argv.push_back(nullptr);
  with.candidates = exec_candidates(with.arguments.front(), ::getenv("PATH"));
  static char shell[] = "/bin/sh";
  with.shell_argv = with.argv;
  with.shell_argv.insert(with.shell_argv.begin(), shell);
  if (filter) {
    const auto program = program_of(*filter);
    with.program = {static_cast<unsigned short>(program.size()), const_cast<sock_filter*>(program.data())};
    with.filtered = true;
  }
  with.inherited = inherited;

  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
    return std::unexpected{base::fault(errno, "socketpair", {})};
  }
  command.channel_.reset(ends[0]);
  base::UniqueFd commands_end{ends[1]};
  with.our_end = ends[1];
  with.other_end = ends[0];

  int pidfd = -1;
  std::byte* const top = with.stack.get() + kStackSize;
  const pid_t pid = ::clone(&Command::launch, top, CLONE_VM | CLONE_PIDFD | SIGCHLD, &with, &pidfd);
  if (pid < 0) return std::unexpected{base::fault(errno, "clone", {})};
  command.to_reap_ = true;
  const auto facts = base::facts_of(pid);
  command.id_ = facts ? facts->id : base::ProcessId{pid, 0};
  command.pidfd_.reset(pidfd);
  return command;
}

Result<Command::Installed> Command::installed() {
  if (!launch_->filtered) return Installed{};
  Report text{};
  iovec part{&text, sizeof text};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))]{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  ssize_t got = 0;
  do {
    got = ::recvmsg(channel_.get(), &message, MSG_CMSG_CLOEXEC);
  } while (got < 0 && errno == EINTR);
  if (got != sizeof text)
    return std::unexpected{base::failure(errc::system_fault, "the command's process died before it ran", {})};
  Installed installed;
  installed.errnum = text.errnum;
  const cmsghdr* const header = CMSG_FIRSTHDR(&message);
  if (header != nullptr && header->cmsg_type == SCM_RIGHTS) {
    int fd = -1;
    std::memcpy(&fd, CMSG_DATA(header), sizeof fd);
    installed.listener.reset(fd);
  } else if (installed.errnum == 0) {
    installed.errnum = EMFILE;  // recvmsg(2) drops a descriptor for which there is no room
  }
  return installed;
}

void Command::go() {
  constexpr Word word = Word::go;
  // A command that was killed meanwhile is noticed by its death.
  [[maybe_unused]] const ssize_t sent = ::send(channel_.get(), &word, sizeof word, MSG_NOSIGNAL);
}

int Command::exec_result() {
  Report text{};
  ssize_t got = 0;
  do {
    got = ::recv(channel_.get(), &text, sizeof text, 0);
  } while (got < 0 && errno == EINTR);
  channel_.reset();
  return got == sizeof text ? text.errnum : 0;
}

std::vector<std::string> exec_candidates(const std::string& name, const char* search_path) {
  if (name.empty()) return {};
  if (name.contains('/')) return {name};
  std::vector<std::string> candidates;
  std::string_view rest = search_path != nullptr ? search_path : "/bin:/usr/bin";  // exec(3)
  while (true) {
    const auto end = rest.find(':');
    const std::string_view directory = rest.substr(0, end);
    candidates.push_back(directory.empty() ? name : std::string{directory} + "/" + name);
    if (end == std::string_view::npos) return candidates;
    rest.remove_prefix(end + 1);
  }
}

}  // namespace holdfast::run
