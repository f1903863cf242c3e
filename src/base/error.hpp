// SPDX-License-Identifier: MIT
// error.hpp - building holdfast::Error values. Fault text is "device: what failed: strerror".
#pragma once

#include <holdfast/error.hpp>

#include <string>
#include <string_view>

namespace holdfast::base {

/// The errc that an errno means when the call was about a device: EACCES/EPERM not_permitted, ENOENT/ENOTDIR/ELOOP
/// no_such_device, ENXIO/ENODEV gone, EMFILE/ENFILE/ENOMEM/ENOSPC/EDQUOT no_resources, EBUSY refused, else
/// system_fault.
[[nodiscard]] errc errc_from_errno(int errnum) noexcept;

/// `what` names the call or the file: fault(EMFILE, "open", "/dev/ttyS0").
[[nodiscard]] Error fault(int errnum, std::string_view what, std::string_view device);
/// The same with the code given instead of derived.
[[nodiscard]] Error fault(errc code, int errnum, std::string_view what, std::string_view device);
/// An error without errno: `message` is the whole line.
[[nodiscard]] Error failure(errc code, std::string message, std::string_view device);

/// strerror(3) without its buffer: thread-safe.
[[nodiscard]] std::string errno_text(int errnum);

/// `text` with control characters and bytes that are not UTF-8 replaced by '?', cut at `most` bytes: safe on a terminal
/// and in a lock file's line.
[[nodiscard]] std::string printable(std::string_view text, std::size_t most = 256);

}  // namespace holdfast::base
