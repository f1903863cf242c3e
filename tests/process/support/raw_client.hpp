// SPDX-License-Identifier: MIT
// raw_client.hpp - somebody who speaks the broker's language letter by letter, as no library of ours would: any bytes,
// any descriptors, any rhythm. Answers come as words, so that a test reads as the conversation that it is:
//
//   RawClient client{broker.socket()};
//   EXPECT_EQ(client.ask(claim_of(pty.path())).words, "granted");
#pragma once

#include "process/support/child.hpp"

#include "base/unique_fd.hpp"
#include "wire/codec.hpp"

#include <sys/types.h>

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace holdfast::testing_support {

/// What came from the broker: "granted", "queued", "refused: MESSAGE", "done", "renewed", "not mine: REASON", "event",
/// "notice: asked to leave", "status", "history", "welcome"; "(silence)", "(gone)", "(garbage)".
struct Answer {
  std::string words;
  std::uint32_t number = 0;
  std::optional<wire::FromBroker> body;
  std::vector<base::UniqueFd> descriptors;

  template <class Body>
  [[nodiscard]] const Body* as() const {
    return body ? std::get_if<Body>(&*body) : nullptr;
  }
  /// Of a grant; 0 otherwise.
  [[nodiscard]] wire::ClaimId claim() const {
    const auto* granted = as<wire::Granted>();
    return granted == nullptr ? wire::ClaimId{} : granted->claim;
  }
  [[nodiscard]] wire::Token token() const {
    const auto* granted = as<wire::Granted>();
    return granted == nullptr || granted->devices.empty() ? wire::Token{} : granted->devices[0].token;
  }
  [[nodiscard]] errc code() const {
    const auto* refused = as<wire::Refused>();
    return refused == nullptr ? errc{} : refused->code;
  }
};

class RawClient {
 public:
  enum class Greeting { said, unsaid };
  /// Connects, and says Hello unless told otherwise. connected() is false when nobody listens.
  explicit RawClient(const std::string& socket, Greeting greeting = Greeting::said);
  /// An end of somebody else's connection.
  explicit RawClient(base::UniqueFd socket) : socket_{std::move(socket)} {}

  [[nodiscard]] bool connected() const { return static_cast<bool>(socket_); }
  [[nodiscard]] int socket() const { return socket_.get(); }
  [[nodiscard]] wire::Epoch epoch() const { return epoch_; }
  void hang_up() { socket_.reset(); }

  /// \param descriptors  ride along, whether the message says so or not
  /// \returns the message's number, 0 when it could not be sent
  std::uint32_t send(const wire::FromClient& message, std::span<const int> descriptors = {});
  enum class Sent { whole, full, refused };
  /// Whatever these bytes are; `full` without waiting when the broker does not read.
  Sent send_bytes(std::span<const std::byte> bytes, std::span<const int> descriptors = {});

  /// What comes next, whatever it answers.
  [[nodiscard]] Answer hear(std::chrono::milliseconds patience = kPatience);
  /// The next one that answers `number`; others are kept for hear(). "(silence)" when none comes.
  [[nodiscard]] Answer answer_to(std::uint32_t number, std::chrono::milliseconds patience = kPatience);
  /// send() and answer_to().
  Answer ask(const wire::FromClient& message, std::span<const int> descriptors = {});
  /// Whether something can be heard this moment.
  [[nodiscard]] bool has_heard() const;

 private:
  [[nodiscard]] Answer receive(std::chrono::milliseconds patience);

  base::UniqueFd socket_;
  std::uint32_t last_ = 0;
  wire::Epoch epoch_{};
  std::deque<Answer> kept_;
  std::vector<std::byte> packet_;
};

/// As this process sees it; all zero when it is not there.
[[nodiscard]] wire::DeviceName name_of(const std::string& device);
/// An exclusive claim that does not wait.
[[nodiscard]] wire::Claim claim_of(const std::string& device, const wire::Patience& patience = {});
inline constexpr wire::Patience kNoWait{};
inline constexpr wire::Patience kForEver{true, std::nullopt};

/// A process that does nothing but be an owner: it has no descriptors, so that a hung up connection is one. It shares
/// this one's memory, so that there may be ten thousand: copies of one parent make each other's fork(2) slower and
/// slower.
class Owner {
 public:
  Owner();
  Owner(Owner&& other) noexcept
      : stack_{std::move(other.stack_)}, pid_{std::exchange(other.pid_, -1)}, pidfd_{std::move(other.pidfd_)} {}
  Owner& operator=(Owner&&) = delete;
  ~Owner();
  [[nodiscard]] pid_t pid() const { return pid_; }
  [[nodiscard]] int pidfd() const { return pidfd_.get(); }
  void kill() const;  ///< kill -9; returns when it is dead; it is a zombie until the object goes

 private:
  struct alignas(16) Stack {
    std::array<std::byte, 4096> bytes;
  };
  std::unique_ptr<Stack> stack_;
  pid_t pid_;
  base::UniqueFd pidfd_;
};

/// Asks on behalf of `owner`, by its pidfd.
Answer ask_for(RawClient& client, const Owner& owner, wire::Claim claim);
/// The same, without waiting for the answer.
std::uint32_t send_for(RawClient& client, const Owner& owner, wire::Claim claim);

}  // namespace holdfast::testing_support
