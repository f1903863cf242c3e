// SPDX-License-Identifier: MIT
// systemd_test.cpp - holdfast as it is installed, under systemd as process 1: started by its socket, with no more
// rights than its unit leaves it, replaced when it dies or hangs, and feeding the guard out of its sandbox.
#include "interop/support/program.hpp"
#include "process/support/shell.hpp"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <linux/capability.h>
#include <pwd.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>

namespace holdfast::vm {
namespace {

using testing::AllOf;
using testing::EndsWith;
using testing::HasSubstr;
using testing::StartsWith;
using testing_support::Ended;
using testing_support::ended;
using testing_support::pidfd_of;
using testing_support::Shell;
using testing_support::wait_for_death;

constexpr const char* kPort = "/dev/ttyS1";
constexpr const char* kInstalled = "/run/holdfast-is-installed";  // what the host has installed is not what is tried
constexpr const char* kHookNotes = "/run/lock/hook-notes";

std::string content(const std::string& path) {
  std::ifstream file{path};
  return {std::istreambuf_iterator<char>{file}, {}};
}

class Systemd : public testing::Test {
 protected:
  void SetUp() override {
    if (!std::filesystem::exists(kInstalled)) install();
    clean_up();  // after a test that died
    must("systemctl start holdfastd.socket");
  }
  void TearDown() override { clean_up(); }

  static void clean_up() {
    must("systemctl stop holdfastd.socket holdfastd.service holdfast-guard.service");
    std::filesystem::remove_all("/run/systemd/system/holdfastd.service.d");
    std::filesystem::remove("/etc/holdfast/hooks.d/writes");
    std::filesystem::remove(kHookNotes);
    must(fmt::format("chmod 660 {} && systemctl daemon-reload && systemctl reset-failed", kPort));
  }

  static void must(const std::string& line) {
    const Ended it = ended(line);
    ASSERT_EQ(it.status, 0) << line << ": " << it.out << it.err;
  }
  // What a package does.
  static void install() {
    must("cmake --install " BUILD_FOLDER " --strip");
    must("systemctl daemon-reload");
    must("systemd-sysusers /usr/local/lib/sysusers.d/holdfast.conf");
    must("systemd-tmpfiles --create /usr/local/lib/tmpfiles.d/holdfast.conf");
    std::ofstream{kInstalled} << "yes\n";
  }
  static std::string property(const std::string& name) {
    std::string value = ended(fmt::format("systemctl show -P {} holdfastd.service", name)).out;
    if (value.ends_with('\n')) value.pop_back();
    return value;
  }
  static pid_t broker() { return std::stoi("0" + property("MainPID")); }
  // Starts it, should nobody have asked it anything yet.
  static pid_t running_broker() {
    must("$H status");
    return broker();
  }
  static std::string word_of(pid_t process, const std::string& name) {
    std::istringstream lines{content(fmt::format("/proc/{}/status", process))};
    for (std::string line; std::getline(lines, line);)
      if (std::istringstream words{line}; line.starts_with(name + ":")) {
        std::string value;
        words >> value >> value;
        return value;
      }
    return "(none)";
  }
  static void signal_and_wait(pid_t process, int number) {
    const base::UniqueFd pidfd = pidfd_of(process);
    ASSERT_TRUE(pidfd);
    ASSERT_EQ(::kill(process, number), 0);
    ASSERT_TRUE(wait_for_death(pidfd.get()));
  }
  static ino_t inode(const char* path) {
    struct stat it{};
    return ::stat(path, &it) == 0 ? it.st_ino : 0;
  }
  static std::string tried() { return ended("$H run -n $D -- true", kPort).err; }
};

// Says "claimed", and holds until its input ends.
struct Holder : Shell {
  explicit Holder(const std::string& options = {}) : Shell{fmt::format("exec $H claim {} $D 2>&1", options), kPort} {}
};

TEST_F(Systemd, starts_the_broker_with_the_first_claim_and_takes_its_socket_away_with_it) {
  EXPECT_EQ(property("ActiveState"), "inactive");
  Holder holder;
  ASSERT_EQ(holder.line(), fmt::format("claimed {}", kPort));
  EXPECT_EQ(property("ActiveState"), "active");
  EXPECT_THAT(ended("$H history -l 1 $D", kPort).out, AllOf(HasSubstr("claimed"), HasSubstr(kPort)));
  must("systemctl stop holdfastd.socket holdfastd.service");
  EXPECT_FALSE(std::filesystem::exists("/run/holdfast/socket"));
  EXPECT_THAT(tried(), HasSubstr("is held by")) << "the claim is the client's as well";
  holder.close_input();
  EXPECT_EQ(holder.end().status, 0);
}

TEST_F(Systemd, gives_the_broker_five_capabilities_and_a_system_that_is_read_only) {
  const pid_t process = running_broker();
  const passwd* const user = ::getpwnam("holdfast");
  ASSERT_NE(user, nullptr);
  EXPECT_EQ(word_of(process, "Uid"), std::to_string(user->pw_uid));
  std::uint64_t five = 0;
  for (const int one : {CAP_SETUID, CAP_SETGID, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_BPF}) five |= std::uint64_t{1} << one;
  EXPECT_EQ(word_of(process, "CapBnd"), fmt::format("{:016x}", five));
  EXPECT_EQ(word_of(process, "CapEff"), fmt::format("{:016x}", five));
  EXPECT_EQ(word_of(process, "NoNewPrivs"), "1");
  EXPECT_EQ(word_of(process, "Seccomp"), "2");
  const auto is_writable = [&](const char* path) {
    return ended(fmt::format("nsenter -t {} -m test -w {}", process, path)).status == 0;
  };
  for (const char* const path :
       {"/", "/usr", "/etc", "/sys", "/proc/sys/kernel/hostname", "/proc/sysrq-trigger", "/root", "/home", "/var/lib"})
    EXPECT_FALSE(is_writable(path)) << path;
  for (const char* const path : {"/dev", "/run/lock", "/tmp", "/run/holdfast", "/var/lib/holdfast", "/sys/fs/bpf"})
    EXPECT_TRUE(is_writable(path)) << path;
}

TEST_F(Systemd, replaces_a_killed_broker_and_no_claim_is_lost) {
  Holder holder{"-n"};
  ASSERT_EQ(holder.line(), fmt::format("claimed {}", kPort));
  Holder waiter{"-v -w 60"};
  EXPECT_THAT(waiter.line(), AllOf(HasSubstr("is held by"), HasSubstr("waiting until")));
  const pid_t killed = broker();
  signal_and_wait(killed, SIGKILL);
  EXPECT_THAT(tried(), HasSubstr(fmt::format("is held by holdfast[{}]", holder.pid())));
  const auto waits = [] { return ended("$H status $D", kPort).out.find("waits exclusive") != std::string::npos; };
  EXPECT_TRUE(interop::eventually(waits, {}, {}, testing_support::kPatience)) << "it comes back by itself";
  EXPECT_NE(broker(), killed);
  holder.close_input();
  EXPECT_EQ(holder.end().status, 0);
  waiter.close_input();
  EXPECT_THAT(waiter.end().out, EndsWith(fmt::format("\nclaimed {}\n", kPort)));
}

TEST_F(Systemd, keeps_a_claim_for_another_process_in_its_store_over_a_restart) {
  Shell owner{"read x"};
  must(fmt::format("$H claim --pid {} {}", owner.pid(), kPort));
  const ino_t file = inode("/run/lock/LCK..ttyS1");
  ASSERT_NE(file, 0U);
  const pid_t before = broker();
  signal_and_wait(before, SIGKILL);
  const std::string held = fmt::format("is held by sh[{}]", owner.pid());
  EXPECT_THAT(tried(), HasSubstr(held));
  EXPECT_NE(broker(), before);
  must("systemctl restart holdfastd.service");
  EXPECT_THAT(tried(), HasSubstr(held));
  EXPECT_EQ(property("NFileDescriptorStore"), "1");
  EXPECT_EQ(inode("/run/lock/LCK..ttyS1"), file) << "it was given back and taken anew";
  owner.close_input();
  owner.end();
  EXPECT_EQ(ended("$H run -w 10 $D -- true", kPort).status, 0);
}

TEST_F(Systemd, replaces_a_broker_that_hangs) {
  std::filesystem::create_directories("/run/systemd/system/holdfastd.service.d");
  std::ofstream{"/run/systemd/system/holdfastd.service.d/soon.conf"} << "[Service]\nWatchdogSec=10s\n";
  must("systemctl daemon-reload");
  Holder holder{"-n"};
  ASSERT_EQ(holder.line(), fmt::format("claimed {}", kPort));
  const pid_t stopped = broker();
  const base::UniqueFd pidfd = pidfd_of(stopped);
  ASSERT_EQ(::kill(stopped, SIGSTOP), 0);
  ASSERT_TRUE(wait_for_death(pidfd.get())) << "by the watchdog";
  EXPECT_THAT(tried(), HasSubstr(fmt::format("is held by holdfast[{}]", holder.pid())));
  EXPECT_NE(broker(), stopped);
}

TEST_F(Systemd, lets_a_set_uid_program_claim_as_its_owner_who_is_not_led_astray_by_its_caller) {
  const std::string program = "/usr/local/bin/set-uid-holdfast";
  must(fmt::format("cp $H {0} && chmod 4755 {0} && chmod 600 {1}", program, kPort));
  const std::string nobody =
      fmt::format("env HOLDFAST_SOCKET=/nowhere setpriv --reuid nobody --regid nogroup --clear-groups {}", program);
  Shell claimer{fmt::format("exec {} claim -n $D 2>&1", nobody), kPort};
  EXPECT_EQ(claimer.line(), fmt::format("claimed {}", kPort));
  EXPECT_THAT(ended("$H history -l 1 $D", kPort).out, HasSubstr("claimed")) << "by the broker that its owner has";
  EXPECT_THAT(tried(), HasSubstr(fmt::format("is held by set-uid-holdfas[{}]", claimer.pid())));
  signal_and_wait(claimer.pid(), SIGKILL);
  EXPECT_EQ(ended("$H run -w 10 $D -- true", kPort).status, 0);
  must(fmt::format("chmod 755 {}", program));
  EXPECT_EQ(ended(fmt::format("{} claim -n $D", nobody), kPort).status, 77);
}

TEST_F(Systemd, runs_hooks_without_the_brokers_capabilities) {
  std::ofstream{"/etc/holdfast/hooks.d/writes"} << "#!/bin/sh\ngrep -E '^Cap(Eff|Amb)' /proc/self/status >>"
                                                << kHookNotes << "\n";
  ASSERT_EQ(::chmod("/etc/holdfast/hooks.d/writes", 0755), 0);
  must(fmt::format("$H run -n {} -- true", kPort));
  must("systemctl stop holdfastd.socket holdfastd.service");  // after the hooks
  EXPECT_THAT(content(kHookNotes), StartsWith("CapEff:\t0000000000000000\nCapAmb:\t0000000000000000\n"));
}

TEST_F(Systemd, lets_the_broker_feed_the_guard_out_of_its_sandbox) {
  must("systemctl start holdfast-guard.service");
  Holder holder{"-n --guard=require"};
  ASSERT_EQ(holder.line(), fmt::format("claimed {}", kPort));
  const auto is_refused = [] { return ended("dd if=$D count=0 status=none", kPort).err; };
  const std::string busy = fmt::format("dd: failed to open '{}': Device or resource busy\n", kPort);
  EXPECT_EQ(is_refused(), busy);
  must("systemctl reload holdfast-guard.service");
  EXPECT_EQ(is_refused(), busy) << "its programs are looked at anew";
  signal_and_wait(broker(), SIGKILL);
  EXPECT_EQ(is_refused(), busy) << "without a broker, or with the next";
  EXPECT_THAT(ended("$H status $D", kPort).out, HasSubstr("guarded, 3 denied"));
  EXPECT_THAT(ended("$H doctor").out, HasSubstr("the guard is on: the kernel enforces claims"));
  must("systemctl stop holdfast-guard.service");
  EXPECT_EQ(ended("$H guard status").out, "the guard is off\n");
  EXPECT_EQ(is_refused(), "") << "root, whom TIOCEXCL does not bind";
}

}  // namespace
}  // namespace holdfast::vm
