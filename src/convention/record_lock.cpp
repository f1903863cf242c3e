// SPDX-License-Identifier: MIT
// record_lock.cpp - see the header.
#include "convention/record_lock.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

namespace holdfast::convention {
namespace {

struct flock request(RecordLock lock, Range range) {
  struct flock words{};  // l_pid must be 0 for the OFD commands
  words.l_type = static_cast<short>(lock == RecordLock::write ? F_WRLCK : lock == RecordLock::read ? F_RDLCK : F_UNLCK);
  words.l_whence = SEEK_SET;
  words.l_start = range.start;
  words.l_len = range.length;
  return words;
}

}  // namespace

LockAnswer set_record_lock(int fd, RecordLock lock, Range range) noexcept {
  struct flock words = request(lock, range);
  const int answer = ::fcntl(fd, F_OFD_SETLK, &words);
  if (answer == 0) return LockAnswer::taken;
  if (answer > 0) return LockAnswer::covered;
  return errno == EAGAIN || errno == EACCES ? LockAnswer::busy : LockAnswer::failed;
}

void drop_record_lock(int fd, Range range) noexcept { static_cast<void>(set_record_lock(fd, RecordLock::none, range)); }

std::optional<pid_t> who_blocks(int fd, RecordLock lock, Range range) noexcept {
  struct flock words = request(lock, range);
  if (::fcntl(fd, F_OFD_GETLK, &words) != 0 || words.l_type == F_UNLCK) return std::nullopt;
  return words.l_pid;
}

}  // namespace holdfast::convention
