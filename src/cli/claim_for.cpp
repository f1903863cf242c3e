// SPDX-License-Identifier: MIT
// claim_for.cpp - see the header. A pidfd says who: a number could be another process's by the time it is read.
#include "cli/claim_for.hpp"

#include "base/error.hpp"
#include "claim/brokered.hpp"
#include "cli/command.hpp"

#include <fmt/format.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <holdfast/enforcement.hpp>

#include <cerrno>

namespace holdfast::cli {
namespace {

struct Process {
  base::UniqueFd pidfd;
  claiming::Owner owner;
};

Result<Process> find(pid_t pid) {
  Process process;
  process.pidfd.reset(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  const int errnum = errno;
  // The facts belong to the process of the pidfd, which keeps its number from being used again once it is reaped.
  const auto facts = process.pidfd ? base::facts_of(pid) : std::nullopt;
  if (!facts)
    return std::unexpected(
        base::failure(errc::invalid_argument,
                      fmt::format("process {}: {}", pid, base::errno_text(process.pidfd ? ESRCH : errnum)), {}));
  process.owner = {facts->id, process.pidfd.get(), {}, claiming::Afterwards::stays};
  return process;
}

int say_claimed(const std::vector<std::string>& devices) {
  print("claimed");
  for (const std::string& device : devices) print(" " + base::printable(device));
  print("\n");
  return flush_output() ? 0 : kExitSystem;
}

// Nothing to give back is a refusal, and no fault of the system's.
int fail_as_refusal(Error error, pid_t pid, const std::vector<std::string>& devices) {
  if (error.code != errc::not_held) return fail(error);
  error.code = errc::refused;
  error.message = fmt::format("{}: process {} has no claim of {} by claim --pid",
                              base::printable(fmt::format("{}", fmt::join(devices, ", "))), pid,
                              devices.size() == 1 ? "it" : "them together");
  return fail(error);
}

}  // namespace

int claim_for(const ClaimWords& words, const std::vector<std::string>& devices) {
  const auto process = find(words.owner);
  if (!process) return fail(process.error());
  if (words.options.lease) {
    const auto renewed = claiming::renew_for(process->owner, devices, *words.options.lease);
    if (renewed) return say_claimed(devices);
    if (renewed.error().code != errc::not_held) return fail(renewed.error(), words.refused_status);
  }
  auto claimed = attempt_and_tell(
      words, [&](const Options& options) { return claiming::claim_either_way(devices, options, process->owner); });
  if (!claimed) return fail(claimed.error(), words.refused_status);
  if (words.verbose) {
    for (const MarkReport& mark : claimed->holding.report()) complain(to_string(mark));
    complain(fmt::format("enforcement: {}", to_string(claimed->enforcement())));
  }
  claimed->holding.let_go();
  return say_claimed(devices);
}

int release_command(const CommandLine& line) {
  if (!line.command.empty() || line.operands.empty()) return fail_usage("release", "name at least one device");
  pid_t pid = 0;
  for (const GivenOption& given : line.options) {
    if (given.key != kPid) continue;
    const auto parsed = parse_pid(given.value);
    if (!parsed) return fail_usage("release", parsed.error());
    pid = *parsed;
  }
  if (pid == 0) return fail_usage("release", "say whose claim with --pid, as in --pid $$");
  const auto process = find(pid);
  if (!process) return fail(process.error());
  const auto released = claiming::release_for(process->owner, line.operands);
  return released ? 0 : fail_as_refusal(released.error(), pid, line.operands);
}

}  // namespace holdfast::cli
