// SPDX-License-Identifier: MIT
// node.hpp - a device node as stat(2) shows it.
#pragma once

#include "device/device.hpp"

#include <sys/stat.h>

#include <optional>
#include <string>

namespace holdfast::device {

/// nullopt when the facts are not a device's.
[[nodiscard]] std::optional<Node> node_from(const struct stat& facts, std::string path);

/// The device node at `path`, not through a link; nullopt when there is none.
[[nodiscard]] std::optional<Node> node_at(const std::string& path);

/// Whether the number is that of a pseudo-terminal's slave.
[[nodiscard]] bool is_pseudo_terminal(const DeviceId& id);

}  // namespace holdfast::device
