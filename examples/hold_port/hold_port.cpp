// SPDX-License-Identifier: MIT
// hold_port - takes a serial port for itself, sends a line, and keeps the port until its input ends.
#include <holdfast/claim.hpp>

#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <string_view>

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: hold_port DEVICE\n");
    return 64;
  }

  holdfast::Options options;
  options.wait = holdfast::Wait::at_most(std::chrono::seconds{2});
  options.purpose = "example";
  auto claim = holdfast::claim(argv[1], options);
  if (!claim) {
    std::fprintf(stderr, "hold_port: %s\n", claim.error().message.c_str());
    return claim.error().code == holdfast::errc::timed_out ? 75 : 1;
  }

  const auto port = claim->fd();  // borrowed: open for use, with the locks in place
  constexpr std::string_view hello = "hello\n";
  if (!port || write(*port, hello.data(), hello.size()) != static_cast<ssize_t>(hello.size())) {
    std::perror("hold_port: write");
    return 1;
  }
  for (const std::string& node : claim->nodes()) std::printf("holding %s\n", node.c_str());
  std::fflush(stdout);

  while (std::getchar() != EOF) continue;
  claim->release();  // so would the destructor, and so would our death
  return 0;
}
