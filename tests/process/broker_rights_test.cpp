// SPDX-License-Identifier: MIT
// broker_rights_test.cpp - who may open the node may claim it, nobody else; what others may see, take back, cut
// short.
#include "process/support/broker.hpp"
#include "process/support/devices.hpp"
#include "process/support/raw_client.hpp"

#include "convention/uucp.hpp"

#include <gtest/gtest.h>

#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
#include <string>

namespace holdfast {
namespace {

using namespace testing_support;
using namespace std::chrono_literals;

struct User {
  uid_t uid = 65534;
  gid_t gid = 65534;
  gid_t further = 0;  // another group; 0: none
};

// The last words of `body`, run as that user.
std::string as(const User& user, const std::function<std::string()>& body) {
  return in_a_child([&]() -> std::string {
    const std::size_t groups = user.further == 0 ? 0 : 1;
    if (::setgroups(groups, &user.further) != 0 || ::setresgid(user.gid, user.gid, user.gid) != 0 ||
        ::setresuid(user.uid, user.uid, user.uid) != 0)
      return "cannot become that user";
    return body();
  });
}

std::string try_as(const User& user, const BrokerUnderTest& broker, const std::string& device,
                   const wire::Patience& patience = {}) {
  return as(user, [&]() -> std::string {
    RawClient client{broker.socket()};
    const Answer answer = client.ask(claim_of(device, patience));
    return answer.code() == errc::not_permitted ? "not permitted" : answer.words;
  });
}

TEST(Permission, is_that_of_the_node) {
  const Pty pty;
  BrokerUnderTest broker;
  const User nobody;
  ASSERT_EQ(::chmod(pty.path().c_str(), 0600), 0);
  EXPECT_EQ(try_as(nobody, broker, pty.path()), "not permitted");
  EXPECT_EQ(try_as(nobody, broker, pty.path(), kForEver), "not permitted");
  ASSERT_EQ(::chmod(pty.path().c_str(), 0606), 0);
  EXPECT_EQ(try_as(nobody, broker, pty.path()), "granted");
  ASSERT_EQ(::chmod(pty.path().c_str(), 0600), 0);
  EXPECT_EQ(try_as(nobody, broker, pty.path()), "not permitted");
}

TEST(Permission, may_come_from_a_supplementary_group) {
  const Pty pty;
  BrokerUnderTest broker;
  constexpr gid_t kGroup = 54321;
  ASSERT_EQ(::chown(pty.path().c_str(), 0, kGroup), 0);
  ASSERT_EQ(::chmod(pty.path().c_str(), 0660), 0);
  EXPECT_EQ(try_as({}, broker, pty.path()), "not permitted");
  EXPECT_EQ(try_as({.further = kGroup}, broker, pty.path()), "granted");
}

TEST(Permission, of_a_group_may_be_less_than_that_of_others) {
  const Pty pty;
  BrokerUnderTest broker;
  constexpr gid_t kGroup = 54321;
  ASSERT_EQ(::chown(pty.path().c_str(), 0, kGroup), 0);
  ASSERT_EQ(::chmod(pty.path().c_str(), 0606), 0);
  EXPECT_EQ(try_as({}, broker, pty.path()), "granted");
  EXPECT_EQ(try_as({.further = kGroup}, broker, pty.path()), "not permitted");
}

// nobody may read and write beside what the mode says.
bool give_acl_to(uid_t uid, const std::string& path) {
  struct Entry {
    std::uint16_t tag;
    std::uint16_t permissions;
    std::uint32_t id;
  };
  // linux/posix_acl_xattr.h: the owner, a user, the group, the mask, others.
  const struct {
    std::uint32_t version = 2;
    std::array<Entry, 5> entries;
  } acl{2, {{{0x01, 6, ~0U}, {0x02, 6, uid}, {0x04, 0, ~0U}, {0x10, 6, ~0U}, {0x20, 0, ~0U}}}};
  return ::setxattr(path.c_str(), "system.posix_acl_access", &acl, sizeof acl, 0) == 0;
}

TEST(Permission, may_come_from_an_access_control_list) {
  const LoopDevice loop;
  if (!loop.missing().empty()) GTEST_SKIP() << "needs " << loop.missing();
  struct stat before{};
  ASSERT_EQ(::stat(loop.path().c_str(), &before), 0);
  const User listed;
  const User other{.uid = 54320, .gid = 54320};
  if (!give_acl_to(listed.uid, loop.path())) GTEST_SKIP() << "needs a /dev with access control lists";
  {
    BrokerUnderTest broker;
    EXPECT_EQ(try_as(listed, broker, loop.path()), "granted");
    EXPECT_EQ(try_as(other, broker, loop.path()), "not permitted");
  }
  ::removexattr(loop.path().c_str(), "system.posix_acl_access");
  ::chmod(loop.path().c_str(), before.st_mode & 07777U);
}

// Set-uid programs: what counts is for whom they act, as it does when they open the node.
TEST(Permission, is_that_of_the_effective_user) {
  const Pty pty;
  ASSERT_EQ(::chmod(pty.path().c_str(), 0600), 0);
  BrokerUnderTest broker;
  const auto with_ids = [&](uid_t real, uid_t effective) {
    return in_a_child([&]() -> std::string {
      if (::setgroups(0, nullptr) != 0 || ::setresuid(real, effective, effective) != 0) return "cannot";
      RawClient client{broker.socket()};
      const Answer answer = client.ask(claim_of(pty.path()));
      return answer.code() == errc::not_permitted ? "not permitted" : answer.words;
    });
  };
  EXPECT_EQ(with_ids(65534, 0), "granted");
  EXPECT_EQ(with_ids(0, 65534), "not permitted");
}

// What it may is asked of each of its connections, not of the first: whoever gave up his rights has them no more,
// though the broker knows him from before.
TEST(Permission, is_that_of_the_user_who_connects_not_of_whom_the_process_was_before) {
  const Pty first;
  const Pty other;
  ASSERT_EQ(::chmod(other.path().c_str(), 0600), 0);
  BrokerUnderTest broker;
  const std::string words = in_a_child([&]() -> std::string {
    RawClient as_root{broker.socket()};
    if (const Answer held = as_root.ask(claim_of(first.path())); held.words != "granted") return held.words;
    if (::setgroups(0, nullptr) != 0 || ::setresgid(65534, 65534, 65534) != 0 || ::setresuid(65534, 65534, 65534) != 0)
      return "cannot become that user";
    RawClient as_nobody{broker.socket()};
    const Answer answer = as_nobody.ask(claim_of(other.path()));
    return answer.code() == errc::not_permitted ? "not permitted" : answer.words;
  });
  EXPECT_EQ(words, "not permitted");
}

TEST(Permission, of_a_group_is_there_after_the_broker_was_started_anew) {
  const Pty first;
  const Pty other;
  constexpr gid_t kGroup = 54321;
  for (const Pty* pty : {&first, &other}) {
    ASSERT_EQ(::chown(pty->path().c_str(), 0, kGroup), 0);
    ASSERT_EQ(::chmod(pty->path().c_str(), 0660), 0);
  }
  BrokerUnderTest broker;
  Child member{[&](Peer& test) {
    const gid_t group = kGroup;
    if (::setgroups(1, &group) != 0 || ::setresgid(65534, 65534, 65534) != 0 || ::setresuid(65534, 65534, 65534) != 0)
      return 1;
    RawClient before{broker.socket()};
    const Answer held = before.ask(claim_of(first.path()));
    test.tell(held.words);
    test.hear();
    RawClient after{broker.socket()};
    test.tell(after.ask(claim_of(other.path())).words);
    test.hear();
    return 0;
  }};
  ASSERT_EQ(member.hear(), "granted");
  broker.kill();
  broker.start();
  member.tell("go on");
  EXPECT_EQ(member.hear(), "granted");
}

TEST(Find, by_the_pidfd_of_another_users_process_is_refused) {
  const Pty pty;
  ASSERT_EQ(::chmod(pty.path().c_str(), 0666), 0);
  BrokerUnderTest broker;
  RawClient client{broker.socket()};
  const testing_support::Owner of_root;
  ASSERT_EQ(ask_for(client, of_root, claim_of(pty.path())).words, "granted");
  const std::string words = as({}, [&] {
    RawClient thief{broker.socket()};
    const int pidfd = of_root.pidfd();
    const Answer found = thief.ask(wire::Find{{name_of(pty.path())}, wire::OwnerGiven::by_pidfd}, {&pidfd, 1});
    return found.code() == errc::not_permitted ? "not permitted" : found.words;
  });
  EXPECT_EQ(words, "not permitted");
}

TEST(Words, of_a_process_that_calls_itself_an_escape_sequence_are_harmless) {
  const Pty pty;
  BrokerUnderTest broker{{"--verbose"}};
  RawClient watcher{broker.socket()};
  ASSERT_EQ(watcher.ask(wire::Watch{}).words, "done");
  RawClient holder{broker.socket()};
  ASSERT_EQ(holder.ask(claim_of(pty.path())).words, "granted");
  const std::string words = in_a_child([&] {
    ::prctl(PR_SET_NAME, "\x1b]0;owned\x07\n");
    RawClient kicker{broker.socket()};
    return kicker.ask(wire::Kick{name_of(pty.path()), 0ns, "\x1b[2J"}).words;
  });
  EXPECT_EQ(words, "done");
  const Answer notice = holder.hear();
  ASSERT_NE(notice.as<wire::RevokeNotice>(), nullptr) << notice.words;
  const auto is_clean = [](const std::string& text) {
    return std::ranges::none_of(text, [](unsigned char c) { return c < ' ' || c == 0x7f; });
  };
  EXPECT_TRUE(is_clean(notice.as<wire::RevokeNotice>()->by)) << "by";
  EXPECT_TRUE(is_clean(notice.as<wire::RevokeNotice>()->reason)) << "reason";
  for (int i = 0; i < 2; ++i) {
    const Answer event = watcher.hear();
    ASSERT_NE(event.as<wire::Event>(), nullptr) << event.words;
    EXPECT_TRUE(is_clean(event.as<wire::Event>()->who.command)) << "command";
    EXPECT_TRUE(is_clean(event.as<wire::Event>()->detail)) << "detail";
  }
  EXPECT_EQ(broker.log().find('\x1b'), std::string::npos);
}

// The socket is all that it has of the host: its own terminals are none of the broker's business.
TEST(Container, with_terminals_of_its_own_is_told_that_they_are_not_the_brokers) {
  BrokerUnderTest broker;
  const std::string words = in_a_child([&]() -> std::string {
    const TemporaryDirectory mounted;
    const std::string inside = mounted.path() + "/socket";
    const base::UniqueFd target{::open(inside.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600)};
    if (::unshare(CLONE_NEWNS | CLONE_NEWUTS) != 0 ||
        ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        ::mount(broker.socket().c_str(), inside.c_str(), nullptr, MS_BIND, nullptr) != 0 ||
        ::mount("devpts", "/dev/pts", "devpts", 0, "newinstance,ptmxmode=0666,mode=0620") != 0)
      return "needs mounts of its own";
    const base::UniqueFd master{::open("/dev/pts/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC)};
    int number = -1;
    int unlock = 0;
    if (!master || ::ioctl(master.get(), TIOCSPTLCK, &unlock) != 0 || ::ioctl(master.get(), TIOCGPTN, &number) != 0)
      return "needs a terminal";
    RawClient client{inside};
    const std::string answer = client.ask(claim_of("/dev/pts/" + std::to_string(number))).words;
    ::umount2(inside.c_str(), MNT_DETACH);
    return answer;
  });
  if (words.starts_with("needs ")) GTEST_SKIP() << words;
  EXPECT_TRUE(words.starts_with("not mine")) << words;
}

// The user's own lock files of the device, by his id in it and whose they are.
std::string lock_files_with(pid_t pid, uid_t uid, const std::string& device) {
  const auto files = lock_files_of(device);
  if (files.empty()) return "none";
  for (const std::string& file : files) {
    struct stat status{};
    const auto content = convention::read_uucp(file);
    if (!content || content->content.pid != pid) return file + " names another process";
    if (::stat(file.c_str(), &status) != 0 || status.st_uid != uid) return file + " is another user's";
  }
  return "as they should be";
}

// Exclusive claims that fail at the last mark, shared ones that pass on and take over: what is made there is removed.
TEST(LockDirectory, that_is_closed_to_clients_has_their_lock_files_even_so) {
  const std::string words = in_a_child([]() -> std::string {
    if (const std::string missing = private_lock_directory("mode=0755"); !missing.empty()) return "needs " + missing;
    const Pty pty;
    ::chmod(pty.path().c_str(), 0666);
    BrokerUnderTest broker;
    const std::string said = as({}, [&]() -> std::string {
      const User nobody;
      RawClient client{broker.socket()};
      const base::UniqueFd stranger{::open(pty.path().c_str(), O_RDWR | O_NOCTTY | O_CLOEXEC)};
      if (::flock(stranger.get(), LOCK_EX) != 0) return "flock";
      if (const Answer refused = client.ask(claim_of(pty.path())); refused.code() != errc::refused)
        return "beside a stranger: " + refused.words;
      if (!lock_files_of(pty.path()).empty()) return "the refused one left " + lock_files_of(pty.path()).front();
      ::flock(stranger.get(), LOCK_UN);
      const Answer held = client.ask(claim_of(pty.path()));
      if (held.words != "granted") return held.words;
      if (const std::string files = lock_files_with(::getpid(), nobody.uid, pty.path()); files != "as they should be")
        return files;
      for (const auto& mark : held.as<wire::Granted>()->marks.marks)
        if (mark.state == wire::MarkState::not_available) return "not available: " + mark.detail;
      if (const std::string down = client.ask(wire::Downgrade{held.claim()}).words; down != "granted") return down;
      const testing_support::Owner another;
      wire::Claim sharing = claim_of(pty.path());
      sharing.mode = Mode::shared;
      RawClient second{broker.socket()};
      const Answer shared = ask_for(second, another, sharing);
      if (shared.words != "granted") return "the second sharer: " + shared.words;
      if (client.ask(wire::Release{held.claim()}).words != "done") return "the first sharer's release";
      if (const auto left = lock_files_of(pty.path());
          left.empty() || convention::read_uucp(left.front())->content.pid != another.pid())
        return "the lock files were not left to the second sharer";
      if (second.ask(wire::Release{shared.claim()}).words != "done") return "the second sharer's release";
      return lock_files_of(pty.path()).empty() ? "good" : lock_files_of(pty.path()).front() + " is left behind";
    });
    return said;
  });
  if (words.starts_with("needs ")) GTEST_SKIP() << words;
  EXPECT_EQ(words, "good");
}

TEST(Refusal, of_permission_comes_before_any_word_about_the_holder) {
  const Pty pty;
  BrokerUnderTest broker;
  ASSERT_EQ(::chmod(pty.path().c_str(), 0600), 0);
  RawClient client{broker.socket()};
  ASSERT_EQ(client.ask(claim_of(pty.path())).words, "granted");
  EXPECT_EQ(try_as({}, broker, pty.path()), "not permitted");
}

TEST(Claim, of_another_user_can_be_neither_released_nor_changed) {
  const Pty pty;
  BrokerUnderTest broker;
  ASSERT_EQ(::chmod(pty.path().c_str(), 0666), 0);
  RawClient client{broker.socket()};
  const Answer held = client.ask(claim_of(pty.path()));
  ASSERT_EQ(held.words, "granted");
  const std::string words = as({}, [&] {
    std::string wrong;
    RawClient other{broker.socket()};
    for (const wire::FromClient& message :
         {wire::FromClient{wire::Release{held.claim()}}, wire::FromClient{wire::Downgrade{held.claim()}},
          wire::FromClient{wire::Upgrade{held.claim(), kForEver}}, wire::FromClient{wire::Renew{held.claim(), 1ms}}})
      if (const Answer answer = other.ask(message); answer.code() != errc::not_held) wrong += answer.words + "; ";
    return wrong.empty() ? "nothing wrong" : wrong;
  });
  EXPECT_EQ(words, "nothing wrong");
  EXPECT_EQ(client.ask(wire::Release{held.claim()}).words, "done");
}

TEST(Kick, asks_the_holder_and_then_takes_the_device_back) {
  const Pty pty;
  BrokerUnderTest broker;
  RawClient holder{broker.socket()};
  RawClient client{broker.socket()};
  const Answer held = holder.ask(claim_of(pty.path()));
  ASSERT_EQ(held.words, "granted");
  const testing_support::Owner next;
  const std::uint32_t number = send_for(client, next, claim_of(pty.path(), kForEver));
  ASSERT_EQ(client.answer_to(number).words, "queued");
  RawClient root{broker.socket()};
  const std::uint32_t kick = root.send(wire::Kick{name_of(pty.path()), 80ms, "maintenance"});
  const Answer asked = holder.hear();
  ASSERT_EQ(asked.words, "notice: asked to leave");
  EXPECT_EQ(asked.as<wire::RevokeNotice>()->reason, "maintenance");
  EXPECT_GT(asked.as<wire::RevokeNotice>()->grace, 0ns);
  EXPECT_NE(asked.as<wire::RevokeNotice>()->by, "");
  EXPECT_EQ(holder.hear().words, "notice: revoked");
  EXPECT_EQ(root.answer_to(kick).words, "done");
  EXPECT_EQ(client.answer_to(number).words, "granted");
  EXPECT_NE(holder.ask(wire::Release{held.claim()}).words, "done");
}

TEST(Kick, is_over_when_the_holder_leaves_by_itself) {
  const Pty pty;
  BrokerUnderTest broker;
  RawClient holder{broker.socket()};
  const Answer held = holder.ask(claim_of(pty.path()));
  RawClient root{broker.socket()};
  const std::uint32_t kick = root.send(wire::Kick{name_of(pty.path()), 100ms, ""});
  ASSERT_EQ(holder.hear().words, "notice: asked to leave");
  EXPECT_EQ(holder.ask(wire::Release{held.claim()}).words, "done");
  EXPECT_EQ(root.answer_to(kick).words, "done");
  // The next claim of the device is not the one that was meant.
  ASSERT_EQ(holder.ask(claim_of(pty.path())).words, "granted");
  EXPECT_EQ(holder.hear(250ms).words, "(silence)");
}

TEST(Kick, of_a_device_that_nobody_holds_is_refused) {
  const Pty pty;
  BrokerUnderTest broker;
  RawClient root{broker.socket()};
  EXPECT_EQ(root.ask(wire::Kick{name_of(pty.path()), 0s, ""}).code(), errc::not_held);
}

TEST(Kick, by_another_user_is_refused) {
  const Pty pty;
  BrokerUnderTest broker;
  ASSERT_EQ(::chmod(pty.path().c_str(), 0666), 0);
  RawClient holder{broker.socket()};
  const Answer held = holder.ask(claim_of(pty.path()));
  ASSERT_EQ(held.words, "granted");
  const std::string words = as({}, [&]() -> std::string {
    RawClient other{broker.socket()};
    const Answer answer = other.ask(wire::Kick{name_of(pty.path()), 0s, "mine"});
    return answer.code() == errc::not_permitted ? "not permitted" : answer.words;
  });
  EXPECT_EQ(words, "not permitted");
  EXPECT_EQ(holder.ask(wire::Release{held.claim()}).words, "done");
}

TEST(Kick, of_ones_own_claim_is_permitted) {
  const Pty pty;
  BrokerUnderTest broker;
  ASSERT_EQ(::chmod(pty.path().c_str(), 0666), 0);
  const std::string words = as({}, [&]() -> std::string {
    RawClient holder{broker.socket()};
    RawClient other{broker.socket()};
    if (const Answer held = holder.ask(claim_of(pty.path())); held.words != "granted") return held.words;
    return other.ask(wire::Kick{name_of(pty.path()), 0s, "again"}).words;
  });
  EXPECT_EQ(words, "done");
}

TEST(Lease, lapses_after_a_warning_and_the_next_gets_in) {
  const Pty pty;
  BrokerUnderTest broker;
  RawClient client{broker.socket()};
  const testing_support::Owner owner;
  const testing_support::Owner next;
  wire::Claim leased = claim_of(pty.path());
  leased.lease = 150ms;
  const Stopwatch watch;
  const Answer held = ask_for(client, owner, leased);
  ASSERT_EQ(held.words, "granted");
  ASSERT_TRUE(held.as<wire::Granted>()->lapses_in);
  EXPECT_LE(*held.as<wire::Granted>()->lapses_in, 150ms);
  RawClient waiter{broker.socket()};
  const std::uint32_t number = send_for(waiter, next, claim_of(pty.path(), kForEver));
  ASSERT_EQ(waiter.answer_to(number).words, "queued");
  EXPECT_EQ(waiter.answer_to(number).words, "granted");
  EXPECT_GE(watch.ms(), 149);
  std::string last;
  while (client.has_heard()) last = client.hear().words;
  EXPECT_EQ(last, "notice: lapsed");
  EXPECT_NE(client.ask(wire::Release{held.claim()}).words, "done");
}

TEST(Lease, that_is_renewed_goes_on) {
  const Pty pty;
  BrokerUnderTest broker;
  RawClient client{broker.socket()};
  wire::Claim leased = claim_of(pty.path());
  leased.lease = 100ms;
  const Answer held = client.ask(leased);
  ASSERT_EQ(held.words, "granted");
  const Answer renewed = client.ask(wire::Renew{held.claim(), 1h});
  ASSERT_EQ(renewed.words, "renewed");
  EXPECT_GT(renewed.as<wire::Renewed>()->lapses_in, 59min);
  while (true) {
    const Answer notice = client.hear(300ms);
    if (notice.words == "(silence)") break;
    EXPECT_NE(notice.words, "notice: lapsed");
  }
  EXPECT_EQ(client.ask(wire::Release{held.claim()}).words, "done");
}

TEST(Status, shows_holder_and_queue) {
  const Pty pty;
  BrokerUnderTest broker;
  RawClient client{broker.socket()};
  const testing_support::Owner holder;
  const testing_support::Owner waiter;
  wire::Claim claim = claim_of(pty.path());
  claim.purpose = "flashing";
  ASSERT_EQ(ask_for(client, holder, claim).words, "granted");
  ASSERT_EQ(ask_for(client, waiter, claim_of(pty.path(), kForEver)).words, "queued");
  const Answer answer = client.ask(wire::StatusQuery{{name_of(pty.path())}});
  const auto* status = answer.as<wire::StatusAnswer>();
  ASSERT_NE(status, nullptr) << answer.words;
  ASSERT_EQ(status->devices.size(), 1U);
  const wire::DeviceStatus& device = status->devices[0];
  ASSERT_EQ(device.holders.size(), 1U);
  EXPECT_EQ(device.holders[0].pid, holder.pid());
  EXPECT_EQ(device.holders[0].purpose, "flashing");
  EXPECT_EQ(device.waiting, 1U);
  ASSERT_EQ(device.waiters.size(), 1U);
  EXPECT_EQ(device.waiters[0].who.pid, waiter.pid());
}

}  // namespace
}  // namespace holdfast
