// SPDX-License-Identifier: MIT
// paths.hpp - what a call about a path wants, whichever of its dozen forms it comes in.
#pragma once

#include "run/listener.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace holdfast::run {

struct PathArgument {
  int directory = 0;          ///< AT_FDCWD or a descriptor of the caller
  std::uint64_t address = 0;  ///< of the text in the caller's memory
};

struct PathCall {
  enum class Verb : std::uint8_t { look, open, link, symlink, rename, unlink };
  Verb verb = Verb::look;
  PathArgument path;                  ///< what is looked at, opened, removed, or made
  std::optional<PathArgument> other;  ///< link and rename: the existing one
  int flags = 0;                      ///< of open, linkat or renameat2
  mode_t mode = 0;
  std::uint64_t how = 0;  ///< openat2: where the struct open_how is; flags and mode are in there
};

/// Pure: reads nothing but the arguments. nullopt for a call that takes no path.
[[nodiscard]] std::optional<PathCall> path_call_of(const Question& question);

/// The same with openat2's flags and mode read from the caller's memory.
[[nodiscard]] std::optional<PathCall> read_path_call(const Question& question, const Caller& caller);

struct SplitPath {
  std::string directory;  ///< "." when the path has none
  std::string name;
};
[[nodiscard]] SplitPath split(const std::string& path);

}  // namespace holdfast::run
