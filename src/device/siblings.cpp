// SPDX-License-Identifier: MIT
// siblings.cpp - one drive hides behind sr0, sg2 and a bsg node, one disk behind its partitions and what is built on
// them. The kernel's tree holds the answer: nodes of one function share a directory, layers point at each other through
// holders/ and slaves/. The closest relation is looked for first, and a node keeps the first one found.
#include "device/siblings.hpp"

#include "device/node.hpp"

#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <array>
#include <utility>

namespace holdfast::device {
namespace {

// Deeper than any real tree (a hub chain has 7 levels, a stack of dm devices a handful); ends a loop in a broken one.
constexpr int kDeepest = 24;

using Skip = bool (*)(std::string_view name);

bool is_another_usb_device(std::string_view name) { return is_usb_device_name(name) || is_usb_root_hub_name(name); }

class Neighbourhood {
 public:
  Neighbourhood(Reader& reader, const std::string& self, const base::Places& places)
      : reader_{reader}, places_{places}, seen_{self} {}

  void of_function(const std::string& dir, Family family);
  void of_unit(const std::string& unit) { walk(unit, Relation::same_unit, is_another_usb_device, kDeepest); }

  [[nodiscard]] std::vector<Sibling> sorted() && {
    std::ranges::sort(found_, {}, [](const Sibling& sibling) { return sibling.node.id; });
    return std::move(found_);
  }

 private:
  struct Loop {
    std::string dir;
    dev_t backing;
  };

  bool add(const std::string& dir, Relation relation);
  void walk(const std::string& dir, Relation relation, Skip skip, int depth);
  void scsi_nodes(std::string_view dir);
  void nvme_twin(const std::string& dir);
  void video_nodes(std::string_view parent);
  void disk(const std::string& dir);
  void above(const std::string& dir, int depth);
  void below(const std::string& dir, int depth);
  const std::vector<Loop>& loops();
  [[nodiscard]] std::string backing_file(const std::string& dir);
  [[nodiscard]] std::string followed(const std::string& dir, std::string_view sub, std::string_view name);

  Reader& reader_;
  const base::Places& places_;
  std::vector<std::string> seen_;  // directories; the closest relation comes first and stays
  std::vector<Sibling> found_;
  std::optional<std::vector<Loop>> loops_;
};

// Whether the device is new here. It may have no node in our /dev: then what is built on it still counts.
bool Neighbourhood::add(const std::string& dir, Relation relation) {
  if (std::ranges::find(seen_, dir) != seen_.end()) return false;
  seen_.push_back(dir);
  const Uevent event = reader_.uevent(dir);
  if (event.devname.empty()) return false;
  const std::string subsystem = reader_.subsystem(dir);
  const DeviceId id{subsystem == "block" ? Kind::block : Kind::character, event.major, event.minor};
  auto node = node_at(places_.dev + "/" + event.devname);
  if (node && node->id == id) found_.push_back({*std::move(node), family_of(subsystem, event, id), relation});
  return true;
}

void Neighbourhood::walk(const std::string& dir, Relation relation, Skip skip, int depth) {
  // What never holds a device node, and is wide.
  static constexpr std::array<std::string_view, 8> kBarren{"power",   "queue",  "mq",    "integrity",
                                                           "holders", "slaves", "trace", "msi_irqs"};
  if (depth == 0) return;
  const std::vector<Entry> entries = reader_.entries(dir);
  if (std::ranges::find(entries, "dev", &Entry::name) != entries.end()) add(dir, relation);
  for (const Entry& entry : entries) {
    if (!entry.directory || entry.name.starts_with("ep_") || skip(entry.name)) continue;
    if (std::ranges::find(kBarren, entry.name) != kBarren.end()) continue;
    walk(dir + "/" + entry.name, relation, skip, depth - 1);
  }
}

void Neighbourhood::of_function(const std::string& dir, Family family) {
  const Ancestry names = ancestry(dir);
  switch (family) {
    case Family::partition: {
      const std::string whole{parent_of(dir)};
      above(dir, kDeepest);
      add(whole, Relation::whole_disk);
      below(whole, kDeepest);
      return;
    }
    case Family::disk:
      disk(dir);
      below(dir, kDeepest);
      nvme_twin(dir);
      break;
    case Family::hid:
    case Family::input: {
      // A receiver for several devices is a HID device with others inside: each is a function of its own.
      const std::string_view shared = names.hid.empty() ? parent_of(dir) : names.hid;
      // "mice" hears all mice and belongs to none: it lies beside the input devices, not in one
      // (drivers/input/mousedev.c).
      if (!names.hid.empty() || is_input_device_name(name_of(shared)))
        walk(std::string{shared}, Relation::same_function, is_hid_device_name, kDeepest);
      return;
    }
    case Family::video:
      video_nodes(name_of(parent_of(dir)) == "video4linux" ? parent_of(parent_of(dir)) : parent_of(dir));
      return;
    case Family::other:
      nvme_twin(dir);
      break;
    default:
      break;
  }
  if (!names.scsi.empty()) scsi_nodes(names.scsi);
}

void Neighbourhood::scsi_nodes(std::string_view dir) {
  for (const std::string_view driver : {"block", "scsi_generic", "bsg", "scsi_tape", "scsi_changer"}) {
    const std::string nodes = std::string{dir}.append(1, '/').append(driver);
    for (const Entry& entry : reader_.entries(nodes)) {
      if (!entry.directory) continue;
      const std::string node = nodes + "/" + entry.name;
      if (add(node, Relation::same_function) && driver == "block") disk(node);
    }
  }
}

// A name space has a block node nvme0n1 and, since Linux 5.13, a character node ng0n1 beside it.
void Neighbourhood::nvme_twin(const std::string& dir) {
  const std::string_view name = name_of(dir);
  const std::string beside = std::string{parent_of(dir)} + "/";
  if (name.starts_with("nvme")) add(beside + "ng" + std::string{name.substr(4)}, Relation::same_function);
  if (name.starts_with("ng")) {
    const std::string block = beside + "nvme" + std::string{name.substr(2)};
    if (add(block, Relation::same_function)) disk(block);
  }
}

void Neighbourhood::video_nodes(std::string_view parent) {
  const std::string dir{parent};
  for (const Entry& entry : reader_.entries(dir + "/video4linux"))
    if (entry.directory) add(dir + "/video4linux/" + entry.name, Relation::same_function);
  for (const Entry& entry : reader_.entries(dir))
    if (entry.directory && entry.name.starts_with("media")) add(dir + "/" + entry.name, Relation::same_function);
}

void Neighbourhood::disk(const std::string& dir) {
  const std::string_view name = name_of(dir);
  for (const Entry& entry : reader_.entries(dir)) {
    if (!entry.directory || !entry.name.starts_with(name)) continue;
    const std::string part = dir + "/" + entry.name;
    // An eMMC's boot areas are disks of their own although they lie in the main one's directory.
    const bool is_partition = reader_.uevent(part).devtype == "partition";
    add(part, is_partition ? Relation::partition : Relation::same_unit);
    if (is_partition) above(part, kDeepest);
  }
  above(dir, kDeepest);
}

std::string Neighbourhood::followed(const std::string& dir, std::string_view sub, std::string_view name) {
  const std::string from = dir + "/" + std::string{sub};
  const std::string target = reader_.link(from + "/" + std::string{name});
  return target.empty() ? std::string{} : resolved(from, target);
}

void Neighbourhood::above(const std::string& dir, int depth) {
  if (depth == 0) return;
  const auto climb = [this, depth](const std::string& layer) {
    if (!add(layer, Relation::layer_above)) return;
    for (const Entry& entry : reader_.entries(layer))
      if (entry.directory && entry.name.starts_with(name_of(layer))) {
        add(layer + "/" + entry.name, Relation::layer_above);
        above(layer + "/" + entry.name, depth - 1);
      }
    above(layer, depth - 1);
  };
  for (const Entry& entry : reader_.entries(dir + "/holders"))
    if (const std::string layer = followed(dir, "holders", entry.name); !layer.empty()) climb(layer);
  if (loops().empty()) return;
  const Uevent event = reader_.uevent(dir);
  for (const Loop& loop : loops())
    if (loop.backing == ::makedev(event.major, event.minor)) climb(loop.dir);
}

void Neighbourhood::below(const std::string& dir, int depth) {
  if (depth == 0) return;
  const auto descend = [this, depth](const std::string& layer) {
    if (!add(layer, Relation::layer_below)) return;
    below(layer, depth - 1);
    if (reader_.uevent(layer).devtype != "partition") return;
    const std::string whole{parent_of(layer)};
    if (add(whole, Relation::layer_below)) below(whole, depth - 1);
  };
  if (dir.find("/devices/virtual/") == std::string::npos) return;  // only dm, md and loop are built on others
  for (const Entry& entry : reader_.entries(dir + "/slaves"))
    if (const std::string layer = followed(dir, "slaves", entry.name); !layer.empty()) descend(layer);
  if (!name_of(dir).starts_with("loop")) return;
  const auto node = node_at(backing_file(dir));
  if (!node || node->id.kind != Kind::block) return;
  if (const std::string layer = directory_of(reader_, node->id, places_); !layer.empty()) descend(layer);
}

// The loop driver keeps no holders/ links; each loop device names its backing file instead. Only names in /dev are
// looked at: any other path may lie on a file system that does not answer.
std::string Neighbourhood::backing_file(const std::string& dir) {
  const std::string file = reader_.attribute(dir, "loop/backing_file");
  return file.starts_with("/dev/") ? places_.dev + file.substr(4) : std::string{};
}

const std::vector<Neighbourhood::Loop>& Neighbourhood::loops() {
  if (loops_) return *loops_;
  loops_.emplace();
  const std::string all = places_.sys + "/devices/virtual/block";
  for (const Entry& entry : reader_.entries(all)) {
    if (!entry.name.starts_with("loop")) continue;
    std::string dir = all + "/" + entry.name;
    const auto node = node_at(backing_file(dir));
    if (node && node->id.kind == Kind::block) loops_->push_back({std::move(dir), node->id.rdev()});
  }
  return *loops_;
}

}  // namespace

std::string unit_of(Reader& reader, const std::string& dir, Family family) {
  const Ancestry names = ancestry(dir);
  for (const std::string_view unit : {names.usb, names.scsi, names.pci})
    if (!unit.empty()) return std::string{unit};
  switch (family) {
    case Family::partition:
      return std::string{parent_of(dir)};
    case Family::hid:
    case Family::input:
    case Family::video:
    case Family::other: {
      // On no bus that tells devices apart by name: then what its driver is bound to. Not for terminals, because all
      // old ports of a board are bound as one device (drivers/tty/serial/8250/8250_platform.c).
      const std::string_view bound = reader.binding(dir).device;
      return bound.empty() ? dir : std::string{bound};
    }
    default:
      return dir;
  }
}

std::vector<Sibling> siblings_of(Reader& reader, const std::string& dir, const std::string& unit, Family family,
                                 const base::Places& places) {
  Neighbourhood neighbourhood{reader, dir, places};
  neighbourhood.of_function(dir, family);
  const Ancestry names = ancestry(dir);
  const bool on_a_bus = !names.usb.empty() || !names.scsi.empty() || !names.pci.empty();
  if (on_a_bus || (unit != dir && family != Family::partition)) neighbourhood.of_unit(unit);
  return std::move(neighbourhood).sorted();
}

}  // namespace holdfast::device
