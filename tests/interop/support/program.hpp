// SPDX-License-Identifier: MIT
// program.hpp - somebody else's program, driven from a test: started on a terminal of its own (or on pipes), its words
// collected, its end awaited. Programs that fork themselves away are found again and killed with the test.
#pragma once

#include "base/unique_fd.hpp"

#include <sys/types.h>

#include <chrono>
#include <functional>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace holdfast::interop {

using Words = std::vector<std::string>;

/// The most that anything is waited for.
inline constexpr std::chrono::milliseconds kPatience{15'000};

enum class Stdio : std::uint8_t { terminal, pipes };

/// Whether it stops at its exec(2), for run_until_it_takes().
enum class Traced : std::uint8_t { no, yes };

/// As whom a program runs.
struct User {
  uid_t uid = 0;
  gid_t gid = 0;
};
[[nodiscard]] User nobody();

class Program {
 public:
  /// `environment` is added to LANG=C, TERM=vt100 and PATH; HOME is the scratch directory's business.
  Program(const Words& command, Stdio stdio, const Words& environment = {}, User user = {}, Traced traced = Traced::no);
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;
  ~Program();  ///< kills it with its session, and reaps

  [[nodiscard]] pid_t pid() const { return pid_; }
  [[nodiscard]] const std::string& output() const { return output_; }
  [[nodiscard]] bool has_said(std::string_view text) const { return output_.find(text) != std::string::npos; }
  void type(std::string_view text);
  void end_input();
  void kill(int number) const;
  /// Reads what there is to read; never waits.
  void listen();
  /// The exit status, 128 + the signal, or nothing while it runs.
  std::optional<int> ended();
  [[nodiscard]] int talk_fd() const { return out_.get(); }
  [[nodiscard]] int pidfd() const { return pidfd_.get(); }

 private:
  pid_t pid_ = -1;
  base::UniqueFd in_;
  base::UniqueFd out_;
  base::UniqueFd pidfd_;
  std::string output_;
  std::optional<int> status_;
};

/// Runs a program to its end: its status and all it said.
struct Ending {
  int status = -1;
  std::string output;
};
[[nodiscard]] Ending run_to_the_end(const Words& command, const std::string& input = {}, const Words& environment = {},
                                    User user = {});

/// Waits until `happened()`; looks again whenever one of the programs speaks or ends, or one of `also` is readable.
/// What has no event of its own (a kernel lock taken) is looked at every 20 ms.
[[nodiscard]] bool eventually(const std::function<bool()>& happened, const std::vector<Program*>& programs,
                              const std::vector<int>& also = {}, std::chrono::milliseconds patience = kPatience);

/// The call by which a program takes a disk.
enum class Taking : std::uint8_t { exclusive_open, open, flock };

/// Lets a traced program run until it has taken `device` and leaves it stopped just there. False when it ends before.
[[nodiscard]] bool run_until_it_takes(const std::string& device, Taking by, Program& program);

/// Makes the test process the parent of all that its programs leave behind; kill_strays() then finds them. `spared` is
/// a child that lives on, with its own.
void adopt_strays();
void kill_strays(pid_t spared = -1);

/// Whether `name` is in PATH or in the sbin directories.
[[nodiscard]] bool is_installed(std::string_view name);

/// The processes called `name` (their comm) that have the node open.
[[nodiscard]] std::vector<pid_t> openers(const std::string& device, std::string_view name);

/// The descendants of `parent` that are called `name`.
[[nodiscard]] std::vector<pid_t> processes_below(pid_t parent, std::string_view name);

/// Whether /proc/locks shows a lock of `kind` ("FLOCK", "POSIX") on the node.
[[nodiscard]] bool kernel_lock_on(const std::string& device, std::string_view kind);

}  // namespace holdfast::interop
