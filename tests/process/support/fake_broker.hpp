// SPDX-License-Identifier: MIT
// fake_broker.hpp - a broker that says what a test wants it to: greets, subscribes, and answers by a function.
#pragma once

#include "base/unique_fd.hpp"
#include "wire/message.hpp"

#include <condition_variable>
#include <functional>
#include <list>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace holdfast::testing_support {

class FakeBroker {
 public:
  /// What to answer to a message other than Hello and Watch. All but the last are answers too.
  using Answer = std::function<std::vector<wire::FromBroker>(const wire::FromClient&)>;
  explicit FakeBroker(std::string path, Answer answer = {});
  FakeBroker(const FakeBroker&) = delete;
  FakeBroker& operator=(const FakeBroker&) = delete;
  ~FakeBroker();  ///< closes every connection

  /// To all who watch.
  void tell(const wire::Event& event);
  /// Waits until so many have asked to watch; what the last of them wants.
  wire::Watch watched_by(std::size_t count);

 private:
  void serve();
  void heard(int from);

  std::string path_;
  Answer answer_;
  base::UniqueFd listener_;
  base::UniqueFd ending_;
  std::list<base::UniqueFd> connections_;  // the thread's, but for the watchers'

  std::mutex mutex_;
  std::condition_variable subscribed_;
  std::vector<int> watchers_;
  wire::Watch wanted_;

  std::thread thread_;
};

/// An event as a broker would tell it.
[[nodiscard]] wire::Event told_event(wire::EventKind kind, const std::string& device, const std::string& detail = "");

}  // namespace holdfast::testing_support
