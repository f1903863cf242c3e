// SPDX-License-Identifier: MIT
// codec.cpp - each message has one list of its fields, which the reader and the writer both go through, so that they
// cannot differ. A reader that failed reads zeros and nothing more, and is asked once at the end.
#include "wire/codec.hpp"

#include <algorithm>
#include <type_traits>
#include <utility>

namespace holdfast::wire {

namespace {

class Writer {
 public:
  template <class T>
  using Ref = const T&;

  explicit Writer(std::vector<std::byte>& out) : out_{out} {}

  template <class T>
  void number(T value) {
    auto bits = static_cast<std::make_unsigned_t<T>>(value);
    for (std::size_t i = 0; i < sizeof(T); ++i) {
      out_.push_back(static_cast<std::byte>(bits & 0xff));
      if constexpr (sizeof(T) > 1) bits = static_cast<std::make_unsigned_t<T>>(bits >> 8);
    }
  }
  template <class T>
  void choice(T value, T last) {
    failed_ = failed_ || value > last;
    number(static_cast<std::underlying_type_t<T>>(value));
  }
  void text(const std::string& text, std::size_t most) {
    failed_ = failed_ || text.size() > most || text.find('\0') != std::string::npos;
    if (failed_) return;
    number(static_cast<std::uint16_t>(text.size()));
    for (const char each : text) out_.push_back(static_cast<std::byte>(each));
  }
  template <class T, class Each>
  void list(const std::vector<T>& list, std::size_t most, Each each) {
    failed_ = failed_ || list.size() > most;
    if (failed_) return;
    number(static_cast<std::uint16_t>(list.size()));
    for (const T& element : list) each(*this, element);
  }
  template <class T, class Then>
  void maybe(const std::optional<T>& value, Then then) {
    number(static_cast<std::uint8_t>(value.has_value()));
    if (value) then(*this, *value);
  }
  void fail_unless(bool holds) { failed_ = failed_ || !holds; }
  [[nodiscard]] bool failed() const { return failed_; }

 private:
  std::vector<std::byte>& out_;
  bool failed_ = false;
};

class Reader {
 public:
  template <class T>
  using Ref = T&;

  explicit Reader(std::span<const std::byte> in) : in_{in} {}

  template <class T>
  void number(T& value) {
    value = T{};
    if (!has(sizeof(T))) return;
    std::make_unsigned_t<T> bits = 0;
    for (std::size_t i = 0; i < sizeof(T); ++i)
      bits = static_cast<std::make_unsigned_t<T>>(bits | static_cast<std::make_unsigned_t<T>>(in_[i]) << (8 * i));
    value = static_cast<T>(bits);
    in_ = in_.subspan(sizeof(T));
  }
  template <class T>
  void choice(T& value, T last) {
    std::underlying_type_t<T> bits{};
    number(bits);
    fail_unless(bits <= static_cast<std::underlying_type_t<T>>(last));
    value = failed_ ? T{} : static_cast<T>(bits);
  }
  void text(std::string& text, std::size_t most) {
    std::uint16_t size = 0;
    number(size);
    fail_unless(size <= most);
    if (!has(size)) return;
    text.assign(reinterpret_cast<const char*>(in_.data()), size);
    in_ = in_.subspan(size);
    fail_unless(text.find('\0') == std::string::npos);
  }
  template <class T, class Each>
  void list(std::vector<T>& list, std::size_t most, Each each) {
    std::uint16_t count = 0;
    number(count);
    fail_unless(count <= most);
    // Grown one by one: a count is worth nothing until its elements are there.
    for (std::uint16_t i = 0; i < count && !failed_; ++i) each(*this, list.emplace_back());
  }
  template <class T, class Then>
  void maybe(std::optional<T>& value, Then then) {
    std::uint8_t there = 0;
    number(there);
    fail_unless(there <= 1);
    if (there == 1 && !failed_) then(*this, value.emplace());
  }
  void fail_unless(bool holds) { failed_ = failed_ || !holds; }
  [[nodiscard]] bool failed() const { return failed_; }
  [[nodiscard]] bool at_end() const { return in_.empty(); }

 private:
  bool has(std::size_t size) {
    fail_unless(in_.size() >= size);
    return !failed_;
  }

  std::span<const std::byte> in_;
  bool failed_ = false;
};

template <class A>
inline constexpr bool kReads = std::is_same_v<A, Reader>;

// --- Parts -----------------------------------------------------------------------------------------------------------

constexpr std::size_t kMostListed = 0xffff;

template <class A, class Id>
void id(A& a, Id& value) {
  auto bits = static_cast<std::uint64_t>(value);
  a.number(bits);
  if constexpr (kReads<A>) value = Id{bits};
}

template <class A, class D>
void duration(A& a, D& value) {
  std::int64_t count = value.count();
  a.number(count);
  a.fail_unless(count >= 0);
  if constexpr (kReads<A>) value = D{a.failed() ? 0 : count};
}

template <class A, class T>
void instant(A& a, T& value) {
  std::int64_t count = value.time_since_epoch().count();
  a.number(count);
  if constexpr (kReads<A>) value = T{typename T::duration{count}};
}

const auto kDuration = [](auto& a, auto& value) { duration(a, value); };
const auto kInstant = [](auto& a, auto& value) { instant(a, value); };
const auto kId = [](auto& a, auto& value) { id(a, value); };

template <class A, class T>
void conventions(A& a, T& set) {
  std::uint16_t bits = 0;
  for (int i = 0; i < kConventionCount; ++i)
    if (set.contains(static_cast<Convention>(i))) bits = static_cast<std::uint16_t>(bits | 1U << i);
  a.number(bits);
  a.fail_unless(bits < 1U << kConventionCount);
  if constexpr (kReads<A>) {
    set = ConventionSet{};
    for (int i = 0; i < kConventionCount; ++i)
      if ((bits >> i & 1U) != 0) set = set.with(static_cast<Convention>(i));
  }
}

template <class A>
void fields(A& a, typename A::template Ref<DeviceName> m) {
  a.text(m.path, kMostPath);
  a.choice(m.kind, NodeKind::block);
  a.number(m.major);
  a.number(m.minor);
  a.number(m.devpts);
}
const auto kDevice = [](auto& a, auto& m) { fields(a, m); };

template <class A>
void fields(A& a, typename A::template Ref<Patience> m) {
  auto waits = static_cast<std::uint8_t>(m.waits);
  a.number(waits);
  a.fail_unless(waits <= 1);
  if constexpr (kReads<A>) m.waits = waits == 1;
  a.maybe(m.at_most, kDuration);
}

template <class A>
void fields(A& a, typename A::template Ref<Holder> m) {
  a.number(m.pid);
  a.number(m.start_ticks);
  a.text(m.command, kMostText);
  a.text(m.user, kMostText);
  a.maybe(m.since, kInstant);
  a.text(m.purpose, kMostText);
  a.list(m.means, kMostListed, [](auto& archive, auto& each) { archive.text(each, kMostText); });
}
const auto kHolder = [](auto& a, auto& m) { fields(a, m); };

// How many descriptors ride along.
std::size_t count(const Marks& marks) {
  std::size_t all = 0;
  for (const ClaimedNode& node : marks.nodes) all += node.open == NodeOpen::closed ? 0 : 1;
  for (const ClaimedMark& mark : marks.marks) all += mark.descriptors;
  return all;
}

template <class A>
void fields(A& a, typename A::template Ref<Marks> m) {
  a.list(m.nodes, kMostListed, [](auto& archive, auto& each) {
    fields(archive, each.device);
    archive.choice(each.open, NodeOpen::writable);
  });
  const std::size_t nodes = m.nodes.size();
  a.list(m.marks, kMostListed, [&](auto& archive, auto& each) {
    archive.number(each.node);
    archive.fail_unless(each.node < nodes);
    archive.choice(each.convention, static_cast<Convention>(kConventionCount - 1));
    archive.choice(each.state, MarkState::not_available);
    archive.text(each.detail, kMostText);
    archive.list(each.files, kMostListed, [](auto& inner, auto& file) { inner.text(file, kMostPath); });
    archive.number(each.descriptors);
  });
  a.fail_unless(count(m) <= kMostDescriptors);
}

// --- From the client -------------------------------------------------------------------------------------------------

template <class A>
void fields(A& a, typename A::template Ref<Hello> m) {
  a.number(m.oldest);
  a.number(m.newest);
  a.text(m.program, kMostText);
}
template <class A>
void fields(A& a, typename A::template Ref<Claim> m) {
  a.list(m.devices, kMostDevices, kDevice);
  a.choice(m.mode, Mode::shared);
  a.choice(m.owner_scope, OwnerScope::tree);
  a.choice(m.cover, Cover::unit);
  a.choice(m.opening, Opening::never);
  conventions(a, m.conventions);
  fields(a, m.patience);
  a.choice(m.progress, Progress::told);
  a.choice(m.priority, Priority::urgent);
  a.maybe(m.lease, kDuration);
  a.maybe(m.place, kId);
  a.choice(m.owner, OwnerGiven::by_pidfd);
  a.text(m.purpose, kMostPurpose);
  a.choice(m.guarding, Guarding::off);
}
template <class A>
void fields(A& a, typename A::template Ref<Cancel> m) {
  a.number(m.asked);
}
template <class A>
void fields(A& a, typename A::template Ref<Release> m) {
  id(a, m.claim);
  a.choice(m.copies, Copies::closed);
}
template <class A>
void fields(A& a, typename A::template Ref<Downgrade> m) {
  id(a, m.claim);
}
template <class A>
void fields(A& a, typename A::template Ref<Upgrade> m) {
  id(a, m.claim);
  fields(a, m.patience);
}
template <class A>
void fields(A& a, typename A::template Ref<Renew> m) {
  id(a, m.claim);
  duration(a, m.lease);
}
template <class A>
void fields(A& a, typename A::template Ref<Resume> m) {
  id(a, m.claim);
  id(a, m.epoch);
  fields(a, m.marks);
}
template <class A>
void fields(A& a, typename A::template Ref<Watch> m) {
  a.list(m.devices, kMostDevices, kDevice);
  a.number(m.kinds);
  a.fail_unless(m.kinds < 1U << kEventKinds);
}
template <class A>
void fields(A& a, typename A::template Ref<StatusQuery> m) {
  a.list(m.devices, kMostDevices, kDevice);
}
template <class A>
void fields(A& a, typename A::template Ref<Kick> m) {
  fields(a, m.device);
  duration(a, m.grace);
  a.text(m.reason, kMostText);
}
template <class A>
void fields(A& a, typename A::template Ref<HistoryQuery> m) {
  a.list(m.devices, kMostDevices, kDevice);
  a.maybe(m.since, kInstant);
  a.number(m.most);
}

template <class A>
void fields(A& a, typename A::template Ref<Find> m) {
  a.list(m.devices, kMostDevices, kDevice);
  a.choice(m.owner, OwnerGiven::by_pidfd);
}

// --- From the broker -------------------------------------------------------------------------------------------------

template <class A>
void fields(A& a, typename A::template Ref<Welcome> m) {
  a.number(m.version);
  id(a, m.epoch);
}
template <class A>
void fields(A& a, typename A::template Ref<Granted> m) {
  id(a, m.claim);
  a.choice(m.mode, Mode::shared);
  a.choice(m.enforcement, Enforcement::guarded);
  a.maybe(m.lapses_in, kDuration);
  a.list(m.devices, kMostListed, [](auto& archive, auto& each) {
    fields(archive, each.device);
    id(archive, each.token);
  });
  fields(a, m.marks);
}
template <class A>
void fields(A& a, typename A::template Ref<Queued> m) {
  id(a, m.place);
  a.number(m.ahead);
  a.maybe(m.estimate, kDuration);
}
template <class A>
void fields(A& a, typename A::template Ref<Refused> m) {
  a.fail_unless(kReads<A> || m.code >= errc::refused);
  a.choice(m.code, errc::lapsed);
  a.fail_unless(m.code >= errc::refused);
  a.number(m.errnum);
  a.text(m.message, kMostText);
  a.text(m.device, kMostPath);
  a.maybe(m.holder, kHolder);
}
template <class A>
void fields(A&, typename A::template Ref<Done>) {}
template <class A>
void fields(A& a, typename A::template Ref<Renewed> m) {
  id(a, m.claim);
  duration(a, m.lapses_in);
}
template <class A>
void fields(A& a, typename A::template Ref<NotMine> m) {
  a.text(m.reason, kMostText);
}
template <class A>
void fields(A& a, typename A::template Ref<Found> m) {
  id(a, m.claim);
  a.maybe(m.lapses_in, kDuration);
}
template <class A>
void fields(A& a, typename A::template Ref<RevokeNotice> m) {
  id(a, m.claim);
  a.choice(m.why, Ending::denied);
  duration(a, m.grace);
  a.text(m.by, kMostText);
  a.text(m.reason, kMostText);
}
template <class A>
void fields(A& a, typename A::template Ref<Event> m) {
  a.choice(m.kind, static_cast<EventKind>(kEventKinds - 1));
  instant(a, m.at);
  fields(a, m.device);
  a.choice(m.mode, Mode::shared);
  fields(a, m.who);
  duration(a, m.waited);
  duration(a, m.held);
  a.text(m.detail, kMostText);
}
template <class A>
void fields(A& a, typename A::template Ref<StatusAnswer> m) {
  a.list(m.devices, kMostListed, [](auto& archive, auto& each) {
    fields(archive, each.device);
    archive.choice(each.mode, Mode::shared);
    id(archive, each.token);
    archive.choice(each.enforcement, Enforcement::guarded);
    archive.maybe(each.lapses_in, kDuration);
    archive.list(each.holders, kMostListed, kHolder);
    archive.list(each.waiters, kMostListed, [](auto& inner, auto& waiter) {
      fields(inner, waiter.who);
      inner.choice(waiter.mode, Mode::shared);
      inner.choice(waiter.priority, Priority::urgent);
    });
    archive.number(each.waiting);
    archive.number(each.denials);
  });
  a.choice(m.more, More::follows);
}
template <class A>
void fields(A& a, typename A::template Ref<HistoryAnswer> m) {
  a.list(m.events, kMostListed, [](auto& archive, auto& each) { fields(archive, each); });
  a.choice(m.more, More::follows);
}

// --- Packets ---------------------------------------------------------------------------------------------------------

constexpr std::uint16_t kMagic = 0x6668;  // "hf"
constexpr std::uint16_t kFromBroker = 0x8000;

template <class Side>
constexpr std::uint16_t side_bit() {
  return std::is_same_v<Side, FromBroker> ? kFromBroker : 0;
}

template <class Body>
std::size_t descriptors_of(const Body& body) {
  if constexpr (std::is_same_v<Body, Granted> || std::is_same_v<Body, Resume>) return count(body.marks);
  if constexpr (std::is_same_v<Body, Claim> || std::is_same_v<Body, Find>)
    return body.owner == OwnerGiven::by_pidfd ? 1 : 0;
  return 0;
}

struct Header {
  std::uint16_t magic = kMagic;
  std::uint8_t version = kVersion;
  std::uint8_t descriptors = 0;
  std::uint32_t number = 0;
  std::uint16_t kind = 0;
  std::uint16_t length = 0;
};
template <class A, class H>
void header(A& a, H& h) {
  a.number(h.magic);
  a.number(h.version);
  a.number(h.descriptors);
  a.number(h.number);
  a.number(h.kind);
  a.number(h.length);
}

template <class Body, class Side>
std::expected<Numbered<Side>, Fault> read_body(const Header& head, std::span<const std::byte> bytes) {
  constexpr bool kForEveryVersion = std::is_same_v<Body, Hello> || std::is_same_v<Body, Welcome>;
  if (head.version != kVersion && !kForEveryVersion) return std::unexpected{Fault::wrong_version};
  Reader reader{bytes};
  Body body{};
  fields(reader, body);
  if (reader.failed() || (!reader.at_end() && head.version == kVersion)) return std::unexpected{Fault::malformed};
  if (head.descriptors != descriptors_of(body)) return std::unexpected{Fault::wrong_descriptors};
  return Numbered<Side>{head.number, Side{std::move(body)}};
}

template <class Side, std::size_t... kIndices>
std::expected<Numbered<Side>, Fault> read_kind(const Header& head, std::span<const std::byte> bytes,
                                               std::index_sequence<kIndices...>) {
  std::expected<Numbered<Side>, Fault> result = std::unexpected{Fault::unknown_kind};
  const auto read_if = [&]<std::size_t kIndex>() {
    if (head.kind == (kIndex | side_bit<Side>()))
      result = read_body<std::variant_alternative_t<kIndex, Side>, Side>(head, bytes);
  };
  (read_if.template operator()<kIndices>(), ...);
  return result;
}

template <class Side>
std::expected<Numbered<Side>, Fault> decode(std::span<const std::byte> packet, std::size_t descriptors) {
  if (packet.size() < kHeaderBytes) return std::unexpected{Fault::not_ours};
  Header head;
  Reader reader{packet.first(kHeaderBytes)};
  header(reader, head);
  if (head.magic != kMagic) return std::unexpected{Fault::not_ours};
  if (packet.size() != kHeaderBytes + head.length) return std::unexpected{Fault::wrong_length};
  if (head.descriptors != descriptors) return std::unexpected{Fault::wrong_descriptors};
  return read_kind<Side>(head, packet.subspan(kHeaderBytes), std::make_index_sequence<std::variant_size_v<Side>>{});
}

template <class Side>
std::expected<void, Fault> encode_side(std::uint32_t number, const Side& message, std::vector<std::byte>& packet) {
  packet.assign(kHeaderBytes, std::byte{});
  Writer writer{packet};
  Header head;
  head.number = number;
  head.kind = static_cast<std::uint16_t>(message.index() | side_bit<Side>());
  std::visit(
      [&](const auto& body) {
        fields(writer, body);
        head.descriptors = static_cast<std::uint8_t>(std::min<std::size_t>(descriptors_of(body), kMostDescriptors));
      },
      message);
  if (writer.failed() || packet.size() > kMostBytes) return std::unexpected{Fault::too_large};
  head.length = static_cast<std::uint16_t>(packet.size() - kHeaderBytes);
  std::vector<std::byte> first;
  first.reserve(kHeaderBytes);
  Writer head_writer{first};
  header(head_writer, head);
  std::copy(first.begin(), first.end(), packet.begin());
  return {};
}

}  // namespace

std::string_view to_string(Fault fault) noexcept {
  switch (fault) {
    case Fault::not_ours:
      return "not a message of holdfast";
    case Fault::wrong_length:
      return "a message of another length than it says";
    case Fault::wrong_version:
      return "a message of another version";
    case Fault::unknown_kind:
      return "a message of an unknown kind";
    case Fault::malformed:
      return "a malformed message";
    case Fault::wrong_descriptors:
      return "a message with other descriptors than it says";
    case Fault::too_large:
      return "too much for one message";
  }
  return "an unknown fault";
}

std::expected<Numbered<FromClient>, Fault> decode_from_client(std::span<const std::byte> packet,
                                                              std::size_t descriptors) {
  return decode<FromClient>(packet, descriptors);
}
std::expected<Numbered<FromBroker>, Fault> decode_from_broker(std::span<const std::byte> packet,
                                                              std::size_t descriptors) {
  return decode<FromBroker>(packet, descriptors);
}
std::expected<void, Fault> encode(std::uint32_t number, const FromClient& message, std::vector<std::byte>& packet) {
  return encode_side(number, message, packet);
}
std::expected<void, Fault> encode(std::uint32_t number, const FromBroker& message, std::vector<std::byte>& packet) {
  return encode_side(number, message, packet);
}

}  // namespace holdfast::wire
