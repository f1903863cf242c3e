// SPDX-License-Identifier: MIT
// explain.cpp - a claim on paper. It asks the same table in the same order as a claim does, and instead of taking it
// asks access(2) what would come of it.
#include "observe/explain.hpp"

#include "base/error.hpp"
#include "base/process.hpp"
#include "convention/ddlp.hpp"
#include "convention/proxy.hpp"
#include "convention/uucp.hpp"
#include "observe/groups.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>
#include <holdfast/enforcement.hpp>

#include <algorithm>
#include <cerrno>

#include <nlohmann/json.hpp>

namespace holdfast::observe {
namespace {

using convention::Entry;
using convention::Subject;
using nlohmann::ordered_json;

int access_error(const std::string& path, int mode) {
  return ::faccessat(AT_FDCWD, path.c_str(), mode, AT_EACCESS) == 0 ? 0 : errno;
}

// Why no file can be made in a directory; empty when one can.
std::string directory_obstacle(const std::string& directory) {
  const int wrong = access_error(directory, W_OK | X_OK);
  return wrong == 0 ? std::string{} : fmt::format("{} cannot be written to: {}", directory, base::errno_text(wrong));
}

// Why lock files cannot be locked or made; empty when they can.
std::string lock_file_obstacle(const std::string& directory, const std::vector<std::string>& files) {
  bool all_there = true;
  for (const std::string& file : files) {
    const int wrong = access_error(file, R_OK | W_OK);
    if (wrong == ENOENT) all_there = false;
    if (wrong != 0 && wrong != ENOENT) return fmt::format("{}: {}", file, base::errno_text(wrong));
  }
  return all_there ? std::string{} : directory_obstacle(directory);
}

std::string open_obstacle(const device::Node& node) {
  if (access_error(node.path, R_OK) == 0 || access_error(node.path, W_OK) == 0) return {};
  return fmt::format("not permitted to open it: needs the group {} or root", group_name(node.gid));
}

const device::Sibling* whole_disk_of(const device::Device& device) {
  const auto disk = std::ranges::find(device.siblings, device::Relation::whole_disk, &device::Sibling::relation);
  return disk == device.siblings.end() ? nullptr : &*disk;
}

Step step_of(const Entry& entry, const Subject& subject, const base::Places& places) {
  Step step;
  step.convention = entry.id;
  step.node = subject.node.path;
  if (auto why = entry.inapplicable(subject)) {
    step.state = Step::State::not_applicable;
    step.reason = std::move(*why);
    return step;
  }
  switch (entry.id) {
    case Convention::proxy:
      step.files = {convention::proxy_path(subject.node.id, places)};
      step.reason = lock_file_obstacle(places.lock_dir, step.files);
      break;
    case Convention::ddlp:
      for (const std::string& suffix : convention::ddlp_suffixes(subject.node))
        step.files.push_back(places.tmp + "/ddlpb-lock-" + suffix);
      step.reason = lock_file_obstacle(places.tmp, step.files);
      break;
    case Convention::uucp:
      for (const std::string& name : convention::uucp_names(*subject.device, subject.node).create)
        step.files.push_back(places.lock_dir + "/" + name);
      // A file of somebody else's is read, judged and replaced, not written to: only the directory matters.
      step.reason = directory_obstacle(places.lock_dir);
      break;
    case Convention::whole_disk: {
      const device::Sibling* disk = whole_disk_of(*subject.device);
      step.reason = disk == nullptr ? "the whole disk has no node" : open_obstacle(disk->node);
      if (disk != nullptr) step.files = {disk->node.path};
      break;
    }
    case Convention::flock:
    case Convention::posix:
    case Convention::o_excl:
    case Convention::driver:
    case Convention::tiocexcl:
      step.reason = open_obstacle(subject.node);
      break;
  }
  if (!step.reason.empty()) step.state = Step::State::not_available;
  return step;
}

bool is_covered(const std::vector<device::Covered>& covered, const device::Node& node) {
  return std::ranges::any_of(covered, [&](const device::Covered& one) { return one.node.id == node.id; });
}

std::string shown(std::string_view text) { return base::printable(text, 512); }

std::string fact(std::string_view name, std::string_view value) {
  return value.empty() ? std::string{} : fmt::format("  {:<12} {}\n", name, shown(value));
}

std::string identity_text(const device::Device& device) {
  const device::Node& node = device.node;
  std::string text = fmt::format("{}\n", shown(node.path));
  if (device.given != node.path) text += fact("given as", device.given);
  text += fact("number", device::to_string(node.id));
  text += fact("kind", device::to_string(device.family));
  text += fact("label", device.label);
  text += fact("subsystem", device.subsystem);
  text += fact("driver", device.driver);
  text += fact("unit", device.unit);
  text += fact("stable name", device.stable_name.empty() ? "none: the name may change when it is plugged in again"
                                                         : device.stable_name);
  for (const std::string& link : device.links) text += fact("link", link);
  text += fact("permissions",
               fmt::format("{:04o} {}:{}", node.mode & 07777U, base::user_name(node.uid), group_name(node.gid)));
  return text;
}

std::string node_line(const device::Node& node, device::Family family, std::string_view relation) {
  return fmt::format("  {:<16} {:<9} {:<15} {}\n", shown(node.path), device::to_string(node.id),
                     device::to_string(family), relation);
}

std::string cover_text(const Explanation& explanation) {
  std::string text = explanation.cover == Cover::unit ? "a claim of the whole unit covers\n" : "a claim covers\n";
  for (const device::Covered& one : explanation.covered)
    text += node_line(one.node, one.family, one.relation ? device::to_string(*one.relation) : "the device itself");
  if (explanation.left.empty()) return text;
  text += "and leaves alone\n";
  for (const device::Sibling& one : explanation.left) {
    const bool wider =
        std::ranges::any_of(explanation.wider, [&](const auto& other) { return other.node.id == one.node.id; });
    text += node_line(one.node, one.family,
                      fmt::format("{}{}", device::to_string(one.relation), wider ? " (--unit covers it)" : ""));
  }
  return text;
}

// One convention over all its nodes. Where it applies to none, one line with the first reason.
std::string convention_text(const Entry& entry, const std::vector<const Step*>& steps) {
  std::string text = fmt::format("  {:<10} ", entry.name);
  const bool nowhere =
      std::ranges::all_of(steps, [](const Step* step) { return step->state == Step::State::not_applicable; });
  if (nowhere) return text + fmt::format("does not apply: {}\n", shown(steps.front()->reason));
  text += fmt::format("{}\n", entry.takes);
  for (const Step* step : steps) {
    if (step->state == Step::State::not_applicable) continue;
    text += fmt::format("    {}", shown(step->node));
    if (step->state == Step::State::not_available) text += fmt::format(": not available: {}", shown(step->reason));
    text += "\n";
    for (const std::string& file : step->files) text += fmt::format("      {}\n", shown(file));
  }
  return text + fmt::format("    limit: {}\n", entry.limit);
}

Enforcement level_of(const Explanation& explanation) {
  if (explanation.guard.kind == GuardOutlook::Kind::would) return Enforcement::guarded;
  const bool native = std::ranges::any_of(explanation.steps, [&](const Step& step) {
    // There it is looked at and not set.
    const bool only_looks =
        step.convention == Convention::tiocexcl && explanation.device.family == device::Family::pseudo_terminal;
    return step.node == explanation.device.node.path && step.state == Step::State::would_take && !only_looks &&
           convention::entry(step.convention).native;
  });
  return native ? Enforcement::native : Enforcement::advisory;
}

std::string_view meaning_of(Enforcement level) {
  switch (level) {
    case Enforcement::advisory:
      return "nobody stops a program that asks no convention";
    case Enforcement::native:
      return "the kernel refuses the programs that the native conventions bind";
    case Enforcement::guarded:
      break;
  }
  return "the kernel refuses everybody but the holder, root included";
}

std::string level_text(const Explanation& explanation) {
  const Enforcement level = level_of(explanation);
  std::string text = fmt::format("enforcement: {}: {}\n", to_string(level), meaning_of(level));
  const GuardOutlook& guard = explanation.guard;
  if (guard.kind == GuardOutlook::Kind::would_not) text += fmt::format("  not guarded: {}\n", shown(guard.reason));
  const bool has_sg = std::ranges::any_of(
      explanation.covered, [](const device::Covered& one) { return one.family == device::Family::scsi_generic; });
  if (guard.kind == GuardOutlook::Kind::would && has_sg)
    text += "  of holdfast run: with --guard alone, which leaves out o_excl\n";
  if (guard.kind == GuardOutlook::Kind::unknown) text += fmt::format("  guarded or not: {}\n", shown(guard.reason));
  return text;
}

ordered_json or_null(const std::string& text) { return text.empty() ? ordered_json{} : ordered_json(text); }

ordered_json json_of(const Explanation& explanation, const device::Sibling& sibling) {
  const auto same = [&](const auto& other) { return other.node.id == sibling.node.id; };
  const bool covered = is_covered(explanation.covered, sibling.node);
  ordered_json out;
  out["device"] = sibling.node.path;
  out["number"] = device::to_string(sibling.node.id);
  out["family"] = device::to_string(sibling.family);
  out["relation"] = device::to_string(sibling.relation);
  out["covered"] = covered;
  out["covered_by_unit"] = covered || std::ranges::any_of(explanation.wider, same);
  return out;
}

ordered_json json_of(const Step& step) {
  const Entry& entry = convention::entry(step.convention);
  ordered_json out;
  out["convention"] = entry.name;
  out["means"] = entry.means;
  out["device"] = step.node;
  out["state"] = to_string(step.state);
  out["reason"] = or_null(step.reason);
  out["files"] = step.files;
  out["takes"] = entry.takes;
  out["limit"] = entry.limit;
  out["native"] = entry.native;
  return out;
}

}  // namespace

std::string_view to_string(Step::State state) {
  switch (state) {
    case Step::State::would_take:
      return "would_take";
    case Step::State::not_available:
      return "not_available";
    case Step::State::not_applicable:
      break;
  }
  return "not_applicable";
}

Result<Explanation> explain(const std::string& device, Cover cover, const base::Places& places) {
  auto found = device::identify(device, places);
  if (!found) return std::unexpected{std::move(found.error())};
  Explanation explanation;
  explanation.device = std::move(*found);
  explanation.cover = cover;
  explanation.covered = device::covered_nodes(explanation.device, cover);
  const auto whole_unit = device::covered_nodes(explanation.device, Cover::unit);
  for (const device::Sibling& sibling : explanation.device.siblings) {
    if (is_covered(explanation.covered, sibling.node)) continue;
    explanation.left.push_back(sibling);
    if (is_covered(whole_unit, sibling.node)) explanation.wider.push_back(sibling);
  }
  for (const Entry& entry : convention::table())
    for (const device::Covered& one : explanation.covered) {
      Subject subject;
      subject.device = &explanation.device;
      subject.node = one.node;
      subject.family = one.family;
      subject.relation = one.relation;
      explanation.steps.push_back(step_of(entry, subject, places));
    }
  auto now = survey({device}, places);
  if (!now) return std::unexpected{std::move(now.error())};
  explanation.now = std::move(*now);
  return explanation;
}

std::string to_text(const Explanation& explanation, std::chrono::system_clock::time_point now, Zone zone) {
  std::string text = identity_text(explanation.device) + cover_text(explanation);
  text += "it takes, in this order\n";
  for (const Entry& entry : convention::table()) {
    std::vector<const Step*> steps;
    for (const Step& step : explanation.steps)
      if (step.convention == entry.id) steps.push_back(&step);
    if (!steps.empty()) text += convention_text(entry, steps);
  }
  text += level_text(explanation);
  return text + "now\n" + to_table(explanation.now, now, zone);
}

std::string to_json(const Explanation& explanation) {
  const device::Device& device = explanation.device;
  ordered_json out;
  out["device"] = device.node.path;
  out["given"] = device.given;
  out["number"] = device::to_string(device.node.id);
  out["family"] = device::to_string(device.family);
  out["subsystem"] = or_null(device.subsystem);
  out["driver"] = or_null(device.driver);
  out["unit"] = or_null(device.unit);
  out["label"] = or_null(device.label);
  out["stable_name"] = or_null(device.stable_name);
  out["links"] = device.links;
  out["owner"] = base::user_name(device.node.uid);
  out["group"] = group_name(device.node.gid);
  out["mode"] = fmt::format("{:04o}", device.node.mode & 07777U);
  out["siblings"] = ordered_json::array();
  for (const device::Sibling& sibling : device.siblings) out["siblings"].push_back(json_of(explanation, sibling));
  out["steps"] = ordered_json::array();
  for (const Step& step : explanation.steps) out["steps"].push_back(json_of(step));
  out["enforcement"] = to_string(level_of(explanation));
  out["not_guarded"] = or_null(explanation.guard.reason);
  // A reading by the same grammar that to_json(Survey) writes: one place decides how a survey looks.
  out["now"] = ordered_json::parse(to_json(explanation.now), nullptr, false);
  return out.dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace holdfast::observe
