// SPDX-License-Identifier: MIT
// interop_test.cpp - other people's programs and holdfast on real devices, both ways: what each does when a claim has
// the device, whether it keeps a claim out, whether it works under run. Each test is a row of docs/interop.md.
//
// The optical drive is an emulated burner, which writes down each command that reaches it: so a program that was kept
// out is one whose commands are not there, whatever it said.
#include "interop/block_bench.hpp"
#include "vm/support/burning.hpp"
#include "vm/support/drive_programs.hpp"
#include "vm/support/port_programs.hpp"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <memory>

namespace holdfast::vm {
namespace {

using interop::BlockBench;
using interop::BlockProgram;
using interop::Ending;
using interop::eventually;
using interop::Hold;
using interop::holdfast;
using interop::is_open_exclusively;
using interop::Program;
using interop::run_to_the_end;
using interop::run_with;
using interop::Stdio;
using interop::try_claim;
using interop::User;
using interop::Words;
using testing::HasSubstr;

void cell(const std::string& column, const std::string& text) { testing::Test::RecordProperty(column, text); }

std::vector<std::string> names_of(const std::vector<Burner::Command>& commands, std::size_t from) {
  std::vector<std::string> names;
  for (std::size_t i = from; i < commands.size(); ++i) names.push_back(commands[i].name);
  return names;
}

// The line in which it says no, and with what status it ends.
std::string words_of_refusal(const std::string& refusal, const Ending& one) {
  if (refusal == " ") return fmt::format("says nothing; status {}", one.status);
  const auto at = one.output.find(refusal);
  if (at == std::string::npos) return "(says something else)";
  const auto start = one.output.rfind('\n', at);
  std::string line = one.output.substr(start == std::string::npos ? 0 : start + 1);
  line.resize(std::min(line.find('\n'), line.size()));
  // tio tells the time before what it says.
  const std::size_t word = line.find("Error:");
  if (line.starts_with('\x1b') && word != std::string::npos) line = line.substr(word, line.rfind('\x1b') - word);
  line.erase(0, line.find_first_not_of(' '));
  // Scratch directories differ from run to run.
  std::string text;
  for (std::size_t i = 0; i < line.size(); ++i) {
    if (line.compare(i, 19, "/tmp/holdfast-test-") == 0) {
      text += "DIR";
      i += 24;
    } else if (line[i] != '\r' && line[i] != '|' && line[i] != '`') {
      text += line[i];
    }
  }
  return fmt::format("`{}`; {}", text, one.status < 0 ? "goes on without it" : fmt::format("status {}", one.status));
}

// What a program is on one device: the three ways in which it and we can meet.
class Meeting {
 public:
  Meeting(const BlockProgram& program, const std::string& device, pid_t spared = -1) : bench_{program, device, spared} {
    bench_.prepare();
  }

  BlockBench& bench() { return bench_; }

  // "yes: O_EXCL". The claim is asked for by each of `names`.
  std::string keeps_a_claim_out(const std::vector<std::string>& names) {
    if (!bench_.asks()) return "no";
    const BlockProgram& program = bench_.program();
    {
      const auto one = bench_.hold_by_it();
      for (const std::string& name : names) {
        const Ending claim = try_claim(name);
        EXPECT_EQ(claim.status, 75) << name << ": " << claim.output;
        EXPECT_THAT(claim.output, HasSubstr(fmt::format("{} is held by {}", bench_.device(), program.holder)));
        // Stopped in passing, it may have come further or less far.
        if (program.hold != Hold::passing) {
          EXPECT_THAT(claim.output, HasSubstr(program.means));
        }
      }
      const Ending status = run_to_the_end(holdfast({"status", bench_.device()}));
      EXPECT_THAT(status.output, HasSubstr(program.hold == Hold::kernel ? bench_.scratch() / "mnt" : program.holder));
      if (one) one->kill(SIGKILL);
    }
    bench_.unmount();
    return "yes: " + program.means;
  }

  // After the end of the program that held it.
  std::string is_free() {
    EXPECT_TRUE(eventually([&] { return !is_open_exclusively(bench_.device()); }, {}));
    const Ending claim = try_claim(bench_.device());
    EXPECT_EQ(claim.status, 0) << claim.output;
    return "yes";
  }

  std::string works_under_run() {
    const BlockProgram& program = bench_.program();
    if (!program.run_options.empty()) {
      const Ending plain = run_to_the_end(run_with(bench_.device(), bench_.command()), program.input);
      EXPECT_NE(plain.status, program.status) << plain.output;
    }
    auto one = bench_.script_under_run();
    bench_.unmount();
    EXPECT_EQ(try_claim(bench_.device()).status, 75) << "run still has it";
    one->type("\n");
    EXPECT_TRUE(eventually([&] { return one->ended().has_value(); }, {one.get()})) << one->output();
    if (program.run_options.empty()) return "yes";
    return fmt::format("no; yes with {}", fmt::join(program.run_options, " "));
  }

 private:
  BlockBench bench_;
};

class Drive : public testing::TestWithParam<DriveProgram> {
 protected:
  void SetUp() override {
    const BlockProgram& program = GetParam().by_sr;
    if (!interop::is_installed(program.binary)) GTEST_SKIP() << program.binary << " is not installed";
    testing::Test::RecordProperty("row", program.row);
    testing::Test::RecordProperty("note", program.note);
  }

  // The disc of the lab's other drive, with a file system.
  Burner burner_{0, all_of("/dev/sr0")};
};

// udevd asks by flock, and for an event that is under way it waits.
TEST(Udevd, looks_at_a_claimed_drive_when_it_is_free) {
  const Burner burner;
  Program holder{holdfast({"claim", "-n", burner.sr()}), Stdio::pipes};
  ASSERT_TRUE(eventually([&] { return holder.has_said("claimed"); }, {&holder})) << holder.output();
  const std::size_t before = burner.commands().size();
  ASSERT_EQ(run_to_the_end({"udevadm", "trigger", "--action=change", burner.sr()}).status, 0);
  EXPECT_NE(run_to_the_end({"udevadm", "settle", "--timeout=2"}).status, 0) << "the event waits";
  EXPECT_THAT(names_of(burner.commands(), before),
              testing::Each(testing::AnyOf("GET_EVENT_STATUS_NOTIFICATION", "TEST_UNIT_READY")));
  holder.end_input();
  EXPECT_EQ(run_to_the_end({"udevadm", "settle", "--timeout=30"}).status, 0);
  EXPECT_THAT(names_of(burner.commands(), before), testing::Contains("GET_CONFIGURATION")) << "cdrom_id has looked";
}

TEST_P(Drive, a_program_on_the_drive_and_a_claim) {
  std::vector<std::unique_ptr<Meeting>> meetings;
  meetings.push_back(std::make_unique<Meeting>(GetParam().by_sr, burner_.sr(), burner_.pid()));
  if (GetParam().by_sg) meetings.push_back(std::make_unique<Meeting>(*GetParam().by_sg, burner_.sg(), burner_.pid()));

  // A claim by the other node, and the program on both nodes at once: some take ten seconds to give up.
  {
    auto holder = std::make_unique<Program>(holdfast({"claim", "-n", burner_.sg()}), Stdio::pipes);
    ASSERT_TRUE(eventually([&] { return holder->has_said("claimed"); }, {holder.get()})) << holder->output();
    std::vector<std::unique_ptr<Program>> refused;
    const std::size_t before = burner_.commands().size();
    for (const auto& meeting : meetings)
      if (meeting->bench().asks())
        refused.push_back(std::make_unique<Program>(meeting->bench().command(), Stdio::pipes));
    std::size_t next = 0;
    std::string said;
    for (const auto& meeting : meetings) {
      if (!meeting->bench().asks()) continue;
      Program& one = *refused[next++];
      EXPECT_TRUE(eventually([&] { return one.ended().has_value(); }, {&one})) << one.output();
      const Ending ending{one.ended().value_or(-1), one.output()};
      meeting->bench().expect_kept_out(ending);
      const std::string words = words_of_refusal(meeting->bench().program().refusal, ending);
      if (said != words) said += (said.empty() ? "" : "; by sg: ") + words;
    }
    const std::vector<std::string> reached = names_of(burner_.commands(), before);
    if (GetParam().by_sr.means == "flock") {
      // What locks the node must open it, and then the kernel asks the drive for events (drivers/scsi/sr.c).
      EXPECT_THAT(reached, testing::Each(testing::AnyOf("GET_EVENT_STATUS_NOTIFICATION", "TEST_UNIT_READY")));
    } else {
      EXPECT_THAT(reached, testing::IsEmpty());
    }
    for (const auto& meeting : meetings) {
      if (meeting->bench().asks()) continue;
      const Ending one = meeting->bench().run_it();
      EXPECT_EQ(one.status, meeting->bench().program().status) << one.output;
      EXPECT_GT(burner_.commands().size(), before) << "its commands have reached the drive";
      said = "does not ask: gets in" + (said.empty() ? "" : "; by sg: " + said);
    }
    cell("when_a_claim_has_it", said);
    holder->end_input();
    ASSERT_TRUE(eventually([&] { return holder->ended().has_value(); }, {holder.get()}));
  }

  std::string keeps_out;
  std::string under_run;
  for (const auto& meeting : meetings) {
    SCOPED_TRACE(meeting->bench().device());
    if (!meeting->bench().program().means.empty() || !meeting->bench().asks()) {
      const std::string kept = meeting->keeps_a_claim_out({burner_.sr(), burner_.sg()});
      if (keeps_out != kept) keeps_out += (keeps_out.empty() ? "" : "; by sg: ") + kept;
      if (meeting->bench().asks()) meeting->is_free();
    }
    const std::string ran = meeting->works_under_run();
    if (under_run != ran) under_run += (under_run.empty() ? "" : "; by sg: ") + ran;
    cell("free_when_it_ends", meeting->is_free());
  }
  cell("keeps_a_claim_out", keeps_out);
  cell("works_under_run", under_run);
}

// One node of the burner: "sr" or "sg".
class Node : public testing::TestWithParam<const char*> {
 protected:
  const std::string& node() const { return GetParam() == std::string{"sr"} ? burner_.sr() : burner_.sg(); }
  Burner burner_;
};

// How often `run_locker` had what it wanted, of how many tries.
struct Counted {
  long had = -1;
  long tried = -1;
};
Counted counted(const Program& locker) {
  Counted result;
  const auto at = locker.output().find("ready");
  if (at != std::string::npos) std::sscanf(locker.output().c_str() + at, "ready %ld %ld", &result.had, &result.tried);
  return result;
}

TEST_P(Node, a_stranger_never_gets_in_while_the_command_opens_and_closes_it) {
  constexpr long kRounds = 40;
  const std::string locking = fmt::format("{} o_excl_write {} {}", RUN_LOCKER, node(), kRounds);
  Program command{run_with(burner_.sr(), {"sh", "-c", "echo up >&2; read a; " + locking + "; read a"}), Stdio::pipes};
  ASSERT_TRUE(eventually([&] { return command.has_said("up\n"); }, {&command})) << command.output();
  Program stranger{{RUN_LOCKER, "o_excl_write", node(), "0"}, Stdio::pipes};
  ASSERT_TRUE(eventually([&] { return stranger.has_said("ready"); }, {&stranger}));
  command.type("go\n");
  EXPECT_TRUE(eventually([&] { return counted(command).tried >= 0; }, {&command})) << command.output();
  stranger.end_input();
  EXPECT_TRUE(eventually([&] { return stranger.ended().has_value(); }, {&stranger}));
  command.type("end\n");
  EXPECT_TRUE(eventually([&] { return command.ended().has_value(); }, {&command}));
  EXPECT_EQ(counted(command).had, kRounds);
  EXPECT_GT(counted(stranger).tried, 50);
  EXPECT_EQ(counted(stranger).had, 0);
}

class Burn : public Burning, public testing::WithParamInterface<const char*> {};

TEST_P(Burn, under_run_is_whole_while_contenders_hammer_both_nodes) {
  const std::string back = scratch_ / "back";
  const std::string node = GetParam() == std::string{"sr"} ? burner_.sr() : burner_.sg();
  const std::string script = fmt::format(
      "echo up; read a; cdrskin dev={} fs=0 {}; echo \"burnt: $?\"; dd if={} of={} bs=2048 count={}; read a", node,
      image_, burner_.sr(), back, kImage / 2048);
  Program command{run_with(burner_.sr(), {"sh", "-c", script}), Stdio::pipes};
  ASSERT_TRUE(eventually([&] { return command.has_said("up\n"); }, {&command})) << command.output();

  std::filesystem::create_directory(scratch_ / "mnt");
  std::vector<std::unique_ptr<Contender>> contenders;
  for (const std::string& name : {burner_.sr(), burner_.sg()}) {
    contenders.push_back(std::make_unique<Contender>(Words{"cdrskin", "dev=" + name, "-toc"}));
    contenders.push_back(std::make_unique<Contender>(Words{"xorriso", "-indev", name, "-toc"}));
    contenders.push_back(std::make_unique<Contender>(Words{"wodim", "dev=" + name, "-toc"}));
    contenders.push_back(std::make_unique<Contender>(holdfast({"claim", "-w", "1", name})));
  }
  contenders.push_back(std::make_unique<Contender>(Words{"eject", burner_.sr()}));
  contenders.push_back(
      std::make_unique<Contender>(Words{"mount", "-t", "iso9660", "-r", burner_.sr(), scratch_ / "mnt"}));
  contenders.push_back(std::make_unique<Contender>(Words{"smartctl", "-i", burner_.sg()}));
  std::vector<std::unique_ptr<Program>> tight;
  for (const std::string& name : {burner_.sr(), burner_.sg()})
    tight.push_back(std::make_unique<Program>(Words{RUN_LOCKER, "o_excl_write", name, "0"}, Stdio::pipes));
  ASSERT_TRUE(eventually([&] { return contenders.back()->loop().has_said("status "); }, {&contenders.back()->loop()}));

  command.type("go\n");
  EXPECT_TRUE(eventually([&] { return command.has_said("burnt: "); }, {&command}, {}, 3 * interop::kPatience));
  EXPECT_TRUE(command.has_said("burnt: 0\n")) << command.output();
  EXPECT_TRUE(eventually([&] { return command.has_said(" copied"); }, {&command})) << command.output();
  for (const auto& one : tight) {
    one->end_input();
    EXPECT_TRUE(eventually([&] { return one->ended().has_value(); }, {one.get()}));
    EXPECT_GT(counted(*one).tried, 100);
    EXPECT_EQ(counted(*one).had, 0);
  }
  for (const auto& one : contenders) {
    // cdrskin, xorriso and wodim try for eight seconds before they give up.
    EXPECT_TRUE(eventually([&] { return one->tried() > 0; }, {&one->loop()}));
    EXPECT_EQ(one->had(), 0) << one->loop().output();
  }
  contenders.clear();
  interop::kill_strays(burner_.pid());
  EXPECT_THAT(intruders_in(burner_.commands()), testing::IsEmpty());
  const std::string image = all_of(image_);
  EXPECT_TRUE(burner_.content(kImage) == image) << "the disc is not what was to be burnt";
  EXPECT_TRUE(all_of(back) == image) << "what was read back is not what was to be burnt";
}

// cdrskin alone, by O_EXCL on the node that it was given: the drive's other driver knows nothing of it.
TEST_F(Burning, without_a_claim_gets_an_intruder_by_the_other_node) {
  Program command{{"cdrskin", "dev=" + burner_.sr(), "fs=0", image_}, Stdio::pipes};
  ASSERT_TRUE(eventually([&] { return is_writing(); }, {&command})) << command.output();
  const Ending intruder = run_to_the_end({"wodim", "dev=" + burner_.sg(), "-toc"});
  EXPECT_EQ(intruder.status, 0) << intruder.output;
  EXPECT_TRUE(eventually([&] { return command.ended().has_value(); }, {&command})) << command.output();
  EXPECT_THAT(intruders_in(burner_.commands()), testing::Contains("INQUIRY"));
}

// The lab's SCSI disk, all zeros at the start of each test.
class Disk : public testing::TestWithParam<BlockProgram> {
 protected:
  void SetUp() override {
    if (!interop::is_installed(GetParam().binary)) GTEST_SKIP() << GetParam().binary << " is not installed";
    RecordProperty("row", GetParam().row);
    RecordProperty("note", GetParam().note);
    EXPECT_EQ(run_to_the_end({"wipefs", "-a", "-q", kDisk}).status, 0);
  }
  static void settle() { EXPECT_EQ(run_to_the_end({"udevadm", "settle", "--timeout=30"}).status, 0); }
  static constexpr const char* kDisk = "/dev/disk/by-id/scsi-0QEMU_QEMU_HARDDISK_LAB-SCSI";
};

TEST_P(Disk, a_program_on_the_disk_and_a_claim) {
  Meeting meeting{GetParam(), std::filesystem::canonical(kDisk)};
  BlockBench& bench = meeting.bench();
  settle();  // udevd looks at what has been made
  {
    const auto holder = bench.hold_by_claim();
    const Ending one = bench.run_it();
    if (bench.asks()) {
      bench.expect_kept_out(one);
      cell("when_a_claim_has_it", words_of_refusal(bench.program().refusal, one));
    } else {
      EXPECT_EQ(one.status, bench.program().status) << one.output;
      cell("when_a_claim_has_it", "does not ask: gets in");
    }
    holder->end_input();
    ASSERT_TRUE(eventually([&] { return holder->ended().has_value(); }, {holder.get()}));
  }
  settle();
  cell("keeps_a_claim_out", meeting.keeps_a_claim_out({bench.device()}));
  if (bench.asks()) meeting.is_free();
  settle();
  cell("works_under_run", meeting.works_under_run());
  cell("free_when_it_ends", meeting.is_free());
}

// The others do on a disk what they do on a loop device, and a start costs a second here.
std::vector<BlockProgram> all_disk_programs() {
  std::vector<BlockProgram> all;
  for (const BlockProgram& program : interop::block_programs())
    for (const char* const row : {"flock", "udevadm_lock", "sfdisk", "mkfs_ext4", "wipefs", "mount"})
      if (program.row == row) all.push_back(program);
  all.insert(all.end(), interop::disk_programs().begin(), interop::disk_programs().end());
  return all;
}

INSTANTIATE_TEST_SUITE_P(interop, Disk, testing::ValuesIn(all_disk_programs()),
                         [](const auto& row) { return row.param.row; });

class Port : public testing::TestWithParam<PortProgram> {
 protected:
  void SetUp() override {
    if (!interop::is_installed(program().binary)) GTEST_SKIP() << program().binary << " is not installed";
    RecordProperty("row", program().row);
    RecordProperty("note", program().note);
    std::filesystem::create_directory(scratch_ / "sockets");
    std::filesystem::permissions(scratch_ / "sockets", std::filesystem::perms::owner_all);
    interop::adopt_strays();
  }
  void TearDown() override {
    interop::kill_strays();
    // Those of a program that was killed.
    for (const std::string& file : testing_support::lock_files_of(port())) std::filesystem::remove(file);
  }

  static const interop::SerialProgram& program() { return GetParam().program; }
  static const std::string& port() { return GetParam().port; }
  static std::vector<pid_t> openers() { return interop::openers(port(), program().comm); }

  std::unique_ptr<Program> start(const std::function<Words(Words)>& wrap = [](Words words) { return words; }) {
    const interop::Started started = program().start(port(), scratch_);
    Words words = started.command;
    // gpsd speaks to the system's log when it leads a session.
    if (GetParam().goes_on) words.insert(words.begin(), {"sh", "-c", "\"$@\"; exit", "sh"});
    return std::make_unique<Program>(wrap(words), Stdio::terminal, started.environment);
  }
  static bool gets_in(Program& one) {
    return eventually([&] { return !openers().empty() || one.ended(); }, {&one}, {}, 4 * interop::kPatience) &&
           !openers().empty();
  }
  void end(std::unique_ptr<Program> one) {
    one.reset();
    interop::kill_strays();
    for (const std::string& file : testing_support::lock_files_of(port())) std::filesystem::remove(file);
  }

  interop::Scratch scratch_;
};

TEST_P(Port, a_program_on_the_port_and_a_claim) {
  {
    Program holder{holdfast({"claim", "-n", port()}), Stdio::pipes};
    ASSERT_TRUE(eventually([&] { return holder.has_said("claimed"); }, {&holder})) << holder.output();
    auto one = start();
    if (program().refusal.empty()) {
      EXPECT_TRUE(gets_in(*one)) << one->output();
      cell("when_a_claim_has_it", "does not ask: root gets in");
    } else {
      EXPECT_TRUE(eventually([&] { return one->has_said(program().refusal) && openers().empty(); }, {one.get()}, {},
                             2 * interop::kPatience))
          << one->output();
      one->type("\n");  // some want to be told to go
      EXPECT_TRUE(GetParam().goes_on || eventually([&] { return one->ended().has_value(); }, {one.get()}))
          << one->output();
      cell("when_a_claim_has_it", words_of_refusal(program().refusal, {one->ended().value_or(-1), one->output()}));
    }
    end(std::move(one));
  }
  {
    auto one = start();
    ASSERT_TRUE(gets_in(*one)) << one->output();
    Ending claim = try_claim(port());
    if (program().means.empty()) {
      EXPECT_EQ(claim.status, 0) << claim.output;
      cell("keeps_a_claim_out", "no");
    } else {
      // It marks the port a moment after it has opened it.
      EXPECT_TRUE(eventually([&] { return (claim = try_claim(port())).status == 75; }, {one.get()})) << claim.output;
      EXPECT_THAT(claim.output, HasSubstr(fmt::format("{} is held by {}", port(), program().comm)));
      EXPECT_THAT(claim.output, HasSubstr(program().means));
      cell("keeps_a_claim_out", "yes: " + program().means);
    }
    EXPECT_THAT(run_to_the_end(holdfast({"status", port()})).output, HasSubstr(program().comm));
    end(std::move(one));
    EXPECT_EQ(try_claim(port()).status, 0);
  }
  cell("free_when_it_ends", "yes");
  cell("works_under_run", "not tried: a daemon");
  if (!GetParam().under_run) return;
  const Words& options = GetParam().run_options;
  auto one = start([&](const Words& words) { return run_with(port(), words, options); });
  EXPECT_TRUE(gets_in(*one)) << one->output();
  EXPECT_EQ(try_claim(port()).status, 75);
  cell("works_under_run", options.empty() ? "yes" : fmt::format("with {}", fmt::join(options, " ")));
  end(std::move(one));
  const Ending claim = try_claim(port());
  EXPECT_EQ(claim.status, 0) << claim.output;
}

INSTANTIATE_TEST_SUITE_P(interop, Port, testing::ValuesIn(port_programs()),
                         [](const auto& row) { return row.param.program.row; });

const auto kNodes = testing::Values("sr", "sg");
constexpr auto kNameOfNode = [](const auto& of) { return std::string{of.param}; };
INSTANTIATE_TEST_SUITE_P(interop, Node, kNodes, kNameOfNode);
INSTANTIATE_TEST_SUITE_P(interop, Burn, kNodes, kNameOfNode);

INSTANTIATE_TEST_SUITE_P(interop, Drive, testing::ValuesIn(drive_programs()),
                         [](const auto& row) { return row.param.by_sr.row; });

}  // namespace
}  // namespace holdfast::vm
