// SPDX-License-Identifier: MIT
// The category of the locks' errors. Each code equals the std::errc that a reader of POSIX would expect.
#include <holdfast/sync/error.hpp>

#include <string>

namespace holdfast::sync {
namespace {

class Category final : public std::error_category {
 public:
  [[nodiscard]] const char* name() const noexcept override { return "holdfast.sync"; }

  [[nodiscard]] std::string message(int value) const override {
    switch (static_cast<errc>(value)) {
      case errc::deadlock:
        return "the caller holds the lock already: waiting would never end";
      case errc::not_owner:
        return "the caller does not hold the lock";
      case errc::busy:
        return "the lock is taken";
      case errc::timed_out:
        return "the deadline passed while the lock was taken";
      case errc::interrupted:
        return "a signal ended the wait";
      case errc::owner_dead:
        return "the lock's last holder died inside";
      case errc::inconsistent:
        return "a holder of the lock died inside, and what it protects was not declared repaired";
      case errc::overflow:
        return "the semaphore is at its maximum";
      case errc::unsupported:
        return "the C library or the kernel lacks what robust locks need";
      case errc::foreign_namespace:
        return "the segment belongs to another pid namespace";
      case errc::foreign_boot:
        return "the segment is older than the last boot";
      case errc::wrong_layout:
        return "not a segment of this version's layout";
      case errc::no_slot:
        return "the segment has no room for another process";
      case errc::no_resources:
        return "out of memory, descriptors or threads";
    }
    return "unknown error " + std::to_string(value);
  }

  [[nodiscard]] std::error_condition default_error_condition(int value) const noexcept override {
    switch (static_cast<errc>(value)) {
      case errc::deadlock:
        return std::errc::resource_deadlock_would_occur;
      case errc::not_owner:
        return std::errc::operation_not_permitted;
      case errc::busy:
        return std::errc::device_or_resource_busy;
      case errc::timed_out:
        return std::errc::timed_out;
      case errc::interrupted:
        return std::errc::interrupted;
      case errc::owner_dead:
        return std::errc::owner_dead;
      case errc::inconsistent:
        return std::errc::state_not_recoverable;
      case errc::overflow:
        return std::errc::value_too_large;
      case errc::unsupported:
        return std::errc::function_not_supported;
      case errc::foreign_namespace:
        return std::errc::cross_device_link;
      case errc::foreign_boot:
      case errc::wrong_layout:
        return std::errc::invalid_argument;
      case errc::no_slot:
        return std::errc::no_space_on_device;
      case errc::no_resources:
        return std::errc::not_enough_memory;
    }
    return {value, *this};
  }
};

}  // namespace

const std::error_category& error_category() noexcept {
  static const Category category;
  return category;
}

std::error_code make_error_code(errc code) noexcept { return {static_cast<int>(code), error_category()}; }

}  // namespace holdfast::sync
