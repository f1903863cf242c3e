// SPDX-License-Identifier: MIT
// strangers.hpp - who has a device already, without any claim. The guard cuts whoever is not its owner, descriptors
// from before the claim included; where O_EXCL is left out no mark would notice such a one before. So he is looked for,
// as status does it, before the claim and once more when it is granted, and waited for as for any holder.
#pragma once

#include "base/process.hpp"
#include "base/unique_fd.hpp"
#include "device/device.hpp"
#include "observe/observe.hpp"

#include <holdfast/options.hpp>

#include <chrono>
#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace holdfast::run {

/// What is looked for.
struct Wanted {
  std::vector<device::Device> devices;
  Options options;
  base::ProcessId command;  ///< for which the devices are claimed
};

struct Stranger {
  device::Node node;
  observe::Use use;
};
/// The first who has a covered node and is none of `spared`. A node that somebody else has claimed shows none: who
/// belongs to that claim is its broker's to say, and its end is waited for before. Pure.
[[nodiscard]] std::optional<Stranger> find_stranger(const observe::Survey& survey, const Wanted& wanted,
                                                    const std::set<pid_t>& spared);

class Strangers {
 public:
  explicit Strangers(Wanted wanted);

  /// When one looks. Before the claim the kernel can be asked, too, about those whom we may not see: O_EXCL is tried
  /// and given back.
  enum class Moment : std::uint8_t { before, granted };
  /// \returns refused, naming the holder, when somebody has one of the devices
  [[nodiscard]] Result<> look(Moment moment);
  /// What the last look could not see, one line; empty when it saw all.
  [[nodiscard]] const std::string& blind() const { return blind_; }

  /// Sleeps until the one whom the last look met may have gone: until an event where there is one, else as long as the
  /// library's waiters sleep between two looks.
  /// \returns timed_out; not_held when the process behind `life`, a pidfd, is dead
  [[nodiscard]] Result<> wait(Wait wait, int life);

 private:
  using Clock = std::chrono::steady_clock;
  /// What a sleep is ended by.
  enum class Hearing : std::uint8_t { nothing, closes, mounts };

  [[nodiscard]] Result<> knock();
  [[nodiscard]] static Hearing what_tells(const observe::Use& use);
  [[nodiscard]] Result<> sleep(Clock::duration pause, Hearing hearing, Wait wait, int life) const;
  void watch();
  void drain();

  Wanted wanted_;
  std::vector<std::string> names_;
  std::string blind_;
  std::string met_;  // the last refusal
  Hearing tells_ = Hearing::nothing;
  base::UniqueFd inotify_;
  base::UniqueFd mounts_;
};

}  // namespace holdfast::run
