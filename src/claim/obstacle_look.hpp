// SPDX-License-Identifier: MIT
// obstacle_look.hpp - what stands in a claim's way, looked at: which files tell when it goes, and whether it can be
// seen to stand there still. Looking touches the device as little as can be: an attempt would open it and make lock
// files, which others hear. Who waits with it is Waiter (asleep) and the broker (in its loop).
#pragma once

#include "convention/convention.hpp"

#include <array>
#include <chrono>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace holdfast::claiming {

/// The kernel tells of a close just before it drops the locks (fs/file_table.c, __fput: fsnotify_close() stands above
/// locks_remove_file()), and a holder clears its record just before it unlocks. After an event one therefore looks
/// again for a moment, at first often: what is left to be done takes the other side microseconds.
inline constexpr std::array<std::chrono::microseconds, 10> kAfterEvent{
    {std::chrono::microseconds{0}, std::chrono::microseconds{50}, std::chrono::microseconds{100},
     std::chrono::microseconds{200}, std::chrono::microseconds{500}, std::chrono::microseconds{1000},
     std::chrono::microseconds{2000}, std::chrono::microseconds{4000}, std::chrono::microseconds{8000},
     std::chrono::microseconds{16000}}};
/// What has no event (LOCK_UN or TIOCNXCL without a close, a lock file whose process died) is found by looking.
inline constexpr std::chrono::milliseconds kLook{200};
/// Each of our own attempts at a node closes it, which wakes other waiters, whose attempts wake us: this far apart.
inline constexpr std::chrono::milliseconds kApart{100};

/// A file to be watched with inotify(7), and for what.
struct Telling {
  std::string path;
  std::uint32_t events = 0;
};
/// What tells that the obstacle goes. The files of lock files may be others after each attempt.
[[nodiscard]] std::vector<Telling> what_tells(Convention convention, const device::Node& node,
                                              std::span<const device::Device> devices, const base::Places& places);

/// Whether what stood in the way can be seen to stand there still. False when it cannot be seen: then an attempt tells.
[[nodiscard]] bool seen_to_stand(Convention convention, const device::Node& node,
                                 std::span<const device::Device> devices, const convention::Terms& terms);

/// Whether the devices still are what they were. A holder keeps its locks on a device that was pulled out, so these say
/// nothing of that.
[[nodiscard]] bool all_there(std::span<const device::Device> devices);

}  // namespace holdfast::claiming
