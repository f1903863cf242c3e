// SPDX-License-Identifier: MIT
// paths.cpp - argument positions of the path calls, as in the kernel's syscalls.h.
#include "run/paths.hpp"

#include <fcntl.h>
#include <linux/openat2.h>

namespace holdfast::run {

std::optional<PathCall> path_call_of(const Question& question) {
  using Verb = PathCall::Verb;
  const auto at = [&](std::size_t directory, std::size_t path) {
    return PathArgument{question.int_argument(directory), question.arguments.at(path)};
  };
  const auto here = [&](std::size_t path) { return PathArgument{AT_FDCWD, question.arguments.at(path)}; };
  const auto flags = [&](std::size_t index) { return question.int_argument(index); };
  const auto mode = [&](std::size_t index) { return static_cast<mode_t>(question.arguments.at(index)); };
  switch (question.call) {
    case Call::open:
      return PathCall{Verb::open, here(0), {}, flags(1), mode(2), 0};
    case Call::openat:
      return PathCall{Verb::open, at(0, 1), {}, flags(2), mode(3), 0};
    case Call::openat2:
      return PathCall{Verb::open, at(0, 1), {}, 0, 0, question.arguments[2]};
    case Call::creat:
      return PathCall{Verb::open, here(0), {}, O_CREAT | O_WRONLY | O_TRUNC, mode(1), 0};
    case Call::stat:
      return PathCall{Verb::look, here(0), {}, 0, 0, 0};
    case Call::statat:
      return PathCall{Verb::look, at(0, 1), {}, 0, 0, 0};
    case Call::link:
      return PathCall{Verb::link, here(1), here(0), 0, 0, 0};
    case Call::linkat:
      return PathCall{Verb::link, at(2, 3), at(0, 1), flags(4), 0, 0};
    case Call::symlink:
      return PathCall{Verb::symlink, here(1), here(0), 0, 0, 0};
    case Call::symlinkat:
      return PathCall{Verb::symlink, at(1, 2), here(0), 0, 0, 0};
    case Call::rename:
      return PathCall{Verb::rename, here(1), here(0), 0, 0, 0};
    case Call::renameat:
      return PathCall{Verb::rename, at(2, 3), at(0, 1), 0, 0, 0};
    case Call::renameat2:
      return PathCall{Verb::rename, at(2, 3), at(0, 1), flags(4), 0, 0};
    case Call::unlink:
      return PathCall{Verb::unlink, here(0), {}, 0, 0, 0};
    case Call::unlinkat:
      return PathCall{Verb::unlink, at(0, 1), {}, flags(2), 0, 0};
    case Call::unknown:
    case Call::flock:
    case Call::fcntl:
    case Call::ioctl:
      return std::nullopt;
  }
  return std::nullopt;
}

std::optional<PathCall> read_path_call(const Question& question, const Caller& caller) {
  auto call = path_call_of(question);
  if (!call || call->how == 0) return call;
  open_how how{};
  if (!caller.read(call->how, &how, sizeof how)) return std::nullopt;
  call->flags = static_cast<int>(how.flags);
  call->mode = static_cast<mode_t>(how.mode);
  return call;
}

SplitPath split(const std::string& path) {
  const auto slash = path.rfind('/');
  if (slash == std::string::npos) return {".", path};
  return {slash == 0 ? "/" : path.substr(0, slash), path.substr(slash + 1)};
}

}  // namespace holdfast::run
