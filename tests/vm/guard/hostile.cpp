// SPDX-License-Identifier: MIT
// hostile.cpp - the guard against those who mean it harm, and against bad luck: users without rights, process numbers
// used again, namespaces, storms of forks, maps that are full.
#include "vm/guard/support.hpp"

#include "interop/support/bench.hpp"

#include <bpf/bpf.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/sched.h>
#include <sched.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <thread>

namespace holdfast::vm {
namespace {

using guard::Guard;
using guard::Owner;
using interop::eventually;
using testing::HasSubstr;
using testing_support::Child;
using testing_support::in_a_child;
using testing_support::Peer;
using testing_support::pidfd_of;
using namespace std::chrono_literals;

constexpr const char* kDisk = "/dev/vda";
constexpr const char* kPort = "/dev/ttyUSB0";
constexpr uid_t kNobody = 65534;

class Hostile : public GuardTest {};

std::string stranger() {
  return in_a_child([] { return opened(kPort); });
}

void become_nobody() {
  if (::setresgid(kNobody, kNobody, kNobody) != 0 || ::setresuid(kNobody, kNobody, kNobody) != 0) ::abort();
}

/// fork(2) that chooses the child's number.
pid_t fork_as(pid_t wanted) {
  clone_args how{};
  how.exit_signal = SIGCHLD;
  how.set_tid = reinterpret_cast<std::uintptr_t>(&wanted);
  how.set_tid_size = 1;
  return static_cast<pid_t>(::syscall(SYS_clone3, &how, sizeof how));
}

struct Service {
  Child owner{[](Peer& test) {
    test.hear();
    return 0;
  }};
};

// --- Who has no rights

TEST_F(Hostile, a_user_who_is_not_root_gets_at_none_of_the_pins_and_maps) {
  const Service service;
  enforce({kPort}, {.pidfd = service.owner.pidfd()});
  EXPECT_EQ(in_a_child([]() -> std::string {
              become_nobody();
              if (Guard::open()) return "opened";
              if (guard::remove()) return "removed";
              if (guard::install()) return "installed";
              if (::unlink("/sys/fs/bpf/holdfast/link_hf_open") == 0) return "unpinned";
              if (::rename("/sys/fs/bpf/holdfast", "/sys/fs/bpf/away") == 0) return "renamed";
              if (::open("/sys/fs/bpf/holdfast", O_RDONLY | O_DIRECTORY | O_CLOEXEC) >= 0)
                return "may lock feeders out";
              std::uint32_t id = 0;
              if (bpf_map_get_next_id(0, &id) == 0) return "sees the maps";
              for (id = 1; id < 500; ++id)
                if (bpf_map_get_fd_by_id(id) >= 0 || bpf_prog_get_fd_by_id(id) >= 0 || bpf_link_get_fd_by_id(id) >= 0)
                  return "got one by its number";
              return "nothing";
            }),
            "nothing");
  EXPECT_EQ(stranger(), "EBUSY");
}

TEST_F(Hostile, a_user_with_a_descriptor_from_before_or_a_pidfd_of_the_owner_is_refused_too) {
  Child user{[](Peer& test) {
    const base::UniqueFd fd{::open(kDisk, O_RDONLY | O_CLOEXEC)};
    become_nobody();
    test.tell(fd ? "open" : "not open");
    const pid_t owner = std::stoi(test.hear());
    char byte = 0;
    const std::string read = name_of(::read(fd.get(), &byte, 1));
    const base::UniqueFd pidfd = pidfd_of(owner);
    test.tell(read + ", " + name_of(::syscall(SYS_pidfd_getfd, pidfd.get(), 0, 0)));
    return 0;
  }};
  ASSERT_EQ(user.hear(), "open");
  const Service service;
  enforce({kDisk}, {.pidfd = service.owner.pidfd()});
  user.tell(std::to_string(service.owner.pid()));
  EXPECT_EQ(user.hear(), "EBUSY, EPERM");
}

// bpffs may be open to all, as it is in the lab.
TEST_F(Hostile, a_folder_of_pins_that_belongs_to_a_user_is_not_taken) {
  const guard::Places places{.pins = "/sys/fs/bpf/of_nobody"};
  ASSERT_EQ(in_a_child([&] {
              become_nobody();
              return name_of(::mkdir(places.pins.c_str(), 0777));
            }),
            "OK");
  const auto installed = guard::install(places);
  ASSERT_FALSE(installed);
  EXPECT_EQ(installed.error().code, errc::not_permitted);
  EXPECT_THAT(installed.error().message, HasSubstr("rmdir"));
  EXPECT_EQ(::rmdir(places.pins.c_str()), 0);
}

// As the broker keeps no more.
TEST_F(Hostile, who_feeds_the_guard_needs_one_capability) {
  const Service service;
  guard().rest();
  EXPECT_EQ(in_a_child([&]() -> std::string {
              __user_cap_header_struct version{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
              std::array<__user_cap_data_struct, 2> sets{};
              sets[CAP_TO_INDEX(CAP_BPF)].permitted = sets[CAP_TO_INDEX(CAP_BPF)].effective = CAP_TO_MASK(CAP_BPF);
              if (::syscall(SYS_capset, &version, sets.data()) != 0) return "no capabilities: " + name_of(-1);
              auto feeder = Guard::open();
              if (!feeder) return feeder.error().message;
              const auto nodes = nodes_of({kPort});
              auto claim = feeder->enforce(nodes, {.pidfd = service.owner.pidfd()}, Mode::exclusive);
              if (!claim) return claim.error().message;
              if (!feeder->is_watching()) return "watches nothing";
              if (const auto renewed = feeder->renew(*claim, guard::BootClock::now() + 1h); !renewed)
                return renewed.error().message;
              const std::string others = stranger();
              feeder->release(*claim);
              feeder->rest();
              return others + (feeder->is_watching() ? ", watches yet" : "") + ", then " + stranger();
            }),
            "EBUSY, then OK");
}

// --- Which process is which

TEST_F(Hostile, a_process_number_used_again_owns_nothing) {
  Child root{[](Peer& test) {
    test.hear();
    if (::fork() == 0) {
      ::prctl(PR_SET_PDEATHSIG, 0);
      ::pause();
    }
    test.tell("forked");
    test.hear();
    return 0;
  }};
  const pid_t number = root.pid();
  enforce({kPort}, {.pidfd = root.pidfd(), .scope = OwnerScope::tree, .ends = Owner::Ends::with_last_member});
  root.tell("fork");
  ASSERT_EQ(root.hear(), "forked");
  root.kill();
  ASSERT_EQ(root.reap(), 128 + SIGKILL);
  EXPECT_EQ(in_a_child([&]() -> std::string {
              const pid_t again = fork_as(number);
              if (again == 0) ::_exit(::getpid() == number ? (opened(kPort) == "EBUSY" ? 7 : 8) : 9);
              int status = 0;
              if (again != number || ::waitpid(again, &status, 0) != again) return "no such number: " + name_of(-1);
              return std::to_string(WEXITSTATUS(status));
            }),
            "7");
}

TEST_F(Hostile, namespaces_of_processes_and_users_make_nobody_an_owner) {
  Child owner{[](Peer& test) {
    if (::unshare(CLONE_NEWPID | CLONE_NEWNS) != 0) return 1;
    const pid_t inside = ::fork();
    if (inside == 0) {  // its number is 1 there
      test.hear();
      test.tell(opened(kPort));
      test.hear();
      ::_exit(0);
    }
    test.tell(std::to_string(inside));
    ::waitpid(inside, nullptr, 0);
    return 0;
  }};
  const base::UniqueFd pidfd = pidfd_of(std::stoi(owner.hear()));
  enforce({kPort}, {.pidfd = pidfd.get()});
  owner.tell("open");
  EXPECT_EQ(owner.hear(), "OK");
  const auto number_one_elsewhere = [](int flags) {
    return in_a_child([&]() -> std::string {
      if (::unshare(flags) != 0) return name_of(-1);
      const pid_t inside = ::fork();
      if (inside == 0) ::_exit(::getpid() == 1 && opened(kPort) == "EBUSY" ? 7 : 8);
      int status = 0;
      ::waitpid(inside, &status, 0);
      return std::to_string(WEXITSTATUS(status));
    });
  };
  EXPECT_EQ(number_one_elsewhere(CLONE_NEWPID), "7");
  EXPECT_EQ(number_one_elsewhere(CLONE_NEWPID | CLONE_NEWUSER), "7");
}

struct Kind {
  const char* name;
  int flags;
};
void PrintTo(const Kind& kind, std::ostream* out) { *out << kind.name; }  // NOLINT(readability-identifier-naming)

class HostileChildren : public GuardTest, public testing::WithParamInterface<std::tuple<Kind, OwnerScope>> {};

struct Inherited {
  int port;
  int answer;
};

// What reading the inherited descriptor is answered.
int read_inherited(void* raw) {
  const Inherited& given = *static_cast<Inherited*>(raw);
  char byte = 0;
  const bool busy = ::read(given.port, &byte, 1) < 0 && errno == EBUSY;
  return ::write(given.answer, busy ? "EBUSY" : "OK", 6) == 6 ? 0 : 1;
}

TEST_P(HostileChildren, is_a_stranger_to_the_process_and_a_member_of_the_tree) {
  const auto [kind, scope] = GetParam();
  Child parent{[flags = kind.flags](Peer& test) {
    const base::UniqueFd port{::open(kPort, O_RDWR | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)};
    test.tell(port ? "ready" : "cannot open");
    test.hear();
    int pipe[2];
    if (::pipe2(pipe, O_CLOEXEC) != 0) return 1;
    Inherited given{.port = port.get(), .answer = pipe[1]};
    alignas(16) static std::array<std::byte, 65536> stack;
    if (::clone(read_inherited, stack.data() + stack.size(), flags | SIGCHLD, &given) < 0) return 1;
    std::array<char, 8> answer{};
    test.tell(::read(pipe[0], answer.data(), answer.size()) > 0 ? answer.data() : "no answer");
    test.hear();
    return 0;
  }};
  ASSERT_EQ(parent.hear(), "ready");
  enforce({kPort}, {.pidfd = parent.pidfd(), .scope = scope});
  parent.tell("go");
  EXPECT_EQ(parent.hear(), scope == OwnerScope::process ? "EBUSY" : "OK");
}

INSTANTIATE_TEST_SUITE_P(guard, HostileChildren,
                         testing::Combine(testing::Values(Kind{"fork", 0}, Kind{"vfork", CLONE_VM | CLONE_VFORK},
                                                          Kind{"with_its_files", CLONE_FILES},
                                                          Kind{"as_a_sibling", CLONE_PARENT}),
                                          testing::Values(OwnerScope::process, OwnerScope::tree)),
                         [](const auto& one) {
                           return std::string{std::get<0>(one.param).name} +
                                  (std::get<1>(one.param) == OwnerScope::tree ? "_in_a_tree" : "");
                         });

TEST_F(Hostile, an_owner_whose_first_thread_has_ended_owns_on) {
  Child owner{[](Peer& test) {
    std::thread{[&test] {
      test.hear();
      test.tell(opened(kPort));
      ::pause();
    }}.detach();
    ::syscall(SYS_exit, 0);  // of this thread
    return 0;
  }};
  enforce({kPort}, {.pidfd = owner.pidfd()});
  owner.tell("open");
  EXPECT_EQ(owner.hear(), "OK");
  EXPECT_EQ(stranger(), "EBUSY");
  owner.kill();
  EXPECT_EQ(stranger(), "OK");
}

// Its death is told to the one who traces it, not to its parent.
TEST_F(Hostile, the_death_of_an_owner_that_is_traced_ends_its_claim) {
  const Service service;
  enforce({kPort}, {.pidfd = service.owner.pidfd()});
  Child tracer{[&](Peer& test) {
    test.tell(name_of(::ptrace(PTRACE_SEIZE, service.owner.pid(), nullptr, nullptr)));
    test.hear();
    return 0;
  }};
  ASSERT_EQ(tracer.hear(), "OK");
  ASSERT_EQ(::kill(service.owner.pid(), SIGKILL), 0);
  ASSERT_TRUE(testing_support::wait_for_death(service.owner.pidfd()));
  EXPECT_TRUE(eventually([] { return stranger() == "OK"; }, {}));
  EXPECT_EQ(guard().switches().active, 0);
}

// What the owner lays on its disk is served by a thread of the kernel.
TEST_F(Hostile, the_kernels_threads_work_for_the_owner) {
  Child root{[](Peer& test) {
    test.hear();
    const auto made = interop::run_to_the_end({"losetup", "--find", "--show", kDisk});
    const std::string loop = made.output.substr(0, made.output.find_first_of("\r\n"));
    const auto through =
        interop::run_to_the_end({"dd", "if=/dev/zero", "of=" + loop, "bs=64k", "seek=800", "count=4", "oflag=direct"});
    const auto undone = interop::run_to_the_end({"losetup", "--detach", loop});
    test.tell(fmt::format("{} {} {}", made.status, through.status, undone.status));
    test.hear();
    return 0;
  }};
  enforce({kDisk}, {.pidfd = root.pidfd(), .scope = OwnerScope::tree});
  root.tell("go");
  EXPECT_EQ(root.hear(), "0 0 0");
}

// --- Storms and full maps

// Forks and dies without end, in a process group of its own.
[[noreturn]] void storm() {
  for (int generation = 0;; ++generation) {
    const pid_t child = ::fork();
    if (child == 0 && generation % 4 == 3) ::_exit(0);
    if (child > 0) {
      ::waitpid(child, nullptr, 0);
      if (generation % 8 == 7) ::_exit(0);
    }
  }
}

TEST_F(Hostile, an_owner_that_dies_in_a_storm_of_forks_leaves_nothing_behind) {
  const std::size_t processes = entries_of("processes");
  const std::size_t trees = entries_of("trees");
  for (const auto ends : {Owner::Ends::with_root, Owner::Ends::with_last_member}) {
    for (int turn = 0; turn < 3; ++turn) {
      Child root{[](Peer& test) {
        ::setpgid(0, 0);
        test.tell("ready");
        test.hear();
        for (int i = 0; i < 4; ++i)
          if (::fork() == 0) storm();
        test.tell("storm");
        while (::waitpid(-1, nullptr, 0) >= 0 || errno == EINTR)
          if (::fork() == 0) storm();
        return 0;
      }};
      ASSERT_EQ(root.hear(), "ready");
      enforce({kPort}, {.pidfd = root.pidfd(), .scope = OwnerScope::tree, .ends = ends});
      root.tell("go");
      ASSERT_EQ(root.hear(), "storm");
      EXPECT_EQ(stranger(), "EBUSY");
      root.kill();
      if (ends == Owner::Ends::with_root) {
        EXPECT_EQ(stranger(), "OK") << "while the storm goes on";
      }
      EXPECT_TRUE(eventually(
          [&] {
            ::kill(-root.pid(), SIGKILL);
            return guard().switches().active == 0 && entries_of("processes") <= processes + 1;
          },
          {}))
          << entries_of("processes");
      EXPECT_EQ(stranger(), "OK");
    }
  }
  EXPECT_EQ(entries_of("trees"), trees);
}

// Says what its next child is answered, as often as it is asked to; the children live on.
int bear_children(Peer& test) {
  ::setpgid(0, 0);
  while (test.hear() == "fork")
    if (::fork() == 0) {
      test.tell(opened(kPort));
      while (true) ::pause();
    }
  ::kill(0, SIGKILL);
  return 0;
}

TEST_F(Hostile, a_tree_that_is_too_large_shuts_out_its_own_and_nobody_else) {
  Child root{bear_children};
  const auto lost = guard().switches().lost_members;
  const auto claim = enforce({kPort}, {.pidfd = root.pidfd(), .scope = OwnerScope::tree});
  // As if it had forked so often: under emulation that takes minutes.
  const auto trees = guard::pinned({}, "map_trees");
  ASSERT_TRUE(trees);
  const auto number = static_cast<std::uint32_t>(claim.owner.start);
  hf_guard_tree tree{};
  ASSERT_EQ(bpf_map_lookup_elem(trees->get(), &number, &tree), 0);
  EXPECT_EQ(tree.members, 1);
  tree.members = HF_GUARD_TREE_MEMBERS - 1;
  ASSERT_EQ(bpf_map_update_elem(trees->get(), &number, &tree, BPF_EXIST), 0);
  root.tell("fork");
  EXPECT_EQ(root.hear(), "OK") << "the last for which there is room";
  root.tell("fork");
  EXPECT_EQ(root.hear(), "EBUSY");
  EXPECT_EQ(guard().switches().lost_members - lost, 1U);
  root.tell("end");
  root.reap();
}

TEST_F(Hostile, with_a_full_map_claims_hold_children_are_strangers_and_new_claims_are_refused) {
  Child root{[](Peer& test) {
    while (test.hear() == "fork") {
      const pid_t child = ::fork();
      if (child == 0) {
        test.tell(opened(kPort));
        ::_exit(0);
      }
      ::waitpid(child, nullptr, 0);
    }
    return 0;
  }};
  const Service other;
  enforce({kPort}, {.pidfd = root.pidfd(), .scope = OwnerScope::tree});
  const auto map = guard::pinned({}, "map_processes");
  ASSERT_TRUE(map);
  const hf_guard_member filler{};
  std::vector<hf_guard_process> made;
  for (hf_guard_process process{.tgid = 1U << 30, .zero = 0, .start = 1};; ++process.start) {
    if (bpf_map_update_elem(map->get(), &process, &filler, BPF_NOEXIST) != 0) break;
    made.push_back(process);
  }
  root.tell("fork");
  EXPECT_EQ(root.hear(), "EBUSY") << "a child that does not fit is none of the tree";
  EXPECT_EQ(stranger(), "EBUSY");
  const auto refused = guard().enforce(nodes_of({kDisk}), {.pidfd = other.owner.pidfd()}, Mode::exclusive);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, errc::no_resources) << refused.error().message;
  EXPECT_EQ(in_a_child([] { return opened(kDisk, O_RDONLY); }), "OK") << "all or nothing";
  EXPECT_EQ(guard().switches().active, 1);
  for (const hf_guard_process& process : made) bpf_map_delete_elem(map->get(), &process);
  root.tell("fork");
  EXPECT_EQ(root.hear(), "OK");
}

TEST_F(Hostile, one_device_too_many_is_refused_and_the_others_stay_guarded) {
  const Service service;
  const Service greedy;
  enforce({kPort}, {.pidfd = service.owner.pidfd()});
  const auto claim =
      guard().enforce(made_up_nodes(0, HF_GUARD_SLOTS - 1), {.pidfd = greedy.owner.pidfd()}, Mode::exclusive);
  ASSERT_TRUE(claim) << claim.error().message;
  const auto refused = guard().enforce(nodes_of({kDisk}), {.pidfd = greedy.owner.pidfd()}, Mode::exclusive);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, errc::no_resources);
  EXPECT_EQ(in_a_child([] { return opened(kDisk, O_RDONLY); }), "OK");
  EXPECT_EQ(stranger(), "EBUSY");
  EXPECT_EQ(in_a_child([] { return opened("/dev/null", O_WRONLY); }), "OK");
  guard().release(*claim);
  EXPECT_EQ(guard().switches().active, 1);
}

TEST_F(Hostile, a_feeder_that_sees_ever_new_devices_does_not_fill_the_maps) {
  const Service service;
  const Owner owner{.pidfd = service.owner.pidfd()};
  constexpr unsigned kAtOnce = HF_GUARD_SLOTS / 2;
  for (unsigned first = 0; first < 3 * HF_GUARD_OWNERS; first += kAtOnce) {
    const auto claim = guard().enforce(made_up_nodes(first, kAtOnce), owner, Mode::exclusive);
    ASSERT_TRUE(claim) << first << ": " << claim.error().message;
    guard().release(*claim);
  }
  EXPECT_LE(entries_of("guarded"), std::size_t{HF_GUARD_SLOTS});
}

// --- A feeder gone mad

// Writes the maps as if there were no list of what is never guarded.
class Forced {
 public:
  explicit Forced(const hf_guard_device& device) : device_{device} {
    // An old one's, whom nobody owns any more: the map may be full of those.
    EXPECT_EQ(bpf_map_lookup_elem(map("slots").get(), &kSlot, &before_), 0);
    bpf_map_delete_elem(map("guarded").get(), &before_.device);
    hf_guard_slot slot{};
    slot.device = device;
    slot.owners = 1;
    EXPECT_EQ(bpf_map_update_elem(map("slots").get(), &kSlot, &slot, BPF_ANY), 0);
    EXPECT_EQ(bpf_map_update_elem(map("guarded").get(), &device, &kSlot, BPF_ANY), 0);
    count(+1);
  }
  Forced(const Forced&) = delete;
  Forced& operator=(const Forced&) = delete;
  ~Forced() {
    count(-1);
    bpf_map_delete_elem(map("guarded").get(), &device_);
    bpf_map_update_elem(map("slots").get(), &kSlot, &before_, BPF_ANY);
    if (before_.device.dev != 0) bpf_map_update_elem(map("guarded").get(), &before_.device, &kSlot, BPF_ANY);
  }

 private:
  static constexpr std::uint32_t kSlot = HF_GUARD_SLOTS - 1;
  static base::UniqueFd map(const std::string& name) {
    auto fd = guard::pinned({}, "map_" + name);
    EXPECT_TRUE(fd);
    return fd ? std::move(*fd) : base::UniqueFd{};
  }
  void count(int more) const {
    const std::uint32_t zero = 0;
    hf_guard_switches all{};
    EXPECT_EQ(bpf_map_lookup_elem(map("switches").get(), &zero, &all), 0);
    all.active += more;
    all.filter[hf_guard_hash(&device_)] = static_cast<__u16>(all.filter[hf_guard_hash(&device_)] + more);
    EXPECT_EQ(bpf_map_update_elem(map("switches").get(), &zero, &all, BPF_ANY), 0);
  }
  hf_guard_device device_;
  hf_guard_slot before_{};
};

TEST_F(Hostile, a_feeder_gone_mad_cannot_shut_the_memory_devices_and_the_consoles) {
  const Service service;
  enforce({kPort}, {.pidfd = service.owner.pidfd()});  // so that all hooks are there
  for (const char* const path : {"/dev/null", "/dev/zero", "/dev/urandom", "/dev/ptmx", "/dev/console", "/dev/tty1"}) {
    const auto node = device::look_at(path);
    ASSERT_TRUE(node);
    const Forced guarded{guard::key_of(node->id)};
    EXPECT_EQ(in_a_child([&] { return opened(path); }), "OK") << path;
  }
  // The judge can say no: the console's own name is on the feeder's list only, and /dev/console works all the same.
  const auto serial = device::look_at("/dev/ttyS0");
  ASSERT_TRUE(serial);
  const Forced guarded{guard::key_of(serial->id)};
  EXPECT_EQ(in_a_child([&] { return opened("/dev/ttyS0"); }), "EBUSY");
  EXPECT_EQ(in_a_child([]() -> std::string {
              const base::UniqueFd console{::open("/dev/console", O_WRONLY | O_NOCTTY | O_CLOEXEC)};
              return name_of(console.get()) + ", write " + name_of(::write(console.get(), "\n", 1));
            }),
            "OK, write OK");
}

TEST_F(Hostile, a_feeder_gone_mad_does_not_stop_a_mounted_file_system) {
  const auto made = interop::run_to_the_end({"mkfs.ext4", "-q", "-F", "/dev/vda1"});
  ASSERT_EQ(made.status, 0) << made.output;
  ASSERT_EQ(interop::run_to_the_end({"mount", "/dev/vda1", "/mnt"}).status, 0);
  const Service service;
  enforce({kPort}, {.pidfd = service.owner.pidfd()});
  {
    const auto node = device::look_at("/dev/vda1");
    ASSERT_TRUE(node);
    const Forced guarded{guard::key_of(node->id)};
    EXPECT_EQ(in_a_child([] { return opened("/dev/vda1", O_RDONLY); }), "EBUSY");
    EXPECT_EQ(interop::run_to_the_end({"dd", "if=/dev/zero", "of=/mnt/file", "bs=64k", "count=8", "conv=fsync"}).status,
              0);
    EXPECT_EQ(interop::run_to_the_end({"mount", "-o", "remount,ro", "/mnt"}).status, 0);
    EXPECT_EQ(interop::run_to_the_end({"umount", "/mnt"}).status, 0);
  }
}

// --- A feeder that died between telling the kernel and writing it down

TEST_F(Hostile, who_takes_over_ends_what_nobody_knows_of) {
  const Service known;
  const Service unknown;
  const auto kept = enforce({kPort}, {.pidfd = known.owner.pidfd()});
  enforce({kPort}, {.pidfd = known.owner.pidfd()}, Mode::shared);  // the same owner once more, of which no record is
  enforce({kDisk}, {.pidfd = unknown.owner.pidfd(), .scope = OwnerScope::tree});
  EXPECT_EQ(in_a_child([] { return opened(kDisk, O_RDONLY); }), "EBUSY");
  EXPECT_EQ(guard().settle(std::array{kept}), 1U);
  EXPECT_EQ(in_a_child([] { return opened(kDisk, O_RDONLY); }), "OK");
  EXPECT_EQ(stranger(), "EBUSY");
  guard().release(kept);
  EXPECT_EQ(stranger(), "OK") << "one release for the one claim that is known";
}

}  // namespace
}  // namespace holdfast::vm
