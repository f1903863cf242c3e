// SPDX-License-Identifier: MIT
// ddlp.cpp - the Delicate Device Locking Protocol of libburnia and cdrkit for optical drives, level B: fcntl locks on
// /tmp/ddlpb-lock-* for every permissible path of the drive, before any open(2) (libburn doc/ddlp.txt).
//
// Level A, record locks and O_EXCL on the nodes of all siblings, is what the conventions posix and o_excl do on the
// nodes that a claim of a drive covers. The siblings come from sysfs, so no foreign drive is opened in the search.
#include "convention/ddlp.hpp"

#include "base/error.hpp"
#include "convention/conventions.hpp"
#include "convention/holder.hpp"
#include "convention/record_lock.hpp"

#include <fmt/format.h>
#include <scsi/scsi.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <tuple>

namespace holdfast::convention {

bool is_optical(const Subject& subject) {
  using device::Family;
  if (subject.family == Family::optical) return true;
  if (subject.family != Family::scsi_generic) return false;
  // SPC-4 table 139: 5 is a CD or DVD device. Its sr node may be missing.
  if (subject.device->scsi_type == "5") return true;
  return subject.device->family == Family::optical ||
         std::any_of(subject.device->siblings.begin(), subject.device->siblings.end(),
                     [](const device::Sibling& sibling) { return sibling.family == Family::optical; });
}

std::vector<std::string> ddlp_suffixes(const device::Node& node) {
  std::vector<std::string> paths{node.path};
  // sr and scd are two names of one driver's node; a program may use either.
  if (node.path.starts_with("/dev/sr")) paths.push_back("/dev/scd" + node.path.substr(7));
  std::vector<std::string> suffixes;
  for (const std::string& path : paths) {
    std::string escaped;
    for (std::size_t i = 0; i < path.size(); ++i) {
      if (path[i] == '/') {
        escaped += "_-";
      } else if (path.compare(i, 2, "_-") == 0) {
        escaped += "_-_-";
        ++i;
      } else {
        escaped += path[i];
      }
    }
    suffixes.push_back(std::move(escaped));
  }
  std::string number = fmt::format("{:X}", node.id.rdev());
  if (number.size() % 2 != 0) number.insert(0, 1, '0');
  suffixes.push_back(std::move(number));
  return suffixes;
}

Result<> verify_scsi_address(int fd, const device::Device& device) {
  if (!device.scsi) return {};
  // uapi: struct scsi_idlun { __u32 dev_id = host<<24 | channel<<16 | lun<<8 | id; __u32 host_unique_id; }
  struct {
    std::uint32_t packed;
    std::uint32_t host_unique;
  } idlun{};
  constexpr unsigned long kGetIdLun = 0x5382;          // SCSI_IOCTL_GET_IDLUN
  if (::ioctl(fd, kGetIdLun, &idlun) != 0) return {};  // not every driver answers; sysfs has said it already
  const auto want = std::tuple{device.scsi->host & 0xFF, device.scsi->channel & 0xFF, device.scsi->target & 0xFF,
                               device.scsi->lun & 0xFF};
  const auto is = std::tuple{static_cast<int>(idlun.packed >> 24 & 0xFF), static_cast<int>(idlun.packed >> 16 & 0xFF),
                             static_cast<int>(idlun.packed & 0xFF), static_cast<int>(idlun.packed >> 8 & 0xFF)};
  if (want == is) return {};
  return std::unexpected(base::failure(
      errc::ambiguous,
      fmt::format("{}: the drive answers as another SCSI address than sysfs gives; plug it again", device.node.path),
      device.given));
}

namespace {

class DdlpMark final : public Mark {
 public:
  explicit DdlpMark(device::Node node) : node_{std::move(node)} {}

  void add(base::ProcessFd fd, std::string path) {
    fds_.push_back(std::move(fd));
    paths_.push_back(std::move(path));
  }

  void give_back() noexcept override {
    for (const base::ProcessFd& fd : fds_) {
      // The content is only a hint about the holder; the lock's end is what counts.
      [[maybe_unused]] const int emptied = ::ftruncate(fd.get(), 0);
      drop_record_lock(fd.get(), {});
    }
    fds_.clear();
  }

  std::expected<void, Obstacle> change_mode(Mode mode) override {
    for (std::size_t i = 0; i < fds_.size(); ++i) {
      const auto wanted = mode == Mode::exclusive ? RecordLock::write : RecordLock::read;
      if (set_record_lock(fds_[i].get(), wanted, {}) == LockAnswer::taken) continue;
      const int errnum = errno;
      // Back to what was held: a downgrade of a lock of our own, or an upgrade that just now was granted.
      for (std::size_t done = 0; done < i; ++done)
        static_cast<void>(
            set_record_lock(fds_[done].get(), mode == Mode::exclusive ? RecordLock::read : RecordLock::write, {}));
      Subject subject;
      subject.node = node_;
      if (errnum == EAGAIN || errnum == EACCES)
        return std::unexpected(busy(subject, {}, "DDLP lock file " + paths_[i]));
      return std::unexpected(faulted(base::fault(errnum, paths_[i], node_.path)));
    }
    return {};
  }

  [[nodiscard]] Convention convention() const override { return Convention::ddlp; }

  [[nodiscard]] MarkView view() const override {
    MarkView view;
    view.convention = convention();
    view.node = node_;
    view.fd = fds_.empty() ? -1 : fds_.front().get();
    view.files = paths_;
    return view;
  }

  void share_with_children() noexcept override {
    for (base::ProcessFd& fd : fds_) fd.share_with_children();
  }

  [[nodiscard]] std::vector<int> own_descriptors() const override {
    std::vector<int> fds;
    for (const base::ProcessFd& fd : fds_) fds.push_back(fd.get());
    return fds;
  }

 private:
  device::Node node_;
  std::vector<base::ProcessFd> fds_;
  std::vector<std::string> paths_;
};

// The drive's names must be exactly one of each driver: a missing or a second one may be somebody's search in
// progress, or another drive.
std::optional<Error> incomplete(const Subject& subject) {
  using device::Family;
  // A unit may have several drives: each is judged when it is asked for itself.
  if (subject.relation && subject.relation != device::Relation::same_function) return std::nullopt;
  const device::Device& device = *subject.device;
  const auto count = [&](Family family) {
    return (device.family == family ? 1 : 0) +
           std::count_if(device.siblings.begin(), device.siblings.end(), [&](const device::Sibling& sibling) {
             return sibling.family == family && sibling.relation == device::Relation::same_function;
           });
  };
  const std::string_view missing = count(Family::optical) == 0 ? "no sr node in /dev: load the module sr_mod"
                                   : count(Family::scsi_generic) == 0
                                       ? "no sg node in /dev: load the module sg (modprobe sg)"
                                       : "";
  if (!missing.empty())
    return base::failure(
        errc::ambiguous,
        fmt::format("{}: the drive has {}, or claim without the convention ddlp", device.node.path, missing),
        device.given);
  if (count(Family::optical) > 1 || count(Family::scsi_generic) > 1)
    return base::failure(errc::ambiguous,
                         fmt::format("{}: two nodes of one driver claim to be this drive", device.node.path),
                         device.given);
  return std::nullopt;
}

}  // namespace

Taken adopt_ddlp(const Subject& subject, const Terms& terms, HandedOver& given) {
  const std::vector<std::string> suffixes = ddlp_suffixes(subject.node);
  if (given.descriptors.size() != suffixes.size()) return std::unexpected(not_believed(subject, "DDLP lock files"));
  auto mark = std::make_unique<DdlpMark>(subject.node);
  for (std::size_t i = 0; i < suffixes.size(); ++i) {
    std::string path = fmt::format("{}/ddlpb-lock-{}", terms.places.tmp, suffixes[i]);
    if (!is_lock_file(given.descriptors[i].get(), path)) return std::unexpected(not_believed(subject, path));
    mark->add(std::move(given.descriptors[i]), std::move(path));
  }
  if (given.locks == Locks::proven)
    if (auto held = mark->change_mode(terms.mode); !held) return std::unexpected(std::move(held.error()));
  return mark;
}

Taken take_ddlp(const Subject& subject, const Terms& terms) {
  if (auto error = incomplete(subject)) return std::unexpected(faulted(std::move(*error)));
  auto mark = std::make_unique<DdlpMark>(subject.node);
  for (const std::string& suffix : ddlp_suffixes(subject.node)) {
    const std::string path = fmt::format("{}/ddlpb-lock-{}", terms.places.tmp, suffix);
    auto file = open_lock_file(path);
    if (!file) {
      mark->give_back();
      return std::unexpected(lock_file_obstacle(subject, path, file.error()));
    }
    const bool exclusive = terms.mode == Mode::exclusive;
    const LockAnswer answer = set_record_lock(file->fd.get(), exclusive ? RecordLock::write : RecordLock::read, {});
    if (answer == LockAnswer::busy || answer == LockAnswer::failed) {
      const int errnum = errno;
      mark->give_back();
      if (answer == LockAnswer::failed) return std::unexpected(faulted(base::fault(errnum, path, subject.node.path)));
      return std::unexpected(
          busy(subject, find_lock_holder(file->inode, LockKind::record, terms.places), "DDLP lock file " + path));
    }
    if (exclusive) {
      const std::string content =
          fmt::format("{:10}\nprogram=holdfast\npath={}\nendmark=\n", terms.owner.pid, subject.node.path);
      // A full file system loses the hint, not the lock.
      [[maybe_unused]] const int emptied = ::ftruncate(file->fd.get(), 0);
      [[maybe_unused]] const ssize_t put = ::pwrite(file->fd.get(), content.data(), content.size(), 0);
    }
    mark->add(std::move(file->fd), path);
  }
  return mark;
}

}  // namespace holdfast::convention
