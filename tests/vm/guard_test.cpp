// SPDX-License-Identifier: MIT
// guard_test.cpp - what the guard's BPF programs refuse, to whom, and until when: in a real kernel, by real processes,
// all of them root.
#include "vm/guard/support.hpp"

#include "interop/support/bench.hpp"
#include "process/support/child.hpp"
#include "process/support/traced_run.hpp"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <thread>

namespace holdfast::vm {
namespace {

using guard::BootClock;
using guard::Owner;
using interop::eventually;
using testing::Contains;
using testing::HasSubstr;
using testing::IsEmpty;
using testing_support::Child;
using testing_support::in_a_child;
using testing_support::Peer;
using testing_support::pidfd_of;
using namespace std::chrono_literals;

constexpr const char* kPort = "/dev/ttyUSB0";
constexpr const char* kDisk = "/dev/vda";

std::string read_one(int fd) {
  char byte = 0;
  return name_of(::read(fd, &byte, 1));
}

/// A process that opens and reads a device whenever it is asked to, and says what it was answered.
int at_your_service(const std::string& path, Peer& test) {
  while (test.hear() == "open") test.tell(opened(path));
  return 0;
}

std::string asked(Child& child) {
  child.tell("open");
  return child.hear();
}

TEST_F(GuardTest, a_stranger_is_refused_and_the_owner_is_not) {
  Child owner{[](Peer& test) { return at_your_service(kPort, test); }};
  EXPECT_EQ(opened(kPort), "OK");
  enforce({kPort}, {.pidfd = owner.pidfd()});
  EXPECT_EQ(asked(owner), "OK");
  EXPECT_EQ(in_a_child([] { return opened(kPort); }), "EBUSY");
  EXPECT_EQ(opened(kPort), "OK") << "who feeds the guard is let through";
}

TEST_F(GuardTest, ends_with_the_owner_though_a_child_of_it_lives) {
  Child owner{[](Peer& test) {
    const pid_t child = ::fork();
    if (child == 0) {
      ::pause();
      return 0;
    }
    test.tell(std::to_string(child));
    test.hear();
    return 0;
  }};
  const pid_t grandchild = std::stoi(owner.hear());
  enforce({kPort}, {.pidfd = owner.pidfd()});
  EXPECT_EQ(in_a_child([] { return opened(kPort); }), "EBUSY");
  owner.kill();
  EXPECT_EQ(in_a_child([] { return opened(kPort); }), "OK") << "the owner is a zombie now";
  EXPECT_EQ(guard().switches().active, 0) << "the kernel itself took it off";
  ::kill(grandchild, SIGKILL);
}

TEST_F(GuardTest, what_was_opened_before_is_cut_too) {
  Child stranger{[](Peer& test) {
    const base::UniqueFd fd{::open(kDisk, O_RDONLY | O_CLOEXEC)};
    void* const mapped = ::mmap(nullptr, 4096, PROT_READ, MAP_SHARED, fd.get(), 0);
    test.tell(fd && mapped != MAP_FAILED ? "open" : "not open");
    test.hear();
    const off_t before = ::lseek(fd.get(), 0, SEEK_SET);
    std::string answers = before == 0 ? "" : "lseek moved ";
    std::array<char, 16> bytes{};
    iovec parts{bytes.data(), bytes.size()};
    unsigned long size = 0;
    const base::UniqueFd null{::open("/dev/null", O_WRONLY | O_CLOEXEC)};
    int pipe[2];
    if (::pipe2(pipe, O_CLOEXEC) != 0) return 1;
    answers += "read " + name_of(::read(fd.get(), bytes.data(), 1));
    answers += ", pread " + name_of(::pread(fd.get(), bytes.data(), 1, 0));
    answers += ", preadv2 " + name_of(::preadv2(fd.get(), &parts, 1, 0, 0));
    answers += ", ioctl " + name_of(::ioctl(fd.get(), 0x80081272 /* BLKGETSIZE64 */, &size));
    answers += ", splice " + name_of(::splice(fd.get(), nullptr, pipe[1], nullptr, 16, 0));
    answers += ", flock " + name_of(::flock(fd.get(), LOCK_SH | LOCK_NB));
    answers += ", F_SETOWN " + name_of(::fcntl(fd.get(), F_SETOWN, ::getpid()));
    void* const again = ::mmap(nullptr, 4096, PROT_READ, MAP_SHARED, fd.get(), 0);
    answers += ", mmap " + name_of(again == MAP_FAILED ? -1 : 0);
    answers += ", mprotect " + name_of(::mprotect(mapped, 4096, PROT_READ));
    answers += ", reopen " + opened("/proc/self/fd/" + std::to_string(fd.get()), O_RDONLY);
    const base::UniqueFd path{::open(kDisk, O_PATH | O_CLOEXEC)};
    answers += ", O_PATH " + name_of(path.get());
    answers += ", its reopening " + opened("/proc/self/fd/" + std::to_string(path.get()), O_RDONLY);
    test.tell(answers);
    test.hear();
    return 0;
  }};
  ASSERT_EQ(stranger.hear(), "open");
  Child owner{[](Peer& test) { return at_your_service(kDisk, test); }};
  enforce({kDisk}, {.pidfd = owner.pidfd()});
  stranger.tell("try");
  EXPECT_EQ(stranger.hear(),
            "read EBUSY, pread EBUSY, preadv2 EBUSY, ioctl EBUSY, splice EBUSY, flock EBUSY, F_SETOWN EBUSY, "
            "mmap EBUSY, mprotect EBUSY, reopen EBUSY, O_PATH OK, its reopening EBUSY");
  const auto mapped = guard().mappings();
  ASSERT_EQ(mapped.size(), 1U) << "what was mapped before cannot be cut, so it is told";
  EXPECT_EQ(mapped.front().pid, stranger.pid());
}

TEST_F(GuardTest, a_descriptor_of_the_owner_is_worth_nothing_to_others) {
  Child owner{[](Peer& test) {
    const base::UniqueFd fd{::open(kPort, O_RDWR | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)};
    test.tell("open");
    test.hear();
    test.tell(read_one(fd.get()));
    const pid_t child = ::fork();
    if (child == 0) {
      test.tell(read_one(fd.get()));
      ::_exit(0);
    }
    ::waitpid(child, nullptr, 0);
    test.hear();
    return 0;
  }};
  ASSERT_EQ(owner.hear(), "open");
  enforce({kPort}, {.pidfd = owner.pidfd()});
  owner.tell("read");
  EXPECT_EQ(owner.hear(), "EAGAIN") << "the owner itself: nothing to read";
  EXPECT_EQ(owner.hear(), "EBUSY") << "its child, with the descriptor that it inherited";
}

TEST_F(GuardTest, any_thread_of_the_owner_owns_and_exec_keeps) {
  Child owner{[](Peer& test) {
    test.hear();
    std::string answer;
    std::thread{[&] { answer = opened(kDisk, O_RDONLY); }}.join();
    test.tell(answer);
    test.hear();
    // A thread that is not the first calls exec and becomes the first (fs/exec.c, de_thread()).
    std::thread{[] { ::execl("/bin/sh", "sh", "-c", "exec 3</dev/vda && exit 7; exit 8", nullptr); }}.join();
    return 1;
  }};
  enforce({kDisk}, {.pidfd = owner.pidfd()});
  owner.tell("thread");
  EXPECT_EQ(owner.hear(), "OK");
  owner.tell("exec");
  EXPECT_EQ(owner.reap(), 7);
}

TEST_F(GuardTest, a_tree_is_its_root_with_those_born_after_the_claim) {
  Child root{[](Peer& test) {
    const pid_t before = ::fork();
    if (before == 0) {
      test.hear();
      test.tell("born before: " + opened(kPort));
      ::_exit(0);
    }
    test.tell("ready");
    ::waitpid(before, nullptr, 0);
    const pid_t after = ::fork();
    if (after == 0) {
      const pid_t grandchild = ::fork();
      if (grandchild == 0) {
        ::setsid();
        test.tell("grandchild: " + opened(kPort));
        ::_exit(0);
      }
      ::waitpid(grandchild, nullptr, 0);
      test.tell("child: " + opened(kPort));
      ::_exit(0);
    }
    ::waitpid(after, nullptr, 0);
    test.hear();
    return 0;
  }};
  ASSERT_EQ(root.hear(), "ready");
  enforce({kPort}, {.pidfd = root.pidfd(), .scope = OwnerScope::tree});
  root.tell("go");
  EXPECT_EQ(root.hear(), "born before: EBUSY");
  EXPECT_EQ(root.hear(), "grandchild: OK");
  EXPECT_EQ(root.hear(), "child: OK");
  EXPECT_EQ(in_a_child([] { return opened(kPort); }), "EBUSY");
  root.kill();
  EXPECT_EQ(in_a_child([] { return opened(kPort); }), "OK");
}

TEST_F(GuardTest, a_tree_may_last_until_its_last_member) {
  Child root{[](Peer& test) {
    test.hear();
    const pid_t child = ::fork();
    if (child == 0) {
      ::pause();
      ::_exit(0);
    }
    test.tell(std::to_string(child));
    test.hear();
    return 0;
  }};
  enforce({kPort}, {.pidfd = root.pidfd(), .scope = OwnerScope::tree, .ends = Owner::Ends::with_last_member});
  root.tell("fork");
  const pid_t child = std::stoi(root.hear());
  const base::UniqueFd member = pidfd_of(child);
  root.kill();
  EXPECT_EQ(in_a_child([] { return opened(kPort); }), "EBUSY");
  ::kill(child, SIGKILL);
  ASSERT_TRUE(testing_support::wait_for_death(member.get()));
  EXPECT_EQ(in_a_child([] { return opened(kPort); }), "OK");
}

TEST_F(GuardTest, shared_owners_leave_one_by_one) {
  Child one{[](Peer& test) { return at_your_service(kPort, test); }};
  Child two{[](Peer& test) { return at_your_service(kPort, test); }};
  enforce({kPort}, {.pidfd = one.pidfd()}, Mode::shared);
  enforce({kPort}, {.pidfd = two.pidfd()}, Mode::shared);
  EXPECT_EQ(asked(one), "OK");
  EXPECT_EQ(asked(two), "OK");
  const auto refused = guard().enforce(nodes_of({kPort}), {.pidfd = pidfd_of(::getpid()).get()}, Mode::exclusive);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, errc::refused);
  one.kill();
  EXPECT_EQ(in_a_child([] { return opened(kPort); }), "EBUSY");
  two.kill();
  EXPECT_EQ(in_a_child([] { return opened(kPort); }), "OK");
}

TEST_F(GuardTest, a_time_limit_ends_it_though_nobody_does_anything) {
  Child owner{[](Peer& test) { return at_your_service(kPort, test); }};
  auto claim = enforce({kPort}, {.pidfd = owner.pidfd()}, Mode::exclusive, BootClock::now() + 3s);
  EXPECT_EQ(in_a_child([] { return opened(kPort); }), "EBUSY");
  const auto renewed = guard().renew(claim, BootClock::now() + 1s);
  ASSERT_TRUE(renewed) << renewed.error().message;
  EXPECT_TRUE(eventually([] { return in_a_child([] { return opened(kPort); }) == "OK"; }, {}, {}, 20s));
  EXPECT_GE(BootClock::now(), *claim.until - 10ms);
  EXPECT_EQ(guard().switches().active, 1) << "nobody took it away: its time is over";
}

TEST_F(GuardTest, a_released_claim_is_no_ones) {
  Child owner{[](Peer& test) { return at_your_service(kPort, test); }};
  const auto claim = enforce({kPort, kDisk}, {.pidfd = owner.pidfd()});
  EXPECT_EQ(in_a_child([] { return opened(kDisk, O_RDONLY); }), "EBUSY");
  guard().release(claim);
  EXPECT_EQ(in_a_child([] { return opened(kDisk, O_RDONLY); }), "OK");
  guard().release(claim);
  EXPECT_EQ(guard().switches().active, 0) << "twice is once";
}

TEST_F(GuardTest, a_feeder_killed_anywhere_while_it_hands_over_leaves_the_one_owner_or_the_other) {
  Child one{[](Peer& test) { return at_your_service(kPort, test); }};
  Child two{[](Peer& test) { return at_your_service(kPort, test); }};
  int of_the_one = 0;
  int of_the_other = 0;
  for (int last = 2;; last += 2) {  // at the end of each call, before what it does to shared memory after it
    const auto claim = enforce({kPort}, {.pidfd = one.pidfd()});
    const testing_support::TracedRun run{[&] {
                                           auto feeder = guard::Guard::open();
                                           const auto nodes = nodes_of({kPort});
                                           testing_support::marker();
                                           if (!feeder->hand_over(claim, nodes, {.pidfd = two.pidfd()})) ::_exit(1);
                                           testing_support::marker();
                                         },
                                         [](long) {}, last};
    ASSERT_TRUE(run.dead());
    const bool is_the_others = asked(two) == "OK";
    ++(is_the_others ? of_the_other : of_the_one);
    EXPECT_EQ(asked(one), is_the_others ? "EBUSY" : "OK") << last;
    EXPECT_EQ(in_a_child([] { return opened(kPort); }), "EBUSY") << last;
    // The next feeder knows of the first claim alone.
    guard().settle(std::array{claim});
    const bool goes_on = in_a_child([] { return opened(kPort); }) == "EBUSY";
    EXPECT_TRUE(goes_on || is_the_others) << last;
    if (goes_on) {
      EXPECT_EQ(asked(one) + " " + asked(two), "OK EBUSY") << last;
    }
    guard().release(claim);
    ASSERT_EQ(guard().switches().active, 0) << last;
    if (run.stops() < last) break;
  }
  EXPECT_GT(of_the_one, 5);
  EXPECT_GT(of_the_other, 5);
}

TEST_F(GuardTest, the_dead_own_nothing) {
  Child owner{[](Peer&) { return 0; }};
  ASSERT_TRUE(testing_support::wait_for_death(owner.pidfd()));
  const auto refused = guard().enforce(nodes_of({kPort}), {.pidfd = owner.pidfd()}, Mode::exclusive);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, errc::not_held);
  EXPECT_EQ(in_a_child([] { return opened(kPort); }), "OK");
}

TEST_F(GuardTest, each_refusal_is_told_by_name) {
  Child owner{[](Peer& test) { return at_your_service(kPort, test); }};
  enforce({kPort}, {.pidfd = owner.pidfd()});
  Child intruder{[](Peer& test) { return at_your_service(kPort, test); }};
  EXPECT_EQ(asked(intruder), "EBUSY");
  const std::string expected = "[" + std::to_string(intruder.pid()) + "] open " + kPort;
  EXPECT_THAT(denied(), Contains(HasSubstr(expected)));
}

TEST_F(GuardTest, a_flood_of_refusals_is_counted_and_told_ten_times_a_second) {
  Child owner{[](Peer& test) { return at_your_service(kPort, test); }};
  enforce({kPort}, {.pidfd = owner.pidfd()});
  const auto begun = BootClock::now();
  EXPECT_EQ(in_a_child([] {
              for (int i = 0; i < 999; ++i) static_cast<void>(opened(kPort));
              return opened(kPort);
            }),
            "EBUSY");
  const auto tenths = static_cast<std::size_t>((BootClock::now() - begun) / 100ms);
  EXPECT_LE(denied().size(), tenths + 2);
  ASSERT_EQ(guard().status().size(), 1U);
  EXPECT_EQ(guard().status().front().denials, 1000U);
}

TEST_F(GuardTest, nothing_shuts_a_machine_out_of_what_it_needs) {
  const base::UniqueFd self = pidfd_of(::getpid());
  for (const char* const path :
       {"/dev/null", "/dev/zero", "/dev/tty", "/dev/console", "/dev/ptmx", "/dev/tty1", "/dev/ttyS0"}) {
    const auto refused = guard().enforce(nodes_of({path}), {.pidfd = self.get()}, Mode::exclusive);
    ASSERT_FALSE(refused) << path;
    EXPECT_EQ(refused.error().code, errc::not_permitted) << path;
    EXPECT_THAT(refused.error().message, HasSubstr("never guarded"));
  }
}

TEST_F(GuardTest, a_mounted_disk_is_never_guarded) {
  const auto made = interop::run_to_the_end({"/sbin/mkfs.ext4", "-q", "-F", "/dev/vda1"});
  ASSERT_EQ(made.status, 0) << made.output;
  ASSERT_EQ(interop::run_to_the_end({"/bin/mount", "/dev/vda1", "/mnt"}).status, 0);
  const base::UniqueFd self = pidfd_of(::getpid());
  for (const char* const path : {"/dev/vda1", kDisk})
    EXPECT_FALSE(guard().enforce(nodes_of({path}), {.pidfd = self.get()}, Mode::exclusive)) << path;
  ASSERT_EQ(interop::run_to_the_end({"/bin/umount", "/mnt"}).status, 0);
}

TEST_F(GuardTest, the_kernel_does_not_mount_for_a_stranger) {
  const auto made = interop::run_to_the_end({"/sbin/mkfs.ext4", "-q", "-F", "/dev/vda2"});
  ASSERT_EQ(made.status, 0) << made.output;
  Child owner{[](Peer& test) { return at_your_service(kDisk, test); }};
  enforce({kDisk, "/dev/vda1", "/dev/vda2"}, {.pidfd = owner.pidfd()});
  EXPECT_EQ(in_a_child([] { return name_of(::syscall(SYS_mount, "/dev/vda2", "/mnt", "ext4", 0, nullptr)); }), "EBUSY");
}

TEST_F(GuardTest, a_second_node_of_the_same_number_is_the_same_device) {
  const auto node = device::look_at(kPort);
  ASSERT_TRUE(node);
  ::unlink("/tmp/second");
  ASSERT_EQ(::mknod("/tmp/second", S_IFCHR | 0600, node->id.rdev()), 0);
  Child owner{[](Peer& test) { return at_your_service(kPort, test); }};
  enforce({kPort}, {.pidfd = owner.pidfd()});
  EXPECT_EQ(in_a_child([] { return opened("/tmp/second"); }), "EBUSY");
  ::unlink("/tmp/second");
}

TEST_F(GuardTest, holds_while_its_programs_are_replaced) {
  const OneProcessor one_processor;
  Child owner{[](Peer& test) { return at_your_service(kPort, test); }};
  enforce({kPort}, {.pidfd = owner.pidfd()});
  Child intruder{[](Peer& test) {
    int got_in = 0;
    int tries = 0;
    test.tell("going");
    const int socket = test.socket();
    char word[16];
    while (::recv(socket, word, sizeof word, MSG_DONTWAIT) < 0) {
      ++tries;
      got_in += opened(kPort) == "EBUSY" ? 0 : 1;
    }
    test.tell(got_in == 0 && tries > 0 ? "never" : std::to_string(got_in));
    return 0;
  }};
  ASSERT_EQ(intruder.hear(), "going");
  for (int i = 0; i < 3; ++i) {
    // As another build's would be: none of the pinned programs is taken for ours.
    for (const char* const name : {"link_hf_open", "link_hf_permission", "link_hf_ioctl"})
      ASSERT_EQ(::rename((std::string{"/sys/fs/bpf/holdfast/"} + name).c_str(),
                         (std::string{"/sys/fs/bpf/holdfast/old_"} + name).c_str()),
                0);
    const auto again = guard::install();
    ASSERT_TRUE(again) << again.error().message;
    for (const char* const name : {"link_hf_open", "link_hf_permission", "link_hf_ioctl"})
      ASSERT_EQ(::unlink((std::string{"/sys/fs/bpf/holdfast/old_"} + name).c_str()), 0);
  }
  intruder.tell("stop");
  EXPECT_EQ(intruder.hear(), "never");
}

TEST_F(GuardTest, the_hooks_that_all_pass_are_attached_only_while_something_is_guarded) {
  guard().rest();
  EXPECT_FALSE(guard().is_watching());
  Child owner{[](Peer& test) { return at_your_service(kPort, test); }};
  Child stranger{[](Peer& test) { return at_your_service(kPort, test); }};
  EXPECT_EQ(asked(stranger), "OK");
  for (int i = 0; i < 2; ++i) {  // the second time they are attached while the first ones may not be gone yet
    const auto claim = enforce({kPort}, {.pidfd = owner.pidfd()});
    EXPECT_TRUE(guard().is_watching());
    EXPECT_EQ(asked(stranger), "EBUSY");
    guard().rest();
    EXPECT_TRUE(guard().is_watching()) << "not while something is guarded";
    EXPECT_EQ(asked(stranger), "EBUSY");
    guard().release(claim);
    guard().rest();
    EXPECT_FALSE(guard().is_watching());
    EXPECT_EQ(asked(stranger), "OK");
  }
}

TEST_F(GuardTest, off_lets_everybody_in) {
  Child owner{[](Peer& test) { return at_your_service(kPort, test); }};
  static_cast<void>(guard().enforce(nodes_of({kPort}), {.pidfd = owner.pidfd()}, Mode::exclusive));
  EXPECT_EQ(in_a_child([] { return opened(kPort); }), "EBUSY");
  const auto removed = guard::remove();
  ASSERT_TRUE(removed) << removed.error().message;
  EXPECT_FALSE(guard::installed());
  EXPECT_EQ(in_a_child([] { return opened(kPort); }), "OK");
  EXPECT_EQ(guard::Guard::open().error().code, errc::not_held);
}

}  // namespace
}  // namespace holdfast::vm
