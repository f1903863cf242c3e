// SPDX-License-Identifier: MIT
// claim_hostile_test.cpp - a lock directory that is closed, full, or set with traps; a process without descriptors;
// arguments that make no sense; lock files of every content. Each gives one clear answer, and nothing is left taken.
#include "process/support/child.hpp"
#include "process/support/devices.hpp"

#include "convention/proxy.hpp"
#include "device/device.hpp"

#include <holdfast/claim.hpp>

#include <gtest/gtest.h>

#include <fcntl.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>
#include <vector>

namespace holdfast {
namespace {

using namespace testing_support;

constexpr uid_t kNobody = 65534;

std::string try_claim(const std::string& device, const Options& options = {}) {
  const auto taken = claim(device, options);
  return taken ? "taken" : taken.error().message;
}

std::string lock_name(const Pty& pty) { return "/run/lock/LCK.." + pty.path().substr(pty.path().rfind('/') + 1); }

std::string proxy_name(const Pty& pty) {
  const auto identity = device::identify(pty.path());
  return identity ? convention::proxy_path(identity->node.id, {}) : std::string{};
}

// What stands in the lock directory besides our proxies.
std::string strangers() {
  std::string names;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator{"/run/lock", ignored})
    if (!entry.path().filename().string().starts_with("holdfast-")) names += entry.path().filename().string() + " ";
  return names;
}

// Runs `body` with a lock directory of its own; "skip: ..." when the machine has no such thing.
std::string with_own_lock_directory(const std::function<std::string()>& body,
                                    const std::string& options = "mode=1777") {
  return in_a_child([&]() -> std::string {
    if (const std::string missing = private_lock_directory(options); !missing.empty()) return "skip: " + missing;
    return body();
  });
}

#define SKIP_OR_EXPECT_EQ(words, expected)                                      \
  do {                                                                          \
    const std::string heard = (words);                                          \
    if (heard.starts_with("skip")) GTEST_SKIP() << "needs " << heard.substr(6); \
    EXPECT_EQ(heard, expected);                                                 \
  } while (false)

// "taken without proxy uucp " when those are reported as not available.
std::string taken_without(const std::string& device) {
  const auto mine = claim(device);
  if (!mine) return mine.error().message;
  std::string words = "taken without";
  for (const MarkReport& mark : mine->report())
    if (mark.state == MarkReport::State::not_available)
      words += mark.convention == Convention::proxy  ? " proxy"
               : mark.convention == Convention::uucp ? " uucp"
                                                     : " another";
  return words;
}

TEST(LockDirectory, that_is_read_only_is_gone_without_and_reported) {
  for (const bool was_used : {false, true}) {
    const Pty pty;
    SKIP_OR_EXPECT_EQ(with_own_lock_directory([&]() -> std::string {
                        if (was_used && try_claim(pty.path()) != "taken") return "not taken at first";
                        if (::mount("none", "/run/lock", nullptr, MS_REMOUNT | MS_RDONLY, nullptr) != 0)
                          return std::string{"skip: a read-only mount: "} + std::strerror(errno);
                        return taken_without(pty.path());
                      }),
                      "taken without proxy uucp");
  }
}

TEST(LockDirectory, that_is_closed_to_the_user_is_gone_without_and_reported) {
  const Pty pty;
  ASSERT_EQ(::chown(pty.path().c_str(), kNobody, static_cast<gid_t>(-1)), 0);
  SKIP_OR_EXPECT_EQ(with_own_lock_directory(
                        [&]() -> std::string {
                          if (::setresuid(kNobody, kNobody, kNobody) != 0) return "skip: setresuid";
                          return taken_without(pty.path());
                        },
                        "mode=0755"),
                    "taken without proxy uucp");
}

TEST(LockDirectory, that_is_full_is_a_clear_error_that_leaves_nothing) {
  const Pty pty;
  SKIP_OR_EXPECT_EQ(with_own_lock_directory(
                        [&]() -> std::string {
                          {
                            std::ofstream filler{"/run/lock/filler"};
                            const std::string block(4096, 'x');
                            while (filler.write(block.data(), 4096).flush()) {
                            }
                          }
                          const auto refused = claim(pty.path());
                          if (refused) return "taken";
                          if (refused.error().code != errc::no_resources || refused.error().errnum != ENOSPC)
                            return refused.error().message;
                          return strangers();
                        },
                        "size=16k"),
                    "filler ");
}

enum class Trap { link, fifo, directory, hard_link, socket };

bool set(Trap trap, const std::string& name, const std::string& victim) {
  ::unlink(name.c_str());
  switch (trap) {
    case Trap::link:
      return ::symlink(victim.c_str(), name.c_str()) == 0;
    case Trap::fifo:
      return ::mkfifo(name.c_str(), 0666) == 0;
    case Trap::directory:
      return ::mkdir(name.c_str(), 0777) == 0;
    case Trap::hard_link:
      return ::link(victim.c_str(), name.c_str()) == 0;
    case Trap::socket: {
      sockaddr_un address{};
      address.sun_family = AF_UNIX;
      name.copy(address.sun_path, sizeof address.sun_path - 1);
      const base::UniqueFd socket{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
      return ::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
    }
  }
  return false;
}

TEST(Trap, under_one_of_our_names_is_neither_followed_nor_written_to) {
  const Pty pty;
  for (const std::string& name : {proxy_name(pty), lock_name(pty)})
    for (const Trap trap : {Trap::link, Trap::fifo, Trap::directory, Trap::hard_link, Trap::socket}) {
      SCOPED_TRACE(name + " is trap " + std::to_string(static_cast<int>(trap)));
      SKIP_OR_EXPECT_EQ(with_own_lock_directory([&]() -> std::string {
                          const std::string victim = "/run/lock/victim";
                          std::ofstream{victim} << "precious";
                          if (!set(trap, name, victim)) return std::string{"no trap: "} + std::strerror(errno);
                          const std::string said = try_claim(pty.path());
                          if (said == "taken") return said;
                          if (said.find(name) == std::string::npos || said.find('\n') != std::string::npos)
                            return "unclear: " + said;
                          std::ifstream file{victim};
                          const std::string content{std::istreambuf_iterator<char>{file}, {}};
                          if (content != "precious") return "the victim was written to";
                          if (trap == Trap::directory) ::rmdir(name.c_str());
                          ::unlink(name.c_str());
                          return try_claim(pty.path());
                        }),
                        "taken");
    }
}

TEST(Trap, of_another_users_closed_file_is_a_clear_refusal) {
  const Pty pty;
  ASSERT_EQ(::chown(pty.path().c_str(), kNobody, static_cast<gid_t>(-1)), 0);
  for (const std::string& name : {proxy_name(pty), lock_name(pty)})
    SKIP_OR_EXPECT_EQ(with_own_lock_directory([&]() -> std::string {
                        std::ofstream{name} << "1\n";
                        ::chmod(name.c_str(), 0600);
                        if (::setresuid(kNobody, kNobody, kNobody) != 0) return "skip: setresuid";
                        const std::string said = try_claim(pty.path());
                        return said.find(name) != std::string::npos ? "clear" : said;
                      }),
                      "clear");
}

TEST(Descriptors, that_run_out_anywhere_are_a_clear_error_that_leaves_nothing) {
  const Pty pty;
  int failures = 0;
  int successes = 0;
  for (rlim_t most = 3; most <= 40; ++most) {
    SCOPED_TRACE(std::to_string(most) + " descriptors");
    const std::string said = in_a_child([&]() -> std::string {
      const rlimit limit{most, most};
      if (::setrlimit(RLIMIT_NOFILE, &limit) != 0) return "setrlimit";
      const auto taken = claim(pty.path());
      if (taken) return "taken";
      return taken.error().code == errc::no_resources ? "no resources" : taken.error().message;
    });
    if (said == "taken") ++successes;
    if (said == "no resources") ++failures;
    EXPECT_TRUE(said == "taken" || said == "no resources") << said;
    EXPECT_TRUE(lock_files_of(pty.path()).empty());
    EXPECT_EQ(try_claim(pty.path()), "taken");
  }
  EXPECT_GT(failures, 0);
  EXPECT_GT(successes, 0);
}

TEST(Descriptors, that_run_out_do_not_make_a_refusal_of_a_stale_lock_file) {
  const Pty pty;
  for (rlim_t most = 3; most <= 40; ++most) {
    SCOPED_TRACE(std::to_string(most) + " descriptors");
    SKIP_OR_EXPECT_EQ(with_own_lock_directory([&]() -> std::string {
                        std::ofstream{lock_name(pty)} << "   4194300\n";
                        const rlimit limit{most, most};
                        ::setrlimit(RLIMIT_NOFILE, &limit);
                        const auto taken = claim(pty.path());
                        if (taken || taken.error().code == errc::no_resources) return "as promised";
                        return taken.error().message;
                      }),
                      "as promised");
  }
}

TEST(Argument, that_makes_no_sense_is_refused_in_one_line) {
  for (const std::string& argument :
       {std::string{}, std::string(1 << 20, 'x'), "/dev/" + std::string(1 << 20, 'x'), std::string{"/dev/null\0x", 11},
        std::string{"/dev/no such device"}, std::string{"/dev"}, std::string{"c4:"}, std::string{"/etc/passwd"}}) {
    const auto refused = claim(argument);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().message.find('\n'), std::string::npos);
    EXPECT_LT(refused.error().message.size(), 1024U);
    EXPECT_TRUE(refused.error().code == errc::invalid_argument || refused.error().code == errc::no_such_device ||
                refused.error().code == errc::not_a_device)
        << refused.error().message;
  }
  EXPECT_EQ(claim(std::vector<std::string>{}).error().code, errc::invalid_argument);
}

TEST(Argument, given_ten_thousand_times_counts_once_and_one_bad_spoils_all) {
  const Pty pty;
  std::vector<std::string> many(10'000, pty.path());
  {
    const auto taken = claim(many);
    ASSERT_TRUE(taken) << taken.error().message;
    EXPECT_EQ(taken->nodes().size(), 1U);
  }
  many.emplace_back("/dev/no-such-device");
  const auto refused = claim(many);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, errc::no_such_device);
  EXPECT_TRUE(lock_files_of(pty.path()).empty());
}

struct Content {
  std::string_view name;
  bool refused;
  bool old;
  std::function<std::string(pid_t live, pid_t dead)> bytes;
};

std::string binary(pid_t pid) {
  std::string bytes(sizeof pid, '\0');
  std::memcpy(bytes.data(), &pid, sizeof pid);
  return bytes;
}

const std::vector<Content>& contents() {
  static const std::vector<Content> all{
      {"dead", false, false, [](pid_t, pid_t dead) { return "       " + std::to_string(dead) + "\n"; }},
      {"dead binary", false, false, [](pid_t, pid_t dead) { return binary(dead); }},
      {"empty for long", false, true, [](pid_t, pid_t) { return std::string{}; }},
      {"live", true, false, [](pid_t live, pid_t) { return "       " + std::to_string(live) + "\n"; }},
      {"live binary", true, false, [](pid_t live, pid_t) { return binary(live); }},
      {"live in three lines", true, false,
       [](pid_t live, pid_t) { return "       " + std::to_string(live) + "\nminicom\nhost\n"; }},
      {"garbage", true, true, [](pid_t, pid_t) { return std::string{"who knows\n"}; }},
      {"just made empty", true, false, [](pid_t, pid_t) { return std::string{}; }},
  };
  return all;
}

TEST(LockFile, of_any_content_is_taken_over_when_stale_and_respected_otherwise) {
  const Pty pty;
  Child living{[](Peer& test) {
    test.hear();
    return 0;
  }};
  const pid_t dead = [] {
    Child child{[](Peer&) { return 0; }};
    const pid_t pid = child.pid();
    child.reap();
    return pid;
  }();
  for (const Content& content : contents()) {
    SCOPED_TRACE(content.name);
    SKIP_OR_EXPECT_EQ(with_own_lock_directory([&]() -> std::string {
                        std::ofstream{lock_name(pty)} << content.bytes(living.pid(), dead);
                        if (content.old) {
                          const timespec times[2]{{1'000'000'000, 0}, {1'000'000'000, 0}};
                          ::utimensat(AT_FDCWD, lock_name(pty).c_str(), times, 0);
                        }
                        const auto taken = claim(pty.path());
                        if (!taken) return taken.error().code == errc::refused ? "refused" : taken.error().message;
                        return "taken";
                      }),
                      content.refused ? "refused" : "taken");
  }
}

TEST(LockFile, that_is_stale_but_another_users_is_reported_and_gone_without) {
  const Pty pty;
  ASSERT_EQ(::chown(pty.path().c_str(), kNobody, static_cast<gid_t>(-1)), 0);
  SKIP_OR_EXPECT_EQ(with_own_lock_directory([&]() -> std::string {
                      std::ofstream{lock_name(pty)} << "   4194300\n";
                      if (::setresuid(kNobody, kNobody, kNobody) != 0) return "skip: setresuid";
                      const auto mine = claim(pty.path());
                      if (!mine) return mine.error().message;
                      for (const MarkReport& mark : mine->report())
                        if (mark.detail.find("is stale and belongs to root") != std::string::npos) return "reported";
                      return "not reported";
                    }),
                    "reported");
}

}  // namespace
}  // namespace holdfast
