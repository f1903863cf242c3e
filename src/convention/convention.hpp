// SPDX-License-Identifier: MIT
// convention.hpp - how strangers mark a device taken, and how we mark it so that they see it.
//
// One file per convention, one table that lists them. A convention never waits and never opens a device by itself:
// it is handed a Subject whose open description, where one is needed, was opened once for all conventions.
#pragma once

#include "base/places.hpp"
#include "base/process.hpp"
#include "base/process_fd.hpp"
#include "device/device.hpp"

#include <holdfast/claim.hpp>

#include <chrono>
#include <expected>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace holdfast::convention {

/// One node of a claim, as a convention sees it.
struct Subject {
  const device::Device* device = nullptr;  ///< the device whose claim covers the node
  device::Node node;
  device::Family family = device::Family::other;
  std::optional<device::Relation> relation;  ///< nullopt for the device itself
  int fd = -1;            ///< the one open description for flock, posix and tiocexcl; -1 while not open
  bool writable = false;  ///< whether `fd` may write
};

/// What the calling thread may do in the lock directory beside what it may elsewhere.
class LockDirectoryRights {
 public:
  virtual ~LockDirectoryRights() = default;
  virtual void raise() const = 0;
  virtual void lower() const = 0;
};

class WithRights {
 public:
  explicit WithRights(const LockDirectoryRights* rights) : rights_{rights} {
    if (rights_ != nullptr) rights_->raise();
  }
  WithRights(const WithRights&) = delete;
  WithRights& operator=(const WithRights&) = delete;
  ~WithRights() {
    if (rights_ != nullptr) rights_->lower();
  }

 private:
  const LockDirectoryRights* rights_;
};

/// What the claim says about itself.
struct Terms {
  Mode mode = Mode::exclusive;
  base::ProcessId owner;  ///< whose pid goes into lock files
  std::string purpose;
  base::Places places;
  const LockDirectoryRights* rights = nullptr;  ///< while it is taken
  std::string lock_file{};  ///< uucp_content() of the owner, where it was asked for before; else it is made
};

/// Why a marking was not taken.
struct Obstacle {
  enum class Kind : std::uint8_t {
    busy,         ///< somebody else holds it: the claim is refused
    unavailable,  ///< cannot be taken here (no permission to the lock directory): the claim goes on without it
    fault,        ///< the claim fails
  };
  Kind kind = Kind::fault;
  Error error;
};

/// The pieces of a mark that a supervisor needs for a hand-over and that a report shows.
struct MarkView {
  Convention convention = Convention::proxy;
  device::Node node;
  int fd = -1;                     ///< the description that carries the lock; -1 for files alone
  device::InodeId inode;           ///< of the file locked (proxy, ddlp, flock, posix, whole_disk)
  std::vector<std::string> files;  ///< lock files by path (proxy, ddlp, uucp)
  std::vector<std::string> notes;  ///< what was not available inside this mark, one line each
  bool covered = false;            ///< proxy only: granted by a `holdfast run` above us, which holds the other marks
  /// whole_disk only: the partition that was asked for, because `node` is the disk's.
  std::optional<device::DeviceId> asked{};
};

/// A marking that we hold. Giving back is idempotent and cannot fail; destroying without giving back only closes.
class Mark {
 public:
  Mark() = default;
  Mark(const Mark&) = delete;
  Mark& operator=(const Mark&) = delete;
  virtual ~Mark() = default;

  virtual void give_back() noexcept = 0;
  /// Of a shared claim, before give_back(): what must stay as long as others share is left to one of them, who are
  /// found through the `proxy` of the same node.
  virtual void leave_to_sharers(Mark& /*proxy*/) noexcept {}
  /// Of a shared proxy that is about to be given back. From the first call on others know that, and leave nothing to
  /// this claim. True when nobody else shares and nobody can come before it is given back.
  [[nodiscard]] virtual bool is_last_out() noexcept { return false; }
  /// exclusive -> shared or back, without a gap; an Obstacle leaves the mark as it was.
  [[nodiscard]] virtual std::expected<void, Obstacle> change_mode(Mode mode) = 0;
  /// Whether passed_to() can be: nothing but the owner would change, and a taking anew would find nobody in the way.
  [[nodiscard]] virtual bool can_be_passed_on() const { return false; }
  /// From now on another process's claim, over the same descriptions: what names the owner is rewritten in place.
  /// \param since  of that claim, for whoever reads
  virtual void passed_to(const Terms& /*terms*/, std::chrono::system_clock::time_point /*since*/) noexcept {}
  /// Hand-over: lets go so that another process can take the convention, and gets it back when that has let go.
  virtual void lend() noexcept {}
  [[nodiscard]] virtual bool take_back() noexcept { return true; }
  [[nodiscard]] virtual Convention convention() const = 0;
  [[nodiscard]] virtual MarkView view() const = 0;
  /// Descriptors that this mark owns by itself (not Subject::fd).
  [[nodiscard]] virtual std::vector<int> own_descriptors() const = 0;
  virtual void share_with_children() noexcept {}
};

using Taken = std::expected<std::unique_ptr<Mark>, Obstacle>;

/// Whether the locks that another process took are believed to be there, or set once more on its descriptions: a
/// description that does not carry them is then refused when somebody else has the device.
enum class Locks : std::uint8_t { as_said, proven };

/// What another process handed over of a mark that it took.
struct HandedOver {
  std::vector<std::string> files;              ///< its lock files, by path
  std::vector<base::ProcessFd> descriptors{};  ///< as own_descriptors()
  Locks locks = Locks::as_said;
};

/// When in a claim a convention is taken.
enum class Phase : std::uint8_t {
  before_open,  ///< proxy, ddlp, uucp: no open(2) of the device
  opened,       ///< needs Subject::fd, or opens the node itself in its own way (o_excl, whole_disk)
};

struct Entry {
  Convention id;
  std::string_view name;   ///< as in --convention and in status: "uucp"
  std::string_view means;  ///< as in messages: "UUCP lock file"
  std::string_view takes;  ///< one line for explain: what a claim does with it
  std::string_view limit;  ///< one line: what it cannot do
  Phase phase;
  bool native;  ///< the kernel refuses others by it
  /// nullopt when it applies to the node, else why not ("not a terminal").
  std::optional<std::string> (*inapplicable)(const Subject& subject);
  Taken (*take)(const Subject& subject, const Terms& terms);
  /// The mark that another process took, over the same open descriptions (Subject::fd among them). What was handed over
  /// is compared with the node and the lock files first, and the descriptors are moved out of it.
  Taken (*adopt)(const Subject& subject, const Terms& terms, HandedOver& given);
};

/// All conventions in the order of taking; one entry per Convention, index = value.
[[nodiscard]] std::span<const Entry> table();
[[nodiscard]] const Entry& entry(Convention convention);
[[nodiscard]] std::optional<Convention> convention_named(std::string_view name);

/// Whether the node may be opened for marking alone: opening it has no effect on the device.
[[nodiscard]] bool harmless_to_open(device::Family family);

/// A node opened for marking.
struct OpenNode {
  base::ProcessFd fd;
  bool writable = false;
};

/// Opens the node once, in the way that has the least side effects: O_NONBLOCK, O_NOCTTY, O_CLOEXEC; a terminal
/// read-write (else as permissions allow), a disk read-only (closing a writable one makes udev probe it), an sg node
/// with O_EXCL when `excl` says so (its O_EXCL is mandatory, so a second description could not be opened beside it).
enum class SgExcl : std::uint8_t { no, yes };
[[nodiscard]] std::expected<OpenNode, Obstacle> open_node(const Subject& subject, const base::Places& places,
                                                          SgExcl excl);

/// Shorthands for the three kinds of obstacle.
[[nodiscard]] Obstacle busy(const Subject& subject, Holder holder, std::string_view means,
                            std::string_view way_out = {});
[[nodiscard]] Obstacle unavailable(const Subject& subject, std::string reason);
[[nodiscard]] Obstacle faulted(Error error);

}  // namespace holdfast::convention
