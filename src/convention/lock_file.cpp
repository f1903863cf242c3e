// SPDX-License-Identifier: MIT
// lock_file.cpp - see the header.
#include "convention/lock_file.hpp"

#include "base/process.hpp"
#include "convention/conventions.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <cerrno>
#include <charconv>
#include <climits>
#include <cstdint>

namespace holdfast::convention {
namespace {

constexpr std::string_view kPrivatePrefix = ".holdfast-tmp.";

int write_all(int fd, std::string_view content) {
  while (!content.empty()) {
    const ssize_t put = ::write(fd, content.data(), content.size());
    if (put < 0) {
      if (errno == EINTR) continue;
      return errno;
    }
    content.remove_prefix(static_cast<std::size_t>(put));
  }
  return 0;
}

}  // namespace

std::string private_name(std::string_view other_name) {
  return fmt::format("{}{}.{}.{}", kPrivatePrefix, ::getpid(), ::gettid(), other_name).substr(0, NAME_MAX);
}

void sweep_private_names(int directory) {
  base::UniqueFd fd{::openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
  DIR* const list = fd ? ::fdopendir(fd.get()) : nullptr;
  if (list == nullptr) return;
  static_cast<void>(fd.release());
  // Of a directory that somebody fills, no more than costs nothing: the rest is swept another time.
  constexpr int kMostNames = 8192;
  for (int seen = 0; seen < kMostNames; ++seen) {
    const dirent* const entry = ::readdir(list);
    if (entry == nullptr) break;
    std::string_view name{entry->d_name};
    if (!name.starts_with(kPrivatePrefix)) continue;
    name.remove_prefix(kPrivatePrefix.size());
    pid_t pid = 0;
    std::from_chars(name.data(), name.data() + name.size(), pid);
    if (pid > 0 && !base::is_alive({pid, 0})) ::unlinkat(directory, entry->d_name, 0);
  }
  ::closedir(list);
}

std::expected<UnnamedFile, int> UnnamedFile::make(int directory, std::string_view content, mode_t mode) {
  UnnamedFile file;
  file.directory_ = directory;
  file.fd_.reset(::openat(directory, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, mode));
  if (!file.fd_ && (errno == EOPNOTSUPP || errno == EISDIR)) {
    // A file system without O_TMPFILE: a private name, removed again by the destructor.
    file.temporary_ = private_name(fmt::format("{:x}", reinterpret_cast<std::uintptr_t>(&file)));
    file.fd_.reset(
        ::openat(directory, file.temporary_.c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC | O_NOFOLLOW, mode));
    if (!file.fd_) file.temporary_.clear();
  }
  if (!file.fd_) return std::unexpected(errno);
  struct stat made{};
  if (::fstat(file.fd_.get(), &made) != 0) return std::unexpected(errno);
  file.inode_ = {made.st_dev, made.st_ino};
  // The process's umask is not ours to change (other threads), so the mode is set on the file.
  if ((made.st_mode & 07777U) != mode && ::fchmod(file.fd_.get(), mode) != 0) return std::unexpected(errno);
  if (const int errnum = write_all(file.fd_.get(), content); errnum != 0) return std::unexpected(errnum);
  return file;
}

UnnamedFile::~UnnamedFile() {
  if (!temporary_.empty()) ::unlinkat(directory_, temporary_.c_str(), 0);
}

int UnnamedFile::link_as(const std::string& name) const {
  // linkat(2): AT_EMPTY_PATH would need CAP_DAC_READ_SEARCH; the descriptor's /proc name does not.
  const std::string source = temporary_.empty() ? fmt::format("/proc/self/fd/{}", fd_.get()) : temporary_;
  const int source_directory = temporary_.empty() ? AT_FDCWD : directory_;
  const int flags = temporary_.empty() ? AT_SYMLINK_FOLLOW : 0;
  if (::linkat(source_directory, source.c_str(), directory_, name.c_str(), flags) == 0) return 0;
  if (errno != ENOENT || !temporary_.empty()) return errno;
  // No /proc here.
  return ::linkat(fd_.get(), "", directory_, name.c_str(), AT_EMPTY_PATH) == 0 ? 0 : errno;
}

base::UniqueFd UnnamedFile::take_descriptor() { return std::move(fd_); }

bool is_lock_file(int fd, const std::string& path) {
  struct stat given{};
  struct stat named{};
  return ::fstat(fd, &given) == 0 && S_ISREG(given.st_mode) &&
         (::fcntl(fd, F_GETFL) & (O_ACCMODE | O_PATH)) == O_RDWR && ::lstat(path.c_str(), &named) == 0 &&
         given.st_dev == named.st_dev && given.st_ino == named.st_ino;
}

std::expected<LockFile, LockFileError> open_lock_file(const std::string& path) {
  // Never O_CREAT on a name that may exist: with fs.protected_regular even root is refused another user's file in a
  // sticky directory (proc_sys_fs(5)), and a planted file would be taken for ours.
  for (int attempt = 0; attempt < 8; ++attempt) {
    base::ProcessFd fd = base::ProcessFd::open(path.c_str(), O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    if (fd) {
      struct stat status{};
      if (::fstat(fd.get(), &status) != 0) return std::unexpected(LockFileError{errno, true});
      if (!S_ISREG(status.st_mode)) return std::unexpected(LockFileError{EINVAL, true});
      // A second name could be another file of somebody's that our records would overwrite.
      if (status.st_nlink > 1) return std::unexpected(LockFileError{EMLINK, true});
      return LockFile{std::move(fd), {status.st_dev, status.st_ino}};
    }
    if (errno != ENOENT) return std::unexpected(LockFileError{errno, true});
    const auto slash = path.rfind('/');
    const std::string directory_path = slash == std::string::npos ? "." : path.substr(0, slash);
    const base::UniqueFd directory{::open(directory_path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC)};
    if (!directory) return std::unexpected(LockFileError{errno, false});
    const auto file = UnnamedFile::make(directory.get(), {}, 0666);
    if (!file) return std::unexpected(LockFileError{file.error(), false});
    const int linked = file->link_as(path.substr(slash + 1));
    if (linked != 0 && linked != EEXIST) return std::unexpected(LockFileError{linked, false});
  }
  return std::unexpected(LockFileError{EAGAIN, true});
}

}  // namespace holdfast::convention
