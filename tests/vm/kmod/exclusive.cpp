// SPDX-License-Identifier: MIT
// exclusive.cpp - what struct hf_exclusive promises, seen through the checksum device: the owner is a process or a
// caller inside the kernel, never a descriptor; it ends with its process; who waits is served in order.
#include "vm/kmod/checksum_device.hpp"
#include "vm/support/module.hpp"

#include "interop/support/program.hpp"
#include "process/support/child.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

namespace holdfast::vm {
namespace {

using testing_support::Child;
using testing_support::kPatience;
using testing_support::Peer;

std::string word(int error) { return error == 0 ? "ok" : ::strerrorname_np(error); }

// exec has no event of its own.
bool owner_becomes(const Checksum& device, const std::string& command) {
  return interop::eventually([&] { return device.owner().name == command; }, {}, {}, kPatience);
}

class Exclusive : public testing::Test {
 protected:
  void SetUp() override {
    const auto built = modules();
    if (!built.missing.empty()) GTEST_SKIP() << built.missing;
    exclusive_.emplace("holdfast_exclusive");
    checksum_.emplace("checksum");
  }
  // Whatever happened: the module goes, so nothing of it is used any more.
  void TearDown() override {
    checksum_.reset();
    exclusive_.reset();
  }
  void remove_checksum() { checksum_.reset(); }

 private:
  std::optional<Module> exclusive_;
  std::optional<Module> checksum_;
};

// A process that owns the device until it is told something, and then does `after`.
std::unique_ptr<Child> owner_that(const std::function<void(Peer& test, Checksum& device)>& after) {
  auto child = std::make_unique<Child>([after](Peer& test) {
    Checksum device;
    test.tell(word(device.lock()));
    test.hear();
    after(test, device);
    return 0;
  });
  EXPECT_EQ(child->hear(), "ok");
  return child;
}
std::unique_ptr<Child> owner() {
  return owner_that([](Peer&, Checksum&) {});
}

// A process that waits in LOCK: says how it ended, and holds on until it is told something.
std::unique_ptr<Child> waiter(unsigned waiters_then) {
  auto child = std::make_unique<Child>([](Peer& test) {
    const Checksum device;
    test.tell(word(device.lock()));
    test.hear();
    test.tell(word(device.unlock()));
    test.hear();
    return 0;
  });
  EXPECT_TRUE(waiters_are(waiters_then));
  return child;
}

// What an owner's child does; it outlives its parent.
void be_a_stray(Peer& test, const Checksum& inherited) {
  test.tell(std::to_string(::getpid()) + " " + word(inherited.process()) + " " + word(inherited.unlock()));
  for (;;) ::pause();
}

// Ends such a child with the test.
class Stray {
 public:
  explicit Stray(const std::string& told) : pid_{std::atoi(told.c_str())} {}
  Stray(const Stray&) = delete;
  Stray& operator=(const Stray&) = delete;
  ~Stray() {
    if (pid_ > 0) ::kill(pid_, SIGKILL);
  }
  [[nodiscard]] bool lives() const { return pid_ > 0 && ::kill(pid_, 0) == 0; }

 private:
  pid_t pid_;
};

// -- LOCK, PROCESS, UNLOCK

TEST_F(Exclusive, the_owner_processes_as_often_as_it_likes) {
  const Checksum device;
  ASSERT_EQ(device.lock(), 0);
  const auto sums = device.sums("123456789");
  EXPECT_EQ(sums.crc32c, 0xe3069283);  // RFC 3720, B.4's polynomial; the check value of CRC-32C
  EXPECT_EQ(sums.sha256[0], 0x15);
  EXPECT_EQ(sums.sha256[31], 0x25);
  EXPECT_EQ(device.sums("").crc32c, 0U);
  const std::string large(1 << 20, '\0');
  EXPECT_EQ(device.sums(large).crc32c, 0x14298c12);  // computed by another program
  EXPECT_EQ(attribute("processed"), "3");
  EXPECT_EQ(device.unlock(), 0);
  EXPECT_EQ(device.process(), EPERM);
}

TEST_F(Exclusive, process_and_unlock_without_lock_are_not_permitted) {
  const Checksum device;
  EXPECT_EQ(device.process(), EPERM);
  EXPECT_EQ(device.unlock(), EPERM);
  const auto other = owner();
  EXPECT_EQ(device.process(), EPERM);
  EXPECT_EQ(device.unlock(), EPERM);
  EXPECT_EQ(device.owner().pid, other->pid());
}

TEST_F(Exclusive, a_second_lock_by_the_owner_is_a_deadlock) {
  const Checksum device;
  const Checksum again;
  const Checksum impatient{O_NONBLOCK};
  ASSERT_EQ(device.lock(), 0);
  EXPECT_EQ(device.lock(), EDEADLK);
  EXPECT_EQ(again.lock(), EDEADLK);
  EXPECT_EQ(impatient.lock(), EDEADLK);
  EXPECT_EQ(device.try_lock(), EDEADLK);
  EXPECT_EQ(device.lock_within(1), EDEADLK);
  int other_thread = 0;
  std::thread{[&] { other_thread = device.lock(); }}.join();
  EXPECT_EQ(other_thread, EDEADLK);
  EXPECT_EQ(device.unlock(), 0);
  EXPECT_EQ(device.lock(), 0);
}

TEST_F(Exclusive, who_does_not_want_to_wait_does_not) {
  const auto other = owner();
  const Checksum device;
  const Checksum impatient{O_NONBLOCK};
  EXPECT_EQ(impatient.lock(), EAGAIN);
  EXPECT_EQ(impatient.lock_within(std::int64_t{3600} * 1'000'000'000), EAGAIN);
  EXPECT_EQ(device.try_lock(), EAGAIN);
  EXPECT_EQ(device.lock_within(-1), ETIMEDOUT);
  EXPECT_EQ(device.lock_within(20'000'000), ETIMEDOUT);
  EXPECT_EQ(device.owner().waiters, 0U);
}

TEST_F(Exclusive, who_waits_until_a_deadline_gets_it_before) {
  const auto other = owner();
  Child child{[](Peer& test) {
    test.tell(word(Checksum{}.lock_within(std::int64_t{3600} * 1'000'000'000)));
    test.hear();
    return 0;
  }};
  ASSERT_TRUE(waiters_are(1));
  other->tell("go");
  EXPECT_EQ(child.hear(), "ok");
}

TEST_F(Exclusive, any_thread_of_the_owner_locks_uses_and_unlocks) {
  const Checksum device;
  std::array<int, 3> answers{};
  std::thread{[&] { answers[0] = device.lock(); }}.join();
  std::thread{[&] { answers[1] = device.process(); }}.join();
  EXPECT_EQ(device.process(), 0);
  std::thread{[&] { answers[2] = device.unlock(); }}.join();
  EXPECT_THAT(answers, testing::Each(0));
  EXPECT_EQ(attribute("hf_exclusive/owner"), "none");
}

TEST_F(Exclusive, a_thread_that_waits_for_its_own_process_is_told) {
  const auto other = owner();
  Child child{[](Peer& test) {
    const Checksum device;
    std::array<int, 2> answers{};
    std::thread one{[&] { answers[0] = device.lock(); }};
    std::thread two{[&] { answers[1] = device.lock(); }};
    one.join();
    two.join();
    std::sort(answers.begin(), answers.end());
    test.tell(word(answers[0]) + " " + word(answers[1]) + " " + word(device.unlock()));
    return 0;
  }};
  ASSERT_TRUE(waiters_are(2));
  other->tell("go");
  EXPECT_EQ(child.hear(), "ok EDEADLK ok");
}

// -- descriptors make no owner and keep none

TEST_F(Exclusive, a_forked_child_owns_nothing_and_frees_nothing) {
  Checksum device;
  ASSERT_EQ(device.lock(), 0);
  Child child{[&](Peer& test) {
    test.tell(word(device.process()) + " " + word(device.unlock()) + " " + word(device.try_lock()));
    device.close();
    return 0;
  }};
  EXPECT_EQ(child.hear(), "EPERM EPERM EAGAIN");
  EXPECT_EQ(child.reap(), 0);
  EXPECT_EQ(device.process(), 0);
}

TEST_F(Exclusive, closing_dups_and_all_else_frees_nothing) {
  Checksum device;
  ASSERT_EQ(device.lock(), 0);
  Checksum dup{base::UniqueFd{::fcntl(device.fd(), F_DUPFD_CLOEXEC, 0)}};
  EXPECT_EQ(dup.process(), 0);
  dup.close();
  EXPECT_EQ(device.process(), 0);
  device.close();
  const Checksum again;
  EXPECT_EQ(again.process(), 0);
  EXPECT_EQ(again.owner().pid, ::getpid());
  EXPECT_EQ(again.unlock(), 0);
}

void send_descriptor(int socket, int fd) {
  char byte = 'x';
  iovec part{&byte, 1};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  cmsghdr* head = CMSG_FIRSTHDR(&message);
  head->cmsg_level = SOL_SOCKET;
  head->cmsg_type = SCM_RIGHTS;
  head->cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(head), &fd, sizeof(int));
  EXPECT_EQ(::sendmsg(socket, &message, 0), 1);
}

base::UniqueFd receive_descriptor(int socket) {
  char byte = 0;
  iovec part{&byte, 1};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  int fd = -1;
  if (::recvmsg(socket, &message, MSG_CMSG_CLOEXEC) == 1 && CMSG_FIRSTHDR(&message) != nullptr)
    std::memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(int));
  return base::UniqueFd{fd};
}

TEST_F(Exclusive, a_descriptor_passed_over_a_socket_owns_nothing_and_frees_nothing) {
  const Checksum device;
  ASSERT_EQ(device.lock(), 0);
  int ends[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
  const base::UniqueFd one{ends[0]};
  const base::UniqueFd other{ends[1]};
  Child receiver{[&](Peer& test) {
    Checksum passed{receive_descriptor(other.get())};
    test.tell(word(passed.process()) + " " + word(passed.unlock()));
    passed.close();
    return 0;
  }};
  send_descriptor(one.get(), device.fd());
  EXPECT_EQ(receiver.hear(), "EPERM EPERM");
  EXPECT_EQ(receiver.reap(), 0);
  EXPECT_EQ(device.process(), 0);
}

TEST_F(Exclusive, a_descriptor_in_flight_keeps_nothing_for_the_dead) {
  int ends[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
  const base::UniqueFd one{ends[0]};
  const base::UniqueFd other{ends[1]};
  const auto sender = owner_that([&](Peer& test, Checksum& device) {
    send_descriptor(one.get(), device.fd());
    device.close();
    test.tell("sent");
    test.hear();
  });
  sender->tell("send");
  ASSERT_EQ(sender->hear(), "sent");
  EXPECT_EQ(Checksum{}.owner().pid, sender->pid());
  sender->kill();
  EXPECT_EQ(Checksum{}.try_lock(), 0);
  EXPECT_TRUE(receive_descriptor(other.get()));
}

// -- the owner's death

enum class Death { exit, killed, fault };

class DeathOfTheOwner : public Exclusive, public testing::WithParamInterface<Death> {};

TEST_P(DeathOfTheOwner, frees_at_once_though_a_child_has_the_file_and_nobody_has_reaped) {
  const auto dying = owner_that([](Peer& test, Checksum& device) {
    if (::fork() == 0) be_a_stray(test, device);
    test.hear();
    switch (GetParam()) {
      case Death::exit:
        ::_exit(0);
      case Death::killed:
        ::kill(::getpid(), SIGKILL);
        break;
      case Death::fault:
        ::signal(SIGSEGV, SIG_DFL);
        ::raise(SIGSEGV);
        break;
    }
  });
  dying->tell("have a child");
  const std::string told = dying->hear();
  const Stray stray{told};
  EXPECT_THAT(told, testing::EndsWith("EPERM EPERM"));
  const Checksum device;
  ASSERT_EQ(device.try_lock(), EAGAIN);
  dying->tell("die");
  // Dead for those who wait for it, and still a zombie.
  siginfo_t how{};
  ASSERT_EQ(::waitid(P_PID, static_cast<id_t>(dying->pid()), &how, WEXITED | WNOWAIT), 0);
  EXPECT_EQ(device.try_lock(), 0);
  EXPECT_EQ(attribute("hf_exclusive/lapses"), "1");
  EXPECT_EQ(device.process(), 0);
  EXPECT_TRUE(stray.lives());
}

INSTANTIATE_TEST_SUITE_P(, DeathOfTheOwner, testing::Values(Death::exit, Death::killed, Death::fault),
                         [](const auto& death) {
                           return death.param == Death::exit     ? "exit"
                                  : death.param == Death::killed ? "kill_9"
                                                                 : "fault";
                         });

TEST_F(Exclusive, a_child_that_shares_the_table_of_descriptors_keeps_nothing) {
  const auto dying = owner_that([](Peer& test, Checksum& device) {
    if (::syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0) == 0) be_a_stray(test, device);
    test.hear();
  });
  dying->tell("have a child");
  const std::string told = dying->hear();
  const Stray stray{told};
  EXPECT_THAT(told, testing::EndsWith("EPERM EPERM"));
  const Checksum device;
  EXPECT_EQ(device.try_lock(), EAGAIN);
  dying->kill();
  EXPECT_EQ(device.try_lock(), 0);
}

TEST_F(Exclusive, it_is_kept_until_the_last_thread_is_gone) {
  const auto dying = owner_that([](Peer& test, Checksum& device) {
    static Peer* said;
    static Checksum* used;
    said = &test;
    used = &device;
    pthread_t thread{};
    ::pthread_create(
        &thread, nullptr,
        [](void*) -> void* {
          said->hear();
          said->tell(word(used->process()));
          said->hear();
          ::_exit(0);
        },
        nullptr);
    ::syscall(SYS_exit, 0);  // the leader alone
  });
  dying->tell("leave, leader");
  const std::string stat = "/proc/" + std::to_string(dying->pid()) + "/stat";
  while (true) {  // until the leader is a zombie
    std::ifstream file{stat};
    std::string line;
    ASSERT_TRUE(std::getline(file, line));
    if (line.find(") Z ") != std::string::npos) break;
    std::this_thread::yield();
  }
  const Checksum device;
  EXPECT_EQ(device.try_lock(), EAGAIN);
  dying->tell("process");
  EXPECT_EQ(dying->hear(), "ok");
  EXPECT_EQ(device.owner().pid, dying->pid());
  dying->tell("end");
  EXPECT_EQ(dying->reap(), 0);
  EXPECT_EQ(device.try_lock(), 0);
}

TEST_F(Exclusive, a_thread_unlocks_after_the_leader_is_gone) {
  const auto dying = owner_that([](Peer& test, Checksum& device) {
    static Peer* said;
    static Checksum* used;
    said = &test;
    used = &device;
    pthread_t thread{};
    ::pthread_create(
        &thread, nullptr,
        [](void*) -> void* {
          said->tell(word(used->unlock()));
          said->hear();
          ::_exit(0);
        },
        nullptr);
    ::syscall(SYS_exit, 0);
  });
  dying->tell("leave, leader");
  EXPECT_EQ(dying->hear(), "ok");
  EXPECT_EQ(Checksum{}.try_lock(), 0);
}

// exec(2) to something that lives until it is killed, by the leader or by another thread.
class Exec : public Exclusive, public testing::WithParamInterface<bool> {};

TEST_P(Exec, keeps_the_owner) {
  const auto changed = owner_that([](Peer&, Checksum& device) {
    ::fcntl(device.fd(), F_SETFD, 0);
    static int inherited;
    inherited = device.fd();
    sigset_t go;
    ::sigemptyset(&go);
    ::sigaddset(&go, SIGUSR1);
    ::pthread_sigmask(SIG_BLOCK, &go, nullptr);
    const auto exec = [](void*) -> void* {
      ::execl(KMOD_POKE, KMOD_POKE, std::to_string(inherited).c_str(), nullptr);
      ::_exit(1);
    };
    if (GetParam()) exec(nullptr);
    pthread_t thread{};
    ::pthread_create(&thread, nullptr, exec, nullptr);
    for (;;) ::pause();
  });
  const Checksum device;
  changed->tell("exec");
  ASSERT_TRUE(owner_becomes(device, "kmod_poke"));
  EXPECT_EQ(device.owner().pid, changed->pid());
  EXPECT_EQ(device.try_lock(), EAGAIN);
  changed->signal(SIGUSR1);  // it processes and unlocks, and its status says how
  EXPECT_EQ(changed->reap(), 0);
  EXPECT_EQ(device.owner().lapses, 0U);
  EXPECT_EQ(device.try_lock(), 0);
}

INSTANTIATE_TEST_SUITE_P(, Exec, testing::Values(true, false),
                         [](const auto& leader) { return leader.param ? "by_the_leader" : "by_another_thread"; });

TEST_F(Exclusive, an_exec_with_close_on_exec_and_a_death_frees_it) {
  const auto changed = owner_that([](Peer&, Checksum&) { ::execl("/bin/sleep", "sleep", "1000", nullptr); });
  const Checksum device;
  changed->tell("exec");
  ASSERT_TRUE(owner_becomes(device, "sleep"));
  EXPECT_EQ(device.try_lock(), EAGAIN);
  changed->kill();
  EXPECT_EQ(device.try_lock(), 0);
}

TEST_F(Exclusive, a_tracer_that_is_told_of_the_leaders_end_does_not_free_it) {
  const auto traced = owner_that([](Peer& test, Checksum& device) {
    static Peer* said;
    static Checksum* used;
    said = &test;
    used = &device;
    pthread_t thread{};
    ::pthread_create(
        &thread, nullptr,
        [](void*) -> void* {
          said->hear();
          said->tell(word(used->process()));
          for (;;) ::pause();
        },
        nullptr);
    ::syscall(SYS_exit, 0);
  });
  ASSERT_EQ(::ptrace(PTRACE_SEIZE, traced->pid(), 0, 0), 0) << std::strerror(errno);
  traced->tell("leave, leader");
  traced->tell("process");
  EXPECT_EQ(traced->hear(), "ok");
  const Checksum device;
  EXPECT_EQ(device.try_lock(), EAGAIN);
  traced->kill();
  EXPECT_EQ(traced->reap(), 128 + SIGKILL);
  EXPECT_EQ(device.try_lock(), 0);
}

TEST_F(Exclusive, a_traced_owner_that_is_killed_frees_it) {
  const auto traced = owner();
  ASSERT_EQ(::ptrace(PTRACE_ATTACH, traced->pid(), 0, 0), 0);
  int status = 0;
  ASSERT_EQ(::waitpid(traced->pid(), &status, 0), traced->pid());
  const Checksum device;
  EXPECT_EQ(device.try_lock(), EAGAIN);
  ASSERT_EQ(::ptrace(PTRACE_DETACH, traced->pid(), 0, 0), 0);
  EXPECT_EQ(device.try_lock(), EAGAIN);
  traced->kill();
  EXPECT_EQ(device.try_lock(), 0);
}

TEST_F(Exclusive, an_owner_that_nobody_reaps_by_hand_frees_it) {
  Child parent{[](Peer& test) {
    ::signal(SIGCHLD, SIG_IGN);  // its children are reaped by the kernel
    int ends[2];
    if (::pipe(ends) != 0) return 1;
    if (::fork() == 0) {
      test.tell(word(Checksum{}.lock()));
      ::_exit(0);
    }
    ::close(ends[1]);
    char byte = 0;
    if (::read(ends[0], &byte, 1) != 0) return 1;
    test.tell("over");
    test.hear();
    return 0;
  }};
  EXPECT_EQ(parent.hear(), "ok");
  EXPECT_EQ(parent.hear(), "over");
  EXPECT_TRUE(becomes_free());
  EXPECT_EQ(attribute("hf_exclusive/lapses"), "1");
}

TEST_F(Exclusive, a_process_with_the_dead_owners_number_is_a_stranger) {
  const Checksum device;
  pid_t number = 0;
  {
    const auto first = owner();
    number = first->pid();
    first->kill();
  }
  ASSERT_EQ(device.try_lock(), 0);
  ASSERT_EQ(device.unlock(), 0);
  const auto second = owner();
  ASSERT_NE(second->pid(), number);
  // A number again, while the kernel still has a struct pid of the one that is dead.
  clone_args arguments{};
  arguments.exit_signal = SIGCHLD;
  arguments.set_tid = reinterpret_cast<std::uint64_t>(&number);
  arguments.set_tid_size = 1;
  const pid_t again = static_cast<pid_t>(::syscall(SYS_clone3, &arguments, sizeof arguments));
  if (again == 0) ::_exit(device.process() == EPERM && device.unlock() == EPERM && device.try_lock() == EAGAIN ? 0 : 1);
  ASSERT_EQ(again, number);
  int status = -1;
  ASSERT_EQ(::waitpid(again, &status, 0), again);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(device.owner().pid, second->pid());
}

// -- waiting

TEST_F(Exclusive, a_handled_signal_ends_the_wait_or_restarts_it) {
  for (const int flags : {0, SA_RESTART}) {
    const auto other = owner();
    Child child{[flags](Peer& test) {
      struct sigaction action{};
      action.sa_flags = flags;
      static std::atomic<bool> handled;
      action.sa_handler = [](int) { handled = true; };
      ::sigaction(SIGUSR1, &action, nullptr);
      const int answer = Checksum{}.lock();
      test.tell(word(answer) + (handled ? " handled" : ""));
      test.hear();
      return 0;
    }};
    ASSERT_TRUE(waiters_are(1));
    child.signal(SIGUSR1);
    if (flags == 0) {
      EXPECT_EQ(child.hear(), "EINTR handled");
      EXPECT_EQ(Checksum{}.owner().waiters, 0U);
    } else {
      ASSERT_TRUE(waiters_are(1));
      other->tell("go");
      EXPECT_EQ(child.hear(), "ok handled");
    }
    child.kill();
  }
}

TEST_F(Exclusive, a_killed_waiter_leaves_and_the_next_is_served) {
  const auto other = owner();
  const auto killed = waiter(1);
  const auto next = waiter(2);
  killed->kill();
  EXPECT_TRUE(waiters_are(1));
  other->tell("go");
  EXPECT_EQ(next->hear(), "ok");
}

TEST_F(Exclusive, a_stopped_waiter_holds_nobody_up) {
  const auto other = owner();
  const auto stopped = waiter(1);
  const auto next = waiter(2);
  stopped->signal(SIGSTOP);
  EXPECT_TRUE(waiters_are(1));
  other->tell("go");
  EXPECT_EQ(next->hear(), "ok");
  stopped->signal(SIGCONT);
  EXPECT_TRUE(waiters_are(1));
  next->tell("unlock");
  EXPECT_EQ(stopped->hear(), "ok");
}

TEST_F(Exclusive, waiters_are_served_in_their_order) {
  const auto other = owner();
  std::vector<std::unique_ptr<Child>> queue;
  for (unsigned i = 1; i <= 6; ++i) queue.push_back(waiter(i));
  const auto token = Checksum{}.owner().token;
  other->tell("go");
  for (std::size_t i = 0; i < queue.size(); ++i) {
    ASSERT_EQ(queue[i]->hear(), "ok") << i;
    EXPECT_EQ(Checksum{}.owner().pid, queue[i]->pid());
    EXPECT_EQ(Checksum{}.owner().token, token + i + 1);
    if (i % 2 == 0) {
      queue[i]->tell("unlock");
      ASSERT_EQ(queue[i]->hear(), "ok");
    } else {
      queue[i]->kill();
    }
  }
  EXPECT_TRUE(becomes_free());
}

TEST_F(Exclusive, nobody_barges_past_a_waiter) {
  const Checksum device;
  for (int round = 0; round < 3; ++round) {
    ASSERT_EQ(device.lock(), 0);
    const auto mine = device.owner().token;
    std::vector<std::unique_ptr<Child>> queue;
    for (unsigned i = 1; i <= 4; ++i) {
      queue.push_back(std::make_unique<Child>([](Peer& test) {
        const Checksum theirs;
        const int error = theirs.lock();
        const auto token = theirs.owner().token;
        test.tell(error == 0 && theirs.unlock() == 0 ? std::to_string(token) : "refused");
        return 0;
      }));
      ASSERT_TRUE(waiters_are(i));
    }
    // One that never waits, and tries all the time.
    Child barger{[](Peer& test) {
      const Checksum theirs;
      if (theirs.try_lock() != EAGAIN) return 1;
      test.tell("trying");
      while (theirs.try_lock() != 0) {
      }
      test.tell(std::to_string(theirs.owner().token));
      return 0;
    }};
    ASSERT_EQ(barger.hear(), "trying");
    ASSERT_EQ(device.unlock(), 0);
    for (unsigned i = 0; i < 4; ++i) EXPECT_EQ(queue[i]->hear(), std::to_string(mine + i + 1));
    EXPECT_EQ(barger.hear(), std::to_string(mine + 5));
    EXPECT_EQ(barger.reap(), 0);
  }
}

TEST_F(Exclusive, poll_tells_when_it_is_free) {
  const Checksum device;
  EXPECT_EQ(device.polled(), POLLOUT);
  for (const bool by_death : {false, true}) {
    const auto other = owner_that([](Peer& test, Checksum& mine) {
      test.tell(word(mine.unlock()));
      test.hear();
    });
    EXPECT_EQ(device.polled(), 0);
    pollfd events{device.fd(), POLLOUT, 0};
    std::thread later{[&] {
      if (by_death)
        other->signal(SIGKILL);
      else
        other->tell("unlock");
    }};
    EXPECT_EQ(::poll(&events, 1, static_cast<int>(kPatience.count())), 1);
    EXPECT_EQ(events.revents, POLLOUT);
    later.join();
  }
}

// -- the device or the module goes

TEST_F(Exclusive, removal_while_it_is_held_ends_all_waits) {
  const Checksum device;
  ASSERT_EQ(device.lock(), 0);
  const auto waits = waiter(1);
  Child polls{[](Peer& test) {
    const Checksum mine;
    pollfd events{mine.fd(), POLLOUT, 0};
    test.tell("polling");
    ::poll(&events, 1, -1);
    test.tell(std::to_string(events.revents));
    return 0;
  }};
  ASSERT_EQ(polls.hear(), "polling");
  {
    std::ofstream{"/sys/bus/platform/drivers/hf_checksum/unbind"} << "hf_checksum.0";
  }
  EXPECT_EQ(waits->hear(), "ENODEV");
  EXPECT_EQ(polls.hear(), std::to_string(POLLHUP | POLLERR));
  EXPECT_EQ(device.process(), ENODEV);
  EXPECT_EQ(attribute("processed"), "(gone)");
  // Another of the same name is not it.
  {
    std::ofstream{"/sys/bus/platform/drivers/hf_checksum/bind"} << "hf_checksum.0";
  }
  const Checksum anew;
  EXPECT_EQ(anew.lock(), 0);
  EXPECT_EQ(anew.process(), 0);
  EXPECT_EQ(device.try_lock(), ENODEV);
  EXPECT_EQ(device.unlock(), 0);
  EXPECT_EQ(device.unlock(), EPERM);
}

TEST_F(Exclusive, an_owner_outlives_the_removed_device) {
  const auto other = owner();
  {
    std::ofstream{"/sys/bus/platform/drivers/hf_checksum/unbind"} << "hf_checksum.0";
  }
  other->kill();
  EXPECT_EQ(other->reap(), 128 + SIGKILL);
}

TEST_F(Exclusive, the_module_stays_while_a_file_is_open_and_goes_while_it_is_held) {
  Checksum device;
  ASSERT_EQ(device.lock(), 0);
  EXPECT_EQ(remove_module("checksum"), EWOULDBLOCK);
  EXPECT_EQ(remove_module("holdfast_exclusive"), EWOULDBLOCK);
  device.close();
  remove_checksum();  // this process owns a device that is not there
  const Module again{"checksum"};
  EXPECT_EQ(Checksum{}.lock(), 0);
}

TEST_F(Exclusive, an_owner_dies_after_the_module_is_gone) {
  const auto other = owner_that([](Peer& test, Checksum& device) {
    device.close();
    test.tell("closed");
    test.hear();
  });
  other->tell("close");
  ASSERT_EQ(other->hear(), "closed");
  remove_checksum();
  other->kill();
  EXPECT_EQ(other->reap(), 128 + SIGKILL);
}

// -- who owns it

TEST_F(Exclusive, the_owner_is_told_by_ioctl_and_in_sysfs) {
  const Checksum device;
  auto free = device.owner();
  EXPECT_EQ(free.state, HF_EXCLUSIVE_FREE);
  EXPECT_EQ(free.token, 0U);
  EXPECT_EQ(attribute("hf_exclusive/abi"), "1");
  EXPECT_EQ(attribute("hf_exclusive/owner"), "none");
  const auto other = owner();
  const auto held = device.owner();
  EXPECT_EQ(held.state, HF_EXCLUSIVE_PROCESS);
  EXPECT_EQ(held.pid, other->pid());
  EXPECT_EQ(held.token, 1U);
  EXPECT_GT(held.since_ns, 0U);
  EXPECT_STREQ(held.name, "vm_kmod_test");
  EXPECT_EQ(attribute("hf_exclusive/owner"),
            "process " + std::to_string(other->pid()) + " " + std::to_string(held.since_ns) + " vm_kmod_test");
  EXPECT_EQ(attribute("hf_exclusive/token"), "1");
  // From where the owner cannot be seen it has no number.
  EXPECT_EQ(testing_support::in_a_child([] {
              if (::unshare(CLONE_NEWPID) != 0) return std::string{std::strerror(errno)};
              return testing_support::in_a_child([] {
                const auto seen = Checksum{}.owner();
                return std::to_string(seen.state) + " " + std::to_string(seen.pid);
              });
            }),
            "1 0");
}

TEST_F(Exclusive, what_is_not_known_is_refused) {
  const Checksum device;
  EXPECT_EQ(ioctl_errno(device.fd(), HF_IOC_LOCK, 1), EINVAL);
  EXPECT_EQ(ioctl_errno(device.fd(), HF_IOC_TRYLOCK, 1), EINVAL);
  EXPECT_EQ(ioctl_errno(device.fd(), HF_IOC_UNLOCK, 1), EINVAL);
  struct {
    hf_exclusive_wait wait;
    std::uint64_t more;
  } larger{};
  const auto at = reinterpret_cast<unsigned long>(&larger);
  const unsigned long larger_lock = _IOC(_IOC_WRITE, HF_EXCLUSIVE_IOC, 3, sizeof larger);
  EXPECT_EQ(ioctl_errno(device.fd(), larger_lock, at), 0);
  EXPECT_EQ(device.unlock(), 0);
  larger.more = 1;
  EXPECT_EQ(ioctl_errno(device.fd(), larger_lock, at), E2BIG);
  larger.wait.flags = 1;
  EXPECT_EQ(ioctl_errno(device.fd(), HF_IOC_LOCK_UNTIL, at), EINVAL);
  EXPECT_EQ(ioctl_errno(device.fd(), HF_IOC_LOCK_UNTIL, 1), EFAULT);
  EXPECT_EQ(ioctl_errno(device.fd(), _IOC(_IOC_WRITE, HF_EXCLUSIVE_IOC, 3, 8), at), EINVAL);
  struct {
    hf_exclusive_owner owner;
    std::uint64_t more;
  } owner{};
  owner.more = ~std::uint64_t{0};
  EXPECT_EQ(ioctl_errno(device.fd(), _IOC(_IOC_READ | _IOC_WRITE, HF_EXCLUSIVE_IOC, 4, sizeof owner),
                        reinterpret_cast<unsigned long>(&owner)),
            0);
  EXPECT_EQ(owner.more, 0U);
  EXPECT_EQ(ioctl_errno(device.fd(), HF_IOC_OWNER, 8), EFAULT);
  owner.owner.flags = 1;
  EXPECT_EQ(ioctl_errno(device.fd(), HF_IOC_OWNER, reinterpret_cast<unsigned long>(&owner)), EINVAL);
  EXPECT_EQ(ioctl_errno(device.fd(), _IO(HF_EXCLUSIVE_IOC, 15), 0), ENOTTY);
  EXPECT_EQ(ioctl_errno(device.fd(), _IOC(0, HF_EXCLUSIVE_IOC, 0, 8), 0), ENOTTY);
  EXPECT_EQ(ioctl_errno(device.fd(), HF_IOC_PROCESS, 8), EFAULT);
  hf_checksum_process job{};
  job.flags = 1;
  EXPECT_EQ(ioctl_errno(device.fd(), HF_IOC_PROCESS, reinterpret_cast<unsigned long>(&job)), EINVAL);
  ASSERT_EQ(device.lock(), 0);
  job = {.data = 8, .size = 8, .flags = 0, .crc32c = 0, .sha256 = {}};
  EXPECT_EQ(ioctl_errno(device.fd(), HF_IOC_PROCESS, reinterpret_cast<unsigned long>(&job)), EFAULT);
}

// -- users inside the kernel

class KernelUser : public Exclusive {
 protected:
  void SetUp() override {
    Exclusive::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    user_.emplace("checksum_kuser");
  }
  void TearDown() override {
    user_.reset();
    Exclusive::TearDown();
  }
  void remove_user() { user_.reset(); }

 private:
  std::optional<Module> user_;
};

TEST_F(KernelUser, the_kernel_and_programs_keep_each_other_out) {
  const Checksum device;
  ASSERT_EQ(tell_kuser('a', "lock"), 0);
  EXPECT_EQ(tell_kuser('a', "lock"), EDEADLK);
  EXPECT_EQ(tell_kuser('b', "trylock"), EAGAIN);
  EXPECT_EQ(tell_kuser('b', "unlock"), EPERM);
  EXPECT_EQ(tell_kuser('b', "process x"), EPERM);
  // Not the process in whose name it ran.
  EXPECT_EQ(device.unlock(), EPERM);
  EXPECT_EQ(device.process(), EPERM);
  EXPECT_EQ(device.try_lock(), EAGAIN);
  const auto held = device.owner();
  EXPECT_EQ(held.state, HF_EXCLUSIVE_KERNEL);
  EXPECT_EQ(held.pid, 0);
  EXPECT_STREQ(held.name, "kuser a");
  EXPECT_EQ(tell_kuser('a', "process 123456789"), 0);
  std::string sums;
  std::getline(std::ifstream{"/sys/kernel/debug/checksum_kuser/a"}, sums);
  EXPECT_EQ(sums, "e3069283 15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225");
  EXPECT_EQ(tell_kuser('a', "unlock"), 0);
  ASSERT_EQ(device.lock(), 0);
  EXPECT_EQ(tell_kuser('a', "trylock"), EAGAIN);
  EXPECT_EQ(tell_kuser('a', "lock_timeout 20"), ETIMEDOUT);
  EXPECT_EQ(tell_kuser('a', "process x"), EPERM);
}

TEST_F(KernelUser, the_kernel_and_programs_stand_in_one_queue) {
  const Checksum device;
  ASSERT_EQ(device.lock(), 0);
  std::thread kernel{[] { EXPECT_EQ(tell_kuser('a', "lock"), 0); }};
  ASSERT_TRUE(waiters_are(1));
  const auto program = waiter(2);
  ASSERT_EQ(device.unlock(), 0);
  kernel.join();
  EXPECT_STREQ(device.owner().name, "kuser a");
  ASSERT_EQ(tell_kuser('a', "unlock"), 0);
  EXPECT_EQ(program->hear(), "ok");
}

TEST_F(KernelUser, waits_as_long_as_it_says) {
  const Checksum device;
  ASSERT_EQ(device.lock(), 0);
  const auto with = [](const char* words, int signal) {
    Child child{[words](Peer& test) {
      struct sigaction action{};
      action.sa_handler = [](int) {};
      ::sigaction(SIGUSR1, &action, nullptr);
      test.tell(word(tell_kuser('a', words)));
      test.hear();
      return 0;
    }};
    EXPECT_TRUE(waiters_are(1));
    child.signal(signal);
    if (signal == SIGKILL) {
      EXPECT_EQ(child.reap(), 128 + SIGKILL) << words;
    } else {
      EXPECT_EQ(child.hear(), "EINTR") << words;
    }
  };
  with("lock_interruptible", SIGUSR1);
  with("lock_timeout 3600000", SIGUSR1);
  with("lock_killable", SIGKILL);
  // lock alone is not ended by anything.
  Child child{[](Peer& test) {
    test.tell(word(tell_kuser('a', "lock")));
    return 0;
  }};
  ASSERT_TRUE(waiters_are(1));
  child.signal(SIGKILL);
  EXPECT_FALSE(testing_support::wait_for_death(child.pidfd(), std::chrono::milliseconds{50}));
  ASSERT_EQ(device.unlock(), 0);
  EXPECT_EQ(child.reap(), 128 + SIGKILL);
  EXPECT_STREQ(device.owner().name, "kuser a");
}

TEST_F(KernelUser, a_module_that_goes_gives_back_what_it_holds) {
  ASSERT_EQ(tell_kuser('c', "lock"), 0);
  EXPECT_EQ(remove_module("checksum"), EWOULDBLOCK);
  remove_user();
  EXPECT_EQ(Checksum{}.try_lock(), 0);
}

}  // namespace
}  // namespace holdfast::vm
