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

[[nodiscard]] Taken adopt_proxy(const Subject& subject, const Terms& terms, HandedOver& given);
[[nodiscard]] Taken adopt_ddlp(const Subject& subject, const Terms& terms, HandedOver& given);
[[nodiscard]] Taken adopt_uucp(const Subject& subject, const Terms& terms, HandedOver& given);
[[nodiscard]] Taken adopt_whole_disk(const Subject& subject, const Terms& terms, HandedOver& given);
[[nodiscard]] Taken adopt_flock(const Subject& subject, const Terms& terms, HandedOver& given);
[[nodiscard]] Taken adopt_posix(const Subject& subject, const Terms& terms, HandedOver& given);
[[nodiscard]] Taken adopt_o_excl(const Subject& subject, const Terms& terms, HandedOver& given);
[[nodiscard]] Taken adopt_driver_lock(const Subject& subject, const Terms& terms, HandedOver& given);
[[nodiscard]] Taken adopt_tiocexcl(const Subject& subject, const Terms& terms, HandedOver& given);

/// Why a mark that was handed over is not believed.
[[nodiscard]] Obstacle not_believed(const Subject& subject, std::string_view means);
/// Whether the descriptor is the regular file that the path names, open for reading and writing.
[[nodiscard]] bool is_lock_file(int fd, const std::string& path);

/// Missing and uncreatable: the claim goes on without it (DDLP's rule). There but unusable: it fails.
[[nodiscard]] Obstacle lock_file_obstacle(const Subject& subject, const std::string& path, LockFileError error);

/// Whether `subject` is a node of an optical drive.
[[nodiscard]] bool is_optical(const Subject& subject);

}  // namespace holdfast::convention
