// SPDX-License-Identifier: MIT
// What a survey says of real holders: processes that hold a pty's slave or a loop device in every way that strangers
// have.
#include "base/process.hpp"
#include "base/unique_fd.hpp"
#include "claim/holding.hpp"
#include "convention/proxy.hpp"
#include "observe/observe.hpp"
#include "observe/render.hpp"
#include "process/support/loop.hpp"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include <nlohmann/json.hpp>

namespace holdfast::observe {
namespace {

using base::UniqueFd;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

constexpr auto kPatience = std::chrono::seconds{20};
constexpr uid_t kNobody = 65534;

// A process that has done `body` and then stays until the object dies.
class Child {
 public:
  explicit Child(const std::function<void()>& body) {
    int ready[2];
    if (::pipe2(ready, O_CLOEXEC) != 0) std::abort();
    pid_ = ::fork();
    if (pid_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      body();
      if (::write(ready[1], "r", 1) != 1) ::_exit(1);
      for (;;) ::pause();
    }
    ::close(ready[1]);
    char byte = 0;
    ready_ = ::read(ready[0], &byte, 1) == 1;
    ::close(ready[0]);
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  [[nodiscard]] pid_t pid() const { return pid_; }
  [[nodiscard]] bool ready() const { return ready_; }

 private:
  pid_t pid_ = -1;
  bool ready_ = false;
};

// In a child: what must work or the child ends, which the test sees as not ready.
void must(bool good) {
  if (!good) ::_exit(1);
}

class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    char name[] = "/tmp/holdfast-test-XXXXXX";
    if (::mkdtemp(name) == nullptr) std::abort();
    path_ = name;
    ::chmod(name, 0755);
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  ~TemporaryDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// A device of the test's own.
class OwnDevice {
 public:
  virtual ~OwnDevice() = default;
  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] const std::string& missing() const { return missing_; }

 protected:
  std::string path_;
  std::string missing_;
};

class OwnPty final : public OwnDevice {
 public:
  OwnPty() : master_{::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC)} {
    char name[64];
    if (!master_ || ::grantpt(master_.get()) != 0 || ::unlockpt(master_.get()) != 0 ||
        ::ptsname_r(master_.get(), name, sizeof name) != 0)
      missing_ = "pseudo-terminals";
    else
      path_ = name;
  }

 private:
  UniqueFd master_;
};

class OwnLoop final : public OwnDevice {
 public:
  OwnLoop() {
    const std::string file = directory_.path() + "/disk";
    std::ofstream{file}.close();
    std::filesystem::resize_file(file, 1 << 20);
    backing_.reset(::open(file.c_str(), O_RDWR | O_CLOEXEC));
    path_ = testing_support::attach_loop(backing_.get());
    if (path_.empty()) missing_ = "loop devices";
  }
  ~OwnLoop() override {
    if (!path_.empty()) testing_support::detach_loop(path_);
  }

 private:
  TemporaryDirectory directory_;
  UniqueFd backing_;
};

class SurveyOf : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    if (GetParam() == "pty")
      device_ = std::make_unique<OwnPty>();
    else
      device_ = std::make_unique<OwnLoop>();
    if (!device_->missing().empty()) GTEST_SKIP() << "missing: " << device_->missing();
    places_.lock_dir = directory_.path();
    places_.tmp = directory_.path();
  }

  [[nodiscard]] const std::string& path() const { return device_->path(); }
  [[nodiscard]] int open_device() const { return ::open(path().c_str(), O_RDWR | O_NOCTTY | O_NONBLOCK); }

  // The uses of the device itself.
  [[nodiscard]] std::vector<Use> uses() const {
    const auto found = survey({path()}, places_);
    EXPECT_TRUE(found) << found.error().message;
    for (const DeviceUse& device : found->devices)
      if (!device.relation) return device.uses;
    ADD_FAILURE() << "the device that was asked for is not in the answer";
    return {};
  }

  [[nodiscard]] const DeviceUse* in(const Survey& survey) const {
    const auto found = std::ranges::find(survey.devices, path(), [](const DeviceUse& one) { return one.node.path; });
    return found == survey.devices.end() ? nullptr : &*found;
  }

  void write_lock_file(const std::string& name, const std::string& content) const {
    std::ofstream{directory_.path() + "/" + name} << content;
  }

  TemporaryDirectory directory_;
  base::Places places_;
  std::unique_ptr<OwnDevice> device_;
};

void expect_one(const std::vector<Use>& uses, pid_t pid, Standing standing, const std::string& means) {
  ASSERT_EQ(uses.size(), 1U);
  EXPECT_EQ(uses[0].who.pid, pid);
  EXPECT_EQ(uses[0].standing, standing);
  EXPECT_EQ(uses[0].kind, UserKind::process);
  EXPECT_FALSE(uses[0].ours);
  EXPECT_THAT(uses[0].who.means, ElementsAre(means));
  EXPECT_FALSE(uses[0].who.command.empty());
  EXPECT_FALSE(uses[0].who.user.empty());
  EXPECT_GT(uses[0].who.start_ticks, 0U);
}

// The survey of an unprivileged user, who can neither see our descriptors nor the child's.
nlohmann::json survey_as_nobody(const std::vector<std::string>& devices, const base::Places& places) {
  int answer[2];
  if (::pipe2(answer, O_CLOEXEC) != 0) return {};
  const pid_t child = ::fork();
  if (child == 0) {
    must(::setgid(kNobody) == 0 && ::setuid(kNobody) == 0);
    const auto found = survey(devices, places);
    must(found.has_value());
    const std::string text = to_json(*found);
    must(::write(answer[1], text.data(), text.size()) == static_cast<ssize_t>(text.size()));
    ::_exit(0);
  }
  ::close(answer[1]);
  std::string text;
  char buffer[4096];
  for (ssize_t got = 0; (got = ::read(answer[0], buffer, sizeof buffer)) > 0;)
    text.append(buffer, static_cast<std::size_t>(got));
  ::close(answer[0]);
  ::waitpid(child, nullptr, 0);
  return nlohmann::json::parse(text, nullptr, false);
}

const nlohmann::json* device_in(const nlohmann::json& survey, const std::string& path) {
  for (const auto& device : survey["devices"])
    if (device["device"] == path) return &device;
  return nullptr;
}

TEST_P(SurveyOf, nobody_is_empty_but_names_the_device) { EXPECT_TRUE(uses().empty()); }

TEST_P(SurveyOf, plain_opener_is_shown_as_open) {
  const Child child{[&] { must(open_device() >= 0); }};
  ASSERT_TRUE(child.ready());
  expect_one(uses(), child.pid(), Standing::opened, "open");
}

TEST_P(SurveyOf, flock_holder_is_one_line_and_not_also_an_opener) {
  const Child child{[&] {
    const int fd = open_device();
    must(::flock(fd, LOCK_EX | LOCK_NB) == 0 && ::dup(fd) >= 0 && open_device() >= 0);
  }};
  ASSERT_TRUE(child.ready());
  const auto found = uses();
  expect_one(found, child.pid(), Standing::holds, "flock");
  EXPECT_EQ(found[0].mode, Mode::exclusive);
}

TEST_P(SurveyOf, shared_flock_holders_are_all_shown) {
  const auto body = [&] { must(::flock(open_device(), LOCK_SH | LOCK_NB) == 0); };
  const Child one{body};
  const Child two{body};
  ASSERT_TRUE(one.ready() && two.ready());
  const auto found = uses();
  ASSERT_EQ(found.size(), 2U);
  EXPECT_EQ(std::min(one.pid(), two.pid()), found[0].who.pid);
  EXPECT_EQ(std::max(one.pid(), two.pid()), found[1].who.pid);
  for (const Use& use : found) EXPECT_EQ(use.mode, Mode::shared);
}

TEST_P(SurveyOf, posix_lock_holder_is_named) {
  const Child child{[&] {
    struct flock whole{};
    whole.l_type = F_WRLCK;
    must(::fcntl(open_device(), F_SETLK, &whole) == 0);
  }};
  ASSERT_TRUE(child.ready());
  const auto found = uses();
  expect_one(found, child.pid(), Standing::holds, "record lock");
  EXPECT_EQ(found[0].mode, Mode::exclusive);
}

TEST_P(SurveyOf, description_lock_holder_is_found_though_the_lock_table_names_nobody) {
  const Child child{[&] {
    struct flock whole{};
    whole.l_type = F_RDLCK;
    must(::fcntl(open_device(), F_OFD_SETLK, &whole) == 0);
  }};
  ASSERT_TRUE(child.ready());
  const auto found = uses();
  expect_one(found, child.pid(), Standing::holds, "record lock");
  EXPECT_EQ(found[0].mode, Mode::shared);
}

TEST_P(SurveyOf, flock_of_a_dead_taker_is_its_childs) {
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);  // so that the grandchild can be waited for
  int numbers[2];
  ASSERT_EQ(::pipe2(numbers, O_CLOEXEC), 0);
  const pid_t taker = ::fork();
  if (taker == 0) {
    must(::flock(open_device(), LOCK_EX | LOCK_NB) == 0);
    const pid_t heir = ::fork();
    if (heir == 0)
      for (;;) ::pause();
    must(::write(numbers[1], &heir, sizeof heir) == sizeof heir);
    ::_exit(0);
  }
  ASSERT_EQ(::waitpid(taker, nullptr, 0), taker);
  pid_t heir = 0;
  ASSERT_EQ(::read(numbers[0], &heir, sizeof heir), static_cast<ssize_t>(sizeof heir));
  expect_one(uses(), heir, Standing::holds, "flock");
  ::kill(heir, SIGKILL);
  ::waitpid(heir, nullptr, 0);
  ::close(numbers[0]);
  ::close(numbers[1]);
  ::prctl(PR_SET_CHILD_SUBREAPER, 0);
}

TEST_P(SurveyOf, process_blocked_in_flock_is_a_waiter) {
  const Child holder{[&] { must(::flock(open_device(), LOCK_EX | LOCK_NB) == 0); }};
  ASSERT_TRUE(holder.ready());
  const pid_t waiter = ::fork();
  if (waiter == 0) {
    ::flock(open_device(), LOCK_EX);
    ::_exit(0);
  }
  // No event tells that a process began to wait; the kernel's table is looked at until it does.
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  std::vector<Use> found;
  while (std::chrono::steady_clock::now() < deadline) {
    found = uses();
    if (std::ranges::any_of(found, [](const Use& use) { return use.standing == Standing::waits; })) break;
    std::this_thread::yield();
  }
  ::kill(waiter, SIGKILL);
  ::waitpid(waiter, nullptr, 0);
  ASSERT_EQ(found.size(), 2U);
  EXPECT_EQ(found[0].who.pid, holder.pid());
  EXPECT_EQ(found[0].standing, Standing::holds);
  EXPECT_EQ(found[1].who.pid, waiter);
  EXPECT_EQ(found[1].standing, Standing::waits);
  EXPECT_THAT(found[1].who.means, ElementsAre("flock"));
}

TEST_P(SurveyOf, leader_that_ended_before_its_threads_still_holds) {
  const Child child{[&] {
    must(::flock(open_device(), LOCK_EX | LOCK_NB) == 0);
    const pid_t leader = ::fork();  // a process of its own, so that Child's ends as ever
    if (leader == 0) {
      std::thread{[] {
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;) ::pause();
      }}.detach();
      ::syscall(SYS_exit, 0);  // this thread alone; pthread_exit(3) would unwind through the test
    }
    const std::string state = "/proc/" + std::to_string(leader) + "/stat";
    for (std::string line; line.find(") Z ") == line.npos;) {
      std::ifstream stream{state};
      std::getline(stream, line);
    }
  }};
  ASSERT_TRUE(child.ready());
  const auto found = uses();
  ASSERT_EQ(found.size(), 2U);
  for (const Use& use : found) EXPECT_THAT(use.who.means, ElementsAre("flock"));
  const pid_t leader = found[0].who.pid == child.pid() ? found[1].who.pid : found[0].who.pid;
  ::kill(leader, SIGKILL);
}

TEST_P(SurveyOf, claim_and_waiter_of_ours_are_shown_with_purpose) {
  const auto device = device::identify(path(), places_);
  ASSERT_TRUE(device);
  convention::Subject subject;
  subject.device = &*device;
  subject.node = device->node;
  subject.family = device->family;
  const auto terms = [&](const char* purpose) {
    convention::Terms made;
    made.owner = base::self();
    made.purpose = purpose;
    made.places = places_;
    return made;
  };
  const Child holder{[&] {
    auto taken = convention::entry(Convention::proxy).take(subject, terms("flash"));
    must(taken.has_value());
    static std::unique_ptr<convention::Mark> kept;
    kept = std::move(*taken);
    must(open_device() >= 0);
  }};
  ASSERT_TRUE(holder.ready());
  const Child waiter{[&] {
    static convention::WaiterSlot slot;
    slot = convention::WaiterSlot::enter(convention::proxy_path(subject.node.id, places_), terms("next"));
  }};
  ASSERT_TRUE(waiter.ready());
  const auto found = uses();
  ASSERT_EQ(found.size(), 2U);
  EXPECT_EQ(found[0].who.pid, holder.pid());
  EXPECT_TRUE(found[0].ours);
  EXPECT_EQ(found[0].standing, Standing::holds);
  EXPECT_EQ(found[0].mode, Mode::exclusive);
  EXPECT_EQ(found[0].who.purpose, "flash");
  EXPECT_TRUE(found[0].who.since);
  EXPECT_THAT(found[0].who.means, ElementsAre("holdfast"));
  EXPECT_EQ(found[1].who.pid, waiter.pid());
  EXPECT_EQ(found[1].standing, Standing::waits);
  EXPECT_EQ(found[1].who.purpose, "next");
  const auto everything = survey({}, places_);
  ASSERT_TRUE(everything);
  ASSERT_NE(in(*everything), nullptr);
  EXPECT_EQ(in(*everything)->uses.size(), 2U);
}

TEST_P(SurveyOf, whole_claim_is_one_line_with_all_its_means_to_everybody) {
  const Child holder{[&] {
    Options options;
    options.purpose = "flash";
    const std::vector<std::string> devices{path()};
    auto taken = claiming::take(devices, options, base::self(), places_);
    must(taken.has_value());
    static claiming::Holding kept;
    kept = std::move(*taken);
  }};
  ASSERT_TRUE(holder.ready());
  const auto found = uses();
  ASSERT_EQ(found.size(), 1U);
  EXPECT_EQ(found[0].who.pid, holder.pid());
  EXPECT_TRUE(found[0].ours);
  EXPECT_EQ(found[0].who.purpose, "flash");
  EXPECT_EQ(found[0].who.means.front(), "holdfast");
  EXPECT_THAT(found[0].who.means, Contains("flock"));
  EXPECT_THAT(found[0].who.means, Contains("record lock"));
  EXPECT_THAT(found[0].who.means, Not(Contains("open")));
  if (::geteuid() != 0) GTEST_SKIP() << "missing: root, to become another user";
  // Others cannot see whose the nameless record lock is, but that a claim explains it.
  const auto json = survey_as_nobody({path()}, places_);
  ASSERT_TRUE(json.is_object());
  const auto* device = device_in(json, path());
  ASSERT_NE(device, nullptr);
  ASSERT_EQ((*device)["uses"].size(), 1U) << json.dump(1);
  EXPECT_EQ((*device)["uses"][0]["pid"], holder.pid());
  EXPECT_EQ((*device)["uses"][0]["purpose"], "flash");
}

TEST_P(SurveyOf, process_that_keeps_a_claims_descriptors_is_part_of_the_claim) {
  // As `holdfast run` has it: the record is the command's, the descriptors are its supervisor's.
  const Child owner{[] {}};
  ASSERT_TRUE(owner.ready());
  const auto facts = base::facts_of(owner.pid());
  ASSERT_TRUE(facts);
  const Child supervisor{[&] {
    const std::vector<std::string> devices{path()};
    static auto taken = claiming::take(devices, Options{}, facts->id, places_);
    must(taken.has_value());
  }};
  ASSERT_TRUE(supervisor.ready());
  const auto found = uses();
  ASSERT_EQ(found.size(), 1U);
  EXPECT_EQ(found[0].who.pid, owner.pid());
  EXPECT_THAT(found[0].who.means, Contains("flock"));
}

TEST_P(SurveyOf, everything_shows_locks_and_of_plain_openers_the_disks) {
  {
    const Child opener{[&] { must(open_device() >= 0); }};
    ASSERT_TRUE(opener.ready());
    const auto found = survey({}, places_);
    ASSERT_TRUE(found);
    if (GetParam() == "pty") {
      EXPECT_EQ(in(*found), nullptr);
    } else {
      ASSERT_NE(in(*found), nullptr);
      expect_one(in(*found)->uses, opener.pid(), Standing::opened, "open");
    }
  }
  const Child locker{[&] { must(::flock(open_device(), LOCK_EX | LOCK_NB) == 0); }};
  ASSERT_TRUE(locker.ready());
  const auto found = survey({}, places_);
  ASSERT_TRUE(found);
  ASSERT_NE(in(*found), nullptr);
  expect_one(in(*found)->uses, locker.pid(), Standing::holds, "flock");
}

TEST_P(SurveyOf, survey_opens_no_device) {
  const Child child{[&] { must(::flock(open_device(), LOCK_EX | LOCK_NB) == 0); }};
  ASSERT_TRUE(child.ready());
  const UniqueFd events{::inotify_init1(IN_NONBLOCK | IN_CLOEXEC)};
  ASSERT_GE(::inotify_add_watch(events.get(), path().c_str(), IN_OPEN | IN_CLOSE), 0);
  EXPECT_EQ(uses().size(), 1U);
  EXPECT_TRUE(survey({}, places_));
  char buffer[4096];
  EXPECT_EQ(::read(events.get(), buffer, sizeof buffer), -1);
  ::close(::open(path().c_str(), O_RDONLY | O_NOCTTY | O_NONBLOCK));  // and the watch would have seen one
  EXPECT_GT(::read(events.get(), buffer, sizeof buffer), 0);
}

TEST_P(SurveyOf, hostile_command_name_reaches_no_terminal) {
  const Child child{[&] {
    ::prctl(PR_SET_NAME, "\x1b[2J\n) Z 1 \xff");
    must(::flock(open_device(), LOCK_EX | LOCK_NB) == 0);
  }};
  ASSERT_TRUE(child.ready());
  const auto found = survey({path()}, places_);
  ASSERT_TRUE(found);
  expect_one(in(*found)->uses, child.pid(), Standing::holds, "flock");
  const std::string table = to_table(*found, std::chrono::system_clock::now());
  EXPECT_TRUE(std::ranges::all_of(table, [](char c) { return c == '\n' || (c >= ' ' && c <= '~'); })) << table;
  EXPECT_TRUE(nlohmann::json::accept(to_json(*found)));
}

TEST_P(SurveyOf, other_user_sees_locks_and_is_told_what_it_cannot_see) {
  if (::geteuid() != 0) GTEST_SKIP() << "missing: root, to become another user";
  const Child taker{[&] { must(::flock(open_device(), LOCK_EX | LOCK_NB) == 0); }};
  ASSERT_TRUE(taker.ready());
  const Child nameless{[&] {
    struct flock whole{};
    whole.l_type = F_WRLCK;
    must(::fcntl(open_device(), F_OFD_SETLK, &whole) == 0);
  }};
  ASSERT_TRUE(nameless.ready());
  for (const std::vector<std::string>& devices : {std::vector{path()}, std::vector<std::string>{}}) {
    const auto json = survey_as_nobody(devices, places_);
    ASSERT_TRUE(json.is_object());
    const auto* device = device_in(json, path());
    ASSERT_NE(device, nullptr) << json.dump(1);
    const auto& uses = (*device)["uses"];
    ASSERT_EQ(uses.size(), 2U) << json.dump(1);
    EXPECT_EQ(uses[0]["who"], "unknown");
    EXPECT_EQ(uses[0]["means"], nlohmann::json::array({"record lock"}));
    EXPECT_EQ(uses[1]["pid"], taker.pid());
    EXPECT_EQ(uses[1]["means"], nlohmann::json::array({"flock"}));
    const std::string blind = json["blind"].dump();
    EXPECT_THAT(blind, HasSubstr(" of other users"));
    EXPECT_THAT(blind, HasSubstr("run as root"));
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, SurveyOf, testing::Values("pty", "loop"),
                         [](const auto& suite) { return suite.param; });

class SurveyOfTerminal : public SurveyOf {};

TEST_P(SurveyOfTerminal, lock_file_of_a_living_process_names_it_and_joins_its_flock) {
  const std::string number = path().substr(path().rfind('/') + 1);
  const Child child{[&] {
    write_lock_file("LCK..pts_" + number, std::to_string(::getpid()) + "\n");
    must(::flock(open_device(), LOCK_EX | LOCK_NB) == 0);
  }};
  ASSERT_TRUE(child.ready());
  const auto found = uses();
  ASSERT_EQ(found.size(), 1U);
  EXPECT_EQ(found[0].who.pid, child.pid());
  EXPECT_TRUE(found[0].who.since);
  EXPECT_THAT(found[0].who.means, ElementsAre("UUCP lock file " + places_.lock_dir + "/LCK..pts_" + number, "flock"));
  const auto everything = survey({}, places_);
  ASSERT_TRUE(everything);
  ASSERT_NE(in(*everything), nullptr);
  EXPECT_EQ(in(*everything)->uses.size(), 1U);
}

TEST_P(SurveyOfTerminal, lock_file_of_a_dead_process_is_stale_and_everything_leaves_it_out) {
  const pid_t dead = ::fork();
  if (dead == 0) ::_exit(0);
  ::waitpid(dead, nullptr, 0);
  write_lock_file("LCK..pts_" + path().substr(path().rfind('/') + 1), std::to_string(dead) + "\n");
  const auto found = uses();
  ASSERT_EQ(found.size(), 1U);
  EXPECT_EQ(found[0].standing, Standing::stale);
  EXPECT_EQ(found[0].who.pid, dead);
  const auto everything = survey({}, places_);
  ASSERT_TRUE(everything);
  EXPECT_EQ(in(*everything), nullptr);
}

TEST_P(SurveyOfTerminal, garbled_lock_file_is_held_by_somebody_unknown) {
  write_lock_file("LCK..pts_" + path().substr(path().rfind('/') + 1), "\x1b[2Jnobody knows\n");
  const auto found = uses();
  ASSERT_EQ(found.size(), 1U);
  EXPECT_EQ(found[0].kind, UserKind::unknown);
  EXPECT_EQ(found[0].standing, Standing::holds);
  EXPECT_EQ(found[0].who.pid, 0);
}

INSTANTIATE_TEST_SUITE_P(Devices, SurveyOfTerminal, testing::Values("pty"),
                         [](const auto& suite) { return suite.param; });

class SurveyOfDisk : public SurveyOf {};

TEST_P(SurveyOfDisk, opener_through_a_copy_of_the_node_is_seen) {
  struct stat node{};
  ASSERT_EQ(::stat(path().c_str(), &node), 0);
  const std::string copy = directory_.path() + "/copy";
  if (::mknod(copy.c_str(), S_IFBLK | 0600, node.st_rdev) != 0) GTEST_SKIP() << "missing: mknod(2)";
  const Child child{[&] { must(::flock(::open(copy.c_str(), O_RDONLY), LOCK_EX | LOCK_NB) == 0); }};
  if (!child.ready()) GTEST_SKIP() << "missing: a temporary directory where device nodes can be opened";
  expect_one(uses(), child.pid(), Standing::holds, "flock");
}

TEST_P(SurveyOfDisk, mount_is_the_kernels_use) {
  if (::geteuid() != 0) GTEST_SKIP() << "missing: root, to mount";
  const std::string make = "mkfs.ext2 -q " + path() + " >/dev/null 2>&1";
  if (std::system(make.c_str()) != 0) GTEST_SKIP() << "missing: mkfs.ext2";
  const std::string where = directory_.path() + "/mounted here";
  ASSERT_TRUE(std::filesystem::create_directory(where));
  if (::mount(path().c_str(), where.c_str(), "ext2", MS_RDONLY, nullptr) != 0 &&
      ::mount(path().c_str(), where.c_str(), "ext4", MS_RDONLY, nullptr) != 0)
    GTEST_SKIP() << "missing: an ext2 file system driver";
  const auto found = uses();
  ::umount2(where.c_str(), MNT_DETACH);
  ASSERT_EQ(found.size(), 1U);
  EXPECT_EQ(found[0].kind, UserKind::kernel);
  EXPECT_EQ(found[0].who.pid, 0);
  EXPECT_EQ(found[0].who.command, "kernel");
  EXPECT_THAT(found[0].who.means, ElementsAre("mounted on " + where));
}

INSTANTIATE_TEST_SUITE_P(Devices, SurveyOfDisk, testing::Values("loop"), [](const auto& suite) { return suite.param; });

TEST(Survey, missing_device_is_an_error_that_names_it) {
  const auto found = survey({"/dev/holdfast-no-such-device"});
  ASSERT_FALSE(found);
  EXPECT_EQ(found.error().code, errc::no_such_device);
  EXPECT_THAT(found.error().message, HasSubstr("/dev/holdfast-no-such-device"));
}

TEST(Survey, memory_devices_are_left_out_of_everything) {
  const UniqueFd null{::open("/dev/null", O_RDONLY | O_CLOEXEC)};
  const UniqueFd zero{::open("/dev/zero", O_RDONLY | O_CLOEXEC)};
  const auto found = survey({});
  ASSERT_TRUE(found);
  for (const DeviceUse& device : found->devices) {
    EXPECT_NE(device.node.path, "/dev/null");
    EXPECT_NE(device.node.path, "/dev/zero");
  }
}

TEST(Survey, memory_device_that_is_asked_for_is_answered) {
  const UniqueFd zero{::open("/dev/zero", O_RDONLY | O_CLOEXEC)};
  const auto found = survey({"/dev/zero"});
  ASSERT_TRUE(found);
  ASSERT_EQ(found->devices.size(), 1U);
  EXPECT_THAT(found->devices[0].uses,
              Contains(testing::ResultOf([](const Use& use) { return use.who.pid; }, ::getpid())));
}

}  // namespace
}  // namespace holdfast::observe
