// SPDX-License-Identifier: MIT
// hooks.hpp - the administrator's programs: before a grant, which they may refuse, and after the end of a claim.
//
// Every executable of the directory is run, in the order of names, one after the other for one claim, with the claim in
// its environment and nothing else of ours: no descriptor, no capability, an unprivileged user. Nothing waits: an end
// is heard by pidfd in the broker's loop. A hook that is not root's alone is not run, and as nobody knows what it would
// have said, the claim is refused.
//
//   argv[1]  before-grant | after-release
//   environment  HOLDFAST_CLAIM, _DEVICES (blanks between), _MODE, _PURPOSE, _HOLDER_PID, _HOLDER_START, _HOLDER_UID,
//                _HOLDER_USER; after-release: _END (released, lapsed, revoked, owner_died)
#pragma once

#include "base/unique_fd.hpp"
#include "broker/interfaces.hpp"
#include "broker/path_watch.hpp"

#include <sys/types.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace holdfast::broker {

class HookRunner final : public Hooks {
 public:
  using Clock = std::chrono::steady_clock;
  struct User {
    uid_t uid = 65534;  // nobody, who owns nothing (base-passwd)
    gid_t gid = 65534;
  };
  struct Settings {
    std::string directory;  ///< empty or missing: no hooks
    std::chrono::milliseconds at_most{
        5000};  ///< of one hook; then it is killed with its process group, and counts as a refusal
    std::size_t at_once = 16;
    User user{};  ///< whom a hook runs as when the broker is root; else it runs as the broker's user
  };
  struct Answer {
    wire::ClaimId claim{};
    Result<> result;
  };

  explicit HookRunner(Settings settings);
  HookRunner(const HookRunner&) = delete;
  HookRunner& operator=(const HookRunner&) = delete;
  /// Kills what runs.
  ~HookRunner() override;

  std::optional<Result<>> before_grant(const ClaimRecord& claim) override;
  void after_end(const ClaimRecord& claim, arbiter::End why) override;
  [[nodiscard]] bool are_there() override;
  void forget(wire::ClaimId claim) override;

  /// Readable when a hook ended.
  [[nodiscard]] int fd() const { return epoll_.get(); }
  /// When the first that runs has had its time, or there is something to begin.
  [[nodiscard]] std::optional<Clock::time_point> next_deadline() const;
  /// To be called when fd() is readable or next_deadline() has come.
  [[nodiscard]] std::vector<Answer> advance(Clock::time_point now);

 private:
  enum class Event : std::uint8_t { before_grant, after_release };
  /// The hooks of one event of one claim, one running after the other.
  struct Round {
    Event event = Event::before_grant;
    wire::ClaimId claim{};
    std::string device;  // for the message
    std::vector<std::string> environment;
    std::vector<std::string> names;  // those that are left
    pid_t pid = 0;                   // of the first of them
    base::UniqueFd pidfd;
    base::UniqueFd output;
    std::string tail;  // of its output
    Clock::time_point deadline;
  };

  struct Found {
    std::vector<std::string> names;  // of those that are executable
    bool has_any = false;            // of another one it may become known that it is, without a change in the directory
  };

  [[nodiscard]] Result<std::vector<std::string>> names();
  [[nodiscard]] Result<Found> look() const;
  [[nodiscard]] Result<> check(const std::string& name) const;
  [[nodiscard]] Result<> start(Round& round, Clock::time_point now);
  void begin_more(Clock::time_point now, std::vector<Answer>& answers);
  /// The answer when the round is over with it.
  [[nodiscard]] std::optional<Result<>> look_at(Round& round, Clock::time_point now);
  [[nodiscard]] Error refusal(const Round& round, std::string_view why) const;
  static void read_output(Round& round);
  void kill(Round& round);

  Settings settings_;
  PathWatch nothing_there_;
  base::UniqueFd epoll_;
  std::list<Round> running_;
  std::deque<Round> queued_;
  std::vector<pid_t> dying_;  // killed, and not yet dead
};

}  // namespace holdfast::broker
