// SPDX-License-Identifier: MIT
// scripted_broker.hpp - a broker that says what a test wants it to say, at the moment when it wants it: the client's
// side is tested against answers that a real broker gives once in a million, or never should.
//
//   ScriptedBroker broker{[](Stage& stage) {
//     auto client = stage.admit();
//     const auto asked = client.hear<wire::Claim>();
//     client.say(asked.number, wire::NotMine{"not today"});
//   }};
#pragma once

#include "claim/holding.hpp"
#include "process/support/child.hpp"
#include "process/support/devices.hpp"
#include "wire/codec.hpp"

#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace holdfast::testing_support {

/// The broker's end of a connection. What is not as the script says ends the broker with a complaint.
class Visitor {
 public:
  explicit Visitor(base::UniqueFd socket) : socket_{std::move(socket)} {}

  struct Heard {
    std::uint32_t number = 0;
    wire::FromClient body;
    std::vector<base::ProcessFd> descriptors;
  };
  /// The next message; nullopt when the client has hung up.
  [[nodiscard]] std::optional<Heard> hear_any();
  template <class Body>
  struct As {
    std::uint32_t number = 0;
    Body body;
    std::vector<base::ProcessFd> descriptors;
  };
  template <class Body>
  As<Body> hear() {
    auto heard = hear_any();
    if (!heard) fail("hung up");
    auto* const body = std::get_if<Body>(&heard->body);
    if (body == nullptr) fail("said something else");
    return {heard->number, std::move(*body), std::move(heard->descriptors)};
  }
  void say(std::uint32_t number, const wire::FromBroker& message, const std::vector<int>& descriptors = {});
  void grant(std::uint32_t number, const claiming::Holding& holding, wire::ClaimId claim = wire::ClaimId{7},
             std::optional<wire::Duration> lapses_in = {}, Enforcement enforcement = Enforcement::advisory);
  void welcome(std::uint16_t version = wire::kVersion, wire::Epoch epoch = wire::Epoch{1});

 private:
  [[noreturn]] static void fail(const char* what);
  base::UniqueFd socket_;
};

class Stage {
 public:
  Stage(int listener, Peer& test, pid_t client) : listener_{listener}, test_{test}, client_{client} {}
  /// The next connection.
  [[nodiscard]] Visitor meet();
  /// The next connection, with Hello and Welcome said.
  [[nodiscard]] Visitor admit(wire::Epoch epoch = wire::Epoch{1});
  /// Takes for the client, who is the test's process.
  [[nodiscard]] claiming::Holding take(const std::string& device, const Options& options = {});
  [[nodiscard]] Peer& test() { return test_; }

 private:
  int listener_;
  Peer& test_;
  pid_t client_;
};

/// A process with a socket of its own, which $HOLDFAST_SOCKET names while the object lives.
class ScriptedBroker {
 public:
  explicit ScriptedBroker(const std::function<void(Stage&)>& script);
  ~ScriptedBroker();
  ScriptedBroker(const ScriptedBroker&) = delete;
  ScriptedBroker& operator=(const ScriptedBroker&) = delete;

  /// The script's words, by Stage::test().
  std::string hear() { return child_->hear(); }
  void tell(std::string_view words) { child_->tell(words); }
  void kill();
  /// Killed, and nobody will come after it.
  void kill_for_good();
  /// Another process takes over the socket.
  void start(const std::function<void(Stage&)>& script);
  /// The script's end: 0, or what ended it.
  int end() { return child_->reap(); }

 private:
  TemporaryDirectory directory_;
  base::UniqueFd listener_;
  std::optional<Child> child_;
};

}  // namespace holdfast::testing_support
