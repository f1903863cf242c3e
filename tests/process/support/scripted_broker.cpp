// SPDX-License-Identifier: MIT
// scripted_broker.cpp - see the header.
#include "process/support/scripted_broker.hpp"

#include "claim/parcel.hpp"
#include "process/support/packets.hpp"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace holdfast::testing_support {

void Visitor::fail(const char* what) {
  std::fprintf(stderr, "scripted broker: the client %s\n", what);
  ::_exit(9);
}

std::optional<Visitor::Heard> Visitor::hear_any() {
  pollfd heard{socket_.get(), POLLIN, 0};
  if (::poll(&heard, 1, static_cast<int>(kPatience.count())) != 1) fail("says nothing");
  std::vector<std::byte> bytes(wire::kMostBytes);
  std::array<char, CMSG_SPACE(wire::kMostDescriptors * sizeof(int))> space{};
  iovec part{bytes.data(), bytes.size()};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = space.data();
  header.msg_controllen = space.size();
  Heard what;
  const ssize_t got = base::ProcessFd::receive(socket_.get(), header, what.descriptors);
  if (got <= 0) return std::nullopt;
  auto message = wire::decode_from_client({bytes.data(), static_cast<std::size_t>(got)}, what.descriptors.size());
  if (!message) fail("speaks nonsense");
  what.number = message->number;
  what.body = std::move(message->body);
  return what;
}

void Visitor::say(std::uint32_t number, const wire::FromBroker& message, const std::vector<int>& descriptors) {
  std::vector<std::byte> packet;
  if (!wire::encode(number, message, packet)) fail("would not understand");
  static_cast<void>(send_packet(socket_.get(), packet, descriptors));
}

void Visitor::grant(std::uint32_t number, const claiming::Holding& holding, wire::ClaimId claim,
                    std::optional<wire::Duration> lapses_in, Enforcement enforcement) {
  const claiming::Parcel parcel = claiming::pack(holding);
  wire::Granted granted;
  granted.claim = claim;
  granted.mode = holding.mode();
  granted.lapses_in = lapses_in;
  granted.enforcement = enforcement;
  granted.marks = parcel.marks;
  say(number, granted, parcel.descriptors);
}

void Visitor::welcome(std::uint16_t version, wire::Epoch epoch) {
  const auto hello = hear<wire::Hello>();
  say(hello.number, wire::Welcome{version, epoch});
}

Visitor Stage::meet() {
  pollfd waiting{listener_, POLLIN, 0};
  if (::poll(&waiting, 1, static_cast<int>(kPatience.count())) != 1) ::_exit(8);
  return Visitor{base::UniqueFd{::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC)}};
}

Visitor Stage::admit(wire::Epoch epoch) {
  Visitor visitor = meet();
  visitor.welcome(wire::kVersion, epoch);
  return visitor;
}

claiming::Holding Stage::take(const std::string& device, const Options& options) {
  const auto client = base::facts_of(client_);
  auto holding = claiming::take(std::span{&device, 1}, options, client ? client->id : base::ProcessId{client_, 0});
  if (!holding) {
    std::fprintf(stderr, "scripted broker: %s\n", holding.error().message.c_str());
    ::_exit(7);
  }
  return std::move(*holding);
}

ScriptedBroker::ScriptedBroker(const std::function<void(Stage&)>& script) {
  const std::string path = directory_ / "socket";
  listener_ = listener_at(path);
  if (!listener_) std::abort();
  ::setenv("HOLDFAST_SOCKET", path.c_str(), 1);
  start(script);
}

ScriptedBroker::~ScriptedBroker() { ::setenv("HOLDFAST_SOCKET", "", 1); }

void ScriptedBroker::kill() {
  child_->kill();
  static_cast<void>(child_->reap());
}

void ScriptedBroker::kill_for_good() {
  kill();
  listener_.reset();
}

void ScriptedBroker::start(const std::function<void(Stage&)>& script) {
  const pid_t client = ::getpid();
  child_.emplace([&, client](Peer& test) {
    Stage stage{listener_.get(), test, client};
    script(stage);
    return 0;
  });
}

}  // namespace holdfast::testing_support
