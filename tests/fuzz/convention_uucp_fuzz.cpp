// SPDX-License-Identifier: MIT
// convention_uucp_fuzz.cpp - what anybody may leave in a world-writable lock directory: a UUCP lock file's bytes, and
// its name. The bytes decide whether a device counts as taken, so only a number that a process can have may count as
// one.
#include "fuzz.hpp"

#include "convention/uucp.hpp"

#include <string>

using namespace holdfast;
using fuzz::require;

namespace {

void content(std::string_view bytes) {
  using Kind = convention::UucpContent::Kind;
  const convention::UucpContent found = convention::parse_uucp(bytes);
  require((found.kind == Kind::empty) == bytes.empty(), "only an empty file is empty");
  require((found.kind == Kind::pid) == (found.pid > 0), "a process has a number, and nothing else has one");
  require(found.pid >= 0, "no negative process");
  if (found.kind != Kind::pid) return;
  char canonical[32];
  const int length = std::snprintf(canonical, sizeof canonical, "%10d\n", found.pid);
  const auto again = convention::parse_uucp({canonical, static_cast<std::size_t>(length)});
  require(again.kind == Kind::pid && again.pid == found.pid, "the canonical form says the same");
}

void names(std::string_view text) {
  if (convention::is_uucp_name(text)) {
    require(text.starts_with("LCK.") || text.starts_with("LK."), "a lock file's name begins like one");
    require(text.size() > 3, "a prefix alone is no name");
  }
  device::Device device;
  device.node.id = {device::Kind::character, 188, 0, 0};
  device.node.path = "/dev/ttyUSB0";
  device.given = text;
  device.links = {"/dev/" + std::string{text}};
  const convention::UucpNames derived = convention::uucp_names(device, device.node);
  for (const auto* list : {&derived.create, &derived.watch})
    for (const std::string& name : *list) {
      require(name.find('/') == std::string::npos, "no name leads out of the lock directory");
      require(name.size() <= 255, "every name can be a file's");
      require(name != "." && name != "..", "no name is a directory's");
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view bytes = fuzz::text_of(data, size);
  content(bytes);
  names(bytes);
  return 0;
}
