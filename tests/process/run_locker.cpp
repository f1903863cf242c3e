// SPDX-License-Identifier: MIT
// run_locker.cpp - a program that locks and unlocks a device over and over in one way, as a command or as its
// contender.
//
// Usage: run_locker WAY PATH COUNT [FLAG_FILE]
// Prints how often it got the lock. With COUNT 0 it goes on until its standard input ends; FLAG_FILE, a UUCP lock
// file's path for the uucp ways, is then what it locks.
#include <fcntl.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>

namespace {

bool record_lock(int fd, int command, short type) {
  struct flock whole{};
  whole.l_type = type;
  whole.l_whence = SEEK_SET;
  return ::fcntl(fd, command, &whole) == 0;
}

bool write_pid(int fd) {
  char text[16];
  std::snprintf(text, sizeof text, "%10d\n", static_cast<int>(::getpid()));
  const bool written = ::write(fd, text, 11) == 11;
  ::close(fd);
  return written;
}

// One round; whether the lock was had.
bool round_of(std::string_view way, int fd, const char* path) {
  const std::string aside = std::string{path} + "." + std::to_string(::getpid());
  if (way == "flock") return ::flock(fd, LOCK_EX | LOCK_NB) == 0 && ::flock(fd, LOCK_UN) == 0;
  if (way == "ofd") return record_lock(fd, F_OFD_SETLK, F_WRLCK) && record_lock(fd, F_OFD_SETLK, F_UNLCK);
  if (way == "posix") return record_lock(fd, F_SETLK, F_WRLCK) && record_lock(fd, F_SETLK, F_UNLCK);
  if (way == "o_excl" || way == "o_excl_write") {
    const int own = ::open(path, (way == "o_excl" ? O_RDONLY : O_RDWR) | O_EXCL | O_NONBLOCK | O_CLOEXEC);
    return own >= 0 && ::close(own) == 0;
  }
  if (way == "flock_open") {
    const int own = ::open(path, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    const bool had = own >= 0 && ::flock(own, LOCK_EX | LOCK_NB) == 0;
    if (own >= 0) ::close(own);
    return had;
  }
  if (way == "uucp_create") {
    const int own = ::open(path, O_WRONLY | O_CREAT | O_EXCL, 0644);
    return own >= 0 && write_pid(own) && ::unlink(path) == 0;
  }
  if (way == "uucp_link" || way == "uucp_rename") {
    const int own = ::open(aside.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (own < 0 || !write_pid(own)) return false;
    if (way == "uucp_rename") {
      // A rename replaces what is there: its users look first.
      if (::access(path, F_OK) == 0) return ::unlink(aside.c_str()) != 0;
      return ::rename(aside.c_str(), path) == 0 && ::unlink(path) == 0;
    }
    const bool linked = ::link(aside.c_str(), path) == 0;
    ::unlink(aside.c_str());
    return linked && ::unlink(path) == 0;
  }
  std::fprintf(stderr, "run_locker: no such way\n");
  std::exit(64);
}

bool input_ended() {
  pollfd input{0, POLLIN, 0};
  return ::poll(&input, 1, 0) != 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) return 64;
  const std::string_view way{argv[1]};
  const char* const path = argv[2];
  const long count = std::atol(argv[3]);
  int fd = -1;
  if (way == "flock" || way == "ofd" || way == "posix") {
    fd = ::open(path, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) {
      std::printf("cannot open: %s\n", std::strerror(errno));
      return 71;
    }
  }
  std::printf("ready\n");
  std::fflush(stdout);
  long had = 0;
  long tried = 0;
  for (; count == 0 ? !input_ended() : tried < count; ++tried) had += round_of(way, fd, path) ? 1 : 0;
  std::printf("%ld %ld\n", had, tried);
  return 0;
}
