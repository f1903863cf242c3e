// SPDX-License-Identifier: MIT
// proxy.hpp - our own lock file per device number: the layout that status, claim and run share.
//
// A file LOCK_DIR/holdfast-c4:64, mode 0666, never removed. Its existence means nothing. Byte 0 carries the claim: an
// open-file-description write lock is an exclusive claim, a read lock a shared one. Slots of kSlotSize bytes begin at
// kSlotOffset; whoever holds or waits owns one by a write lock on its first byte, so a record is true exactly
// while its lock is held, and a death clears it. Slots 0 to kHolderSlots-1 are for holders, the rest for waiters.
#pragma once

#include "base/places.hpp"
#include "convention/convention.hpp"

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace holdfast::convention {

inline constexpr off_t kSlotOffset = 512;
inline constexpr std::size_t kSlotSize = 256;
inline constexpr int kHolderSlots = 48;
inline constexpr int kWaiterSlots = 80;

/// LOCK_DIR/holdfast-c4:64
[[nodiscard]] std::string proxy_path(const device::DeviceId& id, const base::Places& places);
/// The reverse, for a directory listing: "holdfast-c4:64" -> c4:64.
[[nodiscard]] std::optional<device::DeviceId> proxy_device(std::string_view file_name);

struct ProxyRecord {
  Holder who;
  Mode mode = Mode::exclusive;
  bool waiting = false;
  bool leaving = false;  ///< a sharer that is giving its claim back
};

/// Who holds and who waits, read without taking anything. Empty when the file is missing.
[[nodiscard]] Result<std::vector<ProxyRecord>> read_proxy(const std::string& path);

/// One slot's bytes. Pure: fuzzed.
[[nodiscard]] std::optional<ProxyRecord> parse_proxy_record(std::string_view text);

/// A waiter's entry in the proxy file: shown by status until destroyed or the process dies.
class WaiterSlot {
 public:
  WaiterSlot() = default;
  WaiterSlot(WaiterSlot&&) noexcept = default;
  WaiterSlot& operator=(WaiterSlot&&) noexcept = default;
  ~WaiterSlot();
  /// Best effort: an empty slot object when the file or all slots are not to be had.
  static WaiterSlot enter(const std::string& path, const Terms& terms);
  /// False when the file could not be opened.
  [[nodiscard]] explicit operator bool() const { return static_cast<bool>(fd_); }
  /// Whether a claim in `mode` would find byte 0 free.
  [[nodiscard]] bool claim_is_free(Mode mode) const;

 private:
  base::ProcessFd fd_;
  int slot_ = -1;
};

}  // namespace holdfast::convention
