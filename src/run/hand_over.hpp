// SPDX-License-Identifier: MIT
// hand_over.hpp - meeting the command's own locking of a device that we hold for it.
//
// One kind per way of locking. Each answers the command's calls about its marks, lends a mark at the instant the
// command asks for it, and takes it back when the command gives it up. What is lent is derived from the kernel and the
// file system where possible, so that the keeper can go on where a killed front stopped.
#pragma once

#include "convention/convention.hpp"
#include "run/listener.hpp"

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace holdfast::run {

/// What every hand-over is told.
struct Surroundings {
  Mode mode = Mode::exclusive;
  base::ProcessId command;
  /// A descriptor number of ours now stands for nothing (the description must be closed by all of us), or again for the
  /// mark.
  std::function<void(int fd)> closed_description;
  std::function<void(int fd)> opened_description;
  /// Whether a process is one of us who hold the claim.
  std::function<bool(pid_t pid)> is_ours;
  /// Something happened that --verbose reports.
  std::function<void(std::string_view line)> tell;
};

class Lending {
 public:
  using Clock = std::chrono::steady_clock;

  Lending() = default;
  Lending(const Lending&) = delete;
  Lending& operator=(const Lending&) = delete;
  virtual ~Lending() = default;

  /// nullopt when the call is not about our marks.
  [[nodiscard]] virtual std::optional<Answer> consider(const Question& question, const Caller& caller) = 0;
  /// Whether the command has, or may have, what is ours.
  [[nodiscard]] virtual bool lent() const = 0;
  /// Takes back what the command no longer holds; never waits.
  virtual void take_back(Clock::time_point now) = 0;
  /// The command is dead: everything is as the claim took it, ready to be given back.
  virtual void settle() {}
  /// Whether the command is giving something up by a call that was just let go: worth a look in a moment. Said once.
  [[nodiscard]] bool ends_soon() { return std::exchange(ends_soon_, false); }
  /// Looks at what is there instead of remembering it: for the one who goes on after another served.
  virtual void refresh() = 0;
  /// Paths whose opens and closes are worth a look at take_back().
  [[nodiscard]] virtual std::vector<std::string> watched() const = 0;

 protected:
  bool ends_soon_ = false;
};

using Views = std::span<const convention::MarkView>;
using Lendings = std::vector<std::unique_ptr<Lending>>;

/// flock(2) on the node and on the whole disk's node.
void add_flock_hand_overs(Lendings& to, Views marks, const Surroundings& surroundings);
/// Record locks on the node, on our proxy file, and on DDLP's lock files.
void add_record_hand_overs(Lendings& to, Views marks, const Surroundings& surroundings);
/// UUCP lock files.
void add_file_hand_overs(Lendings& to, Views marks, const Surroundings& surroundings);
/// open(2) of what O_EXCL or TIOCEXCL closes, and TIOCEXCL itself.
void add_open_hand_overs(Lendings& to, Views marks, const Surroundings& surroundings);
/// LOCK of a driver that knows owners.
void add_driver_hand_overs(Lendings& to, Views marks, const Surroundings& surroundings);

/// A lock that is lent by letting the command's own call go on must not be taken back before that call has been made;
/// nothing says when it has. A call that was let go runs within microseconds unless the machine is swamped.
inline constexpr std::chrono::milliseconds kCallUnderWay{50};

}  // namespace holdfast::run
