// SPDX-License-Identifier: MIT
// proxy.cpp - our own arbitration, before any open(2) of the device: a record lock on a file named after the device's
// number, the idea of DDLP without its path names. The file's content says who, for others to read.
#include "convention/proxy.hpp"

#include "base/error.hpp"
#include "convention/conventions.hpp"
#include "convention/holder.hpp"
#include "convention/lock_file.hpp"
#include "convention/record_lock.hpp"
#include "device/node.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>

namespace holdfast::convention {
namespace {

constexpr std::string_view kPrefix = "holdfast-";
constexpr Range kClaimByte{0, 1};

constexpr off_t slot_offset(int slot) { return kSlotOffset + static_cast<off_t>(kSlotSize) * slot; }
constexpr Range slot_byte(int slot) { return {slot_offset(slot), 1}; }

// So often a claim is tried again that only a sharer on its way out keeps from it: that one needs microseconds.
constexpr int kLeavingTries = 32;

char standing_of(const ProxyRecord& record) { return record.waiting ? 'w' : record.leaving ? 'l' : 'h'; }

// "1 PID START SINCE_MS MODE UID\nPURPOSE\n"; a record that does not begin with our version is nobody's.
std::string encode(const ProxyRecord& record, uid_t uid) {
  using namespace std::chrono;
  const auto begin = record.who.since.value_or(system_clock::now()).time_since_epoch();
  // A broker that is started anew tells its own claims from those that their owners made afterwards by what it wrote
  // down in between, perhaps in the same millisecond: what one makes for others began no later than this says, what an
  // owner makes for itself no earlier.
  const auto since = (record.who.pid == ::getpid() ? ceil<milliseconds>(begin) : floor<milliseconds>(begin)).count();
  std::string text = fmt::format("1 {} {} {} {}{} {}\n{}\n", record.who.pid, record.who.start_ticks, since,
                                 record.mode == Mode::exclusive ? 'x' : 's', standing_of(record), uid,
                                 base::printable(record.who.purpose, 80));
  text.resize(kSlotSize, '\0');
  return text;
}

template <class Number>
bool take_number(std::string_view& text, Number& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end == text.data() + text.size()) return false;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()) + 1);
  return true;
}

}  // namespace

std::optional<ProxyRecord> parse_proxy_record(std::string_view text) {
  ProxyRecord record;
  int version = 0;
  std::int64_t since = 0;
  uid_t uid = 0;
  if (!take_number(text, version) || version != 1) return std::nullopt;
  if (!take_number(text, record.who.pid) || record.who.pid <= 0 || !take_number(text, record.who.start_ticks) ||
      !take_number(text, since) || text.size() < 3)
    return std::nullopt;
  const bool known = (text[0] == 'x' || text[0] == 's') && (text[1] == 'h' || text[1] == 'w' || text[1] == 'l');
  if (!known || text[2] != ' ') return std::nullopt;
  record.mode = text[0] == 's' ? Mode::shared : Mode::exclusive;
  record.waiting = text[1] == 'w';
  record.leaving = text[1] == 'l';
  text.remove_prefix(3);
  if (!take_number(text, uid)) return std::nullopt;
  // What the clock's nanoseconds cannot hold was not written by us.
  using Clock = std::chrono::system_clock;
  constexpr auto kLatest = std::chrono::floor<std::chrono::milliseconds>(Clock::duration::max()).count();
  if (since < 0 || since > kLatest) return std::nullopt;
  record.who.since = Clock::time_point{std::chrono::milliseconds{since}};
  record.who.purpose = base::printable(text.substr(0, text.find('\n')), 80);
  record.who.user = base::user_name(uid);
  return record;
}

std::string proxy_path(const device::DeviceId& id, const base::Places& places) {
  return fmt::format("{}/{}{}", places.lock_dir, kPrefix, device::to_string(id));
}

std::optional<device::DeviceId> proxy_device(std::string_view file_name) {
  if (!file_name.starts_with(kPrefix)) return std::nullopt;
  file_name.remove_prefix(kPrefix.size());
  const auto at = file_name.find('@');
  auto id = device::parse_number(file_name.substr(0, at));
  if (id && at != std::string_view::npos) {
    const std::string_view instance = file_name.substr(at + 1);
    std::from_chars(instance.data(), instance.data() + instance.size(), id->devpts);
  }
  // Only the name that we would give it: another one is a file that no claim locks.
  if (!id || device::to_string(*id) != file_name || (id->devpts != 0 && !device::is_pseudo_terminal(*id)))
    return std::nullopt;
  return id;
}

namespace {

// All true records of an open proxy file.
std::vector<ProxyRecord> read_records(int fd) {
  std::vector<char> area((kHolderSlots + kWaiterSlots) * kSlotSize);
  const ssize_t got = ::pread(fd, area.data(), area.size(), kSlotOffset);
  std::vector<ProxyRecord> records;
  for (int slot = 0; got > 0 && static_cast<std::size_t>(slot) * kSlotSize < static_cast<std::size_t>(got); ++slot) {
    const std::size_t start = static_cast<std::size_t>(slot) * kSlotSize;
    const std::string_view bytes{area.data() + start, std::min(kSlotSize, static_cast<std::size_t>(got) - start)};
    if (bytes.front() == '\0' || !who_blocks(fd, RecordLock::write, slot_byte(slot))) continue;
    auto record = parse_proxy_record(bytes);
    if (!record) continue;
    // The slot's place is what its lock proves; what the bytes say of it is only somebody's word.
    record->waiting = slot >= kHolderSlots;
    const Holder live = holder_of(record->who.pid);
    if (live.start_ticks == record->who.start_ticks || record->who.start_ticks == 0) {
      record->who.command = live.command;
      if (!live.user.empty()) record->who.user = live.user;
    }
    records.push_back(std::move(*record));
  }
  return records;
}

// Takes a free slot of [first, first + count) and writes the record; -1 when none is free.
int enter_slot(int fd, int first, int count, const ProxyRecord& record) {
  for (int slot = first; slot < first + count; ++slot) {
    if (set_record_lock(fd, RecordLock::write, slot_byte(slot)) != LockAnswer::taken) continue;
    const std::string bytes = encode(record, ::geteuid());
    // A full file system loses the record, not the claim.
    [[maybe_unused]] const ssize_t put = ::pwrite(fd, bytes.data(), bytes.size(), slot_offset(slot));
    return slot;
  }
  return -1;
}

// The holder's slot whose lock is not another description's; -1 when there is none.
int entry_of(int fd, const Holder& who) {
  std::array<char, kSlotSize> bytes;
  for (int slot = 0; slot < kHolderSlots; ++slot) {
    const ssize_t got = ::pread(fd, bytes.data(), bytes.size(), slot_offset(slot));
    if (got <= 0) return -1;
    const auto record = parse_proxy_record({bytes.data(), static_cast<std::size_t>(got)});
    if (!record || record->who.pid != who.pid || record->who.start_ticks != who.start_ticks) continue;
    if (set_record_lock(fd, RecordLock::write, slot_byte(slot)) == LockAnswer::taken) return slot;
  }
  return -1;
}

ProxyRecord record_of(const Terms& terms) {
  ProxyRecord record;
  record.who.pid = terms.owner.pid;
  record.who.start_ticks = terms.owner.start_ticks;
  record.who.purpose = terms.purpose;
  record.mode = terms.mode;
  return record;
}

class ProxyMark final : public Mark {
 public:
  ProxyMark(base::ProcessFd fd, device::InodeId inode, std::string path, const Subject& subject, ProxyRecord record)
      : fd_{std::move(fd)}, inode_{inode}, path_{std::move(path)}, node_{subject.node}, record_{std::move(record)} {}

  void enter() { slot_ = enter_slot(fd_.get(), 0, kHolderSlots, record_); }
  // Another process has entered it, over the same open description.
  void find_entry() {
    slot_ = entry_of(fd_.get(), record_.who);
    if (slot_ < 0) enter();
  }

  void set_covered() { covered_ = true; }

  void give_back() noexcept override {
    if (!fd_) return;
    // Unlocked by name before the close: a child made by a raw clone(2) may hold the description open. The close then
    // is the first event that waiters hear, and they find the lock gone. The slot's bytes stay: without its lock they
    // mean nothing, and wiping them would wake the waiters too early.
    drop_record_lock(fd_.get(), {});
    fd_.reset();
  }

  bool is_last_out() noexcept override {
    if (!record_.leaving) {
      record_.leaving = true;
      write_record();
      // Two who go at the same time would keep each other from being alone.
      drop_record_lock(fd_.get(), kClaimByte);
    }
    return set_record_lock(fd_.get(), RecordLock::write, kClaimByte) == LockAnswer::taken;
  }

  std::expected<void, Obstacle> change_mode(Mode mode) override {
    const auto wanted = mode == Mode::exclusive ? RecordLock::write : RecordLock::read;
    const LockAnswer answer = set_record_lock(fd_.get(), wanted, kClaimByte);
    if (answer == LockAnswer::busy) return std::unexpected(refusal(fd_.get(), node_, node_.path, slot_));
    if (answer == LockAnswer::failed) return std::unexpected(faulted(base::fault(errno, path_, node_.path)));
    record_.mode = mode;
    record_.who.since.reset();
    write_record();  // also what wakes shared waiters after a downgrade: they watch for modification
    return {};
  }

  // Whoever removed the file has made the next claim lock another one.
  [[nodiscard]] bool can_be_passed_on() const override {
    struct stat named{};
    return fd_ && !covered_ && ::lstat(path_.c_str(), &named) == 0 &&
           device::InodeId{named.st_dev, named.st_ino} == inode_;
  }

  void passed_to(const Terms& terms, std::chrono::system_clock::time_point since) noexcept override {
    record_ = record_of(terms);
    record_.who.since = since;
    if (slot_ >= 0)
      write_record();
    else
      enter();
  }

  [[nodiscard]] Convention convention() const override { return Convention::proxy; }

  [[nodiscard]] MarkView view() const override {
    MarkView view;
    view.convention = convention();
    view.node = node_;
    view.fd = fd_.get();
    view.inode = inode_;
    view.files = {path_};
    view.covered = covered_;
    return view;
  }

  void share_with_children() noexcept override { fd_.share_with_children(); }

  [[nodiscard]] std::vector<int> own_descriptors() const override { return {fd_.get()}; }

  // Who has the claim byte, as an obstacle; `own_slot` is not an obstacle to ourselves.
  static Obstacle refusal(int fd, const device::Node& node, const std::string& name, int own_slot = -1) {
    Subject subject;
    subject.node = node;
    Holder holder;
    const pid_t own = own_slot >= 0 ? ::getpid() : 0;
    for (ProxyRecord& record : read_records(fd))
      if (!record.waiting && record.who.pid != own) {
        holder = std::move(record.who);
        break;
      }
    subject.node.path = name;
    return busy(subject, std::move(holder), "holdfast");
  }

 private:
  void write_record() const {
    if (slot_ < 0) return;
    const std::string bytes = encode(record_, ::geteuid());
    // A full file system loses the record, not the claim.
    [[maybe_unused]] const ssize_t put = ::pwrite(fd_.get(), bytes.data(), bytes.size(), slot_offset(slot_));
  }

  base::ProcessFd fd_;
  device::InodeId inode_;
  std::string path_;
  device::Node node_;
  ProxyRecord record_;
  int slot_ = -1;
  bool covered_ = false;
};

}  // namespace

Result<std::vector<ProxyRecord>> read_proxy(const std::string& path) {
  const base::UniqueFd fd{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK)};
  if (!fd) {
    if (errno == ENOENT) return std::vector<ProxyRecord>{};
    return std::unexpected(base::fault(errno, "open", path));
  }
  return read_records(fd.get());
}

namespace {

// What is locked and nobody's is on its way out too, or has gone since we met it.
bool nobody_stays(int fd, Mode wanted) {
  return std::ranges::none_of(read_records(fd), [wanted](const ProxyRecord& record) {
    const bool shares = wanted == Mode::shared && record.mode == Mode::shared;
    return !record.waiting && !record.leaving && !shares;
  });
}

}  // namespace

Taken adopt_proxy(const Subject& subject, const Terms& terms, HandedOver& given) {
  const std::string path = proxy_path(subject.node.id, terms.places);
  if (given.descriptors.size() != 1 || !is_lock_file(given.descriptors.front().get(), path))
    return std::unexpected(not_believed(subject, path));
  base::ProcessFd fd = std::move(given.descriptors.front());
  struct stat file{};
  if (::fstat(fd.get(), &file) != 0) return std::unexpected(faulted(base::fault(errno, path, subject.node.path)));
  if (given.locks == Locks::proven) {
    const auto wanted = terms.mode == Mode::exclusive ? RecordLock::write : RecordLock::read;
    if (set_record_lock(fd.get(), wanted, kClaimByte) != LockAnswer::taken)
      return std::unexpected(ProxyMark::refusal(fd.get(), subject.node, subject.node.path));
  }
  auto mark = std::make_unique<ProxyMark>(std::move(fd), device::InodeId{file.st_dev, file.st_ino}, path, subject,
                                          record_of(terms));
  if (given.locks == Locks::proven) mark->find_entry();
  return mark;
}

Taken take_proxy(const Subject& subject, const Terms& terms) {
  const WithRights rights{terms.rights};
  const std::string path = proxy_path(subject.node.id, terms.places);
  for (int attempt = 0; attempt < 8; ++attempt) {
    auto file = open_lock_file(path);
    if (!file) return std::unexpected(lock_file_obstacle(subject, path, file.error()));
    const auto wanted = terms.mode == Mode::exclusive ? RecordLock::write : RecordLock::read;
    LockAnswer answer = set_record_lock(file->fd.get(), wanted, kClaimByte);
    for (int look = 0; answer == LockAnswer::busy && look < kLeavingTries && nobody_stays(file->fd.get(), terms.mode);
         ++look) {
      ::sched_yield();
      answer = set_record_lock(file->fd.get(), wanted, kClaimByte);
    }
    if (answer == LockAnswer::busy)
      return std::unexpected(ProxyMark::refusal(file->fd.get(), subject.node, subject.node.path));
    if (answer == LockAnswer::failed) return std::unexpected(faulted(base::fault(errno, path, subject.node.path)));
    // Somebody may have removed the file between our open and our lock: then the next claimer locks another one.
    struct stat named{};
    if (::lstat(path.c_str(), &named) != 0 || device::InodeId{named.st_dev, named.st_ino} != file->inode) continue;
    auto mark = std::make_unique<ProxyMark>(std::move(file->fd), file->inode, path, subject, record_of(terms));
    mark->enter();
    if (answer == LockAnswer::covered) mark->set_covered();
    return mark;
  }
  return std::unexpected(faulted(
      base::failure(errc::system_fault, fmt::format("{}: {} is removed again and again", subject.node.path, path),
                    subject.node.path)));
}

WaiterSlot::~WaiterSlot() {
  if (fd_) drop_record_lock(fd_.get(), {});
}

WaiterSlot WaiterSlot::enter(const std::string& path, const Terms& terms) {
  WaiterSlot waiter;
  waiter.fd_ = base::ProcessFd::open(path.c_str(), O_RDWR | O_NOFOLLOW | O_NONBLOCK);
  if (!waiter.fd_) return waiter;
  ProxyRecord record = record_of(terms);
  record.waiting = true;
  waiter.slot_ = enter_slot(waiter.fd_.get(), kHolderSlots, kWaiterSlots, record);
  return waiter;
}

bool WaiterSlot::claim_is_free(Mode mode) const {
  return !who_blocks(fd_.get(), mode == Mode::exclusive ? RecordLock::write : RecordLock::read, kClaimByte);
}

}  // namespace holdfast::convention
