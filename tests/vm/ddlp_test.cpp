// SPDX-License-Identifier: MIT
// ddlp_test.cpp - the Delicate Device Locking Protocol on real drives: all names of a drive are taken or none, a drive
// that somebody has is not opened by those who ask for it, and a name that is missing or wrong refuses the claim.
//
// What other programs do is written here a second time, after libburn's doc/ddlp.txt and libburn/sg-linux.c, and uses
// nothing of ours. The drives: sr0 with sg0 and a disc, sr1 with sg1 and none.
#include "vm/support/lab.hpp"
#include "vm/support/monitor.hpp"
#include "vm/support/open_audit.hpp"

#include "interop/support/bench.hpp"
#include "interop/support/program.hpp"
#include "process/support/devices.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/cdrom.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstring>
#include <deque>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace holdfast::vm {
namespace {

using interop::Program;
using interop::Stdio;
using testing::AllOf;
using testing::AnyOf;
using testing::Contains;
using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing_support::Child;
using testing_support::Peer;
using testing_support::TemporaryDirectory;

using Words = std::vector<std::string>;

constexpr std::string_view kLocks = "/tmp/ddlpb-lock-";

std::string held_by(const Child& child) { return fmt::format("held by {}", child.pid()); }

// A name in /dev that goes with the object.
class Name {
 public:
  static Name link(const std::string& path, const char* target) {
    EXPECT_EQ(::symlink(target, path.c_str()), 0) << path;
    return Name{path};
  }
  static Name node(const std::string& path, mode_t kind, unsigned major, unsigned minor) {
    EXPECT_EQ(::mknod(path.c_str(), kind | 0660, ::makedev(major, minor)), 0) << path;
    return Name{path};
  }
  Name(const Name&) = delete;
  Name& operator=(const Name&) = delete;
  Name(Name&&) = delete;
  ~Name() { ::unlink(path_.c_str()); }

 private:
  explicit Name(std::string path) : path_{std::move(path)} {}
  std::string path_;
};

// A node of the machine that is away (or another) for a while.
class Away {
 public:
  explicit Away(std::string path) : path_{std::move(path)}, hidden_{path_ + ".away"} {
    EXPECT_EQ(::rename(path_.c_str(), hidden_.c_str()), 0) << path_;
  }
  Away(const Away&) = delete;
  Away& operator=(const Away&) = delete;
  ~Away() { ::rename(hidden_.c_str(), path_.c_str()); }

 private:
  std::string path_;
  std::string hidden_;
};

// Every kind of name that one drive can have.
class NamesOfTheDrive {
 public:
  [[nodiscard]] const Words& all() const { return all_; }

 private:
  Name burner_ = Name::link("/dev/nec_burner", "sr0");
  Name scd_ = Name::node("/dev/scd0", S_IFBLK, 11, 0);
  Name second_ = Name::node("/dev/second_sg0", S_IFCHR, 21, 0);
  Words all_{"/dev/sr0",        "/dev/sg0",  "/dev/bsg/0:0:0:0",
             "/dev/nec_burner", "/dev/scd0", "/dev/second_sg0",
             "/dev/cdrom",      "b11:0",     "c21:0"};
};

// DDLP level B as other programs do it: a lock on the file of the path and one on that of the number, by fcntl(2)
// F_SETLK, before any open(2).
class DdlpProgram {
 public:
  // Whether all were locked; on failure none is. `path` is one of the standard paths.
  bool lock(const std::string& path, short type = F_WRLCK) {
    struct stat node{};
    if (::stat(path.c_str(), &node) != 0) return false;
    return lock_file(suffix_of(path), type) && lock_file(hexadecimal(node.st_rdev), type);
  }
  bool lock_file(const std::string& suffix, short type = F_WRLCK) {
    const std::string file = std::string{kLocks} + suffix;
    int fd = ::open(file.c_str(), O_RDWR | O_CLOEXEC);
    if (fd < 0) fd = ::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    struct flock whole{};
    whole.l_type = type;
    whole.l_whence = SEEK_SET;
    const bool locked = fd >= 0 && ::fcntl(fd, F_SETLK, &whole) == 0;
    if (fd >= 0) files_.emplace_back(fd);
    if (!locked) files_.clear();
    return locked;
  }
  static std::string suffix_of(const std::string& path) {
    std::string suffix;
    for (const char c : path) suffix += c == '/' ? std::string{"_-"} : std::string{c};
    return suffix;
  }

 private:
  static std::string hexadecimal(dev_t number) {
    std::string digits = fmt::format("{:X}", number);
    return digits.size() % 2 == 0 ? digits : "0" + digits;
  }
  std::deque<base::UniqueFd> files_;
};

// Such a program as a process: it says whether it got all, and holds it until it dies.
Child ddlp_program(const Words& paths, short type = F_WRLCK) {
  return Child{[=](Peer& test) {
    DdlpProgram program;
    bool all = true;
    for (const std::string& path : paths) all = all && program.lock(path, type);
    test.tell(all ? "locked" : "refused");
    test.hear();
    return 0;
  }};
}

// ... that has got no further in its search than to some of the lock files.
Child searcher(const Words& suffixes) {
  return Child{[=](Peer& test) {
    DdlpProgram program;
    bool all = true;
    for (const std::string& suffix : suffixes) all = all && program.lock_file(suffix);
    test.tell(all ? "locked" : "refused");
    test.hear();
    return 0;
  }};
}

bool ddlp_program_gets(const std::string& path) { return ddlp_program({path}).hear() == "locked"; }

// libburn's way with the node itself: O_EXCL and a record lock on all of it (burn_preset_device_open() 1 and 32).
Child burn_program(const std::string& path, int flags = O_RDWR | O_EXCL) {
  return Child{[=](Peer& test) {
    const int fd = ::open(path.c_str(), flags | O_NDELAY | O_CLOEXEC);
    struct flock whole{};
    whole.l_type = (flags & O_ACCMODE) == O_RDONLY ? F_RDLCK : F_WRLCK;
    whole.l_whence = SEEK_SET;
    const bool got = fd >= 0 && ::fcntl(fd, F_SETLK, &whole) == 0;
    test.tell(got ? "locked" : std::strerror(errno));
    test.hear();
    return 0;
  }};
}

// Nothing of the drive is held by anybody.
void expect_free(const std::string& sr, const std::string& sg) {
  EXPECT_EQ(ddlp_program({sr, sg}).hear(), "locked") << "a lock file was kept";
  EXPECT_EQ(burn_program(sr, O_RDONLY | O_EXCL).hear(), "locked") << "a node was kept";
  EXPECT_EQ(burn_program(sg).hear(), "locked") << "a node was kept";
}

// The drive's own view, from outside the machine: the tray and the lock on it (QEMU qapi/block-core.json BlockInfo).
std::string tray_of(Monitor& monitor, std::string_view id) {
  const auto answer = nlohmann::json::parse(monitor.ask("query-block"), nullptr, false);
  for (const auto& drive : answer.value("return", nlohmann::json::array()))
    if (drive.value("qdev", "") == id)
      return fmt::format("tray {}, {}", drive.value("tray_open", false) ? "open" : "shut",
                         drive.value("locked", false) ? "locked" : "not locked");
  return "no drive";
}

// CDS_DISC_OK and so on.
int drive_status(const std::string& path) {
  const base::UniqueFd fd{::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC)};
  return ::ioctl(fd.get(), CDROM_DRIVE_STATUS, CDSL_CURRENT);
}

// -- names

TEST(Ddlp, a_claim_by_any_name_of_a_drive_excludes_every_other_name) {
  const NamesOfTheDrive names;
  for (const std::string& held : names.all()) {
    Child holder = holder_of(held);
    ASSERT_EQ(holder.hear(), "claimed") << held;
    for (const std::string& asked : names.all())
      EXPECT_EQ(who_holds(asked), held_by(holder)) << asked << " of " << held;
    EXPECT_EQ(try_claim("/dev/sg1"), "taken");
    holder.kill();
    EXPECT_EQ(try_claim(held), "taken") << "after kill -9";
  }
  expect_free("/dev/sr0", "/dev/sg0");
}

TEST(Ddlp, the_locks_of_another_program_are_honoured_whichever_name_it_locked) {
  const NamesOfTheDrive names;
  for (const char* const locked : {"/dev/sr0", "/dev/scd0", "/dev/sg0"}) {
    Child other = ddlp_program({locked});
    ASSERT_EQ(other.hear(), "locked");
    for (const std::string& asked : names.all()) {
      EXPECT_EQ(who_holds(asked), held_by(other)) << asked << " while another has " << locked;
      EXPECT_THAT(try_claim(asked), HasSubstr("DDLP lock file"));
    }
    EXPECT_EQ(try_claim("/dev/sr1"), "taken");
    other.kill();
    EXPECT_EQ(try_claim("/dev/nec_burner"), "taken") << "the file stays, the lock does not";
  }
}

TEST(Ddlp, our_locks_exclude_another_program_whichever_name_it_tries) {
  const NamesOfTheDrive names;
  for (const char* const held : {"/dev/sr0", "/dev/sg0", "/dev/nec_burner"}) {
    Child holder = holder_of(held);
    ASSERT_EQ(holder.hear(), "claimed");
    for (const char* const tried : {"/dev/sr0", "/dev/scd0", "/dev/sg0"}) {
      EXPECT_FALSE(ddlp_program_gets(tried)) << tried;
      EXPECT_EQ(burn_program(tried, std::strcmp(tried, "/dev/sg0") == 0 ? O_RDWR | O_EXCL : O_RDONLY | O_EXCL).hear(),
                std::strerror(EBUSY))
          << tried;
    }
    EXPECT_TRUE(ddlp_program_gets("/dev/sr1"));
    holder.kill();
    EXPECT_TRUE(ddlp_program_gets("/dev/sg0")) << "after kill -9";
  }
}

TEST(Ddlp, readers_share_a_drive_with_readers_of_other_programs) {
  Child reader = ddlp_program({"/dev/sr0", "/dev/sg0"}, F_RDLCK);
  ASSERT_EQ(reader.hear(), "locked");
  EXPECT_EQ(who_holds("/dev/sg0"), held_by(reader));
  Child ours = holder_of("/dev/sg0", {.mode = Mode::shared});
  ASSERT_EQ(ours.hear(), "claimed");
  EXPECT_EQ(ddlp_program({"/dev/sr0"}, F_RDLCK).hear(), "locked");
  reader.kill();
  EXPECT_FALSE(ddlp_program_gets("/dev/sr0"));
}

TEST(Ddlp, a_burn_program_that_has_one_node_for_itself_is_honoured_by_all_names) {
  const NamesOfTheDrive names;
  for (const char* const taken : {"/dev/sr0", "/dev/scd0", "/dev/sg0"}) {
    const bool generic = std::strcmp(taken, "/dev/sg0") == 0;
    Child other = burn_program(taken, generic ? O_RDWR | O_EXCL : O_RDONLY | O_EXCL);
    ASSERT_EQ(other.hear(), "locked") << taken;
    for (const std::string& asked : names.all()) EXPECT_EQ(who_holds(asked), held_by(other)) << asked;
    EXPECT_TRUE(ddlp_program_gets("/dev/sr0")) << "a refused claim kept a lock file";
    other.kill();
    EXPECT_EQ(try_claim("/dev/sr0"), "taken");
  }
}

// -- a busy drive is not opened

TEST(Audit, sees_each_open_of_a_node_by_its_number_and_o_path_is_none) {
  const Name second = Name::node("/dev/second_sg0", S_IFCHR, 21, 0);
  Child holder = burn_program("/dev/sg0");
  ASSERT_EQ(holder.hear(), "locked");
  OpenAudit audit;
  audit.forget();
  Child opener{[](Peer& test) {
    for (const char* const path : {"/dev/cdrom", "/dev/second_sg0", "/dev/sg1", "/dev/bsg/0:0:1:0"}) {
      const base::UniqueFd pointed{::open(path, O_PATH | O_CLOEXEC)};
      const base::UniqueFd opened{::open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC)};
    }
    test.tell("done");
    return 0;
  }};
  ASSERT_EQ(opener.hear(), "done");
  struct stat bsg{};
  ASSERT_EQ(::stat("/dev/bsg/0:0:1:0", &bsg), 0);
  EXPECT_THAT(audit.opened_by(opener.pid()), ElementsAre("b11:0", "sr", "c21:0", "c21:1",
                                                         fmt::format("c{}:{}", major(bsg.st_rdev), minor(bsg.st_rdev))))
      << "sg0 is held with O_EXCL: an open that is refused is an open too";
}

struct Watched {
  std::string words;
  Words opened;
};

// What a process says, and which nodes of drives it opened.
Watched watched(OpenAudit& audit, const std::function<std::string()>& body) {
  audit.forget();
  Child child{[&](Peer& test) {
    test.tell(body());
    return 0;
  }};
  Watched seen;
  seen.words = child.hear();
  seen.opened = audit.opened_by(child.pid());
  return seen;
}

Watched watched_command(OpenAudit& audit, const Words& arguments) {
  audit.forget();
  Program program{interop::holdfast(arguments), Stdio::pipes};
  EXPECT_TRUE(interop::eventually([&] { return program.ended().has_value(); }, {&program}));
  program.listen();
  return {program.output(), audit.opened_by(program.pid())};
}

TEST(Audit, a_claim_of_a_free_drive_opens_its_own_nodes_and_nothing_of_another_drive) {
  OpenAudit audit;
  for (const char* const asked : {"/dev/sr0", "/dev/sg0", "/dev/bsg/0:0:0:0", "/dev/cdrom"}) {
    const Watched claimer = watched(audit, [&] { return try_claim(asked); });
    EXPECT_EQ(claimer.words, "taken");
    EXPECT_THAT(claimer.opened, AllOf(Contains("b11:0"), Contains("c21:0"), Each(AnyOf("b11:0", "c21:0", "sr"))))
        << asked;
  }
  const Watched command = watched_command(audit, {"run", "-n", "/dev/sg1", "--", "true"});
  EXPECT_THAT(command.opened, AllOf(Contains("b11:1"), Each(AnyOf("b11:1", "c21:1", "sr"))));
}

TEST(Audit, a_drive_that_somebody_locked_is_opened_by_nobody_who_asks_for_it) {
  const NamesOfTheDrive names;
  OpenAudit audit;
  const auto expect_none_opened = [&](std::string_view who) {
    for (const std::string& asked : names.all()) {
      const Watched claimer = watched(audit, [&] { return try_claim(asked); });
      EXPECT_THAT(claimer.words, HasSubstr("is held by"));
      EXPECT_THAT(claimer.opened, IsEmpty()) << asked << " held by " << who;
    }
    const Watched sharer = watched(audit, [&] { return try_claim("/dev/sg0", {.mode = Mode::shared}); });
    EXPECT_THAT(sharer.opened, IsEmpty());
    const Watched waiter =
        watched(audit, [&] { return try_claim("/dev/sg0", {.wait = Wait::at_most(std::chrono::milliseconds{900})}); });
    EXPECT_THAT(waiter.words, HasSubstr("the time to wait is over"));
    EXPECT_THAT(waiter.opened, IsEmpty()) << "who waits must not look at the drive either";
    for (const Words& command : {Words{"claim", "-n", "/dev/nec_burner"}, Words{"run", "-n", "/dev/sg0", "--", "true"},
                                 Words{"explain", "/dev/sr0"}, Words{"status", "/dev/sr0"}, Words{"status"}})
      EXPECT_THAT(watched_command(audit, command).opened, IsEmpty()) << command.front();
  };
  {
    Child holder = holder_of("/dev/sr0");
    ASSERT_EQ(holder.hear(), "claimed");
    expect_none_opened("holdfast");
  }
  for (const char* const locked : {"/dev/sr0", "/dev/sg0"}) {
    Child other = ddlp_program({locked});
    ASSERT_EQ(other.hear(), "locked");
    expect_none_opened(locked);
  }
}

TEST(Audit, a_drive_that_a_burn_program_has_for_itself_hears_nothing_of_a_claim) {
  OpenAudit audit;
  for (const char* const taken : {"/dev/sr0", "/dev/sg0"}) {
    Child other = burn_program(taken, taken == std::string_view{"/dev/sg0"} ? O_RDWR | O_EXCL : O_RDONLY | O_EXCL);
    ASSERT_EQ(other.hear(), "locked");
    for (const char* const asked : {"/dev/sr0", "/dev/sg0", "/dev/bsg/0:0:0:0"})
      for (const Mode mode : {Mode::exclusive, Mode::shared}) {
        const Watched claimer = watched(audit, [&] { return try_claim(asked, {.mode = mode}); });
        EXPECT_THAT(claimer.words, HasSubstr("is held by"));
        EXPECT_THAT(claimer.opened, Not(Contains("sr"))) << asked << " while another has " << taken;
      }
  }
}

// -- what is not as it must be

TEST(Search, a_missing_name_refuses_the_claim_with_the_reason) {
  for (const auto& [missing, driver] : {std::pair{"/dev/sg0", "no sg node"}, std::pair{"/dev/sr0", "no sr node"}}) {
    {
      const Away away{missing};
      for (const char* const asked : {"/dev/sr0", "/dev/sg0", "/dev/bsg/0:0:0:0"}) {
        if (asked == std::string_view{missing}) continue;
        const auto refused = claim(asked);
        ASSERT_FALSE(refused) << asked;
        EXPECT_EQ(refused.error().code, errc::ambiguous);
        EXPECT_THAT(refused.error().message, AllOf(HasSubstr(asked), HasSubstr(driver)));
      }
      EXPECT_EQ(try_claim("/dev/sr1"), "taken");
      // The way out that the message names.
      const char* const left = missing == std::string_view{"/dev/sg0"} ? "/dev/sr0" : "/dev/sg0";
      EXPECT_EQ(try_claim(left, {.conventions = ConventionSet::all().without(Convention::ddlp)}), "taken");
    }
    expect_free("/dev/sr0", "/dev/sg0");
  }
}

TEST(Search, a_node_of_another_drives_number_is_not_taken_for_a_name_of_this_one) {
  const Away away{"/dev/sg0"};
  const Name wrong = Name::node("/dev/sg0", S_IFCHR, 21, 1);
  const auto refused = claim("/dev/sr0");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, errc::ambiguous);
  // By its number it is the other drive, and is claimed as that.
  const auto other = claim("/dev/sg0");
  ASSERT_TRUE(other) << other.error().message;
  EXPECT_THAT(other->nodes(), ElementsAre("/dev/sr1", "/dev/sg1", "/dev/bsg/0:0:1:0"));
}

// The kernel's tree as this process sees it, with something else in place of the sg directory of drive 0.
const std::string kFirst = "/sys/bus/scsi/devices/0:0:0:0/scsi_generic";
const std::string kSecond = "/sys/bus/scsi/devices/0:0:1:0/scsi_generic";

std::string file_content(const std::string& path) {
  std::ifstream file{path};
  return {std::istreambuf_iterator<char>{file}, {}};
}

void must(bool done) {
  if (!done) std::abort();
}

TEST(Search, a_drive_that_answers_with_another_address_than_sysfs_gives_is_refused_and_let_go) {
  Child claimer{[](Peer& test) {
    must(::unshare(CLONE_NEWNS) == 0 && ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0);
    must(::mount(kSecond.c_str(), kFirst.c_str(), nullptr, MS_BIND, nullptr) == 0);
    const auto refused = claim("/dev/sr0");  // whose other name would be sg1
    test.tell(refused ? "taken" : refused.error().message);
    test.hear();
    return 0;
  }};
  EXPECT_THAT(claimer.hear(), HasSubstr("answers as another SCSI address than sysfs gives"));
  // The one who was refused still lives; neither drive is locked by him.
  expect_free("/dev/sr0", "/dev/sg0");
  expect_free("/dev/sr1", "/dev/sg1");
}

TEST(Search, two_nodes_of_one_driver_with_the_drives_address_are_refused_and_neither_is_opened) {
  OpenAudit audit;
  const Watched claimer = watched(audit, [] {
    const std::array<std::pair<std::string, std::string>, 2> nodes{
        std::pair{"/sg0", file_content(kFirst + "/sg0/uevent")}, {"/sg1", file_content(kSecond + "/sg1/uevent")}};
    must(::unshare(CLONE_NEWNS) == 0 && ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0);
    must(::mount("none", kFirst.c_str(), "tmpfs", 0, nullptr) == 0);
    for (const auto& [name, event] : nodes) {
      must(::mkdir((kFirst + name).c_str(), 0755) == 0);
      std::ofstream{kFirst + name + "/uevent"} << event;
      must(::symlink("/sys/class/scsi_generic", (kFirst + name + "/subsystem").c_str()) == 0);
    }
    return try_claim("/dev/sr0");
  });
  EXPECT_THAT(claimer.words, HasSubstr("two nodes of one driver"));
  EXPECT_THAT(claimer.opened, IsEmpty());
  expect_free("/dev/sr0", "/dev/sg0");
  expect_free("/dev/sr1", "/dev/sg1");
}

TEST(Search, a_lock_file_that_cannot_be_one_is_refused_with_its_name) {
  const std::string file = std::string{kLocks} + "_-dev_-scd0";
  ::unlink(file.c_str());
  ASSERT_EQ(::mkdir(file.c_str(), 0700), 0);
  const std::string refusal = try_claim("/dev/sg0");
  ::rmdir(file.c_str());
  EXPECT_THAT(refusal, AllOf(HasSubstr(file), HasSubstr("is no regular file")));
  expect_free("/dev/sr0", "/dev/sg0");
}

TEST(Search, lock_files_that_are_missing_and_cannot_be_made_are_gone_without) {
  const std::string report = testing_support::in_a_child([] {
    must(::unshare(CLONE_NEWNS) == 0 && ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0);
    must(::mount("none", "/tmp", "tmpfs", MS_RDONLY, nullptr) == 0);
    const auto taken = claim("/dev/sg0");
    if (!taken) return taken.error().message;
    std::string text;
    for (const MarkReport& mark : taken->report())
      if (mark.convention == Convention::ddlp) text += to_string(mark) + "\n";
    return text;
  });
  EXPECT_THAT(report, AllOf(HasSubstr("/dev/sg0: ddlp: not available"), HasSubstr("/dev/sr0: ddlp: not available")));
}

TEST(Search, a_contended_search_is_refused_with_the_reason_and_leaves_nothing_locked) {
  // Two others are on their way, each with one of the names; neither will get the other's.
  Child by_sr = searcher({"_-dev_-sr0"});
  Child by_sg = searcher({"_-dev_-sg0"});
  ASSERT_EQ(by_sr.hear(), "locked");
  ASSERT_EQ(by_sg.hear(), "locked");
  EXPECT_EQ(who_holds("/dev/sg0"), held_by(by_sr)) << "the names are taken in one order, from wherever one starts";
  EXPECT_EQ(who_holds("/dev/sr0"), held_by(by_sr));
  by_sr.kill();
  for (const char* const asked : {"/dev/sr0", "/dev/sg0"}) {
    EXPECT_EQ(who_holds(asked), held_by(by_sg));
    EXPECT_THAT(try_claim(asked), HasSubstr("DDLP lock file /tmp/ddlpb-lock-_-dev_-sg0"));
  }
  EXPECT_TRUE(ddlp_program_gets("/dev/sr0")) << "refused for sg0, the claim kept what it had of sr0";
  by_sg.kill();
  EXPECT_EQ(try_claim("/dev/sg0"), "taken");
}

TEST(Search, a_claim_of_one_drive_is_never_in_the_way_of_another_drive) {
  std::vector<std::unique_ptr<Child>> claimers;
  for (const char* const name : {"/dev/sr0", "/dev/sg0"})
    claimers.push_back(std::make_unique<Child>([name](Peer& test) {
      for (int i = 0; i < 15; ++i) static_cast<void>(try_claim(name));
      test.tell("done");
      return 0;
    }));
  pollfd first{claimers.front()->pidfd(), POLLIN, 0};
  int tries = 0;
  while (::poll(&first, 1, 0) == 0 && tries < 200) {
    ASSERT_EQ(try_claim(tries % 2 == 0 ? "/dev/sr1" : "/dev/sg1"), "taken") << "by a search for drive 0";
    ASSERT_TRUE(ddlp_program_gets("/dev/sg1"));
    ++tries;
  }
  EXPECT_GT(tries, 0) << "the claimers were done before anything was tried";
  for (auto& claimer : claimers) EXPECT_EQ(claimer->hear(), "done");
}

// -- many at once

// Counts who is inside, in memory that all share; knows nothing of claims.
struct Room {
  std::atomic<int> inside{0};
  std::atomic<int> most{0};
  std::atomic<int> visits{0};

  void visit() {
    const int now = inside.fetch_add(1) + 1;
    for (int seen = most.load(); now > seen && !most.compare_exchange_weak(seen, now);) {
    }
    visits.fetch_add(1);
    ::poll(nullptr, 0, 5);
    inside.fetch_sub(1);
  }
};

class SharedRoom {
 public:
  SharedRoom()
      : room_{new(::mmap(nullptr, sizeof(Room), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0)) Room} {}
  Room* operator->() { return room_; }

 private:
  Room* room_;
};

constexpr int kMany = 20;

// Twenty processes that do `body` for each word they hear, and say what it gave.
std::vector<std::unique_ptr<Child>> many(const std::function<std::string(int who, const std::string& word)>& body) {
  std::vector<std::unique_ptr<Child>> all;
  for (int who = 0; who < kMany; ++who)
    all.push_back(std::make_unique<Child>([who, &body](Peer& test) {
      for (std::string word; (word = test.hear(std::chrono::minutes{2})) != "(gone)" && word != "(silence)";)
        test.tell(body(who, word));
      return 0;
    }));
  return all;
}

TEST(Many, twenty_at_once_by_all_names_and_exactly_one_wins) {
  const NamesOfTheDrive names;
  Claim mine;
  auto all = many([&](int who, const std::string& word) -> std::string {
    if (word == "give back") {
      mine.release();
      return "free";
    }
    auto got = claim(names.all()[static_cast<std::size_t>(who) % names.all().size()]);
    if (got) mine = std::move(*got);
    return got ? "won" : got.error().message;
  });
  for (int round = 0; round < 5; ++round) {
    for (auto& one : all) one->tell("try");
    int winners = 0;
    for (auto& one : all) {
      const std::string answer = one->hear();
      if (answer == "won") ++winners;
      EXPECT_THAT(answer, AnyOf("won", HasSubstr("is held by"))) << "a loser is told who won";
    }
    EXPECT_EQ(winners, 1) << "round " << round;
    for (auto& one : all) one->tell("give back");
    for (auto& one : all) ASSERT_EQ(one->hear(), "free");
  }
  expect_free("/dev/sr0", "/dev/sg0");
}

TEST(Many, twenty_that_wait_by_all_names_have_it_one_after_the_other) {
  const NamesOfTheDrive names;
  SharedRoom room;
  auto all = many([&](int who, const std::string&) -> std::string {
    auto got = claim(names.all()[static_cast<std::size_t>(who) % names.all().size()],
                     {.wait = Wait::at_most(std::chrono::seconds{60})});
    if (!got) return got.error().message;
    room->visit();
    return "done";
  });
  for (auto& one : all) one->tell("go");
  for (auto& one : all) EXPECT_EQ(one->hear(std::chrono::seconds{70}), "done");
  EXPECT_EQ(room->visits, kMany);
  EXPECT_EQ(room->most, 1) << "two had the drive at once";
}

TEST(Many, twenty_of_which_half_are_other_programs_never_meet_in_the_drive_and_all_get_their_turn) {
  SharedRoom room;
  auto all = many([&](int who, const std::string&) -> std::string {
    // By DDLP alone, nobody opening anything; others start their search at either name.
    const Options ddlp_alone{.opening = Opening::never, .conventions = {Convention::ddlp}};
    const Words order = who % 4 == 1 ? Words{"/dev/sr0", "/dev/sg0"} : Words{"/dev/sg0", "/dev/sr0"};
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds{60};
    for (int attempt = 0; std::chrono::steady_clock::now() < end; ++attempt) {
      Claim ours;
      DdlpProgram theirs;
      bool got = false;
      if (who % 2 == 0) {
        auto claimed = claim(order[static_cast<std::size_t>(attempt) % 2], ddlp_alone);
        if ((got = claimed.has_value())) ours = std::move(*claimed);
      } else {
        got = theirs.lock(order[0]) && theirs.lock(order[1]);
      }
      if (got) {
        room->visit();
        return "done";
      }
      ::poll(nullptr, 0, 1 + who % 7);  // two searches that met go on at different times
    }
    return "never";
  });
  for (auto& one : all) one->tell("go");
  for (auto& one : all) EXPECT_EQ(one->hear(std::chrono::seconds{70}), "done");
  EXPECT_EQ(room->visits, kMany);
  EXPECT_EQ(room->most, 1) << "two had the drive at once";
}

TEST(Many, the_count_of_those_inside_can_be_more_than_one) {
  SharedRoom room;
  auto all = many([&](int, const std::string&) -> std::string {
    room->visit();
    return "done";
  });
  for (auto& one : all) one->tell("go");
  for (auto& one : all) EXPECT_EQ(one->hear(), "done");
  EXPECT_GT(room->most, 1) << "without a claim they must meet, or the tests above prove nothing";
}

// -- the drive itself

TEST(Drive, a_claim_neither_shuts_nor_opens_nor_locks_a_tray) {
  Monitor monitor;
  for (const auto& [path, other, id] :
       {std::tuple{"/dev/sr0", "/dev/sg0", "drive0"}, std::tuple{"/dev/sr1", "/dev/sg1", "drive1"}}) {
    const std::string before = tray_of(monitor, id);
    ASSERT_THAT(before, HasSubstr("tray shut"));
    const int status = drive_status(path);
    for (const char* const asked : {path, other}) {
      Child holder = holder_of(asked);
      ASSERT_EQ(holder.hear(), "claimed");
      EXPECT_EQ(tray_of(monitor, id), before);
      EXPECT_EQ(drive_status(path), status);
      holder.tell("release");
      ASSERT_EQ(holder.hear(), "released");
      EXPECT_EQ(tray_of(monitor, id), before);
      EXPECT_EQ(drive_status(path), status);
    }
  }
}

TEST(Drive, a_claim_leaves_an_open_tray_open_which_a_plain_open_would_shut) {
  Monitor monitor;
  const auto command = [](unsigned long request) {
    const base::UniqueFd fd{::open("/dev/sr1", O_RDONLY | O_NONBLOCK | O_CLOEXEC)};
    return ::ioctl(fd.get(), request, 0);
  };
  ASSERT_EQ(command(CDROMEJECT), 0) << std::strerror(errno);
  settle();
  ASSERT_THAT(tray_of(monitor, "drive1"), HasSubstr("tray open"));
  for (const char* const asked : {"/dev/sr1", "/dev/sg1"}) {
    EXPECT_EQ(try_claim(asked), "taken");
    EXPECT_THAT(tray_of(monitor, "drive1"), HasSubstr("tray open")) << asked;
  }
  static_cast<void>(base::UniqueFd{::open("/dev/sr1", O_RDONLY | O_CLOEXEC)});
  EXPECT_THAT(tray_of(monitor, "drive1"), HasSubstr("tray shut")) << "autoclose: the test above could not fail";
  command(CDROMCLOSETRAY);
  settle();
}

TEST(Drive, each_open_of_its_sg_node_under_a_run_is_like_the_first) {
  constexpr const char* kCommand = R"(
import array, fcntl, os, struct
def at(fd, request): word = array.array('i', [-1]); fcntl.ioctl(fd, request, word); return word[0]
def state(fd):  # SG_GET_TIMEOUT, SG_GET_COMMAND_Q, SG_GET_KEEP_ORPHAN
  return fcntl.ioctl(fd, 0x2202), at(fd, 0x2270), at(fd, 0x2288)
def again(): return os.open('/dev/sg0', os.O_RDWR | os.O_NONBLOCK)
fd = again()
first = state(fd)
for request, value in (0x2201, 1000), (0x2271, 1), (0x2287, 1), (0x227b, 1): fcntl.ioctl(fd, request, struct.pack('i', value))
assert state(fd) != first
os.close(fd)
fd = again()
print('like the first' if state(fd) == first else state(fd))
)";
  const auto said =
      interop::run_to_the_end({HOLDFAST_COMMAND, "run", "-n", "/dev/sg0", "--", "/usr/bin/python3", "-c", kCommand});
  EXPECT_EQ(said.status, 0) << said.output;
  EXPECT_THAT(said.output, HasSubstr("like the first"));
}

TEST(Drive, the_sg_node_of_what_is_no_drive_is_read_and_written_under_a_run) {
  constexpr const char* kCommand = R"(
import ctypes, os, struct
fd = os.open('/dev/sg2', os.O_RDWR | os.O_EXCL)
cdb = ctypes.create_string_buffer(6)  # TEST UNIT READY
header = struct.pack('iiBBHIPPPIIiP', ord('S'), -1, 6, 0, 0, 0, 0, ctypes.addressof(cdb), 0, 20000, 0, 7, 0)
os.write(fd, header.ljust(88, b'\0'))
print('answered with', len(os.read(fd, 88)))
)";
  const auto said =
      interop::run_to_the_end({HOLDFAST_COMMAND, "run", "-n", "/dev/sg2", "--", "/usr/bin/python3", "-c", kCommand});
  EXPECT_EQ(said.status, 0) << said.output;
  EXPECT_THAT(said.output, HasSubstr("answered with 88"));
}

TEST(Drive, is_claimed_while_udevd_looks_at_it_again_and_again) {
  Child stirrer{[](Peer& test) {
    test.tell("stirring");
    // One event as soon as the last one is dealt with (udev_queue_is_empty(3) looks at the same file).
    for (pollfd word{test.socket(), POLLIN, 0}; ::poll(&word, 1, 5) == 0;)
      if (::access("/run/udev/queue", F_OK) != 0) std::ofstream{"/sys/class/block/sr0/uevent"} << "change";
    return 0;
  }};
  ASSERT_EQ(stirrer.hear(), "stirring");
  for (int i = 0; i < 10; ++i)
    EXPECT_EQ(try_claim(i % 2 == 0 ? "/dev/sr0" : "/dev/sg0", {.wait = Wait::at_most(std::chrono::seconds{20})}),
              "taken");
  stirrer.tell("enough");
  EXPECT_EQ(stirrer.reap(), 0);
  settle();
}

}  // namespace
}  // namespace holdfast::vm
