// SPDX-License-Identifier: MIT
// chronicle.cpp - an event is encoded once and its bytes are shared by all queues.
#include "broker/chronicle.hpp"

#include "wire/codec.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <system_error>
#include <utility>

namespace holdfast::broker {
namespace {

bool same_device(const wire::DeviceName& left, const wire::DeviceName& right) {
  return left.kind == right.kind && left.major == right.major && left.minor == right.minor &&
         left.devpts == right.devpts;
}

bool wants(const wire::Watch& wanted, const wire::Event& event) {
  if (event.kind == wire::EventKind::missed) return true;
  if ((wanted.kinds >> static_cast<unsigned>(event.kind) & 1U) == 0) return false;
  return wanted.devices.empty() || std::ranges::any_of(wanted.devices, [&event](const wire::DeviceName& device) {
           return same_device(device, event.device);
         });
}

std::vector<std::byte> encoded(std::uint32_t number, const wire::FromBroker& message) {
  std::vector<std::byte> packet;
  if (!wire::encode(number, message, packet)) packet.clear();
  return packet;
}

wire::Event missed(std::uint64_t lost) {
  wire::Event event;
  event.kind = wire::EventKind::missed;
  event.at = std::chrono::system_clock::now();
  event.detail = fmt::format("{} events lost: they were not read fast enough", lost);
  return event;
}

}  // namespace

Chronicle::Chronicle(Say say, Room room) : say_{std::move(say)}, room_{room} {}

void Chronicle::start_history(const std::string& path, const Retention& retention) {
  try {
    history_ = std::make_unique<History>(path, retention);
  } catch (const std::system_error& error) {  // std::thread has no other way to say so
    say_(fmt::format("no history is kept: {}", error.code().message()));
  }
}

void Chronicle::happened(const wire::Event& event) {
  if (history_) history_->add(event);
  Packet packet;
  for (auto& [key, outbox] : outboxes_) {
    if (!outbox.wanted || !wants(*outbox.wanted, event)) continue;
    if (!packet) packet = std::make_shared<const std::vector<std::byte>>(encoded(0, event));
    offer(outbox, packet);
  }
}

void Chronicle::offer(Outbox& outbox, const Packet& packet) {
  const auto fits = [&](std::size_t more) {
    return outbox.packets.size() + more <= room_.events && outbox.bytes + packet->size() <= room_.bytes;
  };
  // Room for the gap's own event too, so that it stands where the events were lost.
  if (packet->empty() || (!outbox.packets.empty() && !fits(outbox.lost > 0 ? 2 : 1))) {
    ++outbox.lost;
    return;
  }
  if (outbox.lost > 0) {
    const auto gap = encoded(0, missed(std::exchange(outbox.lost, 0)));
    give(outbox, std::make_shared<const std::vector<std::byte>>(gap));
  }
  give(outbox, packet);
}

// Queued behind what waits, else sent.
void Chronicle::give(Outbox& outbox, const Packet& packet) {
  if (outbox.packets.empty() && outbox.listener->send(*packet)) return;
  outbox.packets.push_back(packet);
  outbox.bytes += packet->size();
}

void Chronicle::drain(Outbox& outbox) {
  while (!outbox.packets.empty() && outbox.listener->send(*outbox.packets.front())) {
    outbox.bytes -= outbox.packets.front()->size();
    outbox.packets.pop_front();
  }
  if (!outbox.packets.empty()) return;
  if (outbox.lost > 0) {
    const auto gap = encoded(0, missed(std::exchange(outbox.lost, 0)));
    give(outbox, std::make_shared<const std::vector<std::byte>>(gap));
  }
  ask_on(outbox);
}

Chronicle::Outbox& Chronicle::outbox_of(Listener& listener) {
  const auto [found, fresh] = outboxes_.try_emplace(&listener);
  if (fresh) {
    found->second.listener = &listener;
    found->second.ticket = ++last_ticket_;
    tickets_.emplace(last_ticket_, &found->second);  // stays where it is
  }
  return found->second;
}

void Chronicle::subscribe(Listener& listener, const wire::Watch& wanted) { outbox_of(listener).wanted = wanted; }

void Chronicle::ask(Listener& listener, std::uint32_t number, const wire::HistoryQuery& query) {
  Outbox& outbox = outbox_of(listener);
  wire::Refused refused;
  if (!history_) {
    refused.code = errc::system_fault;
    refused.message = "the broker keeps no history";
  } else if (outbox.asked) {
    refused.code = errc::no_resources;
    refused.message = "one question about the history at a time";
  } else {
    outbox.asked = Question{outbox.ticket, number, query, std::nullopt};
    ask_on(outbox);
    return;
  }
  give(outbox, std::make_shared<const std::vector<std::byte>>(encoded(number, refused)));
}

// The next page is asked for when the one before it has gone.
void Chronicle::ask_on(Outbox& outbox) {
  if (!outbox.asked || outbox.asking || !outbox.packets.empty()) return;
  outbox.asking = true;
  history_->ask(*outbox.asked);
}

void Chronicle::deliver() {
  if (!history_) return;
  History::News news = history_->take();
  for (const std::string& trouble : news.troubles) say_(trouble);
  for (Answer& answer : news.answers) {
    const auto ticket = tickets_.find(answer.ticket);
    if (ticket == tickets_.end()) continue;  // went meanwhile
    Outbox& outbox = *ticket->second;
    outbox.asking = false;
    outbox.asked = std::move(answer.next);
    give(outbox, std::make_shared<const std::vector<std::byte>>(std::move(answer.packet)));
    ask_on(outbox);
  }
}

void Chronicle::ready(Listener& listener) {
  const auto found = outboxes_.find(&listener);
  if (found != outboxes_.end()) drain(found->second);
}

bool Chronicle::wants_ready(const Listener& listener) const {
  const auto found = outboxes_.find(&listener);
  return found != outboxes_.end() && !found->second.packets.empty();
}

void Chronicle::forget(Listener& listener) {
  const auto found = outboxes_.find(&listener);
  if (found == outboxes_.end()) return;
  tickets_.erase(found->second.ticket);
  outboxes_.erase(found);
}

}  // namespace holdfast::broker
