// SPDX-License-Identifier: MIT
// survivors.hpp - which claims of an earlier broker still are claims. While there was none, owners died and clients
// gave back by themselves; nobody wrote that down.
#pragma once

#include "base/places.hpp"
#include "broker/interfaces.hpp"
#include "broker/journal_line.hpp"
#include "broker/peer.hpp"

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

namespace holdfast::broker {

/// The very process that owned the claim, when it lives.
[[nodiscard]] std::optional<Process> living_owner(const ClaimRecord& claim);

/// What the proxies show of a claim whose owner lives.
enum class Left : std::uint8_t {
  held,        ///< the claim, or nobody can tell
  given_back,  ///< nothing: its owner gave it back by itself, or never heard that it was granted
  taken_anew,  ///< a claim that the owner made later, without a broker: by when proxies say that it began
};
[[nodiscard]] Left what_is_left(const JournalClaim& entry, const base::Places& places);

/// What it covered: the journal has the nodes, not the word.
[[nodiscard]] Cover cover_of(const std::vector<std::shared_ptr<const device::Device>>& devices,
                             const ClaimRecord& claim);

/// What the broker can have of a claim by itself, because it has a name: its lock files. Empty when there are none.
[[nodiscard]] claiming::Holding lock_files_of(const ClaimRecord& claim, const base::Places& places);

/// Removes a dead owner's lock files, where nobody else has the device by now.
void clean_up(const JournalClaim& entry, const base::Places& places);

}  // namespace holdfast::broker
