// SPDX-License-Identifier: MIT
// broker_soak_test.cpp - clients of all kinds fight for three devices: through the library and the broker, through the
// library without it, letter by letter on the wire, and strangers who know flock(2) alone. They are killed at random,
// and so is the broker. The checker of support/overlap.hpp must not see one overlap, and nothing may come to a
// standstill.
#include "process/support/broker.hpp"
#include "process/support/devices.hpp"
#include "process/support/overlap.hpp"
#include "process/support/raw_client.hpp"

#include <holdfast/claim.hpp>

#include <gtest/gtest.h>

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

namespace holdfast {
namespace {

using namespace testing_support;
using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

enum class Kind { library, daemonless, wire, stranger, liar };

// A liar holds without having claimed: the negative control.
constexpr std::array kHonest{Kind::library,    Kind::library, Kind::library, Kind::library, Kind::library,
                             Kind::daemonless, Kind::wire,    Kind::wire,    Kind::stranger};
constexpr std::array kOneLiar{Kind::library, Kind::library, Kind::wire, Kind::liar};

constexpr auto kStandstill = 12s;  // a client looks for its broker for five seconds; a busy machine may need more

class Worker {
 public:
  Worker(Boards& boards, const std::vector<std::string>& devices, std::string socket, int number)
      : boards_{boards},
        devices_{devices},
        socket_{std::move(socket)},
        number_{number},
        random_{static_cast<unsigned>(::getpid())} {}

  [[noreturn]] void work(Kind kind) {
    if (kind == Kind::daemonless) ::setenv("HOLDFAST_SOCKET", "", 1);
    while (true) {
      device_ = random_() % devices_.size();
      mode_ = kind == Kind::stranger || random_() % 3 == 0 ? Mode::exclusive : Mode::shared;
      switch (kind) {
        case Kind::library:
        case Kind::daemonless:
          by_library();
          break;
        case Kind::wire:
          by_wire();
          break;
        case Kind::stranger:
          by_flock();
          break;
        case Kind::liar:
          hold();
          break;
      }
    }
  }

 private:
  void hold() { boards_.hold(boards_.devices[device_], mode_, number_, static_cast<int>(random_() % 1000)); }

  void fault(const std::string& words) {
    ++boards_.faults;
    std::printf("fault: %s\n", words.c_str());
    std::fflush(stdout);
  }

  void by_library() {
    auto mine = claim(devices_[device_], {.mode = mode_, .wait = Wait::at_most(3s)});
    if (mine) return hold();
    if (mine.error().code != errc::timed_out) fault(mine.error().message);
  }

  // Until the broker is there.
  void connect() {
    while (!client_ || !client_->connected()) {
      client_.emplace(socket_);
      if (!client_->connected()) ::usleep(1000);
    }
  }

  void by_wire() {
    connect();
    wire::Claim wanted = claim_of(devices_[device_], {true, 3s});
    wanted.mode = mode_;
    const std::uint32_t number = client_->send(wanted);
    Answer answer = client_->answer_to(number);
    if (answer.words == "queued") answer = client_->answer_to(number);
    // What a dead broker had not read is told once, before the grant that it may have sent (unix_release_sock()).
    if (answer.words == "(gone)") answer = client_->answer_to(number);
    if (answer.words == "queued") answer = client_->answer_to(number);
    if (!answer.body) return client_.reset();
    if (answer.words != "granted") {
      if (answer.code() != errc::timed_out) fault(answer.words);
      return;
    }
    hold();
    // The descriptors keep strangers out while there is no broker: they go when it has been told.
    bool broker_died = false;
    while (true) {
      const Answer released = client_->ask(wire::Release{answer.claim()});
      if (released.words == "done") return;
      if (released.body) {
        // The broker before this one may have done it without having said so.
        if (!broker_died || released.code() != errc::not_held) fault("release: " + released.words);
        return;
      }
      client_.reset();
      connect();
      broker_died = true;
    }
  }

  // A stranger that keeps trying, as picocom's user would.
  void by_flock() {
    const base::UniqueFd node{::open(devices_[device_].c_str(), O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC)};
    if (node && ::flock(node.get(), LOCK_EX | LOCK_NB) == 0) hold();
    ::usleep(static_cast<useconds_t>(random_() % 20'000));
  }

  Boards& boards_;
  const std::vector<std::string>& devices_;
  std::string socket_;
  int number_;
  std::minstd_rand random_;
  std::size_t device_ = 0;
  Mode mode_ = Mode::exclusive;
  std::optional<RawClient> client_;
};

class Soak {
 public:
  template <class Kinds>
  Soak(BrokerUnderTest& broker, std::vector<std::string> devices, const Kinds& kinds)
      : broker_{broker}, devices_{std::move(devices)}, kinds_{kinds.begin(), kinds.end()}, workers_(kinds.size()) {
    for (std::size_t worker = 0; worker < kinds_.size(); ++worker) bear(worker);
  }
  Soak(const Soak&) = delete;
  Soak& operator=(const Soak&) = delete;
  ~Soak() {
    for (std::size_t worker = 0; worker < kinds_.size(); ++worker) end(worker);
  }

  void run(Clock::duration duration) {
    std::minstd_rand random{4711};
    const auto until = Clock::now() + duration;
    last_moved_.fill(Clock::now());
    while (Clock::now() < until) {
      ::poll(nullptr, 0, static_cast<int>(random() % 60));
      if (random() % 20 == 0) {
        broker_.kill();
        ++broker_kills_;
        if (random() % 2 == 0) ::poll(nullptr, 0, static_cast<int>(random() % 300));
        broker_.start();
      } else {
        const std::size_t victim = random() % kinds_.size();
        end(victim);
        bear(victim);
        ++kills_;
      }
      look_for_progress();
    }
  }

  [[nodiscard]] const Boards& boards() const { return *boards_; }
  [[nodiscard]] int kills() const { return kills_; }
  [[nodiscard]] int broker_kills() const { return broker_kills_; }
  [[nodiscard]] double longest_standstill() const { return std::chrono::duration<double>{longest_}.count(); }

 private:
  void bear(std::size_t worker) {
    std::fflush(nullptr);
    const pid_t pid = ::fork();
    if (pid < 0) std::abort();
    if (pid == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      Worker{*boards_, devices_, broker_.socket(), static_cast<int>(worker)}.work(kinds_[worker]);
    }
    workers_[worker] = pid;
  }

  void end(std::size_t worker) {
    const pid_t pid = workers_[worker];
    const base::UniqueFd pidfd = pidfd_of(pid);
    ::kill(pid, SIGKILL);
    static_cast<void>(wait_for_death(pidfd.get()));
    boards_->forget(pid);
    ::waitpid(pid, nullptr, 0);
  }

  void look_for_progress() {
    for (std::size_t i = 0; i < 2 * devices_.size(); ++i) {
      const std::uint64_t now = boards_->devices[i / 2].grants[i % 2];
      if (now != seen_[i]) last_moved_[i] = Clock::now();
      seen_[i] = now;
      longest_ = std::max(longest_, Clock::now() - last_moved_[i]);
    }
  }

  BrokerUnderTest& broker_;
  std::vector<std::string> devices_;
  std::vector<Kind> kinds_;
  SharedBoards boards_;
  std::vector<pid_t> workers_;
  std::array<std::uint64_t, 6> seen_{};
  std::array<Clock::time_point, 6> last_moved_{};
  Clock::duration longest_{};
  int kills_ = 0;
  int broker_kills_ = 0;
};

Clock::duration soak_time() {
  if (const char* seconds = std::getenv("HOLDFAST_SOAK_SECONDS")) return std::chrono::seconds{std::atoi(seconds)};
  const char* ci = std::getenv("CI");
  return ci != nullptr && std::string{ci} == "true" ? 60s : 10s;
}

TEST(BrokerSoak, with_kills_of_clients_and_of_the_broker_shows_no_overlap_and_no_standstill) {
  const Pty first;
  const Pty second;
  const LoopDevice loop;
  std::vector<std::string> devices{first.path(), second.path()};
  if (loop.missing().empty()) devices.push_back(loop.path());
  BrokerUnderTest broker;
  const int descriptors = broker.descriptors();
  {
    Soak soak{broker, devices, kHonest};
    soak.run(soak_time());
    std::printf("%llu grants, %d kills of clients, %d of the broker, longest standstill of a mode on a device %.2f s\n",
                static_cast<unsigned long long>(soak.boards().grants()), soak.kills(), soak.broker_kills(),
                soak.longest_standstill());
    EXPECT_EQ(soak.boards().overlaps, 0);
    EXPECT_EQ(soak.boards().faults, 0);
    EXPECT_LT(soak.longest_standstill(), std::chrono::duration<double>{kStandstill}.count());
    EXPECT_GT(soak.kills(), 10);
    EXPECT_GT(soak.broker_kills(), 1);
    EXPECT_GT(soak.boards().grants(), 100U);
  }
  EXPECT_TRUE(broker.descriptors_fall_to(descriptors)) << broker.descriptors() << " instead of " << descriptors;
}

TEST(BrokerSoak, with_one_who_only_pretends_to_claim_is_caught_by_the_checker) {
  const Pty pty;
  BrokerUnderTest broker;
  Soak soak{broker, {pty.path()}, kOneLiar};
  soak.run(1s);
  EXPECT_GT(soak.boards().overlaps, 0);
}

}  // namespace
}  // namespace holdfast
