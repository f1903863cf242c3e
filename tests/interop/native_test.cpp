// SPDX-License-Identifier: MIT
// native_test.cpp - a real serial port, where a claim sets TIOCEXCL: what honours no convention is kept out by the
// kernel as long as it has not CAP_SYS_ADMIN. Each test is a cell of docs/interop.md.
//
// Nobody gets in here, so nothing is written to the port: it may be a console. The programs run as nobody on a node of
// their own, since the flag follows the device number and not the node.
#include "interop/serial_programs.hpp"
#include "process/support/devices.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <fstream>
#include <iterator>

namespace holdfast::interop {
namespace {

constexpr const char* kPort = "/dev/ttyS0";

// Those that get in on a pseudo-terminal.
std::vector<SerialProgram> heedless_programs() {
  std::vector<SerialProgram> rows;
  for (const SerialProgram& program : serial_programs())
    if (program.refusal.empty()) rows.push_back(program);
  return rows;
}

class RealPort : public testing::TestWithParam<SerialProgram> {
 protected:
  void SetUp() override {
    if (!is_installed(GetParam().binary)) GTEST_SKIP() << GetParam().binary << " is not installed";
    if (::geteuid() != 0) GTEST_SKIP() << "root, to make a node that nobody may open";
    struct stat port{};
    if (::stat(kPort, &port) != 0) GTEST_SKIP() << "a serial port " << kPort;
    if (::access("/proc/tty/driver/serial", R_OK) != 0) GTEST_SKIP() << "a UART behind " << kPort;
    node_ = scratch_ / "ttyS0";
    ASSERT_EQ(::mknod(node_.c_str(), S_IFCHR | 0666, port.st_rdev), 0);
    ASSERT_EQ(::chmod(node_.c_str(), 0666), 0);
    const base::UniqueFd fd{::open(node_.c_str(), O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC)};
    if (!fd) GTEST_SKIP() << "a UART behind " << kPort;
    adopt_strays();
  }
  void TearDown() override { kill_strays(); }

  testing_support::TurnAtThePort turn_;
  Scratch scratch_;
  std::string node_;
};

TEST_P(RealPort, a_claim_keeps_it_out_by_the_kernel_if_it_is_not_root) {
  Program holder{holdfast({"claim", "-w", "10", kPort}), Stdio::pipes};  // another test may have it
  ASSERT_TRUE(eventually([&] { return holder.has_said("claimed") || holder.ended(); }, {&holder}));
  if (holder.ended()) GTEST_SKIP() << "a serial port that nobody holds: " << holder.output();
  {
    const base::UniqueFd flag{::open(kPort, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC)};
    int set = 0;
    ASSERT_EQ(::ioctl(flag.get(), TIOCGEXCL, &set), 0);
    ASSERT_EQ(set, 1) << "the port must be closed to the program before it is started";
  }
  const User user = nobody();
  const std::string sockets = scratch_ / "sockets";
  ASSERT_EQ(::mkdir(sockets.c_str(), 0700), 0);
  ASSERT_EQ(::chown(sockets.c_str(), user.uid, user.gid), 0);
  Started started = GetParam().start(node_, scratch_);
  // strace(1) tells what the kernel answers, whatever the program then says or does.
  const std::string log = scratch_ / "calls";
  Words traced{"strace", "-f", "-qq", "-e", "trace=openat", "-e", "signal=none", "-P", node_, "-o", log};
  traced.insert(traced.end(), started.command.begin(), started.command.end());
  Program one{traced, Stdio::terminal, started.environment, user};
  const auto calls = [&] {
    std::ifstream file{log};
    return std::string{std::istreambuf_iterator<char>{file}, {}};
  };
  EXPECT_TRUE(eventually([&] { return calls().find("= -1 EBUSY") != std::string::npos; }, {&one})) << one.output();
  EXPECT_THAT(openers(kPort, GetParam().comm), testing::IsEmpty());
  holder.end_input();
  EXPECT_TRUE(eventually([&] { return holder.ended().has_value(); }, {&holder}));
  record(GetParam().row, "a_claim_keeps_it_out_by_the_kernel_if_it_is_not_root", "yes");
}

INSTANTIATE_TEST_SUITE_P(interop, RealPort, testing::ValuesIn(heedless_programs()),
                         [](const auto& row) { return row.param.row; });

}  // namespace
}  // namespace holdfast::interop
