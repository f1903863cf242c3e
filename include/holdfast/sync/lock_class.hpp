// SPDX-License-Identifier: MIT
// sync/lock_class.hpp - what a lock is called when orders of locks are compared (order.hpp).
#pragma once

#include <cstdint>
#include <source_location>

namespace holdfast::sync {

/// The role that a lock plays: the unit that orders are recorded for.
///
/// A value of 16 bytes, built at compile time. Two classes are one when they were made from the same name or the same
/// place in the source: in every process and in every run, wherever the code was loaded.
class LockClass {
 public:
  /// No class: the lock is not looked at.
  constexpr LockClass() noexcept = default;

  /// All locks of this name, in all programs. `name` must outlive every lock of the class (a literal does).
  explicit constexpr LockClass(const char* name) noexcept : key_{key_of(name)}, name_{name} {}

  /// All locks made at one line of one file: `mutex m{LockClass{std::source_location::current()}};`. Two builds of a
  /// program agree when their __FILE__ does. Not for two locks made at one line, nor as the default of a constructor's
  /// parameter: members that a constructor makes without being told to all get that constructor's line.
  explicit constexpr LockClass(const std::source_location& at) noexcept
      : key_{key_of(at.file_name(), at.line())}, name_{at.file_name()} {}

  /// What a lock in shared memory keeps of its class. `name` may be another process's pointer: it is not followed, but
  /// read with care and believed only if it leads to the text that the key was made of.
  [[nodiscard]] static constexpr LockClass from_parts(std::uint64_t key, const char* name) noexcept {
    LockClass made;
    made.key_ = key;
    made.name_ = name;
    return made;
  }

  /// The class of the second, third... lock of this class that a thread holds; see order::Nested.
  /// \pre  subclass < 16
  [[nodiscard]] constexpr LockClass nested(std::uint64_t subclass) const noexcept {
    return from_parts((key_ & ~kSubclass) | ((subclass << kSubclassShift) & kSubclass), name_);
  }

  /// Bits 63-24 hash of name or file, 23 whether it is a place, 22-8 its line or more of the hash, 7-4 the subclass,
  /// 3-0 zero.
  [[nodiscard]] constexpr std::uint64_t key() const noexcept { return key_; }
  [[nodiscard]] constexpr const char* name() const noexcept { return name_; }

  /// The key, without a subclass, of all classes of this name or place. Never 0.
  [[nodiscard]] static constexpr std::uint64_t key_of(const char* name) noexcept {
    return (hash_of(name) & ~kPlace & ~kLowBits) | kNeverZero;
  }
  [[nodiscard]] static constexpr std::uint64_t key_of(const char* file, std::uint32_t line) noexcept {
    return (hash_of(file) & ~kLine & ~kLowBits) | kPlace | ((std::uint64_t{line} << kLineShift) & kLine);
  }
  [[nodiscard]] static constexpr std::uint32_t line_of(std::uint64_t key) noexcept {  ///< 0 for a class by name
    return (key & kPlace) != 0 ? static_cast<std::uint32_t>((key & kLine) >> kLineShift) : 0;
  }
  [[nodiscard]] static constexpr std::uint32_t subclass_of(std::uint64_t key) noexcept {
    return static_cast<std::uint32_t>((key & kSubclass) >> kSubclassShift);
  }

 private:
  static constexpr std::uint64_t kNeverZero = std::uint64_t{1} << 63;
  static constexpr std::uint64_t kPlace = 1U << 23;
  static constexpr unsigned kLineShift = 8;
  static constexpr std::uint64_t kLine = std::uint64_t{0x7fff} << kLineShift;
  static constexpr unsigned kSubclassShift = 4;
  static constexpr std::uint64_t kSubclass = std::uint64_t{15} << kSubclassShift;
  static constexpr std::uint64_t kLowBits = 0xff;  // subclass, and what changes from one acquisition to the next

  // FNV-1a: http://www.isthe.com/chongo/tech/comp/fnv/
  static constexpr std::uint64_t hash_of(const char* text) noexcept {
    std::uint64_t hash = 0xcbf29ce484222325;
    for (; *text != '\0'; ++text) hash = (hash ^ static_cast<unsigned char>(*text)) * 0x100000001b3;
    return hash;
  }

  std::uint64_t key_ = 0;
  const char* name_ = nullptr;
};

}  // namespace holdfast::sync
