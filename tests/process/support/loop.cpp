// SPDX-License-Identifier: MIT
// loop.cpp - see the header.
#include "process/support/loop.hpp"

#include "base/unique_fd.hpp"

#include <fcntl.h>
#include <linux/loop.h>
#include <sys/file.h>
#include <sys/ioctl.h>

#include <cerrno>

namespace holdfast::testing_support {

using base::UniqueFd;

std::string attach_loop(int file, std::uint32_t flags) {
  const UniqueFd turn{::open("/tmp/holdfast-test-loop", O_RDWR | O_CREAT | O_CLOEXEC, 0666)};
  while (turn && ::flock(turn.get(), LOCK_EX) != 0 && errno == EINTR) {
  }
  const UniqueFd control{::open("/dev/loop-control", O_RDWR | O_CLOEXEC)};
  if (!control) return {};
  // Others than tests take the number that was free a moment ago: try again.
  for (int attempt = 0; attempt < 50; ++attempt) {
    const int number = ::ioctl(control.get(), LOOP_CTL_GET_FREE);
    if (number < 0) return {};
    std::string path = "/dev/loop" + std::to_string(number);
    const UniqueFd loop{::open(path.c_str(), O_RDWR | O_CLOEXEC)};
    if (!loop) return {};
    loop_config config{};
    config.fd = static_cast<__u32>(file);
    config.info.lo_flags = flags;
    if (::ioctl(loop.get(), LOOP_CONFIGURE, &config) == 0) return path;
    if (errno != EBUSY) return {};
  }
  return {};
}

void detach_loop(const std::string& path) {
  const UniqueFd loop{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (loop) ::ioctl(loop.get(), LOOP_CLR_FD, 0);
}

}  // namespace holdfast::testing_support
