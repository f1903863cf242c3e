// SPDX-License-Identifier: MIT
// uucp.hpp - reading and naming UUCP/HDB/FHS lock files: shared by claim (through the table), run and observe.
#pragma once

#include "base/places.hpp"
#include "base/process.hpp"
#include "convention/convention.hpp"

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace holdfast::convention {

/// Names that the known programs derive for one terminal, without directory.
struct UucpNames {
  std::vector<std::string> create;  ///< to look at and to create
  std::vector<std::string> watch;   ///< to look at only (lockdev's ':' form)
};
[[nodiscard]] UucpNames uucp_names(const device::Device& device, const device::Node& node);

/// Whether a file name in the lock directory is a device's lock file ("LCK..x", "LK.000.004.064"), not some other lock.
[[nodiscard]] bool is_uucp_name(std::string_view file_name);

/// What a lock file's bytes say. Pure: fuzzed.
struct UucpContent {
  enum class Kind : std::uint8_t {
    empty,    ///< being written, or junk: stale for some programs, taken for others; we wait a moment and look again
    pid,      ///< a process id was found (text of any padding, or a 4- or 8-byte native integer)
    garbage,  ///< counts as taken: nobody can tell whose it is
  };
  Kind kind = Kind::garbage;
  pid_t pid = 0;
};
[[nodiscard]] UucpContent parse_uucp(std::string_view bytes);

/// Content that every known reader respects: "%10d\n" + executable name + "\n" + host name + "\n".
[[nodiscard]] std::string uucp_content(pid_t pid);

/// One lock file as found, judged.
struct UucpFile {
  std::string path;
  device::InodeId inode;
  UucpContent content;
  uid_t uid = 0;
  int errnum = 0;      ///< why it could not be read
  bool stale = false;  ///< its process is dead, or was born after the file was last written
};
/// nullopt when there is no such file. Opens O_NOFOLLOW|O_NONBLOCK, regular files only, reads at most 256 bytes; what
/// is not a regular file is reported as garbage.
[[nodiscard]] std::optional<UucpFile> read_uucp(const std::string& path);

}  // namespace holdfast::convention
