// SPDX-License-Identifier: MIT
// sync/segment.hpp - a piece of shared memory whose first bytes say for whom the locks in it are good.
//
// Locks work in any memory that processes share. A segment adds the check that nobody else makes: that thread and
// process ids mean the same to all (another pid namespace's do not: there the kernel would free a lock that is held),
// that the locks' layout is ours, and that the memory is not a file left from before the last boot.
#pragma once

#include <holdfast/sync/error.hpp>

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <string>

namespace holdfast::sync {

/// The first 64 bytes of a segment, version 2. What follows is the program's; it starts as zeros, and so with free
/// locks.
struct SegmentHeader {
  static constexpr std::uint64_t kMagic = 0x31434e5953464800;  // "\0HFSYNC1", little-endian
  static constexpr std::uint32_t kVersion = 2;                 // 1: process_mutex had no class

  std::uint64_t magic;
  std::uint32_t version;
  std::int32_t futex_offset;    // from a link to its word: -32 on 64-bit glibc
  std::uint64_t bytes;          // the whole segment
  std::uint64_t pid_namespace;  // inode of /proc/self/ns/pid
  std::uint8_t boot[16];        // /proc/sys/kernel/random/boot_id
  std::uint64_t reserved[2];
};
static_assert(sizeof(SegmentHeader) == 64);

/// A mapping of a segment. Unmapped by the destructor: let no lock in it be held or waited for then (see mutex).
class segment {
 public:
  segment() noexcept = default;
  HF_API segment(segment&& other) noexcept;
  HF_API segment& operator=(segment&& other) noexcept;
  segment(const segment&) = delete;
  segment& operator=(const segment&) = delete;
  HF_API ~segment();

  /// Opens the segment at `path`, usually in /dev/shm, or makes one with room for `bytes`. It appears whole or not at
  /// all.
  /// \param mode  as of open(2), when it is made
  /// \returns wrong_layout: not a segment, another version or size; foreign_namespace; foreign_boot; unsupported; else
  ///          the system's error of open(2), ftruncate(2), mmap(2) or linkat(2)
  [[nodiscard]] HF_API static Result<segment> open_or_make(const std::string& path, std::size_t bytes,
                                                           mode_t mode = 0600);

  /// Makes one without a name, for the children of fork(2).
  [[nodiscard]] HF_API static Result<segment> make(std::size_t bytes);

  /// The program's part: aligned to 64 bytes, zero at first.
  [[nodiscard]] void* data() const noexcept { return static_cast<void*>(static_cast<char*>(memory_) + kHeader); }
  [[nodiscard]] std::size_t size() const noexcept { return bytes_ - kHeader; }

  /// The program's part as a T, which must be good when all zero, as the locks are; nullptr when it has no room.
  template <class T>
  [[nodiscard]] T* as() const noexcept {
    static_assert(alignof(T) <= 64);
    return memory_ != nullptr && sizeof(T) <= size() ? static_cast<T*>(data()) : nullptr;
  }

 private:
  static constexpr std::size_t kHeader = sizeof(SegmentHeader);

  segment(void* memory, std::size_t bytes) noexcept : memory_(memory), bytes_(bytes) {}

  void* memory_ = nullptr;
  std::size_t bytes_ = kHeader;
};

}  // namespace holdfast::sync
