// SPDX-License-Identifier: MIT
// burner.cpp - see the header.
#include "vm/support/burner.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <csignal>
#include <fstream>
#include <iterator>
#include <sstream>

namespace holdfast::vm {
namespace {

using interop::Words;

Words command_of(const interop::Scratch& scratch, unsigned bytes_per_second, const std::string& content) {
  Words words{LAB_BURNER, "--size", "4", "--log", scratch / "log", "--image", scratch.file("disc", content)};
  if (bytes_per_second != 0) words.insert(words.end(), {"--rate", std::to_string(bytes_per_second)});
  return words;
}

}  // namespace

Burner::Burner(unsigned bytes_per_second, const std::string& content)
    : burner_{command_of(scratch_, bytes_per_second, content), interop::Stdio::pipes} {
  EXPECT_TRUE(interop::eventually([&] { return burner_.has_said("\n") || burner_.ended(); }, {&burner_}));
  std::istringstream words{burner_.output()};
  std::string ready;
  words >> ready >> sr_ >> sg_;
  EXPECT_EQ(ready, "ready") << burner_.output();
  // The drive is new to udevd, which looks at it and makes links.
  EXPECT_EQ(interop::run_to_the_end({"udevadm", "settle", "--timeout=30"}).status, 0);
}

Burner::~Burner() {
  burner_.kill(SIGTERM);
  EXPECT_TRUE(interop::eventually([&] { return burner_.ended().has_value(); }, {&burner_})) << "the drive is in use";
}

std::vector<Burner::Command> Burner::commands() const {
  std::vector<Command> all;
  std::ifstream log{scratch_ / "log"};
  for (std::string line; std::getline(log, line);) {
    std::istringstream words{line};
    std::string time;
    std::string drive;
    std::string sense;
    Command command;
    words >> time >> drive >> sense >> command.name;
    std::getline(words >> std::ws, command.bytes);
    all.push_back(std::move(command));
  }
  return all;
}

std::string Burner::content(std::size_t bytes) const {
  std::ifstream disc{scratch_ / "disc", std::ios::binary};
  std::string text(bytes, '\0');
  disc.read(text.data(), static_cast<std::streamsize>(bytes));
  text.resize(static_cast<std::size_t>(disc.gcount()));
  return text;
}

}  // namespace holdfast::vm
