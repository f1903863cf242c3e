// SPDX-License-Identifier: MIT
// segment: made without a name, filled, and only then linked to its path, so that nobody can see half of one and a
// maker that dies leaves nothing.
#include <holdfast/sync/segment.hpp>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <expected>
#include <utility>

namespace holdfast::sync {
namespace {

constexpr std::int32_t kFutexOffset = -32;

std::unexpected<std::error_code> system_error() {
  return std::unexpected(std::error_code(errno, std::system_category()));
}
std::unexpected<std::error_code> refuse(errc why) { return std::unexpected(make_error_code(why)); }

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  [[nodiscard]] int get() const { return fd_; }
  [[nodiscard]] bool valid() const { return fd_ >= 0; }

 private:
  int fd_;
};

/// "3b241101-e2bb-4255-8caf-4136c566a962" as 16 bytes.
bool boot_id(std::uint8_t (&id)[16]) {
  const Descriptor file(::open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC));
  std::array<char, 64> text{};
  if (!file.valid() || ::read(file.get(), text.data(), text.size() - 1) < 36) return false;
  const char* at = text.data();
  for (std::uint8_t& byte : id) {
    if (*at == '-') ++at;
    unsigned value = 0;
    if (::sscanf(at, "%2x", &value) != 1) return false;
    byte = static_cast<std::uint8_t>(value);
    at += 2;
  }
  return true;
}

/// The header that a segment of ours has, here and now.
Result<SegmentHeader> header_for(std::size_t bytes) {
  SegmentHeader header{};
  struct stat name_space{};
  if (::stat("/proc/self/ns/pid", &name_space) != 0 || !boot_id(header.boot)) return refuse(errc::unsupported);
  header.magic = SegmentHeader::kMagic;
  header.version = SegmentHeader::kVersion;
  header.futex_offset = kFutexOffset;
  header.bytes = bytes;
  header.pid_namespace = name_space.st_ino;
  return header;
}

Result<> check(const SegmentHeader& found, const SegmentHeader& expected) {
  if (found.magic != expected.magic || found.version != expected.version ||
      found.futex_offset != expected.futex_offset || found.bytes != expected.bytes)
    return refuse(errc::wrong_layout);
  if (::memcmp(found.boot, expected.boot, sizeof(found.boot)) != 0) return refuse(errc::foreign_boot);
  if (found.pid_namespace != expected.pid_namespace) return refuse(errc::foreign_namespace);
  return {};
}

Result<void*> map(int fd, std::size_t bytes) {
  void* const memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (memory == MAP_FAILED) return system_error();
  return memory;
}

Result<void*> fill(int fd, const SegmentHeader& header) {
  if (::ftruncate(fd, static_cast<off_t>(header.bytes)) != 0) return system_error();
  if (::pwrite(fd, &header, sizeof(header), 0) != static_cast<ssize_t>(sizeof(header))) return system_error();
  return map(fd, header.bytes);
}

Result<void*> attach(int fd, const SegmentHeader& expected) {
  SegmentHeader found{};
  struct stat status{};
  if (::fstat(fd, &status) != 0) return system_error();
  if (!S_ISREG(status.st_mode) || static_cast<std::size_t>(status.st_size) != expected.bytes ||
      ::pread(fd, &found, sizeof(found), 0) != static_cast<ssize_t>(sizeof(found)))
    return refuse(errc::wrong_layout);
  if (const Result<> good = check(found, expected); !good) return std::unexpected(good.error());
  return map(fd, expected.bytes);
}

}  // namespace

segment::segment(segment&& other) noexcept
    : memory_(std::exchange(other.memory_, nullptr)), bytes_(std::exchange(other.bytes_, kHeader)) {}

segment& segment::operator=(segment&& other) noexcept {
  std::swap(memory_, other.memory_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

segment::~segment() {
  if (memory_ != nullptr) ::munmap(memory_, bytes_);
}

Result<segment> segment::make(std::size_t bytes) {
  const Result<SegmentHeader> header = header_for(bytes + kHeader);
  if (!header) return std::unexpected(header.error());
  const Descriptor file(::memfd_create("holdfast-sync", MFD_CLOEXEC));
  if (!file.valid()) return system_error();
  const Result<void*> memory = fill(file.get(), *header);
  if (!memory) return std::unexpected(memory.error());
  return segment(*memory, header->bytes);
}

Result<segment> segment::open_or_make(const std::string& path, std::size_t bytes, mode_t mode) {
  const Result<SegmentHeader> header = header_for(bytes + kHeader);
  if (!header) return std::unexpected(header.error());
  for (;;) {
    const Descriptor there(::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW));
    if (there.valid()) {
      const Result<void*> memory = attach(there.get(), *header);
      if (!memory) return std::unexpected(memory.error());
      return segment(*memory, header->bytes);
    }
    if (errno != ENOENT) return system_error();

    const std::size_t slash = path.rfind('/');
    const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
    const Descriptor fresh(::open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, mode));
    if (!fresh.valid()) return system_error();
    segment made;
    const Result<void*> memory = fill(fresh.get(), *header);
    if (!memory) return std::unexpected(memory.error());
    made = segment(*memory, header->bytes);
    const std::string nameless = "/proc/self/fd/" + std::to_string(fresh.get());
    if (::linkat(AT_FDCWD, nameless.c_str(), AT_FDCWD, path.c_str(), AT_SYMLINK_FOLLOW) == 0) return made;
    if (errno != EEXIST) return system_error();  // somebody else was first: open theirs
  }
}

}  // namespace holdfast::sync
