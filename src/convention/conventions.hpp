// SPDX-License-Identifier: MIT
// conventions.hpp - the room's inside: what the table in table.cpp is made of. Other rooms use convention.hpp.
#pragma once

#include "convention/convention.hpp"
#include "convention/lock_file.hpp"

namespace holdfast::convention {

[[nodiscard]] Taken take_proxy(const Subject& subject, const Terms& terms);
[[nodiscard]] Taken take_ddlp(const Subject& subject, const Terms& terms);
[[nodiscard]] Taken take_uucp(const Subject& subject, const Terms& terms);
[[nodiscard]] Taken take_whole_disk(const Subject& subject, const Terms& terms);
[[nodiscard]] Taken take_flock(const Subject& subject, const Terms& terms);
[[nodiscard]] Taken take_posix(const Subject& subject, const Terms& terms);
[[nodiscard]] Taken take_o_excl(const Subject& subject, const Terms& terms);
[[nodiscard]] Taken take_driver_lock(const Subject& subject, const Terms& terms);
[[nodiscard]] Taken take_tiocexcl(const Subject& subject, const Terms& terms);

/// Missing and uncreatable: the claim goes on without it (DDLP's rule). There but unusable: it fails.
[[nodiscard]] Obstacle lock_file_obstacle(const Subject& subject, const std::string& path, LockFileError error);

/// Whether `subject` is a node of an optical drive.
[[nodiscard]] bool is_optical(const Subject& subject);

}  // namespace holdfast::convention
