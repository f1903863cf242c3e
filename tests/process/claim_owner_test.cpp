// SPDX-License-Identifier: MIT
// claim_owner_test.cpp - the owner is a process, not a descriptor: forks, dups, threads, execs and deaths neither keep
// nor free a claim but as promised, and a process id that was used again fools nobody.
#include "process/support/child.hpp"
#include "process/support/devices.hpp"

#include "convention/proxy.hpp"
#include "device/device.hpp"

#include <holdfast/claim.hpp>

#include <gtest/gtest.h>

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace holdfast {
namespace {

using namespace testing_support;

constexpr double kMostMs = 100;

std::string try_claim(const std::string& device, const Options& options = {}) {
  const auto taken = claim(device, options);
  return taken ? "taken" : taken.error().message;
}

// How a child of the owner comes to be.
enum class Birth { fork, late_fork, raw_clone, bare_fork };

// Set: a forked child is kept from running the library's handler for a while, as a busy processor does. Registered
// before main: handlers of the child run in the order of their registration.
bool g_late = false;
[[maybe_unused]] const int g_registered = ::pthread_atfork(nullptr, nullptr, [] {
  if (g_late) ::poll(nullptr, 0, 30);
});

// A process that does nothing until it is killed; it shares all that its birth lets it inherit.
pid_t born(Birth birth) {
  g_late = birth == Birth::late_fork;
  const pid_t pid = birth <= Birth::late_fork   ? ::fork()
                    : birth == Birth::bare_fork ? ::_Fork()
                                                : static_cast<pid_t>(::syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0));
  if (pid == 0)
    for (;;) ::pause();
  return pid;
}

// An owner that has a living child: tells the child's pid, releases when told, then waits to be killed.
class Family {
 public:
  Family(const std::string& device, Birth birth)
      : owner_{[=](Peer& test) {
          auto mine = claim(device);
          if (!mine) {
            test.tell("0");
            return 1;
          }
          test.tell(std::to_string(born(birth)));
          test.hear();
          mine->release();
          test.tell("released");
          test.hear();
          return 0;
        }},
        child_{std::stoi(owner_.hear())} {}
  Family(const Family&) = delete;
  Family& operator=(const Family&) = delete;
  ~Family() { end_child(); }
  void end_child() {
    if (child_ <= 0) return;
    const base::UniqueFd pidfd = pidfd_of(child_);
    ::kill(child_, SIGKILL);
    if (pidfd) static_cast<void>(wait_for_death(pidfd.get()));
    child_ = 0;
  }
  [[nodiscard]] bool child_lives() const { return child_ > 0 && ::kill(child_, 0) == 0; }
  Child& owner() { return owner_; }

 private:
  Child owner_;
  pid_t child_;
};

class OwnerWithForkedChild : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    if (GetParam() && !loop_.missing().empty()) GTEST_SKIP() << "needs " << loop_.missing();
  }
  [[nodiscard]] std::string device() const { return GetParam() ? loop_.path() : pty_.path(); }

 private:
  Pty pty_;
  LoopDevice loop_;
};

TEST_P(OwnerWithForkedChild, frees_at_once_by_release) {
  Family family{device(), Birth::fork};
  ASSERT_TRUE(family.child_lives());
  ASSERT_NE(try_claim(device()), "taken");
  family.owner().tell("release");
  ASSERT_EQ(family.owner().hear(), "released");
  EXPECT_EQ(try_claim(device()), "taken");
  EXPECT_TRUE(family.child_lives());
}

TEST_P(OwnerWithForkedChild, frees_at_once_by_death) {
  Family family{device(), Birth::fork};
  ASSERT_TRUE(family.child_lives());
  ASSERT_NE(try_claim(device()), "taken");
  const Stopwatch watch;
  family.owner().signal(SIGKILL);
  const auto next = claim(device(), {.wait = Wait::at_most(kPatience)});
  const double took = watch.ms();
  ASSERT_TRUE(next) << next.error().message;
  EXPECT_LT(took, kMostMs);
  EXPECT_TRUE(family.child_lives());
  std::printf("from kill -9 to the next claim: %.2f ms\n", took);
}

INSTANTIATE_TEST_SUITE_P(Devices, OwnerWithForkedChild, ::testing::Values(false, true),
                         [](const auto& device) { return device.param ? "loop" : "pty"; });

TEST(Owner, frees_a_disk_by_release_though_its_child_was_born_this_moment) {
  const LoopDevice loop;
  if (!loop.missing().empty()) GTEST_SKIP() << "needs " << loop.missing();
  Family family{loop.path(), Birth::late_fork};
  family.owner().tell("release");
  ASSERT_EQ(family.owner().hear(), "released");
  EXPECT_EQ(try_claim(loop.path()), "taken");
  EXPECT_TRUE(family.child_lives());
}

class OwnerWithBareChild : public ::testing::TestWithParam<Birth> {};

TEST_P(OwnerWithBareChild, frees_a_terminal_by_release) {
  const Pty pty;
  Family family{pty.path(), GetParam()};
  ASSERT_TRUE(family.child_lives());
  family.owner().tell("release");
  ASSERT_EQ(family.owner().hear(), "released");
  EXPECT_EQ(try_claim(pty.path()), "taken");
}

TEST_P(OwnerWithBareChild, keeps_o_excl_of_a_disk_after_release_until_the_child_ends) {
  const LoopDevice loop;
  if (!loop.missing().empty()) GTEST_SKIP() << "needs " << loop.missing();
  Family family{loop.path(), GetParam()};
  family.owner().tell("release");
  ASSERT_EQ(family.owner().hear(), "released");
  EXPECT_NE(try_claim(loop.path()), "taken");
  EXPECT_EQ(try_claim(loop.path(), {.conventions = ConventionSet::all().without(Convention::o_excl)}), "taken");
  family.end_child();
  EXPECT_EQ(try_claim(loop.path()), "taken");
}

TEST_P(OwnerWithBareChild, keeps_the_locks_after_the_owners_death_until_the_child_ends) {
  const Pty pty;
  Family family{pty.path(), GetParam()};
  family.owner().kill();
  EXPECT_NE(try_claim(pty.path()), "taken");
  family.end_child();
  EXPECT_EQ(try_claim(pty.path()), "taken");
}

INSTANTIATE_TEST_SUITE_P(Births, OwnerWithBareChild, ::testing::Values(Birth::raw_clone, Birth::bare_fork),
                         [](const auto& birth) { return birth.param == Birth::raw_clone ? "raw_clone" : "bare_fork"; });

TEST(Duplicate, of_the_descriptor_neither_keeps_nor_frees) {
  const Pty pty;
  auto mine = claim(pty.path());
  ASSERT_TRUE(mine);
  const auto fd = mine->fd();
  ASSERT_TRUE(fd);
  {
    const base::UniqueFd copy{::dup(*fd)};
    ASSERT_TRUE(copy);
  }
  EXPECT_NE(in_a_child([&] { return try_claim(pty.path()); }), "taken");
  const base::UniqueFd copy{::dup(*fd)};
  ASSERT_TRUE(copy);
  mine->release();
  EXPECT_EQ(in_a_child([&] { return try_claim(pty.path()); }), "taken");
}

bool says_not_held(const Result<>& result) { return !result && result.error().code == errc::not_held; }

// What an object that holds nothing answers; empty when all is as promised.
std::string inertness(Claim& claim) {
  if (claim.held() || claim) return "held";
  const auto fd = claim.fd();
  if (fd || fd.error().code != errc::not_held) return "fd";
  if (!says_not_held(claim.downgrade())) return "downgrade";
  if (!says_not_held(claim.upgrade())) return "upgrade";
  if (!says_not_held(claim.leave_to_exec())) return "leave_to_exec";
  if (!says_not_held(claim.keep_from_exec())) return "keep_from_exec";
  if (!claim.nodes().empty() || !claim.report().empty()) return "nodes";
  claim.release();
  return {};
}

TEST(ForkedChild, has_an_inert_claim_that_it_may_use_move_and_destroy) {
  const Pty pty;
  auto mine = claim(pty.path());
  ASSERT_TRUE(mine);
  const int fd = *mine->fd();
  const std::string words = in_a_child([&] {
    if (::fcntl(fd, F_GETFD) >= 0) return std::string{"has the descriptor"};
    std::string wrong = inertness(*mine);
    {
      Claim moved{std::move(*mine)};
      wrong += inertness(moved);
      moved = Claim{};
    }
    return wrong.empty() ? "inert" : wrong;
  });
  EXPECT_EQ(words, "inert");
  EXPECT_TRUE(mine->held());
  EXPECT_NE(in_a_child([&] { return try_claim(pty.path()); }), "taken");
}

TEST(ForkedChild, may_claim_for_itself_once_the_owner_released) {
  const Pty pty;
  auto mine = claim(pty.path());
  ASSERT_TRUE(mine);
  Child child{[&](Peer& test) {
    test.tell(try_claim(pty.path()));
    test.hear();
    test.tell(try_claim(pty.path()));
    return 0;
  }};
  EXPECT_NE(child.hear(), "taken");
  mine->release();
  child.tell("again");
  EXPECT_EQ(child.hear(), "taken");
}

TEST(Claim, is_inert_after_release_and_after_a_move) {
  const Pty pty;
  auto mine = claim(pty.path());
  ASSERT_TRUE(mine);
  Claim moved{std::move(*mine)};
  EXPECT_EQ(inertness(*mine), "");
  EXPECT_TRUE(moved.held());
  moved.release();
  EXPECT_EQ(inertness(moved), "");
  moved.release();
}

TEST(Claim, may_be_released_by_any_thread) {
  const Pty pty;
  auto mine = claim(pty.path());
  ASSERT_TRUE(mine);
  std::thread{[&] { mine->release(); }}.join();
  EXPECT_FALSE(mine->held());
  EXPECT_EQ(in_a_child([&] { return try_claim(pty.path()); }), "taken");
}

// Descriptors that carry a lock of ours, of those that this process has.
int lock_descriptors(const std::string& device) {
  int found = 0;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator{"/proc/self/fd", ignored}) {
    const std::string target = std::filesystem::read_symlink(entry.path(), ignored).string();
    const int fd = std::stoi(entry.path().filename().string());
    // O_PATH opens no device and carries no lock: identify() looks at nodes through such.
    const bool path_only = (::fcntl(fd, F_GETFL) & O_PATH) != 0;
    if (!path_only && (target == device || target.starts_with("/run/lock/holdfast-"))) ++found;
  }
  return found;
}

TEST(Fork, racing_with_claims_of_another_thread_leaks_no_descriptor) {
  const Pty pty;
  std::atomic<bool> stop{false};
  std::atomic<int> claims{0};
  std::thread claimer{[&] {
    while (!stop)
      if (claim(pty.path())) ++claims;
  }};
  int leaks = 0;
  int seen = 0;
  for (int i = 0; i < 100; ++i) {
    if (lock_descriptors(pty.path()) > 0) ++seen;
    const pid_t child = ::fork();
    if (child == 0) ::_exit(lock_descriptors(pty.path()));
    int status = 0;
    ::waitpid(child, &status, 0);
    leaks += WEXITSTATUS(status);
  }
  stop = true;
  claimer.join();
  EXPECT_EQ(leaks, 0);
  EXPECT_GT(claims, 0);
  EXPECT_GT(seen, 0) << "the parent never had such a descriptor: the test shows nothing";
}

TEST(Exec, keeps_the_claim_when_it_is_left_to_it) {
  const Pty pty;
  Child owner{[&](Peer& test) {
    auto mine = claim(pty.path());
    if (!mine || !mine->leave_to_exec()) return 1;
    test.tell("claimed");
    ::execl("/bin/sleep", "sleep", "60", nullptr);
    return 1;
  }};
  ASSERT_EQ(owner.hear(), "claimed");
  ASSERT_EQ(owner.hear(), "(gone)") << "the socket closes on exec";
  for (const Convention one : {Convention::proxy, Convention::uucp, Convention::flock, Convention::posix})
    EXPECT_NE(try_claim(pty.path(), {.conventions = {one}}), "taken") << static_cast<int>(one);
  const Stopwatch watch;
  owner.signal(SIGKILL);
  const auto next = claim(pty.path(), {.wait = Wait::at_most(kPatience)});
  EXPECT_TRUE(next) << next.error().message;
  EXPECT_LT(watch.ms(), kMostMs);
}

TEST(Exec, ends_the_claim_otherwise) {
  const LoopDevice loop;
  if (!loop.missing().empty()) GTEST_SKIP() << "needs " << loop.missing();
  Child owner{[&](Peer& test) {
    auto mine = claim(loop.path());
    if (!mine || !mine->leave_to_exec() || !mine->keep_from_exec()) return 1;
    test.tell("claimed");
    ::execl("/bin/sleep", "sleep", "60", nullptr);
    return 1;
  }};
  ASSERT_EQ(owner.hear(), "claimed");
  ASSERT_EQ(owner.hear(), "(gone)");
  // Its descriptors are closed one after the other, the socket first.
  EXPECT_EQ(try_claim(loop.path(), {.wait = Wait::at_most(kPatience)}), "taken");
}

TEST(Exec, without_release_leaves_the_lock_files_until_the_process_ends) {
  const Pty pty;
  Child owner{[&](Peer& test) {
    auto mine = claim(pty.path());
    if (!mine) return 1;
    test.tell("claimed");
    ::execl("/bin/sleep", "sleep", "60", nullptr);
    return 1;
  }};
  ASSERT_EQ(owner.hear(), "claimed");
  ASSERT_EQ(owner.hear(), "(gone)");
  const ConventionSet others = ConventionSet::all().without(Convention::uucp);
  EXPECT_EQ(try_claim(pty.path(), {.wait = Wait::at_most(kPatience), .conventions = others}), "taken");
  EXPECT_NE(try_claim(pty.path()), "taken");
  owner.kill();
  EXPECT_EQ(try_claim(pty.path()), "taken");
}

TEST(RecordLocks, survive_any_close_of_the_same_files_by_the_process) {
  const Pty pty;
  const auto mine = claim(pty.path());
  ASSERT_TRUE(mine);
  const auto identity = device::identify(pty.path());
  ASSERT_TRUE(identity);
  for (const std::string& file : {pty.path(), convention::proxy_path(identity->node.id, {})}) {
    const base::UniqueFd other{::open(file.c_str(), O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC)};
    ASSERT_TRUE(other);
  }
  for (const Convention one : {Convention::proxy, Convention::posix})
    EXPECT_NE(in_a_child([&] { return try_claim(pty.path(), {.conventions = {one}}); }), "taken");
}

// In a pid namespace of its own, where numbers can be chosen: `body` runs as its init.
std::string in_a_pid_namespace(const std::function<std::string()>& body) {
  return in_a_child([&]() -> std::string {
    if (::unshare(CLONE_NEWPID) != 0) return std::string{"skip: a pid namespace: "} + std::strerror(errno);
    return in_a_child([&]() -> std::string {
      if (const std::string missing = private_lock_directory(); !missing.empty()) return "skip: " + missing;
      if (::mount("proc", "/proc", "proc", 0, nullptr) != 0)
        return std::string{"skip: mounting /proc: "} + std::strerror(errno);
      return body();
    });
  });
}

// Makes a process of the number `pid`; 0 when the machine does not let us.
pid_t process_numbered(pid_t pid) {
  const base::UniqueFd last{::open("/proc/sys/kernel/ns_last_pid", O_WRONLY | O_CLOEXEC)};
  const std::string number = std::to_string(pid - 1);
  if (!last || ::write(last.get(), number.data(), number.size()) < 0) return 0;
  const pid_t born = ::fork();
  if (born == 0)
    for (;;) ::pause();
  return born == pid ? born : 0;
}

TEST(ReusedPid, in_a_lock_file_is_stale_and_a_living_one_is_not) {
  const Pty pty;
  const std::string words = in_a_pid_namespace([&]() -> std::string {
    constexpr pid_t kPid = 300;
    const std::string file = "/run/lock/LCK.." + pty.path().substr(pty.path().rfind('/') + 1);
    std::ofstream{file} << "       300\n";
    timespec long_ago[2]{};
    ::clock_gettime(CLOCK_REALTIME, &long_ago[0]);
    long_ago[0].tv_sec -= 3600;
    long_ago[1] = long_ago[0];
    ::utimensat(AT_FDCWD, file.c_str(), long_ago, 0);
    if (process_numbered(kPid) != kPid) return "skip: ns_last_pid cannot be written";
    if (const std::string first = try_claim(pty.path()); first != "taken") return "reused: " + first;
    if (::access(file.c_str(), F_OK) == 0) return "reused: the file is left";
    std::ofstream{file} << "       300\n";
    const std::string second = try_claim(pty.path());
    return second == "taken" ? "alive: taken" : "as promised";
  });
  if (words.starts_with("skip")) GTEST_SKIP() << "needs " << words;
  EXPECT_EQ(words, "as promised");
}

}  // namespace
}  // namespace holdfast
