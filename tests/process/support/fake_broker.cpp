// SPDX-License-Identifier: MIT
// fake_broker.cpp - poll(2) in a thread; the socket appears by rename, when it listens.
#include "process/support/fake_broker.hpp"

#include "process/support/packets.hpp"
#include "wire/codec.hpp"

#include <gtest/gtest.h>
#include <poll.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <cstring>

namespace holdfast::testing_support {
namespace {

void send_to(int socket, std::uint32_t number, const wire::FromBroker& message) {
  std::vector<std::byte> packet;
  ASSERT_TRUE(wire::encode(number, message, packet));
  static_cast<void>(send_packet(socket, packet));
}

}  // namespace

FakeBroker::FakeBroker(std::string path, Answer answer)
    : path_{std::move(path)},
      answer_{std::move(answer)},
      listener_{listener_at(path_ + ".new")},
      ending_{::eventfd(0, EFD_CLOEXEC)} {
  EXPECT_TRUE(listener_);
  EXPECT_EQ(::rename((path_ + ".new").c_str(), path_.c_str()), 0);
  thread_ = std::thread{[this] { serve(); }};
}

FakeBroker::~FakeBroker() {
  ::unlink(path_.c_str());
  ::eventfd_write(ending_.get(), 1);
  thread_.join();
}

void FakeBroker::serve() {
  while (true) {
    std::vector<pollfd> all{{ending_.get(), POLLIN, 0}, {listener_.get(), POLLIN, 0}};
    for (const auto& each : connections_) all.push_back({each.get(), POLLIN, 0});
    if (::poll(all.data(), all.size(), -1) <= 0) continue;
    if (all[0].revents != 0) return;
    for (std::size_t i = 2; i < all.size(); ++i)
      if (all[i].revents != 0) heard(all[i].fd);
    if (all[1].revents != 0) connections_.emplace_back(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
  }
}

void FakeBroker::heard(int from) {
  std::array<std::byte, 8192> buffer;
  const ssize_t got = ::recv(from, buffer.data(), buffer.size(), 0);
  if (got <= 0) {
    const std::scoped_lock lock{mutex_};
    std::erase(watchers_, from);
    connections_.remove_if([from](const base::UniqueFd& each) { return each.get() == from; });
    return;
  }
  const auto message = wire::decode_from_client({buffer.data(), static_cast<std::size_t>(got)}, 0);
  ASSERT_TRUE(message) << "not a message of a client";
  if (std::holds_alternative<wire::Hello>(message->body)) {
    send_to(from, message->number, wire::Welcome{wire::kVersion, wire::Epoch{1}});
  } else if (const auto* const watch = std::get_if<wire::Watch>(&message->body)) {
    send_to(from, message->number, wire::Done{});
    const std::scoped_lock lock{mutex_};
    watchers_.push_back(from);
    wanted_ = *watch;
    subscribed_.notify_all();
  } else if (answer_) {
    for (const wire::FromBroker& each : answer_(message->body)) send_to(from, message->number, each);
  }
}

void FakeBroker::tell(const wire::Event& event) {
  const std::scoped_lock lock{mutex_};
  for (const int watcher : watchers_) send_to(watcher, 0, event);
}

wire::Watch FakeBroker::watched_by(std::size_t count) {
  std::unique_lock lock{mutex_};
  EXPECT_TRUE(subscribed_.wait_for(lock, std::chrono::seconds{10}, [&] { return watchers_.size() >= count; }));
  return wanted_;
}

wire::Event told_event(wire::EventKind kind, const std::string& device, const std::string& detail) {
  wire::Event event;
  event.kind = kind;
  event.at = wire::WallTime{std::chrono::seconds{1'795'349'051}};
  event.device = {device, wire::NodeKind::character, 188, 3, 0};
  event.who = {
      4121,    99'123, "picocom", "joe", std::chrono::system_clock::time_point{std::chrono::seconds{1'795'349'000}},
      "flash", {}};
  event.detail = detail;
  return event;
}

}  // namespace holdfast::testing_support
