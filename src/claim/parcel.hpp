// SPDX-License-Identifier: MIT
// parcel.hpp - a claim's marks from one process to another: what is held as values and descriptors, and back.
//
// A lock lives in its open description, so whoever has a copy of the descriptor keeps it when the other dies. The
// receiver believes the numbers of devices alone: which node, which lock file and which names belong to them it finds
// out by itself, and compares.
#pragma once

#include "claim/holding.hpp"
#include "wire/message.hpp"

#include <span>
#include <vector>

namespace holdfast::claiming {

/// The descriptors are borrowed from the holding.
struct Parcel {
  wire::Marks marks;
  std::vector<int> descriptors;  ///< in the order of wire::Marks
};
[[nodiscard]] Parcel pack(const Holding& holding);

[[nodiscard]] wire::DeviceName name_of(const device::Node& node);
/// Whether the name means this node. The path is not looked at.
[[nodiscard]] bool is_named(const wire::DeviceName& name, const device::Node& node);

/// Who adopts, and for whom.
struct Adoption {
  const Options& options;  ///< mode, cover and purpose
  base::ProcessId owner;   ///< as in the lock files
  convention::Locks locks = convention::Locks::as_said;
  base::Places places{};
};
/// The same claim in this process. On failure the received descriptors are closed and nothing else has changed.
/// \param devices      identified by us, in the order asked for
/// \param descriptors  as received, all of them
/// \returns gone when the nodes are not those that we see under these numbers; refused when a lock that was to be
///          proven is somebody else's; system_fault when what came is not what it is said to be
[[nodiscard]] Result<Holding> unpack(std::vector<device::Device> devices, const wire::Marks& marks,
                                     std::vector<base::ProcessFd> descriptors, const Adoption& adoption);

/// After an upgrade by another process: its O_EXCL descriptions in place of ours. The rest of `marks` is what we have.
[[nodiscard]] Result<> adopt_exclusive(Holding& holding, const wire::Marks& marks,
                                       std::vector<base::ProcessFd> descriptors, const Adoption& adoption);

}  // namespace holdfast::claiming
