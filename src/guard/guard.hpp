// SPDX-License-Identifier: MIT
// guard.hpp - kernel-enforced exclusivity: who may use a device, told to the BPF programs.
//
// The rule itself is in bpf/guard.bpf.c; this room loads it (programs.hpp) and writes its maps. The kernel takes
// entries of the dead away by itself, at any moment: so entries are made and deleted one by one, and whoever deletes
// one counts it off. Feeders take turns by a lock on the folder of pins.
#pragma once

#include "base/unique_fd.hpp"
#include "device/device.hpp"
#include "guard/key.hpp"
#include "guard/programs.hpp"

#include <holdfast_guard.h>
#include <holdfast/error.hpp>
#include <holdfast/options.hpp>

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace holdfast::guard {

/// CLOCK_BOOTTIME, which the kernel's side reads: time spent suspended counts.
struct BootClock {
  using duration = std::chrono::nanoseconds;
  using rep = duration::rep;
  using period = duration::period;
  using time_point = std::chrono::time_point<BootClock>;
  [[nodiscard]] static time_point now() noexcept;
};

/// Who shall own.
struct Owner {
  int pidfd = -1;  ///< borrowed for the call
  OwnerScope scope = OwnerScope::process;
  /// Of scope tree: whether it ends with its root or with its last member. Children from before are no members.
  enum class Ends : std::uint8_t { with_root, with_last_member } ends = Ends::with_root;
};

/// What was told to the kernel for one claim; a plain value, so that a journal can keep it.
struct Enforced {
  std::vector<hf_guard_device> devices;
  hf_guard_process owner{};  ///< tgid 0: the tree numbered `start`
  hf_guard_process root{};   ///< the process that asked
  std::optional<BootClock::time_point> until;
};

/// Somebody was refused.
struct Denial {
  device::DeviceId device;
  pid_t pid = 0;
  uid_t uid = 0;
  std::string command;
  hf_guard_operation operation = HF_GUARD_OPEN;
  std::uint64_t before = 0;  ///< of the same device that were not reported, because they came within 100 ms
};
[[nodiscard]] std::string_view to_string(hf_guard_operation operation);

/// A guarded device as `guard status` shows it.
struct Guarded {
  device::DeviceId device;
  std::int64_t owners = 0;
  std::uint64_t denials = 0;
  std::optional<BootClock::time_point> until;
};

/// Somebody who had a device mapped before it was claimed: the kernel cannot take that back.
struct Mapping {
  device::DeviceId device;
  pid_t pid = 0;
};

/// The way to the maps. Move-only.
///
/// \thread  not thread-safe; several processes take turns
class Guard {
 public:
  /// \returns not_held when the guard is not installed, not_permitted without CAP_BPF
  [[nodiscard]] static Result<Guard> open(const Places& places = {}, const base::Places& system = {});
  Guard(Guard&&) noexcept;
  Guard& operator=(Guard&&) noexcept;
  Guard(const Guard&) = delete;
  Guard& operator=(const Guard&) = delete;
  ~Guard();

  /// From its return on, strangers are refused, whatever they opened before. All nodes or none. The calling process
  /// is let through as a helper.
  /// \param nodes    the device and all its siblings
  /// \param until    when the kernel lets everybody in again; nothing: at the owner's end
  /// \returns refused when others own it and `mode` does not let them share; not_held when the owner is dead;
  ///          not_permitted for what is never guarded; no_resources when a map is full
  [[nodiscard]] Result<Enforced> enforce(std::span<const device::Node> nodes, const Owner& owner, Mode mode,
                                         std::optional<BootClock::time_point> until = std::nullopt);
  /// From an exclusive owner to the next: each device goes over in one step, before which the one owns it and after
  /// which the other does, so that no stranger comes between. The helpers of the one are let through no longer.
  /// \param nodes  those of `from`
  /// \returns the next one's claim, and `from` is over; or why not, and `from` is to be released. `refused` when it
  /// does
  ///          not own them alone
  [[nodiscard]] Result<Enforced> hand_over(const Enforced& from, std::span<const device::Node> nodes,
                                           const Owner& owner,
                                           std::optional<BootClock::time_point> until = std::nullopt);
  /// Lets another process use the devices as long as somebody owns them: a supervisor of the command, a new broker.
  [[nodiscard]] Result<> admit(const Enforced& claim, int pidfd);
  [[nodiscard]] Result<> renew(Enforced& claim, std::optional<BootClock::time_point> until);
  /// Of what ended meanwhile nothing is said.
  void release(const Enforced& claim) noexcept;
  /// For a feeder that takes over from one that died: ends what none of these claims stands for. How many owners of
  /// devices that were.
  std::size_t settle(std::span<const Enforced> known);

  /// When nothing is guarded: takes off the hooks that every process passes, so that they cost nothing. The next
  /// enforce() puts them back, which takes some milliseconds: so call this some seconds after the last release.
  void rest() noexcept;
  [[nodiscard]] bool is_watching() const noexcept;

  /// Readable when there are denials.
  [[nodiscard]] Result<int> denials_fd();
  void drain(const std::function<void(const Denial&)>& each);

  [[nodiscard]] std::vector<Guarded> status() const;
  /// Who mapped a guarded device, owners included.
  [[nodiscard]] std::vector<Mapping> mappings() const;
  /// Whether others may trace owners or read their memory.
  enum class Memory : std::uint8_t { open, guarded };
  void set_memory(Memory memory) noexcept;
  [[nodiscard]] hf_guard_switches switches() const noexcept;

 private:
  struct State;
  explicit Guard(std::unique_ptr<State> state) noexcept;
  std::unique_ptr<State> state_;
};

}  // namespace holdfast::guard
