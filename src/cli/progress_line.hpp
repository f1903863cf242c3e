// SPDX-License-Identifier: MIT
// progress_line.hpp - one line on the terminal that says how a wait at the broker goes, and goes with it.
#pragma once

#include <holdfast/options.hpp>

#include <string>

namespace holdfast::cli {

/// "holdfast: waiting, 3rd in the queue, about 12 s". Pure.
[[nodiscard]] std::string progress_text(const Progress& progress);

class ProgressLine {
 public:
  ProgressLine() = default;
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;
  ~ProgressLine();  ///< wipes it

  /// Whether standard error is a terminal on which a line can be written over.
  [[nodiscard]] bool can_be_seen() const;
  void show(const Progress& progress);

 private:
  bool shown_ = false;
};

}  // namespace holdfast::cli
