// SPDX-License-Identifier: MIT
// What a broker that was started as root may do once it has dropped its privileges, and what it still must.
#include "broker/privileges.hpp"

#include "broker/permission.hpp"
#include "process/support/child.hpp"
#include "process/support/devices.hpp"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <grp.h>
#include <gtest/gtest.h>
#include <pwd.h>
#include <sys/capability.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>

namespace holdfast::broker {
namespace {

using namespace testing_support;
using ::testing::HasSubstr;

constexpr const char* kUser = "daemon";  // of every Debian system (base-passwd)

std::string rights() {
  std::ifstream status{"/proc/self/status"};
  std::string text;
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("Uid:") || line.starts_with("Cap") || line.starts_with("NoNewPrivs:")) text += line + "\n";
  return text;
}

// setgid, setuid, dac_override and fowner, as bits.
constexpr const char* kKept = "00000000000000ca";
constexpr const char* kKeptWithGuard = "00000080000000ca";  // and bpf

class Privileges : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "needs root";
    if (::getpwnam(kUser) == nullptr) GTEST_SKIP() << "needs the user " << kUser;
  }
};

TEST_F(Privileges, of_root_become_a_users_with_four_capabilities) {
  const std::string found = in_a_child([] {
    const auto standing = drop_privileges(kUser, GuardRight::dropped);
    return standing ? rights() : standing.error().message;
  });
  const auto uid = std::to_string(::getpwnam(kUser)->pw_uid);
  EXPECT_THAT(found, HasSubstr("Uid:\t" + uid + "\t" + uid + "\t" + uid + "\t" + uid));
  EXPECT_THAT(found, HasSubstr(std::string{"CapPrm:\t"} + kKept));
  EXPECT_THAT(found, HasSubstr(std::string{"CapEff:\t"} + kKept));
  EXPECT_THAT(found, HasSubstr(std::string{"CapBnd:\t"} + kKept));
  EXPECT_THAT(found, HasSubstr("CapInh:\t0000000000000000"));
  EXPECT_THAT(found, HasSubstr("CapAmb:\t0000000000000000"));
  EXPECT_THAT(found, HasSubstr("NoNewPrivs:\t1"));
}

TEST_F(Privileges, are_dropped_as_far_when_there_is_no_such_user) {
  const std::string found = in_a_child([] {
    const auto standing = drop_privileges("holdfast-no-such-user", GuardRight::kept);
    return standing ? rights() : standing.error().message;
  });
  EXPECT_THAT(found, HasSubstr("Uid:\t0\t0\t0\t0"));
  EXPECT_THAT(found, HasSubstr(std::string{"CapPrm:\t"} + kKeptWithGuard));
}

TEST_F(Privileges, of_a_service_are_those_that_its_unit_gave_it_and_go_no_further) {
  const std::string found = in_a_child([]() -> std::string {
    // As AmbientCapabilities= does it, one more than needed.
    ::prctl(PR_SET_KEEPCAPS, 1);
    if (::setresgid(51005, 51005, 51005) != 0 || ::setresuid(51005, 51005, 51005) != 0) return "cannot become a user";
    const cap_t sets = ::cap_get_proc();
    const std::array<cap_value_t, 5> given{CAP_SETUID, CAP_SETGID, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_SYS_ADMIN};
    ::cap_set_flag(sets, CAP_EFFECTIVE, given.size(), given.data(), CAP_SET);
    ::cap_set_flag(sets, CAP_INHERITABLE, given.size(), given.data(), CAP_SET);
    if (::cap_set_proc(sets) != 0) return "cannot set capabilities";
    ::cap_free(sets);
    for (const cap_value_t one : given)
      if (::cap_set_ambient(one, CAP_SET) != 0) return "cannot set ambient capabilities";
    const auto standing = drop_privileges(kUser, GuardRight::dropped);
    if (!standing) return standing.error().message;
    return standing->uid == 51005 ? rights() : "another user";
  });
  EXPECT_THAT(found, HasSubstr(std::string{"CapPrm:\t"} + kKept));
  EXPECT_THAT(found, HasSubstr("CapAmb:\t0000000000000000"));
  EXPECT_THAT(found, HasSubstr("CapInh:\t0000000000000000"));
}

TEST_F(Privileges, that_are_left_suffice_to_act_as_clients_and_to_remove_their_lock_files) {
  const TemporaryDirectory directory;
  const std::string lock_directory = directory / "lock";
  ASSERT_EQ(::chmod(directory.path().c_str(), 0755), 0);
  ASSERT_EQ(::mkdir(lock_directory.c_str(), 0), 0);
  ASSERT_EQ(::chmod(lock_directory.c_str(), 01775), 0);  // root's, sticky, closed to the client
  const std::string file = lock_directory + "/LCK..ttyS9";
  const std::string found = in_a_child([&]() -> std::string {
    const auto standing = drop_privileges(kUser, GuardRight::dropped);
    if (!standing) return standing.error().message;
    const auto permission = Permission::start();
    if (!permission) return permission.error().message;
    {
      const auto acting = permission->act_as({51001, 51001, {}});
      if (!acting) return acting.error().message;
      if (!acting->use(Permission::Rights::lock_files)) return "no rights for lock files";
      const base::UniqueFd made{::open(file.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644)};
      if (!made) return "not made";
      struct stat status{};
      ::fstat(made.get(), &status);
      if (status.st_uid != 51001) return "not the client's";
    }
    return ::unlink(file.c_str()) == 0 ? "made and removed" : "not removed";
  });
  EXPECT_EQ(found, "made and removed");
}

TEST_F(Privileges, directories_that_are_made_are_the_users_and_others_stay_whose_they_were) {
  const TemporaryDirectory directory;
  const std::string made = directory / "made";
  const std::string there = directory / "there";
  ASSERT_EQ(::mkdir(there.c_str(), 0700), 0);
  EXPECT_EQ(in_a_child([&] { return make_directories(kUser, {made, there}) ? "done" : "failed"; }), "done");
  struct stat status{};
  ASSERT_EQ(::stat(made.c_str(), &status), 0);
  EXPECT_EQ(status.st_uid, ::getpwnam(kUser)->pw_uid);
  ASSERT_EQ(::stat(there.c_str(), &status), 0);
  EXPECT_EQ(status.st_uid, 0U);
}

}  // namespace
}  // namespace holdfast::broker
