// SPDX-License-Identifier: MIT
// programs.hpp - the BPF programs in the kernel: loaded, attached and pinned, so that they outlive whoever did it.
//
// Everything is pinned in one folder of bpffs. A pinned link keeps its program attached; a newer program is attached
// beside the old one, on the same maps, before the old one's pin is replaced: so there is no moment without a guard.
#pragma once

#include "base/unique_fd.hpp"

#include <holdfast/error.hpp>

#include <string>
#include <vector>

namespace holdfast::guard {

struct Places {
  std::string pins = "/sys/fs/bpf/holdfast";
  std::string control_group = "/sys/fs/cgroup";      ///< the root of the unified hierarchy (cgroups(7))
  std::string modules = "/sys/kernel/security/lsm";  ///< which security modules the kernel asks
  std::string types = "/sys/kernel/btf/vmlinux";     ///< what the kernel's structures look like
};

/// Something that the guard needs and this machine lacks, and what to do about it.
struct Lack {
  std::string what;
  std::string remedy;
};
/// Looks, and loads nothing. Empty when the guard should work.
[[nodiscard]] std::vector<Lack> lacks(const Places& places = {});

/// Loads, attaches and pins what is not there, and replaces what another version left. The hooks of opening and using
/// files, which every process calls all the time, are attached only while something is guarded (watch()). Needs
/// CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN (the control group's hook), or CAP_SYS_ADMIN.
/// \returns not_permitted, system_fault with the kernel's reason, no_such_device never
[[nodiscard]] Result<> install(const Places& places = {});

/// Detaches and forgets everything: all devices are open to all. Of what is not there nothing is said.
[[nodiscard]] Result<> remove(const Places& places = {});

[[nodiscard]] bool installed(const Places& places = {});

/// The folder of pins, which is root's alone; feeders lock it.
/// \returns not_permitted when somebody else may change it
[[nodiscard]] Result<base::UniqueFd> open_pins(const Places& places);

/// Attaches the hooks that every process calls; nothing to do when they are. Needs CAP_BPF alone. The caller has the
/// lock on the folder of pins, here and at rest().
[[nodiscard]] Result<> watch(const Places& places);
/// Detaches them: nothing may be guarded.
void rest(const Places& places) noexcept;
[[nodiscard]] bool is_watching(const Places& places = {}) noexcept;

/// A pinned map or program, by name. not_held when the guard is not installed.
[[nodiscard]] Result<base::UniqueFd> pinned(const Places& places, const std::string& name);

}  // namespace holdfast::guard
