// SPDX-License-Identifier: MIT
// device_identity_test.cpp - names to devices on this machine: real terminals, and every argument that is not one.
#include "base/unique_fd.hpp"
#include "device/device.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fcntl.h>
#include <pty.h>
#include <sys/inotify.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <climits>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

namespace holdfast::device {
namespace {

using base::UniqueFd;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

struct Pty {
  UniqueFd master;
  UniqueFd slave;
  std::string path;

  Pty() {
    int controlling = -1;
    int controlled = -1;
    std::array<char, PATH_MAX> name{};
    if (::openpty(&controlling, &controlled, name.data(), nullptr, nullptr) != 0) return;
    master.reset(controlling);
    slave.reset(controlled);
    path = name.data();
  }
};

class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string name = "/tmp/holdfast-device-XXXXXX";
    if (::mkdtemp(name.data()) != nullptr) path_ = name;
  }
  ~TemporaryDirectory() { std::filesystem::remove_all(path_); }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  [[nodiscard]] std::string operator/(std::string_view name) const { return path_ + "/" + std::string{name}; }

 private:
  std::string path_;
};

void expect_error(const Result<Device>& result, errc code, std::string_view part) {
  ASSERT_FALSE(result.has_value());
  EXPECT_EQ(result.error().code, code) << result.error().message;
  EXPECT_THAT(result.error().message, HasSubstr(std::string{part}));
  EXPECT_THAT(result.error().message, Not(HasSubstr("\n")));
  EXPECT_LT(result.error().message.size(), 1024U);
}

TEST(DeviceNumber, is_written_with_its_kind_and_a_pty_with_its_file_system) {
  EXPECT_EQ(to_string(DeviceId{Kind::character, 4, 64}), "c4:64");
  EXPECT_EQ(to_string(DeviceId{Kind::block, 8, 0}), "b8:0");
  EXPECT_EQ(to_string(DeviceId{Kind::character, 136, 3, 24}), "c136:3@24");
}

TEST(DeviceNumber, is_read_back_and_nothing_else_is) {
  EXPECT_EQ(parse_number("c4:64"), (DeviceId{Kind::character, 4, 64}));
  EXPECT_EQ(parse_number("b259:1048575"), (DeviceId{Kind::block, 259, 1048575}));
  for (const std::string_view wrong : {"",
                                       "c",
                                       "b",
                                       "c4",
                                       "c4:",
                                       "c:4",
                                       "4:64",
                                       "c-4:64",
                                       "c4:-1",
                                       "c+4:64",
                                       "c 4:64",
                                       "c4: 64",
                                       "c4:64 ",
                                       "C4:64",
                                       "c4:64:0",
                                       "c0x4:64",
                                       "c4:99999999999999999999",
                                       "c4096:0",
                                       "c4:1048576",
                                       "/dev/null"})
    EXPECT_FALSE(parse_number(wrong)) << wrong;
}

TEST(DeviceNumber, orders_block_before_character_then_by_number) {
  EXPECT_LT((DeviceId{Kind::block, 259, 9}), (DeviceId{Kind::character, 1, 1}));
  EXPECT_LT((DeviceId{Kind::block, 8, 9}), (DeviceId{Kind::block, 11, 0}));
  EXPECT_LT((DeviceId{Kind::character, 4, 64}), (DeviceId{Kind::character, 4, 65}));
}

TEST(Identify, a_pty_by_path_link_relative_path_number_and_descriptor_is_one_device) {
  const Pty pty;
  ASSERT_TRUE(pty.slave);
  struct stat facts;
  ASSERT_EQ(::fstat(pty.slave.get(), &facts), 0);
  const TemporaryDirectory directory;
  const std::string link = directory / "link";
  ASSERT_EQ(::symlink(pty.path.c_str(), link.c_str()), 0);
  std::array<char, PATH_MAX> here{};
  ASSERT_NE(::getcwd(here.data(), here.size()), nullptr);
  std::string relative;
  for (const char c : std::string_view{here.data()}.substr(1))
    if (c == '/') relative += "../";
  relative += std::string_view{here.data()} == "/" ? pty.path.substr(1) : "../" + pty.path.substr(1);
  const std::string number = "c" + std::to_string(major(facts.st_rdev)) + ":" + std::to_string(minor(facts.st_rdev));

  for (const std::string& name : {pty.path, link, relative, number}) {
    const auto device = identify(name);
    ASSERT_TRUE(device) << device.error().message;
    EXPECT_EQ(device->given, name);
    EXPECT_EQ(device->node.path, pty.path);
    EXPECT_EQ(device->node.id.rdev(), facts.st_rdev);
    EXPECT_EQ(device->node.id.devpts, facts.st_dev);
    EXPECT_EQ(device->node.inode, (InodeId{facts.st_dev, facts.st_ino}));
    EXPECT_EQ(device->family, Family::pseudo_terminal);
    EXPECT_TRUE(device->siblings.empty());
  }
  const auto by_descriptor = identify(pty.slave.get());
  ASSERT_TRUE(by_descriptor) << by_descriptor.error().message;
  EXPECT_EQ(by_descriptor->given, pty.path);
  EXPECT_EQ(by_descriptor->node.path, pty.path);
}

TEST(Identify, two_ptys_are_two_devices) {
  const Pty one;
  const Pty other;
  ASSERT_TRUE(one.slave && other.slave);
  const auto first = look_at(one.path);
  const auto second = look_at(other.path);
  ASSERT_TRUE(first && second);
  EXPECT_NE(first->id, second->id);
  EXPECT_EQ(first->path, one.path);
}

// fsnotify tells of each open(2) of the node, ours included if there was one; the open at the end shows that it would.
TEST(Identify, never_opens_the_device) {
  const Pty pty;
  ASSERT_TRUE(pty.slave);
  const UniqueFd watch{::inotify_init1(IN_CLOEXEC | IN_NONBLOCK)};
  ASSERT_TRUE(watch);
  ASSERT_GE(::inotify_add_watch(watch.get(), pty.path.c_str(), IN_OPEN | IN_CLOSE | IN_ACCESS), 0);
  ASSERT_TRUE(identify(pty.path));
  ASSERT_TRUE(look_at(pty.path));
  ASSERT_TRUE(identify(pty.slave.get()));
  std::array<char, 4096> events{};
  EXPECT_EQ(::read(watch.get(), events.data(), events.size()), -1);
  EXPECT_EQ(errno, EAGAIN);
  const UniqueFd opened{::open(pty.path.c_str(), O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC)};
  ASSERT_TRUE(opened);
  EXPECT_GT(::read(watch.get(), events.data(), events.size()), 0) << "the watch sees nothing, so it proved nothing";
}

TEST(Identify, leaves_no_descriptor_behind) {
  const Pty pty;
  ASSERT_TRUE(pty.slave);
  const auto open_descriptors = [] {
    return std::distance(std::filesystem::directory_iterator{"/proc/self/fd"}, std::filesystem::directory_iterator{});
  };
  const auto before = open_descriptors();
  ASSERT_TRUE(identify(pty.path));
  ASSERT_TRUE(identify("/dev/null"));
  ASSERT_FALSE(identify("/dev"));
  EXPECT_EQ(open_descriptors(), before);
}

TEST(Identify, the_memory_devices_and_consoles_are_other) {
  for (const std::string_view name : {"/dev/null", "/dev/tty", "/dev/console", "/dev/ptmx", "/dev/tty0"}) {
    if (::access(std::string{name}.c_str(), F_OK) != 0) continue;
    const auto device = identify(name);
    ASSERT_TRUE(device) << device.error().message;
    EXPECT_EQ(device->family, Family::other) << name;
  }
  const auto null = identify("/dev/null");
  ASSERT_TRUE(null);
  EXPECT_EQ(null->node.id, (DeviceId{Kind::character, 1, 3}));
}

TEST(Identify, the_first_serial_port_is_a_terminal_with_a_driver) {
  struct stat facts;
  if (::stat("/dev/ttyS0", &facts) != 0 || ::access("/sys/dev/char/4:64", F_OK) != 0)
    GTEST_SKIP() << "needs /dev/ttyS0 and /sys";
  const auto device = identify("/dev/ttyS0");
  ASSERT_TRUE(device) << device.error().message;
  EXPECT_EQ(device->node.id, (DeviceId{Kind::character, 4, 64}));
  EXPECT_EQ(device->family, Family::terminal);
  EXPECT_EQ(device->subsystem, "tty");
  EXPECT_EQ(device->driver, "serial") << "the layers that Linux 6.5 put in between are no driver";
  EXPECT_THAT(device->unit, StartsWith("/sys/devices/"));
  const auto by_number = identify("c4:64");
  ASSERT_TRUE(by_number) << by_number.error().message;
  EXPECT_EQ(by_number->node.path, "/dev/ttyS0");
  EXPECT_EQ(by_number->given, "c4:64");
}

TEST(Identify, works_without_sysfs_and_udev) {
  if (::access("/dev/ttyS0", F_OK) != 0) GTEST_SKIP() << "needs /dev/ttyS0";
  base::Places bare;
  bare.sys = "/nonexistent";
  bare.udev_data = "/nonexistent";
  const auto device = identify("/dev/../dev/ttyS0", bare);
  ASSERT_TRUE(device) << device.error().message;
  EXPECT_EQ(device->node.path, "/dev/ttyS0");
  EXPECT_EQ(device->family, Family::terminal);
  EXPECT_TRUE(device->subsystem.empty());
  expect_error(identify("c4:64", bare), errc::no_such_device, "c4:64");
}

TEST(Identify, says_what_stands_there_instead_of_a_device) {
  const TemporaryDirectory directory;
  std::ofstream{directory / "file"} << "no device";
  ASSERT_EQ(::mkfifo((directory / "fifo").c_str(), 0600), 0);
  const UniqueFd socket{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  (directory / "socket").copy(address.sun_path, sizeof address.sun_path - 1);
  ASSERT_EQ(::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  expect_error(identify(directory / "file"), errc::not_a_device, "is a regular file");
  expect_error(identify(directory / "fifo"), errc::not_a_device, "is a FIFO");
  expect_error(identify(directory / "socket"), errc::not_a_device, "is a socket");
  expect_error(identify(directory / ""), errc::not_a_device, "is a directory");
  expect_error(identify(socket.get()), errc::not_a_device, "is a socket");
}

TEST(Identify, tells_a_missing_device_from_a_dangling_link_and_a_circle) {
  const TemporaryDirectory directory;
  ASSERT_EQ(::symlink("../../ttyUSB7", (directory / "dangling").c_str()), 0);
  ASSERT_EQ(::symlink("circle", (directory / "circle").c_str()), 0);
  std::ofstream{directory / "file"};
  expect_error(identify(directory / "nothing"), errc::no_such_device, "no such device");
  expect_error(identify(directory / "dangling"), errc::no_such_device, "is a link to ../../ttyUSB7");
  expect_error(identify(directory / "circle"), errc::no_such_device, "circle");
  expect_error(identify((directory / "file") + "/below"), errc::no_such_device, "file stands where");
  expect_error(identify("c4095:1048575"), errc::no_such_device, "no device of this number");
  expect_error(identify("c136:1048575"), errc::no_such_device, "no such device");
}

TEST(Identify, refuses_arguments_that_can_never_work) {
  expect_error(identify(""), errc::invalid_argument, "empty");
  expect_error(identify(std::string(1 << 20, 'x')), errc::invalid_argument, "so long a name");
  expect_error(identify("/dev/" + std::string(300, 'x')), errc::invalid_argument, "so long a name");
  expect_error(identify(std::string_view{"/dev/null\0", 10}), errc::invalid_argument, "NUL");
  expect_error(identify("/dev/\x1b[2Jevil\n"), errc::no_such_device, "/dev/?[2Jevil?");
  expect_error(identify(-1), errc::system_fault, "descriptor -1");
}

TEST(Identify, says_when_a_directory_is_closed_to_us) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root to become nobody";
  const TemporaryDirectory directory;
  ASSERT_EQ(::mkdir((directory / "closed").c_str(), 0700), 0);
  ASSERT_EQ(::seteuid(65534), 0);
  const auto device = identify(directory / "closed/ttyUSB0");
  ASSERT_EQ(::seteuid(0), 0);
  expect_error(device, errc::not_permitted, "closed to us");
}

class DescriptorLimit {
 public:
  explicit DescriptorLimit(rlim_t most) {
    ::getrlimit(RLIMIT_NOFILE, &before_);
    const rlimit tight{most, before_.rlim_max};
    ::setrlimit(RLIMIT_NOFILE, &tight);
  }
  ~DescriptorLimit() { ::setrlimit(RLIMIT_NOFILE, &before_); }
  DescriptorLimit(const DescriptorLimit&) = delete;
  DescriptorLimit& operator=(const DescriptorLimit&) = delete;

 private:
  rlimit before_{};
};

TEST(Identify, out_of_descriptors_is_an_error_and_not_a_device_without_neighbours) {
  if (::access("/sys/dev/char/1:3", F_OK) != 0) GTEST_SKIP() << "needs /sys";
  int next = -1;  // the lowest free descriptor
  {
    const UniqueFd probe{::open("/", O_PATH | O_CLOEXEC)};
    next = probe.get();
  }
  ASSERT_GE(next, 0);
  for (const int spare : {0, 1}) {  // none for the node; one for the node and none for sysfs
    Result<Device> device;
    {
      const DescriptorLimit limit{static_cast<rlim_t>(next + spare)};
      device = identify("/dev/null");
    }
    expect_error(device, errc::no_resources, "/dev/null");
    EXPECT_EQ(device.error().errnum, EMFILE);
  }
}

TEST(Recheck, accepts_the_same_node_and_refuses_another) {
  const Pty pty;
  const Pty other;
  ASSERT_TRUE(pty.slave && other.slave);
  const auto node = look_at(pty.path);
  ASSERT_TRUE(node);
  EXPECT_TRUE(recheck(pty.slave.get(), *node));
  const auto refused = recheck(other.slave.get(), *node);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, errc::gone);
  const UniqueFd file{::open("/proc/self/exe", O_RDONLY | O_CLOEXEC)};
  const auto no_device = recheck(file.get(), *node);
  ASSERT_FALSE(no_device);
  EXPECT_EQ(no_device.error().code, errc::gone);
}

TEST(Recheck, refuses_a_new_node_with_the_old_number) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root for mknod(2)";
  const TemporaryDirectory directory;
  const std::string path = directory / "null";
  const auto make = [&path] { return ::mknod(path.c_str(), S_IFCHR | 0600, makedev(1, 3)); };
  ASSERT_EQ(make(), 0);
  const UniqueFd old{::open(path.c_str(), O_PATH | O_CLOEXEC)};  // keeps the inode number from being used again
  const auto node = look_at(path);
  ASSERT_TRUE(node) << node.error().message;
  EXPECT_EQ(node->path, path);
  ASSERT_EQ(::unlink(path.c_str()), 0);
  ASSERT_EQ(make(), 0);
  const UniqueFd anew{::open(path.c_str(), O_PATH | O_CLOEXEC)};
  EXPECT_TRUE(recheck(old.get(), *node));
  const auto refused = recheck(anew.get(), *node);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, errc::gone);
}

}  // namespace
}  // namespace holdfast::device
