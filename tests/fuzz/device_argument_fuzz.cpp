// SPDX-License-Identifier: MIT
// A device argument may be anything that fits into argv. Nothing is opened; whatever is found must print as it was read.
#include "device/device.hpp"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace holdfast::device;
  const std::string_view argument{reinterpret_cast<const char*>(data), size};
  const auto number = parse_number(argument);
  if (number && parse_number(to_string(*number)) != number) std::abort();
  const auto found = identify(argument);
  if (!found && found.error().message.empty()) std::abort();
  if (found && found->node.path.empty()) std::abort();
  return 0;
}
