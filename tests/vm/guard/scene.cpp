// SPDX-License-Identifier: MIT
// scene.cpp - programs that know nothing of us, as root, want a guarded port on which there is no other mark: none gets
// a descriptor of it, and each is reported by name. (The drive's scene is burn.cpp.)
#include "vm/guard/support.hpp"

#include "interop/serial_programs.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <string_view>

namespace holdfast::vm {
namespace {

using interop::eventually;
using interop::SerialProgram;
using testing_support::Child;
using testing_support::Peer;

constexpr const char* kPort = "/dev/ttyUSB0";

// Of everybody's descriptors, as "PID:NUMBER".
std::vector<std::string> descriptors_of(const std::string& device) {
  std::vector<std::string> found;
  std::error_code error;
  for (const auto& process : std::filesystem::directory_iterator{"/proc", error})
    for (const auto& fd : std::filesystem::directory_iterator{process.path() / "fd", error})
      if (std::filesystem::read_symlink(fd, error) == device)
        found.push_back(process.path().filename().string() + ":" + fd.path().filename().string());
  return found;
}

std::vector<SerialProgram> programs() {
  // Not cu, which is no root: it gives up its rights before the open.
  constexpr std::array<std::string_view, 8> kNames{"picocom", "minicom",          "tio", "screen", "socat",
                                                   "gpsd",    "pyserial_default", "cat"};
  std::vector<SerialProgram> some;
  std::ranges::copy_if(interop::serial_programs(), std::back_inserter(some),
                       [&](const SerialProgram& one) { return std::ranges::find(kNames, one.row) != kNames.end(); });
  return some;
}

class Scene : public GuardTest, public testing::WithParamInterface<SerialProgram> {};

TEST_P(Scene, does_not_get_the_port_and_is_named) {
  const SerialProgram& program = GetParam();
  if (!interop::is_installed(program.binary)) GTEST_SKIP() << program.binary << " is not installed";
  Child owner{[](Peer& test) {
    const base::UniqueFd port{::open(kPort, O_RDWR | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)};
    test.tell(port ? "open" : "not open");
    test.hear();
    return 0;
  }};
  ASSERT_EQ(owner.hear(), "open");
  ASSERT_EQ(descriptors_of(kPort).size(), 1U) << "the owner's: the judge can see one";
  enforce({kPort}, {.pidfd = owner.pidfd()});
  static_cast<void>(denied());

  interop::adopt_strays();
  const interop::Scratch scratch;
  const auto started = program.start(kPort, scratch);
  interop::Program intruder{started.command, interop::Stdio::terminal, started.environment};
  const auto is_named = [&, name = program.comm + "["] {
    return std::ranges::any_of(denied(), [&](const std::string& one) {
      return one.starts_with(name) && one.ends_with(fmt::format(" open {}", kPort));
    });
  };
  EXPECT_TRUE(eventually(is_named, {&intruder}, {}, 3 * interop::kPatience)) << intruder.output();
  EXPECT_EQ(descriptors_of(kPort).size(), 1U) << testing::PrintToString(descriptors_of(kPort));
  interop::kill_strays(owner.pid());
}

INSTANTIATE_TEST_SUITE_P(guard, Scene, testing::ValuesIn(programs()),
                         [](const auto& program) { return program.param.row; });

}  // namespace
}  // namespace holdfast::vm
