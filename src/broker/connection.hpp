// SPDX-License-Identifier: MIT
// connection.hpp - one client's socket: whole packets in, with the kernel's word on who sent them, and packets out,
// which never wait. What the client does not read is kept for it up to a limit, with copies of the descriptors, because
// a claim can be over before its answer is read.
#pragma once

#include "base/unique_fd.hpp"
#include "wire/codec.hpp"

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <vector>

namespace holdfast::broker {

/// What came with one recvmsg(2).
struct Packet {
  std::span<const std::byte> bytes;
  std::vector<base::UniqueFd> descriptors;
  pid_t sender = 0;
};

class Connection {
 public:
  explicit Connection(base::UniqueFd socket) : socket_{std::move(socket)} {}

  enum class Heard : std::uint8_t {
    packet,
    nothing,
    end,
    end_unread,  ///< and the last that was sent was not read
  };
  /// `buffer` has wire::kMostBytes; the packet points into it. What is cut off, in bytes or in descriptors, ends the
  /// connection.
  [[nodiscard]] Heard receive(std::span<std::byte> buffer, Packet& packet);

  enum class Sent : std::uint8_t {
    sent,
    queued,
    full,    ///< more waits than is kept for anybody
    failed,  ///< the kernel does not take it: too many descriptors under way
    end,     ///< nobody is there
  };
  [[nodiscard]] Sent send(std::span<const std::byte> bytes, std::span<const int> descriptors);
  /// The socket takes packets again.
  [[nodiscard]] Sent flush();

  [[nodiscard]] int fd() const { return socket_.get(); }
  [[nodiscard]] std::size_t queued_bytes() const { return queued_bytes_; }
  /// Whether everything that was ever sent to us was received.
  [[nodiscard]] bool is_drained() const { return is_drained_; }
  /// Whether everything that was ever sent by us was received, or its receiver is gone.
  [[nodiscard]] bool is_read() const;
  /// Ends it for the other side, who may read what it was sent.
  void hang_up() const;
  /// The same, and gives what is still to be closed.
  [[nodiscard]] std::vector<base::UniqueFd> end();

 private:
  struct Waiting {
    std::vector<std::byte> bytes;
    std::vector<base::UniqueFd> descriptors;
  };
  [[nodiscard]] Sent keep(std::span<const std::byte> bytes, std::span<const int> descriptors);

  base::UniqueFd socket_;
  std::deque<Waiting> waiting_;
  std::size_t queued_bytes_ = 0;
  bool is_drained_ = false;
};

}  // namespace holdfast::broker
