// SPDX-License-Identifier: MIT
// Who may open a node may claim it: the kernel's own answers for clients of all kinds, on nodes of a tmpfs of the
// test's own, for a broker that is root and for one that is a user with a few capabilities.
#include "broker/permission.hpp"

#include "process/support/child.hpp"
#include "process/support/devices.hpp"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/capability.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/xattr.h>

#include <grp.h>

#include <array>
#include <atomic>
#include <fstream>
#include <numeric>
#include <sstream>
#include <thread>

namespace holdfast::broker {
namespace {

using testing_support::Child;
using testing_support::Peer;
using testing_support::TemporaryDirectory;

constexpr uid_t kAlice = 51001;
constexpr gid_t kAlicesGroup = 51002;
constexpr gid_t kPorts = 51003;
constexpr gid_t kDrives = 51004;
constexpr uid_t kBroker = 51005;

const Credentials kRoot{0, 0, {}};
const Credentials kStranger{kAlice, kAlicesGroup, {}};
const Credentials kMember{kAlice, kAlicesGroup, {kDrives, kPorts}};
const Credentials kByPrimaryGroup{kAlice, kPorts, {}};

device::Node node_at(const std::string& path) {
  struct stat status{};
  EXPECT_EQ(::stat(path.c_str(), &status), 0) << path;
  device::Node node;
  node.path = path;
  node.uid = status.st_uid;
  node.gid = status.st_gid;
  node.mode = status.st_mode;
  return node;
}

struct AclEntry {
  std::uint16_t tag;
  std::uint16_t rights;
  std::uint32_t id;
};
enum Tag : std::uint16_t { kOwner = 1, kUser = 2, kOwningGroup = 4, kGroup = 8, kMask = 16, kOther = 32 };
constexpr std::uint32_t kNoId = ~0U;

// As setfacl(1) writes it: a version and the entries (linux/posix_acl_xattr.h).
bool set_acl(const std::string& path, std::initializer_list<AclEntry> entries) {
  struct {
    std::uint32_t version = 2;
    AclEntry list[8];
  } acl;
  std::copy(entries.begin(), entries.end(), acl.list);
  const std::size_t size = sizeof acl.version + entries.size() * sizeof(AclEntry);
  return ::setxattr(path.c_str(), "system.posix_acl_access", &acl, size, 0) == 0;
}

// A tmpfs with one node of each kind, in a mount namespace of the test's own. `missing()` says why there is none.
class Nodes {
 public:
  Nodes() {
    if (::geteuid() != 0) {
      missing_ = "root";
    } else if (::unshare(CLONE_NEWNS) != 0 || ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
               ::mount("holdfast-test", directory_.path().c_str(), "tmpfs", 0, "mode=755") != 0) {
      missing_ = "a mount namespace with a tmpfs of our own";
    } else {
      mounted_ = true;
      make();
    }
  }
  ~Nodes() {
    if (mounted_) ::umount2(directory_.path().c_str(), MNT_DETACH);
  }
  [[nodiscard]] const std::string& missing() const { return missing_; }
  [[nodiscard]] device::Node operator[](const std::string& name) const { return node_at(directory_ / name); }
  [[nodiscard]] std::string path(const std::string& name) const { return directory_ / name; }

 private:
  void node(const std::string& name, uid_t uid, gid_t gid, mode_t mode) {
    const std::string path = directory_ / name;
    // The null device: whatever opens it by mistake does no harm.
    ASSERT_EQ(::mknod(path.c_str(), S_IFCHR | 0600, ::makedev(1, 3)), 0);
    ASSERT_EQ(::chown(path.c_str(), uid, gid), 0);
    ASSERT_EQ(::chmod(path.c_str(), mode), 0);
  }
  void make() {
    node("of_root", 0, 0, 0600);
    node("of_a_group", 0, kPorts, 0660);
    node("of_a_group_to_read", 0, kPorts, 0640);
    node("of_a_group_to_write", 0, kPorts, 0620);
    node("of_all", 0, 0, 0666);
    node("of_alice", kAlice, 0, 0600);
    node("not_of_its_owner", kAlice, 0, 0066);
    node("not_of_its_group", 0, kPorts, 0606);
    node("of_nobody", 0, 0, 0000);
    ASSERT_EQ(::mkdir((directory_ / "closed").c_str(), 0700), 0);
    node("closed/of_all", 0, 0, 0666);
    node("acl_user", 0, 0, 0600);
    node("acl_group", 0, 0, 0600);
    node("acl_masked", 0, 0, 0600);
    node("acl_denied", 0, 0, 0666);
    if (!set_acl(directory_ / "acl_user", {{kOwner, 6, kNoId},
                                           {kUser, 6, kAlice},
                                           {kOwningGroup, 0, kNoId},
                                           {kMask, 6, kNoId},
                                           {kOther, 0, kNoId}}) ||
        !set_acl(directory_ / "acl_group", {{kOwner, 6, kNoId},
                                            {kOwningGroup, 0, kNoId},
                                            {kGroup, 4, kDrives},
                                            {kMask, 6, kNoId},
                                            {kOther, 0, kNoId}}) ||
        !set_acl(directory_ / "acl_masked", {{kOwner, 6, kNoId},
                                             {kUser, 6, kAlice},
                                             {kOwningGroup, 0, kNoId},
                                             {kMask, 0, kNoId},
                                             {kOther, 0, kNoId}}) ||
        !set_acl(
            directory_ / "acl_denied",
            {{kOwner, 6, kNoId}, {kUser, 0, kAlice}, {kOwningGroup, 6, kNoId}, {kMask, 6, kNoId}, {kOther, 6, kNoId}}))
      missing_ = "access control lists on a tmpfs";
  }

  TemporaryDirectory directory_;
  std::string missing_;
  bool mounted_ = false;
};

struct Row {
  const char* node;
  bool stranger;
  bool member;
  bool by_primary_group;
};
constexpr std::array kTable{
    Row{"of_root", false, false, false},
    Row{"of_a_group", false, true, true},
    Row{"of_a_group_to_read", false, true, true},
    Row{"of_a_group_to_write", false, true, true},
    Row{"of_all", true, true, true},
    Row{"of_alice", true, true, true},
    Row{"not_of_its_owner", false, false, false},
    Row{"not_of_its_group", true, false, false},
    Row{"of_nobody", false, false, false},
    Row{"closed/of_all", false, false, false},
    Row{"acl_user", true, true, true},
    Row{"acl_group", false, true, false},
    Row{"acl_masked", false, false, false},
    Row{"acl_denied", false, false, false},
};

std::string answer(const Permission& permission, const Credentials& who, const device::Node& node) {
  const auto may = permission.may_open(who, node);
  if (may) return "yes";
  return may.error().code == errc::not_permitted ? "no" : may.error().message;
}

// The rows that are answered wrongly; empty when none.
std::string wrong_answers(const Permission& permission, const std::vector<device::Node>& nodes) {
  std::string wrong;
  for (std::size_t i = 0; i < kTable.size(); ++i) {
    const Row& row = kTable[i];
    const auto check = [&](const char* name, const Credentials& who, bool expected) {
      const std::string found = answer(permission, who, nodes[i]);
      if (found != (expected ? "yes" : "no")) wrong += std::string{row.node} + " for " + name + ": " + found + "\n";
    };
    check("a stranger", kStranger, row.stranger);
    check("a member", kMember, row.member);
    check("one whose group it is", kByPrimaryGroup, row.by_primary_group);
    check("root", kRoot, true);
  }
  return wrong;
}

std::vector<device::Node> table_nodes(const Nodes& nodes) {
  std::vector<device::Node> list;
  for (const Row& row : kTable) list.push_back(nodes[row.node]);
  return list;
}

// Everything about the calling thread that acting changes.
std::string rights_of_this_thread() {
  std::ifstream status{"/proc/thread-self/status"};
  std::string rights;
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("Uid:") || line.starts_with("Gid:") || line.starts_with("Groups:") || line.starts_with("Cap"))
      rights += line + "\n";
  return rights;
}

// As a unit file would start it: its own user, and these capabilities alone.
void become_a_user_with(std::initializer_list<cap_value_t> capabilities) {
  ASSERT_EQ(::prctl(PR_SET_KEEPCAPS, 1), 0);
  const gid_t group = kDrives;  // one that a client may lack: the broker's own must not count for it
  ASSERT_EQ(::setgroups(1, &group), 0);
  ASSERT_EQ(::setresgid(kBroker, kBroker, kBroker), 0);
  ASSERT_EQ(::setresuid(kBroker, kBroker, kBroker), 0);
  const cap_t sets = ::cap_init();
  const std::vector<cap_value_t> list{capabilities};
  if (!list.empty()) {
    const int count = static_cast<int>(list.size());
    ASSERT_EQ(::cap_set_flag(sets, CAP_PERMITTED, count, list.data(), CAP_SET), 0);
    ASSERT_EQ(::cap_set_flag(sets, CAP_EFFECTIVE, count, list.data(), CAP_SET), 0);
  }
  ASSERT_EQ(::cap_set_proc(sets), 0);
  ::cap_free(sets);
}

TEST(Permission, is_the_kernels_answer_when_the_broker_is_root) {
  const Nodes nodes;
  if (!nodes.missing().empty()) GTEST_SKIP() << "needs " << nodes.missing();
  const auto permission = Permission::start();
  ASSERT_TRUE(permission) << permission.error().message;
  const std::string before = rights_of_this_thread();
  EXPECT_EQ(wrong_answers(*permission, table_nodes(nodes)), "");
  EXPECT_EQ(rights_of_this_thread(), before);
  EXPECT_FALSE(permission->is_stuck());
}

TEST(Permission, is_the_kernels_answer_when_the_broker_is_a_user_with_capabilities) {
  const Nodes nodes;
  if (!nodes.missing().empty()) GTEST_SKIP() << "needs " << nodes.missing();
  const auto list = table_nodes(nodes);
  Child broker{[&](Peer& test) {
    become_a_user_with({CAP_SETUID, CAP_SETGID, CAP_DAC_OVERRIDE, CAP_FOWNER});
    const std::string before = rights_of_this_thread();
    const auto permission = Permission::start();
    if (!permission) return 1;
    test.tell("wrong: " + wrong_answers(*permission, list));
    test.tell(rights_of_this_thread() == before ? "as before" : rights_of_this_thread());
    return 0;
  }};
  EXPECT_EQ(broker.hear(), "wrong: ");
  EXPECT_EQ(broker.hear(), "as before");
}

TEST(Permission, refusal_says_whose_the_node_is) {
  const Nodes nodes;
  if (!nodes.missing().empty()) GTEST_SKIP() << "needs " << nodes.missing();
  const auto permission = Permission::start();
  ASSERT_TRUE(permission);
  const auto may = permission->may_open(kStranger, nodes["of_a_group"]);
  ASSERT_FALSE(may);
  EXPECT_THAT(may.error().message, ::testing::HasSubstr("group 51003, mode 0660"));
}

TEST(Permission, what_the_thread_opens_and_makes_is_the_clients) {
  const Nodes nodes;
  if (!nodes.missing().empty()) GTEST_SKIP() << "needs " << nodes.missing();
  const auto permission = Permission::start();
  ASSERT_TRUE(permission);
  const std::string file = nodes.path("LCK..ttyS9");
  const auto open_to_write = [&](const std::string& path) {
    const base::UniqueFd fd{::open(path.c_str(), O_RDWR | O_CLOEXEC | (path == file ? O_CREAT : 0), 0644)};
    return fd ? 0 : errno;
  };
  {
    const auto acting = permission->act_as(kMember);
    ASSERT_TRUE(acting) << acting.error().message;
    EXPECT_EQ(open_to_write(nodes.path("of_a_group_to_read")), EACCES) << "who may read is given no more";
    EXPECT_EQ(open_to_write(nodes.path("of_a_group")), 0);
    EXPECT_EQ(open_to_write(file), EACCES) << "the directory is root's";
    ASSERT_TRUE(acting->use(Permission::Rights::lock_files));
    EXPECT_EQ(open_to_write(file), 0);
    ASSERT_TRUE(acting->use(Permission::Rights::client));
    EXPECT_EQ(open_to_write(nodes.path("of_root")), EACCES);
  }
  EXPECT_EQ(open_to_write(nodes.path("of_root")), 0);
  struct stat made{};
  ASSERT_EQ(::stat(file.c_str(), &made), 0);
  EXPECT_EQ(made.st_uid, kAlice);
  EXPECT_EQ(made.st_gid, kAlicesGroup);
}

TEST(Permission, threads_that_were_there_keep_their_rights) {
  const Nodes nodes;
  if (!nodes.missing().empty()) GTEST_SKIP() << "needs " << nodes.missing();
  const auto permission = Permission::start();
  ASSERT_TRUE(permission);
  std::atomic<bool> acting_now = false;
  std::atomic<bool> seen = false;
  std::string before;
  std::string during;
  std::thread other{[&] {
    before = rights_of_this_thread();
    acting_now.wait(false);
    during = rights_of_this_thread();
    seen = true;
    seen.notify_one();
  }};
  {
    const auto acting = permission->act_as(kStranger);
    EXPECT_TRUE(acting);
    EXPECT_NE(rights_of_this_thread().find("51001"), std::string::npos);
    acting_now = true;
    acting_now.notify_one();
    seen.wait(false);
  }
  other.join();
  EXPECT_EQ(during, before);
}

TEST(Permission, nothing_is_granted_without_the_capabilities_to_ask) {
  const Nodes nodes;
  if (!nodes.missing().empty()) GTEST_SKIP() << "needs " << nodes.missing();
  const device::Node open_to_all = nodes["of_all"];
  Child broker{[&](Peer& test) {
    become_a_user_with({});
    const std::string before = rights_of_this_thread();
    const auto permission = Permission::start();
    if (!permission) return 1;
    test.tell(answer(*permission, kStranger, open_to_all));
    test.tell(rights_of_this_thread() == before ? "as before" : rights_of_this_thread());
    return 0;
  }};
  EXPECT_THAT(broker.hear(), ::testing::HasSubstr("needs CAP_SETUID and CAP_SETGID"));
  EXPECT_EQ(broker.hear(), "as before");
}

TEST(Permission, broker_without_capabilities_serves_its_own_user) {
  const Nodes nodes;
  if (!nodes.missing().empty()) GTEST_SKIP() << "needs " << nodes.missing();
  const device::Node open_to_all = nodes["of_all"];
  const device::Node closed = nodes["of_root"];
  Child broker{[&](Peer& test) {
    become_a_user_with({});
    const std::string before = rights_of_this_thread();
    const auto permission = Permission::start();
    if (!permission) return 1;
    const Credentials itself{kBroker, kBroker, {kDrives}};
    test.tell(answer(*permission, itself, open_to_all) + " " + answer(*permission, itself, closed));
    test.tell(rights_of_this_thread() == before && !permission->is_stuck() ? "as before" : "changed");
    return 0;
  }};
  EXPECT_EQ(broker.hear(), "yes no");
  EXPECT_EQ(broker.hear(), "as before");
}

// From now on the kernel refuses setgroups(2) of so many groups to this thread.
bool refuse_to_set_groups(std::uint32_t count) {
  sock_filter program[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_setgroups, 0, 3),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, args[0])),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, count, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOMEM),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog filter{static_cast<unsigned short>(std::size(program)), program};
  return ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

TEST(Permission, nothing_is_done_any_more_when_a_thread_could_not_become_itself_again) {
  const Nodes nodes;
  if (!nodes.missing().empty()) GTEST_SKIP() << "needs " << nodes.missing();
  const device::Node open_to_all = nodes["of_all"];
  Child broker{[&](Peer& test) {
    const std::vector<gid_t> groups{kDrives, kPorts, kAlicesGroup};
    if (::setgroups(groups.size(), groups.data()) != 0) return 1;
    const auto permission = Permission::start();
    if (!permission || !refuse_to_set_groups(3)) return 1;
    test.tell(answer(*permission, kStranger, open_to_all));
    test.tell(permission->is_stuck() ? "stuck" : "not stuck");
    test.tell(answer(*permission, kStranger, open_to_all));
    return 0;
  }};
  EXPECT_EQ(broker.hear(), "yes");
  EXPECT_EQ(broker.hear(), "stuck");
  EXPECT_THAT(broker.hear(), ::testing::HasSubstr("restart it"));
}

class ManyGroups : public ::testing::TestWithParam<std::size_t> {};

TEST_P(ManyGroups, of_a_client_are_those_it_connected_with) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root";
  std::vector<gid_t> groups(GetParam());
  std::iota(groups.begin(), groups.end(), 60000U);
  const TemporaryDirectory directory;
  const base::UniqueFd listener{::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)};
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string path = directory / "socket";
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  const auto* name = reinterpret_cast<const sockaddr*>(&address);
  ASSERT_EQ(::bind(listener.get(), name, sizeof address), 0);
  ASSERT_EQ(::listen(listener.get(), 1), 0);
  ASSERT_EQ(::chmod(path.c_str(), 0666), 0);
  ASSERT_EQ(::chmod(directory.path().c_str(), 0755), 0);
  Child client{[&](Peer& test) {
    if (::setgroups(groups.size(), groups.data()) != 0 || ::setresgid(kAlicesGroup, kAlicesGroup, kAlicesGroup) != 0 ||
        ::setresuid(kAlice, kAlice, kAlice) != 0)
      return 1;
    const base::UniqueFd socket{::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)};
    test.tell(::connect(socket.get(), name, sizeof address) == 0 ? "connected" : "not connected");
    test.hear();
    return 0;
  }};
  ASSERT_EQ(client.hear(), "connected");
  const base::UniqueFd connection{::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC)};
  const auto who = credentials_of(connection.get());
  ASSERT_TRUE(who);
  EXPECT_EQ(who->uid, kAlice);
  EXPECT_EQ(who->gid, kAlicesGroup);
  EXPECT_EQ(who->groups, groups);
}

INSTANTIATE_TEST_SUITE_P(Credentials, ManyGroups, ::testing::Values(0, 1, 64, 65, 3000));

TEST(Credentials, are_not_known_of_what_is_no_connection) {
  const base::UniqueFd file{::open("/dev/null", O_RDONLY | O_CLOEXEC)};
  EXPECT_FALSE(credentials_of(file.get()));
}

}  // namespace
}  // namespace holdfast::broker
