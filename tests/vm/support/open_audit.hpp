// SPDX-License-Identifier: MIT
// open_audit.hpp - which process opened which device node, as the kernel's own open of device files sees it: by number
// and not by name, refused opens included, O_PATH left out (that opens nothing). Kernel probes on the functions through
// which every such open goes (Documentation/trace/kprobetrace.rst).
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

namespace holdfast::vm {

class OpenAudit {
 public:
  OpenAudit();  ///< fails the test when the kernel does not let us
  OpenAudit(const OpenAudit&) = delete;
  OpenAudit& operator=(const OpenAudit&) = delete;
  ~OpenAudit();

  void forget();
  /// What the process opened since the last forget(), in that order: "b11:0", "c21:0", and "sr" when the open went on
  /// to the driver of optical drives, which asks the drive for its medium.
  [[nodiscard]] std::vector<std::string> opened_by(pid_t pid) const;

 private:
  std::string group_;
  std::string instance_;
};

}  // namespace holdfast::vm
