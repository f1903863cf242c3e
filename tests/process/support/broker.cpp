// SPDX-License-Identifier: MIT
// broker.cpp - see the header.
#include "process/support/broker.hpp"

#include "process/support/raw_client.hpp"

#include <gtest/gtest.h>

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>

namespace holdfast::testing_support {

using base::UniqueFd;

namespace {

// What is written to a full pipe is lost, rather than that the broker waits for a test that does not read.
constexpr int kPipeBytes = 1 << 20;

[[noreturn]] void become_the_broker(const std::vector<std::string>& words, int standard_error, int listener) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  ::dup2(standard_error, STDERR_FILENO);
  std::vector<char*> arguments;
  for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  ::unsetenv("NOTIFY_SOCKET");
  ::unsetenv("LISTEN_FDS");
  if (listener >= 0) {  // sd_listen_fds(3)
    constexpr int kFirst = 3;
    ::dup2(listener, kFirst);
    ::fcntl(kFirst, F_SETFD, 0);
    ::setenv("LISTEN_FDS", "1", 1);
    ::setenv("LISTEN_PID", std::to_string(::getpid()).c_str(), 1);
  }
  ::execv(arguments[0], arguments.data());
  ::_exit(127);
}

}  // namespace

BrokerUnderTest::BrokerUnderTest(std::vector<std::string> options, std::string program, Socket whose)
    : options_{std::move(options)}, program_{std::move(program)} {
  std::filesystem::create_directory(state());
  // Clients of another user, in tests of permission, must be able to reach the socket.
  std::filesystem::permissions(folder_.path(), static_cast<std::filesystem::perms>(0711));
  if (whose == Socket::units) listen();
  start();
  ::setenv("HOLDFAST_SOCKET", socket().c_str(), 1);
}

BrokerUnderTest::~BrokerUnderTest() {
  ::setenv("HOLDFAST_SOCKET", "", 1);
  if (pid_ > 0) {
    outlast_hang_ups();
    const int status = stop();
    EXPECT_EQ(status, 0) << "the broker's end; it said:\n" << log();
    kill();
  }
  EXPECT_EQ(log().find("Sanitizer"), std::string::npos) << log();
  EXPECT_EQ(log_.find("runtime error"), std::string::npos) << log_;
}

void BrokerUnderTest::listen() {
  listener_.reset(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  socket().copy(address.sun_path, sizeof address.sun_path - 1);
  EXPECT_EQ(::bind(listener_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  EXPECT_EQ(::listen(listener_.get(), SOMAXCONN), 0);
}

void BrokerUnderTest::start() {
  std::vector<std::string> words{program_, "--socket", socket(), "--state", state(), "--history", "none"};
  words.insert(words.end(), options_.begin(), options_.end());
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) std::abort();
  heard_.reset(ends[0]);
  const UniqueFd theirs{ends[1]};
  ::fcntl(ends[1], F_SETPIPE_SZ, kPipeBytes);
  std::fflush(nullptr);
  pid_ = ::fork();
  if (pid_ < 0) std::abort();
  if (pid_ == 0) become_the_broker(words, theirs.get(), listener_.get());
  const UniqueFd pidfd = pidfd_of(pid_);
  const std::size_t before = log_.size();
  const Stopwatch watch;
  while (log().find("ready on", before) == std::string::npos) {
    std::array<pollfd, 2> heard{{{heard_.get(), POLLIN, 0}, {pidfd.get(), POLLIN, 0}}};
    ::poll(heard.data(), heard.size(), 1000);
    const bool dead = (heard[1].revents & POLLIN) != 0;
    if (!dead && watch.ms() < static_cast<double>(kPatience.count())) continue;
    ADD_FAILURE() << "holdfastd does not get ready; it said:\n" << log();
    kill();
    return;
  }
}

// Claims stay with their clients when a broker stops, and this process may have hung up a moment ago: its lock files
// would stay for as long as it lives.
void BrokerUnderTest::outlast_hang_ups() const {
  RawClient client{socket()};
  const Stopwatch watch;
  const auto is_ours = [](const Holder& holder) { return holder.pid == ::getpid(); };
  const auto we_hold = [&](const wire::DeviceStatus& device) { return std::ranges::any_of(device.holders, is_ours); };
  while (client.connected() && watch.ms() < 1000) {
    const Answer answer = client.ask(wire::StatusQuery{});
    const auto* status = answer.as<wire::StatusAnswer>();
    if (status == nullptr || std::ranges::none_of(status->devices, we_hold)) return;
    ::poll(nullptr, 0, 1);
  }
}

int BrokerUnderTest::reap() {
  int status = 0;
  ::waitpid(pid_, &status, 0);
  pid_ = -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

void BrokerUnderTest::kill() {
  if (pid_ < 0) return;
  ::kill(pid_, SIGKILL);
  reap();
}

int BrokerUnderTest::stop() {
  if (pid_ < 0) return -1;
  const UniqueFd pidfd = pidfd_of(pid_);
  ::kill(pid_, SIGTERM);
  if (!wait_for_death(pidfd.get())) return -1;
  return reap();
}

std::string BrokerUnderTest::log() {
  std::array<char, 4096> text{};
  ssize_t got = 0;
  while ((got = ::read(heard_.get(), text.data(), text.size())) > 0)
    log_.append(text.data(), static_cast<std::size_t>(got));
  return log_;
}

int BrokerUnderTest::descriptors() const {
  std::error_code ignored;
  const std::filesystem::directory_iterator all{"/proc/" + std::to_string(pid_) + "/fd", ignored};
  return static_cast<int>(std::distance(begin(all), end(all)));
}

long BrokerUnderTest::memory_kib() const {
  std::ifstream status{"/proc/" + std::to_string(pid_) + "/status"};
  std::string line;
  while (std::getline(status, line))
    if (line.starts_with("RssAnon:")) return std::stol(line.substr(8));
  return -1;
}

double BrokerUnderTest::processor_ms() const {
  std::ifstream stat{"/proc/" + std::to_string(pid_) + "/stat"};
  std::string text{std::istreambuf_iterator<char>{stat}, {}};
  // Fields 14 and 15; the second is in parentheses and may contain anything (proc(5)).
  std::size_t at = text.rfind(')');
  for (int field = 2; field < 14 && at != std::string::npos; ++field) at = text.find(' ', at + 1);
  if (at == std::string::npos) return -1;
  char* rest = nullptr;
  const unsigned long user = std::strtoul(text.c_str() + at, &rest, 10);
  const unsigned long system = std::strtoul(rest, nullptr, 10);
  return static_cast<double>(user + system) * 1000 / static_cast<double>(::sysconf(_SC_CLK_TCK));
}

bool BrokerUnderTest::descriptors_fall_to(int most) const {
  const Stopwatch watch;
  while (descriptors() > most) {
    if (watch.ms() > static_cast<double>(kPatience.count())) return false;
    ::poll(nullptr, 0, 2);  // nothing tells of another process's closing
  }
  return true;
}

}  // namespace holdfast::testing_support
