// SPDX-License-Identifier: MIT
// supervisor.hpp - answers the command's calls and gets lent marks back. The front runs one, the keeper another.
#pragma once

#include "base/unique_fd.hpp"
#include "claim/holding.hpp"
#include "run/hand_over.hpp"
#include "run/listener.hpp"

#include <chrono>
#include <functional>
#include <optional>

namespace holdfast::run {

class Supervisor {
 public:
  using Clock = Lending::Clock;

  /// \param listener  may be empty: then nothing is ever handed over
  Supervisor(const claiming::Holding& holding, Listener listener, Surroundings surroundings);
  Supervisor(const Supervisor&) = delete;
  Supervisor& operator=(const Supervisor&) = delete;

  /// Descriptors to poll for input; -1 while there is nothing to wait for.
  [[nodiscard]] int listener() const { return listener_.fd(); }
  [[nodiscard]] int events() const { return events_.get(); }
  /// When to call look_again() at the latest; nullopt while nothing is lent.
  [[nodiscard]] std::optional<Clock::time_point> next_look() const { return next_look_; }

  /// The listener is readable: answers one call.
  void answer_one();
  /// Everybody who could ask is gone.
  void stop_listening() { listener_ = Listener{}; }
  /// Events are readable.
  void on_events();
  /// Tries to take back what is lent.
  void look_again();
  /// Somebody else has served meanwhile.
  void refresh();
  /// The command is dead: what is lent comes back, so that the holding can be given back.
  void settle();

 private:
  void answer(const Question& question);
  [[nodiscard]] Answer answer_to(const Question& question);
  void schedule(Clock::duration first);
  [[nodiscard]] bool anything_lent() const;
  void watch();

  Surroundings surroundings_;
  Listener listener_;
  Lendings lendings_;
  base::UniqueFd events_;  // made when the first mark is lent
  Clock::duration pause_{};
  std::optional<Clock::time_point> next_look_;
};

}  // namespace holdfast::run
