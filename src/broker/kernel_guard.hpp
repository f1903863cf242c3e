// SPDX-License-Identifier: MIT
// kernel_guard.hpp - the guard in this machine's kernel, as far as it is installed: it may come, go and be replaced
// while the broker runs. Each grant looks at one name for that, and no more where there is none.
//
// Without the room (it needs clang and libbpf to be built) there never is a guard.
#pragma once

#include "base/places.hpp"
#include "broker/interfaces.hpp"
#include "broker/log.hpp"

#include <functional>
#include <memory>
#include <span>

namespace holdfast::broker {

/// What the administrator wants of the guard.
enum class GuardUse : std::uint8_t {
  automatic,  ///< used while it is installed
  on,         ///< installed when the broker starts
  off,
};

class KernelGuard final : public Enforcer {
 public:
  /// \param log, clock  outlive it
  KernelGuard(GuardUse use, const Log& log, const Clock& clock, base::Places places);
  KernelGuard(const KernelGuard&) = delete;
  KernelGuard& operator=(const KernelGuard&) = delete;
  ~KernelGuard() override;

  /// Needs the rights of root (guard::install()), so it comes before they are dropped.
  [[nodiscard]] static Result<> install();

  /// What earlier brokers told it, to be called once, before a descriptor of these claims is received: this process is
  /// let through, and what was told for claims that nobody knows of is over.
  void take_over(std::span<const guard::Enforced> known);

  std::uint64_t installed() override;
  std::string lack() override;
  Result<guard::Enforced> enforce(const Wish& wish) override;
  Result<guard::Enforced> hand_over(const guard::Enforced& from, const Wish& wish) override;
  Result<> renew(guard::Enforced& claim, std::optional<arbiter::Time> until) override;
  void release(const guard::Enforced& claim) override;
  std::uint64_t denials(const device::DeviceId& device) override;

  /// Readable when somebody was refused; the same for the broker's life. -1 when there never is a guard.
  [[nodiscard]] int fd() const { return ready_.get(); }
  void drain(const std::function<void(const Denial&)>& each);

  /// When advance() has something to do: nothing was guarded for a while, and the hooks are taken off.
  [[nodiscard]] std::optional<arbiter::Time> next_due() const { return rest_at_; }
  void advance();

 private:
  struct State;
  [[nodiscard]] bool open();
  [[nodiscard]] Result<guard::Enforced> tell(const Wish& wish, const guard::Enforced* from);
  [[nodiscard]] std::optional<guard::BootClock::time_point> boot_time(std::optional<arbiter::Time> until) const;

  GuardUse use_;
  const Log& log_;
  const Clock& clock_;
  base::Places places_;
  base::UniqueFd ready_;
  std::unique_ptr<State> state_;
  std::optional<arbiter::Time> rest_at_;
};

}  // namespace holdfast::broker
