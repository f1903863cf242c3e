// SPDX-License-Identifier: MIT
// open_audit.cpp - see the header. The events go to a trace instance of our own, so that nobody else's tracing is met.
#include "vm/support/open_audit.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <regex>

namespace holdfast::vm {
namespace {

const std::string kTracing = "/sys/kernel/tracing";

// One write(2), as tracefs wants it; errno's text when it is refused.
std::string put(const std::string& file, const std::string& text, int flags) {
  const int fd = ::open(file.c_str(), O_WRONLY | O_CLOEXEC | flags);
  const bool done = fd >= 0 && ::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  const std::string wrong = done ? "" : fmt::format("{}: {}", file, std::strerror(errno));
  ::close(fd);
  return wrong;
}

}  // namespace

OpenAudit::OpenAudit() : group_{fmt::format("lab_{}", ::getpid())}, instance_{kTracing + "/instances/" + group_} {
  if (::access((kTracing + "/kprobe_events").c_str(), F_OK) != 0) {
    EXPECT_EQ(::mount("tracefs", kTracing.c_str(), "tracefs", 0, nullptr), 0) << std::strerror(errno);
  }
  // Both are called with the inode first (fs/char_dev.c, block/fops.c). i_rdev lies 76 bytes into struct inode on the
  // lab's kernels; a test opens a known number to see that it still does.
  const std::string probes[] = {
      fmt::format("p:{}/block blkdev_open number=+76($arg1):u32", group_),
      fmt::format("p:{}/char chrdev_open number=+76($arg1):u32", group_),
      fmt::format("p:{}/sr sr_mod:sr_block_open", group_),
  };
  for (const std::string& probe : probes) EXPECT_EQ(put(kTracing + "/kprobe_events", probe, O_APPEND), "") << probe;
  EXPECT_EQ(::mkdir(instance_.c_str(), 0700), 0) << std::strerror(errno);
  EXPECT_EQ(put(instance_ + "/events/" + group_ + "/enable", "1", 0), "");
}

OpenAudit::~OpenAudit() {
  put(instance_ + "/events/" + group_ + "/enable", "0", 0);
  ::rmdir(instance_.c_str());
  for (const char* const probe : {"block", "char", "sr"})
    put(kTracing + "/kprobe_events", fmt::format("-:{}/{}", group_, probe), O_APPEND);
}

void OpenAudit::forget() { EXPECT_EQ(put(instance_ + "/trace", "", O_TRUNC), ""); }

std::vector<std::string> OpenAudit::opened_by(pid_t pid) const {
  // "  comm-123  [001] d... 12.345: block: (blkdev_open+0x0/0x90) number=11534336"
  static const std::regex kLine{R"(-(\d+)\s+\[\d+\].*: (block|char|sr): \(.*\)(?: number=(\d+))?$)"};
  std::vector<std::string> opened;
  std::ifstream trace{instance_ + "/trace"};
  for (std::string line; std::getline(trace, line);) {
    std::smatch part;
    if (!std::regex_search(line, part, kLine) || std::stol(part[1]) != pid) continue;
    if (part[2] == "sr") {
      opened.emplace_back("sr");
      continue;
    }
    const unsigned long number = std::stoul(part[3]);  // the kernel's own dev_t: include/linux/kdev_t.h, MINORBITS
    opened.push_back(fmt::format("{}{}:{}", part[2] == "block" ? 'b' : 'c', number >> 20, number & 0xFFFFF));
  }
  return opened;
}

}  // namespace holdfast::vm
