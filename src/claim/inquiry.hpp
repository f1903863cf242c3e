// SPDX-License-Identifier: MIT
// inquiry.hpp - what the command asks the broker: questions with an answer, and nothing held afterwards.
#pragma once

#include "device/device.hpp"
#include "wire/message.hpp"

#include <holdfast/watch.hpp>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace holdfast::claiming {

[[nodiscard]] wire::DeviceName wire_name(const device::Node& node);
[[nodiscard]] Event event_from(wire::Event&& event);
[[nodiscard]] Error error_from(wire::Refused&& refused);
/// "no broker answers at /run/holdfast/socket: REASON; start holdfastd"
[[nodiscard]] Error nobody_answers(const std::string& path, int errnum);

/// What happened, oldest first: the newest `most` events of these devices, all devices when none is named.
///
/// A device that went is still known by its number, or by the path that it had.
/// \returns system_fault when no broker answers or it keeps no history; what device::identify() says, but for
///          no_such_device
[[nodiscard]] Result<std::vector<Event>> history(const std::vector<std::string>& devices,
                                                 std::optional<std::chrono::system_clock::time_point> since,
                                                 std::uint32_t most);

/// Asks the holder to leave, and takes the device back after `grace`; returns when it is free.
/// \returns not_held when nobody holds it through the broker; not_permitted
[[nodiscard]] Result<> kick(const std::string& device, std::chrono::nanoseconds grace, const std::string& reason);

/// Holders and queues as the broker knows them, of all its devices when none is named; nothing when none answers.
[[nodiscard]] std::optional<std::vector<wire::DeviceStatus>> broker_status(
    const std::vector<wire::DeviceName>& devices = {});

}  // namespace holdfast::claiming
