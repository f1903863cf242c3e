// SPDX-License-Identifier: MIT
// key.hpp - a device's identity as the guard's maps have it, and back; for those, too, who are built without the guard.
#pragma once

#include "device/device.hpp"

#include <holdfast_guard.h>
#include <sys/sysmacros.h>

namespace holdfast::guard {

inline constexpr unsigned kMinorBits = 20;  // include/linux/kdev_t.h, MINORBITS

[[nodiscard]] inline hf_guard_device key_of(const device::DeviceId& id) {
  hf_guard_device key{};
  key.dev = HF_GUARD_DEV(id.major, id.minor);
  key.kind = id.kind == device::Kind::block ? HF_GUARD_BLOCK : HF_GUARD_CHARACTER;
  if (id.devpts != 0) key.devpts = HF_GUARD_DEV(::major(id.devpts), ::minor(id.devpts));
  return key;
}

[[nodiscard]] inline device::DeviceId id_of(const hf_guard_device& key) {
  device::DeviceId id;
  id.kind = key.kind == HF_GUARD_BLOCK ? device::Kind::block : device::Kind::character;
  id.major = key.dev >> kMinorBits;
  id.minor = key.dev & ((1U << kMinorBits) - 1);
  if (key.devpts != 0) id.devpts = ::makedev(key.devpts >> kMinorBits, key.devpts & ((1U << kMinorBits) - 1));
  return id;
}

}  // namespace holdfast::guard
