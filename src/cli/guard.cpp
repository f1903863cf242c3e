// SPDX-License-Identifier: MIT
// guard.cpp - `holdfast guard`: the kernel's programs on, off, and what they do at the moment.
#include "guard/guard.hpp"

#include "base/error.hpp"
#include "base/process.hpp"
#include "cli/command.hpp"
#include "observe/guard_view.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>

namespace holdfast::cli {
namespace {

using observe::GuardView;

constexpr int kOff = 1;

// Pseudo-terminals are looked for in our own devpts alone: another instance's has no path that we know.
std::string path_of(const device::DeviceId& id) {
  const std::string number = device::to_string(id);
  if (id.devpts == 0) {
    const auto found = device::identify(number);
    return found ? found->node.path : number;
  }
  constexpr unsigned kFirstMajor = 136;  // Documentation/admin-guide/devices.txt: UNIX98 terminals
  const auto node = device::look_at(fmt::format("/dev/pts/{}", (id.major - kFirstMajor) * 256 + id.minor));
  return node && node->id == id ? node->path : number;
}

std::string command_of(pid_t pid) {
  const auto facts = base::facts_of(pid);
  return facts ? facts->command : "?";
}

GuardView::Device seen(const guard::Guarded& device) {
  GuardView::Device out{path_of(device.device), device::to_string(device.device), device.owners, device.denials, {}};
  if (device.until) out.left = std::max(*device.until - guard::BootClock::now(), guard::BootClock::duration{0});
  return out;
}

// not_held when it is off; for those who may not look that cannot be told from a folder that is closed to them.
Result<guard::Guard> open_guard() {
  auto guard = guard::Guard::open();
  if (guard || guard.error().code != errc::not_permitted) return guard;
  return std::unexpected(base::failure(errc::not_permitted, "the guard is root's: run holdfast guard as root", {}));
}

Result<GuardView> look() {
  GuardView view;
  for (guard::Lack& lack : guard::lacks()) view.lacks.push_back({std::move(lack.what), std::move(lack.remedy)});
  if (!guard::installed() && ::geteuid() == 0) return view;
  const auto guard = open_guard();
  if (!guard && guard.error().code == errc::not_held) return view;
  if (!guard) return std::unexpected(guard.error());
  view.state = GuardView::State::on;
  for (const guard::Guarded& device : guard->status()) view.devices.push_back(seen(device));
  for (const guard::Mapping& mapping : guard->mappings())
    view.mappings.push_back({path_of(mapping.device), mapping.pid, command_of(mapping.pid)});
  return view;
}

int show(const CommandLine& line) {
  const auto view = look();
  if (!view) return fail(view.error());
  print(line.has(kJson) ? observe::to_json(*view) : observe::to_text(*view));
  return view->state == GuardView::State::on ? 0 : kOff;
}

int switch_on() {
  const auto lacks = guard::lacks();
  for (const guard::Lack& lack : lacks) complain(fmt::format("the guard: {}; remedy: {}", lack.what, lack.remedy));
  if (!lacks.empty()) return kExitSystem;
  const auto installed = guard::install();
  if (installed) return 0;
  Error error = installed.error();
  if (error.code == errc::not_permitted)
    error.message += "; needs CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN: run it as root";
  return fail(error);
}

std::string names_of(const std::vector<guard::Guarded>& devices) {
  std::string names;
  for (const guard::Guarded& device : devices) names += (names.empty() ? "" : ", ") + path_of(device.device);
  return names;
}

int switch_off(const CommandLine& line) {
  if (!guard::installed() && ::geteuid() == 0) return 0;
  const auto guard = open_guard();
  if (!guard && guard.error().code == errc::not_held) return 0;
  if (!guard && (guard.error().code == errc::not_permitted || !line.has(kForce))) return fail(guard.error());
  const auto devices = guard ? guard->status() : std::vector<guard::Guarded>{};
  if (!devices.empty() && !line.has(kForce)) {
    complain(fmt::format("the guard is needed for {}; --force switches it off all the same", names_of(devices)));
    return kExitRefused;
  }
  if (const auto removed = guard::remove(); !removed) return fail(removed.error());
  if (!devices.empty()) complain(fmt::format("no longer guarded: {}", names_of(devices)));
  return 0;
}

}  // namespace

int guard_command(const CommandLine& line) {
  const bool is_one = line.operands.size() == 1 && line.command.empty();
  const std::string_view what = is_one ? std::string_view{line.operands.front()} : "";
  if (what == "status") return show(line);
  if (what == "on") return switch_on();
  if (what == "off") return switch_off(line);
  return fail_usage("guard", "say status, on or off");
}

}  // namespace holdfast::cli
