// SPDX-License-Identifier: MIT
// store.cpp - see the header.
#include "broker/store.hpp"

#include "claim/parcel.hpp"
#include "wire/codec.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/socket.h>
#include <systemd/sd-daemon.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>

namespace holdfast::broker {

using namespace std::chrono_literals;

namespace {

constexpr auto kWorthKeeping = 1s;
// In a second: whoever claims and releases in a loop is not to keep systemd busy.
constexpr int kMostAtOnce = 20;
constexpr std::string_view kPrefix = "claim-";

std::string name_of(wire::ClaimId claim) { return fmt::format("{}{}", kPrefix, static_cast<std::uint64_t>(claim)); }

std::optional<wire::ClaimId> claim_named(std::string_view name) {
  if (!name.starts_with(kPrefix)) return std::nullopt;
  name.remove_prefix(kPrefix.size());
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
  if (error != std::errc{} || end != name.data() + name.size()) return std::nullopt;
  return static_cast<wire::ClaimId>(number);
}

void remove(const std::string& name) { ::sd_notify(0, fmt::format("FDSTOREREMOVE=1\nFDNAME={}", name).c_str()); }

union Ancillary {
  cmsghdr aligned;
  std::array<char, CMSG_SPACE(wire::kMostDescriptors * sizeof(int))> bytes;
};

// The end in whose queue the message lies.
base::UniqueFd socket_with(std::span<const std::byte> packet, const std::vector<int>& descriptors) {
  // Of this kind: a socket of a connection hangs up with its other end, and systemd closes what hangs up.
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, ends.data()) != 0) return {};
  base::UniqueFd reader{ends[0]};
  const base::UniqueFd writer{ends[1]};
  iovec data{const_cast<std::byte*>(packet.data()), packet.size()};
  Ancillary ancillary;
  msghdr header{};
  header.msg_iov = &data;
  header.msg_iovlen = 1;
  if (!descriptors.empty()) {
    header.msg_control = &ancillary;
    header.msg_controllen = CMSG_SPACE(descriptors.size() * sizeof(int));
    cmsghdr* const rights = CMSG_FIRSTHDR(&header);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(descriptors.size() * sizeof(int));
    std::memcpy(CMSG_DATA(rights), descriptors.data(), descriptors.size() * sizeof(int));
  }
  const ssize_t sent = ::sendmsg(writer.get(), &header, MSG_NOSIGNAL | MSG_DONTWAIT);
  return sent == static_cast<ssize_t>(packet.size()) ? std::move(reader) : base::UniqueFd{};
}

std::optional<DescriptorStore::Kept> read_from(int socket) {
  std::vector<std::byte> packet(wire::kMostBytes);
  iovec data{packet.data(), packet.size()};
  Ancillary ancillary;
  msghdr header{};
  header.msg_iov = &data;
  header.msg_iovlen = 1;
  header.msg_control = &ancillary;
  header.msg_controllen = sizeof ancillary;
  const ssize_t got = ::recvmsg(socket, &header, MSG_PEEK | MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  DescriptorStore::Kept kept;
  for (cmsghdr* part = got < 0 ? nullptr : CMSG_FIRSTHDR(&header); part != nullptr; part = CMSG_NXTHDR(&header, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    std::vector<int> list((part->cmsg_len - CMSG_LEN(0)) / sizeof(int));
    std::memcpy(list.data(), CMSG_DATA(part), list.size() * sizeof(int));
    for (const int fd : list) kept.descriptors.push_back(base::ProcessFd::adopt(base::UniqueFd{fd}));
  }
  if (got < 0 || (header.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0) return std::nullopt;
  packet.resize(static_cast<std::size_t>(got));
  auto message = wire::decode_from_client(packet, kept.descriptors.size());
  auto* const resume = message ? std::get_if<wire::Resume>(&message->body) : nullptr;
  if (resume == nullptr) return std::nullopt;
  kept.claim = resume->claim;
  kept.marks = std::move(resume->marks);
  return kept;
}

bool holds_by_exclusive_open(const wire::Marks& marks) {
  return std::ranges::any_of(marks.marks, [](const wire::ClaimedMark& mark) {
    return mark.convention == Convention::o_excl && mark.state == wire::MarkState::taken;
  });
}

}  // namespace

DescriptorStore::DescriptorStore() : is_there_{::getenv("NOTIFY_SOCKET") != nullptr} {}

std::vector<DescriptorStore::Kept> DescriptorStore::take_over() {
  std::vector<Kept> all;
  char** names = nullptr;
  const int count = ::sd_listen_fds_with_names(0, &names);
  for (int i = 0; i < count; ++i) {
    const std::string name = names[i];
    ::free(names[i]);
    const int fd = SD_LISTEN_FDS_START + i;
    if (!name.starts_with(kPrefix)) continue;  // a listening socket
    const base::UniqueFd socket{fd};
    const auto claim = claim_named(name);
    auto kept = claim ? read_from(socket.get()) : std::nullopt;
    if (!kept || kept->claim != *claim) {
      remove(name);
      continue;
    }
    entries_[kept->claim] = {};
    all.push_back(std::move(*kept));
  }
  ::free(static_cast<void*>(names));
  return all;
}

void DescriptorStore::keep(wire::ClaimId claim, const claiming::Holding& holding, Clock::time_point now) {
  if (!is_there_ || entries_.contains(claim)) return;
  claiming::Parcel parcel = claiming::pack(holding);
  if (holds_by_exclusive_open(parcel.marks)) return;
  std::vector<std::byte> packet;
  const wire::Resume resume{claim, {}, std::move(parcel.marks)};
  if (!wire::encode(0, wire::FromClient{resume}, packet)) return;
  base::UniqueFd socket = socket_with(packet, parcel.descriptors);
  if (!socket) return;
  const auto due = now + kWorthKeeping;
  entries_[claim] = {due, std::move(socket)};
  wait_until(due);
}

void DescriptorStore::hurry(wire::ClaimId claim, Clock::time_point now) {
  const auto entry = entries_.find(claim);
  if (entry != entries_.end() && entry->second.due && may_send_at_once(now)) send(claim, entry->second, now);
}

void DescriptorStore::drop(wire::ClaimId claim) {
  const auto entry = entries_.find(claim);
  if (entry == entries_.end()) return;
  if (!entry->second.due) remove(name_of(claim));
  entries_.erase(entry);
}

std::optional<DescriptorStore::Clock::time_point> DescriptorStore::next_due() const { return next_due_; }

void DescriptorStore::wait_until(Clock::time_point due) {
  if (!next_due_ || due < *next_due_) next_due_ = due;
}

void DescriptorStore::advance(Clock::time_point now) {
  if (!next_due_ || now < *next_due_) return;
  next_due_.reset();
  for (auto& [claim, entry] : entries_) {
    if (!entry.due) continue;
    if (now < *entry.due)
      wait_until(*entry.due);
    else
      send(claim, entry, now);
  }
}

bool DescriptorStore::may_send_at_once(Clock::time_point now) {
  if (now >= second_ends_) {
    second_ends_ = now + 1s;
    sent_at_once_ = 0;
  }
  return sent_at_once_++ < kMostAtOnce;
}

void DescriptorStore::send(wire::ClaimId claim, Entry& entry, Clock::time_point now) {
  // Not to be polled by systemd, which would close what has an error to tell.
  const int fd = entry.socket.get();
  const std::string words = fmt::format("FDSTORE=1\nFDPOLL=0\nFDNAME={}", name_of(claim));
  if (::sd_pid_notify_with_fds(0, 0, words.c_str(), &fd, 1) <= 0) {
    entry.due = now + kWorthKeeping;  // another time
    return wait_until(*entry.due);
  }
  entry.socket.reset();
  entry.due.reset();
}

}  // namespace holdfast::broker
