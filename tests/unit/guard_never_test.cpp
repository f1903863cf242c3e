// SPDX-License-Identifier: MIT
#include "guard/guard.hpp"
#include "guard/never.hpp"

#include <gtest/gtest.h>
#include <sys/sysmacros.h>

namespace holdfast::guard {
namespace {

using device::DeviceId;
using device::Kind;

DeviceId character(unsigned major, unsigned minor) { return {Kind::character, major, minor, 0}; }
DeviceId block(unsigned major, unsigned minor) { return {Kind::block, major, minor, 0}; }

TEST(NeverGuarded, are_memory_consoles_and_names_for_other_terminals) {
  for (const DeviceId& id : {character(1, 3), character(1, 9), character(4, 0), character(4, 63), character(5, 0),
                             character(5, 1), character(5, 2), character(10, 130)})
    EXPECT_TRUE(never_guarded(id, {})) << device::to_string(id);
}

TEST(NeverGuarded, are_not_the_devices_that_people_claim) {
  for (const DeviceId& id : {character(4, 64), character(188, 0), character(21, 0), character(10, 131), block(1, 3),
                             block(8, 0), block(11, 0)})
    EXPECT_FALSE(never_guarded(id, {})) << device::to_string(id);
}

TEST(NeverGuarded, is_what_this_machine_lives_on) {
  const Vital machine{{character(4, 64)}, {block(8, 0), block(8, 1)}};
  EXPECT_EQ(never_guarded(character(4, 64), machine), "it is the machine's console");
  EXPECT_TRUE(never_guarded(block(8, 1), machine));
  EXPECT_FALSE(never_guarded(block(8, 2), machine));
  EXPECT_FALSE(never_guarded(character(8, 1), machine));
}

TEST(Keys, of_a_device_lead_back_to_it) {
  for (const DeviceId& id :
       {character(4, 64), block(259, 1'000'000), DeviceId{Kind::character, 136, 3, makedev(0, 24)}})
    EXPECT_EQ(id_of(key_of(id)), id) << device::to_string(id);
}

TEST(Keys, of_like_numbers_differ) {
  EXPECT_NE(key_of(block(8, 0)).kind, key_of(character(8, 0)).kind);
  const hf_guard_device one = key_of({Kind::character, 136, 3, makedev(0, 24)});
  const hf_guard_device other = key_of({Kind::character, 136, 3, makedev(0, 25)});
  EXPECT_NE(one.devpts, other.devpts);
}

}  // namespace
}  // namespace holdfast::guard
