// SPDX-License-Identifier: MIT
// listener.hpp - the questions that the kernel asks us about the command's system calls, and our answers.
//
// seccomp_unotify(2). The command is not our enemy (it is the claimer's own program), so reading its memory and letting
// the call go on afterwards is sound here; as a security boundary it would not be.
#pragma once

#include "base/unique_fd.hpp"
#include "device/device.hpp"
#include "run/calls.hpp"

#include <linux/seccomp.h>
#include <sys/stat.h>

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>

namespace holdfast::run {

/// A system call that waits for our answer.
struct Question {
  std::uint64_t id = 0;
  pid_t thread = 0;
  std::uint32_t architecture = 0;
  Call call = Call::unknown;
  std::array<std::uint64_t, 6> arguments{};

  [[nodiscard]] int int_argument(std::size_t index) const { return static_cast<int>(arguments.at(index)); }
};

/// Where the kernel puts a question: memory that front and keeper share. A process that is killed between receiving and
/// answering would leave the caller waiting for ever (the kernel asks each question once); the other one finds it here.
class InHand {
 public:
  InHand();
  InHand(const InHand&) = delete;
  InHand& operator=(const InHand&) = delete;
  ~InHand();
  [[nodiscard]] seccomp_notif& raw() { return *raw_; }

 private:
  seccomp_notif* raw_;
};

/// What becomes of it.
struct Answer {
  enum class Kind : std::uint8_t { carry_on, value, error, descriptor };
  Kind kind = Kind::carry_on;
  std::int64_t number = 0;  ///< the value, or errno
  base::UniqueFd fd;        ///< for descriptor: becomes the call's result in the caller
  bool close_on_exec = false;

  static Answer carry_on() { return {}; }
  static Answer value(std::int64_t value) { return {Kind::value, value, {}, false}; }
  static Answer error(int errnum) { return {Kind::error, errnum, {}, false}; }
};

/// Receives questions and sends answers.
class Listener {
 public:
  Listener() = default;
  /// \param in_hand  outlives the listener
  Listener(base::UniqueFd fd, InHand& in_hand);

  [[nodiscard]] int fd() const { return fd_.get(); }
  [[nodiscard]] explicit operator bool() const { return static_cast<bool>(fd_); }
  /// nullopt when the caller died meanwhile or nobody is left to ask.
  [[nodiscard]] std::optional<Question> receive();
  /// The question that was received last, if it still waits for its answer.
  [[nodiscard]] std::optional<Question> in_hand() const;
  /// Whether the caller still waits: what was read from its memory was its own (its pid may have been reused).
  [[nodiscard]] bool still_asked(const Question& question) const;
  void send(const Question& question, const Answer& answer);

 private:
  base::UniqueFd fd_;
  InHand* in_hand_ = nullptr;
};

/// The thread that asks: its memory, its descriptors, its view of the file system.
///
/// What is read may be another process's if the thread died and its number was used again: still_asks() must be true
/// after the last reading and before anything is done about it.
class Caller {
 public:
  Caller(const Listener& listener, const Question& question) : listener_{listener}, question_{question} {}

  [[nodiscard]] pid_t thread() const { return question_.thread; }
  [[nodiscard]] bool read(std::uint64_t address, void* into, std::size_t size) const;
  [[nodiscard]] bool write(std::uint64_t address, const void* from, std::size_t size) const;
  /// A path argument; nullopt when unreadable or longer than PATH_MAX.
  [[nodiscard]] std::optional<std::string> path_at(std::uint64_t address) const;
  /// What its descriptor is; nullopt when there is none or we may not look.
  [[nodiscard]] std::optional<struct stat> descriptor(int fd) const;
  /// A duplicate of its descriptor, sharing its locks: needs the right to trace it, which a parent has.
  [[nodiscard]] base::UniqueFd duplicate(int fd) const;
  /// A path that leads us where `path` leads the caller.
  [[nodiscard]] std::string our_path(int directory, const std::string& path) const;

  struct Credentials {
    uid_t uid = 0;
    gid_t gid = 0;
    mode_t umask = 022;
    bool system_administrator = false;  // CAP_SYS_ADMIN in effect
  };
  [[nodiscard]] std::optional<Credentials> credentials() const;
  [[nodiscard]] bool still_asks() const { return listener_.still_asked(question_); }

 private:
  const Listener& listener_;
  const Question& question_;
};

}  // namespace holdfast::run
