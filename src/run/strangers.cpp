// SPDX-License-Identifier: MIT
// strangers.cpp - see the header. A close is told by inotify, an unmount by a poll(2) of mountinfo
// (proc_pid_mountinfo(5)); what lies on a device otherwise, and who cannot be seen, has no event.
#include "run/strangers.hpp"

#include "base/error.hpp"
#include "claim/holding.hpp"
#include "claim/obstacle_look.hpp"
#include "convention/convention.hpp"
#include "convention/holder.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/inotify.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <utility>

namespace holdfast::run {
namespace {

using observe::Standing;
using observe::Use;
using observe::UserKind;

// A second node of the same device, made elsewhere, is not watched.
constexpr std::chrono::seconds kSeldom{2};

bool has_it(const Use& use) { return use.standing == Standing::holds || use.standing == Standing::opened; }

Error timed_out(const std::string& met) {
  return base::failure(errc::timed_out, met + "; the time to wait is over", {});
}

Error refusal(const Stranger& stranger) {
  Holder holder = stranger.use.who;
  std::string means = "open";
  if (!holder.means.empty()) {
    means = std::move(holder.means.back());
    holder.means.pop_back();
  }
  convention::Subject subject;
  subject.node = stranger.node;
  return convention::busy(subject, std::move(holder), means).error;
}

}  // namespace

std::optional<Stranger> find_stranger(const observe::Survey& survey, const Wanted& wanted,
                                      const std::set<pid_t>& spared) {
  for (const device::Device& device : wanted.devices) {
    for (const device::Covered& covered : device::covered_nodes(device, wanted.options.cover)) {
      const auto seen =
          std::ranges::find(survey.devices, covered.node.id, [](const observe::DeviceUse& one) { return one.node.id; });
      if (seen == survey.devices.end()) continue;
      const auto is_anothers_claim = [&](const Use& use) {
        return use.ours && has_it(use) && use.who.pid != wanted.command.pid;
      };
      if (std::ranges::any_of(seen->uses, is_anothers_claim)) continue;
      for (const Use& use : seen->uses) {
        const bool is_spared = use.kind == UserKind::process && spared.contains(use.who.pid);
        if (has_it(use) && !use.ours && !is_spared) return Stranger{seen->node, use};
      }
    }
  }
  return std::nullopt;
}

Strangers::Strangers(Wanted wanted) : wanted_{std::move(wanted)} {
  for (const device::Device& device : wanted_.devices) names_.push_back(device.given);
}

Result<> Strangers::look(Moment moment) {
  const std::set<pid_t> spared{::getpid(), wanted_.command.pid};
  convention::UdevPatience patience;
  while (true) {
    auto survey = observe::survey(names_);
    if (!survey) return std::unexpected{std::move(survey.error())};
    blind_ = survey->blind.empty() ? std::string{} : fmt::format("{}", fmt::join(survey->blind, "; "));
    const auto stranger = find_stranger(*survey, wanted_, spared);
    if (!stranger) break;
    if (patience.try_again(stranger->use.who)) continue;
    Error error = refusal(*stranger);
    met_ = error.message;
    tells_ = what_tells(stranger->use);
    return std::unexpected{std::move(error)};
  }
  return moment == Moment::before && !blind_.empty() ? knock() : Result<>{};
}

// As a claim without the guard would begin: whoever burns has the drive with O_EXCL, or its sg node, where O_EXCL is
// refused while anybody has it. An answer other than that somebody has it is the claim's to give.
Result<> Strangers::knock() {
  Options probe;
  probe.mode = wanted_.options.mode;
  probe.cover = wanted_.options.cover;
  probe.opening = wanted_.options.opening;
  probe.conventions = ConventionSet{Convention::o_excl};
  auto tried = claiming::attempt(wanted_.devices, probe, wanted_.command);
  if (tried || tried.error().obstacle.kind != convention::Obstacle::Kind::busy) return {};
  drain();  // our own closes
  met_ = tried.error().obstacle.error.message;
  tells_ = Hearing::nothing;
  return std::unexpected{std::move(tried.error().obstacle.error)};
}

Strangers::Hearing Strangers::what_tells(const Use& use) {
  if (use.kind == UserKind::process) return Hearing::closes;
  const bool is_mounted =
      std::ranges::any_of(use.who.means, [](const std::string& means) { return means.starts_with("mounted on "); });
  return is_mounted ? Hearing::mounts : Hearing::nothing;
}

void Strangers::watch() {
  inotify_.reset(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
  mounts_.reset(::open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC));
  for (const device::Device& device : wanted_.devices)
    for (const device::Covered& covered : device::covered_nodes(device, wanted_.options.cover))
      if (inotify_)
        ::inotify_add_watch(inotify_.get(), covered.node.path.c_str(), IN_CLOSE | IN_DELETE_SELF | IN_ATTRIB);
}

void Strangers::drain() {
  alignas(inotify_event) std::array<char, 4096> events;
  while (inotify_ && ::read(inotify_.get(), events.data(), events.size()) > 0) {
  }
}

Result<> Strangers::wait(Wait wait, int life) {
  // What happened before there was a watch was not heard: look once more first.
  const bool is_first = !inotify_ && !mounts_;
  if (is_first) watch();
  // Each of our own looks may come of another's, whose closes we hear.
  if (auto apart = sleep(claiming::kApart, Hearing::nothing, wait, life); !apart || is_first) return apart;
  const auto pause = tells_ == Hearing::nothing ? Clock::duration{claiming::kLook} : Clock::duration{kSeldom};
  auto slept = sleep(pause, tells_, wait, life);
  drain();
  return slept;
}

Result<> Strangers::sleep(Clock::duration pause, Hearing hearing, Wait wait, int life) const {
  const auto end = Clock::now() + pause;
  while (true) {
    const auto now = Clock::now();
    if (wait.ends() && now >= wait.deadline()) return std::unexpected{timed_out(met_)};
    if (now >= end) return {};
    const auto left = (wait.ends() ? std::min(end, wait.deadline()) : end) - now;
    const auto whole = std::chrono::floor<std::chrono::seconds>(left);
    const timespec timeout{whole.count(), static_cast<long>(std::chrono::nanoseconds{left - whole}.count())};
    std::array<pollfd, 3> heard{{{life, POLLIN, 0},
                                 {hearing == Hearing::closes ? inotify_.get() : -1, POLLIN, 0},
                                 {hearing == Hearing::mounts ? mounts_.get() : -1, POLLPRI, 0}}};
    if (::ppoll(heard.data(), heard.size(), &timeout, nullptr) <= 0) continue;
    if (heard[0].revents != 0) return std::unexpected{base::failure(errc::not_held, met_, {})};
    return {};
  }
}

}  // namespace holdfast::run
