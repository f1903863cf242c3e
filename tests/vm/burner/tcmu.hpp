// SPDX-License-Identifier: MIT
// tcmu.hpp - a SCSI device whose commands a process answers, by the kernel's target_core_user and tcm_loop.
//
// The kernel's target core passes the commands of a user backstore through a ring in shared memory
// (Documentation/target/tcmu-design.rst), and tcm_loop makes a local SCSI host out of a target. So sr and sg attach to
// it like to hardware, and both have one SCSI address.
#pragma once

#include <cstdint>
#include <expected>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/unique_fd.hpp"
#include "vm/burner/mmc.hpp"

namespace holdfast::burner {

template <class T>
using Result = std::expected<T, std::string>;  // the error is the line to print

/// What was made in configfs, taken away again in reverse.
class ConfigTree {
 public:
  ConfigTree() = default;
  ConfigTree(ConfigTree&&) = default;
  ConfigTree& operator=(ConfigTree&&) = delete;
  ~ConfigTree();
  /// A directory that exists is not ours and stays.
  [[nodiscard]] Result<void> directory(const std::string& path);
  [[nodiscard]] Result<void> link(const std::string& target, const std::string& path);

 private:
  std::vector<std::string> made_;
};

[[nodiscard]] Result<void> write_file(const std::string& path, const std::string& text);

/// The shared memory of one backstore, and the thread that answers what comes through it.
class Ring {
 public:
  [[nodiscard]] static Result<std::unique_ptr<Ring>> open(const std::string& backstore, Unit& unit);
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;
  ~Ring();

 private:
  Ring(base::UniqueFd uio, Unit& unit) : uio_{std::move(uio)}, unit_{unit} {}
  [[nodiscard]] Result<void> start(std::size_t size);
  void serve() const;
  void drain() const;
  void answer(std::uint8_t* entry) const;

  base::UniqueFd uio_;
  base::UniqueFd stop_;  // an eventfd
  Unit& unit_;
  std::uint8_t* map_ = nullptr;
  std::size_t size_ = 0;
  std::thread server_;
};

/// A unit as a device of this machine. Members go in reverse: what takes the device away still sends it commands.
class Attached {
 public:
  /// `host` names the tcm_loop host, as in naa.HOST; units of one host differ in `target`, from 1 on.
  [[nodiscard]] static Result<Attached> attach(Unit& unit, std::uint64_t bytes, const std::string& host, int target);
  /// "HOST:CHANNEL:TARGET:LUN", as in /sys/bus/scsi/devices.
  [[nodiscard]] const std::string& address() const { return address_; }

 private:
  ConfigTree backstore_;
  std::unique_ptr<Ring> ring_;
  ConfigTree target_;
  std::string address_;
};

}  // namespace holdfast::burner
