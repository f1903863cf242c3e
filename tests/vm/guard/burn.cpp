// SPDX-License-Identifier: MIT
// burn.cpp - a burn under `holdfast run --guard`, with a real broker, while programs that know nothing of us, all root,
// want the drive by both its nodes.
#include "guard/programs.hpp"
#include "process/support/broker.hpp"
#include "process/support/shell.hpp"
#include "vm/guard/support.hpp"
#include "vm/support/burning.hpp"

#include <fmt/format.h>
#include <gmock/gmock.h>

#include <algorithm>
#include <array>
#include <optional>

namespace holdfast::vm {
namespace {

using interop::eventually;
using interop::Program;
using interop::Stdio;
using interop::Words;
using testing_support::BrokerUnderTest;
using testing_support::ended;

class GuardedBurn : public Burning {
 protected:
  void SetUp() override {
    Burning::SetUp();
    if (IsSkipped()) return;
    ASSERT_TRUE(guard::install());
    broker_.emplace(std::vector<std::string>{"--history", scratch_ / "history"});
    environment_ = {"HOLDFAST_SOCKET=" + broker_->socket()};
  }
  [[nodiscard]] Program holdfast(Words words) const {
    words.insert(words.begin(), HOLDFAST_COMMAND);
    return Program{words, Stdio::pipes, environment_};
  }

  std::optional<BrokerUnderTest> broker_;
  Words environment_;
};

TEST_F(GuardedBurn, is_whole_and_each_intruder_is_refused_and_named) {
  const std::string back = scratch_ / "back";
  // cdrskin locks as it always does, and is the command's child.
  const std::string script = fmt::format(
      "echo ready; read a; cdrskin dev={} fs=0 {}; echo \"burnt: $?\"; dd if={} of={} bs=2048 count={}; read a",
      burner_.sr(), image_, burner_.sr(), back, kImage / 2048);
  Program watch = holdfast({"watch", burner_.sr(), burner_.sg()});
  Program command = holdfast({"run", "-n", "--guard", burner_.sr(), "--", "sh", "-c", script});
  ASSERT_TRUE(eventually([&] { return command.has_said("ready"); }, {&command})) << command.output();

  std::vector<std::unique_ptr<Contender>> contenders;
  for (const std::string& node : {burner_.sr(), burner_.sg()}) {
    contenders.push_back(std::make_unique<Contender>(Words{"wodim", "dev=" + node, "-toc"}));
    contenders.push_back(std::make_unique<Contender>(Words{"xorriso", "-indev", node, "-toc"}));
    contenders.push_back(std::make_unique<Contender>(Words{"dd", "if=" + node, "of=/dev/null", "count=1"}));
    contenders.push_back(
        std::make_unique<Contender>(Words{"python3", "-c", fmt::format("open('{}', 'rb', 0).read(1)", node)}));
  }
  contenders.push_back(std::make_unique<Contender>(Words{"eject", burner_.sr()}));
  contenders.push_back(std::make_unique<Contender>(Words{"cat", burner_.sr()}));
  ASSERT_TRUE(eventually([&] { return contenders.back()->tried() > 0; }, {&contenders.back()->loop()}));

  command.type("go\n");
  EXPECT_TRUE(eventually([&] { return command.has_said("burnt: "); }, {&command}, {}, 3 * interop::kPatience));
  EXPECT_TRUE(command.has_said("burnt: 0\n")) << command.output();
  EXPECT_TRUE(eventually([&] { return command.has_said(" copied"); }, {&command})) << command.output();
  EXPECT_TRUE(command.has_said(" of root was refused (")) << command.output();
  for (const auto& one : contenders) {
    EXPECT_TRUE(eventually([&] { return one->tried() > 0; }, {&one->loop()}));
    EXPECT_EQ(one->had(), 0) << one->loop().output();
  }
  constexpr std::array<const char*, 5> kIntruders{"wodim[", "xorriso[", "dd[", "python3[", "cat["};
  const auto all_named = [&] {
    return std::ranges::all_of(kIntruders, [&](const char* name) { return watch.has_said(name); });
  };
  EXPECT_TRUE(eventually(all_named, {&watch})) << watch.output();
  contenders.clear();
  const std::string history = ended(fmt::format("$H history -l 100000 {} {}", burner_.sr(), burner_.sg())).out;
  for (const std::string name : {"wodim", "xorriso", "dd", "python3", "cat"})
    EXPECT_THAT(history, testing::ContainsRegex("denied .* " + name + " ")) << name;
  EXPECT_THAT(intruders_in(burner_.commands()), testing::IsEmpty());

  command.type("end\n");
  EXPECT_TRUE(eventually([&] { return command.ended().has_value(); }, {&command}));
  EXPECT_EQ(ended("$H guard status").out, "the guard is on\nno device is guarded\n")
      << "the claim ended with the command";
  broker_.reset();
  interop::kill_strays(burner_.pid());
  const std::string image = all_of(image_);
  EXPECT_TRUE(burner_.content(kImage) == image) << "the disc is not what was to be burnt";
  EXPECT_TRUE(all_of(back) == image) << "what was read back is not what was to be burnt";
}

}  // namespace
}  // namespace holdfast::vm
