// SPDX-License-Identifier: MIT
// directory.hpp - an open directory, to be read entry by entry with readdir(3); closes itself.
#pragma once

#include <dirent.h>

#include <memory>

namespace holdfast::base {

struct CloseDirectory {
  void operator()(DIR* directory) const { ::closedir(directory); }
};

// Empty when opendir(3) failed.
using Directory = std::unique_ptr<DIR, CloseDirectory>;

}  // namespace holdfast::base
