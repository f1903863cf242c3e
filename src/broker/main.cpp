// SPDX-License-Identifier: MIT
// main.cpp - holdfastd's command line.
#include "broker/daemon.hpp"

#include <fmt/format.h>
#include <getopt.h>

#include <array>
#include <cstdio>
#include <optional>
#include <string>
#include <string_view>

namespace {

using holdfast::broker::Settings;

constexpr int kUsage = 64;  // sysexits(3)
constexpr int kFault = 71;

constexpr std::string_view kHelp =
    R"(usage: holdfastd [--socket PATH] [--state DIR] [--history FILE|none] [--policy phase_fair|writer_first|fifo]
                 [--hooks DIR] [--group NAME] [--guard auto|on|off] [--no-drop] [--verbose]
The broker of holdfast: queues claims fairly and keeps them through its own restart. See holdfastd(8).
)";

enum Option : int {
  kSocket = 256,
  kState,
  kHistory,
  kPolicy,
  kHooks,
  kGroup,
  kGuard,
  kNoDrop,
  kVerbose,
  kHelpWanted,
  kVersion
};

constexpr std::array kOptions{
    option{"socket", required_argument, nullptr, kSocket},   option{"state", required_argument, nullptr, kState},
    option{"history", required_argument, nullptr, kHistory}, option{"policy", required_argument, nullptr, kPolicy},
    option{"hooks", required_argument, nullptr, kHooks},     option{"group", required_argument, nullptr, kGroup},
    option{"guard", required_argument, nullptr, kGuard},     option{"no-drop", no_argument, nullptr, kNoDrop},
    option{"verbose", no_argument, nullptr, kVerbose},       option{"help", no_argument, nullptr, kHelpWanted},
    option{"version", no_argument, nullptr, kVersion},       option{}};

std::optional<holdfast::arbiter::Policy> policy_named(std::string_view name) {
  using enum holdfast::arbiter::Policy;
  if (name == "phase_fair") return phase_fair;
  if (name == "writer_first") return writer_first;
  if (name == "fifo") return fifo;
  return std::nullopt;
}

std::optional<holdfast::broker::GuardUse> guard_use_named(std::string_view name) {
  using enum holdfast::broker::GuardUse;
  if (name == "auto") return automatic;
  if (name == "on") return on;
  if (name == "off") return off;
  return std::nullopt;
}

int usage() {
  std::fputs("holdfastd: see holdfastd --help\n", stderr);
  return kUsage;
}

/// The exit status when there is nothing more to do.
std::optional<int> read(int count, char** arguments, Settings& settings) {
  while (true) {
    const int found = ::getopt_long(count, arguments, "", kOptions.data(), nullptr);
    switch (found) {
      case -1:
        return optind == count ? std::nullopt : std::optional{usage()};
      case kSocket:
        settings.socket = optarg;
        break;
      case kState:
        settings.state = optarg;
        break;
      case kHistory:
        settings.history = std::string_view{optarg} == "none" ? "" : optarg;
        break;
      case kPolicy:
        if (const auto policy = policy_named(optarg))
          settings.rules.policy = *policy;
        else
          return usage();
        break;
      case kHooks:
        settings.hooks = optarg;
        break;
      case kGroup:
        settings.group = optarg;
        break;
      case kGuard:
        if (const auto use = guard_use_named(optarg))
          settings.guard = *use;
        else
          return usage();
        break;
      case kNoDrop:
        settings.privileges = holdfast::broker::Privileges::kept;
        break;
      case kVerbose:
        settings.verbosity = holdfast::broker::Verbosity::all;
        break;
      case kHelpWanted:
        std::fwrite(kHelp.data(), 1, kHelp.size(), stdout);
        return 0;
      case kVersion:
        std::puts("holdfastd " HOLDFAST_VERSION);
        return 0;
      default:
        return usage();
    }
  }
}

int fail(const holdfast::Error& error) {
  std::fputs(fmt::format("holdfastd: {}\n", error.message).c_str(), stderr);
  return kFault;
}

}  // namespace

int main(int count, char** arguments) {
  Settings settings;
  settings.history = "/var/lib/holdfast/history.sqlite";
  if (const auto status = read(count, arguments, settings)) return *status;
  auto daemon = holdfast::broker::Daemon::start(settings);
  if (!daemon) return fail(daemon.error());
  if (auto ended = daemon->run(); !ended) return fail(ended.error());
  return 0;
}
