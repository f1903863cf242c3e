// SPDX-License-Identifier: MIT
// Lock files lie in a world-writable directory: their bytes and names are anybody's.
#include "convention/proxy.hpp"
#include "convention/uucp.hpp"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace holdfast::convention;
  const std::string_view bytes{reinterpret_cast<const char*>(data), size};
  const UucpContent content = parse_uucp(bytes);
  // A pid that is not one would be asked about with kill(2), where 0 and -1 mean "everybody".
  if (content.kind == UucpContent::Kind::pid && content.pid <= 0) std::abort();
  (void)is_uucp_name(bytes);
  (void)proxy_device(bytes);
  return 0;
}
