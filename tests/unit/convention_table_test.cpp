// SPDX-License-Identifier: MIT
// The one table that lists the conventions, and which node each applies to.
#include "convention/convention.hpp"

#include "convention/ddlp.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>

namespace holdfast::convention {
namespace {

using device::Family;
using device::Relation;

TEST(Table, has_each_convention_at_its_own_place) {
  ASSERT_EQ(table().size(), static_cast<std::size_t>(kConventionCount));
  for (std::size_t i = 0; i < table().size(); ++i) {
    EXPECT_EQ(static_cast<std::size_t>(table()[i].id), i);
    EXPECT_EQ(&entry(table()[i].id), &table()[i]);
  }
}

TEST(Table, names_are_unique_and_lead_back) {
  std::set<std::string_view> names;
  std::set<std::string_view> means;
  for (const Entry& one : table()) {
    EXPECT_TRUE(names.insert(one.name).second) << one.name;
    EXPECT_TRUE(means.insert(one.means).second) << one.means;
    EXPECT_EQ(convention_named(one.name), one.id);
    EXPECT_FALSE(one.takes.empty());
    EXPECT_FALSE(one.limit.empty());
  }
  EXPECT_FALSE(convention_named("UUCP"));
  EXPECT_FALSE(convention_named(""));
}

TEST(Table, nothing_that_needs_the_node_open_comes_before_what_does_not) {
  EXPECT_TRUE(std::ranges::is_sorted(table(), {}, &Entry::phase));
  EXPECT_EQ(table().front().id, Convention::proxy) << "two of ours meet before either touches what strangers see";
  EXPECT_EQ(table().back().id, Convention::tiocexcl) << "it shuts out whoever comes after";
}

device::Device device_of(Family family) {
  device::Device device;
  device.family = family;
  const bool block = family == Family::disk || family == Family::partition || family == Family::optical;
  device.node.id.kind = block ? device::Kind::block : device::Kind::character;
  return device;
}

std::set<Convention> applicable(const device::Device& device, std::optional<Relation> relation = {}) {
  Subject subject;
  subject.device = &device;
  subject.node = device.node;
  subject.family = device.family;
  subject.relation = relation;
  std::set<Convention> found;
  for (const Entry& one : table())
    if (const auto why_not = one.inapplicable(subject); !why_not)
      found.insert(one.id);
    else
      EXPECT_FALSE(why_not->empty()) << one.name;
  return found;
}

using enum Convention;

TEST(Applicability, terminal_has_lock_files_locks_and_tiocexcl) {
  EXPECT_EQ(applicable(device_of(Family::terminal)), (std::set{proxy, uucp, flock, posix, tiocexcl}));
  EXPECT_EQ(applicable(device_of(Family::pseudo_terminal)), (std::set{proxy, uucp, flock, posix, tiocexcl}));
}

TEST(Applicability, disk_has_locks_and_o_excl) {
  EXPECT_EQ(applicable(device_of(Family::disk)), (std::set{proxy, flock, posix, o_excl}));
}

TEST(Applicability, partition_locks_its_whole_disk_too_unless_that_is_part_of_the_claim) {
  EXPECT_EQ(applicable(device_of(Family::partition)), (std::set{proxy, whole_disk, flock, posix, o_excl}));
  EXPECT_EQ(applicable(device_of(Family::partition), Relation::partition), (std::set{proxy, flock, posix}));
}

TEST(Applicability, optical_drive_has_ddlp_on_all_its_nodes) {
  device::Device drive = device_of(Family::optical);
  EXPECT_EQ(applicable(drive), (std::set{proxy, ddlp, flock, posix, o_excl}));
  device::Device generic = device_of(Family::scsi_generic);
  EXPECT_EQ(applicable(generic), (std::set{proxy, flock, posix, o_excl})) << "an sg node of no optical drive";
  device::Sibling sibling;
  sibling.family = Family::optical;
  sibling.relation = Relation::same_function;
  generic.siblings.push_back(sibling);
  EXPECT_EQ(applicable(generic), (std::set{proxy, ddlp, flock, posix, o_excl}));
}

TEST(Applicability, device_whose_driver_knows_owners_has_its_lock) {
  device::Device device = device_of(Family::other);
  device.knows_owners = true;
  EXPECT_EQ(applicable(device), (std::set{proxy, driver}));
}

TEST(Applicability, device_that_acts_when_opened_has_the_proxy_alone) {
  EXPECT_EQ(applicable(device_of(Family::other)), std::set{proxy});
  EXPECT_EQ(applicable(device_of(Family::tape)), std::set{proxy});
}

TEST(Applicability, neighbour_that_is_not_opened_is_left_to_the_asked_node_where_its_own_claim_covers_that) {
  const auto has_proxy = [](Family asked, Family neighbour) {
    const device::Device device = device_of(asked);
    Subject subject;
    subject.device = &device;
    subject.node = device_of(neighbour).node;
    subject.family = neighbour;
    subject.relation = Relation::same_function;
    return !entry(proxy).inapplicable(subject);
  };
  EXPECT_FALSE(has_proxy(Family::optical, Family::other)) << "a bsg node's claim covers its drive";
  EXPECT_FALSE(has_proxy(Family::scsi_generic, Family::tape));
  EXPECT_TRUE(has_proxy(Family::tape, Family::tape)) << "neither of the two is opened";
  // The i2c adapter and the GPIO chip of a bridge, the iio device of a sensor: theirs covers nothing else.
  EXPECT_TRUE(has_proxy(Family::hid, Family::other));
  EXPECT_TRUE(has_proxy(Family::input, Family::other));
}

TEST(Applicability, nodes_without_a_convention_of_their_own_are_locked_as_files) {
  for (const Family family : {Family::usb, Family::hid, Family::input, Family::video})
    EXPECT_EQ(applicable(device_of(family)), (std::set{proxy, flock, posix})) << device::to_string(family);
}

device::Node node(std::string path, unsigned major, unsigned minor) {
  device::Node node;
  node.id = {device::Kind::block, major, minor, 0};
  node.path = std::move(path);
  return node;
}

TEST(DdlpSuffixes, sr_node_has_both_its_names_and_its_number) {
  EXPECT_EQ(ddlp_suffixes(node("/dev/sr0", 11, 0)), (std::vector<std::string>{"_-dev_-sr0", "_-dev_-scd0", "0B00"}));
  EXPECT_EQ(ddlp_suffixes(node("/dev/sr12", 11, 12)),
            (std::vector<std::string>{"_-dev_-sr12", "_-dev_-scd12", "0B0C"}));
}

TEST(DdlpSuffixes, sg_node_has_one_name_and_its_number) {
  EXPECT_EQ(ddlp_suffixes(node("/dev/sg2", 21, 2)), (std::vector<std::string>{"_-dev_-sg2", "1502"}));
}

TEST(DdlpSuffixes, escape_in_a_path_is_doubled) {
  EXPECT_EQ(ddlp_suffixes(node("/dev/a_-b/c", 21, 2)).front(), "_-dev_-a_-_-b_-c");
  EXPECT_EQ(ddlp_suffixes(node("/dev/a_b-", 21, 2)).front(), "_-dev_-a_b-");
}

}  // namespace
}  // namespace holdfast::convention
