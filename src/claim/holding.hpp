// SPDX-License-Identifier: MIT
// holding.hpp - the marks of one claim, all or nothing: what claim() is made of, for rooms that need more than a
// Claim shows (run writes another process's pid into the lock files and lends marks to the command).
#pragma once

#include "convention/convention.hpp"

#include <holdfast/claim.hpp>

#include <memory>
#include <span>
#include <string>
#include <vector>

namespace holdfast::claiming {

struct HeldNode {
  convention::Subject subject;  ///< subject.fd is owned by `file`
  base::UniqueFd file;
};

/// Everything taken for one claim. Move-only; the destructor gives back in reverse order of taking.
class Holding {
 public:
  Holding() = default;
  Holding(Holding&&) noexcept = default;
  Holding& operator=(Holding&&) noexcept;
  Holding(const Holding&) = delete;
  Holding& operator=(const Holding&) = delete;
  ~Holding();

  void give_back() noexcept;
  /// Closes every descriptor and forgets, without unlocking: what a forked child does with its copy.
  void abandon() noexcept;

  [[nodiscard]] std::vector<convention::MarkView> marks() const;
  [[nodiscard]] std::vector<MarkReport> report() const;
  [[nodiscard]] const std::vector<device::Device>& devices() const { return *devices_; }  ///< in the order asked for
  [[nodiscard]] std::vector<int> descriptors() const;
  [[nodiscard]] Enforcement enforcement() const;
  [[nodiscard]] Mode mode() const { return mode_; }
  /// True when the claim is covered by a `holdfast run` that we descend from: only the proxies were taken.
  [[nodiscard]] bool covered_by_run() const { return covered_by_run_; }

  [[nodiscard]] Result<> downgrade();
  [[nodiscard]] Result<> upgrade();
  [[nodiscard]] Result<int> use_fd(std::size_t index);

 private:
  friend class Taking;
  std::unique_ptr<std::vector<device::Device>> devices_;
  std::vector<HeldNode> nodes_;
  std::vector<std::unique_ptr<convention::Mark>> marks_;  // in order of taking
  std::vector<MarkReport> unavailable_;
  std::vector<base::UniqueFd> use_;
  Mode mode_ = Mode::exclusive;
  bool covered_by_run_ = false;
};

/// Takes everything for `devices` or nothing, waiting as `options.wait` says.
/// \param owner  whose pid the lock files carry; it must live at least as long as the claim
[[nodiscard]] Result<Holding> take(std::span<const std::string> devices, const Options& options, base::ProcessId owner,
                                   const base::Places& places = {});

}  // namespace holdfast::claiming
