// SPDX-License-Identifier: MIT
// run_decisions_test.cpp - what the room decides without asking the kernel.
#include "run/command.hpp"
#include "run/filter_choice.hpp"
#include "run/paths.hpp"
#include "run/signals.hpp"
#include "run/strangers.hpp"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/audit.h>
#include <sys/syscall.h>

namespace holdfast::run {
namespace {

using testing::ElementsAre;

TEST(ExecCandidates, follow_the_search_path_as_execvp_does) {
  EXPECT_THAT(exec_candidates("ls", "/a:/b"), ElementsAre("/a/ls", "/b/ls"));
  EXPECT_THAT(exec_candidates("ls", "/a::/b:"), ElementsAre("/a/ls", "ls", "/b/ls", "ls"));
  EXPECT_THAT(exec_candidates("ls", nullptr), ElementsAre("/bin/ls", "/usr/bin/ls"));
}

TEST(ExecCandidates, are_the_name_itself_when_it_has_a_slash_and_none_when_it_is_empty) {
  EXPECT_THAT(exec_candidates("./ls", "/a:/b"), ElementsAre("./ls"));
  EXPECT_THAT(exec_candidates("", "/a:/b"), ElementsAre());
}

TEST(FilterChoice, asks_about_paths_where_there_are_lock_files_or_sg_nodes) {
  using device::Kind;
  EXPECT_TRUE(needs_paths({Kind::character, 4, 64, 0}));    // ttyS0
  EXPECT_TRUE(needs_paths({Kind::character, 188, 0, 0}));   // ttyUSB0
  EXPECT_TRUE(needs_paths({Kind::character, 136, 1, 24}));  // pts
  EXPECT_TRUE(needs_paths({Kind::character, 21, 0, 0}));    // sg0
  EXPECT_TRUE(needs_paths({Kind::block, 11, 0, 0}));        // sr0
  EXPECT_TRUE(needs_paths({Kind::block, 8, 1, 0}));         // sda1
  EXPECT_FALSE(needs_paths({Kind::block, 7, 0, 0}));        // loop0
  EXPECT_FALSE(needs_paths({Kind::block, 259, 0, 0}));      // nvme
  EXPECT_FALSE(needs_paths({Kind::character, 13, 64, 0}));  // event0
  EXPECT_FALSE(needs_paths({Kind::character, 81, 0, 0}));   // video0
}

class FindStranger : public testing::Test {
 protected:
  static constexpr pid_t kCommand = 50;

  FindStranger() {
    device::Device drive;
    drive.node = node({device::Kind::block, 11, 0, 0}, "/dev/sr0");
    drive.family = device::Family::optical;
    drive.siblings = {{node({device::Kind::character, 21, 0, 0}, "/dev/sg0"), device::Family::scsi_generic,
                       device::Relation::same_function},
                      {node({device::Kind::character, 189, 1, 0}, "/dev/bus/usb/001/002"), device::Family::usb,
                       device::Relation::same_unit}};
    survey_.devices = {{drive.node, {}, {}}, {drive.siblings[0].node, {}, {}}, {drive.siblings[1].node, {}, {}}};
    wanted_.devices = {drive};
    wanted_.command = {kCommand, 1};
  }
  static device::Node node(const device::DeviceId& id, const std::string& path) {
    return {.id = id, .path = path, .inode = {}};
  }
  observe::Use& add(std::size_t where, pid_t pid, observe::Standing standing) {
    observe::Use& use = survey_.devices[where].uses.emplace_back();
    use.who.pid = pid;
    use.standing = standing;
    return use;
  }
  [[nodiscard]] std::string found() const {
    const auto stranger = find_stranger(survey_, wanted_, {kCommand, 60});
    return stranger ? stranger->node.path + " " + std::to_string(stranger->use.who.pid) : "nobody";
  }

  enum : std::size_t { kSr, kSg, kUsb };
  observe::Survey survey_;
  Wanted wanted_;
};

TEST_F(FindStranger, is_whoever_has_a_covered_node) {
  EXPECT_EQ(found(), "nobody");
  add(kUsb, 70, observe::Standing::opened);
  EXPECT_EQ(found(), "nobody") << "the claim leaves that node alone";
  wanted_.options.cover = Cover::unit;
  EXPECT_EQ(found(), "/dev/bus/usb/001/002 70");
  add(kSg, 71, observe::Standing::opened);
  EXPECT_EQ(found(), "/dev/sg0 71");
  add(kSr, 0, observe::Standing::holds).kind = observe::UserKind::kernel;
  EXPECT_EQ(found(), "/dev/sr0 0") << "a mount";
}

TEST_F(FindStranger, is_nobody_who_waits_or_is_dead_or_belongs_to_us) {
  add(kSr, 70, observe::Standing::waits);
  add(kSr, 71, observe::Standing::stale);
  add(kSr, 60, observe::Standing::opened);
  add(kSg, kCommand, observe::Standing::holds).ours = true;
  EXPECT_EQ(found(), "nobody");
  add(kSg, 72, observe::Standing::opened);
  EXPECT_EQ(found(), "/dev/sg0 72") << "beside our own claim";
}

TEST_F(FindStranger, is_nobody_on_a_node_that_somebody_else_has_claimed) {
  add(kSr, 70, observe::Standing::holds).ours = true;
  add(kSr, 71, observe::Standing::opened);
  EXPECT_EQ(found(), "nobody") << "he may be the other one's";
  add(kSg, 72, observe::Standing::opened);
  EXPECT_EQ(found(), "/dev/sg0 72") << "which is not claimed";
}

TEST(CareForSignals, passes_on_what_a_process_sent_and_nothing_that_the_kernel_sent) {
  signalfd_siginfo signal{};
  signal.ssi_signo = SIGINT;
  signal.ssi_code = SI_KERNEL;
  EXPECT_EQ(care_for(signal), Care::ignore) << "the terminal has sent it to the command as well";
  signal.ssi_code = SI_USER;
  EXPECT_EQ(care_for(signal), Care::pass_on);
  signal.ssi_code = SI_QUEUE;
  EXPECT_EQ(care_for(signal), Care::pass_on);
  signal.ssi_signo = SIGCHLD;
  EXPECT_EQ(care_for(signal), Care::children);
  signal.ssi_signo = SIGCONT;
  EXPECT_EQ(care_for(signal), Care::go_on);
}

TEST(PathCalls, are_the_same_call_in_every_form) {
  using Verb = PathCall::Verb;
  const auto call = [](Call kind, std::array<std::uint64_t, 6> arguments) {
    return path_call_of(Question{1, 2, 3, kind, arguments});
  };
  const std::uint64_t here = static_cast<std::uint32_t>(AT_FDCWD);
  const auto open = call(Call::open, {100, O_RDWR | O_EXCL, 0644, 0, 0, 0});
  const auto openat = call(Call::openat, {here, 100, O_RDWR | O_EXCL, 0644, 0, 0});
  for (const auto& one : {open, openat}) {
    ASSERT_TRUE(one);
    EXPECT_EQ(one->verb, Verb::open);
    EXPECT_EQ(one->path.directory, AT_FDCWD);
    EXPECT_EQ(one->path.address, 100U);
    EXPECT_EQ(one->flags, O_RDWR | O_EXCL);
    EXPECT_EQ(one->mode, 0644U);
  }
  EXPECT_EQ(call(Call::creat, {100, 0600, 0, 0, 0, 0})->flags, O_CREAT | O_WRONLY | O_TRUNC);
  const auto link = call(Call::linkat, {5, 100, 6, 200, AT_SYMLINK_FOLLOW, 0});
  ASSERT_TRUE(link && link->other);
  EXPECT_EQ(link->path.directory, 6);
  EXPECT_EQ(link->path.address, 200U);
  EXPECT_EQ(link->other->directory, 5);
  EXPECT_EQ(link->flags, AT_SYMLINK_FOLLOW);
  EXPECT_EQ(call(Call::renameat2, {5, 100, 6, 200, 1, 0})->flags, 1);
  EXPECT_FALSE(call(Call::flock, {3, 2, 0, 0, 0, 0}));
}

TEST(PathCalls, split_into_directory_and_name) {
  EXPECT_EQ(split("/run/lock/LCK..x").directory, "/run/lock");
  EXPECT_EQ(split("/run/lock/LCK..x").name, "LCK..x");
  EXPECT_EQ(split("LCK..x").directory, ".");
  EXPECT_EQ(split("/x").directory, "/");
}

TEST(Calls, are_known_by_number_for_every_architecture_of_the_processor) {
#if defined(__x86_64__)
  EXPECT_EQ(call_of(AUDIT_ARCH_X86_64, SYS_flock), Call::flock);
  EXPECT_EQ(call_of(AUDIT_ARCH_X86_64, SYS_newfstatat), Call::statat);
  EXPECT_EQ(call_of(AUDIT_ARCH_I386, 143), Call::flock);  // arch/x86/entry/syscalls/syscall_32.tbl
  EXPECT_EQ(call_of(AUDIT_ARCH_I386, 221), Call::fcntl);  // fcntl64
  EXPECT_TRUE(is_32_bit(AUDIT_ARCH_I386));
  EXPECT_FALSE(is_32_bit(AUDIT_ARCH_X86_64));
  EXPECT_EQ(call_of(AUDIT_ARCH_X86_64, SYS_read), Call::unknown);
#else
  GTEST_SKIP() << "the numbers above are x86's";
#endif
}

TEST(Filters, fit_into_the_kernels_limit) {
  for (const Filter filter : {Filter::marks, Filter::marks_and_paths}) {
    EXPECT_GT(program_of(filter).size(), 10U);
    EXPECT_LE(program_of(filter).size(), static_cast<std::size_t>(BPF_MAXINSNS));
  }
}

}  // namespace
}  // namespace holdfast::run
