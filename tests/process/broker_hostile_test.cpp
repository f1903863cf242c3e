// SPDX-License-Identifier: MIT
// broker_hostile_test.cpp - clients that mean ill or know no better. Whatever they do, as root and as nobody: a
// well-behaved client is served all the while, and afterwards the broker has no more descriptors and no more memory
// than it had.
#include "process/support/broker.hpp"
#include "process/support/devices.hpp"
#include "process/support/raw_client.hpp"

#include "base/error.hpp"

#include <gtest/gtest.h>

#include <fcntl.h>
#include <grp.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <functional>
#include <random>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

namespace holdfast {
namespace {

using namespace testing_support;
using namespace std::chrono_literals;

constexpr uid_t kNobody = 65534;
constexpr double kMostWaitMs = 2'000;  // of the well-behaved client; sanitizers and two busy processors included
// From the second attack on, that is: with warm caches. AddressSanitizer keeps what is freed, up to 256 MiB, on
// purpose.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr long kMostGrowthKib = 512 * 1024;
#else
constexpr long kMostGrowthKib = 4 * 1024;
#endif

void become_nobody() {
  if (::setgroups(0, nullptr) != 0 || ::setresgid(kNobody, kNobody, kNobody) != 0 ||
      ::setresuid(kNobody, kNobody, kNobody) != 0)
    ::_exit(9);
}

// Claims and releases a terminal of its own until the end, and notes how long that took at most.
class Witness {
 public:
  explicit Witness(const std::string& socket)
      : child_{[&](Peer& test) {
          RawClient client{socket};
          double slowest = 0;
          int rounds = 0;
          pollfd told{test.socket(), POLLIN, 0};
          do {
            const Stopwatch watch;
            const Answer held = client.ask(claim_of(pty_.path()));
            const std::string released = client.ask(wire::Release{held.claim()}).words;
            if (held.words != "granted" || released != "done") {
              test.tell(held.words + ", " + released);
              return 1;
            }
            slowest = std::max(slowest, watch.ms());
            ++rounds;
          } while (::poll(&told, 1, 0) == 0);
          test.hear();  // a socket that is closed with something unread loses what it said
          test.tell(slowest < kMostWaitMs ? "served" : "slowest: " + std::to_string(slowest) + " ms");
          std::printf("%d rounds, the slowest %.1f ms\n", rounds, slowest);
          std::fflush(stdout);
          return 0;
        }} {}
  // "served", or what went wrong.
  std::string end() {
    child_.tell("end");
    return child_.hear();
  }

 private:
  Pty pty_;
  Child child_;
};

std::vector<std::byte> packet_of(const wire::FromClient& message, std::uint32_t number = 2) {
  std::vector<std::byte> packet;
  static_cast<void>(wire::encode(number, message, packet));
  return packet;
}

// Ask and pay no attention; how far it got does not matter.
void say(RawClient& client, const wire::FromClient& message, std::span<const int> descriptors = {}) {
  static_cast<void>(client.send_bytes(packet_of(message), descriptors));
}

// Everything that the broker has in store for this connection so far.
void swallow(RawClient& client) {
  while (client.has_heard())
    if (!client.hear(0ms).body) return;
}

using Attack = std::function<void(const std::string& socket, const std::string& device)>;

void half_messages(const std::string& socket, const std::string& device) {
  wire::Claim claim = claim_of(device);
  claim.purpose = "half";
  const std::vector<std::byte> whole = packet_of(claim);
  for (std::size_t length = 0; length < whole.size(); ++length) {
    RawClient client{socket};
    static_cast<void>(client.send_bytes(std::span{whole}.first(length)));
    static_cast<void>(client.hear(0ms));
  }
}

void wrong_versions(const std::string& socket, const std::string& device) {
  for (int version = 0; version < 256; version += 15) {
    RawClient client{socket, RawClient::Greeting::unsaid};
    std::vector<std::byte> hello = packet_of(wire::Hello{9, 9, "from the future"});
    hello[2] = static_cast<std::byte>(version);
    static_cast<void>(client.send_bytes(hello));
    std::vector<std::byte> claim = packet_of(claim_of(device));
    claim[2] = static_cast<std::byte>(version);
    static_cast<void>(client.send_bytes(claim));
    static_cast<void>(client.hear(0ms));
  }
  RawClient hasty{socket, RawClient::Greeting::unsaid};  // no Hello at all
  say(hasty, claim_of(device, kForEver));
  RawClient twice{socket};
  for (int i = 0; i < 50; ++i) say(twice, wire::Hello{});
}

void random_bytes(const std::string& socket, const std::string& device) {
  std::minstd_rand random{20'26};
  const std::vector<std::byte> whole = packet_of(claim_of(device, kForEver));
  for (int i = 0; i < 300; ++i) {
    RawClient client{socket};
    std::vector<std::byte> bytes = whole;
    if (i % 2 == 0) bytes.resize(random() % 2000);
    const std::size_t changes = i % 2 == 0 ? bytes.size() : 1 + random() % 4;
    for (std::size_t change = 0; change < changes && !bytes.empty(); ++change)
      bytes[i % 2 == 0 ? change : random() % bytes.size()] = static_cast<std::byte>(random());
    static_cast<void>(client.send_bytes(bytes));
    static_cast<void>(client.hear(0ms));
  }
}

void empty_and_huge_packets(const std::string& socket, const std::string&) {
  for (const std::size_t size :
       {std::size_t{0}, std::size_t{1}, wire::kMostBytes, wire::kMostBytes + 1, std::size_t{150'000}}) {
    RawClient client{socket};
    for (int i = 0; i < 20; ++i) static_cast<void>(client.send_bytes(std::vector<std::byte>(size)));
  }
}

void questions_without_listening(const std::string& socket, const std::string&) {
  RawClient client{socket};
  for (int i = 0; i < 20'000; ++i)
    if (client.send_bytes(packet_of(wire::StatusQuery{})) != RawClient::Sent::whole) break;
  RawClient other{socket};
  for (int i = 0; i < 20'000; ++i)
    if (other.send_bytes(packet_of(wire::HistoryQuery{})) != RawClient::Sent::whole) break;
}

void watching_without_listening(const std::string& socket, const std::string& device) {
  std::vector<RawClient> deaf;
  for (int i = 0; i < 20; ++i) {
    deaf.emplace_back(socket);
    say(deaf.back(), wire::Watch{});
  }
  RawClient busy{socket};
  for (int i = 0; i < 300; ++i) {
    const Answer held = busy.ask(claim_of(device));
    if (held.words != "granted") break;
    busy.ask(wire::Release{held.claim()});
  }
}

void thousands_of_connections(const std::string& socket, const std::string&) {
  const rlimit many{8192, 8192};
  ::setrlimit(RLIMIT_NOFILE, &many);
  std::vector<RawClient> clients;
  for (int i = 0; i < 2000; ++i) {
    clients.emplace_back(socket, RawClient::Greeting::unsaid);
    if (!clients.back().connected()) break;
  }
  for (RawClient& client : clients) say(client, wire::Hello{});
}

void connections_that_come_and_go(const std::string& socket, const std::string& device) {
  for (int i = 0; i < 1000; ++i) {
    RawClient client{socket, RawClient::Greeting::unsaid};
    if (i % 2 == 0) continue;
    say(client, wire::Hello{});
    say(client, claim_of(device, kForEver));
  }
}

void descriptor_floods(const std::string& socket, const std::string& device) {
  RawClient itself{socket};
  const base::UniqueFd memory{::memfd_create("flood", MFD_CLOEXEC)};
  const base::UniqueFd poller{::epoll_create1(EPOLL_CLOEXEC)};
  const base::UniqueFd own = pidfd_of(::getpid());
  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) return;
  const base::UniqueFd one{pair[0]};
  const base::UniqueFd two{pair[1]};
  for (const int fd : {memory.get(), poller.get(), own.get(), one.get(), itself.socket()}) {
    for (const std::size_t count : {1U, 2U, 250U, 253U}) {
      const std::vector<int> flood(count, fd);
      for (int i = 0; i < 10; ++i) {
        RawClient client{socket, i % 2 == 0 ? RawClient::Greeting::said : RawClient::Greeting::unsaid};
        say(client, wire::StatusQuery{}, flood);
        std::vector<std::byte> claim = packet_of(claim_of(device));
        claim[3] = static_cast<std::byte>(std::min<std::size_t>(count, 250));  // it says that many
        static_cast<void>(client.send_bytes(claim, flood));
        say(client, wire::Resume{wire::ClaimId{1}, wire::Epoch{1}, {}}, flood);
      }
    }
  }
  // The connection in its own queue, which only the kernel's garbage collector finds.
  const int self = itself.socket();
  for (int i = 0; i < 20; ++i) say(itself, wire::StatusQuery{}, {&self, 1});
}

// The last close of such a connection waits until the other end has taken everything, which it never does: close(2)
// of it is what the broker must not wait for (tcp_close(), SO_LINGER in socket(7)).
struct SlowToClose {
  base::UniqueFd end;
  base::UniqueFd other_end;
};
SlowToClose slow_to_close() {
  const base::UniqueFd listener{::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  base::UniqueFd sender{::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
  const linger wait{1, 600};
  if (::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), length) != 0 ||
      ::listen(listener.get(), 1) != 0 ||
      ::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &length) != 0 ||
      ::connect(sender.get(), reinterpret_cast<const sockaddr*>(&address), length) != 0 ||
      ::setsockopt(sender.get(), SOL_SOCKET, SO_LINGER, &wait, sizeof wait) != 0)
    return {};
  base::UniqueFd receiver{::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC)};
  const std::vector<char> much(1 << 16);
  while (::send(sender.get(), much.data(), much.size(), MSG_DONTWAIT) > 0) {
  }
  return {std::move(sender), std::move(receiver)};
}

void descriptors_that_are_slow_to_close(const std::string& socket, const std::string& device) {
  std::vector<base::UniqueFd> other_ends;
  const auto with_it = [&](const auto& give) {
    RawClient client{socket};
    SlowToClose slow = slow_to_close();
    if (!slow.other_end) std::abort();
    give(client, slow.end.get());
    // Should the broker be quicker, it is this close that waits.
    std::thread{[end = std::move(slow.end)]() mutable { end.reset(); }}.detach();
    other_ends.push_back(std::move(slow.other_end));
  };
  wire::Claim for_another = claim_of(device);
  for_another.owner = wire::OwnerGiven::by_pidfd;
  with_it([&](RawClient& client, int slow) { say(client, wire::StatusQuery{}, {&slow, 1}); });
  with_it([&](RawClient& client, int slow) { say(client, for_another, {&slow, 1}); });
  with_it([&](RawClient& client, int slow) {
    wire::Resume resume{wire::ClaimId{1}, client.epoch(), {}};
    resume.marks.nodes = {{name_of(device), wire::NodeOpen::writable}};
    say(client, resume, {&slow, 1});
  });
  // Never read: the connection is ended by what comes before it.
  with_it([&](RawClient& client, int slow) {
    say(client, wire::Hello{});
    say(client, wire::StatusQuery{}, {&slow, 1});
  });
  const RawClient somebody{socket};  // is greeted while the other ends are open
}

void claims_of_many_devices(const std::string& socket, const std::string& device) {
  RawClient client{socket};
  wire::Claim many;
  for (std::uint32_t i = 0; i < wire::kMostDevices; ++i) {
    wire::DeviceName name = name_of(device);
    name.minor += i;
    many.devices.push_back(name);
  }
  client.ask(many);
  many.devices.assign(wire::kMostDevices, name_of(device));
  const Answer same = client.ask(many);
  for (wire::DeviceName& name : many.devices) name = {"/dev/nonsense", wire::NodeKind::block, 4095, 1U << 19, 0};
  client.ask(many);
  many.devices.clear();
  client.ask(many);
  wire::Claim root_only;
  root_only.devices = {{"/dev/../dev/mem", wire::NodeKind::character, 1, 1, 0}};
  client.ask(root_only);
  std::vector<Pty> ptys(wire::kMostDevices);
  wire::Claim all;
  for (const Pty& pty : ptys) all.devices.push_back(name_of(pty.path()));
  for (int i = 0; i < 5; ++i) {
    const Answer held = client.ask(all);
    client.ask(wire::Release{held.claim()});
  }
  client.ask(all);  // and never released
}

void cancel_storms(const std::string& socket, const std::string& device) {
  RawClient holder{socket};
  holder.ask(claim_of(device));
  RawClient client{socket};
  for (std::uint32_t i = 0; i < 1500; ++i) {
    if (client.send_bytes(packet_of(claim_of(device, kForEver), i)) == RawClient::Sent::refused) break;
    static_cast<void>(client.send_bytes(packet_of(wire::Cancel{i}, 1'000'000 + i)));
    static_cast<void>(client.send_bytes(packet_of(wire::Cancel{i}, 2'000'000 + i)));
    swallow(client);
  }
}

void the_same_number_for_every_claim(const std::string& socket, const std::string& device) {
  RawClient holder{socket};
  holder.ask(claim_of(device));
  RawClient client{socket};
  for (int i = 0; i < 200; ++i) {
    static_cast<void>(client.send_bytes(packet_of(claim_of(device, kForEver), 7)));
    static_cast<void>(client.send_bytes(packet_of(claim_of(device, kForEver), 0)));
    swallow(client);
  }
  static_cast<void>(client.send_bytes(packet_of(wire::Cancel{7}, 7)));
}

void absurd_numbers(const std::string& socket, const std::string& device) {
  constexpr auto kLongest = wire::Duration::max();
  constexpr auto kShortest = wire::Duration::min();
  for (const wire::Duration time : {kLongest, kShortest, wire::Duration{0}, wire::Duration{-1}, wire::Duration{1}}) {
    RawClient client{socket};
    wire::Claim claim = claim_of(device, {true, time});
    claim.lease = time;
    claim.place = wire::Place{~std::uint64_t{0}};
    say(client, claim);
    say(client, wire::Renew{wire::ClaimId{1}, time});
    say(client, wire::Upgrade{wire::ClaimId{~std::uint64_t{0}}, {true, time}});
    say(client, wire::Kick{name_of(device), time, "absurd"});
    say(client, wire::HistoryQuery{{}, wire::WallTime{time}, ~0U});
    say(client, wire::Watch{{}, 0});
    say(client, wire::Watch{{}, ~0U});
    swallow(client);
  }
}

void many_watches_and_questions_of_each_kind(const std::string& socket, const std::string& device) {
  RawClient client{socket};
  for (int i = 0; i < 300; ++i) {
    wire::Watch watch;
    watch.devices.assign(wire::kMostDevices, name_of(device));
    say(client, watch);
    say(client, wire::StatusQuery{watch.devices});
    say(client, wire::HistoryQuery{watch.devices, std::nullopt, ~0U});
    if (i % 10 == 0) swallow(client);
  }
}

void resuming_what_is_not_theirs(const std::string& socket, const std::string& device) {
  const base::UniqueFd node{::open(device.c_str(), O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC)};
  for (std::uint64_t id = 0; id < 50; ++id) {
    RawClient client{socket};
    wire::Resume resume{wire::ClaimId{id}, client.epoch(), {}};
    resume.marks.nodes = {{name_of(device), wire::NodeOpen::writable}};
    const int fd = node.get();
    say(client, resume, {&fd, 1});
    resume.marks.marks = {
        {0, Convention::uucp, wire::MarkState::taken, "", {"/etc/passwd", "/run/lock/../../etc/shadow"}, 0},
        {7, Convention::flock, wire::MarkState::taken, "", {}, 0}};
    say(client, resume, {&fd, 1});
    static_cast<void>(client.hear(0ms));
  }
}

void half_closed_connections(const std::string& socket, const std::string& device) {
  for (const int how : {SHUT_RD, SHUT_WR, SHUT_RDWR}) {
    for (int i = 0; i < 20; ++i) {
      RawClient client{socket};
      say(client, claim_of(device, kForEver));
      ::shutdown(client.socket(), how);
      say(client, wire::StatusQuery{});
      swallow(client);
    }
  }
}

// Whoever does this is killed after `steps` steps of a claim's life, each time one later.
void deaths_in_the_middle_of_each_step(const std::string& socket, const std::string& device) {
  for (int steps = 0; steps < 8; ++steps) {
    for (int again = 0; again < 5; ++again) {
      const pid_t child = ::fork();
      if (child == 0) {
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        int left = steps;
        const auto step = [&] {
          if (left-- == 0) ::kill(::getpid(), SIGKILL);
        };
        step();
        RawClient client{socket, RawClient::Greeting::unsaid};
        step();
        say(client, wire::Hello{});
        step();
        const std::uint32_t number = client.send(claim_of(device, kForEver));
        step();
        Answer held = client.answer_to(number);
        step();
        if (held.words == "queued") held = client.answer_to(number);
        step();
        const std::uint32_t release = client.send(wire::Release{held.claim()});
        step();
        static_cast<void>(client.answer_to(release));
        step();
        ::kill(::getpid(), SIGKILL);
      }
      ::waitpid(child, nullptr, 0);
    }
  }
}

void claims_without_number(const std::string& socket, const std::string& device) {
  std::vector<RawClient> clients;
  for (int i = 0; i < 40; ++i) {
    clients.emplace_back(socket);
    for (int j = 0; j < 40; ++j) say(clients.back(), claim_of(device, kForEver));
  }
  for (RawClient& client : clients) swallow(client);
}

struct Named {
  const char* name;
  Attack attack;
};
const std::array kAttacks{
    Named{"half_messages", half_messages},
    Named{"wrong_versions", wrong_versions},
    Named{"random_bytes", random_bytes},
    Named{"empty_and_huge_packets", empty_and_huge_packets},
    Named{"questions_without_listening", questions_without_listening},
    Named{"watching_without_listening", watching_without_listening},
    Named{"thousands_of_connections", thousands_of_connections},
    Named{"connections_that_come_and_go", connections_that_come_and_go},
    Named{"descriptor_floods", descriptor_floods},
    Named{"descriptors_that_are_slow_to_close", descriptors_that_are_slow_to_close},
    Named{"claims_of_many_devices", claims_of_many_devices},
    Named{"cancel_storms", cancel_storms},
    Named{"the_same_number_for_every_claim", the_same_number_for_every_claim},
    Named{"absurd_numbers", absurd_numbers},
    Named{"many_watches_and_questions_of_each_kind", many_watches_and_questions_of_each_kind},
    Named{"resuming_what_is_not_theirs", resuming_what_is_not_theirs},
    Named{"half_closed_connections", half_closed_connections},
    Named{"deaths_in_the_middle_of_each_step", deaths_in_the_middle_of_each_step},
    Named{"claims_without_number", claims_without_number},
};

enum class As { nobody, root };

class Attacked : public ::testing::TestWithParam<std::tuple<std::size_t, As>> {};

TEST_P(Attacked, broker_serves_others_and_forgets_it_all) {
  const Named& attack = kAttacks[std::get<0>(GetParam())];
  const bool as_nobody = std::get<1>(GetParam()) == As::nobody;
  const Pty victim;
  ASSERT_EQ(::chmod(victim.path().c_str(), 0666), 0);
  BrokerUnderTest broker;
  const auto strike = [&] {
    Child attacker{[&](Peer&) {
      if (as_nobody) become_nobody();
      attack.attack(broker.socket(), victim.path());
      return 0;
    }};
    EXPECT_EQ(attacker.reap(), 0) << "the attack itself failed";
  };
  Witness witness{broker.socket()};
  const int quiet = broker.descriptors() + 8;  // the witness in the middle of a claim; what the first grant opens
  std::array<long, 3> memory{};
  for (long& after : memory) {
    strike();
    EXPECT_TRUE(broker.descriptors_fall_to(quiet)) << broker.descriptors() << " descriptors, before it " << quiet;
    after = broker.memory_kib();
  }
  EXPECT_LE(memory[2], memory[0] + kMostGrowthKib) << "KiB after the attacks: " << memory[0] << ", " << memory[2];
  EXPECT_EQ(witness.end(), "served");
  // The device that was fought for is free, for anybody.
  RawClient client{broker.socket()};
  const std::uint32_t number = client.send(claim_of(victim.path(), {true, 10s}));
  Answer answer = client.answer_to(number);
  if (answer.words == "queued") answer = client.answer_to(number);
  EXPECT_EQ(answer.words, "granted");
}

INSTANTIATE_TEST_SUITE_P(By, Attacked,
                         ::testing::Combine(::testing::Range(std::size_t{0}, kAttacks.size()),
                                            ::testing::Values(As::nobody, As::root)),
                         [](const auto& tested) {
                           return std::string{kAttacks[std::get<0>(tested.param)].name} +
                                  (std::get<1>(tested.param) == As::nobody ? "_of_nobody" : "_of_root");
                         });

// What the broker has sent and nobody has read counts as the broker's own, and when that is too much it can give
// nobody a claim any more.
TEST(DescriptorsNotRead, of_one_user_do_not_keep_the_others_from_their_claims) {
  BrokerUnderTest broker;
  const rlimit few{6'000, 6'000};
  ASSERT_EQ(::prlimit(broker.pid(), RLIMIT_NOFILE, &few, nullptr), 0);
  std::vector<Pty> ptys(50);
  wire::Claim wanted;
  wanted.mode = Mode::shared;
  for (const Pty& pty : ptys) {
    ASSERT_EQ(::chmod(pty.path().c_str(), 0666), 0);
    wanted.devices.push_back(name_of(pty.path()));
  }
  const int before = broker.descriptors();
  Child attacker{[&](Peer& test) {
    become_nobody();
    RawClient holder{broker.socket()};
    const Answer held = holder.ask(wanted);
    std::vector<RawClient> deaf;
    for (int i = 0; i < 20; ++i) {
      deaf.emplace_back(broker.socket());
      for (int times = 0; times < 10; ++times) say(deaf.back(), wire::Resume{held.claim(), deaf.back().epoch(), {}});
      // The broker ends every other one, whose packets are still there.
      if (i % 2 == 0) say(deaf.back(), wire::Hello{});
    }
    test.tell("there");
    test.hear();
    return 0;
  }};
  ASSERT_EQ(attacker.hear(), "there");
  const Pty pty;
  RawClient client{broker.socket()};
  const Answer held = client.ask(claim_of(pty.path()));
  EXPECT_EQ(held.words, "granted");
  EXPECT_EQ(client.ask(wire::Release{held.claim()}).words, "done");
  attacker.kill();
  EXPECT_TRUE(broker.descriptors_fall_to(before + 3)) << broker.descriptors() << ", before: " << before;
  // The user is served again.
  EXPECT_EQ(in_a_child([&] {
              become_nobody();
              RawClient again{broker.socket()};
              return again.ask(wanted).words;
            }),
            "granted");
}

TEST(Purpose, with_control_characters_is_shown_without_them) {
  const Pty pty;
  BrokerUnderTest broker{{"--verbose"}};
  RawClient watcher{broker.socket()};
  ASSERT_EQ(watcher.ask(wire::Watch{}).words, "done");
  RawClient client{broker.socket()};
  wire::Claim claim = claim_of(pty.path());
  claim.purpose = "\x1b]0;owned\x07\nsecond line\xff";
  const Answer held = client.ask(claim);
  const auto is_clean = [](const std::string& text) {
    return std::ranges::none_of(text, [](unsigned char c) { return c < ' ' || c == 0x7f; });
  };
  if (held.words == "granted") {
    const Answer status = client.ask(wire::StatusQuery{});
    ASSERT_NE(status.as<wire::StatusAnswer>(), nullptr);
    for (const auto& device : status.as<wire::StatusAnswer>()->devices)
      for (const auto& holder : device.holders) EXPECT_TRUE(is_clean(holder.purpose)) << holder.purpose;
    const Answer event = watcher.hear();
    ASSERT_NE(event.as<wire::Event>(), nullptr) << event.words;
    EXPECT_TRUE(is_clean(event.as<wire::Event>()->who.purpose));
    EXPECT_TRUE(is_clean(event.as<wire::Event>()->detail));
  }
  EXPECT_EQ(broker.log().find('\x1b'), std::string::npos);
}

TEST(Resume, of_somebody_elses_claim_is_refused_and_changes_nothing) {
  const Pty pty;
  ASSERT_EQ(::chmod(pty.path().c_str(), 0666), 0);
  BrokerUnderTest broker;
  RawClient client{broker.socket()};
  const Answer held = client.ask(claim_of(pty.path()));
  ASSERT_EQ(held.words, "granted");
  const std::string words = in_a_child([&] {
    become_nobody();
    RawClient thief{broker.socket()};
    const base::UniqueFd node{::open(pty.path().c_str(), O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC)};
    wire::Resume resume{held.claim(), client.epoch(), {}};
    resume.marks.nodes = {{name_of(pty.path()), wire::NodeOpen::writable}};
    const int fd = node.get();
    return thief.ask(resume, {&fd, 1}).words;
  });
  EXPECT_TRUE(words.starts_with("refused")) << words;
  EXPECT_EQ(client.ask(wire::Release{held.claim()}).words, "done");
}

}  // namespace
}  // namespace holdfast
