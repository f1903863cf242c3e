// SPDX-License-Identifier: MIT
// keeper.hpp - the second process that holds the claim, so that killing the first one does not end it.
//
// It has a copy of every descriptor that carries a lock, sleeps, and acts in three cases only: the front is stopped
// with the command (it answers the command's calls), the front was killed (it answers, and gives back when the command
// is dead), the command is dead but descendants with its filter live on (it lets their calls go on, holding nothing).
#pragma once

#include "base/unique_fd.hpp"
#include "claim/holding.hpp"

#include <holdfast/error.hpp>

#include <sys/types.h>

#include <cstdint>
#include <memory>

namespace holdfast::run {

class Command;
class InHand;

class Keeper {
 public:
  /// Who gives back when the front is dead and the command ends.
  enum class GivesBack : std::uint8_t {
    keeper,
    broker,  ///< unless there is none any more
  };

  Keeper();
  /// \param holding, in_hand  must stay where they are until the keeper is reaped
  /// \param listener  -1 when there is none
  [[nodiscard]] static Result<Keeper> start(claiming::Holding& holding, GivesBack gives_back, int listener,
                                            InHand& in_hand, const Command& command);
  Keeper(Keeper&&) noexcept;
  Keeper& operator=(Keeper&&) noexcept;
  /// Must have been reaped.
  ~Keeper();

  [[nodiscard]] pid_t pid() const { return pid_; }
  /// Each returns when the keeper has done it, or is dead.
  void serve() { tell(Message::Kind::serve, -1); }
  void stand_by() { tell(Message::Kind::stand_by, -1); }
  /// The description behind our descriptor `fd` must be closed by everybody.
  void close_description(int fd) { tell(Message::Kind::closed, fd); }
  /// `fd` leads to a new description.
  void adopt_description(int fd) { tell(Message::Kind::opened, fd); }
  /// Leaves a process behind that lets every call go on until nobody is left who could make one; the keeper itself
  /// ends.
  void care_for_orphans() { tell(Message::Kind::care, -1); }

  void kill() const;
  void reap();
  /// Reaped by somebody else.
  void forget() { pid_ = -1; }

  struct Message {
    enum class Kind : std::uint8_t { serve, stand_by, closed, opened, care };
    Kind kind = Kind::serve;
    int fd = -1;
  };

 private:
  struct Start;
  static int keep(void* start);
  void tell(Message::Kind kind, int fd);

  pid_t pid_ = -1;
  base::UniqueFd control_;
  std::unique_ptr<Start> start_;
};

}  // namespace holdfast::run
