// SPDX-License-Identifier: MIT
// checksum_device.cpp - see the header.
#include "vm/kmod/checksum_device.hpp"

#include "interop/support/bench.hpp"
#include "process/support/child.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/ioctl.h>

#include <cerrno>
#include <ctime>
#include <fstream>

namespace holdfast::vm {

int ioctl_errno(int fd, unsigned long command, unsigned long argument) {
  return ::ioctl(fd, command, argument) < 0 ? errno : 0;
}

Checksum::Checksum(int flags) : fd_{::open(kChecksum, O_RDWR | O_CLOEXEC | flags)} {
  if (!fd_) ADD_FAILURE() << "cannot open " << kChecksum;
}

int Checksum::lock() const { return ioctl_errno(fd(), HF_IOC_LOCK, 0); }
int Checksum::try_lock() const { return ioctl_errno(fd(), HF_IOC_TRYLOCK, 0); }
int Checksum::unlock() const { return ioctl_errno(fd(), HF_IOC_UNLOCK, 0); }

int Checksum::lock_within(std::int64_t ns) const {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  const hf_exclusive_wait wait{static_cast<std::uint64_t>(now.tv_sec * 1'000'000'000 + now.tv_nsec + ns), 0, 0};
  return ioctl_errno(fd(), HF_IOC_LOCK_UNTIL, reinterpret_cast<unsigned long>(&wait));
}

int Checksum::process(std::string_view data) const {
  hf_checksum_process job{};
  job.data = reinterpret_cast<std::uint64_t>(data.data());
  job.size = data.size();
  return ioctl_errno(fd(), HF_IOC_PROCESS, reinterpret_cast<unsigned long>(&job));
}

hf_checksum_process Checksum::sums(std::string_view data) const {
  hf_checksum_process job{};
  job.data = reinterpret_cast<std::uint64_t>(data.data());
  job.size = data.size();
  EXPECT_EQ(ioctl_errno(fd(), HF_IOC_PROCESS, reinterpret_cast<unsigned long>(&job)), 0);
  return job;
}

hf_exclusive_owner Checksum::owner() const {
  hf_exclusive_owner owner{};
  EXPECT_EQ(ioctl_errno(fd(), HF_IOC_OWNER, reinterpret_cast<unsigned long>(&owner)), 0);
  return owner;
}

short Checksum::polled() const {
  pollfd events{fd(), POLLOUT | POLLIN, 0};
  return ::poll(&events, 1, 0) < 0 ? POLLNVAL : events.revents;
}

std::string attribute(const std::string& name) {
  std::ifstream file{"/sys/class/hf_checksum/hf_checksum0/" + name};
  std::string text;
  return std::getline(file, text) ? text : "(gone)";
}

int tell_kuser(char user, std::string_view words) {
  const base::UniqueFd file{
      ::open((std::string{"/sys/kernel/debug/checksum_kuser/"} + user).c_str(), O_WRONLY | O_CLOEXEC)};
  return ::write(file.get(), words.data(), words.size()) < 0 ? errno : 0;
}

bool waiters_are(unsigned count) {
  return interop::eventually([&] { return attribute("hf_exclusive/waiters") == std::to_string(count); }, {}, {},
                             testing_support::kPatience);
}

bool becomes_free() {
  return interop::eventually([] { return attribute("hf_exclusive/owner") == "none"; }, {}, {},
                             testing_support::kPatience);
}

}  // namespace holdfast::vm
