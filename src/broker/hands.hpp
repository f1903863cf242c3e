// SPDX-License-Identifier: MIT
// hands.hpp - taking marks and giving them back, so that the loop never waits for a device.
//
// A terminal is opened and closed in microseconds, in the loop. A drive or a disk may take seconds, udevd may be at it,
// and naming a stranger reads all of /proc: that is done by a few threads, and the answer comes through deliver().
#pragma once

#include "base/places.hpp"
#include "base/unique_fd.hpp"
#include "broker/interfaces.hpp"
#include "broker/permission.hpp"

#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <thread>
#include <vector>

namespace holdfast::broker {

class Desk;

class MarkHands final : public Hands {
 public:
  /// \param permission  outlives the hands
  MarkHands(const Permission& permission, const Clock& clock, base::Places places);
  MarkHands(const MarkHands&) = delete;
  MarkHands& operator=(const MarkHands&) = delete;
  ~MarkHands() override;

  std::optional<Taken> take(wire::ClaimId claim, const Taking& taking) override;
  std::optional<Changed> change(wire::ClaimId claim, claiming::Holding holding, Mode mode) override;
  std::optional<Result<claiming::Holding>> adopt(wire::ClaimId claim, const Taking& taking, wire::Marks marks,
                                                 std::vector<base::ProcessFd> descriptors) override;
  [[nodiscard]] bool can_pass_on(const claiming::Holding& holding) override { return holding.can_be_passed_on(); }
  void pass_on(claiming::Holding& holding, const Taking& to, const std::string& lock_file,
               wire::WallTime since) override;
  [[nodiscard]] std::string lock_file_of(const Taking& waiting) override;
  bool give_back(wire::ClaimId claim, claiming::Holding holding) override;

  /// Takes as long as it takes: before anybody is heard.
  [[nodiscard]] Taken take_now(const Taking& taking) const;
  /// Readable when deliver() has something to say.
  [[nodiscard]] int fd() const { return ready_.get(); }
  void deliver(Desk& desk);

 private:
  using Answer = std::move_only_function<void(Desk&)>;
  using Job = std::move_only_function<Answer()>;

  [[nodiscard]] bool may_take_long(const Taking& taking);
  void hand_over(Job job);
  void work();

  const Permission& permission_;
  const Clock& clock_;
  base::Places places_;
  base::UniqueFd ready_;
  std::map<device::DeviceId, arbiter::Time> stranger_seen_;

  std::mutex mutex_;
  std::condition_variable wanted_;
  std::deque<Job> jobs_;
  std::vector<Answer> answers_;
  std::size_t idle_ = 0;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace holdfast::broker
