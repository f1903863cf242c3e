// SPDX-License-Identifier: MIT
// groups.cpp - /etc/group by hand; its format is group(5): name:password:gid:member,member.
#include "observe/groups.hpp"

#include "observe/proc_scan.hpp"

#include <fcntl.h>

#include <algorithm>
#include <array>
#include <optional>

namespace holdfast::observe {
namespace {

using Fields = std::array<std::string, 4>;

std::optional<Fields> entry_of(gid_t gid) {
  const std::string text = read_text(AT_FDCWD, "/etc/group");
  for (std::string_view rest = text; !rest.empty();) {
    const auto end = std::min(rest.find('\n'), rest.size());
    std::string_view line = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    Fields fields;
    for (std::string& field : fields) {
      const auto colon = std::min(line.find(':'), line.size());
      field = line.substr(0, colon);
      line.remove_prefix(std::min(colon + 1, line.size()));
    }
    if (fields[2] == std::to_string(gid)) return fields;
  }
  return std::nullopt;
}

}  // namespace

std::string group_name(gid_t gid) {
  const auto entry = entry_of(gid);
  return entry ? (*entry)[0] : std::to_string(gid);
}

bool is_listed_in_group(gid_t gid, std::string_view user) {
  const auto entry = entry_of(gid);
  if (!entry) return false;
  for (std::string_view rest = (*entry)[3]; !rest.empty();) {
    const auto comma = std::min(rest.find(','), rest.size());
    if (rest.substr(0, comma) == user) return true;
    rest.remove_prefix(std::min(comma + 1, rest.size()));
  }
  return false;
}

}  // namespace holdfast::observe
