// SPDX-License-Identifier: MIT
// Lines of /proc/locks: the kernel writes them, but a container's /proc may be anything.
#include "observe/observe.hpp"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto line = holdfast::observe::parse_lock_line({reinterpret_cast<const char*>(data), size});
  // -1 is the kernel's word for "an open file description"; nothing below it exists.
  if (line && line->pid < -1) std::abort();
  return 0;
}
