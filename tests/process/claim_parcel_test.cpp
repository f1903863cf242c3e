// SPDX-License-Identifier: MIT
// claim_parcel_test.cpp - a claim goes from one process to another: the sender is killed, and the receiver still keeps
// a third out, by every convention; what is handed over falsely is not believed.
#include "claim/parcel.hpp"
#include "process/support/child.hpp"
#include "process/support/devices.hpp"
#include "process/support/packets.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <string>
#include <vector>

#include "wire/codec.hpp"

namespace holdfast::claiming {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using namespace testing_support;

struct Pair {
  Pair() {
    int ends[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
    one.reset(ends[0]);
    other.reset(ends[1]);
  }
  base::UniqueFd one;
  base::UniqueFd other;
};

bool send_parcel(int socket, const Parcel& parcel) {
  std::vector<std::byte> packet;
  wire::Granted granted;
  granted.marks = parcel.marks;
  if (!wire::encode(1, wire::FromBroker{granted}, packet)) return false;
  return send_packet(socket, packet, parcel.descriptors) == static_cast<ssize_t>(packet.size());
}

struct Arrived {
  wire::Marks marks;
  std::vector<base::ProcessFd> descriptors;
};

Arrived receive_parcel(int socket) {
  Arrived arrived;
  std::vector<std::byte> packet(wire::kMostBytes);
  std::array<char, CMSG_SPACE(wire::kMostDescriptors * sizeof(int))> control{};
  iovec part{packet.data(), packet.size()};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = control.data();
  header.msg_controllen = control.size();
  const ssize_t got = base::ProcessFd::receive(socket, header, arrived.descriptors);
  EXPECT_GT(got, 0);
  if (got <= 0) return arrived;
  packet.resize(static_cast<std::size_t>(got));
  auto message = wire::decode_from_broker(packet, arrived.descriptors.size());
  EXPECT_TRUE(message);
  if (message) arrived.marks = std::get<wire::Granted>(message->body).marks;
  return arrived;
}

// A process that takes `device` for the test and hands it over.
Child taker_of(const std::string& device, const Pair& pair, const Options& options = {}) {
  const base::ProcessId owner = base::self();
  return Child{[&, owner](Peer& test) {
    auto holding = take(std::span{&device, 1}, options, owner);
    if (!holding) {
      test.tell(holding.error().message);
      return 1;
    }
    test.tell(send_parcel(pair.other.get(), pack(*holding)) ? "sent" : "not sent");
    test.hear();
    return 0;
  }};
}

std::vector<device::Device> devices_of(const std::string& path) {
  std::vector<device::Device> devices;
  auto device = device::identify(path);
  EXPECT_TRUE(device);
  if (device) devices.push_back(std::move(*device));
  return devices;
}

Result<Holding> unpacked(const std::string& device, Arrived arrived, const Options& options = {},
                         convention::Locks locks = convention::Locks::as_said) {
  return unpack(devices_of(device), arrived.marks, std::move(arrived.descriptors),
                {.options = options, .owner = base::self(), .locks = locks});
}

std::string third_tries(const std::string& device, const Options& options = {}) {
  return in_a_child([&] {
    const auto taken = claim(device, options);
    return taken ? std::string{"taken"} : taken.error().message;
  });
}

// One convention of the claim alone, so that no other one hides its loss.
std::string third_tries_only(const std::string& device, Convention convention) {
  Options options;
  options.conventions = ConventionSet{convention};
  return third_tries(device, options);
}

void survives_its_taker(const std::string& device, const std::vector<Convention>& excluding) {
  const Pair pair;
  Child taker = taker_of(device, pair);
  ASSERT_EQ(taker.hear(), "sent");
  auto held = unpacked(device, receive_parcel(pair.one.get()));
  ASSERT_TRUE(held) << held.error().message;
  taker.kill();
  taker.reap();
  for (const Convention convention : excluding)
    EXPECT_THAT(third_tries_only(device, convention), HasSubstr("is held by")) << convention::entry(convention).name;
  held->give_back();
  EXPECT_THAT(lock_files_of(device), IsEmpty());
  for (const Convention convention : excluding) EXPECT_EQ(third_tries_only(device, convention), "taken");
  EXPECT_EQ(third_tries(device), "taken");
}

TEST(Parcel, keeps_a_third_from_a_pty_when_its_taker_is_killed) {
  const Pty pty;
  survives_its_taker(pty.path(), {Convention::proxy, Convention::uucp, Convention::flock, Convention::posix});
}

TEST(Parcel, keeps_a_third_from_a_loop_device_when_its_taker_is_killed) {
  const LoopDevice loop;
  if (!loop.missing().empty()) GTEST_SKIP() << "needs " << loop.missing();
  survives_its_taker(loop.path(), {Convention::proxy, Convention::flock, Convention::o_excl});
}

TEST(Parcel, keeps_a_third_from_a_real_port_when_its_taker_is_killed) {
  const base::UniqueFd port{::open("/dev/ttyS0", O_RDWR | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)};
  if (!port || ::isatty(port.get()) != 1) GTEST_SKIP() << "needs a port that opens at /dev/ttyS0";
  const TurnAtThePort turn;
  survives_its_taker("/dev/ttyS0",
                     {Convention::proxy, Convention::uucp, Convention::flock, Convention::posix, Convention::tiocexcl});
}

TEST(Parcel, shows_the_same_marks_on_both_sides) {
  const LoopDevice loop;
  if (!loop.missing().empty()) GTEST_SKIP() << "needs " << loop.missing();
  const std::string& path = loop.path();
  auto holding = take(std::span{&path, 1}, {}, base::self());
  ASSERT_TRUE(holding) << holding.error().message;
  const Pair pair;
  ASSERT_TRUE(send_parcel(pair.other.get(), pack(*holding)));
  auto copy = unpacked(path, receive_parcel(pair.one.get()));
  ASSERT_TRUE(copy) << copy.error().message;
  const auto words = [](const Holding& one) {
    std::vector<std::string> lines;
    for (const MarkReport& report : one.report()) lines.push_back(to_string(report));
    return lines;
  };
  EXPECT_EQ(words(*copy), words(*holding));
  EXPECT_EQ(copy->enforcement(), holding->enforcement());
  copy->let_go();
}

TEST(Parcel, let_go_of_leaves_the_claim_to_the_other_side) {
  const Pty pty;
  const Pair pair;
  Child taker = taker_of(pty.path(), pair);
  ASSERT_EQ(taker.hear(), "sent");
  auto held = unpacked(pty.path(), receive_parcel(pair.one.get()));
  ASSERT_TRUE(held) << held.error().message;
  held->let_go();
  EXPECT_THAT(third_tries(pty.path()), HasSubstr("is held by"));
  EXPECT_THAT(third_tries_only(pty.path(), Convention::flock), HasSubstr("is held by"));
  EXPECT_THAT(lock_files_of(pty.path()), Not(IsEmpty()));
}

TEST(Parcel, o_excl_ends_with_the_last_copy_and_the_rest_stays) {
  const LoopDevice loop;
  if (!loop.missing().empty()) GTEST_SKIP() << "needs " << loop.missing();
  const Pair pair;
  Child taker = taker_of(loop.path(), pair);
  ASSERT_EQ(taker.hear(), "sent");
  auto held = unpacked(loop.path(), receive_parcel(pair.one.get()));
  ASSERT_TRUE(held) << held.error().message;
  taker.kill();
  taker.reap();
  held->close_what_only_closing_ends();
  EXPECT_EQ(third_tries_only(loop.path(), Convention::o_excl), "taken");
  EXPECT_THAT(third_tries_only(loop.path(), Convention::flock), HasSubstr("is held by"));
}

TEST(Parcel, shared_claims_stay_shared_and_keep_exclusive_ones_out) {
  const Pty pty;
  const Options shared{.mode = Mode::shared};
  const Pair pair;
  Child taker = taker_of(pty.path(), pair, shared);
  ASSERT_EQ(taker.hear(), "sent");
  auto held = unpacked(pty.path(), receive_parcel(pair.one.get()), shared);
  ASSERT_TRUE(held) << held.error().message;
  taker.kill();
  taker.reap();
  EXPECT_EQ(third_tries(pty.path(), shared), "taken");
  EXPECT_THAT(third_tries(pty.path()), HasSubstr("is held by"));
  EXPECT_TRUE(held->upgrade());
  EXPECT_THAT(third_tries(pty.path(), shared), HasSubstr("is held by"));
}

TEST(Parcel, forked_children_of_the_receiver_do_not_keep_it) {
  const LoopDevice loop;
  if (!loop.missing().empty()) GTEST_SKIP() << "needs " << loop.missing();
  const Pair pair;
  Child taker = taker_of(loop.path(), pair);
  ASSERT_EQ(taker.hear(), "sent");
  auto held = unpacked(loop.path(), receive_parcel(pair.one.get()));
  ASSERT_TRUE(held) << held.error().message;
  taker.kill();
  taker.reap();
  Child bystander{[](Peer& test) {
    test.hear();
    return 0;
  }};
  held->let_go();
  EXPECT_EQ(third_tries(loop.path()), "taken");
}

// --- What is not believed --------------------------------------------------------------------------------------------

// A parcel of `device`, taken and let go of by another process, so that nothing of it is held.
Arrived empty_parcel(const std::string& device, const Pair& pair) {
  Child taker = taker_of(device, pair);
  EXPECT_EQ(taker.hear(), "sent");
  Arrived arrived = receive_parcel(pair.one.get());
  taker.kill();
  taker.reap();
  return arrived;
}

TEST(FalseParcel, another_node_is_refused) {
  const Pty claimed;
  const Pty other;
  const Pair pair;
  const auto held = unpacked(other.path(), empty_parcel(claimed.path(), pair));
  ASSERT_FALSE(held);
  EXPECT_EQ(held.error().code, errc::gone);
}

TEST(FalseParcel, a_descriptor_of_another_node_is_refused) {
  const Pty pty;
  const Pty other;
  const Pair pair;
  Arrived arrived = empty_parcel(pty.path(), pair);
  ASSERT_FALSE(arrived.descriptors.empty());
  arrived.descriptors.front() = base::ProcessFd::open(other.path().c_str(), O_RDWR | O_NOCTTY | O_NONBLOCK);
  const auto held = unpacked(pty.path(), std::move(arrived));
  ASSERT_FALSE(held);
  EXPECT_EQ(held.error().code, errc::gone);
}

TEST(FalseParcel, a_file_that_is_not_the_lock_file_is_refused) {
  const Pty pty;
  const TemporaryDirectory directory;
  const Pair pair;
  Arrived arrived = empty_parcel(pty.path(), pair);
  ASSERT_GE(arrived.descriptors.size(), 2U);  // the node, the proxy
  arrived.descriptors[1] = base::ProcessFd::open((directory / "file").c_str(), O_RDWR | O_CREAT);
  const auto held = unpacked(pty.path(), std::move(arrived));
  ASSERT_FALSE(held);
  EXPECT_THAT(held.error().message, HasSubstr("is not its"));
}

TEST(FalseParcel, too_few_and_too_many_descriptors_are_refused) {
  const Pty pty;
  const Pair pair;
  for (const int change : {-1, 1}) {
    Arrived arrived = empty_parcel(pty.path(), pair);
    if (change < 0) arrived.descriptors.pop_back();
    if (change > 0) arrived.descriptors.push_back(base::ProcessFd::open("/dev/null", O_RDWR));
    EXPECT_FALSE(unpacked(pty.path(), std::move(arrived))) << change;
  }
}

TEST(FalseParcel, a_lock_that_somebody_else_has_cannot_be_proven) {
  const Pty pty;
  const Pair pair;
  Arrived arrived = empty_parcel(pty.path(), pair);
  arrived.descriptors.clear();
  for (const std::string& file : lock_files_of(pty.path())) ::unlink(file.c_str());
  Child holder{[&](Peer& test) {
    const auto mine = claim(pty.path());
    test.tell(mine ? "claimed" : mine.error().message);
    test.hear();
    return 0;
  }};
  ASSERT_EQ(holder.hear(), "claimed");
  const device::Device device = devices_of(pty.path()).front();
  const auto open_anew = [&] {
    arrived.descriptors.clear();
    arrived.descriptors.push_back(base::ProcessFd::open(pty.path().c_str(), O_RDWR | O_NOCTTY | O_NONBLOCK));
    const std::string proxy = "/run/lock/holdfast-" + device::to_string(device.node.id);
    arrived.descriptors.push_back(base::ProcessFd::open(proxy.c_str(), O_RDWR));
    return Arrived{arrived.marks, std::move(arrived.descriptors)};
  };
  const auto held = unpacked(pty.path(), open_anew(), {}, convention::Locks::proven);
  ASSERT_FALSE(held);
  EXPECT_EQ(held.error().code, errc::refused);
  EXPECT_EQ(held.error().holder.value_or(Holder{}).pid, holder.pid());
  holder.kill();
  holder.reap();
  auto free_now = unpacked(pty.path(), open_anew(), {}, convention::Locks::proven);
  ASSERT_TRUE(free_now) << free_now.error().message;
  EXPECT_THAT(third_tries(pty.path()), HasSubstr("is held by"));
}

TEST(FalseParcel, a_lock_file_that_names_another_process_is_not_ours) {
  const Pty pty;
  const Pair pair;
  Arrived arrived = empty_parcel(pty.path(), pair);
  const auto files = lock_files_of(pty.path());
  ASSERT_FALSE(files.empty());
  for (const std::string& file : files) {
    const base::UniqueFd open{::open(file.c_str(), O_WRONLY | O_TRUNC | O_CLOEXEC)};
    ASSERT_EQ(::write(open.get(), "         1\n", 11), 11);
  }
  auto held = unpacked(pty.path(), std::move(arrived));
  ASSERT_TRUE(held) << held.error().message;
  held->give_back();
  EXPECT_EQ(lock_files_of(pty.path()), files);
  for (const std::string& file : files) ::unlink(file.c_str());
}

}  // namespace
}  // namespace holdfast::claiming
