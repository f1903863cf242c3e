// SPDX-License-Identifier: MIT
// lock_file.hpp - files in directories that anybody may write to. A file appears complete, under its final name, in
// one step (O_TMPFILE and link), so a kill leaves none half made; nothing planted there is followed or written to.
#pragma once

#include "base/places.hpp"
#include "base/process_fd.hpp"
#include "base/unique_fd.hpp"
#include "device/device.hpp"

#include <expected>
#include <string>
#include <string_view>

namespace holdfast::convention {

/// Opens a lock file for locking, read-write, made with mode 0666 if it is missing.
/// \returns errno: EACCES/EPERM/EROFS/ENOENT with `existed == false` when it is missing and cannot be made; with
///          `existed == true` when it is there and cannot be used; EMLINK for a file with several names, EINVAL for
///          something that is not a regular file (ELOOP for a symbolic link)
struct LockFileError {
  int errnum = 0;
  bool existed = false;
};
struct LockFile {
  base::ProcessFd fd;
  device::InodeId inode;
};
[[nodiscard]] std::expected<LockFile, LockFileError> open_lock_file(const std::string& path);

/// A name in a lock directory that no other thread uses, for a file on its way to `other_name`.
[[nodiscard]] std::string private_name(std::string_view other_name);
/// Removes such names of processes that were killed half-way.
void sweep_private_names(int directory);

/// A complete file with no name yet, owned by us, in `directory`.
class UnnamedFile {
 public:
  /// \returns errno of the failing call
  static std::expected<UnnamedFile, int> make(int directory, std::string_view content, mode_t mode);
  UnnamedFile(UnnamedFile&&) noexcept = default;
  UnnamedFile& operator=(UnnamedFile&&) noexcept = default;
  ~UnnamedFile();

  /// Gives it (one more) name. \returns 0 or errno (EEXIST)
  [[nodiscard]] int link_as(const std::string& name) const;
  [[nodiscard]] device::InodeId inode() const { return inode_; }
  /// Keeps the inode's number from being used again while we remember it.
  [[nodiscard]] base::UniqueFd take_descriptor();

 private:
  UnnamedFile() = default;
  base::UniqueFd fd_;
  int directory_ = -1;
  std::string temporary_;  // its name where the file system has no O_TMPFILE
  device::InodeId inode_;
};

}  // namespace holdfast::convention
