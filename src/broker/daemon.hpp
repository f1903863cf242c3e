// SPDX-License-Identifier: MIT
// daemon.hpp - the loop: sockets, deaths, timers and the threads' answers on one side, the desk on the other. One
// message of a connection at a time, so that a client that talks much does not keep the others from being heard.
#pragma once

#include "arbiter/values.hpp"
#include "base/places.hpp"
#include "broker/kernel_guard.hpp"
#include "broker/limits.hpp"
#include "broker/log.hpp"

#include <holdfast/error.hpp>

#include <cstdint>
#include <memory>
#include <string>

namespace holdfast::broker {

enum class Privileges : std::uint8_t { dropped, kept };

struct Settings {
  std::string socket = "/run/holdfast/socket";
  std::string state = "/run/holdfast";
  std::string history;  ///< empty: none is kept
  std::string hooks = "/etc/holdfast/hooks.d";
  std::string group;  ///< may connect alone, and kick; empty: everybody may connect
  arbiter::Rules rules;
  Limits limits;
  GuardUse guard = GuardUse::automatic;
  Privileges privileges = Privileges::dropped;
  Verbosity verbosity = Verbosity::usual;
  base::Places places;
};

class Daemon {
 public:
  /// Listens when it returns.
  [[nodiscard]] static Result<Daemon> start(const Settings& settings);
  Daemon(Daemon&&) noexcept;
  Daemon& operator=(Daemon&&) = delete;
  ~Daemon();
  /// Until SIGTERM or SIGINT. Claims stay with the clients.
  [[nodiscard]] Result<> run();

 private:
  struct Inside;
  explicit Daemon(std::unique_ptr<Inside> inside);
  std::unique_ptr<Inside> inside_;
};

}  // namespace holdfast::broker
