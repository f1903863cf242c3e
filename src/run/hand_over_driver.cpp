// SPDX-License-Identifier: MIT
// hand_over_driver.cpp - the driver's lock of a device that knows an owner, given up at the instant the command asks
// for it, and taken again when the command has given it up.
//
// The owner is a process, so nothing can be shared or passed: we UNLOCK and let the command's own LOCK go on. A
// stranger who waits inside LOCK at that moment comes before the command; strangers who do not wait yet cannot.
#include "run/hand_over.hpp"

#include <holdfast_exclusive.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdint>

namespace holdfast::run {
namespace {

class DriverLending final : public Lending {
 public:
  DriverLending(const convention::MarkView& mark, const Surroundings& surroundings)
      : fd_{mark.fd}, node_{mark.node}, surroundings_{surroundings}, lent_{surroundings.mode == Mode::shared} {}

  std::optional<Answer> consider(const Question& question, const Caller& caller) override {
    if (question.call != Call::ioctl || !is_lock(static_cast<std::uint32_t>(question.arguments[1])))
      return std::nullopt;
    const auto target = caller.descriptor(question.int_argument(0));
    if (!target || !caller.still_asks() || !S_ISCHR(target->st_mode) || target->st_rdev != node_.id.rdev())
      return std::nullopt;
    if (!lent_) lend();
    not_before_ = Clock::now() + kCallUnderWay;
    return Answer::carry_on();
  }

  bool lent() const override { return lent_ && surroundings_.mode == Mode::exclusive; }

  // Free again, and somebody had it since: else the command's call is only late. Whoever waits comes first.
  void take_back(Clock::time_point now) override {
    const hf_exclusive_owner before = owner();
    if (now < not_before_ || before.state != HF_EXCLUSIVE_FREE || before.token == token_) return;
    if (::ioctl(fd_, HF_IOC_TRYLOCK, 0) != 0) return;
    if (owner().waiters > 0) {
      lend();
      return;
    }
    lent_ = false;
  }

  void refresh() override {
    const hf_exclusive_owner now = owner();
    const bool ours = now.state == HF_EXCLUSIVE_PROCESS && now.pid == ::getpid();
    lent_ = !ours;
    token_ = now.token - 1;
    // The command may have asked while nobody of us could give it up.
    if (ours && now.waiters > 0) lend();
  }

  std::vector<std::string> watched() const override { return {}; }

 private:
  static bool is_lock(std::uint32_t command) {
    return command == HF_IOC_LOCK || command == HF_IOC_TRYLOCK || command == HF_IOC_LOCK_UNTIL;
  }

  hf_exclusive_owner owner() const {
    hf_exclusive_owner owner{};
    ::ioctl(fd_, HF_IOC_OWNER, &owner);
    return owner;
  }

  void lend() {
    token_ = owner().token;
    ::ioctl(fd_, HF_IOC_UNLOCK, 0);
    lent_ = true;
    surroundings_.tell("the driver's lock of " + node_.path + " handed over");
  }

  int fd_;
  device::Node node_;
  const Surroundings& surroundings_;
  bool lent_;
  std::uint64_t token_ = 0;  // of the last owner before the command
  Clock::time_point not_before_{};
};

}  // namespace

void add_driver_hand_overs(Lendings& to, Views marks, const Surroundings& surroundings) {
  for (const convention::MarkView& mark : marks)
    if (mark.convention == Convention::driver && mark.fd >= 0)
      to.push_back(std::make_unique<DriverLending>(mark, surroundings));
}

}  // namespace holdfast::run
