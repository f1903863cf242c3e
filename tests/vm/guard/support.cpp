// SPDX-License-Identifier: MIT
#include "vm/guard/support.hpp"

#include <bpf/bpf.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <string.h>

#include <algorithm>
#include <array>
#include <cerrno>

namespace holdfast::vm {

void GuardTest::SetUp() {
  ASSERT_TRUE(guard::lacks().empty()) << guard::lacks().front().what;
  const auto installed = guard::install();
  ASSERT_TRUE(installed) << installed.error().message;
  auto opened = guard::Guard::open();
  ASSERT_TRUE(opened) << opened.error().message;
  guard_.emplace(std::move(*opened));
  static_cast<void>(denied());
}

void GuardTest::TearDown() {
  if (!guard_) return;
  for (const guard::Enforced& claim : claims_) guard_->release(claim);
  if (!guard::installed()) return;
  EXPECT_TRUE(guard_->status().empty());
  EXPECT_EQ(guard_->switches().active, 0);
}

OneProcessor::OneProcessor() {
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(0, &one);
  EXPECT_EQ(::sched_getaffinity(0, sizeof before_, &before_), 0);
  EXPECT_EQ(::sched_setaffinity(0, sizeof one, &one), 0);
}

OneProcessor::~OneProcessor() { ::sched_setaffinity(0, sizeof before_, &before_); }

std::vector<device::Node> nodes_of(const std::vector<std::string>& paths) {
  std::vector<device::Node> nodes;
  for (const std::string& path : paths) {
    const auto node = device::look_at(path);
    EXPECT_TRUE(node) << path;
    if (node) nodes.push_back(*node);
  }
  return nodes;
}

std::vector<device::Node> made_up_nodes(unsigned first, unsigned count) {
  std::vector<device::Node> nodes;
  for (unsigned minor = first; minor < first + count; ++minor) {
    device::Node node;
    node.id = {.kind = device::Kind::character, .major = 240, .minor = minor};
    node.path = fmt::format("/dev/made_up{}", minor);
    nodes.push_back(node);
  }
  return nodes;
}

std::size_t entries_of(const std::string& map) {
  const auto fd = guard::pinned({}, "map_" + map);
  EXPECT_TRUE(fd) << fd.error().message;
  std::size_t count = 0;
  std::array<std::byte, 64> key{};  // larger than any
  bool more = fd && ::bpf_map_get_next_key(fd->get(), nullptr, key.data()) == 0;
  for (; more; more = ::bpf_map_get_next_key(fd->get(), key.data(), key.data()) == 0) ++count;
  return count;
}

guard::Enforced GuardTest::enforce(const std::vector<std::string>& paths, const guard::Owner& owner, Mode mode,
                                   std::optional<guard::BootClock::time_point> until) {
  auto claim = guard_->enforce(nodes_of(paths), owner, mode, until);
  EXPECT_TRUE(claim) << claim.error().message;
  if (!claim) return {};
  claims_.push_back(*claim);
  return *claim;
}

std::vector<std::string> GuardTest::denied() {
  std::vector<std::string> seen;
  guard_->drain([&](const guard::Denial& denial) {
    const auto device = device::identify(device::to_string(denial.device));
    seen.push_back(fmt::format("{}[{}] {} {}", denial.command, denial.pid, guard::to_string(denial.operation),
                               device ? device->node.path : "?"));
  });
  return seen;
}

std::string name_of(long result) {
  if (result >= 0) return "OK";
  const char* const name = ::strerrorname_np(errno);
  return name != nullptr ? name : std::to_string(errno);
}

std::string opened(const std::string& path, int flags) {
  const base::UniqueFd fd{::open(path.c_str(), flags | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)};
  return name_of(fd.get());
}

std::string opened(const std::string& path) { return opened(path, O_RDWR); }

}  // namespace holdfast::vm
