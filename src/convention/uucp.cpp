// SPDX-License-Identifier: MIT
// uucp.cpp - UUCP/HDB/FHS lock files (FHS 3.0 section 5.9): the oldest convention, keyed on spelling.
//
// Every program derives its own name from the path it was given, so a claim makes all of them, as hard links of one
// complete file. A dead process's file is replaced by RENAME_EXCHANGE: the name never vanishes, and if it turns out
// that somebody else was quicker, the exchange is undone.
#include "convention/uucp.hpp"

#include "base/error.hpp"
#include "base/unique_fd.hpp"
#include "convention/conventions.hpp"
#include "convention/holder.hpp"
#include "convention/lock_file.hpp"
#include "convention/proxy.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/utsname.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <utility>

namespace holdfast::convention {
namespace {

using namespace std::chrono_literals;

void add(std::vector<std::string>& names, std::string name) {
  if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(std::move(name));
}

// The names that programs derive from one spelling of the path (conventions by program: docs/interop.md).
void add_spelling(UucpNames& names, std::string_view path) {
  std::string_view rest = path.starts_with("/dev/") ? path.substr(5) : path.substr(path.rfind('/') + 1);
  if (rest.empty()) return;
  add(names.create, fmt::format("LCK..{}", rest.substr(rest.rfind('/') + 1)));  // cu, mgetty, gammu, C-Kermit
  if (!rest.contains('/')) return;
  std::string flat{rest};
  std::replace(flat.begin(), flat.end(), '/', '_');
  add(names.create, "LCK.." + flat);  // pppd, minicom, gensio, Qt
  std::string colons{rest};
  std::replace(colons.begin(), colons.end(), '/', ':');
  add(names.watch, "LCK.." + colons);  // lockdev
}

bool is_number(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

}  // namespace

UucpNames uucp_names(const device::Device& device, const device::Node& node) {
  UucpNames names;
  add_spelling(names, node.path);
  if (node.id == device.node.id) {
    if (device.given.starts_with('/')) add_spelling(names, device.given);
    for (const std::string& link : device.links) add_spelling(names, link);
  }
  const auto [kind, major, minor, devpts] = node.id;
  add(names.create, fmt::format("LK.{:03}.{:03}.{:03}", ::major(node.inode.dev), major, minor));  // SVr4, lockdev 1.0.4
  add(names.create, fmt::format("LCK.C.{:03}.{:03}", major, minor));                              // lockdev 1.0.3
  add(names.create, fmt::format("LCK.{:03}.{:03}", major, minor));  // gensio 2.7, old lockdev
  // A name the file system cannot hold is one no program can have made.
  std::erase_if(names.create, [](const std::string& name) { return name.size() > NAME_MAX; });
  std::erase_if(names.watch, [](const std::string& name) { return name.size() > NAME_MAX; });
  return names;
}

bool is_uucp_name(std::string_view file_name) {
  if (file_name.starts_with("LCK..")) {
    const std::string_view rest = file_name.substr(5);
    // "LCK...PID" is lockdev's own, "LCK..TM.x" mgetty's half-made file.
    return !rest.empty() && rest.front() != '.' && !rest.starts_with("TM.");
  }
  for (const std::string_view prefix : {"LK.b.", "LK.", "LCK.C.", "LCK.B.", "LCK."}) {
    if (!file_name.starts_with(prefix)) continue;
    const std::string_view rest = file_name.substr(prefix.size());
    return !rest.empty() && rest.front() != '.' && rest.find_first_not_of(".0123456789") == std::string_view::npos;
  }
  return false;
}

namespace {

// PID_MAX_LIMIT, include/linux/threads.h. Four or eight bytes that make a larger number are text, or nothing: no text
// of printable characters makes a smaller one.
constexpr std::int64_t kLargestPid = 4 * 1024 * 1024;

template <class Integer>
std::optional<pid_t> native_pid(std::string_view bytes) {
  Integer value = 0;
  if (bytes.size() != sizeof value) return std::nullopt;
  std::memcpy(&value, bytes.data(), sizeof value);
  if (value <= 0 || value > kLargestPid) return std::nullopt;
  return static_cast<pid_t>(value);
}

}  // namespace

UucpContent parse_uucp(std::string_view bytes) {
  if (bytes.empty()) return {UucpContent::Kind::empty, 0};
  // mgetty's and minicom's rule: four bytes are a native int; old microcom writes a native long.
  if (const auto pid = native_pid<std::int32_t>(bytes)) return {UucpContent::Kind::pid, *pid};
  if (const auto pid = native_pid<std::int64_t>(bytes)) return {UucpContent::Kind::pid, *pid};
  const auto start = bytes.find_first_not_of(" \t");
  if (start == std::string_view::npos) return {};
  const std::string_view word =
      bytes.substr(start, bytes.find_first_of(std::string_view{" \t\r\n\0", 5}, start) - start);
  if (!is_number(word)) return {};
  std::int64_t pid = 0;
  const auto [last, error] = std::from_chars(word.data(), word.data() + word.size(), pid);
  if (error != std::errc{} || pid <= 0 || pid > INT32_MAX) return {};
  return {UucpContent::Kind::pid, static_cast<pid_t>(pid)};
}

std::string uucp_content(pid_t pid) {
  utsname host{};
  ::uname(&host);
  // QtSerialPort respects a lock only if line 2 is the name of the pid's executable and line 3 this host or empty; the
  // UUCP readers look at line 1 alone.
  return fmt::format("{:10}\n{}\n{}\n", pid, base::printable(base::executable_name(pid)), host.nodename);
}

namespace {

// A file that nobody has written to for this long after it was made empty is not being written any more.
constexpr auto kEmptyGrace = 10s;

bool judge_stale(const UucpContent& content, const struct stat& status) {
  const auto written = std::chrono::system_clock::time_point{std::chrono::seconds{status.st_mtim.tv_sec}};
  if (content.kind == UucpContent::Kind::empty) return std::chrono::system_clock::now() - written > kEmptyGrace;
  if (content.kind == UucpContent::Kind::garbage) return false;
  const auto facts = base::facts_of(content.pid);
  if (!facts) return !base::is_alive({content.pid, 0});
  // Born after the file was written: the number was used again. Two seconds allow for the clocks' grain and a clock
  // that was stepped by less.
  return facts->dead || facts->started > written + 2s;
}

std::optional<UucpFile> read_at(int directory, const std::string& name) {
  const base::UniqueFd fd{::openat(directory, name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)};
  UucpFile file;
  file.path = name;
  struct stat status{};
  if (!fd) {
    file.errnum = errno;
    if (file.errnum == ENOENT || ::fstatat(directory, name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0)
      return std::nullopt;
    file.inode = {status.st_dev, status.st_ino};
    file.uid = status.st_uid;
    return file;  // a link, a socket, or unreadable: garbage, so taken
  }
  if (::fstat(fd.get(), &status) != 0) return std::nullopt;
  file.inode = {status.st_dev, status.st_ino};
  file.uid = status.st_uid;
  if (!S_ISREG(status.st_mode)) return file;
  char bytes[256];
  const ssize_t got = ::pread(fd.get(), bytes, sizeof bytes, 0);
  if (got < 0) return file;
  file.content = parse_uucp({bytes, static_cast<std::size_t>(got)});
  file.stale = judge_stale(file.content, status);
  return file;
}

class UucpMark final : public Mark {
 public:
  UucpMark(base::UniqueFd directory, const Subject& subject, const Terms& terms)
      : directory_{std::move(directory)}, node_{subject.node}, terms_{terms} {
    terms_.rights = nullptr;  // the taker's
  }

  // Destroyed without give_back only on the way out of take(): what was linked must go.
  ~UucpMark() override = default;

  void give_back() noexcept override {
    for (const std::string& name : all_names()) {
      // One that a sharer passed to us is another file with our pid.
      if (bears(name, terms_.owner.pid)) ::unlinkat(directory_.get(), name.c_str(), 0);
    }
    names_.clear();
    sharers_.clear();
    pinned_.reset();
    directory_.reset();
  }

  void leave_to_sharers(Mark& proxy) noexcept override {
    static_cast<void>(proxy.is_last_out());  // said before the first look
    for (const std::string& name : all_names()) leave(name, proxy);
    names_.clear();
    sharers_.clear();
  }

  std::expected<void, Obstacle> change_mode(Mode mode) override {
    terms_.mode = mode;  // the files say the same for both
    return {};
  }

  // All names that count are there, and are of our one file: each link of it is one of them. Nobody made it longer.
  [[nodiscard]] bool can_be_passed_on() const override {
    struct stat status{};
    return terms_.mode == Mode::exclusive && pinned_ && !names_.empty() && names_.size() == wanted_ &&
           ::fstat(pinned_.get(), &status) == 0 && status.st_nlink == names_.size() && status.st_size == size_;
  }

  // In place, as pppd does when it detaches (relock(), pppd/utils.c): no name is missing at any moment. What names no
  // process any more cannot stay.
  void passed_to(const Terms& terms, std::chrono::system_clock::time_point /*since*/) noexcept override {
    terms_ = terms;
    const std::string content = terms.lock_file.empty() ? uucp_content(terms.owner.pid) : terms.lock_file;
    const auto size = static_cast<off_t>(content.size());
    const bool is_shorter = size < std::exchange(size_, size);
    if (::pwrite(pinned_.get(), content.data(), content.size(), 0) == size &&
        (!is_shorter || ::ftruncate(pinned_.get(), size) == 0))
      return;
    notes_.push_back(fmt::format("{}: {}", path_of(names_.front()), base::errno_text(errno)));
    for (const std::string& name : std::exchange(names_, {})) ::unlinkat(directory_.get(), name.c_str(), 0);
  }

  [[nodiscard]] Convention convention() const override { return Convention::uucp; }

  [[nodiscard]] MarkView view() const override {
    MarkView view;
    view.convention = convention();
    view.node = node_;
    view.inode = inode_;
    for (const std::string& name : names_) view.files.push_back(terms_.places.lock_dir + "/" + name);
    view.notes = notes_;
    return view;
  }

  [[nodiscard]] std::vector<int> own_descriptors() const override { return {directory_.get(), pinned_.get()}; }

  // Of the files that another process made for this claim those that are there and name its owner.
  std::optional<Obstacle> adopt(const Subject& subject, const UucpNames& names, const std::vector<std::string>& files) {
    const std::string directory = terms_.places.lock_dir + "/";
    for (const std::string& file : files) {
      const std::string name = file.starts_with(directory) ? file.substr(directory.size()) : std::string{};
      if (std::ranges::find(names.create, name) == names.create.end()) return not_believed(subject, "UUCP lock file");
      if (pinned_ ? is_ours(name) : pin(name)) names_.push_back(name);
    }
    for (const std::string& name : names.create) note_sharer(name);
    if (names_.empty() && sharers_.empty()) return unavailable(subject, "no lock file names this process");
    return std::nullopt;
  }

  // Makes the names, or says who has one. What was made before an obstacle is removed by give_back().
  std::optional<Obstacle> make(const Subject& subject, const UucpNames& names) {
    // A file that lost its only name gets no more of them: linkat(2) answers ENOENT. It happens when a stale file may
    // not be replaced, and when a sharer, from whom nothing keeps us, replaces the same one.
    for (int attempt = 0;; ++attempt) {
      auto obstacle = make_from_a_new_file(subject, names);
      const bool lost = obstacle && obstacle->kind == Obstacle::Kind::fault && obstacle->error.errnum == ENOENT;
      if (!lost || attempt == kTries) return obstacle;
      names_.clear();
      sharers_.clear();
    }
  }

 private:
  // One of the names of the file that we know.
  [[nodiscard]] bool is_ours(const std::string& name) const {
    struct stat status{};
    return ::fstatat(directory_.get(), name.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0 &&
           device::InodeId{status.st_dev, status.st_ino} == inode_;
  }

  // From now on that is the file, when it names the owner, who lives: whether it is stale need not be asked.
  bool pin(const std::string& name) {
    base::UniqueFd fd{
        ::openat(directory_.get(), name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)};
    struct stat status{};
    char bytes[256];
    if (!fd || ::fstat(fd.get(), &status) != 0 || !S_ISREG(status.st_mode)) return false;
    const ssize_t got = ::pread(fd.get(), bytes, sizeof bytes, 0);
    const UucpContent content = parse_uucp({bytes, static_cast<std::size_t>(std::max<ssize_t>(got, 0))});
    if (content.kind != UucpContent::Kind::pid || content.pid != terms_.owner.pid) return false;
    inode_ = {status.st_dev, status.st_ino};
    pinned_ = std::move(fd);
    return true;
  }

  static constexpr int kTries = 8;
  // So often those who leave look for each other, a millisecond or two: one that stands still must not keep us here.
  static constexpr int kLeaveTries = 64;

  std::optional<Obstacle> make_from_a_new_file(const Subject& subject, const UucpNames& names) {
    const std::string content = uucp_content(terms_.owner.pid);
    auto file = UnnamedFile::make(directory_.get(), content, 0644);
    size_ = static_cast<off_t>(content.size());
    // Without the right to write, others' files are still respected.
    const int cannot_create = file ? 0 : file.error();
    if (cannot_create == ENOSPC || cannot_create == EDQUOT || cannot_create == EMFILE || cannot_create == ENFILE ||
        cannot_create == ENOMEM)
      return faulted(base::fault(cannot_create, "lock file in " + terms_.places.lock_dir, subject.node.path));
    if (file) inode_ = file->inode();
    wanted_ = names.create.size();
    for (const std::string& name : names.create)
      if (auto obstacle = make_one(subject, name, file ? &*file : nullptr)) return obstacle;
    for (const std::string& name : names.watch)
      if (auto obstacle = respect(subject, name)) return obstacle;
    if (!file)
      return unavailable(subject, fmt::format("no lock file can be made in {}: {}", terms_.places.lock_dir,
                                              base::errno_text(cannot_create)));
    if (names_.empty() && sharers_.empty())
      return unavailable(subject, notes_.empty() ? "no lock file of ours" : notes_.front());
    pinned_ = file->take_descriptor();
    return std::nullopt;
  }

  std::optional<Obstacle> make_one(const Subject& subject, const std::string& name, const UnnamedFile* ours) {
    for (int attempt = 0; attempt < kTries; ++attempt) {
      if (ours != nullptr) {
        // Made first and looked at only when it is there: nobody's file is the rule.
        const int errnum = ours->link_as(name);
        if (errnum == 0) names_.push_back(name);
        if (errnum == 0) return std::nullopt;
        if (errnum != EEXIST) return faulted(base::fault(errnum, path_of(name), subject.node.path));
      }
      const auto found = read_at(directory_.get(), name);
      if (!found && ours == nullptr) return std::nullopt;
      if (!found) continue;
      if (ours != nullptr && found->inode == ours->inode()) {  // by the hand of a sharer that took over for us
        names_.push_back(name);
        return std::nullopt;
      }
      if (found->stale) {
        if (ours == nullptr || std::ranges::find(left_alone_, name) != left_alone_.end()) return std::nullopt;
        const int errnum = replace_stale(name, *found, *ours);
        if (errnum == EAGAIN) continue;
        if (errnum == EPERM || errnum == EACCES) {
          // In a sticky directory only its owner or root may remove it. Its process is dead, so nobody holds the device
          // by it.
          left_alone_.push_back(name);
          notes_.push_back(
              fmt::format("{} is stale and belongs to {}: remove it", path_of(name), base::user_name(found->uid)));
          return std::nullopt;
        }
        if (errnum != 0) return faulted(base::fault(errnum, path_of(name), subject.node.path));
        names_.push_back(name);
        return std::nullopt;
      }
      if (is_ours_anyway(*found)) {
        // Made for this claim by a broker that was killed before it could say so.
        if (terms_.mode == Mode::exclusive && says_what_we_write(name, terms_.owner.pid) && is_only_claim())
          names_.push_back(name);
        // Not ours to remove when the owner made it by itself; a sharer's may pass to us.
        if (terms_.mode == Mode::shared &&
            (found->content.pid != terms_.owner.pid || says_what_we_write(name, terms_.owner.pid)))
          sharers_.push_back(name);
        return std::nullopt;
      }
      // Whom it names may have passed it on between our look at it and the one at who shares.
      const auto again = read_at(directory_.get(), name);
      if (terms_.mode == Mode::shared && (!again || again->inode != found->inode)) continue;
      return refusal(subject, *found, name);
    }
    return refusal(subject, {}, name);
  }

  std::optional<Obstacle> respect(const Subject& subject, const std::string& name) {
    const auto found = read_at(directory_.get(), name);
    if (!found || found->stale || is_ours_anyway(*found)) return std::nullopt;
    return refusal(subject, *found, name);
  }

  // In a shared claim: a name that we must leave to others, or that may pass to us.
  void note_sharer(const std::string& name) {
    if (terms_.mode != Mode::shared || std::ranges::find(names_, name) != names_.end()) return;
    const auto found = read_at(directory_.get(), name);
    if (found && !found->stale && is_ours_anyway(*found) &&
        (found->content.pid != terms_.owner.pid || says_what_we_write(name, terms_.owner.pid)))
      sharers_.push_back(name);
  }

  // The owner's own file, made before it asked for the claim; or a fellow sharer's.
  bool is_ours_anyway(const UucpFile& file) const {
    if (file.content.kind != UucpContent::Kind::pid) return false;
    if (file.content.pid == terms_.owner.pid) return true;
    return terms_.mode == Mode::shared && is_sharer(file.content.pid);
  }

  // Whether the owner has no other claim of the node than the one that is being taken.
  bool is_only_claim() const {
    const auto records = read_proxy(proxy_path(node_.id, terms_.places));
    return records && std::ranges::count_if(*records, [&](const ProxyRecord& record) {
                        return !record.waiting && record.who.pid == terms_.owner.pid;
                      }) == 1;
  }

  bool is_sharer(pid_t pid) const {
    const auto records = read_proxy(proxy_path(node_.id, terms_.places));
    return records && std::any_of(records->begin(), records->end(), [&](const ProxyRecord& record) {
             return !record.waiting && record.mode == Mode::shared && record.who.pid == pid;
           });
  }

  Obstacle refusal(const Subject& subject, const UucpFile& file, const std::string& name) const {
    // Not read for want of a descriptor: that says nothing of the file.
    if (file.errnum == EMFILE || file.errnum == ENFILE || file.errnum == ENOMEM)
      return faulted(base::fault(file.errnum, path_of(name), subject.node.path));
    Holder holder;
    if (file.content.kind == UucpContent::Kind::pid) holder = holder_of(file.content.pid);
    const std::string means = "UUCP lock file " + path_of(name);
    if (file.content.kind == UucpContent::Kind::pid) return busy(subject, std::move(holder), means);
    if (file.errnum == EACCES)
      return busy(subject, std::move(holder), means, "it cannot be read: root can see whether its process lives");
    return busy(subject, std::move(holder), means, "it names no process: remove it if nothing uses the device");
  }

  // 0, EAGAIN when the file is no longer the one that was judged, or errno.
  int replace_stale(const std::string& name, const UucpFile& judged, const UnnamedFile& ours) {
    if (!std::exchange(swept_, true)) sweep_private_names(directory_.get());
    const std::string aside = private_name(name);
    int errnum = ours.link_as(aside);
    if (errnum != 0) return errnum;
    errnum = exchange(aside, name);
    if (errnum == 0) {
      const auto was = read_at(directory_.get(), aside);
      const bool as_judged = was && was->inode == judged.inode && was->stale;
      // Of sharers that replace the same one all are right, and the last one's stays.
      const bool by_a_sharer = was && terms_.mode == Mode::shared && was->content.kind == UucpContent::Kind::pid &&
                               is_sharer(was->content.pid);
      if (!as_judged && !by_a_sharer) {
        exchange(aside, name);
        errnum = EAGAIN;
      }
    } else if (errnum == ENOENT) {
      errnum = EAGAIN;
    }
    ::unlinkat(directory_.get(), aside.c_str(), 0);
    return errnum;
  }

  int exchange(const std::string& one, const std::string& other) const {
    return ::renameat2(directory_.get(), one.c_str(), directory_.get(), other.c_str(), RENAME_EXCHANGE) == 0 ? 0
                                                                                                             : errno;
  }

  // In the reverse order of their making.
  [[nodiscard]] std::vector<std::string> all_names() const {
    std::vector<std::string> all{names_.rbegin(), names_.rend()};
    all.insert(all.end(), sharers_.rbegin(), sharers_.rend());
    return all;
  }

  // Whether it is ours, or was made for `pid` by one of us.
  [[nodiscard]] bool bears(const std::string& name, pid_t pid) const {
    struct stat status{};
    if (::fstatat(directory_.get(), name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) return false;
    const bool same = status.st_dev == inode_.dev && status.st_ino == inode_.ino;
    if (!same || pid != terms_.owner.pid) return says_what_we_write(name, pid);
    if (wanted_ > 0) return true;
    // What another process made it may have passed on: the same file, but with another pid.
    const auto found = read_at(directory_.get(), name);
    return found && found->content.kind == UucpContent::Kind::pid && found->content.pid == pid;
  }

  // Keeps UUCP programs out while others go on sharing: the file gets the pid of one of them, or stays as it is for
  // another claim of this process. Whoever leaves says so before he looks at the file for the last time, and whoever
  // passes it on looks for the heir once more when it bears his name: one of the two sees the other. A newcomer is in
  // the proxy before he relies on a file, so that the last one out is alone while he removes it.
  void leave(const std::string& name, Mark& proxy) const noexcept {
    pid_t named = terms_.owner.pid;
    for (int attempt = 0; attempt < kLeaveTries && bears(name, named); ++attempt) {
      if (proxy.is_last_out()) break;
      const std::vector<ProxyRecord> staying = staying_sharers();
      if (std::ranges::any_of(staying, [&](const auto& record) { return record.who.pid == named; })) return;
      if (staying.empty()) {
        ::sched_yield();
        continue;
      }
      const auto alive = std::ranges::find_if(
          staying, [](const ProxyRecord& record) { return base::is_alive({record.who.pid, record.who.start_ticks}); });
      const pid_t heir = (alive == staying.end() ? staying.front() : *alive).who.pid;
      if (pass_to(heir, name)) named = heir;
    }
    if (bears(name, named)) ::unlinkat(directory_.get(), name.c_str(), 0);
  }

  [[nodiscard]] std::vector<ProxyRecord> staying_sharers() const {
    auto records = read_proxy(proxy_path(node_.id, terms_.places));
    if (!records) return {};
    std::erase_if(*records, [](const ProxyRecord& record) {
      return record.waiting || record.leaving || record.mode != Mode::shared;
    });
    return std::move(*records);
  }

  [[nodiscard]] bool says_what_we_write(const std::string& name, pid_t pid) const {
    const base::UniqueFd fd{
        ::openat(directory_.get(), name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)};
    char bytes[256];
    const ssize_t got = fd ? ::pread(fd.get(), bytes, sizeof bytes, 0) : -1;
    if (got <= 0) return false;
    const std::string_view content{bytes, static_cast<std::size_t>(got)};
    // Whoever wrote it may have known the program by another name: one that execs, or may not be looked at.
    const std::string ours = uucp_content(pid);
    const std::string_view pid_line = std::string_view{ours}.substr(0, ours.find('\n') + 1);
    const std::string_view host_line = std::string_view{ours}.substr(ours.rfind('\n', ours.size() - 2));
    return content.size() > pid_line.size() + host_line.size() - 1 && content.starts_with(pid_line) &&
           content.ends_with(host_line) && std::ranges::count(content, '\n') == 3;
  }

  bool pass_to(pid_t sharer, const std::string& name) const noexcept {
    const auto file = UnnamedFile::make(directory_.get(), uucp_content(sharer), 0644);
    const std::string aside = private_name(name);
    if (!file || file->link_as(aside) != 0) return false;
    if (::renameat(directory_.get(), aside.c_str(), directory_.get(), name.c_str()) == 0) return true;
    ::unlinkat(directory_.get(), aside.c_str(), 0);
    return false;
  }

  [[nodiscard]] std::string path_of(const std::string& name) const { return terms_.places.lock_dir + "/" + name; }

  base::UniqueFd directory_;
  base::UniqueFd pinned_;
  device::InodeId inode_;
  device::Node node_;
  Terms terms_;
  std::vector<std::string> names_;
  std::vector<std::string> sharers_;     // made by a fellow sharer
  std::vector<std::string> left_alone_;  // stale, but not ours to remove
  std::vector<std::string> notes_;
  bool swept_ = false;
  off_t size_ = 0;          // of the file that we made
  std::size_t wanted_ = 0;  // names to be made; 0 when another process made them
};

}  // namespace

std::optional<UucpFile> read_uucp(const std::string& path) {
  auto file = read_at(AT_FDCWD, path);
  return file;
}

Taken adopt_uucp(const Subject& subject, const Terms& terms, HandedOver& given) {
  if (!given.descriptors.empty()) return std::unexpected(not_believed(subject, "UUCP lock file"));
  base::UniqueFd directory{::open(terms.places.lock_dir.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC)};
  if (!directory)
    return std::unexpected(unavailable(subject, fmt::format("{}: {}", terms.places.lock_dir, base::errno_text(errno))));
  auto mark = std::make_unique<UucpMark>(std::move(directory), subject, terms);
  if (auto obstacle = mark->adopt(subject, uucp_names(*subject.device, subject.node), given.files))
    return std::unexpected(std::move(*obstacle));
  return mark;
}

Taken take_uucp(const Subject& subject, const Terms& terms) {
  const WithRights rights{terms.rights};
  base::UniqueFd directory{::open(terms.places.lock_dir.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC)};
  if (!directory)
    return std::unexpected(unavailable(subject, fmt::format("{}: {}", terms.places.lock_dir, base::errno_text(errno))));
  auto mark = std::make_unique<UucpMark>(std::move(directory), subject, terms);
  if (auto obstacle = mark->make(subject, uucp_names(*subject.device, subject.node))) {
    mark->give_back();
    return std::unexpected(std::move(*obstacle));
  }
  return mark;
}

}  // namespace holdfast::convention
