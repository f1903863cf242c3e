// SPDX-License-Identifier: MIT
// burn.cpp - a burn under the guard while programs that know nothing of us, all root, want the drive by both its nodes.
#include "vm/guard/support.hpp"
#include "vm/support/burning.hpp"

#include <fmt/format.h>
#include <gmock/gmock.h>

#include <algorithm>
#include <set>

namespace holdfast::vm {
namespace {

using interop::eventually;
using interop::Program;
using interop::Stdio;
using interop::Words;

class GuardedBurn : public Burning {
 protected:
  void SetUp() override {
    Burning::SetUp();
    ASSERT_TRUE(guard::install());
    auto opened = guard::Guard::open();
    ASSERT_TRUE(opened) << opened.error().message;
    guard_.emplace(std::move(*opened));
  }
  std::optional<guard::Guard> guard_;
};

TEST_F(GuardedBurn, is_whole_and_each_intruder_is_refused_and_named) {
  const std::string back = scratch_ / "back";
  // No convention is taken, and cdrskin locks as it always does: what keeps the others out is the guard alone.
  const std::string script =
      fmt::format("read a; cdrskin dev={} fs=0 {}; echo \"burnt: $?\"; dd if={} of={} bs=2048 count={}; read a",
                  burner_.sr(), image_, burner_.sr(), back, kImage / 2048);
  Program command{{"sh", "-c", script}, Stdio::pipes};
  const auto claim = guard_->enforce(nodes_of({burner_.sr(), burner_.sg()}),
                                     {.pidfd = command.pidfd(), .scope = OwnerScope::tree}, Mode::exclusive);
  ASSERT_TRUE(claim) << claim.error().message;

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
  std::set<std::string> named;
  for (const auto& one : contenders) {
    EXPECT_TRUE(eventually([&] { return one->tried() > 0; }, {&one->loop()}));
    EXPECT_EQ(one->had(), 0) << one->loop().output();
  }
  guard_->drain([&](const guard::Denial& denial) { named.insert(denial.command); });
  contenders.clear();
  EXPECT_THAT(named, testing::IsSupersetOf({"wodim", "xorriso", "dd", "python3", "cat"}));
  EXPECT_THAT(intruders_in(burner_.commands()), testing::IsEmpty());
  command.type("end\n");
  EXPECT_TRUE(eventually([&] { return command.ended().has_value(); }, {&command}));
  EXPECT_EQ(guard_->switches().active, 0) << "the claim ended with the command";
  interop::kill_strays(burner_.pid());
  const std::string image = all_of(image_);
  EXPECT_TRUE(burner_.content(kImage) == image) << "the disc is not what was to be burnt";
  EXPECT_TRUE(all_of(back) == image) << "what was read back is not what was to be burnt";
}

}  // namespace
}  // namespace holdfast::vm
