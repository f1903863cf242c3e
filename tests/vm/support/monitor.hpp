// SPDX-License-Identifier: MIT
// monitor.hpp - QEMU's monitor, from inside the machine: a test pulls a plug and puts it back (docs/interop/qmp-spec of
// QEMU).
#pragma once

#include "base/unique_fd.hpp"

#include <string>
#include <string_view>

namespace holdfast::vm {

class Monitor {
 public:
  Monitor();  ///< fails the test when there is none: then this is no machine of the lab
  /// Sends a command, and gives what it returns, or QEMU's error, as JSON text.
  std::string ask(std::string_view command, std::string_view arguments = "{}");
  /// device_del, and waits until QEMU says that the device is gone.
  void unplug(std::string_view id);
  /// device_add; `device` is JSON: {"driver": "usb-serial", "id": "adapter0", ...}.
  void plug(std::string_view device);

 private:
  std::string line();
  /// The next line with `word` in it, or an empty one after the patience of a test.
  std::string line_with(std::string_view word);

  base::UniqueFd port_;
  std::string pending_;
};

}  // namespace holdfast::vm
