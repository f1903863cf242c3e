// SPDX-License-Identifier: MIT
// holding.hpp - the marks of one claim, all or nothing: what claim() is made of, for rooms that need more than a
// Claim shows (run writes another process's pid into the lock files and lends marks to the command).
#pragma once

#include "base/unique_fd.hpp"
#include "claim/watch.hpp"
#include "convention/convention.hpp"

#include <holdfast/claim.hpp>

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace holdfast::claiming {

/// A node of the claim and the one open description that its marks share.
struct HeldNode {
  convention::Subject subject;  ///< subject.fd is owned by `file`; subject.device points into the holding
  base::ProcessFd file;
  bool covered = false;  ///< its other marks are held by a `holdfast run` above us
  timespec changed{};    ///< when its rights were changed last, as it was opened; of a pseudo-terminal alone
};

/// Everything taken for one claim. Move-only; the destructor gives back in reverse order of taking.
class Holding {
 public:
  Holding() = default;
  Holding(Holding&& other) noexcept;
  Holding& operator=(Holding&& other) noexcept;
  Holding(const Holding&) = delete;
  Holding& operator=(const Holding&) = delete;
  ~Holding();

  /// Reverse order of taking; idempotent; what vanished meanwhile is as good as given back.
  void give_back() noexcept;
  /// Closes all copies and changes nothing else: of a claim that another process holds over the same descriptions.
  /// What only this process can give back (the driver's lock) is given back.
  void let_go() noexcept;
  /// The same, but gives back what only lock files are there for once the other process is dead: those that name our
  /// owner still. To be followed by let_go() or give_back().
  void let_go_but_lock_files() noexcept;
  /// Whether fd() has shown a description that carries locks: what is done with that is not known here, and may outlive
  /// its descriptor (F_SETOWN, epoll(7)).
  [[nodiscard]] bool is_handed_out() const { return handed_out_; }
  /// Closes what keeps others out until its last copy is closed, O_EXCL and the descriptors of use_fd(), because no
  /// other process can give that back by name. The rest is kept.
  void close_what_only_closing_ends() noexcept;
  /// Takes conventions of the phase `opened` that whoever took the rest has left to this process.
  [[nodiscard]] Result<> take_also(ConventionSet conventions, const Options& options, base::ProcessId owner,
                                   const base::Places& places = {});
  /// Another process has changed the mode of the marks over the same descriptions: changes what is this one's alone.
  /// O_EXCL is left to drop_exclusive() and to what adopt_exclusive() brings.
  [[nodiscard]] Result<> follow(Mode mode);
  /// Gives up what is this process's alone and a shared claim has none of: our copies of O_EXCL descriptions, and the
  /// driver's lock.
  void drop_exclusive() noexcept;
  /// Whether all of it can become another claim of the same devices as it is: whoever took it anew would find what is
  /// here, and whoever had it before would have left nothing behind by closing. So no node is open but a
  /// pseudo-terminal, whose other end keeps its state over all closes; and with HUPCL set its user wants that end to
  /// hear of the close.
  [[nodiscard]] bool can_be_passed_on() const;
  void passed_to(const convention::Terms& terms, std::chrono::system_clock::time_point since) noexcept;
  /// Lets forked children inherit the descriptors (OwnerScope::tree).
  void share_with_children() noexcept;

  /// The marks themselves, in order of taking. Valid until give_back().
  [[nodiscard]] std::span<const std::unique_ptr<convention::Mark>> marks() const { return marks_; }
  [[nodiscard]] std::vector<MarkReport> report() const;
  /// What applies but could not be taken.
  [[nodiscard]] std::span<const MarkReport> unavailable() const { return unavailable_; }
  /// In the order asked for.
  [[nodiscard]] std::span<const device::Device> devices() const { return devices_; }
  /// Siblings included, in the order of claiming.
  [[nodiscard]] std::span<const HeldNode> nodes() const { return nodes_; }
  /// Every descriptor that carries a lock or keeps a node open.
  [[nodiscard]] std::vector<int> descriptors() const;
  /// native when each device that was asked for has a mark by which the kernel itself refuses others.
  [[nodiscard]] Enforcement enforcement() const;
  [[nodiscard]] Mode mode() const { return mode_; }
  /// Whether every node is covered by a `holdfast run` that we descend from: then only the proxies were taken.
  [[nodiscard]] bool covered_by_run() const;

  [[nodiscard]] Result<> downgrade();
  [[nodiscard]] Result<> upgrade();
  /// As Claim::fd().
  [[nodiscard]] Result<int> use_fd(std::size_t index);
  /// As Claim::check() and Claim::notice_fd().
  [[nodiscard]] Result<> check();
  [[nodiscard]] Result<int> notice_fd();
  /// Where somebody listens at notice_fd(): `fd` is heard there too, until it is closed.
  void notice_also(int fd);

 private:
  friend class Taking;
  friend class Unpacking;
  /// The nodes that claims of `devices_` cover, in the one global order.
  void lay_out(Cover cover);
  [[nodiscard]] Result<> change_mode(Mode mode);
  /// Of a mark that sharers leave to each other.
  [[nodiscard]] convention::Mark* proxy_beside(const convention::Mark& mark) const;

  std::vector<device::Device> devices_;
  std::vector<HeldNode> nodes_;
  std::vector<std::unique_ptr<convention::Mark>> marks_;
  std::vector<MarkReport> unavailable_;
  std::vector<base::ProcessFd> use_;  // per device, opened by use_fd()
  // Slow to close (Waiter::take_events()), so closed when all else is given back.
  base::UniqueFd waited_with_;
  std::optional<Watch> watch_;
  Mode mode_ = Mode::exclusive;
  bool handed_out_ = false;
};

/// Where an attempt met somebody, or what it could not do.
struct Obstruction {
  convention::Obstacle obstacle;
  Convention convention = Convention::proxy;
  device::Node node;  ///< of a busy obstacle
};

/// One attempt at devices that were identified before: everything or nothing, without waiting and without asking who
/// may open them. \returns also gone, when one of them is not there any more
[[nodiscard]] std::expected<Holding, Obstruction> attempt(std::span<const device::Device> devices,
                                                          const Options& options, base::ProcessId owner,
                                                          const base::Places& places = {},
                                                          const convention::LockDirectoryRights* rights = nullptr);

/// Who the devices are, each once, in the order given; not_permitted when one of them may not be opened.
[[nodiscard]] Result<std::vector<device::Device>> identify(std::span<const std::string> devices,
                                                           const base::Places& places = {});

/// Takes everything for `devices` or nothing, waiting as `options.wait` says.
/// \param owner  whose pid the lock files carry; it must live at least as long as the claim
[[nodiscard]] Result<Holding> take(std::span<const std::string> devices, const Options& options, base::ProcessId owner,
                                   const base::Places& places = {});

}  // namespace holdfast::claiming
