// SPDX-License-Identifier: MIT
// devices.cpp - see the header.
#include "process/support/devices.hpp"

#include "process/support/child.hpp"
#include "process/support/loop.hpp"

#include "convention/proxy.hpp"
#include "convention/uucp.hpp"
#include "device/device.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <unistd.h>
#include <holdfast/claim.hpp>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>

namespace holdfast::testing_support {

using base::UniqueFd;

namespace {

// A terminal's number is used again as soon as nobody has it open, and a claim closes its node before it gives the lock
// files and the proxy back: another test's claim may be on its way out.
void outlast_the_predecessor(const std::string& path) {
  Options options;
  options.opening = Opening::never;
  options.wait = Wait::at_most(std::chrono::seconds{20});
  if (!claim(path, options)) std::abort();
}

}  // namespace

Pty::Pty() : master_{::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC)} {
  char name[64] = "";
  if (!master_ || ::grantpt(master_.get()) != 0 || ::unlockpt(master_.get()) != 0 ||
      ::ptsname_r(master_.get(), name, sizeof name) != 0)
    std::abort();
  path_ = name;
  outlast_the_predecessor(path_);
}

LoopDevice::LoopDevice() {
  const UniqueFd backing{::memfd_create("holdfast-loop", MFD_CLOEXEC)};
  if (backing && ::ftruncate(backing.get(), 1 << 20) == 0) path_ = attach_loop(backing.get());
  if (path_.empty()) missing_ = std::string{"loop devices: "} + std::strerror(errno);
}

LoopDevice::~LoopDevice() {
  if (!path_.empty()) detach_loop(path_);
}

TurnAtThePort::TurnAtThePort() : turn_{::open("/tmp/holdfast-test-turn", O_RDWR | O_CREAT | O_CLOEXEC, 0600)} {
  while (turn_ && ::flock(turn_.get(), LOCK_EX) != 0 && errno == EINTR) {
  }
}

TemporaryDirectory::TemporaryDirectory() : path_{"/tmp/holdfast-test-XXXXXX"} {
  if (::mkdtemp(path_.data()) == nullptr) std::abort();
}

TemporaryDirectory::~TemporaryDirectory() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::vector<std::string> lock_files_of(const std::string& path) {
  std::vector<std::string> found;
  const auto device = device::identify(path);
  if (!device) return found;
  auto names = convention::uucp_names(*device, device->node);
  names.create.insert(names.create.end(), names.watch.begin(), names.watch.end());
  for (const std::string& name : names.create)
    if (const std::string file = "/run/lock/" + name;
        ::faccessat(AT_FDCWD, file.c_str(), F_OK, AT_SYMLINK_NOFOLLOW) == 0)
      found.push_back(file);
  // On their way to one of the names.
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator{"/run/lock", ignored}) {
    const std::string name = entry.path().filename();
    if (name.starts_with(".holdfast-tmp.") &&
        std::ranges::any_of(names.create, [&](const std::string& other) { return name.ends_with("." + other); }))
      found.push_back(entry.path());
  }
  return found;
}

bool waited_for(const std::string& device, std::size_t count) {
  const auto identity = device::identify(device);
  const Stopwatch watch;
  while (identity && watch.ms() < 10'000) {
    const auto records = convention::read_proxy(convention::proxy_path(identity->node.id, {}));
    if (records && static_cast<std::size_t>(std::count_if(records->begin(), records->end(),
                                                          [](const auto& record) { return record.waiting; })) >= count)
      return true;
    ::poll(nullptr, 0, 1);
  }
  return false;
}

std::string private_lock_directory(const std::string& options) {
  if (::unshare(CLONE_NEWNS) != 0) return std::string{"a mount namespace: "} + std::strerror(errno);
  if (::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
      ::mount("holdfast-test", "/run/lock", "tmpfs", MS_NOSUID | MS_NODEV, options.c_str()) != 0)
    return std::string{"mounting a tmpfs: "} + std::strerror(errno);
  return {};
}

}  // namespace holdfast::testing_support
