// SPDX-License-Identifier: MIT
// claim_race_test.cpp - sharers come and go in each other's midst. From other sharers a sharer's lock on the proxy does
// not protect it, so several change the same lock files at once. Here they are traced, one of them runs at a time, and
// a seeded die says at each system call who goes on: each schedule is one that the kernel could have chosen.
#include "process/support/child.hpp"
#include "process/support/devices.hpp"
#include "process/support/traced_run.hpp"

#include "convention/uucp.hpp"

#include <holdfast/claim.hpp>

#include <gtest/gtest.h>

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <random>
#include <string>
#include <vector>

namespace holdfast {
namespace {

using namespace testing_support;

constexpr int kSharers = 3;

unsigned schedules() {
  const char* const given = std::getenv("HOLDFAST_SCHEDULES");
  return given == nullptr ? 40U : static_cast<unsigned>(std::atoi(given));
}

// A child that goes from system call to system call as it is told.
class Stepped {
 public:
  explicit Stepped(const std::function<void()>& body) : pid_{traced_child(body)} {
    while (markers_ == 0 && go_on()) {
    }
  }
  Stepped(const Stepped&) = delete;
  Stepped& operator=(const Stepped&) = delete;
  ~Stepped() {
    if (over_) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }

  /// To the entry of its next system call. False when it is over.
  bool go_on() {
    while (!over_) {
      int status = 0;
      ::ptrace(PTRACE_SYSCALL, pid_, nullptr, nullptr);
      if (::waitpid(pid_, &status, 0) != pid_ || !WIFSTOPPED(status)) {
        over_ = true;
        exit_ = status;
        break;
      }
      if (WSTOPSIG(status) != (SIGTRAP | 0x80)) continue;
      __ptrace_syscall_info info{};
      ::ptrace(PTRACE_GET_SYSCALL_INFO, pid_, sizeof info, &info);
      if (info.op != PTRACE_SYSCALL_INFO_ENTRY) continue;
      if (info.entry.nr == SYS_getpgid) ++markers_;
      return true;
    }
    return false;
  }

  /// Between its second and its third marker.
  [[nodiscard]] bool holds() const { return markers_ == 2 && !over_; }
  [[nodiscard]] bool is_over() const { return over_; }
  [[nodiscard]] bool ended_well() const { return over_ && WIFEXITED(exit_) && WEXITSTATUS(exit_) == 0; }

 private:
  pid_t pid_;
  int markers_ = 0;
  int exit_ = 0;
  bool over_ = false;
};

class SharersAtOnce : public ::testing::Test {
 protected:
  SharersAtOnce() {
    void* const memory = ::mmap(nullptr, kWords, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) std::abort();
    words_ = static_cast<char*>(memory);
    const std::string number = pty_.path().substr(pty_.path().rfind('/') + 1);
    names_ = {"/run/lock/LCK.." + number, "/run/lock/LCK..pts_" + number};
    Child child{[](Peer&) { return 0; }};
    dead_ = child.pid();
    child.reap();
  }
  ~SharersAtOnce() override { ::munmap(words_, kWords); }

  void leave_stale_files() const {
    for (const std::string& name : names_) std::ofstream{name} << "      " << dead_ << "\n";
  }

  // Claims, holds and gives back; complains in shared memory.
  [[nodiscard]] std::function<void()> sharer() const {
    return [this] {
      marker();
      auto mine = claim(pty_.path(), {.mode = Mode::shared, .way = Way::never_broker});
      if (!mine) std::snprintf(words_, kWords, "%s", mine.error().message.c_str());
      if (!mine) ::_exit(1);
      marker();
      marker();
      mine->release();
    };
  }

  // The first name that would let a UUCP program in.
  [[nodiscard]] std::string open_door() const {
    for (const std::string& name : names_) {
      const auto file = convention::read_uucp(name);
      if (!file || file->stale) return name + (file ? " is stale" : " is missing");
    }
    return {};
  }

  // Returns what went wrong.
  std::string play(unsigned seed) {
    std::minstd_rand die{seed};
    std::array<Stepped, kSharers> sharers{Stepped{sharer()}, Stepped{sharer()}, Stepped{sharer()}};
    std::size_t turn = 0;
    while (!std::ranges::all_of(sharers, &Stepped::is_over)) {
      if (sharers[turn].is_over() || die() % 6 == 0) turn = die() % kSharers;
      if (!sharers[turn].go_on()) {
        if (!sharers[turn].is_over() || sharers[turn].ended_well()) continue;
        return std::string{"a sharer was refused: "} + words_;
      }
      if (std::ranges::any_of(sharers, &Stepped::holds))
        if (std::string open = open_door(); !open.empty()) return open + " while somebody holds it";
    }
    const auto left = lock_files_of(pty_.path());
    return left.empty() ? std::string{} : left.front() + " is left behind";
  }

  static constexpr std::size_t kWords = 4096;
  Pty pty_;
  std::vector<std::string> names_;
  char* words_ = nullptr;
  pid_t dead_ = 0;
};

TEST_F(SharersAtOnce, are_all_granted_and_keep_uucp_programs_out_and_leave_nothing) {
  for (unsigned seed = 1; seed <= schedules(); ++seed) {
    const std::string fault = play(seed);
    ASSERT_EQ(fault, "") << "schedule " << seed;
  }
}

TEST_F(SharersAtOnce, are_all_granted_though_each_of_them_takes_over_the_same_stale_files) {
  for (unsigned seed = 1; seed <= schedules(); ++seed) {
    leave_stale_files();
    const std::string fault = play(seed);
    ASSERT_EQ(fault, "") << "schedule " << seed;
  }
}

}  // namespace
}  // namespace holdfast
