// SPDX-License-Identifier: MIT
// listening.hpp - where clients find us.
#pragma once

#include "base/unique_fd.hpp"

#include <holdfast/error.hpp>

#include <string>

namespace holdfast::broker {

/// The socket that systemd handed over (sd_listen_fds(3)), or one of our own at `path`, for everybody, or for `group`
/// alone. One of our own appears by rename, so that whoever sees it can connect; what stood there before is replaced.
[[nodiscard]] Result<base::UniqueFd> listen_at(const std::string& path, const std::string& group);

}  // namespace holdfast::broker
