// SPDX-License-Identifier: MIT
// ways_around.cpp - every way to a guarded device that is not its name: closed, or known to be open (docs/guard.md).
#include "vm/guard/support.hpp"
#include "vm/support/lab.hpp"

#include "interop/support/bench.hpp"
#include "process/support/devices.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <linux/io_uring.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstring>

namespace holdfast::vm {
namespace {

using guard::Owner;
using interop::run_to_the_end;
using testing::HasSubstr;
using testing_support::Child;
using testing_support::in_a_child;
using testing_support::Peer;
using testing_support::pidfd_of;

constexpr const char* kDisk = "/dev/vda";
constexpr const char* kPort = "/dev/ttyUSB0";

class WaysAround : public GuardTest {};

// The least of io_uring(7): one request at a time, on a file that was registered before.
class Ring {
 public:
  explicit Ring(unsigned flags) {
    io_uring_params with{};
    with.flags = flags;
    with.sq_thread_idle = 10'000;
    ring_.reset(static_cast<int>(::syscall(SYS_io_uring_setup, 4, &with)));
    if (!ring_) return;
    const std::size_t submissions = with.sq_off.array + with.sq_entries * sizeof(unsigned);
    const std::size_t completions = with.cq_off.cqes + with.cq_entries * sizeof(io_uring_cqe);
    sq_ = map(submissions, IORING_OFF_SQ_RING);
    cq_ = map(completions, IORING_OFF_CQ_RING);
    entries_ = reinterpret_cast<io_uring_sqe*>(map(with.sq_entries * sizeof(io_uring_sqe), IORING_OFF_SQES));
    with_ = with;
  }
  [[nodiscard]] bool works() const { return static_cast<bool>(ring_); }
  bool add_file(int fd) { return ::syscall(SYS_io_uring_register, ring_.get(), IORING_REGISTER_FILES, &fd, 1) == 0; }

  /// What a read of the file that was added is answered.
  std::string read_one() {
    static char byte;
    io_uring_sqe& request = entries_[0];
    std::memset(&request, 0, sizeof request);
    request.opcode = IORING_OP_READ;
    request.flags = IOSQE_FIXED_FILE;
    request.addr = reinterpret_cast<std::uintptr_t>(&byte);
    request.len = 1;
    number(sq_, with_.sq_off.array) = 0;
    std::atomic_ref{number(sq_, with_.sq_off.tail)}.fetch_add(1, std::memory_order_release);
    const unsigned wake = (with_.flags & IORING_SETUP_SQPOLL) != 0 ? IORING_ENTER_SQ_WAKEUP : 0;
    ::syscall(SYS_io_uring_enter, ring_.get(), 1, 1, IORING_ENTER_GETEVENTS | wake, nullptr, 0);
    auto& head = number(cq_, with_.cq_off.head);
    const unsigned at = head & number(cq_, with_.cq_off.ring_mask);
    const auto* const answers = reinterpret_cast<io_uring_cqe*>(cq_ + with_.cq_off.cqes);
    const int result = answers[at].res;
    std::atomic_ref{head}.fetch_add(1, std::memory_order_release);
    if (result >= 0) return "OK";
    errno = -result;
    return name_of(-1);
  }

 private:
  std::byte* map(std::size_t bytes, off_t offset) const {
    return static_cast<std::byte*>(
        ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring_.get(), offset));
  }
  static unsigned& number(std::byte* area, unsigned offset) { return *reinterpret_cast<unsigned*>(area + offset); }

  base::UniqueFd ring_;
  io_uring_params with_{};
  std::byte* sq_ = nullptr;
  std::byte* cq_ = nullptr;
  io_uring_sqe* entries_ = nullptr;
};

// A stranger that prepared itself before the claim, and one answer of what it prepared afterwards.
std::string after_the_claim(const std::function<std::string(Peer&, const std::function<void()>& claim)>& body,
                            const std::function<void()>& claim) {
  Child stranger{[&](Peer& test) {
    test.tell(body(test, [&] {
      test.tell("prepared");
      test.hear();
    }));
    return 0;
  }};
  const std::string prepared = stranger.hear();
  if (prepared != "prepared") return "not prepared: " + prepared;
  claim();
  stranger.tell("go");
  return stranger.hear();
}

struct Service {
  Child owner{[](Peer& test) {
    test.hear();
    return 0;
  }};
};

class Uring : public WaysAround, public testing::WithParamInterface<unsigned> {};

TEST_P(Uring, reads_of_a_file_that_was_registered_before_are_refused) {
  const Service service;
  const std::string answer = after_the_claim(
      [](Peer&, const std::function<void()>& claim) -> std::string {
        const base::UniqueFd fd{::open(kDisk, O_RDONLY | O_CLOEXEC)};
        Ring ring{GetParam()};
        if (!ring.works() || !ring.add_file(fd.get())) return "no ring: " + name_of(-1);
        if (const std::string before = ring.read_one(); before != "OK") return "before: " + before;
        claim();
        return ring.read_one();
      },
      [&] { enforce({kDisk}, {.pidfd = service.owner.pidfd()}); });
  EXPECT_EQ(answer, "EBUSY");
}

INSTANTIATE_TEST_SUITE_P(guard, Uring, testing::Values(0U, unsigned{IORING_SETUP_SQPOLL}), [](const auto& ring) {
  return ring.param == 0 ? "by_its_own_call" : "by_the_kernels_thread";
});

// Sends, or receives, one descriptor.
bool send_fd(int socket, int fd) {
  char byte = 0;
  iovec part{&byte, 1};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  cmsghdr* const header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(header), &fd, sizeof fd);
  return ::sendmsg(socket, &message, 0) == 1;
}

std::string receive_fd(int socket) {
  char byte = 0;
  iovec part{&byte, 1};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  if (::recvmsg(socket, &message, MSG_CMSG_CLOEXEC) != 1) return "no message";
  if (CMSG_FIRSTHDR(&message) != nullptr) return "a descriptor";
  return (message.msg_flags & MSG_CTRUNC) != 0 ? "cut off" : "nothing";
}

TEST_F(WaysAround, a_descriptor_that_the_owner_sends_does_not_arrive) {
  int ends[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
  const base::UniqueFd owners_end{ends[0]};
  const base::UniqueFd strangers_end{ends[1]};
  Child owner{[&](Peer& test) {
    const base::UniqueFd fd{::open(kDisk, O_RDONLY | O_CLOEXEC)};
    test.tell("open");
    test.hear();
    test.tell(send_fd(owners_end.get(), fd.get()) ? "sent" : "not sent");
    test.hear();
    return 0;
  }};
  ASSERT_EQ(owner.hear(), "open");
  enforce({kDisk}, {.pidfd = owner.pidfd()});
  owner.tell("send");
  ASSERT_EQ(owner.hear(), "sent");
  EXPECT_EQ(in_a_child([&] { return receive_fd(strangers_end.get()); }), "cut off");
}

TEST_F(WaysAround, the_owners_descriptor_is_not_to_be_had_through_its_pidfd_or_proc) {
  Child owner{[&](Peer& test) {
    const base::UniqueFd fd{::open(kDisk, O_RDONLY | O_CLOEXEC)};
    test.tell(std::to_string(fd.get()));
    test.hear();
    return 0;
  }};
  const int theirs = std::stoi(owner.hear());
  enforce({kDisk}, {.pidfd = owner.pidfd()});
  EXPECT_EQ(in_a_child([&] { return opened(fmt::format("/proc/{}/fd/{}", owner.pid(), theirs), O_RDONLY); }), "EBUSY");
  EXPECT_EQ(in_a_child([&] { return name_of(::syscall(SYS_pidfd_getfd, pidfd_of(owner.pid()).get(), theirs, 0)); }),
            "EBUSY");
}

TEST_F(WaysAround, the_owners_memory_can_be_guarded_too) {
  const Service service;
  enforce({kDisk}, {.pidfd = service.owner.pidfd()});
  const auto traced = [&] {
    return in_a_child([&] { return name_of(::ptrace(PTRACE_SEIZE, service.owner.pid(), nullptr, nullptr)); });
  };
  EXPECT_EQ(traced(), "OK") << "known to be open";
  guard().set_memory(guard::Guard::Memory::guarded);
  EXPECT_EQ(traced(), "EPERM");
  guard().set_memory(guard::Guard::Memory::open);
}

std::vector<std::string> claimed_with(const std::string& path, Cover cover) {
  const auto device = device::identify(path);
  EXPECT_TRUE(device);
  std::vector<std::string> paths;
  if (device)
    for (const device::Covered& covered : device::covered_nodes(*device, cover)) paths.push_back(covered.node.path);
  return paths;
}

TEST_F(WaysAround, a_drives_other_driver_is_closed_when_the_claim_covers_it) {
  const Service service;
  const std::string sg = "/dev/sg0";
  const auto covered = claimed_with("/dev/sr0", Cover::function);
  EXPECT_THAT(covered, testing::Contains(sg));
  enforce(covered, {.pidfd = service.owner.pidfd()});
  EXPECT_EQ(in_a_child([] { return opened("/dev/sr0", O_RDONLY); }), "EBUSY");
  EXPECT_EQ(in_a_child([&] { return opened(sg, O_RDWR); }), "EBUSY");
}

TEST_F(WaysAround, the_usbfs_node_is_closed_when_the_claim_covers_the_unit) {
  const Service service;
  const auto covered = claimed_with(kPort, Cover::unit);
  const auto usbfs = std::ranges::find_if(covered, [](const auto& path) { return path.starts_with("/dev/bus/usb/"); });
  ASSERT_NE(usbfs, covered.end());
  enforce(covered, {.pidfd = service.owner.pidfd()});
  EXPECT_EQ(in_a_child([&] { return opened(*usbfs); }), "EBUSY");
}

TEST_F(WaysAround, no_layer_can_be_put_on_a_guarded_disk) {
  const Service service;
  const auto made = run_to_the_end({"mkswap", "-q", "/dev/vda2"});
  ASSERT_EQ(made.status, 0) << made.output;
  enforce(claimed_with(kDisk, Cover::function), {.pidfd = service.owner.pidfd()});
  const auto said = [](const interop::Words& command) {
    interop::Words script{"setsid", "--wait"};
    script.insert(script.end(), command.begin(), command.end());
    return in_a_child([&] {
      const auto ending = run_to_the_end(script);
      return fmt::format("{} {}", ending.status, ending.output);
    });
  };
  EXPECT_THAT(said({"losetup", "--find", "--show", kDisk}), HasSubstr("busy"));
  EXPECT_THAT(said({"swapon", "/dev/vda2"}), HasSubstr("busy"));
  if (interop::is_installed("dmsetup")) {
    EXPECT_THAT(said({"dmsetup", "create", "sneak", "--table", "0 8 linear /dev/vda 0"}), HasSubstr("busy"));
  }
  EXPECT_THAT(said({"dd", std::string{"if="} + kDisk, "of=/dev/null", "count=1"}), HasSubstr("busy"));
}

// Known to be open: what was stacked or mapped before the claim. Claims look for both before they are granted.
TEST_F(WaysAround, what_was_put_on_the_disk_before_goes_on) {
  const Service service;
  const auto made = run_to_the_end({"losetup", "--find", "--show", kDisk});
  ASSERT_EQ(made.status, 0) << made.output;
  const std::string loop = made.output.substr(0, made.output.find_first_of("\r\n"));
  const std::string answer = after_the_claim(
      [](Peer&, const std::function<void()>& claim) -> std::string {
        const base::UniqueFd fd{::open(kDisk, O_RDONLY | O_CLOEXEC)};
        const auto* const mapped =
            static_cast<volatile char*>(::mmap(nullptr, 4096, PROT_READ, MAP_SHARED, fd.get(), 0));
        claim();
        [[maybe_unused]] const char loaded = mapped[0];  // SIGBUS if it were refused
        return "loaded a byte";
      },
      [&] { enforce({kDisk}, {.pidfd = service.owner.pidfd()}); });
  EXPECT_EQ(answer, "loaded a byte");
  EXPECT_EQ(in_a_child([&] { return opened(loop, O_RDONLY); }), "OK");
  ASSERT_EQ(run_to_the_end({"losetup", "--detach", loop}).status, 0);
}

TEST_F(WaysAround, the_controlling_terminals_other_name_is_refused_in_use) {
  const testing_support::Pty pty;
  const Service service;
  const std::string answer = after_the_claim(
      [&](Peer&, const std::function<void()>& claim) -> std::string {
        ::setsid();
        const base::UniqueFd terminal{::open(pty.path().c_str(), O_RDWR | O_CLOEXEC)};
        claim();
        const base::UniqueFd alias{::open("/dev/tty", O_RDWR | O_CLOEXEC)};
        const std::string found = name_of(alias.get());
        return found + ", write " + name_of(::write(alias.get(), "x", 1));
      },
      [&] { enforce({pty.path()}, {.pidfd = service.owner.pidfd()}); });
  EXPECT_EQ(answer, "OK, write EBUSY");
}

TEST_F(WaysAround, a_terminal_of_the_same_number_in_a_container_is_another_one) {
  const testing_support::Pty pty;
  const Service service;
  enforce({pty.path()}, {.pidfd = service.owner.pidfd()});
  EXPECT_EQ(in_a_child([&] { return opened(pty.path()); }), "EBUSY");
  const std::string inside = in_a_child([&]() -> std::string {
    if (::unshare(CLONE_NEWNS) != 0) return name_of(-1);
    const auto mounted = run_to_the_end({"mount", "-t", "devpts", "-o", "newinstance,ptmxmode=666", "none", "/mnt"});
    if (mounted.status != 0) return mounted.output;
    const int wanted = std::stoi(pty.path().substr(pty.path().rfind('/') + 1));
    std::vector<base::UniqueFd> masters;
    for (int number = 0; number <= wanted; ++number) {
      masters.emplace_back(::open("/mnt/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC));
      int unlock = 0;
      ::ioctl(masters.back().get(), TIOCSPTLCK, &unlock);
    }
    return opened(fmt::format("/mnt/{}", wanted));
  });
  EXPECT_EQ(inside, "OK");
}

}  // namespace
}  // namespace holdfast::vm
