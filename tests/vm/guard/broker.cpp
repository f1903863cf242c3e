// SPDX-License-Identifier: MIT
// broker.cpp - claims through the broker where the guard is installed: who is let through, who is refused and told of,
// what becomes of it when the owner, the broker or both are killed. All are root.
#include "vm/guard/support.hpp"

#include "claim/inquiry.hpp"
#include "interop/support/bench.hpp"
#include "process/support/broker.hpp"
#include "process/support/child.hpp"

#include <holdfast/claim.hpp>
#include <holdfast/watch.hpp>

#include <bpf/bpf.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <memory>
#include <set>
#include <thread>

namespace holdfast::vm {
namespace {

using interop::eventually;
using testing::AllOf;
using testing::HasSubstr;
using testing_support::BrokerUnderTest;
using testing_support::Child;
using testing_support::in_a_child;
using testing_support::Peer;
using testing_support::Stopwatch;
using namespace std::chrono_literals;

constexpr const char* kDisk = "/dev/vda";
constexpr const char* kPort = "/dev/ttyUSB0";
constexpr const char* kOtherPort = "/dev/ttyUSB1";

std::string a_stranger_opens(const std::string& path) {
  return in_a_child([&] { return opened(path); });
}

/// PROCESS: what one read of the device is answered, whether or not it has something to say.
std::string process(int fd) {
  std::array<char, 512> bytes{};
  const ssize_t got = ::read(fd, bytes.data(), bytes.size());
  if (got >= 0 || errno == EAGAIN || errno == EIO) return "processed";
  return errno == EBUSY ? "refused" : name_of(-1);
}

Result<Claim> guarded(const std::string& path, Wait wait = Wait::none()) {
  return claim(path, {.wait = wait, .guarding = Guarding::required});
}

/// Claims, says "guarded", and does what it is told until it is told to release.
int hold(const std::string& path, Peer& test, Wait wait = Wait::none()) {
  auto mine = guarded(path, wait);
  test.tell(!mine ? mine.error().message : mine->enforcement() == Enforcement::guarded ? "guarded" : "not guarded");
  while (mine) {
    const std::string words = test.hear(std::chrono::minutes{3});
    if (words == "process") test.tell(mine->fd() ? process(*mine->fd()) : mine->fd().error().message);
    if (words == "check") test.tell(mine->check() ? "held" : mine->check().error().message);
    if (words == "release") mine->release();
    if (words == "release") test.tell("released");
    if (words == "end" || words == "(gone)" || words == "(silence)") break;
  }
  return 0;
}

std::string told(Child& child, std::string_view words) {
  child.tell(words);
  return child.hear();
}

wire::DeviceStatus status_of(const std::string& path) {
  const auto all = claiming::broker_status({});
  for (const wire::DeviceStatus& one : all.value_or(std::vector<wire::DeviceStatus>{}))
    if (one.device.path == path) return one;
  return {};
}

std::string said_by(const std::string& command) {
  std::string text;
  FILE* const pipe = ::popen((command + " 2>&1").c_str(), "r");
  if (pipe == nullptr) return text;
  for (std::array<char, 256> line{}; std::fgets(line.data(), line.size(), pipe) != nullptr;) text += line.data();
  ::pclose(pipe);
  return text;
}

/// The names of those who were refused, until all of `wanted` are among them.
std::set<std::string> refused(Watch& watch, const std::set<std::string>& wanted) {
  std::set<std::string> seen;
  while (!std::ranges::includes(seen, wanted)) {
    const auto event = watch.next(Wait::at_most(20s));
    if (!event) break;
    EXPECT_EQ(event->kind, EventKind::denied);
    EXPECT_EQ(event->who.user, "root");
    EXPECT_THAT(event->detail, HasSubstr("held by"));
    seen.insert(event->who.command);
  }
  return seen;
}

class BrokeredGuard : public GuardTest {};

TEST_F(BrokeredGuard, programs_that_ask_nobody_are_refused_and_named) {
  BrokerUnderTest broker;
  auto watch = Watch::open(std::array{std::string{kDisk}}, {EventKind::denied});
  ASSERT_TRUE(watch) << watch.error().message;
  {
    auto mine = guarded(kDisk);
    ASSERT_TRUE(mine) << mine.error().message << broker.log();
    EXPECT_EQ(mine->enforcement(), Enforcement::guarded);
    ASSERT_TRUE(mine->fd());
    EXPECT_EQ(process(*mine->fd()), "processed");
    EXPECT_THAT(said_by(std::string{"cat "} + kDisk), HasSubstr("Device or resource busy"));
    ::usleep(200'000);  // at most ten reports a second
    EXPECT_THAT(said_by(std::string{"dd count=1 of=/dev/null if="} + kDisk), HasSubstr("Device or resource busy"));
    ::usleep(200'000);
    EXPECT_THAT(said_by(std::string{"python3 -c 'open(\""} + kDisk + "\", \"rb\")'"), HasSubstr("busy"));
    const std::set<std::string> intruders{"cat", "dd", "python3"};
    EXPECT_THAT(refused(*watch, intruders), testing::IsSupersetOf(intruders)) << broker.log();
    const wire::DeviceStatus status = status_of(kDisk);
    EXPECT_EQ(status.enforcement, Enforcement::guarded);
    EXPECT_GE(status.denials, 3U);
    bool is_told = false;
    for (const Notice& notice : mine->notices())
      is_told = is_told || (notice.kind == Notice::Kind::denied && notice.by.starts_with("cat["));
    EXPECT_TRUE(is_told) << "the holder hears of it";
    EXPECT_TRUE(mine->held());
  }
  EXPECT_EQ(a_stranger_opens(kDisk), "OK");
}

TEST_F(BrokeredGuard, a_claim_without_it_is_open_to_root) {
  BrokerUnderTest broker{{"--guard", "off"}};
  const auto refused = guarded(kDisk);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("without --guard=off"));
  const auto mine = claim(kDisk);
  ASSERT_TRUE(mine) << mine.error().message;
  EXPECT_NE(mine->enforcement(), Enforcement::guarded);
  EXPECT_EQ(a_stranger_opens(kDisk), "OK");
}

TEST_F(BrokeredGuard, sharers_are_let_through_and_nobody_else) {
  BrokerUnderTest broker;
  const Options shared{.mode = Mode::shared, .guarding = Guarding::required};
  auto mine = claim(kDisk, shared);
  ASSERT_TRUE(mine) << mine.error().message;
  Child other{[&](Peer& test) {
    auto theirs = claim(kDisk, shared);
    test.tell(theirs ? opened(kDisk) : theirs.error().message);
    test.hear();
    return 0;
  }};
  EXPECT_EQ(other.hear(), "OK");
  EXPECT_EQ(a_stranger_opens(kDisk), "EBUSY");
  other.kill();
  EXPECT_EQ(a_stranger_opens(kDisk), "EBUSY");
  ASSERT_TRUE(mine->upgrade());
  EXPECT_EQ(mine->enforcement(), Enforcement::guarded);
  EXPECT_EQ(a_stranger_opens(kDisk), "EBUSY");
  ASSERT_TRUE(mine->downgrade());
  EXPECT_EQ(a_stranger_opens(kDisk), "EBUSY");
}

TEST_F(BrokeredGuard, a_waiter_waits_though_it_is_refused_and_is_the_next_owner) {
  BrokerUnderTest broker;
  Child owner{[](Peer& test) { return hold(kDisk, test); }};
  ASSERT_EQ(owner.hear(), "guarded") << broker.log();
  Child waiter{[](Peer& test) {
    test.tell("waits");
    const auto mine = claim(kDisk, {.wait = Wait::at_most(20s), .guarding = Guarding::required});
    test.tell(mine ? opened(kDisk) : mine.error().message);
    test.hear();
    return 0;
  }};
  EXPECT_EQ(waiter.hear(), "waits");
  const Stopwatch watch;
  while (status_of(kDisk).waiting == 0 && watch.ms() < 20'000) ::usleep(10'000);
  EXPECT_LE(status_of(kDisk).denials, 1U) << "its access(2)";
  EXPECT_EQ(told(owner, "release"), "released");
  EXPECT_EQ(waiter.hear(), "OK");
  EXPECT_THAT(told(owner, "process"), HasSubstr("not held"));
  EXPECT_EQ(a_stranger_opens(kDisk), "EBUSY");
}

TEST_F(BrokeredGuard, nobody_is_shut_out_of_the_terminal_that_he_sits_at) {
  BrokerUnderTest broker;
  const testing_support::Pty pty;
  const auto claimed_there = [&](Guarding guarding) {
    return in_a_child([&]() -> std::string {
      ::setsid();
      const base::UniqueFd terminal{::open(pty.path().c_str(), O_RDWR | O_CLOEXEC)};
      const auto mine = claim(pty.path(), {.guarding = guarding});
      if (!mine) return mine.error().message;
      return mine->enforcement() == Enforcement::guarded ? "guarded" : "not guarded";
    });
  };
  EXPECT_THAT(claimed_there(Guarding::required), HasSubstr("the controlling terminal of process"));
  EXPECT_EQ(claimed_there(Guarding::automatic), "not guarded");
}

TEST_F(BrokeredGuard, a_time_limit_ends_it_though_the_broker_is_stopped) {
  BrokerUnderTest broker;
  auto mine = claim(kDisk, {.lease = 3s, .guarding = Guarding::required});
  ASSERT_TRUE(mine) << mine.error().message;
  EXPECT_EQ(a_stranger_opens(kDisk), "EBUSY");
  ::kill(broker.pid(), SIGSTOP);
  const Stopwatch watch;
  while (a_stranger_opens(kDisk) != "OK" && watch.ms() < 20'000) ::usleep(50'000);
  EXPECT_LT(watch.ms(), 20'000);
  ::kill(broker.pid(), SIGCONT);
}

TEST_F(BrokeredGuard, holds_through_kill_9_of_the_broker_and_ends_with_its_owner) {
  BrokerUnderTest broker;
  Child owner{[](Peer& test) { return hold(kDisk, test); }};
  ASSERT_EQ(owner.hear(), "guarded") << broker.log();
  broker.kill();
  EXPECT_EQ(a_stranger_opens(kDisk), "EBUSY");
  EXPECT_EQ(told(owner, "process"), "processed");
  broker.start();
  EXPECT_EQ(a_stranger_opens(kDisk), "EBUSY");
  EXPECT_EQ(status_of(kDisk).enforcement, Enforcement::guarded) << broker.log();
  EXPECT_EQ(told(owner, "check"), "held");
  EXPECT_EQ(told(owner, "process"), "processed");
  broker.kill();
  owner.kill();
  EXPECT_EQ(a_stranger_opens(kDisk), "OK") << "the kernel itself ends it, with nobody there";
  broker.start();
  EXPECT_EQ(guard().switches().active, 0);
}

TEST_F(BrokeredGuard, goes_on_under_a_broker_that_was_started_anew_and_is_released_through_it) {
  BrokerUnderTest broker;
  Child owner{[](Peer& test) { return hold(kPort, test); }};
  ASSERT_EQ(owner.hear(), "guarded") << broker.log();
  EXPECT_EQ(broker.stop(), 0);
  EXPECT_EQ(a_stranger_opens(kPort), "EBUSY");
  broker.start();
  EXPECT_EQ(told(owner, "release"), "released");
  EXPECT_EQ(a_stranger_opens(kPort), "OK") << broker.log();
  Child next{[](Peer& test) { return hold(kPort, test); }};
  EXPECT_EQ(next.hear(), "guarded") << broker.log();
  EXPECT_EQ(told(next, "process"), "processed");
}

// Not with the others' way to the maps, which are new ones then.
TEST(BrokeredGuardAnew, is_noticed_when_it_goes_and_when_it_comes_while_claims_live) {
  ASSERT_TRUE(guard::install());
  BrokerUnderTest broker;
  Child owner{[](Peer& test) { return hold(kDisk, test); }};
  ASSERT_EQ(owner.hear(), "guarded") << broker.log();
  ASSERT_TRUE(guard::remove());
  EXPECT_EQ(a_stranger_opens(kDisk), "OK");
  EXPECT_NE(status_of(kDisk).enforcement, Enforcement::guarded);
  EXPECT_EQ(told(owner, "check"), "held");
  ASSERT_TRUE(guard::install());
  EXPECT_EQ(status_of(kDisk).enforcement, Enforcement::guarded) << broker.log();
  EXPECT_EQ(a_stranger_opens(kDisk), "EBUSY");
  EXPECT_EQ(told(owner, "release"), "released");
  EXPECT_EQ(a_stranger_opens(kDisk), "OK");
}

// --- LOCK, PROCESS, UNLOCK against what a process does meanwhile, on plain devices that know nothing of owners -------

class Table : public GuardTest, public testing::WithParamInterface<const char*> {
 protected:
  [[nodiscard]] std::string device() const { return GetParam(); }
  [[nodiscard]] base::UniqueFd open_it() const {
    return base::UniqueFd{::open(GetParam(), O_RDWR | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)};
  }
  BrokerUnderTest broker_;
};

TEST_P(Table, the_owner_processes_with_each_copy_and_in_each_thread_and_a_forked_child_does_not) {
  const base::UniqueFd before = open_it();
  auto mine = guarded(device());
  ASSERT_TRUE(mine) << mine.error().message;
  const base::UniqueFd fd = open_it();
  EXPECT_EQ(process(before.get()), "processed") << "opened before the lock, by the owner";
  EXPECT_EQ(process(fd.get()), "processed");
  const base::UniqueFd copy{::fcntl(fd.get(), F_DUPFD_CLOEXEC, 0)};
  EXPECT_EQ(process(copy.get()), "processed");
  std::string in_a_thread;
  std::thread{[&] { in_a_thread = process(fd.get()); }}.join();
  EXPECT_EQ(in_a_thread, "processed");
  EXPECT_EQ(in_a_child([&] { return process(fd.get()) + " " + process(before.get()) + " " + opened(device()); }),
            "refused refused EBUSY")
      << "a forked child with the inherited descriptors";
  EXPECT_EQ(in_a_child([&] { return guarded(device()) ? "locked" : "refused"; }), "refused");
  mine->release();
  EXPECT_EQ(in_a_child([&] { return process(fd.get()) + " " + opened(device()); }), "processed OK") << "UNLOCK";
}

TEST_P(Table, the_lock_stays_through_exec_and_ends_with_exit_and_kill) {
  Child owner{[&](Peer& test) -> int {
    auto mine = guarded(device());
    if (!mine || !mine->leave_to_exec()) return 1;
    test.tell("locked");
    test.hear();
    ::execlp("dd", "dd", ("if=" + device()).c_str(), "of=/dev/null", "iflag=nonblock,noctty", "count=0", "status=none",
             nullptr);
    return 2;
  }};
  ASSERT_EQ(owner.hear(), "locked");
  EXPECT_EQ(a_stranger_opens(device()), "EBUSY");
  owner.tell("exec");
  EXPECT_EQ(owner.reap(), 0) << "the program after exec is the owner";
  EXPECT_EQ(a_stranger_opens(device()), "OK") << "it has exited";
  Child next{[&](Peer& test) { return hold(device(), test); }};
  ASSERT_EQ(next.hear(), "guarded");
  EXPECT_EQ(a_stranger_opens(device()), "EBUSY");
  next.kill();
  EXPECT_EQ(a_stranger_opens(device()), "OK");
}

INSTANTIATE_TEST_SUITE_P(Plain, Table, testing::Values("/dev/ttyUSB0", "/dev/hidraw0"),
                         [](const auto& one) { return std::string{one.param}.substr(5); });

// --- Everything at once ---------------------------------------------------------------------------------------------

// What is installed, as a package's manager replaces it: each new file is renamed over the old one.
class Installed {
 public:
  Installed() { replace(); }
  void replace() {
    for (const auto& [room, to] : {std::pair{"broker", daemon()}, std::pair{"cli", command()}}) {
      std::filesystem::copy_file(std::string{VERSIONS} + (is_next_ ? "/next_" : "/this_") + room, to + ".new");
      std::filesystem::rename(to + ".new", to);
    }
    is_next_ = !is_next_;
  }
  [[nodiscard]] std::string daemon() const { return folder_ / "holdfastd"; }
  [[nodiscard]] std::string command() const { return folder_ / "holdfast"; }

 private:
  testing_support::TemporaryDirectory folder_;
  bool is_next_ = false;
};

/// The kernel's own name for the programs that are pinned, a hash of their instructions.
std::array<unsigned char, BPF_TAG_SIZE> pinned_programs() {
  std::array<unsigned char, BPF_TAG_SIZE> tag{};
  const auto program = guard::pinned({}, "program_hf_open");
  bpf_prog_info info{};
  std::uint32_t size = sizeof info;
  EXPECT_TRUE(program && ::bpf_obj_get_info_by_fd(program->get(), &info, &size) == 0);
  std::ranges::copy(info.tag, tag.begin());
  return tag;
}

struct Shared {
  std::atomic<std::uint64_t> held{0};  // the number of the claim that is guarded now
  std::atomic<std::uint64_t> next{1};
  std::atomic<std::uint64_t> grants{0};
  std::atomic<std::uint64_t> not_granted{0};
  std::atomic<std::uint64_t> lost{0};
  std::atomic<std::uint64_t> let_in{0};
  std::atomic<std::uint64_t> kept_out{0};
  std::atomic<std::uint64_t> owner_refused{0};
};

class Page {
 public:
  Page()
      : shared_{new(::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0))
                    Shared} {}
  Page(const Page&) = delete;
  Page& operator=(const Page&) = delete;
  ~Page() { ::munmap(shared_, sizeof(Shared)); }
  Shared* operator->() const { return shared_; }

 private:
  Shared* shared_;
};

[[noreturn]] void claim_for_ever(const Page& page, Guarding guarding) {
  while (true) {
    auto mine = claim(kOtherPort, {.wait = Wait::at_most(200s), .guarding = guarding});
    if (!mine) {
      // Whose first words found no broker that answers is none who waits.
      const bool asked = !mine.error().message.starts_with("the guard needs the broker: none answers");
      if (asked) page->not_granted.fetch_add(1);
      if (asked) std::fprintf(stderr, "%s\n", mine.error().message.c_str());
      ::usleep(10'000);
      continue;
    }
    const std::uint64_t number = page->next.fetch_add(1);
    page->held.store(number);
    page->grants.fetch_add(1);
    for (int i = 0; i < 3; ++i) {
      const auto fd = mine->fd();
      if (fd && process(*fd) == "refused") page->owner_refused.fetch_add(1);
      ::usleep(5'000);
    }
    if (const auto still = mine->check(); !still) {
      page->lost.fetch_add(1);
      std::fprintf(stderr, "%s\n", still.error().message.c_str());
    }
    // Whoever took it meanwhile, with this one killed, counts for itself.
    std::uint64_t expected = number;
    page->held.compare_exchange_strong(expected, 0);
  }
}

[[noreturn]] void attack_for_ever(const std::string& path, const Page& page, useconds_t rest) {
  while (true) {
    const std::uint64_t before = page->held.load();
    const bool is_in = opened(path, O_RDONLY) == "OK";
    const bool was_held = before != 0 && page->held.load() == before;
    if (was_held) (is_in ? page->let_in : page->kept_out).fetch_add(1);
    if (rest > 0) ::usleep(rest);
  }
}

/// Claims of a port in a row, and strangers who want it, and a port that somebody has for long, if there is such.
class Crowd {
 public:
  Crowd(const Page& claimed, const Page* held, Guarding guarding) {
    for (int i = 0; i < 3; ++i) add([&claimed, guarding] { claim_for_ever(claimed, guarding); });
    add([&claimed] { attack_for_ever(kOtherPort, claimed, 2'000); });
    if (held != nullptr) add([held] { attack_for_ever(kPort, *held, 2'000); });
  }
  Crowd(const Crowd&) = delete;
  Crowd& operator=(const Crowd&) = delete;
  // The attackers first: what is killed while it holds leaves its number.
  ~Crowd() {
    while (!children_.empty()) children_.pop_back();
  }

 private:
  void add(const std::function<void()>& body) {
    children_.push_back(std::make_unique<Child>([&](Peer&) {
      body();
      return 0;
    }));
  }
  std::vector<std::unique_ptr<Child>> children_;
};

TEST_F(BrokeredGuard, nobody_is_let_in_while_brokers_and_versions_come_and_go) {
  const OneProcessor one_processor;  // programs are attached while others pass the hooks
  Installed installed;
  BrokerUnderTest broker{{}, installed.daemon(), BrokerUnderTest::Socket::units};
  Child owner{[](Peer& test) { return hold(kPort, test); }};
  ASSERT_EQ(owner.hear(), "guarded") << broker.log();
  std::vector<std::unique_ptr<Child>> waiters;
  for (unsigned i = 1; i <= 3; ++i) {
    waiters.push_back(std::make_unique<Child>([](Peer& test) { return hold(kPort, test, Wait::at_most(200s)); }));
    ASSERT_TRUE(eventually([&] { return status_of(kPort).waiting == i; }, {}, {}, 20s));
  }
  const Page claimed;
  const Page held;
  held->held.store(1);
  {
    const Crowd crowd{claimed, &held, Guarding::required};
    for (int round = 0; round < 3; ++round) {
      const std::uint64_t before = claimed->grants;
      EXPECT_TRUE(eventually([&] { return claimed->grants >= before + 5; }, {}, {}, 60s)) << broker.log();
      const bool is_upgrade = round != 1;
      if (is_upgrade) {
        installed.replace();
        EXPECT_EQ(broker.stop(), 0);
      } else {
        broker.kill();
      }
      broker.start();
      EXPECT_TRUE(eventually([] { return status_of(kPort).waiting == 3; }, {}, {}, 60s)) << "they come back";
      if (!is_upgrade) continue;
      const auto programs = pinned_programs();
      EXPECT_EQ(said_by(installed.command() + " guard on"), "");
      EXPECT_NE(pinned_programs(), programs) << "those of the other version";
    }
    const std::uint64_t before = claimed->grants;
    EXPECT_TRUE(eventually([&] { return claimed->grants >= before + 5; }, {}, {}, 60s)) << broker.log();
  }
  for (const Page* const page : {&claimed, &held}) {
    EXPECT_EQ((*page)->let_in, 0U);
    EXPECT_GE((*page)->kept_out, 10U);
  }
  EXPECT_EQ(claimed->owner_refused, 0U);
  EXPECT_EQ(claimed->not_granted, 0U);
  EXPECT_EQ(claimed->lost, 0U);
  std::printf("grants %lu, kept out %lu and %lu\n", claimed->grants.load(), claimed->kept_out.load(),
              held->kept_out.load());
  EXPECT_EQ(a_stranger_opens(kOtherPort), "OK");
  // It had it all the time, and those who waited for it are in their places.
  EXPECT_EQ(told(owner, "check"), "held");
  EXPECT_EQ(told(owner, "process"), "processed");
  Child* holder = &owner;
  for (const auto& waiter : waiters) {
    EXPECT_EQ(told(*holder, "release"), "released");
    holder = waiter.get();
    EXPECT_EQ(holder->hear(), "guarded");
    EXPECT_EQ(a_stranger_opens(kPort), "EBUSY");
  }
}

/// Two owners hand the port back and forth; how often a stranger got in meanwhile.
std::uint64_t let_in_between(const std::array<std::vector<std::string>, 2>& wishes, int times) {
  std::vector<std::unique_ptr<Child>> owners;
  for (const auto& wish : wishes)
    owners.push_back(std::make_unique<Child>([&wish](Peer& test) {
      while (test.hear(60s) == "claim") {
        auto mine = claim(wish, {.wait = Wait::at_most(60s), .guarding = Guarding::required});
        test.tell(mine ? "guarded" : mine.error().message);
        static_cast<void>(test.hear(60s));
      }
      return 0;
    }));
  EXPECT_EQ(told(*owners[0], "claim"), "guarded");
  const Page page;
  page->held.store(1);
  {
    const Child attacker{[&](Peer&) -> int { attack_for_ever(kPort, page, 0); }};
    for (int i = 0; i < times; ++i) {
      Child& next = *owners[static_cast<std::size_t>(i + 1) % 2];
      next.tell("claim");
      EXPECT_TRUE(eventually([] { return status_of(kPort).waiting == 1; }, {}, {}, 20s));
      owners[static_cast<std::size_t>(i) % 2]->tell("release");
      EXPECT_EQ(next.hear(60s), "guarded");
    }
    EXPECT_TRUE(eventually([&] { return page->kept_out > 0; }, {}, {}, 20s));
  }
  return page->let_in;
}

TEST_F(BrokeredGuard, nobody_is_let_in_between_two_owners) {
  BrokerUnderTest broker;
  EXPECT_EQ(let_in_between({{{kPort}, {kPort}}}, 10), 0U) << broker.log();
  EXPECT_GT(let_in_between({{{kPort}, {kPort, kOtherPort}}}, 4), 0U) << "where it is cut and guarded anew";
}

TEST_F(BrokeredGuard, the_soak_sees_who_is_let_in_where_nothing_is_guarded) {
  BrokerUnderTest broker;
  const Page page;
  {
    const Crowd crowd{page, nullptr, Guarding::off};
    ::sleep(3);
  }
  EXPECT_GE(page->let_in, 1U);
}

}  // namespace
}  // namespace holdfast::vm
