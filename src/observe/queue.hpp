// SPDX-License-Identifier: MIT
// queue.hpp - what only the broker knows: who waits for it to answer, in which order, and when a holder's time is over.
#pragma once

#include "observe/observe.hpp"
#include "wire/message.hpp"

#include <span>

namespace holdfast::observe {

/// Adds the waiters to their devices, and holders' time limits and levels to those who were seen; a holder that was not
/// seen (another pid namespace) is added too. Devices that the survey does not have are added when `all` are wanted.
enum class Devices : std::uint8_t { all, those_there };
void add_queues(Survey& survey, std::span<const wire::DeviceStatus> statuses, Devices devices);

}  // namespace holdfast::observe
