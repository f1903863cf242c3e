// SPDX-License-Identifier: MIT
// inquiry.cpp - see the header.
#include "claim/inquiry.hpp"

#include "base/error.hpp"
#include "claim/link.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <deque>
#include <utility>

namespace holdfast::claiming {
namespace {

Error silent() { return nobody_answers(broker_socket(), ECONNREFUSED); }

// Goes through all answers to one question; `each` says whether more follow.
template <class Each>
Result<> ask(const wire::FromClient& question, std::chrono::nanoseconds patience, Each each) {
  auto link = Link::open();
  if (!link) return std::unexpected{silent()};
  const auto number = link->send(question);
  if (!number) return std::unexpected{silent()};
  for (bool more = true; more;) {
    const Link::Until until{.deadline = Link::Clock::now() + Link::kPatience +
                                        std::chrono::duration_cast<Link::Clock::duration>(patience)};
    auto packet = link->receive(until);
    if (!packet) return std::unexpected{silent()};
    if (packet->number != *number) continue;
    if (auto* const refused = std::get_if<wire::Refused>(&packet->body))
      return std::unexpected{error_from(std::move(*refused))};
    more = each(std::move(packet->body));
  }
  return {};
}

// Which devices are meant; nothing for a path that leads nowhere today.
Result<std::optional<wire::DeviceName>> name_today(const std::string& given) {
  const auto device = device::identify(given);
  if (device) return wire_name(device->node);
  if (const auto id = device::parse_number(given)) {
    device::Node node;
    node.id = *id;
    return wire_name(node);
  }
  if (device.error().code == errc::no_such_device) return std::nullopt;
  return std::unexpected{device.error()};
}

}  // namespace

wire::DeviceName wire_name(const device::Node& node) {
  return {node.path, node.id.kind == device::Kind::block ? wire::NodeKind::block : wire::NodeKind::character,
          node.id.major, node.id.minor, node.id.devpts};
}

Event event_from(wire::Event&& event) {
  Event made;
  made.kind = static_cast<EventKind>(event.kind);
  made.at = std::chrono::time_point_cast<std::chrono::system_clock::duration>(event.at);
  if (!event.device.path.empty()) {
    made.number = fmt::format("{}{}:{}", event.device.kind == wire::NodeKind::block ? 'b' : 'c', event.device.major,
                              event.device.minor);
  }
  made.device = std::move(event.device.path);
  made.mode = event.mode;
  made.who = std::move(event.who);
  made.waited = event.waited;
  made.held = event.held;
  made.detail = std::move(event.detail);
  return made;
}

Error error_from(wire::Refused&& refused) {
  Error error = base::failure(refused.code, base::printable(refused.message, 1024), refused.device);
  error.errnum = refused.errnum;
  error.holder = std::move(refused.holder);
  return error;
}

Error nobody_answers(const std::string& path, int errnum) {
  Error error = base::failure(errc::system_fault,
                              path.empty() ? std::string{"no broker is to be asked: HOLDFAST_SOCKET is empty"}
                                           : fmt::format("no broker answers at {}: {}; start holdfastd",
                                                         base::printable(path), base::errno_text(errnum)),
                              "");
  error.errnum = errnum;
  return error;
}

Result<std::vector<Event>> history(const std::vector<std::string>& devices,
                                   std::optional<std::chrono::system_clock::time_point> since, std::uint32_t most) {
  wire::HistoryQuery query;
  if (since) query.since = std::chrono::time_point_cast<std::chrono::nanoseconds>(*since);
  query.most = most;
  bool by_name = devices.size() > wire::kMostDevices;
  for (const std::string& given : devices) {
    auto name = name_today(given);
    if (!name) return std::unexpected{name.error()};
    if (*name)
      query.devices.push_back(std::move(**name));
    else
      by_name = true;
  }
  std::vector<std::string> numbers;
  if (by_name) {  // then all of it is asked for, and looked through here
    for (const wire::DeviceName& name : query.devices)
      numbers.push_back(fmt::format("{}{}:{}", name.kind == wire::NodeKind::block ? 'b' : 'c', name.major, name.minor));
    query.devices.clear();
    query.most = UINT32_MAX;
  }
  std::deque<Event> events;
  const auto wanted = [&](const Event& event) {
    return !by_name || std::ranges::find(devices, event.device) != devices.end() ||
           std::ranges::find(numbers, event.number) != numbers.end();
  };
  const auto done = ask(query, {}, [&](wire::FromBroker&& body) {
    auto* const page = std::get_if<wire::HistoryAnswer>(&body);
    if (page == nullptr) return false;
    for (wire::Event& each : page->events) {
      Event event = event_from(std::move(each));
      if (!wanted(event)) continue;
      events.push_back(std::move(event));
      if (events.size() > most) events.pop_front();
    }
    return page->more == wire::More::follows;
  });
  if (!done) return std::unexpected{done.error()};
  return std::vector<Event>{std::make_move_iterator(events.begin()), std::make_move_iterator(events.end())};
}

Result<> kick(const std::string& device, std::chrono::nanoseconds grace, const std::string& reason) {
  const auto found = device::identify(device);
  if (!found) return std::unexpected{found.error()};
  const wire::Kick question{wire_name(found->node), grace, base::printable(reason, wire::kMostText)};
  return ask(question, grace, [](wire::FromBroker&&) { return false; });
}

std::optional<std::vector<wire::DeviceStatus>> broker_status(const std::vector<wire::DeviceName>& devices) {
  std::vector<wire::DeviceStatus> all;
  const wire::StatusQuery question{devices.size() > wire::kMostDevices ? std::vector<wire::DeviceName>{} : devices};
  const auto done = ask(question, {}, [&all](wire::FromBroker&& body) {
    auto* const page = std::get_if<wire::StatusAnswer>(&body);
    if (page == nullptr) return false;
    std::ranges::move(page->devices, std::back_inserter(all));
    return page->more == wire::More::follows;
  });
  if (!done) return std::nullopt;
  return all;
}

}  // namespace holdfast::claiming
