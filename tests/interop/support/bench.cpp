// SPDX-License-Identifier: MIT
// bench.cpp - see the header.
#include "interop/support/bench.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>

namespace holdfast::interop {

using base::UniqueFd;

Line::Line() {
  ::fcntl(pty_.master(), F_SETFL, ::fcntl(pty_.master(), F_GETFL) | O_NONBLOCK);
  // A line echoes nothing. The settings stay with the master when the slave is closed.
  const UniqueFd slave{::open(device().c_str(), O_RDWR | O_NOCTTY | O_CLOEXEC)};
  termios settings{};
  ::tcgetattr(slave.get(), &settings);
  ::cfmakeraw(&settings);
  ::cfsetspeed(&settings, B9600);
  ::tcsetattr(slave.get(), TCSANOW, &settings);
}

void Line::listen() {
  char bytes[4096];
  for (ssize_t got = 0; (got = ::read(pty_.master(), bytes, sizeof bytes)) > 0;)
    heard_.append(bytes, static_cast<std::size_t>(got));
}

void Line::say(std::string_view text) {
  if (::write(pty_.master(), text.data(), text.size()) != static_cast<ssize_t>(text.size())) std::abort();
}

Scratch::Scratch() {
  if (::chmod(path().c_str(), 0777) != 0) std::abort();
}

std::string Scratch::file(const std::string& name, const std::string& content) const {
  std::ofstream{directory_ / name} << content;
  return directory_ / name;
}

Words holdfast(const Words& arguments) {
  Words command{HOLDFAST_COMMAND};
  command.insert(command.end(), arguments.begin(), arguments.end());
  return command;
}

Words run_with(const std::string& device, const Words& command, const Words& options) {
  Words all = holdfast({"run", "-n"});
  all.insert(all.end(), options.begin(), options.end());
  all.push_back(device);
  all.emplace_back("--");
  all.insert(all.end(), command.begin(), command.end());
  return all;
}

Ending try_claim(const std::string& device, User user) {
  return run_to_the_end(holdfast({"claim", "-n", device}), {}, {}, user);
}

Words lock_files_of(const std::string& device) {
  const std::string number = device.substr(device.rfind('/') + 1);
  Words found;
  for (const std::string& name : {"LCK.." + number, "LCK..pts_" + number}) {
    const std::string path = "/run/lock/" + name;
    if (::access(path.c_str(), F_OK) == 0) found.push_back(path);
  }
  return found;
}

void record(const std::string& row, const std::string& column, const std::string& cell, const std::string& note) {
  testing::Test::RecordProperty("row", row);
  testing::Test::RecordProperty("column", column);
  testing::Test::RecordProperty("cell", cell);
  testing::Test::RecordProperty("note", note);
}

}  // namespace holdfast::interop
