// SPDX-License-Identifier: MIT
#include "vm/support/burning.hpp"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <random>

namespace holdfast::vm {
namespace {

std::string noise(std::size_t bytes) {
  std::mt19937 random{4711};
  std::string text(bytes, '\0');
  for (char& byte : text) byte = static_cast<char>(random());
  return text;
}

bool is_write(const Burner::Command& command) { return command.name.starts_with("WRITE"); }

}  // namespace

Contender::Contender(const interop::Words& command) {
  interop::Words script{"sh", "-c", R"(while :; do "$@" </dev/null >/dev/null 2>&1; echo "status $?;"; done)", "sh"};
  script.insert(script.end(), command.begin(), command.end());
  loop_ = std::make_unique<interop::Program>(script, interop::Stdio::pipes);
}

int Contender::times(const std::string& text) const {
  int count = 0;
  for (auto at = loop_->output().find(text); at != std::string::npos; at = loop_->output().find(text, at + 1)) ++count;
  return count;
}

std::string all_of(const std::string& file) {
  std::ifstream in{file, std::ios::binary};
  return {std::istreambuf_iterator<char>{in}, {}};
}

std::vector<std::string> intruders_in(const std::vector<Burner::Command>& commands) {
  const auto first = std::ranges::find_if(commands, is_write);
  const auto last = std::find_if(commands.rbegin(), commands.rend(), is_write).base();
  std::vector<std::string> names;
  for (auto one = first; one < last; ++one)
    if (!is_write(*one) && one->name != "READ_BUFFER_CAPACITY") names.push_back(one->name);
  return names;
}

void Burning::SetUp() {
  if (!interop::is_installed("cdrskin")) GTEST_SKIP() << "cdrskin is not installed";
  std::ofstream{image_, std::ios::binary} << noise(kImage);
}

bool Burning::is_writing() const { return std::ranges::any_of(burner_.commands(), is_write); }

}  // namespace holdfast::vm
