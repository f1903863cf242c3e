// SPDX-License-Identifier: MIT
// wire_samples.hpp - one message of each kind with all its fields set, and one with as few as can be.
#pragma once

#include <vector>

#include "wire/codec.hpp"

namespace holdfast::wire {

inline DeviceName a_device(std::string path = "/dev/ttyUSB0") {
  return {std::move(path), NodeKind::character, 188, 7, 24};
}

inline Holder a_holder() {
  Holder holder;
  holder.pid = 4121;
  holder.start_ticks = 123456789;
  holder.command = "picocom";
  holder.user = "ann";
  holder.since = WallTime{std::chrono::seconds{1790000000}};
  holder.purpose = "flash";
  holder.means = {"UUCP lock file", "flock"};
  return holder;
}

inline Marks some_marks() {
  return {{{a_device(), NodeOpen::writable}, {a_device("/dev/sr0"), NodeOpen::closed}},
          {{0, Convention::uucp, MarkState::taken, {}, {"/run/lock/LCK..ttyUSB0"}, 0},
           {1, Convention::proxy, MarkState::taken, {}, {"/run/lock/holdfast-b11:0"}, 1},
           {1, Convention::o_excl, MarkState::not_available, "no medium", {}, 0}}};
}

inline std::vector<FromClient> client_samples() {
  using namespace std::chrono_literals;
  Claim claim;
  claim.devices = {a_device(), {"/dev/sr0", NodeKind::block, 11, 0, 0}};
  claim.mode = Mode::shared;
  claim.owner_scope = OwnerScope::tree;
  claim.cover = Cover::unit;
  claim.opening = Opening::never;
  claim.conventions = {Convention::proxy, Convention::tiocexcl};
  claim.patience = {true, 5s};
  claim.progress = Progress::told;
  claim.priority = Priority::urgent;
  claim.lease = 2h;
  claim.place = Place{77};
  claim.owner = OwnerGiven::by_pidfd;
  claim.purpose = "flash the board";
  claim.guarding = Guarding::off;
  return {Hello{1, 3, "holdfast"},
          Hello{},
          claim,
          Claim{},
          Cancel{9},
          Release{ClaimId{~std::uint64_t{0}}, Copies::closed},
          Downgrade{ClaimId{3}},
          Upgrade{ClaimId{3}, {true, std::nullopt}},
          Renew{ClaimId{3}, 10min},
          Resume{ClaimId{3}, Epoch{99}, some_marks()},
          Resume{},
          Watch{{a_device()}, 1U << static_cast<unsigned>(EventKind::denied)},
          Watch{},
          StatusQuery{{a_device()}},
          StatusQuery{},
          Kick{a_device(), 3s, "maintenance"},
          HistoryQuery{{a_device()}, WallTime{-1s}, 5},
          HistoryQuery{},
          Find{{a_device()}, OwnerGiven::by_pidfd},
          Find{}};
}

inline std::vector<FromBroker> broker_samples() {
  using namespace std::chrono_literals;
  const Event event{EventKind::downgraded, WallTime{1s}, a_device(), Mode::shared, a_holder(), 3s, 4ms, "by its owner"};
  const DeviceStatus status{a_device(),
                            Mode::shared,
                            Token{12},
                            Enforcement::guarded,
                            5s,
                            {a_holder(), Holder{}},
                            {Waiter{a_holder(), Mode::shared, Priority::high}},
                            1,
                            1ULL << 40U};
  return {Welcome{1, Epoch{99}},
          Welcome{},
          Granted{ClaimId{3},
                  Mode::shared,
                  Enforcement::native,
                  2h,
                  {{a_device(), Token{12}}, {a_device("/dev/sr0"), Token{1}}},
                  some_marks()},
          Granted{},
          Queued{Place{7}, 3, 10s},
          Queued{},
          Refused{errc::system_fault, 16, "/dev/ttyUSB0 is held by picocom[4121]", "/dev/ttyUSB0", a_holder()},
          Refused{},
          Done{},
          Renewed{ClaimId{3}, 10min},
          RevokeNotice{ClaimId{3}, Ending::device_gone, 5s, "root", "maintenance"},
          RevokeNotice{ClaimId{3}, Ending::denied, 0s, "cat[4121] of root", "/dev/ttyUSB0: cat[4121] was refused"},
          event,
          Event{},
          StatusAnswer{{status, DeviceStatus{}}, More::follows},
          StatusAnswer{},
          HistoryAnswer{{event, event}, More::follows},
          HistoryAnswer{},
          NotMine{"another devpts"},
          NotMine{},
          Found{ClaimId{3}, 2h},
          Found{}};
}

}  // namespace holdfast::wire
