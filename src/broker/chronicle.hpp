// SPDX-License-Identifier: MIT
// chronicle.hpp - what happened, told to those who watch and written down for those who ask later.
//
// A watcher that does not read must neither stall the broker nor grow it: each has a bounded queue, and where events
// fell out of it an event of kind `missed` stands in their place. Writing waits for disks, so it happens in the
// history's own thread; its answers come back through deliver().
#pragma once

#include "broker/history.hpp"
#include "wire/message.hpp"

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace holdfast::broker {

/// Where packets for one connection go.
class Listener {
 public:
  virtual ~Listener() = default;
  /// Sends a packet whole, without waiting. No: it can take none just now; it then hears nothing more until
  /// Chronicle::ready(). Must not call the chronicle. What fails for good counts as sent: forget() will follow.
  [[nodiscard]] virtual bool send(std::span<const std::byte> packet) = 0;
};

/// \thread  the loop's alone
class Chronicle {
 public:
  /// How much waits for one watcher.
  struct Room {
    std::size_t events = 1024;
    std::size_t bytes = 512 * 1024;
  };
  /// `say` gets a line for the log.
  using Say = std::function<void(std::string_view)>;
  explicit Chronicle(Say say, Room room);
  explicit Chronicle(Say say) : Chronicle{std::move(say), Room{}} {}

  /// Begins to write into this file, in a thread made now: capabilities must have been dropped before, because a thread
  /// has its own. A file that cannot be used is said once, and everything goes on without it.
  void start_history(const std::string& path, const Retention& retention = {});
  /// Readable when deliver() has something to do; -1 without a history.
  [[nodiscard]] int fd() const { return history_ ? history_->fd() : -1; }
  void deliver();

  void happened(const wire::Event& event);

  /// From now on, in place of an earlier wish. The caller has answered the Watch.
  void subscribe(Listener& listener, const wire::Watch& wanted);
  /// Answers with the message's number, as the listener takes it; one question at a time.
  void ask(Listener& listener, std::uint32_t number, const wire::HistoryQuery& query);
  /// The listener takes packets again.
  void ready(Listener& listener);
  /// Whether packets wait for ready().
  [[nodiscard]] bool wants_ready(const Listener& listener) const;
  /// The listener goes.
  void forget(Listener& listener);

 private:
  using Packet = std::shared_ptr<const std::vector<std::byte>>;
  struct Outbox {
    Listener* listener = nullptr;
    std::uint64_t ticket = 0;
    std::optional<wire::Watch> wanted;
    std::deque<Packet> packets;
    std::size_t bytes = 0;
    std::uint64_t lost = 0;  // after the last of the packets
    std::optional<Question> asked;
    bool asking = false;  // the history has the question
  };

  Outbox& outbox_of(Listener& listener);
  static void give(Outbox& outbox, const Packet& packet);
  void offer(Outbox& outbox, const Packet& packet);
  void drain(Outbox& outbox);
  void ask_on(Outbox& outbox);

  Say say_;
  Room room_;
  std::unique_ptr<History> history_;
  std::unordered_map<const Listener*, Outbox> outboxes_;
  std::unordered_map<std::uint64_t, Outbox*> tickets_;
  std::uint64_t last_ticket_ = 0;
};

}  // namespace holdfast::broker
