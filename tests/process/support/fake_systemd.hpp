// SPDX-License-Identifier: MIT
// fake_systemd.hpp - a service manager of the test's own: hears what a service notifies, keeps the descriptors that it
// is sent, and passes them on to the next one.
#pragma once

#include "base/unique_fd.hpp"
#include "process/support/child.hpp"
#include "process/support/devices.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace holdfast::testing_support {

/// What a service manager does about a service's words and descriptors (systemd: core/service.c,
/// service_notify_message()).
class FakeSystemd {
 public:
  FakeSystemd() : socket_{::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)} {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path_.copy(address.sun_path, sizeof address.sun_path - 1);
    EXPECT_EQ(::bind(socket_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    ::setenv("NOTIFY_SOCKET", path_.c_str(), 1);
  }
  ~FakeSystemd() { ::unsetenv("NOTIFY_SOCKET"); }

  /// Reads all that was sent.
  void hear() {
    while (true) {
      std::array<char, 4096> text;
      union {
        cmsghdr aligned;
        std::array<char, CMSG_SPACE(16 * sizeof(int))> bytes;
      } ancillary;
      iovec data{text.data(), text.size()};
      msghdr header{};
      header.msg_iov = &data;
      header.msg_iovlen = 1;
      header.msg_control = &ancillary;
      header.msg_controllen = sizeof ancillary;
      const ssize_t got = ::recvmsg(socket_.get(), &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
      if (got < 0) return;
      std::vector<base::UniqueFd> fds;
      for (cmsghdr* part = CMSG_FIRSTHDR(&header); part != nullptr; part = CMSG_NXTHDR(&header, part)) {
        int fd = -1;
        EXPECT_EQ(part->cmsg_len, CMSG_LEN(sizeof fd)) << "one at a time";
        std::memcpy(&fd, CMSG_DATA(part), sizeof fd);
        fds.emplace_back(fd);
      }
      understand({text.data(), static_cast<std::size_t>(got)}, fds);
    }
  }

  [[nodiscard]] std::vector<std::string> names() const {
    std::vector<std::string> list;
    for (const auto& [name, fd] : kept_) list.push_back(name);
    return list;
  }

  /// In a child: as the started service finds it, descriptors from 3 on and their names.
  void pass_on() const {
    std::string all;
    int to = 3;
    for (const auto& [name, fd] : kept_) {
      all += (all.empty() ? "" : ":") + name;
      passed_.push_back(::fcntl(fd.get(), F_DUPFD, 100));
    }
    for (const int fd : passed_) ::dup2(fd, to++);
    for (const int fd : passed_) ::close(fd);
    ::setenv("LISTEN_FDS", std::to_string(passed_.size()).c_str(), 1);
    ::setenv("LISTEN_FDNAMES", all.c_str(), 1);
    ::setenv("LISTEN_PID", std::to_string(::getpid()).c_str(), 1);
  }

  /// Whether a line of it was sent, after some patience.
  [[nodiscard]] bool hears(const std::string& line) {
    return waits_until([&] { return said_.find("\n" + line + "\n") != std::string::npos; });
  }
  [[nodiscard]] bool waits_until(const std::function<bool()>& what) {
    const Stopwatch watch;
    while (true) {
      hear();
      if (what()) return true;
      if (watch.ms() > static_cast<double>(kPatience.count())) return false;
      pollfd more{socket_.get(), POLLIN, 0};
      ::poll(&more, 1, 1000);
    }
  }
  void forget() { said_ = "\n"; }

  void put(const std::string& name, base::UniqueFd fd) { kept_[name] = std::move(fd); }

 private:
  void understand(std::string_view text, std::vector<base::UniqueFd>& fds) {
    said_ += std::string{text} + "\n";
    const auto value_of = [&](std::string_view key) -> std::string {
      const auto at = text.find(key);
      if (at == std::string_view::npos) return {};
      const auto from = at + key.size();
      return std::string{text.substr(from, text.find('\n', from) - from)};
    };
    const std::string name = value_of("FDNAME=");
    if (value_of("FDSTOREREMOVE=") == "1") kept_.erase(name);
    if (value_of("FDSTORE=") != "1") return;
    EXPECT_EQ(value_of("FDPOLL="), "0") << "or a hang-up of the device would end it";
    ASSERT_EQ(fds.size(), 1U);
    kept_[name] = std::move(fds.front());
  }

  TemporaryDirectory directory_;
  std::string path_ = directory_ / "notify";
  base::UniqueFd socket_;
  std::map<std::string, base::UniqueFd> kept_;
  std::string said_ = "\n";
  mutable std::vector<int> passed_;
};

}  // namespace holdfast::testing_support
