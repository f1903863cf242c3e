// SPDX-License-Identifier: MIT
// loop.hpp - a free loop device over a file of the caller's.
#pragma once

#include <cstdint>
#include <string>

namespace holdfast::testing_support {

/// Binds a free loop device to the open file; its path, or an empty one with errno. `flags` are LO_FLAGS_*.
///
/// Tests of all programs do this one at a time: LOOP_CONFIGURE takes a device exclusively for a moment even when it
/// turns out to be in use (drivers/block/loop.c, loop_configure()), and a claim of its user would meet that.
[[nodiscard]] std::string attach_loop(int file, std::uint32_t flags = 0);
void detach_loop(const std::string& path);

}  // namespace holdfast::testing_support
