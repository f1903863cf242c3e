// SPDX-License-Identifier: MIT
// The descriptor store, with a systemd of the test's own that keeps what it is sent and passes it on to the next
// broker: a claim's locks outlive the broker and its client, and go when the next broker says so.
#include "broker/store.hpp"

#include "claim/parcel.hpp"
#include "process/support/child.hpp"
#include "process/support/devices.hpp"

#include <holdfast/claim.hpp>

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <array>
#include <cstring>
#include <map>

namespace holdfast::broker {
namespace {

using namespace testing_support;
using namespace std::chrono_literals;
using Clock = DescriptorStore::Clock;

// What a service manager does about descriptors (systemd: core/service.c, service_notify_message()).
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

  // Reads all that was sent.
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

  // In a child: as the started service finds it, descriptors from 3 on and their names.
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

  void put(const std::string& name, base::UniqueFd fd) { kept_[name] = std::move(fd); }

 private:
  void understand(std::string_view text, std::vector<base::UniqueFd>& fds) {
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
  mutable std::vector<int> passed_;
};

class Store : public ::testing::Test {
 protected:
  // A broker that takes the terminal for claim 7, keeps it, waits for a word and dies.
  std::unique_ptr<Child> broker_that_keeps(const std::string& path) {
    auto broker = std::make_unique<Child>([path](testing_support::Peer& test) {
      DescriptorStore store;
      auto holding = claiming::take(std::array{path}, {}, base::self());
      if (!holding) return 1;
      const auto now = Clock::now();
      store.keep(wire::ClaimId{7}, *holding, now);
      store.advance(now + 2s);
      test.tell("kept");
      test.hear();
      return 0;
    });
    EXPECT_EQ(broker->hear(), "kept");
    systemd_.hear();
    return broker;
  }
  static std::string refusal_of(const std::string& path) {
    const auto mine = claim(path);
    return mine ? "free" : mine.error().message;
  }

  FakeSystemd systemd_;
  Pty pty_;
};

TEST_F(Store, keeps_a_claims_locks_when_broker_and_client_are_dead) {
  auto broker = broker_that_keeps(pty_.path());
  EXPECT_THAT(systemd_.names(), ::testing::ElementsAre("claim-7"));
  broker->kill();
  EXPECT_NE(refusal_of(pty_.path()), "free");
}

TEST_F(Store, next_broker_has_the_same_open_descriptions_and_gives_them_back) {
  auto broker = broker_that_keeps(pty_.path());
  const base::ProcessId dead{broker->pid(), base::facts_of(broker->pid())->id.start_ticks};
  broker->kill();
  for (int restart = 1; restart <= 2; ++restart) {
    SCOPED_TRACE(restart);
    Child next{[&](testing_support::Peer& test) {
      systemd_.pass_on();
      DescriptorStore store;
      auto kept = store.take_over();
      if (kept.size() != 1 || kept.front().claim != wire::ClaimId{7}) return 1;
      std::vector<device::Device> devices;
      devices.push_back(*device::identify(pty_.path()));
      const Options options;
      auto holding = claiming::unpack(devices, kept.front().marks, std::move(kept.front().descriptors),
                                      {.options = options, .owner = dead, .locks = convention::Locks::proven});
      if (!holding) {
        test.tell(holding.error().message);
        return 1;
      }
      test.tell("adopted");
      if (test.hear() != "give back") return 0;
      store.drop(wire::ClaimId{7});
      holding->give_back();
      test.tell("given back");
      return 0;
    }};
    ASSERT_EQ(next.hear(), "adopted");
    if (restart == 1) {
      next.kill();
      EXPECT_NE(refusal_of(pty_.path()), "free") << "it is there for the one after the next, too";
      continue;
    }
    next.tell("give back");
    ASSERT_EQ(next.hear(), "given back");
    EXPECT_EQ(refusal_of(pty_.path()), "free") << "by name: though systemd has not closed its copy yet";
    systemd_.hear();
    EXPECT_THAT(systemd_.names(), ::testing::IsEmpty());
  }
}

TEST_F(Store, claims_that_end_at_once_are_no_news_to_systemd) {
  DescriptorStore store;
  auto holding = claiming::take(std::array{pty_.path()}, {}, base::self());
  ASSERT_TRUE(holding);
  const auto now = Clock::now();
  store.keep(wire::ClaimId{8}, *holding, now);
  ASSERT_TRUE(store.next_due());
  store.advance(now + 500ms);
  store.drop(wire::ClaimId{8});
  store.advance(now + 2s);
  EXPECT_FALSE(store.next_due());
  systemd_.hear();
  EXPECT_THAT(systemd_.names(), ::testing::IsEmpty());
}

TEST_F(Store, claims_that_hold_by_an_exclusive_open_are_not_kept) {
  const LoopDevice disk;
  if (!disk.missing().empty()) GTEST_SKIP() << "needs " << disk.missing();
  DescriptorStore store;
  auto holding = claiming::take(std::array{disk.path()}, {}, base::self());
  ASSERT_TRUE(holding) << holding.error().message;
  store.keep(wire::ClaimId{9}, *holding, Clock::now());
  EXPECT_FALSE(store.next_due());
}

TEST_F(Store, garbage_in_it_is_removed) {
  systemd_.put("claim-12", base::UniqueFd{::open("/dev/null", O_RDONLY | O_CLOEXEC)});
  systemd_.put("claim-x", base::UniqueFd{::open("/dev/null", O_RDONLY | O_CLOEXEC)});
  Child next{[&](testing_support::Peer& test) {
    systemd_.pass_on();
    DescriptorStore store;
    test.tell(store.take_over().empty() ? "nothing" : "something");
    return 0;
  }};
  EXPECT_EQ(next.hear(), "nothing");
  next.reap();
  systemd_.hear();
  EXPECT_THAT(systemd_.names(), ::testing::IsEmpty());
}

TEST(StoreWithoutSystemd, keeps_nothing) {
  const Pty pty;
  DescriptorStore store;
  auto holding = claiming::take(std::array{pty.path()}, {}, base::self());
  ASSERT_TRUE(holding);
  store.keep(wire::ClaimId{8}, *holding, Clock::now());
  EXPECT_FALSE(store.next_due());
  EXPECT_TRUE(store.take_over().empty());
}

}  // namespace
}  // namespace holdfast::broker
