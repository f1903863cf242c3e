// SPDX-License-Identifier: MIT
// hotplug.hpp - devices that come and go, as the kernel tells them: kobject uevents, before any daemon has its rules
// applied to them. A new device's node exists already (devtmpfs), its owner and links may still follow.
#pragma once

#include "base/unique_fd.hpp"
#include "wire/message.hpp"

#include <holdfast/error.hpp>

#include <optional>
#include <string_view>
#include <vector>

namespace holdfast::broker {

/// The event of a uevent that adds or removes a device node; nothing for all others and for what is not well-formed.
/// Pure: fuzzed.
[[nodiscard]] std::optional<wire::Event> event_of_uevent(std::string_view uevent, wire::WallTime at);

class Hotplug {
 public:
  /// \returns system_fault, no_resources
  [[nodiscard]] static Result<Hotplug> open();
  [[nodiscard]] int fd() const { return socket_.get(); }
  /// What came since, at most a hundred: the descriptor stays readable for the rest. An event of kind `missed` where
  /// the kernel dropped some.
  [[nodiscard]] std::vector<wire::Event> take();

 private:
  explicit Hotplug(base::UniqueFd socket) : socket_{std::move(socket)} {}
  base::UniqueFd socket_;
};

}  // namespace holdfast::broker
