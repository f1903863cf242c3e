// SPDX-License-Identifier: MIT
// command.cpp - the guard as people use it: the command, a real broker, and strangers who are root as everybody here.
#include "guard/programs.hpp"
#include "observe/events.hpp"
#include "process/support/broker.hpp"
#include "process/support/shell.hpp"
#include "vm/guard/support.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <scsi/sg.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <holdfast/watch.hpp>

namespace holdfast::vm {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;
using testing_support::BrokerUnderTest;
using testing_support::Ended;
using testing_support::ended;
using testing_support::Shell;

constexpr const char* kPort = "/dev/ttyUSB0";

// A command that says that it can use the device, and ends with 7 when it is told to.
constexpr const char* kOwner = R"(-- sh -c "stty -F $D >/dev/null && echo works; read x; exit 7")";

class GuardCommandTest : public testing::Test {
 protected:
  // It stays on from test to test: to load the programs takes seconds here.
  void SetUp() override {
    if (guard::installed()) return;
    ASSERT_EQ(ended("$H guard on").err, "");
  }

  BrokerUnderTest broker_{{"--history", testing::TempDir() + fmt::format("guard-history.{}", ::getpid())}};
};

TEST_F(GuardCommandTest, on_and_off_are_seen_in_the_status) {
  EXPECT_EQ(ended("$H guard on").status, 0) << "on again replaces what is the same";
  const Ended now = ended("$H guard status");
  EXPECT_EQ(now.status, 0);
  EXPECT_EQ(now.out, "the guard is on\nno device is guarded\n");
  EXPECT_EQ(ended("$H guard off").status, 0);
  EXPECT_FALSE(guard::installed());
  const Ended then = ended("$H guard status");
  EXPECT_EQ(then.status, 1);
  EXPECT_EQ(then.out, "the guard is off\n");
}

TEST_F(GuardCommandTest, others_than_root_may_not_look_or_switch) {
  for (const char* const word : {"on", "off", "status"}) {
    const Ended it = ended(fmt::format("setpriv --reuid 65534 --clear-groups $H guard {}", word));
    EXPECT_EQ(it.status, 77) << word;
    EXPECT_THAT(it.err, AllOf(StartsWith("holdfast: "), HasSubstr("as root"))) << word;
  }
  EXPECT_TRUE(guard::installed());
}

TEST_F(GuardCommandTest, run_has_the_device_alone_and_names_who_is_refused) {
  const std::string port{kPort};
  auto watch = Watch::open({&port, 1}, {EventKind::claimed, EventKind::denied});
  ASSERT_TRUE(watch) << watch.error().message;
  const auto told = [&] {
    const auto event = watch->next(Wait::at_most(testing_support::kPatience));
    return event ? observe::to_line(*event) : event.error().message;
  };
  Shell run{fmt::format("exec $H run -n -v --guard $D {} 2>&1", kOwner), kPort};
  std::string line;
  while (line.find("enforcement") == std::string::npos && line.find("(end)") == std::string::npos) line = run.line();
  EXPECT_EQ(line, "holdfast: enforcement: guarded");
  EXPECT_EQ(run.line(), "works") << "a child of the command, born after the claim";
  EXPECT_THAT(told(), AllOf(HasSubstr("claimed"), HasSubstr(kPort)));

  EXPECT_EQ(opened(kPort), "EBUSY");
  const std::string stranger = fmt::format("vm_guard_test[{}]", ::getpid());
  EXPECT_EQ(run.line(), fmt::format("holdfast: {}: {} of root was refused (open)", kPort, stranger));
  EXPECT_THAT(told(), AllOf(HasSubstr("denied"), HasSubstr(stranger), HasSubstr("open; held by ")));
  EXPECT_THAT(ended("$H history -l 1 $D", kPort).out, AllOf(HasSubstr("denied"), HasSubstr("open; held by ")));
  EXPECT_THAT(ended("$H status $D", kPort).out, HasSubstr(", guarded, 1 denied"));
  EXPECT_THAT(ended("$H guard status").out, AllOf(StartsWith("the guard is on\n"), HasSubstr(kPort)));

  run.close_input();
  EXPECT_EQ(run.end().status, 7);
  EXPECT_EQ(opened(kPort), "OK");
}

TEST_F(GuardCommandTest, off_asks_for_force_while_a_device_is_guarded_and_says_what_it_cuts) {
  Shell run{fmt::format("exec $H run -n --guard $D {}", kOwner), kPort};
  ASSERT_EQ(run.line(), "works");
  const Ended asked = ended("$H guard off");
  EXPECT_EQ(asked.status, 75);
  EXPECT_EQ(asked.err,
            fmt::format("holdfast: the guard is needed for {}; --force switches it off all the same\n", kPort));
  EXPECT_EQ(opened(kPort), "EBUSY");
  const Ended forced = ended("$H guard off --force");
  EXPECT_EQ(forced.status, 0);
  EXPECT_EQ(forced.err, fmt::format("holdfast: no longer guarded: {}\n", kPort));
  EXPECT_EQ(opened(kPort), "OK") << "root, whom TIOCEXCL does not bind";
  EXPECT_EQ(ended("$H run -n $D -- true", kPort).status, 75) << "the claim itself stays";
  run.close_input();
  EXPECT_EQ(run.end().status, 7);
}

TEST_F(GuardCommandTest, without_the_guard_what_requires_it_is_refused_with_the_remedy) {
  ASSERT_EQ(ended("$H guard off").status, 0);
  const Ended required = ended("$H run -n --guard $D -- echo ran", kPort);
  EXPECT_EQ(required.status, 71);
  EXPECT_EQ(required.out, "");
  EXPECT_THAT(required.err, AllOf(HasSubstr(kPort), HasSubstr("holdfast guard on")));
  EXPECT_EQ(ended("$H run -n --guard=auto $D -- echo ran", kPort).out, "ran\n");
}

TEST_F(GuardCommandTest, what_is_never_guarded_is_refused_with_the_reason_where_it_is_required) {
  const Ended required = ended("$H run -n --guard /dev/null -- echo ran");
  EXPECT_EQ(required.status, 77);
  EXPECT_EQ(required.out, "");
  EXPECT_THAT(required.err, HasSubstr("never guarded: it is a memory device"));
  EXPECT_EQ(ended("$H run -n /dev/null -- echo ran").out, "ran\n") << "without asking for it, as before";
}

constexpr const char* kDrive = "/dev/sr0";

TEST_F(GuardCommandTest, a_drive_with_an_sg_node_is_guarded_too) {
  Shell run{
      "exec $H run -n --guard $D -- sh -c 'dd if=/dev/sr0 of=/dev/null count=1 2>/dev/null && "
      "echo works; read x; exit 7'",
      kDrive};
  EXPECT_EQ(run.line(), "works");
  EXPECT_EQ(opened(kDrive, O_RDONLY), "EBUSY");
  EXPECT_EQ(opened("/dev/sg0", O_RDONLY), "EBUSY") << "its other driver";
  run.close_input();
  const Ended it = run.end();
  EXPECT_EQ(it.status, 7);
  EXPECT_THAT(it.err, Not(HasSubstr("not seen"))) << "root sees all";
  EXPECT_EQ(ended("$H run -n --guard -C o_excl $D -- echo ran", kDrive).status, 71)
      << "without the proxy O_EXCL is all that keeps strangers in";
}

TEST_F(GuardCommandTest, a_stranger_that_has_the_drive_already_is_named_and_not_cut) {
  for (const char* const node : {kDrive, "/dev/sg0"}) {
    base::UniqueFd stranger{::open(node, O_RDONLY | O_NONBLOCK | O_CLOEXEC)};
    ASSERT_TRUE(stranger) << node;
    const std::string held = fmt::format("holdfast: {} is held by vm_guard_test[{}] (open)", node, ::getpid());
    const Ended refused = ended("$H run -n --guard $D -- echo ran", kDrive);
    EXPECT_EQ(refused.status, 75);
    EXPECT_EQ(refused.out, "");
    EXPECT_EQ(refused.err, held + "\n");
    const Ended late = ended("$H run -w 0.5 --guard $D -- echo ran", kDrive);
    EXPECT_EQ(late.status, 75);
    EXPECT_EQ(late.err, held + "; the time to wait is over\n");
    Shell waiting{"exec $H run -v --guard $D -- echo ran 2>&1", kDrive};
    EXPECT_EQ(waiting.line(), held + "; waiting");
    int version = 0;
    EXPECT_EQ(name_of(::ioctl(stranger.get(), SG_GET_VERSION_NUM, &version)), "OK") << "it goes on undisturbed";
    stranger.reset();
    EXPECT_THAT(waiting.end().out, HasSubstr("\nran\n"));
  }
}

TEST_F(GuardCommandTest, who_is_still_there_when_the_drive_is_granted_is_not_cut_either) {
  // What the first command leaves behind is its own until it ends, and a stranger from then on.
  Shell first{"exec $H run -n --guard $D -- sh -c 'sleep 1000 <$0 >/dev/null 2>&1 & echo $!; read x' $D", kDrive};
  const std::string left = first.line();
  Shell second{"exec $H run -v --guard $D -- echo ran 2>&1", kDrive};
  EXPECT_THAT(second.line(), AllOf(HasSubstr(" is held by holdfast["), HasSubstr("; waiting")));
  first.close_input();
  EXPECT_EQ(first.end().status, 1);
  EXPECT_EQ(second.line(), fmt::format("holdfast: {} is held by sleep[{}] (open); waiting", kDrive, left));
  EXPECT_EQ(opened(kDrive, O_RDONLY | O_NONBLOCK), "OK") << "what was granted was given back";
  ::kill(std::stoi(left), SIGKILL);
  EXPECT_THAT(second.end().out, HasSubstr("\nran\n"));
}

TEST_F(GuardCommandTest, a_mounted_disk_with_an_sg_node_is_busy_until_it_is_unmounted) {
  ASSERT_EQ(ended("mkfs.ext4 -q -F $D && mount $D /mnt", "/dev/sda").status, 0);
  const Ended refused = ended("$H run -n --guard $D -- echo ran", "/dev/sda");
  EXPECT_EQ(refused.status, 75);
  EXPECT_EQ(refused.err, "holdfast: /dev/sda is held by the kernel (mounted on /mnt)\n");
  Shell waiting{"exec $H run -v --guard $D -- echo ran 2>&1", "/dev/sda"};
  EXPECT_EQ(waiting.line(), "holdfast: /dev/sda is held by the kernel (mounted on /mnt); waiting");
  ASSERT_EQ(ended("umount /mnt").status, 0);
  EXPECT_THAT(waiting.end().out, HasSubstr("\nran\n"));
}

TEST_F(GuardCommandTest, who_cannot_see_all_is_told_so_and_meets_a_burn_by_o_excl) {
  const std::string run = "setpriv --reuid 65534 --groups $(stat -c %g $D) $H run -n --guard $D -- echo ran";
  const std::string blind = "holdfast: /dev/sr0: who has it already is not seen in full: descriptors of ";
  const Ended alone = ended(run, kDrive);
  EXPECT_EQ(alone.out, "ran\n");
  EXPECT_THAT(alone.err, StartsWith(blind));
  const base::UniqueFd burning{::open(kDrive, O_RDONLY | O_NONBLOCK | O_EXCL | O_CLOEXEC)};
  ASSERT_TRUE(burning);
  const Ended refused = ended(run, kDrive);
  EXPECT_EQ(refused.status, 75);
  EXPECT_THAT(refused.err, AllOf(StartsWith(blind), HasSubstr("\nholdfast: /dev/sr0 is held by ")));
}

TEST_F(GuardCommandTest, a_shell_that_claims_has_the_device_for_its_children) {
  Shell shell{
      "$H claim --pid $$ --guard $D && stty -F $D >/dev/null && echo works; read x; $H release --pid $$ $D; "
      "echo released; read x",
      kPort};
  EXPECT_EQ(shell.line(), fmt::format("claimed {}", kPort));
  EXPECT_EQ(shell.line(), "works");
  EXPECT_EQ(opened(kPort), "EBUSY");
  shell.close_input();
  EXPECT_EQ(shell.line(), "released");
  EXPECT_EQ(opened(kPort), "OK");
}

TEST_F(GuardCommandTest, doctor_and_explain_know_that_claims_are_guarded) {
  EXPECT_THAT(ended("$H doctor").out, HasSubstr("the guard is on: the kernel enforces claims"));
  const std::string of_run = "\n  of holdfast run: with --guard alone, which leaves out o_excl\n";
  EXPECT_THAT(ended("$H explain $D", kPort).out, AllOf(HasSubstr("enforcement: guarded: "), Not(HasSubstr(of_run))));
  EXPECT_THAT(ended("$H explain $D", kDrive).out, AllOf(HasSubstr("enforcement: guarded: "), HasSubstr(of_run)));
  EXPECT_THAT(ended("$H explain /dev/null").out, HasSubstr("not guarded: /dev/null never is"));
}

}  // namespace
}  // namespace holdfast::vm
