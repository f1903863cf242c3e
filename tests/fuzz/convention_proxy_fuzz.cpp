// SPDX-License-Identifier: MIT
// convention_proxy_fuzz.cpp - our own lock files, which anybody may write to: a record's bytes, shown by status to
// others, and a file's name, which leads to a device.
#include "fuzz.hpp"

#include "convention/proxy.hpp"

#include <string>

using namespace holdfast;
using fuzz::require;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view bytes = fuzz::text_of(data, size);
  if (const auto record = convention::parse_proxy_record(bytes)) {
    require(record->who.pid > 0, "a holder is a process");
    require(record->who.since.has_value(), "a holder holds since some time");
    require(fuzz::is_harmless(record->who.purpose) && record->who.purpose.size() <= 80, "a purpose can be shown");
    require(fuzz::is_harmless(to_string(record->who)), "a holder can be shown");
  }
  base::Places places;
  places.lock_dir = "/d";
  for (const std::string& name : {std::string{bytes}, "holdfast-" + std::string{bytes}})
    if (const auto id = convention::proxy_device(name))
      require(convention::proxy_path(*id, places) == "/d/" + name, "a device has one file");
  return 0;
}
