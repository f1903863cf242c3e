// SPDX-License-Identifier: MIT
// cover.cpp - which of the nodes known a claim takes. Upwards only: whoever claims a partition has no business with
// the rest of the disk, so what lies below is never covered; whoever claims a disk has its partitions too.
#include "device/device.hpp"

#include <algorithm>

namespace holdfast::device {
namespace {

bool is_covered(Relation relation, Cover cover) {
  switch (relation) {
    case Relation::same_function:
    case Relation::partition:
      return true;
    case Relation::layer_above:
    case Relation::same_unit:
      return cover == Cover::unit;
    case Relation::whole_disk:
    case Relation::layer_below:
      return false;
  }
  return false;
}

}  // namespace

std::vector<Covered> covered_nodes(const Device& device, Cover cover) {
  std::vector<Covered> covered{{device.node, device.family, std::nullopt}};
  for (const Sibling& sibling : device.siblings)
    if (is_covered(sibling.relation, cover)) covered.push_back({sibling.node, sibling.family, sibling.relation});
  std::ranges::sort(covered, {}, [](const Covered& one) { return one.node.id; });
  return covered;
}

}  // namespace holdfast::device
