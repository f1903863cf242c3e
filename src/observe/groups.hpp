// SPDX-License-Identifier: MIT
// groups.hpp - names of groups, without getgrgid(3): a statically linked command has no NSS. Private to the room.
#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>

namespace holdfast::observe {

/// The group's name from /etc/group, else its number.
[[nodiscard]] std::string group_name(gid_t gid);

/// Whether /etc/group lists the user as a member.
[[nodiscard]] bool is_listed_in_group(gid_t gid, std::string_view user);

}  // namespace holdfast::observe
