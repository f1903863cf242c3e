// SPDX-License-Identifier: MIT
// path_watch.hpp - that nothing came to a path where nothing was, known without walking there again.
//
// Hooks and the guard are optional, and mostly absent; each grant has to know for certain. Walking to a name that is
// not there is among the dearest system calls of a grant (15 us of 140 for one in sysfs, by a processor that has
// slept), so the kernel tells instead: inotify(7) of all that could make the path another one, and of mounts. Both are
// noted before the call that makes the change returns, and asked for here, not waited for: what was done before a
// client speaks is seen before it is answered.
#pragma once

#include "base/unique_fd.hpp"

#include <string>
#include <string_view>
#include <vector>

namespace holdfast::broker {

class PathWatch {
 public:
  explicit PathWatch(std::string path);

  /// The ends of processes that watch take 10 ms or so, so it begins when it has been asked for this often in vain.
  static constexpr int kPays = 32;

  /// Where nothing was found. True when it watches from now on: then one has to look once more. Where the path cannot
  /// be watched (a link is part of it, no right to read a folder of it), it never does.
  bool start();
  void stop() { is_watching_ = false; }
  /// Whether, since start(), the path is what it was: where there was nothing nothing is, and where there was a folder
  /// it has the same entries with the same modes. After a false it is false until the next start().
  [[nodiscard]] bool is_quiet();

 private:
  /// A folder on the way, and what is expected in it.
  struct Step {
    int watch = -1;
    std::string_view next;  // empty: the path's own folder, of which everything matters
  };
  [[nodiscard]] bool has_changed();

  const std::string path_;
  int asked_ = 0;
  bool can_be_watched_ = false;
  bool is_watching_ = false;
  base::UniqueFd inotify_;
  base::UniqueFd mounts_;
  std::vector<Step> steps_;
};

}  // namespace holdfast::broker
