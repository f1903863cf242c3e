// SPDX-License-Identifier: MIT
// monitor.cpp - one JSON object a line; what is none of ours (events) is read over.
#include "vm/support/monitor.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <unistd.h>

#include <array>
#include <chrono>

namespace holdfast::vm {
namespace {

constexpr std::chrono::seconds kPatience{30};

}  // namespace

Monitor::Monitor() : port_{::open("/dev/virtio-ports/monitor", O_RDWR | O_NONBLOCK | O_CLOEXEC)} {
  EXPECT_TRUE(port_) << "no /dev/virtio-ports/monitor";
  ask("qmp_capabilities");
}

std::string Monitor::line() {
  const auto end = std::chrono::steady_clock::now() + kPatience;
  for (;;) {
    if (const auto at = pending_.find('\n'); at != std::string::npos) {
      std::string one = pending_.substr(0, at);
      pending_.erase(0, at + 1);
      return one;
    }
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - std::chrono::steady_clock::now());
    pollfd readable{.fd = port_.get(), .events = POLLIN, .revents = 0};
    if (left.count() <= 0 || ::poll(&readable, 1, static_cast<int>(left.count())) <= 0) return {};
    std::array<char, 4096> buffer{};
    const ssize_t size = ::read(port_.get(), buffer.data(), buffer.size());
    if (size > 0) pending_.append(buffer.data(), static_cast<std::size_t>(size));
  }
}

std::string Monitor::line_with(std::string_view word) {
  for (;;) {
    std::string one = line();
    if (one.empty() || one.find(word) != std::string::npos) return one;
  }
}

std::string Monitor::ask(std::string_view command, std::string_view arguments) {
  static int number = 0;
  const std::string id = fmt::format("ask-{}-{}", ::getpid(), ++number);
  const std::string request = fmt::format(R"({{"execute": "{}", "arguments": {}, "id": "{}"}})"
                                          "\n",
                                          command, arguments, id);
  EXPECT_EQ(::write(port_.get(), request.data(), request.size()), static_cast<ssize_t>(request.size()));
  return line_with(id);
}

void Monitor::unplug(std::string_view id) {
  const std::string answer = ask("device_del", fmt::format(R"({{"id": "{}"}})", id));
  ASSERT_NE(answer.find("return"), std::string::npos) << answer;
  // The event comes when the guest has let go of it (QEMU qapi/qdev.json DEVICE_DELETED).
  for (;;) {
    const std::string event = line_with("DEVICE_DELETED");
    ASSERT_FALSE(event.empty()) << id << " was not let go";
    if (event.find(fmt::format(R"("{}")", id)) != std::string::npos) return;
  }
}

void Monitor::plug(std::string_view device) {
  const std::string answer = ask("device_add", device);
  ASSERT_NE(answer.find("return"), std::string::npos) << answer;
}

}  // namespace holdfast::vm
