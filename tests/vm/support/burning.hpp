// SPDX-License-Identifier: MIT
// burning.hpp - the scene of a burn that others may not disturb: an image, a burner that takes five seconds for it,
// and programs that try again and again to have the drive.
#pragma once

#include "vm/support/burner.hpp"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

namespace holdfast::vm {

/// A second program in a loop: how often it was refused, and how often it was not.
class Contender {
 public:
  explicit Contender(const interop::Words& command);
  interop::Program& loop() { return *loop_; }
  [[nodiscard]] int tried() const { return times("status "); }
  [[nodiscard]] int had() const { return times("status 0;"); }

 private:
  [[nodiscard]] int times(const std::string& text) const;
  std::unique_ptr<interop::Program> loop_;
};

/// What a file holds.
[[nodiscard]] std::string all_of(const std::string& file);

/// The commands between the first and the last WRITE that are none of cdrskin's.
[[nodiscard]] std::vector<std::string> intruders_in(const std::vector<Burner::Command>& commands);

inline constexpr std::size_t kImage = std::size_t{1} << 19;
inline constexpr unsigned kBurningRate = 100'000;  // bytes per second: five seconds

/// An image to burn and a burner; without cdrskin the test is skipped.
class Burning : public testing::Test {
 protected:
  void SetUp() override;
  [[nodiscard]] bool is_writing() const;

  interop::Scratch scratch_;
  std::string image_ = scratch_ / "image";
  Burner burner_{kBurningRate};
};

}  // namespace holdfast::vm
