// SPDX-License-Identifier: MIT
// tcmu.cpp - configfs, the ring and the loop. The ring's layout is that of <linux/target_core_user.h>, told here by
// offsets: the header itself is not valid C++.
#include "vm/burner/tcmu.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <ranges>

#include "base/error.hpp"

namespace holdfast::burner {
namespace {

constexpr std::string_view kTarget = "/sys/kernel/config/target";

// struct tcmu_mailbox
constexpr std::size_t kFlags = 2;
constexpr std::size_t kRingOffset = 4;
constexpr std::size_t kRingSize = 8;
constexpr std::size_t kHead = 12;
constexpr std::size_t kTail = 64;
constexpr std::uint16_t kCapReadLength = 1 << 2;
// struct tcmu_cmd_entry: the header, the request, and the response in the request's place. Only the outer struct is
// packed.
constexpr std::size_t kUserFlags = 7;
constexpr std::size_t kVectors = 8;
constexpr std::size_t kCdbOffset = 24;
constexpr std::size_t kVector = 48;
constexpr std::size_t kStatus = 8;
constexpr std::size_t kReadLength = 12;
constexpr std::size_t kSense = 16;
constexpr std::uint32_t kOpMask = 7;
constexpr std::uint32_t kOpPad = 0;
constexpr std::uint32_t kOpCommand = 1;
constexpr std::uint8_t kUnknownOp = 1;
constexpr std::uint8_t kHasReadLength = 2;
constexpr std::uint8_t kCheckCondition = 2;

template <class T>
T load(const std::uint8_t* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

template <class T>
void store(std::uint8_t* to, T value) {
  std::memcpy(to, &value, sizeof value);
}

std::unexpected<std::string> fault(int errnum, std::string_view what, std::string_view path) {
  return std::unexpected{fmt::format("{}: {}: {}", path, what, base::errno_text(errnum))};
}

Result<std::string> read_file(const std::string& path) {
  const base::UniqueFd fd{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  char text[4096];
  const ssize_t length = fd ? ::read(fd.get(), text, sizeof text) : -1;
  if (length < 0) return fault(errno, "read", path);
  std::string_view line{text, static_cast<std::size_t>(length)};
  return std::string{line.substr(0, line.find('\n'))};
}

/// The N of the /dev/uioN whose name says that it is this backstore's: "tcm-user/HBA/NAME/CONFIG".
Result<std::string> uio_of(const std::string& backstore) {
  const std::unique_ptr<DIR, int (*)(DIR*)> devices{::opendir("/sys/class/uio"), &::closedir};
  while (const dirent* entry = devices ? ::readdir(devices.get()) : nullptr) {
    const auto name = read_file(fmt::format("/sys/class/uio/{}/name", entry->d_name));
    if (name && name->find("/" + backstore + "/") != std::string::npos) return std::string{entry->d_name};
  }
  return std::unexpected{fmt::format("{}: no uio device has this name", backstore)};
}

}  // namespace

ConfigTree::~ConfigTree() {
  for (const std::string& path : made_ | std::views::reverse) {
    if (::unlink(path.c_str()) != 0) ::rmdir(path.c_str());
  }
}

Result<void> ConfigTree::directory(const std::string& path) {
  if (::mkdir(path.c_str(), 0755) == 0) {
    made_.push_back(path);
  } else if (errno != EEXIST) {
    return fault(errno, "mkdir", path);
  }
  return {};
}

Result<void> ConfigTree::link(const std::string& target, const std::string& path) {
  if (::symlink(target.c_str(), path.c_str()) != 0) return fault(errno, "symlink", path);
  made_.push_back(path);
  return {};
}

Result<void> write_file(const std::string& path, const std::string& text) {
  const base::UniqueFd fd{::open(path.c_str(), O_WRONLY | O_CLOEXEC)};
  if (!fd || ::write(fd.get(), text.data(), text.size()) < 0) return fault(errno, "write", path);
  return {};
}

Result<std::unique_ptr<Ring>> Ring::open(const std::string& backstore, Unit& unit) {
  const auto uio = uio_of(backstore);
  if (!uio) return std::unexpected{uio.error()};
  const auto size = read_file(fmt::format("/sys/class/uio/{}/maps/map0/size", *uio));
  if (!size) return std::unexpected{size.error()};
  const std::string node = "/dev/" + *uio;
  base::UniqueFd fd{::open(node.c_str(), O_RDWR | O_NONBLOCK | O_CLOEXEC)};
  if (!fd) return fault(errno, "open", node);
  std::unique_ptr<Ring> ring{new Ring{std::move(fd), unit}};
  if (const auto started = ring->start(std::strtoul(size->c_str(), nullptr, 0)); !started) {
    return std::unexpected{started.error()};
  }
  return ring;
}

Result<void> Ring::start(std::size_t size) {
  void* map = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, uio_.get(), 0);
  if (map == MAP_FAILED) return fault(errno, "mmap", "uio");
  map_ = static_cast<std::uint8_t*>(map);
  size_ = size;
  stop_.reset(::eventfd(0, EFD_CLOEXEC));
  if (!stop_) return fault(errno, "eventfd", "uio");
  server_ = std::thread{[this] { serve(); }};
  return {};
}

Ring::~Ring() {
  if (server_.joinable()) {
    ::eventfd_write(stop_.get(), 1);
    server_.join();
  }
  if (map_ != nullptr) ::munmap(map_, size_);
}

void Ring::serve() const {
  pollfd events[] = {{uio_.get(), POLLIN, 0}, {stop_.get(), POLLIN, 0}};
  while (events[1].revents == 0) {
    drain();  // before the first wait too: what was queued before the open made no event for us
    if (::poll(events, 2, -1) < 0 && errno != EINTR) return;
    std::uint32_t interrupts;
    while (::read(uio_.get(), &interrupts, sizeof interrupts) == sizeof interrupts) continue;
  }
}

void Ring::drain() const {
  std::uint8_t* const ring = map_ + load<std::uint32_t>(map_ + kRingOffset);
  const std::uint32_t ring_size = load<std::uint32_t>(map_ + kRingSize);
  // cmd_head and the entries before it are the kernel's, cmd_tail and the responses before it are ours.
  auto* const head = reinterpret_cast<std::uint32_t*>(map_ + kHead);
  auto* const tail = reinterpret_cast<std::uint32_t*>(map_ + kTail);
  while (*tail != __atomic_load_n(head, __ATOMIC_ACQUIRE)) {
    std::uint8_t* const entry = ring + *tail;
    const auto length_and_op = load<std::uint32_t>(entry);
    if ((length_and_op & kOpMask) == kOpCommand) {
      answer(entry);
    } else if ((length_and_op & kOpMask) != kOpPad) {
      entry[kUserFlags] |= kUnknownOp;
    }
    __atomic_store_n(tail, (*tail + (length_and_op & ~kOpMask)) % ring_size, __ATOMIC_RELEASE);
    const std::uint32_t kick = 0;
    if (::write(uio_.get(), &kick, sizeof kick) < 0) return;
  }
}

void Ring::answer(std::uint8_t* entry) const {
  struct Piece {
    std::uint64_t offset;  // of the map, where an iovec has an address
    std::uint64_t length;
  };
  std::vector<Piece> pieces(load<std::uint32_t>(entry + kVectors));
  std::memcpy(pieces.data(), entry + kVector, pieces.size() * sizeof(Piece));
  std::size_t total = 0;
  for (const Piece& piece : pieces) total += piece.length;

  Cdb cdb{};
  const std::uint8_t* sent = map_ + load<std::uint64_t>(entry + kCdbOffset);
  constexpr std::size_t kLengths[] = {6,  10, 10, 16,
                                      16, 12, 10, 10};  // by the opcode's group, as the kernel's scsi_command_size()
  std::copy_n(sent, kLengths[sent[0] >> 5], cdb.begin());

  std::vector<std::uint8_t> data(total);
  if (unit_.takes_data(cdb[0])) {
    std::uint8_t* to = data.data();
    for (const Piece& piece : pieces) to = std::copy_n(map_ + piece.offset, piece.length, to);
  }
  const Reply reply = unit_.execute(cdb, data);
  const std::uint8_t* from = data.data();
  std::size_t left = std::min(reply.length, total);
  for (const Piece& piece : pieces) {
    const std::size_t part = std::min<std::size_t>(left, piece.length);
    std::copy_n(from, part, map_ + piece.offset);
    from += part;
    left -= part;
  }

  std::memset(entry + kStatus, 0, kSense - kStatus);
  if (reply.sense != Sense::none) {
    const auto sense = fixed_format(reply.sense);
    entry[kStatus] = kCheckCondition;
    std::copy(sense.begin(), sense.end(), entry + kSense);
  } else if (reply.length > 0 && (load<std::uint16_t>(map_ + kFlags) & kCapReadLength) != 0) {
    store(entry + kReadLength, static_cast<std::uint32_t>(reply.length));  // the rest is reported as residual
    entry[kUserFlags] |= kHasReadLength;
  }
}

Result<Attached> Attached::attach(Unit& unit, std::uint64_t bytes, const std::string& host, int target) {
  Attached made;
  const std::string backstore = fmt::format("{}_{}", host, target);
  const std::string store = fmt::format("{}/core/user_0/{}", kTarget, backstore);
  const std::string fabric = fmt::format("{}/loopback", kTarget);
  const std::string port = fmt::format("{}/naa.{}", fabric, host);
  const std::string group = fmt::format("{}/tpgt_{}", port, target);
  const std::string lun = group + "/lun/lun_0";
  // nl_reply_supported=-1: nobody listens on netlink for the device's appearance and goodbye.
  const std::string settings =
      fmt::format("dev_config=burner/{},dev_size={},hw_block_size={},nl_reply_supported=-1", backstore, bytes, kBlock);

  Result<void> done = made.backstore_.directory(fmt::format("{}/core/user_0", kTarget));
  const auto then = [&done](auto&& step) {
    if (done) done = step();
  };
  then([&] { return made.backstore_.directory(store); });
  then([&] { return write_file(store + "/control", settings); });
  then([&] { return write_file(store + "/enable", "1"); });
  then([&]() -> Result<void> {
    auto ring = Ring::open(backstore, unit);
    if (!ring) return std::unexpected{ring.error()};
    made.ring_ = std::move(*ring);
    return {};
  });
  then([&] { return made.target_.directory(fabric); });
  then([&] { return made.target_.directory(port); });
  then([&] { return made.target_.directory(group); });
  then([&] { return write_file(group + "/nexus", "naa." + host + "0"); });
  then([&] { return made.target_.directory(lun); });
  then([&] { return made.target_.link(store, lun + "/burner"); });  // here the kernel finds the device
  then([&]() -> Result<void> {
    const auto address = read_file(group + "/address");
    if (!address) return std::unexpected{address.error()};
    made.address_ = *address + ":0";
    return {};
  });
  if (!done) return std::unexpected{done.error()};
  return made;
}

}  // namespace holdfast::burner
