// SPDX-License-Identifier: MIT
// listener.cpp - seccomp's notification descriptor, and /proc as the window into the thread that asks.
#include "run/listener.hpp"

#include <fcntl.h>
#include <linux/seccomp.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string_view>

// Linux 6.6 (include/uapi/linux/seccomp.h), newer than this C library's headers.
#ifndef SECCOMP_IOCTL_NOTIF_SET_FLAGS
#define SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP (1UL << 0)
#define SECCOMP_IOCTL_NOTIF_SET_FLAGS SECCOMP_IOW(4, __u64)
#endif

namespace holdfast::run {
namespace {

constexpr std::size_t kPage = 4096;
constexpr unsigned kCapSysAdmin = 21;  // include/uapi/linux/capability.h

class ProcPath {
 public:
  ProcPath(pid_t thread, const char* what) { std::snprintf(text_, sizeof text_, "/proc/%d/%s", thread, what); }
  ProcPath(pid_t thread, int fd) { std::snprintf(text_, sizeof text_, "/proc/%d/fd/%d", thread, fd); }
  [[nodiscard]] const char* get() const { return text_; }

 private:
  char text_[48];
};

// "Uid:\t1000\t1001\t..." -> the number in column `column`.
std::optional<std::uint64_t> status_field(std::string_view status, std::string_view name, int column, int base) {
  const auto at = status.find(name);
  if (at == std::string_view::npos) return std::nullopt;
  const char* text = status.data() + at + name.size();
  char* end = nullptr;
  std::uint64_t value = 0;
  for (int i = 0; i <= column; ++i) {
    value = std::strtoull(text, &end, base);
    if (end == text) return std::nullopt;
    text = end;
  }
  return value;
}

Question question_of(const seccomp_notif& raw) {
  Question question;
  question.id = raw.id;
  question.thread = static_cast<pid_t>(raw.pid);
  question.architecture = raw.data.arch;
  question.call = call_of(raw.data.arch, raw.data.nr);
  std::copy_n(raw.data.args, question.arguments.size(), question.arguments.begin());
  return question;
}

}  // namespace

InHand::InHand() {
  void* const page = ::mmap(nullptr, sizeof *raw_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  // Without memory for a page nothing else will work either.
  if (page == MAP_FAILED) std::abort();
  raw_ = new (page) seccomp_notif{};
}

InHand::~InHand() { ::munmap(raw_, sizeof *raw_); }

Listener::Listener(base::UniqueFd fd, InHand& in_hand) : fd_{std::move(fd)}, in_hand_{&in_hand} {
  // The asking thread sleeps until we answer, so we may as well run on its processor: no other one has to be woken.
  // Kernels before 6.6 refuse and are slower.
  if (fd_) ::ioctl(fd_.get(), SECCOMP_IOCTL_NOTIF_SET_FLAGS, SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP);
}

std::optional<Question> Listener::receive() {
  seccomp_notif& raw = in_hand_->raw();
  raw = {};  // as the kernel insists
  if (::ioctl(fd_.get(), SECCOMP_IOCTL_NOTIF_RECV, &raw) != 0) return std::nullopt;
  return question_of(raw);
}

std::optional<Question> Listener::in_hand() const {
  if (!fd_ || in_hand_->raw().id == 0) return std::nullopt;
  const Question question = question_of(in_hand_->raw());
  if (!still_asked(question)) return std::nullopt;
  return question;
}

bool Listener::still_asked(const Question& question) const {
  std::uint64_t id = question.id;
  return ::ioctl(fd_.get(), SECCOMP_IOCTL_NOTIF_ID_VALID, &id) == 0;
}

void Listener::send(const Question& question, const Answer& answer) {
  // Every error of these calls means that the caller is gone, so there is nobody left to tell.
  if (answer.kind == Answer::Kind::descriptor) {
    seccomp_notif_addfd added{};
    added.id = question.id;
    added.flags = SECCOMP_ADDFD_FLAG_SEND;
    added.srcfd = static_cast<__u32>(answer.fd.get());
    added.newfd_flags = answer.close_on_exec ? static_cast<__u32>(O_CLOEXEC) : 0;
    if (::ioctl(fd_.get(), SECCOMP_IOCTL_NOTIF_ADDFD, &added) >= 0 || errno == ENOENT) return;
    const int reason = errno;  // EMFILE: the caller's own limit
    return send(question, Answer::error(reason));
  }
  seccomp_notif_resp raw{};
  raw.id = question.id;
  if (answer.kind == Answer::Kind::carry_on) raw.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
  if (answer.kind == Answer::Kind::value) raw.val = answer.number;
  if (answer.kind == Answer::Kind::error) raw.error = static_cast<int>(-answer.number);
  ::ioctl(fd_.get(), SECCOMP_IOCTL_NOTIF_SEND, &raw);
}

namespace {

// An address of the caller's: never dereferenced here.
iovec their_memory(std::uint64_t address, std::size_t size) {
  // NOLINTNEXTLINE(performance-no-int-to-ptr): the kernel's interface is a pointer
  return {reinterpret_cast<void*>(static_cast<std::uintptr_t>(address)), size};
}

}  // namespace

bool Caller::read(std::uint64_t address, void* into, std::size_t size) const {
  const iovec local{into, size};
  const iovec remote = their_memory(address, size);
  return ::process_vm_readv(thread(), &local, 1, &remote, 1, 0) == static_cast<ssize_t>(size);
}

bool Caller::write(std::uint64_t address, const void* from, std::size_t size) const {
  const iovec local{const_cast<void*>(from), size};
  const iovec remote = their_memory(address, size);
  return still_asks() && ::process_vm_writev(thread(), &local, 1, &remote, 1, 0) == static_cast<ssize_t>(size);
}

std::optional<std::string> Caller::path_at(std::uint64_t address) const {
  char buffer[PATH_MAX];
  std::size_t have = 0;
  while (have < sizeof buffer) {
    // Up to the end of the page, so that a string at the end of a mapping is not asked for beyond it.
    const std::size_t rest = kPage - static_cast<std::size_t>((address + have) % kPage);
    const std::size_t want = std::min(rest, sizeof buffer - have);
    const iovec local{buffer + have, want};
    const iovec remote = their_memory(address + have, want);
    const ssize_t got = ::process_vm_readv(thread(), &local, 1, &remote, 1, 0);
    if (got <= 0) return std::nullopt;
    const void* const end = std::memchr(buffer + have, '\0', static_cast<std::size_t>(got));
    if (end != nullptr) {
      return std::string{static_cast<const char*>(buffer), static_cast<const char*>(end)};
    }
    have += static_cast<std::size_t>(got);
  }
  return std::nullopt;
}

std::optional<struct stat> Caller::descriptor(int fd) const {
  struct stat found{};
  if (::stat(ProcPath{thread(), fd}.get(), &found) != 0) return std::nullopt;
  return found;
}

base::UniqueFd Caller::duplicate(int fd) const {
  // pidfd_open(2) wants the leader; descriptors are shared by all threads unless unshared, which is not worth meeting.
  pid_t leader = thread();
  base::UniqueFd process{static_cast<int>(::syscall(SYS_pidfd_open, leader, 0))};
  if (!process) {
    char status[1024];
    const base::UniqueFd file{::open(ProcPath{leader, "status"}.get(), O_RDONLY | O_CLOEXEC)};
    const ssize_t got = file ? ::read(file.get(), status, sizeof status - 1) : -1;
    if (got <= 0) return {};
    status[got] = '\0';
    const auto group = status_field({status, static_cast<std::size_t>(got)}, "\nTgid:", 0, 10);
    if (!group) return {};
    leader = static_cast<pid_t>(*group);
    process.reset(static_cast<int>(::syscall(SYS_pidfd_open, leader, 0)));
    if (!process) return {};
  }
  return base::UniqueFd{static_cast<int>(::syscall(SYS_pidfd_getfd, process.get(), fd, 0))};
}

std::string Caller::our_path(int directory, const std::string& path) const {
  if (path.starts_with('/')) return std::string{ProcPath{thread(), "root"}.get()} + path;
  const std::string start =
      directory == AT_FDCWD ? ProcPath{thread(), "cwd"}.get() : ProcPath{thread(), directory}.get();
  return start + "/" + path;
}

std::optional<Caller::Credentials> Caller::credentials() const {
  char text[4096];
  const base::UniqueFd file{::open(ProcPath{thread(), "status"}.get(), O_RDONLY | O_CLOEXEC)};
  const ssize_t got = file ? ::read(file.get(), text, sizeof text - 1) : -1;
  if (got <= 0) return std::nullopt;
  text[got] = '\0';
  const std::string_view status{text, static_cast<std::size_t>(got)};
  const auto uid = status_field(status, "\nUid:", 3, 10);  // the file system's
  const auto gid = status_field(status, "\nGid:", 3, 10);
  const auto mask = status_field(status, "\nUmask:", 0, 8);
  const auto capabilities = status_field(status, "\nCapEff:", 0, 16);
  if (!uid || !gid || !capabilities) return std::nullopt;
  Credentials credentials;
  credentials.uid = static_cast<uid_t>(*uid);
  credentials.gid = static_cast<gid_t>(*gid);
  if (mask) credentials.umask = static_cast<mode_t>(*mask);
  credentials.system_administrator = ((*capabilities >> kCapSysAdmin) & 1) != 0;
  return credentials;
}

}  // namespace holdfast::run
