// SPDX-License-Identifier: MIT
// link.hpp - a connection to the broker: one message per packet, with what rides along; never longer than asked for.
//
// A claim that lives has a connection of its own, which is how the broker hears that its process let go of everything
// (exec). One that is not needed any more is kept for the process's next claim: connecting is half the cost of a claim
// and its release. A forked child is another process, so the broker would not listen to it on its parent's connection;
// the child forgets what is kept.
#pragma once

#include "base/process_fd.hpp"
#include "wire/codec.hpp"

#include <holdfast/options.hpp>

#include <signal.h>

#include <chrono>
#include <cstdint>
#include <expected>
#include <span>
#include <string>
#include <vector>

namespace holdfast::claiming {

/// $HOLDFAST_SOCKET, else /run/holdfast/socket; empty when there shall be no broker. A program that runs with another
/// user's rights does not take it from its environment.
[[nodiscard]] std::string broker_socket();

/// Why nothing came.
enum class Silence : std::uint8_t {
  deadline,
  signal,
  forlorn,  ///< Until::life has ended
  no_room,  ///< this process has no descriptor left for those of a message, which is lost
  gone,     ///< the broker has closed the connection, is dead, or speaks nonsense
};

struct Packet {
  std::uint32_t number = 0;  ///< of the message that it answers; 0 for a notice
  wire::FromBroker body;
  std::vector<base::ProcessFd> descriptors;
};

class Link {
 public:
  using Clock = std::chrono::steady_clock;
  /// When to give up. `in_sleep`: the signal mask while sleeping, nullptr to leave it.
  struct Until {
    Clock::time_point deadline = Clock::time_point::max();
    OnSignal on_signal = OnSignal::keep_waiting;
    const sigset_t* in_sleep = nullptr;
    int life = -1;  ///< a pidfd, without whose process there is nothing to wait for; -1 for none
  };
  /// The longest that an answer of a living broker which needs nobody else takes.
  static constexpr std::chrono::seconds kPatience{5};

  Link() = default;
  /// A kept connection, or a new one on which both sides know each other's version. `gone`: nobody there, or nobody of
  /// our version.
  [[nodiscard]] static std::expected<Link, Silence> open(const std::string& path = broker_socket(),
                                                         Clock::duration patience = kPatience);
  /// For the process's next use. Only a connection on which nothing is held or awaited.
  static void keep(Link link) noexcept;
  /// Says at the next connection that the claim was given back.
  static void release_later(wire::ClaimId claim, const std::string& path = broker_socket()) noexcept;

  [[nodiscard]] explicit operator bool() const { return static_cast<bool>(socket_); }
  [[nodiscard]] int fd() const { return socket_.get(); }
  [[nodiscard]] wire::Epoch epoch() const { return epoch_; }
  /// Whether it was kept: what it leads to may be gone since.
  [[nodiscard]] bool was_kept() const { return was_kept_; }

  /// \returns the message's number; `gone` also when the broker takes nothing for so long
  [[nodiscard]] std::expected<std::uint32_t, Silence> send(const wire::FromClient& message,
                                                           std::span<const int> descriptors = {},
                                                           Clock::duration patience = kPatience);
  [[nodiscard]] std::expected<Packet, Silence> receive(const Until& until);
  /// What is there already; `deadline` when there is nothing.
  [[nodiscard]] std::expected<Packet, Silence> receive_now();
  /// The answer to the message of that number; what comes between, notices, goes to `aside`.
  [[nodiscard]] std::expected<Packet, Silence> answer_to(std::uint32_t number, std::vector<Packet>& aside,
                                                         Clock::duration patience = kPatience);
  /// Sends and waits for the answer.
  [[nodiscard]] std::expected<Packet, Silence> ask(const wire::FromClient& message, std::vector<Packet>& aside,
                                                   std::span<const int> descriptors = {},
                                                   Clock::duration patience = kPatience);

  void share_with_children() noexcept {
    socket_.share_with_children();
    is_shared_ = true;
  }
  void close() noexcept { socket_.reset(); }

 private:
  [[nodiscard]] std::expected<void, Silence> greet(Clock::duration patience);

  base::ProcessFd socket_;
  std::string path_;
  wire::Epoch epoch_{};
  std::uint32_t next_ = 1;
  bool was_kept_ = false;
  bool is_shared_ = false;
};

}  // namespace holdfast::claiming
