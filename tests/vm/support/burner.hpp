// SPDX-License-Identifier: MIT
// burner.hpp - a burner of the test's own (lab_burner), and the commands that have reached it.
#pragma once

#include "interop/support/bench.hpp"

#include <string>
#include <vector>

namespace holdfast::vm {

class Burner {
 public:
  /// \param bytes_per_second  how fast it writes; 0: as fast as it can
  /// \param content           what is on its disc at first
  explicit Burner(unsigned bytes_per_second = 0, const std::string& content = {});
  Burner(const Burner&) = delete;
  Burner& operator=(const Burner&) = delete;
  ~Burner();  ///< takes the drive away; nobody may have it open

  [[nodiscard]] const std::string& sr() const { return sr_; }
  [[nodiscard]] const std::string& sg() const { return sg_; }
  [[nodiscard]] pid_t pid() const { return burner_.pid(); }

  struct Command {
    std::string name;   ///< "WRITE(10)"
    std::string bytes;  ///< of the command, in hexadecimal
  };
  /// All that have reached the drive so far.
  [[nodiscard]] std::vector<Command> commands() const;
  /// What the first bytes of its disc are now.
  [[nodiscard]] std::string content(std::size_t bytes) const;

 private:
  interop::Scratch scratch_;
  interop::Program burner_;
  std::string sr_;
  std::string sg_;
};

}  // namespace holdfast::vm
